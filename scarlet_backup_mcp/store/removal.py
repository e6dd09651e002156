"""How a backup goes, with all that lies beside it, so that being killed at any point leaves no half of one.

First its file loses its name, from then on it is no backup; then what lies beside it goes; the file goes last, and as
long as it is there `finish` knows what is still to be done. Each step is on the disk before the next one begins.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..errors import StoreError
from . import names
from .writing import replace, sync_directory

BESIDE = (names.MANIFEST, names.VERIFIED, names.KEEP)
"""Endings of what lies beside a backup."""


def remove(directory: Path, name: str) -> None:
    """Remove one backup. Under the lock.

    Who has the file open reads on to its end; on Windows, where such a file can't be renamed, it stays. Raises
    StoreError; where the file had lost its name by then, `finish` does the rest.
    """
    unnamed = directory / names.unnamed(name)
    replace(directory / name, unnamed)
    sync_directory(directory)
    _finish(directory, name)


def finish(directory: Path, file_names: Iterable[str]) -> list[str]:
    """Of removals that were cut off, whose files are among `file_names`, do the rest; gives the backups' names. Under
    the lock. What can't be removed now is left to the next call."""
    done: list[str] = []
    for name in filter(None, map(names.before_unnamed, file_names)):
        with suppress(StoreError):
            _finish(directory, name)
            done.append(name)
    return done


def _finish(directory: Path, name: str) -> None:
    try:
        if not os.path.lexists(directory / name):  # else someone has put it back
            for end in BESIDE:
                (directory / (name + end)).unlink(missing_ok=True)
            sync_directory(directory)
        (directory / names.unnamed(name)).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"What is left of {name} can't be removed: {error.strerror or error}.", "The next `backup` tries again."
        ) from error
    sync_directory(directory)
