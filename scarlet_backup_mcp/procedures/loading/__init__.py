"""How a backup becomes a database again: the steps (`staging`), psql, what is tried when it refuses, the comparison.

Restores take these steps on the live server, drills in the sandbox.
"""
