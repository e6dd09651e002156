"""Read and write sidecar files without trusting what has their name: anybody may have put a FIFO there."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from ..errors import StoreError
from .permissions import cannot_read

SMALL = 1 << 20
"""Largest record, mark or journal, in bytes."""
MANIFEST = 256 << 20
"""Largest manifest, in bytes: one with 100,000 tables has some 40 MB."""
_SAFELY = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def read(path: Path | str, most: int = SMALL) -> bytes | None:
    """Return all of a small file; None without it. Raises StoreError if it is not a regular file (a link is none), is
    larger than `most` bytes, or can't be read; BackupUnreadable if this user may not read it."""
    found = beginning(path, most + 1)
    if found is not None and len(found) > most:
        raise StoreError(f"{os.path.basename(path)} is larger than {most:,} bytes, so this tool did not write it.")
    return found


def beginning(path: Path | str, most: int) -> bytes | None:
    """Return the first `most` bytes of a file; None without it. Raises StoreError like `read`."""
    try:
        number = os.open(path, os.O_RDONLY | _SAFELY)
        with open(number, "rb") as file:
            status = os.fstat(number)
            if not stat.S_ISREG(status.st_mode):
                raise StoreError(f"{os.path.basename(path)} is not a regular file.")
            return file.read(min(most, status.st_size + 1))  # memory for `most` bytes would be had from the system
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise cannot_read(Path(path), error) from error
    except OSError as error:
        raise StoreError(f"{os.path.basename(path)} can't be read: {error.strerror or error}.") from error


def note(path: Path, text: bytes) -> None:
    """Write a file that nobody relies on, in one go. Failing to is not an error."""
    with suppress(OSError):
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _SAFELY, 0o600)
        with open(number, "wb") as file:
            file.write(text)
