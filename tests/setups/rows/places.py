"""File systems and other places for backups."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

from ...helpers.file_systems import Kind, file_system
from ..table import SQL, Local, Refusal, Setup, Verb

LOCAL = Local()
Around = Callable[[Path], AbstractContextManager[Mapping[str, str]]]


@contextmanager
def _on(kind: Kind, directory: Path) -> Generator[Mapping[str, str]]:
    with file_system(kind, directory) as mounted:
        yield {"dir": str(mounted.path / "backups")}


@contextmanager
def _behind_a_link(directory: Path) -> Generator[Mapping[str, str]]:
    link = directory / "usb"
    link.symlink_to(directory / "not mounted")
    yield {"dir": str(link / "backups")}


@contextmanager
def _behind_a_good_link(directory: Path) -> Generator[Mapping[str, str]]:
    (directory / "mounted").mkdir()
    with _behind_a_link(directory) as settings:
        (directory / "mounted").rename(directory / "not mounted")
        yield settings


@contextmanager
def _without_locks(directory: Path) -> Generator[Mapping[str, str]]:
    """A mock: nothing that this machine can mount refuses flock. NFS does, without its lock service (flock(2))."""
    with patch("fcntl.flock", side_effect=OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))):
        yield {}


def _mounted(kind: Kind) -> Around:
    return partial(_on, kind)


NOT_THERE = Refusal("directory_not_writable", "which is not there", "Mount or make what it leads to")
NO_LOCKS = Refusal("locks_unsupported", "can't lock files", "Set SCARLET_BACKUP_DIR to a directory on a local disk")
NOWHERE: tuple[Verb, ...] = ()

ROWS = [
    Setup(
        name="on-fat",
        setup="A USB stick with FAT",
        server=LOCAL,
        around=_mounted("fat"),
    ),
    Setup(
        name="on-exfat",
        setup="A disk with exFAT",
        server=LOCAL,
        around=_mounted("exfat"),
    ),
    Setup(
        name="on-ntfs",
        setup="A disk of Windows' with NTFS",
        server=LOCAL,
        around=_mounted("ntfs"),
    ),
    Setup(
        name="behind-a-link",
        setup="A link to the directory",
        server=LOCAL,
        around=_behind_a_good_link,
        works=SQL,
    ),
    Setup(
        name="behind-a-dangling-link",
        setup="A link to a disk that is not mounted",
        server=LOCAL,
        around=_behind_a_link,
        works=NOWHERE,
        refused={"backup": NOT_THERE},
        sample=True,
    ),
    Setup(
        name="without-locks",
        setup="A network file system without locks",
        server=LOCAL,
        around=_without_locks,
        works=NOWHERE,
        refused={"backup": NO_LOCKS},
    ),
]
