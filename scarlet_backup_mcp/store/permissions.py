"""What this user may not read: what stands in the way, whose it is, and with which mode."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import BackupUnreadable, StoreError


def cannot_read(path: Path, error: OSError) -> StoreError:
    """Return the error for a path that can't be read, with the owner and the mode if this user lacks permission."""
    if isinstance(error, PermissionError):
        return BackupUnreadable(f"This user may not read {path}: {in_the_way(path)}.")
    return StoreError(f"{path} can't be read: {error.strerror or error}.")


def in_the_way(path: Path) -> str:
    """Describe what keeps this user from `path`: itself, or the nearest directory above it that can be looked at."""
    for place in (path, *path.parents):
        try:
            found = place.lstat()
        except OSError:
            continue
        what = "it" if place == path else f"the directory {place}"
        return f"{what} belongs to {_owner(place, found)}" + (
            f", with mode {stat.S_IMODE(found.st_mode):04o}" if os.name == "posix" else ""
        )
    return "nothing above it can be looked at"


def may_read(path: Path | str) -> bool:
    """Tell whether this user may read a file, or list a directory and look at what is in it."""
    return os.access(path, os.R_OK | os.X_OK if os.path.isdir(path) else os.R_OK)


def is_directory(path: Path) -> bool:
    """Tell whether a path is a directory. Raises BackupUnreadable if this user may not know."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except PermissionError as error:
        raise cannot_read(path, error) from error
    except (OSError, ValueError):
        return False


def _owner(path: Path, found: os.stat_result) -> str:
    try:
        return path.owner()
    except (KeyError, NotImplementedError, OSError):  # nobody by that number here; Windows
        return f"the user {found.st_uid}" if os.name == "posix" else "another user"
