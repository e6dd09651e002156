"""Read and unpack a backup's bytes in bounded chunks."""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import zstandard

from ..errors import StoreError
from ..models.common import Compression, Packing
from . import gzip
from .encodings import HEAD
from .permissions import cannot_read

CHUNK = 1 << 20
ZSTD_CHUNK = 512
"""Compressed bytes to unpack at a time: 4 of them may hold 128 KiB, and the result is one piece."""
ZSTD_LEVEL = 1
"""Half the time of level 3, and a dump with vectors in text gets no larger: about a quarter of its size."""
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
"""What a frame begins with (RFC 8878)."""
XZ_MEMORY = 256 << 20
"""Bytes of memory that reading an xz stream may take: level 9 needs 65 MiB ("xz -9" in its manual page)."""
XZ_MAGIC = b"\xfd7zXZ\x00"
_TOO_LARGE = "Memory usage limit exceeded"
"""What Python's lzma says when `memlimit` does not suffice (`catch_lzma_error` in _lzmamodule.c)."""
ZSTD_WINDOW = 128 << 20
"""Largest window to accept, the same as `zstd -d` accepts without `--long`."""


class CompressionDamaged(Exception):
    """The compressed stream is cut off or corrupt."""


class UnpackingRefused(StoreError):
    """The compressed stream needs more memory than allowed."""


class FileReader:
    """Read one file from beginning to end, once. `bytes` and `sha256` are of what was read so far."""

    def __init__(self, path: Path, watch: Callable[[int], object] = lambda done: None) -> None:
        self.path = path
        self.bytes = 0
        self._watch = watch
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The digest in hex."""
        return self._digest.hexdigest()

    def read_all(self) -> None:
        """Read all of it, for its digest. Raises StoreError."""
        for _ in self:
            pass

    def __iter__(self) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    self._digest.update(chunk)
                    self.bytes += len(chunk)
                    self._watch(self.bytes)
                    yield chunk
        except OSError as error:
            raise cannot_read(self.path, error) from error


def decompress(chunks: Iterator[bytes], compression: Packing, *, single: bool = False) -> Iterator[bytes]:
    """Yield the plain bytes. Always reads all of `chunks`, so that a digest of them is complete.

    Then raises CompressionDamaged if they were no complete compressed stream, or several where `single` asks for one;
    UnpackingRefused if that can't be found out.
    """
    if compression == "none":
        yield from chunks
    elif compression == "gzip":
        try:
            yield from gzip.decompress(chunks, single=single)
        except gzip.GzipDamaged as error:
            raise CompressionDamaged(str(error)) from None
    elif compression == "xz":
        yield from _unxz(chunks)
    else:
        yield from _unzstd(chunks, single)


def _unxz(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack one or more joined streams, skipping padding between them."""
    stream, begun = lzma.LZMADecompressor(memlimit=XZ_MEMORY), False
    try:
        for chunk in chunks:
            rest = chunk
            while rest or not (stream.eof or stream.needs_input):
                if stream.eof:
                    rest = rest.lstrip(b"\0")
                    if not rest:
                        break
                    stream = lzma.LZMADecompressor(memlimit=XZ_MEMORY)
                begun = True
                if plain := stream.decompress(rest, CHUNK):
                    yield plain
                rest = stream.unused_data if stream.eof else b""
    except lzma.LZMAError as error:
        for _ in chunks:
            pass
        if str(error) == _TOO_LARGE:
            raise UnpackingRefused(
                f"Unpacking its xz stream needs more than the {XZ_MEMORY >> 20} MiB of memory allowed here.",
                "The file may well be intact: unpack it with `xz -d`, and name the resulting file.",
            ) from None
        raise CompressionDamaged(f"the xz stream is corrupt ({error})") from None
    if not begun or not stream.eof:
        raise CompressionDamaged("the xz stream is cut off")


def _unzstd(chunks: Iterator[bytes], single: bool) -> Iterator[bytes]:
    frame = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj()
    begun = False
    unpacked: list[bytes] = []
    size = 0
    try:
        for chunk in chunks:
            for at in range(0, len(chunk), ZSTD_CHUNK):
                rest = chunk[at : at + ZSTD_CHUNK]
                while rest:
                    if frame.eof:
                        if single:
                            raise CompressionDamaged("something follows the zstd frame")
                        frame = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj()
                    begun = True
                    plain = frame.decompress(rest)
                    unpacked.append(plain)
                    size += len(plain)
                    rest = frame.unused_data if frame.eof else b""
                if size >= CHUNK:
                    yield b"".join(unpacked)
                    unpacked, size = [], 0
        if size:
            yield b"".join(unpacked)
    except (zstandard.ZstdError, CompressionDamaged) as error:
        for _ in chunks:
            pass
        raise CompressionDamaged(f"the zstd stream is corrupt ({error})") from None
    if not begun or not frame.eof:
        raise CompressionDamaged("the zstd stream is cut off")


def beginning(path: Path, compression: Packing) -> bytes:
    """Return the first 4 KiB of the plain bytes; fewer if the file is shorter or damaged. Raises StoreError."""
    try:
        with path.open("rb") as file:
            found = file.read(HEAD if compression == "none" else CHUNK)
    except OSError as error:
        raise cannot_read(path, error) from error
    plain = b""
    with suppress(CompressionDamaged):  # there is more of it
        for piece in decompress(iter([found]), compression):
            plain += piece
            if len(plain) >= HEAD:
                break
    return plain[:HEAD]


class Compressor:
    """Compress bytes into a stream with a checksum that `gzip -d` or `zstd -d` reads."""

    def __init__(self, compression: Compression) -> None:
        self._frame: gzip.Compressing | None = None
        if compression == "gzip":
            self._frame = gzip.compressor()
        elif compression == "zstd":
            self._frame = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compressobj()

    def compress(self, data: bytes) -> bytes:
        """Compress `data`; return what is ready to be written."""
        return data if self._frame is None else self._frame.compress(data)

    def finish(self) -> bytes:
        """Return the end of the stream."""
        return b"" if self._frame is None else self._frame.flush()
