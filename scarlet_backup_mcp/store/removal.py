"""How a backup goes, with all that lies beside it, so that being killed at any point leaves no half of one.

First its file loses its name, from then on it is no backup; then what lies beside it goes; the file goes last, and as
long as it is there `finish` knows what is still to be done. Each step is on the disk before the next one begins.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import StoreError
from . import names
from .writing import replace, sync_directory

BESIDE = (names.MANIFEST, names.VERIFIED, names.KEEP)
"""Endings of what lies beside a backup."""


@dataclass(frozen=True)
class Swept:
    """What killed calls left: the names of what is `removed` now, and `warnings` of what can't be removed yet."""

    removed: list[str] = field(default_factory=list[str])
    warnings: list[str] = field(default_factory=list[str])

    @property
    def told(self) -> list[str]:
        """Both, in sentences."""
        return [f"{name}, left by a call that was killed, is removed." for name in self.removed] + self.warnings


def remove(directory: Path, name: str) -> str | None:
    """Remove one backup. Under the lock.

    Who has the file open reads on to its end; on Windows, where such a file can't be renamed, it stays. Raises
    StoreError: then nothing has changed. Once the file has lost its name the backup is gone, and what can't be removed
    of it is left to `finish`: gives a warning then, else None.
    """
    replace(directory / name, directory / names.unnamed(name))
    try:
        sync_directory(directory)
        _finish(directory, name)
    except (StoreError, OSError) as error:
        return (
            f"{name} is removed, but its room may not be free yet ({_reason(error)}): the next `backup` or "
            "`prune_backups` does the rest."
        )
    return None


def finish(directory: Path, file_names: Iterable[str]) -> Swept:
    """Of removals that were cut off, whose files are among `file_names`, do the rest; gives the backups' names. Under
    the lock."""
    swept = Swept()
    for name in filter(None, map(names.before_unnamed, file_names)):
        try:
            _finish(directory, name)
            swept.removed.append(name)
        except (StoreError, OSError) as error:
            swept.warnings.append(
                f"What is left of {name} can't be removed ({_reason(error)}): the next `backup` tries again."
            )
    return swept


def _finish(directory: Path, name: str) -> None:
    """Raises OSError or StoreError."""
    if not os.path.lexists(directory / name):  # else someone has put it back
        for end in BESIDE:
            (directory / (name + end)).unlink(missing_ok=True)
        sync_directory(directory)
    (directory / names.unnamed(name)).unlink(missing_ok=True)
    sync_directory(directory)


def _reason(error: StoreError | OSError) -> str:
    """In words, for the inside of a sentence."""
    return error.message.rstrip(".") if isinstance(error, StoreError) else error.strerror or str(error)
