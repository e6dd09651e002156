"""A container that may be mistreated, and faults that come at a chosen moment of a backup."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from scarlet_backup_mcp.errors import BackupToolError
from scarlet_backup_mcp.models.manifest import Manifest
from scarlet_backup_mcp.models.results import Backup, Listed
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.listing import list_backups
from scarlet_backup_mcp.progress import Progress, State
from scarlet_backup_mcp.settings import Settings, load_settings
from scarlet_backup_mcp.store.audit import AUDIT, AUDIT_LOCK
from scarlet_backup_mcp.store.directory import BackupDirectory

from ..conftest import IMAGE, MEMORY, PROJECT_ROOT
from .containers import QUICK, psql_in, run_docker, run_docker_quietly, wait_for_server

TAG = "scarlet-backup-mcp"
"""What application_name begins with for every program that a backup starts."""
SICK = "/tmp/sick"
"""While a container has this file its health check fails."""
_EVERY = ("--health-interval", "2s", "--health-timeout", "5s", "--health-start-period", "1h", "--health-retries", "1")
HEALTH_CHECK = ("--health-cmd", f"test ! -e {SICK}", *_EVERY)
"""For `docker run`. In the start period a failing check leaves a container `starting`; once it was healthy, one failure
makes it `unhealthy`."""
OWN_FILES = {".gitignore", ".scarlet-backup.lock", AUDIT, AUDIT_LOCK}
"""What a backup directory holds when no backup is in it."""
WATCHDOG_SECONDS = 60.0
"""A backup that has not come to its end by then is cancelled, and its test fails."""
SOON_SECONDS = 10.0
BUSY_SECONDS = 120.0
"""What a busy machine may need."""
"""In which a backup that is stopped ends, also on a machine that is busy; a stalled dump would last for minutes."""
REAL_PG_DUMP = "/usr/lib/postgresql/15/bin/pg_dump"


@dataclass(frozen=True)
class Lock:
    """A transaction that is held open in a psql of its own. `pid` is its backend's."""

    process: subprocess.Popen[bytes]
    pid: int

    def commit(self) -> None:
        """Commit the transaction; the lock is gone a moment later."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"COMMIT;\n")
        self.process.stdin.flush()

    def release(self) -> None:
        """Roll the transaction back. Harmless when its container is gone."""
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True)
class Box:
    """A container with PostgreSQL 15 and Scarlet's small memory in the database `letta`."""

    name: str
    password: str = field(repr=False)

    def settings(self, directory: Path, **others: Any) -> Settings:
        """Settings for this container; no container is found by labels."""
        return load_settings(**{"dir": directory, "container": self.name, **others})

    def psql(self, statements: str, database: str = "letta") -> str:
        """Run SQL as the superuser; the unaligned rows. Raises AssertionError with the server's error."""
        return psql_in(self.name, statements, database)

    def sh(self, script: str, stdin: str = "") -> str:
        """Run a shell script in it as root."""
        return run_docker("exec", "-i", self.name, "sh", "-c", script, stdin=stdin)

    @property
    def health(self) -> str:
        """Docker's word: starting, healthy or unhealthy."""
        return run_docker("inspect", "--format", "{{.State.Health.Status}}", self.name).strip()

    def wait_for_health(self, wanted: str) -> None:
        """Until the health check has been run often enough."""
        deadline = time.monotonic() + BUSY_SECONDS
        while self.health != wanted:
            assert time.monotonic() < deadline, f"{self.name} is {self.health}, not {wanted}."
            time.sleep(0.1)

    def bring_up(self) -> None:
        """Have it run, with its own pg_dump, whatever a test did to it."""
        state = run_docker("inspect", "--format", "{{.State.Status}}", self.name).strip()
        if state == "paused":
            run_docker("unpause", self.name)
        elif state != "running":
            run_docker("start", self.name)
        self.wait_until_ready()
        if state != "running":
            self.sh("rm -f /usr/local/bin/pg_dump")

    def wait_until_ready(self) -> None:
        """Until the server accepts connections."""
        wait_for_server(self.name)

    def at_work(self) -> list[str]:
        """What a backup has running in there: programs by their environment, and backends by their name."""
        look = f"grep -la PGAPPNAME={TAG} /proc/[0-9]*/environ 2>/dev/null || true"
        programs = self.sh(look).split()
        backends = self.psql(
            f"SELECT 'backend', pid, state, query FROM pg_stat_activity WHERE application_name LIKE '{TAG}%'"
        )
        return programs + backends.splitlines()

    def assert_idle(self, within: float = SOON_SECONDS) -> None:
        """Nothing of a backup runs in there any more, at the latest after that many seconds."""
        deadline = time.monotonic() + within
        while left := self.at_work():
            assert time.monotonic() < deadline, left
            time.sleep(0.1)

    @contextmanager
    def holding(self, statements: str, database: str = "letta") -> Generator[Lock]:
        """A transaction that has run `statements` and stays open; rolled back at the end."""
        psql = ("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database)
        command = ["docker", "exec", "-i", self.name, *psql]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"BEGIN;\n{statements}\nSELECT pg_backend_pid();\n".encode())
        process.stdin.flush()
        lock = Lock(process, int(process.stdout.readline() or b"0"))
        try:
            assert lock.pid, f"The server refused: {statements}"
            yield lock
        finally:
            lock.release()
            process.stdout.close()

    @contextmanager
    def dump_stalled(self, database: str = "letta") -> Generator[Lock]:
        """No pg_dump comes to its end: after the rows of all tables it reads the large objects, which are locked."""
        with self.holding("LOCK TABLE pg_catalog.pg_largeobject IN ACCESS EXCLUSIVE MODE;", database) as lock:
            yield lock

    def wait_for_waiting_backend(self) -> int:
        """Until a backend of a backup waits for a lock; its pid."""
        query = f"SELECT pid FROM pg_stat_activity WHERE application_name LIKE '{TAG}%' AND wait_event_type = 'Lock'"
        deadline = time.monotonic() + BUSY_SECONDS
        while not (found := self.psql(query)):
            assert time.monotonic() < deadline, f"Nothing waits for a lock: {self.at_work()}"
            time.sleep(0.05)
        return int(found)

    @contextmanager
    def pg_dump_is(self, script: str) -> Generator[None]:
        """A shell script stands before the real pg_dump in PATH, but not for its version; $REAL is the real one."""
        version = '[ "$1" != --version ] || exec $REAL --version'
        text = f"#!/bin/sh\nREAL={REAL_PG_DUMP}\n{version}\n{script}\n"
        self.sh("cat > /usr/local/bin/pg_dump && chmod 755 /usr/local/bin/pg_dump", stdin=text)
        try:
            yield
        finally:
            self.sh("rm -f /usr/local/bin/pg_dump")

    @contextmanager
    def without_pg_dump(self) -> Generator[None]:
        """There is no pg_dump in it."""
        paths = ("/usr/bin/pg_dump", REAL_PG_DUMP)
        self.sh(" && ".join(f"mv {path} {path}.away" for path in paths))
        try:
            yield
        finally:
            self.sh(" && ".join(f"mv {path}.away {path}" for path in paths))

    def cli(self, directory: Path, *arguments: str, **others: str) -> Command:
        """Start the command line on this container."""
        environment = {
            **os.environ,
            "SCARLET_BACKUP_DIR": str(directory),
            "SCARLET_BACKUP_CONTAINER": self.name,
            **others,
        }
        command = [sys.executable, "-m", "scarlet_backup_mcp", *arguments]
        return Command(
            command,
            env=environment,
            cwd=PROJECT_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )


