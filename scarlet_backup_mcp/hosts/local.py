"""Programs on this machine, for a server that is reached over the network or a socket directory."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Literal

from ..errors import HostError, ProgramMissing
from . import CHUNK, POLL, ContainerInfo, Dependent, Exit, Packed, free_bytes_of
from .docker.engine import is_loopback
from .output import OutputQueue, Tail

GRACE_SECONDS = 5.0
"""How long after TERM to send KILL."""


class LocalHost:
    """Run programs from `bin_dir` (or PATH) on this machine, with `environment` added: PGHOST, PGUSER …

    No PG* variable of our own environment reaches a program: it might point at another server.
    """

    kind: Literal["docker", "local"] = "local"

    def __init__(self, bin_dir: Path | None, environment: Mapping[str, str]) -> None:
        self._bin_dir, self._environment = bin_dir, dict(environment)

    def container_info(self) -> ContainerInfo:
        """Return an empty description: there is no container."""
        return ContainerInfo(kind="local")

    def require_running(self) -> ContainerInfo:
        """Return the same empty description: this machine is running."""
        return self.container_info()

    def start(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, stdin: bool = False, packed: Packed = False
    ) -> LocalProcess:
        """Start a program. `argv[0]` is a bare name or an absolute path. Raises ProgramMissing or HostError."""
        program = self._find(argv[0])
        inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith("PG")}
        try:
            return LocalProcess([str(program), *argv[1:]], {**inherited, **self._environment, **(env or {})}, stdin)
        except OSError as error:
            raise HostError(f"{program} could not be started: {error}") from error

    def free_bytes(self, directory: str) -> int | None:
        """Return the free bytes where `directory` lies; None unless the server is on this machine, by its address."""
        return free_bytes_of(Path(directory)) if self._server_is_here() else None

    def dependents(self) -> list[Dependent]:
        """Return []: there are no containers here."""
        return []

    def containers_at(self, addresses: Collection[str]) -> dict[str, Dependent]:
        """Return {}: there are no containers here."""
        return {}

    def stop_container(self, container_id: str, seconds: int = 10) -> None:
        """Raise HostError: there are no containers here."""
        raise HostError(f"A local server has no container {container_id} that could be stopped.")

    def start_container(self, container_id: str) -> None:
        """Raise HostError: there are no containers here."""
        raise HostError(f"A local server has no container {container_id} that could be started.")

    def container_log(self, container_id: str, lines: int) -> str:
        """Raise HostError: there are no containers here."""
        raise HostError(f"A local server has no container {container_id} with a log.")

    def close(self) -> None:
        """Do nothing: there is no connection to close."""

    def _find(self, program: str) -> Path:
        """Find a program, but not with `shutil.which`: on Windows it searches the current directory first."""
        file_name = program if sys.platform != "win32" or program.lower().endswith(".exe") else f"{program}.exe"
        if self._bin_dir is not None:
            directories = [self._bin_dir]
        else:
            directories = [Path(entry) for entry in os.get_exec_path() if Path(entry).is_absolute()]
        for directory in directories:
            candidate = directory / file_name  # an absolute program stays as it is
            if candidate.is_file() and os.access(candidate, os.X_OK):
                return candidate
        where = str(self._bin_dir) if self._bin_dir is not None else "any directory of PATH"
        raise ProgramMissing(f"There is no program {program} in {where}.")

    def _server_is_here(self) -> bool:
        host = self._environment.get("PGHOSTADDR") or self._environment.get("PGHOST") or ""
        return host == "" or is_loopback(host) or host.startswith("@") or os.path.isabs(host)


def start_apart(
    argv: Sequence[str],
    *,
    stdin: int | IO[bytes],
    stdout: int,
    stderr: int | IO[bytes],
    env: Mapping[str, str],
) -> subprocess.Popen[bytes]:
    """Start a program in its own session (on Windows: process group), out of Ctrl-C's reach, with unbuffered pipes.

    On POSIX it starts with SIGINT blocked: between fork and setsid a child is still in the terminal's group, and a
    Ctrl-C in that moment ended it (seen). Raises OSError.
    """
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        return subprocess.Popen(
            argv, bufsize=0, stdin=stdin, stdout=stdout, stderr=stderr, env=env, creationflags=flags
        )
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        return subprocess.Popen(
            argv, bufsize=0, stdin=stdin, stdout=stdout, stderr=stderr, env=env, start_new_session=True
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class LocalProcess:
    """A program on this machine, in its own session: the terminal's Ctrl-C does not reach it."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], stdin: bool) -> None:
        self._output, self._errors = OutputQueue(), Tail()
        self._popen = start_apart(
            argv,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        self._stdin_use = threading.Lock()
        self._killed = False
        self._ended = threading.Event()
        threading.Thread(target=self._read_streams, name=argv[0], daemon=True).start()

    def read(self, timeout: float | None = None) -> bytes | None:
        """Return the next chunk of stdout; None after `timeout` seconds without any, b"" at the end."""
        return self._output.get(timeout)

    def write(self, data: bytes) -> None:
        """Feed stdin. Raises OSError when the program takes no more."""
        with self._stdin_use:
            pipe = self._popen.stdin
            if pipe is None or pipe.closed:
                raise BrokenPipeError("The program's input is closed.")
            rest = memoryview(data)
            while rest:
                rest = rest[pipe.write(rest) :]

    def end_input(self) -> None:
        """Close stdin: the program sees the end of its input."""
        if self._popen.stdin is not None and self._stdin_use.acquire(timeout=GRACE_SECONDS):
            with contextlib.suppress(OSError):
                self._popen.stdin.close()
            self._stdin_use.release()

    def kill(self) -> None:
        """End the program, in a thread, so that interrupting the caller does not leave it half done."""
        if self._ended.is_set():
            return
        self._output.discard()
        self._killed = True
        killer = threading.Thread(target=self._end_program, name="kill", daemon=True)
        killer.start()
        killer.join()

    def wait(self) -> Exit:
        """Wait for the end, discarding stdout, and release everything."""
        self._output.discard()
        while not self._ended.wait(POLL) and not self._killed:
            pass
        self._ended.wait(GRACE_SECONDS)  # a process outside its group may hold its stdout for longer
        code = self._popen.wait()
        self.end_input()
        return Exit(128 - code if code < 0 else code, self._errors.text())

    def _read_streams(self) -> None:
        errors = threading.Thread(target=self._read_errors, daemon=True)
        errors.start()
        try:
            for chunk in _chunks(self._popen.stdout):
                self._output.put(chunk)
            errors.join()
            self._popen.wait()
        finally:
            self._ended.set()
            self._output.end()

    def _read_errors(self) -> None:
        for chunk in _chunks(self._popen.stderr):
            self._errors.add(chunk)

    def _end_program(self) -> None:
        """Signal the group, stopped first, so that no part of a pipeline takes another's death for the end of input."""
        if sys.platform == "win32":
            self._popen.kill()
            self._popen.wait()
            return
        self._signal_group(signal.SIGSTOP, signal.SIGTERM, signal.SIGCONT)
        try:
            self._popen.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._signal_group(signal.SIGSTOP, signal.SIGKILL)
            self._popen.wait()

    def _signal_group(self, *signals: signal.Signals) -> None:
        for number in signals:
            if sys.platform != "win32" and self._popen.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._popen.pid, number)


def _chunks(pipe: IO[bytes] | None) -> Iterator[bytes]:
    assert pipe is not None
    with pipe:
        while chunk := pipe.read(CHUNK):
            yield chunk
