"""Read a backup's file by itself: dumps (`sql`), volume archives (`archive`), foreign files.

It needs no server, and does not care where the file came from.
"""
