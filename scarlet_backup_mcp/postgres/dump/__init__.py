"""Read plain dumps: their statements and rows as a stream, what they define, and whether two are equal."""
