"""Write files that are whole or absent: partial files, atomic replacement, fsync."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from ..errors import DirectoryNotWritable, DiskFull, FileTooLarge, StoreError
from .names import PARTIAL

T = TypeVar("T")
TEMPORARY = ".tmp"
SHARING_SECONDS = 5
"""How long to retry a rename on Windows while a virus scanner or an indexer holds the file."""
READ_ONLY = "Find out why its file system is now read-only (see `dmesg`), and remount it for writing."


class PartialFile:
    """A backup being written, as `<name>.partial`, for its owner only. `publish` gives it its final name.

    A context manager: leaving it without `publish` removes the file.
    """

    def __init__(self, final: Path) -> None:
        self.final = final
        self.path = final.with_name(final.name + PARTIAL)
        self.bytes = 0
        self._digest = hashlib.sha256()
        self._file: int | None = _guard(self.path, lambda: os.open(self.path, _CREATE, 0o600))

    def write(self, data: bytes) -> None:
        """Append. Raises DiskFull or StoreError."""
        file, view = self._file, memoryview(data)
        assert file is not None
        while view:
            written = _guard(self.path, lambda rest=view: os.write(file, rest))
            view = view[written:]
        self._digest.update(data)
        self.bytes += len(data)

    @property
    def sha256(self) -> str:
        """The digest of what was written, in hex."""
        return self._digest.hexdigest()

    def finish(self) -> None:
        """Flush everything to the disk, and close the file."""
        file = self._file
        assert file is not None
        _guard(self.path, lambda: os.fsync(file))
        with suppress(AttributeError, OSError):  # so that a verification reads the disk and not the cache; Linux only
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        self._close()

    def publish(self) -> None:
        """Give the file its final name, durably. Call it after `finish`, under the lock; it never replaces a file."""
        if self.final.exists():
            raise StoreError(f"{self.final} appeared while the backup was being written; it was left alone.")
        replace(self.path, self.final)
        sync_directory(self.final.parent)

    def discard(self) -> None:
        """Close and remove the file. Harmless after `publish`."""
        self._close()
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> PartialFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the content of `path` with `data`, for its owner only: a reader sees the old or the new, never a part."""
    part = temporary(path)
    delete(part)
    try:
        write_durably(part, data)
        replace(part, path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    sync_directory(path.parent)


def temporary(path: Path) -> Path:
    """Return where a file's content is written before it gets its name."""
    return path.with_name(f".{path.name}{TEMPORARY}")


def write_durably(path: Path, data: bytes) -> None:
    """Create a file, durably, for its owner only. Raises DiskFull or StoreError."""
    _guard(path, lambda: _write(path, data, _CREATE))


def overwrite_durably(path: Path, data: bytes) -> None:
    """Overwrite a file's beginning, durably, in the space that it has. Raises StoreError."""
    _guard(path, lambda: _write(path, data, _CREATE & ~(os.O_CREAT | os.O_EXCL)))


def _write(path: Path, data: bytes, flags: int) -> None:
    with os.fdopen(os.open(path, flags, 0o600), "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def replace(old: Path, new: Path) -> None:
    """Rename a file; on Windows retry for 5 s while another program has it open. Raises StoreError."""
    _patiently(lambda: os.replace(old, new), f"{old.name} can't be renamed to {new.name}")


def delete(path: Path) -> None:
    """Remove a file if it exists; on Windows retry for 5 s while another program has it open. Raises StoreError."""
    _patiently(lambda: path.unlink(missing_ok=True), f"{path} can't be removed")


def _patiently(change: Callable[[], object], failure: str) -> None:
    until = time.monotonic() + SHARING_SECONDS
    while True:
        try:
            change()
            return
        except OSError as error:
            shared = isinstance(error, PermissionError) and os.name == "nt"
            if error.errno == errno.EROFS:
                raise DirectoryNotWritable(f"{failure}: {error.strerror}.", READ_ONLY) from error
            if not shared or time.monotonic() > until:
                raise StoreError(f"{failure}: {error.strerror}.") from error
            time.sleep(0.1)


def sync_directory(path: Path) -> None:
    """Make renames in a directory durable. Windows has no such call and needs none."""
    if os.name == "nt":
        return
    directory = _guard(path, lambda: os.open(path, os.O_RDONLY | os.O_DIRECTORY))
    try:
        os.fsync(directory)
    except OSError as error:  # some network file systems refuse it
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise StoreError(f"{path} can't be synchronised: {error.strerror}.") from error
    finally:
        os.close(directory)


_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)


def _guard(path: Path, call: Callable[[], T]) -> T:
    try:
        return call()
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise FileTooLarge(f"{path.name} can't grow any more in {path.parent}: {error.strerror}.") from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"There is no space left for {path.name} in {path.parent}.") from error
        if error.errno == errno.EROFS:
            raise DirectoryNotWritable(f"{path} can't be written: {error.strerror}.", READ_ONLY) from error
        raise StoreError(f"{path} can't be written: {error.strerror or error}.") from error
