"""What the file of a backup tells by itself: dumps (`sql`), volume archives (`archive`), files that others made.

It needs no server, and knows nothing of where the file came from.
"""
