"""Build a database's indexes and keys in several sessions at once, one at a time for each table."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import suppress

from ...errors import RestoreFailed
from ...hosts import POLL, Exit, Host, Process
from ...postgres.dump.builds import Batch, Build
from ...postgres.server import programs
from ...postgres.server.capacity import Capacity
from ...postgres.server.effective import set_config

Failure = Callable[[Exit, str], Exception]
"""Makes an error of how psql ended, and of the object that it built."""


class Schedule:
    """Gives out a batch's builds: the first one whose table nobody works on. For several threads."""

    def __init__(self, batch: Batch) -> None:
        self._left = list(batch)
        self._busy: set[tuple[bytes, bytes]] = set()
        self._changed = threading.Condition()

    def take(self) -> Build | None:
        """Return the next build; wait while all that are left are of busy tables. None once there are no more."""
        with self._changed:
            while self._left:
                free = next((build for build in self._left if build.table not in self._busy), None)
                if free is not None:
                    self._left.remove(free)
                    self._busy.add(free.table)
                    return free
                self._changed.wait()
            return None

    def done(self, build: Build) -> None:
        """Let another build have the table."""
        with self._changed:
            self._busy.discard(build.table)
            self._changed.notify_all()

    def stop(self) -> None:
        """Give out no more."""
        with self._changed:
            self._left.clear()
            self._changed.notify_all()


class Builders:
    """Psql processes that build, each with `environment`, after the statements `begin`. `failure` makes an error of how
    one ended. Close it however a load ends: that ends them all."""

    def __init__(
        self, host: Host, environment: Mapping[str, str], begin: bytes, capacity: Capacity, failure: Failure
    ) -> None:
        self._host, self._environment, self._begin = host, environment, begin
        self._capacity, self._failure = capacity, failure
        self._lock = threading.Lock()
        self._running: list[Process] = []
        self._closed = False
        self._error: BaseException | None = None
        self._awaited: tuple[bytes, threading.Event] | None = None

    def interleaved(self, script: Iterable[bytes | Batch]) -> Generator[bytes]:
        """Yield a script for a psql whose output goes to `took`. At each batch wait until that has done all that came
        before, then do the batch; b"" comes meanwhile. Raises what a build fails with."""
        for piece in script:
            if isinstance(piece, bytes):
                yield piece
                continue
            mark, reached = secrets.token_hex(16).encode(), threading.Event()
            self._awaited = mark, reached
            yield b"SELECT '%b';\n" % mark
            while not reached.wait(POLL):
                yield b""
            yield from self._build(piece)

    def took(self, output: bytes | bytearray) -> None:
        """Take the end of the output of the psql that has the rest of the script."""
        awaited = self._awaited
        if awaited is not None and awaited[0] in output:
            awaited[1].set()

    def close(self) -> None:
        """End the processes where they run; harmless once they have ended."""
        with self._lock:
            self._closed = True
            running, self._running = self._running, []
        for process in running:
            process.kill()

    def _build(self, batch: Batch) -> Generator[bytes]:
        schedule = Schedule(batch)
        sessions = min(self._capacity.sessions, len({build.table for build in batch}))
        threads = [
            threading.Thread(target=self._work, args=(schedule, sessions), name="build", daemon=True)
            for _ in range(sessions)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(POLL)
                    yield b""
        except GeneratorExit:
            schedule.stop()
            self.close()
            raise
        if self._error is not None:
            raise self._error

    def _work(self, schedule: Schedule, sessions: int) -> None:
        process: Process | None = None
        try:
            while (build := schedule.take()) is not None:
                process = process or self._start()
                self._run(process, build, sessions)
                schedule.done(build)
            if process is not None:
                process.end_input()
        except BaseException as error:
            schedule.stop()
            with self._lock:
                self._error = self._error or error
            self.close()
        finally:
            if process is not None:
                process.wait()

    def _start(self) -> Process:
        with self._lock:
            if self._closed:
                raise RestoreFailed("The load was stopped.")
            process = self._host.start(programs.psql_load(), env=self._environment, stdin=True)
            self._running.append(process)
        with suppress(OSError):  # how it ended tells why
            process.write(self._begin)
        return process

    def _run(self, process: Process, build: Build, sessions: int) -> None:
        mark = secrets.token_hex(16)
        own = self._capacity.settings(sessions, in_memory=build.in_memory)
        settings = [f"{set_config(name, value)};".encode() for name, value in own.items()]
        lines = [*build.settings, b"RESET max_parallel_maintenance_workers;", *settings, build.sql]
        with suppress(OSError):
            process.write(b"\n".join([*lines, f"SELECT '{mark}';\n".encode()]))
        output = b""
        while mark.encode() not in output:
            chunk = process.read()
            if chunk == b"":
                raise self._failure(process.wait(), build.at)
            output = (output + (chunk or b""))[-4096:]
