"""Quote names and texts for SQL. Everything from a user or a catalogue reaches SQL through here."""

from __future__ import annotations


def identifier(name: str) -> str:
    """Quote `name` as an identifier. Raises ValueError for a NUL, which PostgreSQL can't store."""
    if "\0" in name:
        raise ValueError("a name can't hold a NUL character")
    return '"' + name.replace('"', '""') + '"'


def qualified(schema: str, name: str) -> str:
    """Return `schema.name`, both quoted."""
    return f"{identifier(schema)}.{identifier(name)}"


def literal(text: str | None) -> str:
    """Quote `text` as a string constant, valid with `standard_conforming_strings` on or off; None becomes NULL."""
    if text is None:
        return "NULL"
    if "\0" in text:
        raise ValueError("a text can't hold a NUL character")
    quoted = "'" + text.replace("'", "''") + "'"
    return " E" + quoted.replace("\\", "\\\\") if "\\" in quoted else quoted
