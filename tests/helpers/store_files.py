"""Files in a backup directory."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..conftest import PROJECT_ROOT

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files.")
NAME = "letta_backup_20260201_093000.sql"


@contextmanager
def child(code: str, *arguments: Path) -> Generator[subprocess.Popen[str]]:
    """A Python process; gone when the block ends."""
    script = "import sys\nfrom pathlib import Path\n" + textwrap.dedent(code)
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()
