"""Turn a backup into a database: the steps (`staging`), psql, further attempts if the server refuses, the comparison.

Restores take these steps on the live server, drills in the sandbox.
"""
