"""The throw-away server in which backups are tried out (`lifecycle`), and what only it may convert (`pg_restore`).

Drills and restores use it; it never touches the live server.
"""