class Command(subprocess.Popen[str]):
    """A command that ends with the block, if the test fails there: it may wait for what the test holds."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            self.kill()
        super().__exit__(kind, error, at)


@contextmanager
def a_box(environment: Mapping[str, str], *command: str, run: Sequence[str] = ()) -> Generator[Box]:
    """Start a container of our own, without waiting for what runs in it; removed with its volume whatever happens.
    `run` are more words for `docker run`."""
    box = Box(f"backup-faults-{secrets.token_hex(4)}", secrets.token_urlsafe(18))
    variables = {"POSTGRES_PASSWORD": box.password, "POSTGRES_DB": "letta", **QUICK, **environment}
    options = [option for name, value in variables.items() for option in ("-e", f"{name}={value}")]
    label = ("--label", "scarlet-backup-mcp.test=1")
    try:
        run_docker("run", "-d", "--pull", "never", "--name", box.name, *label, *options, *run, IMAGE, *command)
        yield box
    finally:
        run_docker_quietly("rm", "-fv", box.name)


def remember(box: Box) -> None:
    """Fill a new one with Scarlet's memory, and some values whose text depends on settings."""
    box.wait_until_ready()
    box.psql(MEMORY.read_text(encoding="utf-8"))
    box.psql("SET client_encoding = 'UTF8';" + MORE)


# The moment


class At(Progress):
    """Calls `act` in the backup's own thread whenever a stage begins; `times` is how often it may. Keeps the stages."""

    def __init__(self, stage: str, act: Callable[[], object], times: int = 1) -> None:
        super().__init__()
        self.stages: list[str] = []
        self._stage, self._act, self._times = stage, act, times

    def show(self, state: State) -> None:
        if state.done or (self.stages and self.stages[-1] == state.stage):
            return
        self.stages.append(state.stage)
        if state.stage == self._stage and self._times:
            self._times -= 1
            self._act()


