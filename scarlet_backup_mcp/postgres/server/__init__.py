"""What a running server is asked: sessions through its own psql, catalogue queries, databases as wholes.

Every statement that reads or changes a live server stands here.
"""
