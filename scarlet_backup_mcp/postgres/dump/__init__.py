"""How a plain dump reads: its statements and rows as a stream, what it defines, and when two of them are equal."""
