"""The program without root's right to read everything."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from .command_line import CommandLine

NOBODY = 65534
WITHOUT_RIGHTS = (
    ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.name == "posix" and os.getuid() == 0 else []
)
"""Root that is the owner of its own files and no more: the interpreter may lie where another user can't get."""

ordinary_user = pytest.mark.skipif(
    sys.platform == "win32" or (bool(WITHOUT_RIGHTS) and shutil.which("setpriv") is None),
    reason="permission bits, which root ignores without setpriv",
)


def shut(path: Path, mode: int = 0) -> None:
    """Keep this user from a path: by its mode, and as root by giving it to another user, too."""
    path.chmod(mode)
    if WITHOUT_RIGHTS:
        os.chown(path, NOBODY, NOBODY)


def open_again(path: Path) -> None:
    """Undo `shut`, so that the directory can be removed."""
    if WITHOUT_RIGHTS:
        os.chown(path, 0, 0)
    path.chmod(0o700)


class Ordinary(CommandLine):
    """The command line as somebody whom permission bits stop."""

    command = (*WITHOUT_RIGHTS, *CommandLine.command)
