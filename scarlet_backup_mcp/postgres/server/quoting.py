"""Names and texts as SQL. Whatever comes from a user or a catalogue reaches SQL through here."""

from __future__ import annotations


def identifier(name: str) -> str:
    """`name` as a quoted identifier. Raises ValueError for a NUL, which PostgreSQL can't hold."""
    if "\0" in name:
        raise ValueError("a name can't hold a NUL character")
    return '"' + name.replace('"', '""') + '"'


def qualified(schema: str, name: str) -> str:
    """`schema.name`, both quoted."""
    return f"{identifier(schema)}.{identifier(name)}"


def literal(text: str | None) -> str:
    """`text` as a string constant, the same with `standard_conforming_strings` on and off; None as NULL."""
    if text is None:
        return "NULL"
    if "\0" in text:
        raise ValueError("a text can't hold a NUL character")
    quoted = "'" + text.replace("'", "''") + "'"
    return " E" + quoted.replace("\\", "\\\\") if "\\" in quoted else quoted
