"""Where the backup directory is: it is made there, and what a careful user should know about the place."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from ..errors import DirectoryNotWritable, DiskFull
from . import file_system, names
from .permissions import in_the_way, is_directory, may_read
from .writing import READ_ONLY, write_atomically

CLOUD = ("onedrive", "dropbox", "google drive", "googledrive", "my drive", "icloud")


def prepare(path: Path) -> None:
    """Create the directory, for its owner only (backups hold secrets), ignored by git. Raises DirectoryNotWritable."""
    try:
        if link := _dangling(path):
            raise DirectoryNotWritable(link, "Mount or make what it leads to, or set SCARLET_BACKUP_DIR to another.")
        if not path.exists():
            path.mkdir(mode=0o700, parents=True)
        if not path.is_dir():
            raise DirectoryNotWritable(
                f"{path} is not a directory.", "Set SCARLET_BACKUP_DIR to a directory, or to a new one's path."
            )
        if file_system.is_read_only(path):
            raise DirectoryNotWritable(f"{_capital(path)} is mounted read-only.", READ_ONLY)
        if not os.access(path, os.W_OK | os.X_OK):
            raise DirectoryNotWritable(f"This user may not write to the backup directory {path}: {in_the_way(path)}.")
        if not (path / ".gitignore").exists():
            with suppress(DiskFull):  # a call that frees space must not fail here
                write_atomically(path / ".gitignore", b"*\n")
    except PermissionError as error:
        raise DirectoryNotWritable(f"This user may not use the backup directory {path}: {in_the_way(path)}.") from error
    except OSError as error:
        raise DirectoryNotWritable(f"The backup directory {path} can't be used: {error.strerror or error}.") from error


def absence(path: Path) -> str:
    """Say why there is no directory of that path; "" if there is one. Raises BackupUnreadable."""
    if is_directory(path):
        return ""
    return _dangling(path) or f"{path} {'is not a directory' if os.path.lexists(path) else 'does not exist yet'}."


def _dangling(path: Path) -> str:
    """Name the link on the way to a path that leads nowhere, for example to a disk that is not mounted; "" if there is
    none."""
    for place in (path, *path.parents):
        if os.path.islink(place) and not os.path.exists(place):
            return f"{place} is a link to {os.readlink(place)}, which is not there."
    return ""


def warnings(path: Path) -> list[str]:
    """Return what a careful user should know about this place of backups."""
    found: list[str] = []
    parts = [part.lower() for part in path.parts]
    if any(cloud in part for cloud in CLOUD for part in parts):
        found.append(f"{path} is in a folder that syncs to a cloud service: backups hold API keys in clear text.")
    if not os.path.isdir(path):
        return found
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        if file_system.keeps_modes(path) is False:
            found.append(
                f"Other users of this machine can read {path}, and backups hold secrets. {_capital(path)} keeps no "
                "access rights: mount it for this user only (`umask=077`), or keep backups on another one."
            )
        else:
            found.append(f"Other users of this machine can read {path}, and backups hold secrets: `chmod 700` it.")
    if file_system.name_of(path) in file_system.FAT:
        found.append(f"{_capital(path)} holds no file over 4 GiB: a larger backup fails there.")
    return found + _not_listed(path)


def _capital(path: Path) -> str:
    called = file_system.called(path)
    return called[:1].upper() + called[1:]


def _not_listed(path: Path) -> list[str]:
    """Name what may be a backup and is not listed: what this user may not look into, or whose name is no text."""
    found: list[str] = []
    with suppress(OSError), os.scandir(path) as items:
        for item in items:
            text = item.name.encode(errors="backslashreplace").decode()
            if text != item.name and names.without_ending(item.name):
                found.append(f"{text} in {path} is not listed, because its name is not UTF-8: rename it.")
            elif item.is_dir(follow_symlinks=False) and names.of_directory(item.name) and not may_read(item.path):
                why = in_the_way(Path(item.path))
                found.append(f"This user may not look into {item.path}, which may be a dump: {why}.")
    return found
