"""The sandbox: a throw-away server to try backups in (`lifecycle`) and to convert archives (`pg_restore`).

Drills and restores use it; it never touches the live server.
"""
