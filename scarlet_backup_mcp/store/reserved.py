"""Reserve disk space for a small file that has to be written later."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import TracebackType

from . import writing

SIZE = 32 << 10
"""Bytes to reserve: a journal takes some 1 KB, and 200 bytes for each service that was stopped."""


class Reserved:
    """Space for the file `path`, which appears only when it is written.

    A context manager: unused space is released. Raises DiskFull or StoreError on construction. A copy-on-write file
    system (btrfs, ZFS) may need more space all the same.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = writing.temporary(path)
        writing.delete(self._part)
        try:
            writing.write_durably(self._part, b" " * SIZE)
        except BaseException:
            self._give_back()
            raise

    def write(self, data: bytes) -> None:
        """Write `data`, padded with spaces, durably and in one step. Raises DiskFull or StoreError."""
        if len(data) > SIZE or not self._part.exists():
            writing.write_atomically(self._path, data)
            return
        writing.overwrite_durably(self._part, data.ljust(SIZE))
        writing.replace(self._part, self._path)
        writing.sync_directory(self._path.parent)

    def __enter__(self) -> Reserved:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()

    def _give_back(self) -> None:
        with suppress(OSError):
            self._part.unlink(missing_ok=True)
