"""Dumps in directory format (`pg_dump -Fd`): a table of contents, and a file for each table's rows."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from .reading import FileReader

CONTENTS = "toc.dat"


def is_dump(path: Path) -> bool:
    """Tell whether a path is a directory, not a link to one, with a table of contents in it."""
    try:
        inside = (path / CONTENTS).lstat().st_mode
        return stat.S_ISDIR(path.lstat().st_mode) and stat.S_ISREG(inside)
    except OSError:
        return False


def files(path: Path) -> list[Path]:
    """List its regular files, by name. Links, devices and directories are skipped: pg_dump makes none."""
    with os.scandir(path) as found:
        return sorted(Path(item.path) for item in found if item.is_file(follow_symlinks=False))


def size_and_time(path: Path) -> tuple[int, int]:
    """Return its files' total size in bytes, and when they or their number last changed, in nanoseconds."""
    found = [item.lstat() for item in files(path)]
    times = [path.lstat().st_mtime_ns, *(item.st_mtime_ns for item in found)]
    return sum(item.st_size for item in found), max(times)


def pieces(path: Path, watch: Callable[[int], object]) -> Iterator[tuple[str, FileReader]]:
    """Yield each file's name and its reader; call `watch` with the bytes read so far of all of them."""
    done = 0
    for item in files(path):
        before = done

        def report(read: int, before: int = before) -> None:
            watch(before + read)

        reader = FileReader(item, report)
        yield item.name, reader
        done += reader.bytes