class WhileItWaits(At):
    """Calls `act` once a backend of the backup waits for a lock, with that backend's pid, while the backup goes on.

    It is looked for from the beginning of `stage` on. With the dump stalled that is in the middle of the dump.
    """

    def __init__(self, box: Box, act: Callable[[int], object], stage: str = "dumping") -> None:
        super().__init__(stage, self._begin)
        self._box, self._do = box, act
        self._thread = threading.Thread(target=self._work)
        self._error: BaseException | None = None

    def _begin(self) -> None:
        self._thread.start()

    def _work(self) -> None:
        try:
            self._do(self._box.wait_for_waiting_backend())
        except BaseException as error:
            self._error = error
            self.cancel()

    def join(self) -> None:
        """Until the act has ended. Raises what it raised."""
        assert self._thread.ident is not None, "The stage was never begun."
        self._thread.join(60)
        if self._error is not None:
            raise self._error


# The outcome


def files(directory: Path) -> set[str]:
    """What lies in a backup directory, whatever it is."""
    return {path.name for path in directory.iterdir()} - OWN_FILES if directory.is_dir() else set()


def success(box: Box, directory: Path, progress: Progress | None = None, **settings: Any) -> Backup:
    """Take a backup. Raises what it raises, or what the act beside it raised."""
    with watched(progress or Progress()) as watching, BackupContext(box.settings(directory, **settings)) as context:
        return backup(context, watching)


def failure(box: Box, directory: Path, progress: Progress | None = None, **settings: Any) -> BackupToolError:
    """Take a backup that has to fail cleanly: with a remedy, without the password, without any file."""
    before = files(directory)
    with pytest.raises(BackupToolError) as caught:
        success(box, directory, progress, **settings)
    error = caught.value
    assert error.message.strip()
    assert error.remedy.strip()
    assert box.password not in f"{error} {error!r}"
    assert files(directory) == before
    return error


@contextmanager
def watched(progress: Progress) -> Generator[Progress]:
    """Cancelled when it takes too long: a test fails then, and does not hang."""
    watchdog = threading.Timer(WATCHDOG_SECONDS, progress.cancel)
    watchdog.start()
    try:
        yield progress
    finally:
        watchdog.cancel()
        if isinstance(progress, WhileItWaits):
            progress.join()


def manifest(directory: Path, name: str) -> Manifest:
    """A backup's manifest."""
    found = BackupDirectory(directory).manifest(name)
    assert found is not None
    return found


# The directory


@contextmanager
def tmpfs(directory: Path, size: int) -> Generator[Path]:
    """A small file system of its own. Skips the test where none can be mounted."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(directory)]
    try:
        subprocess.run(mount, check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"No tmpfs can be mounted here: {error}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True, capture_output=True, timeout=10)


def read_only(directory: Path) -> None:
    """Mount a tmpfs anew, for reading only."""
    subprocess.run(["mount", "-o", "remount,ro", str(directory)], check=True, capture_output=True, timeout=10)


def fill(directory: Path, leaving: int) -> Path:
    """Fill the file system there but for that many pages; the file to remove afterwards."""
    filler = directory / "filler"
    filler.unlink(missing_ok=True)
    found = os.statvfs(directory)
    with filler.open("wb") as file:
        if (size := (found.f_bavail - leaving) * found.f_frsize) > 0:
            os.posix_fallocate(file.fileno(), 0, size)
    return filler


SERVER = ("postgres", "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "autovacuum=off")
# Values whose text depends on settings, and a large object: it is what pg_dump reads last.
MORE = r"""
SET timezone = 'UTC';
CREATE TABLE letta.moments AS
SELECT n, timestamptz '2026-03-29 00:30:00+00' + n * interval '31 minutes' AS at, time with time zone '12:00+02' AS tz,
       date '2026-12-31' - n AS day, interval '1 year 2 mons -3 days 04:05:06.789' * n AS span,
       decode(md5(n::text), 'hex') AS bytes, (1 / (n + 2.0))::real AS r, (1 / (n + 2.0))::float8 AS d,
       n * 1234.56::money AS price, 'perché 🌹 €' AS words, ARRAY['a', 'b,"c', NULL] AS list
FROM generate_series(1, 50) AS n;
SELECT lo_from_bytea(4711, '\x00ff');
"""
# 38 MB of script out of some 2 MB of database.
NOVEL = "CREATE TABLE letta.novel AS SELECT n, repeat(md5(n::text), 3000) AS text FROM generate_series(1, 400) AS n;"


def listed(box: Box, directory: Path) -> list[Listed]:
    with BackupContext(box.settings(directory)) as context:
        return list_backups(context).backups
