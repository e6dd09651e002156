"""The whole memory: the database with the stores beside it."""
