"""Classes of server errors, by their SQLSTATE (appendix A of PostgreSQL's documentation)."""

UNKNOWN_NAMES = frozenset({"42883", "42P01", "42704", "3F000"})
"""SQLSTATEs for an unknown function or operator, table, type or other object, and schema."""
OUT_OF_LOCKS = "out of shared memory"
"""The message of a server that has run out of locks, in the language of lc_messages=C (seen from 15.20 to 18.6). Its
SQLSTATE, 53200, is that of any lack of memory."""
