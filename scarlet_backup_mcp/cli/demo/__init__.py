"""A demonstration on a throw-away PostgreSQL with a small memory in it: no Docker, nothing of the user's touched."""
