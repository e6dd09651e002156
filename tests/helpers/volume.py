"""Servers whose whole volume is restored, what can be told of it, and restores that are killed at one exact moment.

    python -m tests.helpers.volume '{"moment": …, "backup": …, "settings": {…}}'

restores, and ends itself with SIGKILL at that moment; with exit code 0 only when the moment never came.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from scarlet_backup_mcp.hosts.docker.container import DockerHost
from scarlet_backup_mcp.models.results import Backup, DependentReport, Restore
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.call_notes import CallNotes
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.own_names import ASIDE, VOLUME_UNDO
from scarlet_backup_mcp.procedures.recovery import journal as journals
from scarlet_backup_mcp.procedures.recovery import volume_settlement
from scarlet_backup_mcp.procedures.recovery.journal import StoppedContainer
from scarlet_backup_mcp.procedures.recovery.volume_layout import VolumeLayout
from scarlet_backup_mcp.procedures.restore import service as restoring
from scarlet_backup_mcp.procedures.restore.options import RestoreOptions
from scarlet_backup_mcp.progress import Progress, State
from scarlet_backup_mcp.settings import Settings, load_settings

from ..conftest import IMAGE, PROJECT_ROOT, Stack, require_image
from .containers import QUICKLY, docker, psql_in, run_docker, run_docker_quietly, wait_for_server
from .faces import environment_of
from .restore_killer import after, before, die

R = TypeVar("R")

LABEL = ("--label", "scarlet-backup-mcp.test=1")
PGDATA = "/var/lib/postgresql/data"
TRUSTED = ("-e", "POSTGRES_HOST_AUTH_METHOD=trust", "-e", "POSTGRES_DB=letta", *QUICKLY)
HASTY = ("-c", "fsync=off", "-c", "full_page_writes=off")

SAVED = """
CREATE TABLE agents (id int PRIMARY KEY, name text);
INSERT INTO agents VALUES (1, 'Scarlet 🌹'), (2, E'nota\\\\ta\\nb');
CREATE TABLE marker (was text NOT NULL);
INSERT INTO marker VALUES ('saved');
ALTER DATABASE letta SET work_mem TO '5MB';
CREATE ROLE scarlet LOGIN PASSWORD 'perché no';
ALTER ROLE scarlet SET search_path TO letta;
CREATE DATABASE other OWNER scarlet;
\\connect other
CREATE TABLE things AS SELECT n, md5(n::text) FROM generate_series(1, 500) AS n;
"""
"""What is in a cluster when it is backed up."""
DESTROYED = """
DROP DATABASE other;
ALTER ROLE postgres SET lock_timeout TO '7s';
DROP ROLE scarlet;
DROP DATABASE letta WITH (FORCE);
CREATE DATABASE different;
ALTER SYSTEM SET work_mem TO '6MB';
"""
_CONTENT = """
SELECT rolname, rolpassword, rolsuper, rolcanlogin FROM pg_authid ORDER BY 1;
SELECT datname, setrole::regrole, setconfig FROM pg_db_role_setting LEFT JOIN pg_database d ON d.oid = setdatabase
ORDER BY 1, 2::text;
SELECT datname, datdba::regrole, datcollate FROM pg_database ORDER BY 1;
SELECT name, setting FROM pg_file_settings ORDER BY seqno;
"""
_ROWS = r"""
SELECT format('SELECT current_database(), %L, count(*), md5(string_agg(t::text, E''\n'' ORDER BY t::text)) FROM %s t',
              oid::regclass, oid::regclass)
