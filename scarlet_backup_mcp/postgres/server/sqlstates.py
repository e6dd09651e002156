"""Classes of the errors that a server gives, by their SQLSTATE (appendix A of PostgreSQL's documentation)."""

UNKNOWN_NAMES = frozenset({"42883", "42P01", "42704", "3F000"})
"""SQLSTATEs of a function or operator, a table, a type or another object, and a schema that is not found."""
