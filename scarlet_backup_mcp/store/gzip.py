"""gzip streams (RFC 1952), with the fast ISA-L where its package has a wheel (not for Windows on ARM)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import zlib
else:
    try:
        from isal import isal_zlib as zlib
    except ImportError:
        import zlib

MAGIC = b"\x1f\x8b\x08"
LEVEL = 1
FORMAT = 31
"""zlib's `wbits` for a gzip stream with the largest window ("inflateInit2" in its manual)."""
CHUNK = 1 << 20


class GzipDamaged(Exception):
    """The stream is cut off or corrupt."""


class Compressing(Protocol):
    """A stream being written."""

    def compress(self, data: bytes, /) -> bytes:
        """Compress `data`; return what is ready to be written."""
        ...

    def flush(self) -> bytes:
        """Return the end of the stream."""
        ...


def compressor() -> Compressing:
    """Begin a stream."""
    return zlib.compressobj(LEVEL, wbits=FORMAT)


def decompress(chunks: Iterator[bytes], *, single: bool = False) -> Iterator[bytes]:
    """Yield the plain bytes of one or more joined streams, in pieces of at most 1 MiB: zeros shrink a thousandfold.

    Always reads all of `chunks`. Then raises GzipDamaged if they were no complete stream, or several where `single`
    asks for one.
    """
    stream, begun = zlib.decompressobj(FORMAT), False
    try:
        for chunk in chunks:
            rest, more = chunk, True
            while rest or more:
                if stream.eof:
                    if single:
                        raise GzipDamaged("something follows the gzip stream")
                    stream = zlib.decompressobj(FORMAT)
                begun = True
                plain = stream.decompress(rest, CHUNK)
                if plain:
                    yield plain
                rest = stream.unused_data if stream.eof else stream.unconsumed_tail
                more = len(plain) == CHUNK and not stream.eof
    except (zlib.error, GzipDamaged) as error:
        for _ in chunks:
            pass
        raise GzipDamaged(f"the gzip stream is corrupt ({error})") from None
    if not begun or not stream.eof:
        raise GzipDamaged("the gzip stream is cut off")
