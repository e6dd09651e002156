"""What an interrupted restore leaves behind and how the next call finishes it or rolls it back.

The journal, and what is moved inside a volume by programs in a helper container.
"""
