"""Dumps that are directories (`pg_dump -Fd`): a table of contents, and a file for each table's rows."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from .reading import FileReader

CONTENTS = "toc.dat"


def is_dump(path: Path) -> bool:
    """Whether it is a directory, no link to one, with a table of contents in it."""
    try:
        inside = (path / CONTENTS).lstat().st_mode
        return stat.S_ISDIR(path.lstat().st_mode) and stat.S_ISREG(inside)
    except OSError:
        return False


def files(path: Path) -> list[Path]:
    """The regular files right in it, by name. Links, devices and directories are passed over: pg_dump makes none."""
    with os.scandir(path) as found:
        return sorted(Path(item.path) for item in found if item.is_file(follow_symlinks=False))


def size_and_time(path: Path) -> tuple[int, int]:
    """Bytes of its files, and the last time (in nanoseconds) that one of them, or which there are, was changed."""
    found = [item.lstat() for item in files(path)]
    times = [path.lstat().st_mtime_ns, *(item.st_mtime_ns for item in found)]
    return sum(item.st_size for item in found), max(times)


def pieces(path: Path, watch: Callable[[int], object]) -> Iterator[tuple[str, FileReader]]:
    """Each file's name with what reads it. `watch` is called with the bytes read of all of them so far."""
    done = 0
    for item in files(path):
        before = done

        def told(read: int, before: int = before) -> None:
            watch(before + read)

        reader = FileReader(item, told)
        yield item.name, reader
        done += reader.bytes
