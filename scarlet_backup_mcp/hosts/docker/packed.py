"""Let a program's output cross the engine compressed: its stream is slower than the program, zstd and this together."""

from __future__ import annotations

import re
import threading
from typing import IO, cast

import zstandard

from .. import CHUNK
from ..output import OutputQueue

PACK = "zstd -q -1 --single-thread"
"""Of zstd's command line, in the container."""
WINDOW = 8 << 20
"""Largest window to accept, in bytes: level 1 uses 512 KiB."""


def packing(run: str) -> str:
    """Return a shell script that runs "$@" through zstd, or as `run` says where there is no zstd that works.

    The first line of stderr is the pid, and "zstd" after it if the output is packed; the last one is then the pid and
    the program's exit code, since the script's own is zstd's.
    """
    through = f'{{ "$@"; echo "$$: $?" >&2; }} | exec {PACK}'
    return f'if {PACK} </dev/null >/dev/null 2>&1; then echo "$$ zstd" >&2; {through}; else {run}; fi'


def exit_code(stderr: str, pid: int | None, code: int | None) -> tuple[int | None, str]:
    """Return how the packed program ended, when its script ended with `code`, and its stderr without that line. If both
    failed, the code is zstd's: the program had nobody left to write to."""
    text, _, told = stderr.rpartition(f"{pid}: ")
    found = re.fullmatch(r"(\d+)\n", told)
    if found is None:
        return code or None, stderr
    return None if code is None else code or int(found[1]), text


class PackedOutput(OutputQueue):
    """Output that is unpacked in a thread of its own, from `begin` on, unless it is `kept` as it comes."""

    def __init__(self, *, kept: bool) -> None:
        super().__init__()
        self._kept = kept
        self._packed: OutputQueue | None = None
        self._left = b""
        self.packed = False
        """Whether it has begun to come packed."""
        self.damaged = False
        """Whether it could not be unpacked."""

    def begin(self) -> None:
        """Take what follows for packed, in the reader thread."""
        self.packed = True
        if self._kept:
            return
        self._packed = OutputQueue()
        threading.Thread(target=self._unpack, name="unpack", daemon=True).start()

    def put(self, chunk: bytes) -> None:
        """Add a chunk, packed or not."""
        if self._packed is None:
            super().put(chunk)
        else:
            self._packed.put(chunk)

    def end(self) -> None:
        """Mark the end of what is added."""
        if self._packed is None:
            super().end()
        else:
            self._packed.end()

    def discard(self) -> None:
        """Discard what waits and all that is still to come."""
        super().discard()
        if self._packed is not None:
            self._packed.discard()

    def read(self, size: int) -> bytes:
        """Return packed bytes, for the decompressor; b"" at the end."""
        assert self._packed is not None
        chunk = self._left or self._packed.get(None) or b""
        chunk, self._left = chunk[:size], chunk[size:]
        return chunk

    def _unpack(self) -> None:
        try:
            source = cast("IO[bytes]", self)  # of which only `read` is called
            reader = zstandard.ZstdDecompressor(max_window_size=WINDOW).stream_reader(source)
            while plain := reader.read(CHUNK):
                super().put(plain)
        except zstandard.ZstdError:
            self.damaged = True
            self.discard()
        finally:
            super().end()
