"""Set-ups that people run PostgreSQL in. `rows/` is the table: a row is a test and a line of docs/setups.md."""