FROM pg_class WHERE relkind = 'r' AND relnamespace::regnamespace::text !~ '^(pg_|information_schema)' ORDER BY oid
\gexec
"""


@dataclass(frozen=True)
class Rig:
    """A server in a container of the tests' own, whose volume is restored, and the directory with its backups."""

    container: str
    directory: Path
    stack: Stack | None = None

    @property
    def settings(self) -> Settings:
        """How to work on it."""
        return load_settings(dir=self.directory, container=self.container, prefix="letta")

    @property
    def journal(self) -> Path:
        """Where a restore keeps its journal."""
        return self.directory / "restore.journal.json"

    # -- the server

    def psql(self, statements: str, database: str = "letta") -> str:
        """Run SQL as the superuser; the unaligned rows."""
        return psql_in(self.container, statements, database)

    def content(self) -> str:
        """Roles with their passwords, settings, databases, and the rows of every table of every database."""
        names = self.psql("SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1", "postgres").split()
        return self.psql(_CONTENT + "".join(f"\\connect {name}\n{_ROWS}" for name in names), "postgres")

    def was(self) -> str:
        """'saved' or 'live': which contents the server runs on."""
        return self.psql("SELECT was FROM marker")

    def make_live(self) -> None:
        """Let the contents differ from what was saved."""
        self.psql("UPDATE marker SET was = 'live'")

    def wait(self) -> None:
        """Until the server accepts connections."""
        wait_for_server(self.container)

    def sh(self, script: str) -> str:
        """A shell script in the container, as root; what it prints."""
        return run_docker("exec", "-u", "0", self.container, "sh", "-c", script).strip()

    def aside(self) -> list[str]:
        """What lies in the data directory without being the server's."""
        return self.sh('cd "$PGDATA" && ls -d pgsql_tmp* 2>/dev/null || true').split()

    def state(self) -> str:
        """Docker's word for the container's state."""
        return run_docker("inspect", "--format", "{{.State.Status}}", self.container).strip()

    def volume(self) -> str:
        """The source of the mount on which the data directory lies."""
        mounts: list[dict[str, str]] = json.loads(run_docker("inspect", "-f", "{{json .Mounts}}", self.container))
        found = [mount for mount in mounts if mount["Destination"] in (PGDATA, "/var/lib/postgresql")]
        deepest = max(found, key=lambda mount: len(mount["Destination"]))
        return deepest.get("Name") or deepest["Source"]

    # -- calls

    def call(self, function: Callable[..., R], /, *arguments: Any, **options: Any) -> R:
        """A procedure, in a target of its own as each call has."""
        progress = options.pop("progress", None) or Progress()
        with BackupContext(self.settings) as context:
            return function(context, progress, *arguments, **options)

    def take(self, **options: Any) -> Backup:
        """A backup of the whole volume."""
        return self.call(backup, kind="volume", **options)

    def restore(self, source: str, progress: Progress | None = None, **options: Any) -> Restore:
        """With the user's consent."""
        return self.call(restoring.restore, source, RestoreOptions(**options), progress=progress)

    def settle(self) -> list[str]:
        """What a call does first of all; gives what it tells of that."""
        notes = CallNotes()
        with BackupContext(self.settings) as context:
            volume_settlement.settle_first(context, Progress(), notes)
        return notes.settled

    def create(self, *options: str, image: str = IMAGE, start: bool = False) -> None:
        """Make the container; with `start`, let it run."""
        begin = ("run", "-d") if start else ("create",)
        run_docker(*begin, "--pull", "never", "--name", self.container, *LABEL, *TRUSTED, *options, image, *HASTY)

    def killed(self, moment: str, source: str) -> None:
        """A restore (or what has to be settled before it) in a process of its own, up to that moment."""
        settings = {name: str(value) for name, value in self.settings.model_dump(exclude_unset=True).items()}
        given = json.dumps({"moment": moment, "backup": source, "settings": settings})
        command = [sys.executable, "-m", "tests.helpers.volume", given]
        done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == -9, f"{moment}: {done.returncode} {done.stdout} {done.stderr}"

    def assert_tidy(self, undo: str | None) -> None:
        """Nothing is left of a restore but its undo point; the server and what depends on it run."""
        assert self.state() == "running"
        self.wait()
        assert self.aside() == ([ASIDE + undo.removeprefix(VOLUME_UNDO)] if undo else [])
        users = run_docker("ps", "-a", "--filter", f"volume={self.volume()}", "--format", "{{.Names}}").split()
        assert users == [self.container]
        assert not self.journal.exists()
        if self.stack is not None:
            assert self.stack.state(self.stack.dependent) == "running"


@contextmanager
def a_rig(directory: Path, *options: str, image: str = IMAGE, start: bool = True) -> Generator[Rig]:
    """A container with a server and, with `start`, `SAVED` in it; removed with its anonymous volumes."""
    require_image(image)
    rig = Rig(f"vr-{secrets.token_hex(4)}", directory)
    try:
        rig.create(*options, image=image, start=start)
        if start:
            rig.wait()
            rig.psql(SAVED)
        yield rig
    finally:
        run_docker_quietly("rm", "-fv", rig.container)


@contextmanager
def a_volume(*options: str) -> Generator[str]:
    """A named volume; removed at the end."""
    name = f"vr-{secrets.token_hex(4)}"
    try:
        yield run_docker("volume", "create", *LABEL, *options, name).strip()
    finally:
        run_docker_quietly("volume", "rm", "-f", name)


@contextmanager
def a_stack(directory: Path) -> Generator[Rig]:
    """Scarlet's Compose project, with `SAVED` in it."""
    project = f"scarlet-vr-{secrets.token_hex(4)}"
    shutil.copytree(PROJECT_ROOT / "examples", directory)
    shutil.copy(PROJECT_ROOT / "tests" / "data" / "compose.override.yaml", directory / "override.yaml")
    stack = Stack(project, f"{project}-postgres", f"{project}-letta-server-1", directory, secrets.token_urlsafe(18))
    rig = Rig(stack.container, directory / "backups", stack)
    try:
        stack.compose("up", "-d", "--pull", "never")
        rig.wait()
        rig.psql("DROP DATABASE letta WITH (FORCE)", "postgres")
        rig.psql("CREATE DATABASE letta", "postgres")
        rig.psql(SAVED)
        yield rig
    finally:
        stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "1")


# -- kills -----------------------------------------------------------------------------------------------------------


