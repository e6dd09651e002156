"""What a directory's file system can do, as far as backups need it: tried once, and named if the system names it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from functools import cache
from pathlib import Path

PROBE = ".scarlet-backup.probe"
FAT = ("vfat", "msdos", "fuse.fusefat")
"""Names of file systems whose files have 4 GiB at most."""
MOUNTS = Path("/proc/self/mountinfo")
STEPS = (100, 1_000, 10_000_000, 1_000_000_000, 2_000_000_000)
"""Nanoseconds between two times that NTFS, several network file systems, exFAT, HFS+ and FAT can tell apart."""


def same_time(noted: int, found: int) -> bool:
    """Tell whether a file that had one time of change, in nanoseconds, may show the other since its file system has
    rounded it. A kernel rounds when it next reads the file from the disk, so not at once."""
    return noted == found or any(found % step == 0 and abs(noted - found) < step for step in STEPS)


def keeps_modes(directory: Path) -> bool | None:
    """Tell whether files in a directory have the access rights that they are made with; None if it can't be tried.

    FAT, exFAT and NTFS give every file the rights that the mount has; `chmod` there either fails or does nothing.
    """
    try:
        return _keeps_modes(directory, os.stat(directory).st_dev)
    except OSError:
        return None


@cache
def _keeps_modes(directory: Path, device: int) -> bool:
    path = directory / f"{PROBE}.{os.getpid()}"
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        return not stat.S_IMODE(os.fstat(number).st_mode) & 0o077
    finally:
        os.close(number)
        with suppress(OSError):
            path.unlink()


def name_of(path: Path) -> str:
    """Return the name of a path's file system, such as "vfat"; "" where the system does not say (proc(5))."""
    try:
        device = os.stat(path).st_dev
        lines = MOUNTS.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ""
    number = f"{os.major(device)}:{os.minor(device)}"
    found = [line.partition(" - ")[2].split(" ")[0] for line in lines if line.split(" ")[2:3] == [number]]
    return found[-1] if found else ""


def is_read_only(path: Path) -> bool:
    """Tell whether a path's file system is mounted for reading only, as far as the system says."""
    with suppress(OSError, AttributeError):  # Windows has no such call
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    return False


def called(path: Path) -> str:
    """Say "the file system", with its name if that is known."""
    name = name_of(path)
    return f"the file system of {path} ({name})" if name else f"the file system of {path}"
