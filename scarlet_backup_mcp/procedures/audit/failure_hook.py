"""The user's own command for a scheduled run that failed: SCARLET_BACKUP_ON_FAILURE."""

from __future__ import annotations

import logging
import os
import platform
import shlex
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime
from typing import IO, Literal

from pydantic import ConfigDict, Field

from ... import __version__
from ...hosts.local import start_apart
from ...models.common import Model, Utc

SECONDS = 60.0
TOLD = 500
"""Bytes of the command's stderr that are told when it fails."""
STDERR_SECONDS = 1.0
"""How long is waited for the end of its stderr, which what it has left behind may hold, when it has failed."""
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
    needs double quotes). After `seconds` it is killed, on POSIX with whatever it started. What it leaves behind has no
    stderr any more once this process has ended.
    """
    try:
        said = _run(command, alarm.model_dump_json(by_alias=True).encode() + b"\n", seconds)
    except (OSError, ValueError, RuntimeError) as error:  # an unclosed quote, or nothing at all; no more threads
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
    process = start_apart(
        argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    )
    # Threads, since the command need not read, and what it leaves behind may hold its pipes for long. No files: a full
    # disk may be what it is to be told of.
    said = bytearray()
    listener = threading.Thread(target=_listen, args=(process.stderr, said), daemon=True)
    try:
        threading.Thread(target=_tell, args=(process.stdin, message), daemon=True).start()
        listener.start()
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return f"was killed because it had not ended after {seconds:.0f} s"
    finally:
        _kill(process)
    if code == 0:
        return ""
    listener.join(STDERR_SECONDS)
    words = bytes(said[:TOLD]).decode(errors="replace").strip()
    return f"ended with exit code {code}" + (f": {words}" if words else "")


def _tell(stdin: IO[bytes], message: bytes) -> None:
    rest = memoryview(message)
    with suppress(OSError), stdin:  # it may have ended, and have read nothing
        while rest:
            rest = rest[stdin.write(rest) :]


def _listen(stderr: IO[bytes], said: bytearray) -> None:
    with stderr:
        while chunk := stderr.read(TOLD):
            if len(said) < TOLD:
                said += chunk


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
