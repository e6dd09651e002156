"""Locate the objects of a script: pg_dump writes a comment before each."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator

_HEADING = re.compile(rb"^-- (?:Data for )?Name: (.+); Type: ([A-Z ]+); Schema: (.+?)(?:; Owner: .*)?$", re.MULTILINE)
_MARK = b"-- "
LONGEST = 2000
"""Longest such comment, in bytes."""


class Headings:
    """Collects the comments of a script while it is read. A real one or nothing follows rows that look like one."""

    def __init__(self) -> None:
        self._lines, self._begun = 0, b""
        self._at: list[int] = []
        self._names: list[str] = []

    def passing(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Pass the stream on unchanged, and collect its comments."""
        for chunk in chunks:
            self._note(self._begun + chunk)
            yield chunk

    def before(self, line: int) -> str:
        """Return the last object before that line (1-based), for example "INDEX public.agents_name"; "" if none."""
        place = bisect_right(self._at, line)
        return self._names[place - 1] if place else ""

    def _note(self, data: bytes) -> None:
        whole = data.rfind(b"\n") + 1
        if _MARK in data:
            for found in _HEADING.finditer(data, 0, whole):
                self._at.append(self._lines + data.count(b"\n", 0, found.start()) + 1)
                name, kind, schema = (part.decode("utf-8", "replace") for part in found.groups())
                self._names.append(f"{kind} {name}" if schema == "-" else f"{kind} {schema}.{name}")
        self._lines += data.count(b"\n", 0, whole)
        self._begun = data[whole:] if len(data) - whole <= LONGEST else b"-"
