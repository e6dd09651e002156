"""Directories on file systems of other kinds: real ones through FUSE, from an image file."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

Kind = Literal["fat", "exfat", "ntfs"]
REQUIRED = "SCARLET_TEST_REQUIRE_FILE_SYSTEMS"
SIZE = 64 << 20
MAKE: dict[Kind, list[str]] = {
    "fat": ["mkfs.vfat"],
    "exfat": ["mkfs.exfat"],
    "ntfs": ["mkntfs", "-F", "-Q"],
}
MOUNT: dict[Kind, list[str]] = {
    "fat": ["fusefat", "-o", "rw+"],
    "exfat": ["mount.exfat-fuse"],
    "ntfs": ["ntfs-3g"],
}
"""Debian's packages dosfstools, exfatprogs, ntfs-3g, fusefat and exfat-fuse have these programs."""


@dataclass(frozen=True)
class Mounted:
    """A mounted image."""

    kind: Kind
    source: str
    path: Path

    def mount(self) -> None:
        """Mount it."""
        _run(*MOUNT[self.kind], self.source, str(self.path))
        until = time.monotonic() + 20
        while not os.path.ismount(self.path):
            assert time.monotonic() < until
            time.sleep(0.05)

    def unmount(self) -> None:
        """Unmount it, and wait until the program behind it has written everything."""
        _run("umount", str(self.path))
        time.sleep(0.5)

    def remount(self) -> None:
        """Forget whatever the kernel still knows of it."""
        self.unmount()
        self.mount()


@contextmanager
def file_system(kind: Kind, directory: Path) -> Generator[Mounted]:
    """An empty file system of that kind. Skips the test where none can be mounted, unless they are required."""
    image, path = directory / f"{kind}.img", directory / kind
    path.mkdir()
    with image.open("wb") as file:
        file.truncate(SIZE)
    with ExitStack() as undo:
        try:
            _run(*MAKE[kind], str(image))
            source = str(image)
            if kind == "exfat":  # its program mounts block devices only
                source = _run("losetup", "--find", "--show", source).strip()
                undo.callback(_run, "losetup", "--detach", source)
            mounted = Mounted(kind, source, path)
            mounted.mount()
            undo.callback(mounted.unmount)
        except (OSError, subprocess.SubprocessError, AssertionError) as error:
            if os.environ.get(REQUIRED) == "1":
                raise
            pytest.skip(f"no {kind} can be mounted here: {error}")
        yield mounted


def _run(*command: str) -> str:
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(f"there is no {command[0]}")
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", timeout=60, check=True
    )
    return done.stdout
