"""Remove a backup with its sidecar files, so that a kill at any point leaves no half of one.

First its file is renamed: from then on it is no backup. Then its sidecar files go, and the file itself last: as long as
it exists, `finish` knows what is left to do. Each step is on the disk before the next one begins.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import StoreError
from . import names
from .writing import TEMPORARY, replace, sync_directory

SIDECARS = (names.MANIFEST, names.VERIFIED, names.KEEP)
"""Suffixes of a backup's sidecar files."""


@dataclass(frozen=True)
class Swept:
    """What killed calls left: the names of what was `removed`, and `warnings` about what can't be removed yet."""

    removed: list[str] = field(default_factory=list[str])
    warnings: list[str] = field(default_factory=list[str])

    @property
    def sentences(self) -> list[str]:
        """Both, in sentences."""
        return [f"Removed {name}, left by a call that was killed." for name in self.removed] + self.warnings


def remove(directory: Path, name: str) -> str | None:
    """Remove one backup; return a warning if `finish` has to do the rest, else None. Call it under the lock.

    Whoever has the file open can read it to its end; on Windows, where such a file can't be renamed, it stays. Raises
    StoreError, with nothing changed. Once the file is renamed, the backup is gone.
    """
    replace(directory / name, directory / names.unnamed(name))
    try:
        sync_directory(directory)
        _finish(directory, name)
    except (StoreError, OSError) as error:
        return (
            f"{name} is removed, but its space may not be free yet ({_reason(error)}). The next backup or "
            "pruning does the rest."
        )
    return None


def finish(directory: Path, file_names: Iterable[str]) -> Swept:
    """Finish the interrupted removals whose files are among `file_names`. Call it under the lock."""
    swept = Swept()
    for name in filter(None, map(names.before_unnamed, file_names)):
        try:
            _finish(directory, name)
            swept.removed.append(name)
        except (StoreError, OSError) as error:
            swept.warnings.append(
                f"What is left of {name} can't be removed ({_reason(error)}). The next backup tries again."
            )
    return swept


def is_temporary(name: str) -> bool:
    """Tell whether our `write_atomically` creates files of that name."""
    final = name.removeprefix(".").removesuffix(TEMPORARY)
    if name != f".{final}{TEMPORARY}":
        return False
    backup = next((final.removesuffix(end) for end in SIDECARS if final.endswith(end)), "")
    of_memory = final == names.STOPPED or names.is_set(final) or names.is_store(backup)
    return of_memory or final == names.JOURNAL or names.parse(backup) is not None


def _finish(directory: Path, name: str) -> None:
    """Remove what is left of a backup. Raises OSError or StoreError."""
    if not os.path.lexists(directory / name):  # else someone has put it back
        for end in SIDECARS:
            (directory / (name + end)).unlink(missing_ok=True)
        sync_directory(directory)
    (directory / names.unnamed(name)).unlink(missing_ok=True)
    sync_directory(directory)


def _reason(error: StoreError | OSError) -> str:
    """Word an error for the inside of a sentence."""
    return error.message.rstrip(".") if isinstance(error, StoreError) else error.strerror or str(error)
