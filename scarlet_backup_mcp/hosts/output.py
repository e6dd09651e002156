"""What a program writes, on its way from the thread that reads it to the caller."""

from __future__ import annotations

import threading
from collections import deque

WAITING_CHUNKS = 8
"""Chunks of output that may wait for a slow caller."""
TAIL_BYTES = 64 << 10
"""How much of stderr to keep."""


class OutputQueue:
    """A queue between a process's reader thread and its caller. At most 8 chunks wait, so memory stays flat."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._discarding = False

    def put(self, chunk: bytes) -> None:
        """Add a chunk, in the reader thread. Blocks while the queue is full, unless its content is being discarded."""
        with self._changed:
            self._changed.wait_for(lambda: self._discarding or len(self._chunks) < WAITING_CHUNKS)
            if chunk and not self._discarding:
                self._chunks.append(chunk)
                self._changed.notify_all()

    def end(self) -> None:
        """Mark the end, in the reader thread."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def discard(self) -> None:
        """Discard what waits and all that is still to come. From any thread."""
        with self._changed:
            self._discarding = True
            self._chunks.clear()
            self._changed.notify_all()

    def get(self, timeout: float | None) -> bytes | None:
        """Return the next chunk; None after `timeout` seconds without any, b"" at the end."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._chunks) or self._ended, timeout)
            if self._chunks:
                chunk = self._chunks.popleft()
                self._changed.notify_all()
                return chunk
            return b"" if self._ended else None


class Tail:
    """The last 64 KiB of a stream."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def add(self, data: bytes) -> None:
        """Append `data`, and drop what is too old."""
        self._kept += data
        del self._kept[:-TAIL_BYTES]

    def text(self) -> str:
        """Return what is kept, as UTF-8, with U+FFFD for invalid bytes."""
        return self._kept.decode("utf-8", errors="replace")
