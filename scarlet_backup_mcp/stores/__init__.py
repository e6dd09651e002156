"""Stores beside PostgreSQL in the same Compose project, such as Qdrant and Redis: which there are, and what they hold.

No PostgreSQL here."""
