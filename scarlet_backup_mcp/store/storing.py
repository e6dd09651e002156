"""Store a program's output in a backup's file, while another thread reads what was stored."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Queue

from ..models.common import Compression
from .reading import ZSTD_MAGIC, Compressor, decompress
from .writing import PartialFile

WAITING_CHUNKS = 8
"""Chunks that may wait for a slow reader, so that memory stays flat."""


class Storing:
    """Writes into a partial file, compressed, and passes on to `take`, in a thread, what the written bytes unpack to.

    So what `take` checks is what the file holds, whoever compressed it: in a zstd file, output that comes as a zstd
    stream is stored as it is. A context manager: its end ends the thread.
    """

    def __init__(self, partial: PartialFile, compression: Compression, take: Callable[[bytes], object]) -> None:
        self._partial, self._take = partial, take
        self._compression: Compression = compression
        self._head = b""
        self._compressor: Compressor | None = None
        self._stored: Queue[bytes | None] = Queue(WAITING_CHUNKS)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="read what is stored", daemon=True)
        self._thread.start()

    def put(self, chunk: bytes) -> None:
        """Store a chunk. Raises DiskFull or StoreError, or what `take` raised for an earlier one."""
        if self._compressor is None:
            chunk = self._head = self._head + chunk
            if len(chunk) < len(ZSTD_MAGIC):
                return
            self._compressor = self._begin()
        self._store(self._compressor.compress(chunk))

    def finish(self) -> None:
        """End the file's stream, and wait until all of it was taken. Raises what `put` raises; CompressionDamaged
        unless all of it unpacked."""
        if self._compressor is None:
            self._compressor = self._begin()
            self._store(self._compressor.compress(self._head))
        self._store(self._compressor.finish())
        self._end()
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Storing:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _begin(self) -> Compressor:
        packed = self._compression == "zstd" and self._head.startswith(ZSTD_MAGIC)
        return Compressor("none" if packed else self._compression)

    def _store(self, data: bytes) -> None:
        if self._error is not None:
            raise self._error
        if data:
            self._partial.write(data)
            self._stored.put(data)

    def _end(self) -> None:
        if self._thread.is_alive():
            self._stored.put(None)
            self._thread.join()

    def _read(self) -> None:
        stored = iter(self._stored.get, None)
        try:
            for plain in decompress(stored, self._compression, single=True):
                self._take(plain)
        except BaseException as error:
            self._error = error
            for _ in stored:
                pass
