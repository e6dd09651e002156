"""Classes of server errors, by their SQLSTATE (appendix A of PostgreSQL's documentation)."""

UNKNOWN_NAMES = frozenset({"42883", "42P01", "42704", "3F000"})
"""SQLSTATEs for an unknown function or operator, table, type or other object, and schema."""
