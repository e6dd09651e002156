"""Jobs for a scheduler."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from datetime import time
from pathlib import Path
from typing import Any

import pytest

from scarlet_backup_mcp.schedules import ScheduledJob

from ..conftest import PROJECT_ROOT

POSIX = pytest.mark.skipif(os.name == "nt", reason="There are no such programs on Windows.")

# One argument each that some scheduler or shell would take apart or replace.
WEIRD = [
    "a b",
    "50% $HOME ${HOME} `id`",
    "\\%",
    "\\\\%x",
    "it's \\%'",
    'q"q',
    "è漢",
    "%",
    ";",
    "$$",
    "%n",
    "\\",
    "--x=/è y",
]


def job(**more: Any) -> ScheduledJob:
    values: dict[str, Any] = {"name": "scarlet-backup-daily", "argv": ("/usr/bin/python3", *WEIRD), "at": time(3, 5)}
    return ScheduledJob(**{**values, **more})


def empty_python(directory: Path) -> Path:
    """A Python of its own, in which nothing is installed."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(directory)], check=True)
    return directory / "bin" / "python"


def install_into(python: Path) -> None:
    """Let that Python find this package, and what it needs."""
    (found,) = (python.parent.parent / "lib").glob("python*/site-packages")
    (found / "x.pth").write_text(f"{PROJECT_ROOT}\n{sysconfig.get_path('purelib')}\n")
