"""Pass a plain dump on, less some of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .events import Handler
from .script import RESTRICT_LINE, ScriptReader

LARGEST = 16 << 20
"""Most bytes of definitions to keep."""


class Filter(Handler):
    """A handler that puts into `out` what to keep of a script: see `passed_through`."""

    def __init__(self) -> None:
        self.out: list[bytes] = []


class _WithoutRestrict(Filter):
    def __init__(self, rows: bool) -> None:
        super().__init__()
        self._rows = rows

    def text(self, data: bytes, line: int) -> None:
        self.out.append(data)

    def volatile_text(self, data: bytes, line: int) -> None:
        if not RESTRICT_LINE.fullmatch(data):
            self.out.append(data)

    def copy_data(self, data: bytes) -> None:
        if self._rows:
            self.out.append(data)


class Definitions(Handler):
    """Keeps what `strip_restrict` leaves of a script without `rows`, unless that is large, as INSERT statements are."""

    def __init__(self) -> None:
        self._kept: list[bytes] = []
        self._size = 0

    @property
    def script(self) -> bytes | None:
        """That script; None if it was too large to keep."""
        return b"".join(self._kept) if self._size <= LARGEST else None

    def text(self, data: bytes, line: int) -> None:
        """Keep the text."""
        self._size += len(data)
        if self._size <= LARGEST:
            self._kept.append(data)
        else:
            self._kept.clear()

    def volatile_text(self, data: bytes, line: int) -> None:
        """Keep the line unless it restricts psql."""
        if not RESTRICT_LINE.fullmatch(data):
            self.text(data, line)


def strip_restrict(chunks: Iterable[bytes], *beside: Handler, rows: bool = True) -> Iterator[bytes]:
    """Remove the script's own `\\restrict` and `\\unrestrict` lines, with `rows` false also COPY data; the rest stays
    byte for byte. Handlers `beside` get the events first.

    These lines can't be nested inside a restriction of ours, and psql before 15.14, 16.10 and 17.6 does not know them.
    Lines that look like them inside COPY data or quotes stay. Raises ScriptDamaged, at the latest after the last
    chunk: only a stream that ended without an exception is the whole script.
    """
    return passed_through(_WithoutRestrict(rows), chunks, *beside)


def passed_through(kept: Filter, chunks: Iterable[bytes], *beside: Handler) -> Iterator[bytes]:
    """Yield what a filter keeps of a script while it is read; handlers `beside` get the events first, and what they
    raise ends it before anything of the chunk is yielded. Raises ScriptDamaged, at the latest after the last chunk."""
    reader = ScriptReader(*beside, kept)
    for chunk in chunks:
        reader.feed(chunk)
        if kept.out:
            yield b"".join(kept.out)
            kept.out.clear()
    reader.finish()
    if kept.out:
        yield b"".join(kept.out)
