"""The user's own command for a scheduled run that failed: SCARLET_BACKUP_ON_FAILURE."""

from __future__ import annotations

import logging
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from typing import Literal

from pydantic import ConfigDict, Field

from .. import __version__
from ..hosts.local import start_apart
from ..models import Model, Utc

SECONDS = 60.0
TOLD = 500
"""Bytes of the command's stderr that are told when it fails."""
_SECRETS = ("SCARLET_BACKUP_DSN", "PGPASSWORD")
log = logging.getLogger(__name__)


class Alarm(Model):
    """What the command finds on its standard input, as one JSON object and a line end. Holds no secrets."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_: Literal[1] = Field(default=1, alias="schema")
    time: Utc = Field(default_factory=lambda: datetime.now(UTC))
    machine: str = Field(default_factory=platform.node)
    tool: str
    tool_version: str = __version__
    outcome: Literal["bad", "error"]
    code: str | None
    message: str
    remedy: str
    database: str | None = None
    container: str | None = None
    directory: str | None = None


def sound(command: str, alarm: Alarm, seconds: float = SECONDS) -> str:
    """Run `command` with the alarm on its stdin; "" or what was wrong with that, which is logged too. Raises nothing.

    No shell reads it: on POSIX it is split as `shlex` does, on Windows the system's own rules hold (a path with spaces
    needs double quotes). After `seconds` it is killed, on POSIX with whatever it started.
    """
    try:
        said = _run(command, alarm.model_dump_json(by_alias=True).encode() + b"\n", seconds)
    except (OSError, ValueError) as error:  # ValueError: an unclosed quote, or nothing at all
        said = f"could not be started: {error}"
    if said:
        said = f"The command of SCARLET_BACKUP_ON_FAILURE {said}."
        log.error("%s", said)
    return said


def _run(command: str, message: bytes, seconds: float) -> str:
    argv = command if sys.platform == "win32" else shlex.split(command)
    if not argv:
        raise ValueError("it is empty")
    environment = {name: value for name, value in os.environ.items() if name.upper() not in _SECRETS}
    # Files, not pipes: nothing to wait for when the command does not read, or leaves a child behind.
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stderr:
        stdin.write(message)
        stdin.seek(0)
        process = start_apart(argv, stdin=stdin, stdout=subprocess.DEVNULL, stderr=stderr, env=environment)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"was killed, since it had not ended after {seconds:.0f} s"
        finally:
            _kill(process)
        if code == 0:
            return ""
        stderr.seek(0)
        words = stderr.read(TOLD).decode(errors="replace").strip()
        return f"ended with exit code {code}" + (f": {words}" if words else "")


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
