"""The command line as a subprocess, and on a terminal."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from scarlet_backup_mcp.models.common import Model
from scarlet_backup_mcp.settings import Settings

from .faces import (
    environment_of,
    until,
)

AGENTS = 2
ROWS = 554
"""In memory.sql."""

CONTROLLED = (
    "import fcntl, os, sys, termios;"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
"""Makes the terminal on stdin the process's own, so that a typed Ctrl-C reaches it."""

M = TypeVar("M", bound=Model)

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="terminals and signals of POSIX")


class CommandLine:
    """`python -m scarlet_backup_mcp` with these settings, run elsewhere than in the project."""

    command: Sequence[str] = (sys.executable, "-m", "scarlet_backup_mcp")

    def __init__(self, settings: Settings, directory: Path) -> None:
        self.directory = directory
        self.environment = environment_of(settings) | {"TERM": "xterm", "COLUMNS": "200", "LINES": "50"}

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """With pipes, to its end."""
        return subprocess.run(
            [*self.command, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            env=self.environment | environment,
            cwd=self.directory,
            timeout=60,
            check=False,
        )

    def answer(self, model: type[M], code: int, *arguments: str) -> M:
        """With --json: what stdout holds, which is the whole model and nothing else."""
        done = self.run(*arguments, "--json")
        assert done.returncode == code, done.stderr
        found = model.model_validate_json(done.stdout)
        assert json.loads(done.stdout) == found.model_dump(mode="json", by_alias=True)
        return found


class Terminal:
    """A process on a pseudo-terminal, and what its screen was sent."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process, self._master = process, master
        self.seen = ""

    @property
    def text(self) -> str:
        """What was sent, without colours and movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.seen)

    def read_until(self, words: str, seconds: float = 20) -> str:
        """Wait for words."""
        until(lambda: self._read(0.1) is None or words in self.seen, seconds, f"{words!r} in {self.seen!r}")
        return self.seen

    def type(self, text: str) -> None:
        """As a person at the keyboard."""
        os.write(self._master, text.encode())

    def end(self, seconds: float = 30) -> int:
        """The exit code, once everything was read."""
        deadline = time.monotonic() + seconds
        while self._read(0.1) is not None:
            assert time.monotonic() < deadline, self.seen
        return self.process.wait(20)

    def _read(self, seconds: float) -> int | None:
        """How much came; None at the end."""
        if not select.select([self._master], [], [], seconds)[0]:
            return 0 if self.process.poll() is None else None
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux tells the end of a terminal so
            return None
        self.seen += data.decode("utf-8", "replace")
        return len(data) or None


@contextmanager
def terminal(command_line: CommandLine, *arguments: str) -> Generator[Terminal]:
    """The command on a terminal of its own, killed at the end of the block if it still runs."""
    words = ("-m", "scarlet_backup_mcp", *arguments)
    with python_on_a_terminal(words, command_line.environment, command_line.directory) as screen:
        yield screen


@contextmanager
def python_on_a_terminal(words: Sequence[str], environment: Mapping[str, str], directory: Path) -> Generator[Terminal]:
    """Python with these arguments on a terminal of its own, killed at the end of the block if it still runs."""
    import pty

    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", CONTROLLED, *words],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
        cwd=directory,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(master)


def directory_of(settings: Settings) -> Path:
    assert settings.dir is not None
    return settings.dir