def after_program(program: str, to: str) -> None:
    """Die when a program of that name has moved (or removed) what matches `to`: `find` moves entries one by one."""
    do = VolumeLayout._do  # pyright: ignore[reportPrivateUsage]

    def killed(self: VolumeLayout, argv: list[str]) -> None:
        do(self, argv)
        moved = argv[-2] if argv[0] == "find" else argv[-1]
        if argv[0] == program and re.search(to, moved):
            die()

    VolumeLayout._do = killed  # pyright: ignore[reportPrivateUsage]


def among_the_renames() -> None:
    """Die when some of the old contents are out."""
    do = VolumeLayout._do  # pyright: ignore[reportPrivateUsage]

    def killed(self: VolumeLayout, argv: list[str]) -> None:
        if argv[0] == "find" and any("outgoing" in word for word in argv):
            do(self, [*argv[:2], "-name", "pg_*", *argv[2:]])
            die()
        do(self, argv)

    VolumeLayout._do = killed  # pyright: ignore[reportPrivateUsage]


def after_call(number: int, owner: Any, name: str) -> None:
    """Die when that function has done its work for the `number`th time."""
    function, calls = getattr(owner, name), list[None]()

    def killed(*args: Any, **options: Any) -> None:
        function(*args, **options)
        calls.append(None)
        if len(calls) == number:
            die()

    setattr(owner, name, killed)


class Mortal(Progress):
    """Dies in the middle of unpacking."""

    def show(self, state: State) -> None:
        if state.stage.startswith("unpacking") and state.done > 100_000:
            die()


UNPACKING = "while it is unpacked"
MOMENTS: dict[str, Callable[[], None]] = {
    "before the journal is written": lambda: before(journals, "write"),
    "after the journal is written": lambda: after(journals, "write"),
    UNPACKING: lambda: None,
    "after it is unpacked": lambda: before(VolumeLayout, "differing"),
    "after a dependent is stopped": lambda: after(DockerHost, "stop_container"),
    "when the mark is set": lambda: after_call(2, journals, "write"),
    "when PG_VERSION is out": lambda: after_program("sh", "outgoing"),
    "among the renames": among_the_renames,
    "when the old contents are set aside": lambda: after_program("mv", "before_restore"),
    "when all but PG_VERSION is in": lambda: after_program("find", "data/$"),
    "when all is in": lambda: after_program("sh", "data/PG_VERSION$"),
    "after the start": lambda: after(DockerHost, "start_container"),
    "when the server is checked": lambda: after_call(3, journals, "write"),
    "before the journal is removed": lambda: before(journals, "remove"),
    # while the old contents are put back
    "when it is decided": lambda: after_program("mv", "returning"),
    "when PG_VERSION is out again": lambda: after_program("sh", "incoming|before_restore"),
    "when the new contents are out again": lambda: after_program("find", "incoming|before_restore"),
    "when the old contents are to be moved": lambda: after_program("mv", "outgoing"),
    "when what was unpacked is removed": lambda: after_program("rm", "incoming"),
}


def main(moment: str, backup: str, settings: dict[str, str]) -> None:
    """Restore, up to that moment."""
    MOMENTS[moment]()
    with BackupContext(load_settings(**settings)) as context:
        restoring.restore(context, Mortal() if moment == UNPACKING else Progress(), backup)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))


ABOVE = "/var/lib/postgresql"


def undo_of(rig: Rig) -> str | None:
    """The name of the undo point that there is."""
    return next((VOLUME_UNDO + name.removeprefix(ASIDE) for name in rig.aside()), None)


def remove(rig: Rig, made: Backup) -> None:
    """A backup that is of no use to other tests."""
    for path in rig.directory.glob(f"{made.name}*"):
        path.unlink()


def users(rig: Rig) -> list[str]:
    """Names of the containers that have the volume."""
    return run_docker("ps", "-a", "--filter", f"volume={rig.volume()}", "--format", "{{.Names}}").split()


def start(rig: Rig, stopped: StoppedContainer) -> list[DependentReport]:
    with BackupContext(rig.settings) as context:
        return journals.start(context, [stopped])


def change_a_byte(file: Path) -> None:
    """Near its end. Called twice it is as it was."""
    with file.open("r+b") as opened:
        opened.seek(-2000, 2)
        byte = opened.read(1)[0]
        opened.seek(-2000, 2)
        opened.write(bytes([byte ^ 1]))


def compose(rig: Rig, *arguments: str) -> str:
    """`docker compose`, with what it says on stderr."""
    assert rig.stack is not None
    files = ("-f", str(rig.stack.directory / "compose.yaml"), "-f", str(rig.stack.directory / "override.yaml"))
    environment = {"SCARLET_CONTAINER": rig.container, "POSTGRES_PASSWORD": rig.stack.password}
    done = docker(("compose", "-p", rig.stack.project, *files, *arguments), env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr.decode()
    return done.stderr.decode()


def command(rig: Rig, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, with nobody to be asked."""
    return subprocess.run(
        [sys.executable, "-m", "scarlet_backup_mcp", *arguments],
        env=environment_of(rig.settings),
        cwd=PROJECT_ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
