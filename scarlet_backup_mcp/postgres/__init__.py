"""What PostgreSQL is asked and how its files read: `dump`, `server`, `cluster`. Knows no Docker.

Procedures import it; programs run through the protocol of `hosts`.
"""
