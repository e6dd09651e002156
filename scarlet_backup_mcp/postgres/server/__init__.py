"""Talk to a running server: sessions through its own psql, catalogue queries, whole databases.

Every statement that reads or changes a live server is here.
"""
