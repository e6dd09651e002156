"""How a backup becomes a database again: the steps (`staging`), psql, what is tried when it refuses, and what is compared.

Restores take these steps on the live server, drills in the sandbox.
"""
