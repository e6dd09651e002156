"""Small databases on the embedded server, drills of their backups, and hands in the throw-away server meanwhile."""

from __future__ import annotations

import gzip
import lzma
import os
import re
import secrets
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.hosts.docker import sandbox as containers
from scarlet_backup_mcp.models.results import Backup, Listed, Restore
from scarlet_backup_mcp.models.verification import Verification
from scarlet_backup_mcp.postgres.server.quoting import identifier, literal
from scarlet_backup_mcp.postgres.server.session import Session
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.drill import sql as drills
from scarlet_backup_mcp.procedures.listing import list_backups
from scarlet_backup_mcp.procedures.restore.options import RestoreOptions
from scarlet_backup_mcp.procedures.restore.service import restore
from scarlet_backup_mcp.procedures.sandbox.lifecycle import DRILLS, SandboxServer, owner_of
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import Settings, load_settings

from .containers import run_docker
from .restore import Watch

RESTORED = "dumping what was restored"
"""The stage before which a backup is loaded, and after which it is compared."""
_ENTRY = r"--\n-- (?:Data for )?Name: {}; Type: {};.*?(?=\n--\n-- )"


# The procedures, each with a target of its own as the faces have it


def take(settings: Settings, progress: Progress | None = None, **options: Any) -> Backup:
    with BackupContext(settings) as context:
        return backup(context, progress or Progress(), **options)


def drill(settings: Settings, name: str = "latest", progress: Progress | None = None, **options: Any) -> Verification:
    with BackupContext(settings) as context:
        return verify(context, progress or Progress(), name, "drill", **options)


def bring_back(settings: Settings, name: str, progress: Progress | None = None, **options: Any) -> Restore:
    with BackupContext(settings) as context:
        return restore(context, progress or Progress(), name, RestoreOptions(**options))


def listed(settings: Settings, name: str) -> Listed:
    """As `list_backups` shows it."""
    with BackupContext(settings) as context:
        return next(item for item in list_backups(context, 100).backups if item.name == name)


def nobody_knows(session: Session, shared_memory: int | None) -> None:
    """In place of `capacity`, as on a system that does not say what a server has."""


def wrong(found: Verification) -> dict[str, str]:
    """The drill's own checks that do not hold, with what they say."""
    drilled = [check for check in found.checks if check.check.startswith("drill_") and check.ok is False]
    return {check.check: check.detail or check.found for check in drilled}


# Files


def entry(script: str, name: str, kind: str) -> str:
    """What pg_dump wrote of one object, with the comment before it."""
    found = re.search(_ENTRY.format(re.escape(name), kind), script, re.DOTALL)
    assert found is not None
    return found[0] + "\n"


def before_the_end(script: str, statements: str) -> str:
    """The same with something more."""
    trailer = "--\n-- PostgreSQL database dump complete\n"
    assert script.count(trailer) == 1
    return script.replace(trailer, f"{statements}\n\n{trailer}")


# Databases


@dataclass(frozen=True)
class Databases:
    """Makes databases on the embedded server and drops them, and the roles that their statements made."""

    server: EmbeddedServer
    directory: Path
    names: list[str] = field(default_factory=list[str])
    roles: list[str] = field(default_factory=list[str])

    def make(self, statements: str = "", options: str = "", **settings: Any) -> Settings:
        """Settings for a new one, with a backup directory of its own."""
        name = f"drill_{secrets.token_hex(4)}"
        self.psql(f"CREATE DATABASE {name} {options};", "postgres")
        self.names.append(name)
        made = self.settings(name, **settings)
        self.psql(statements, name)
        return made

    def settings(self, name: str, **settings: Any) -> Settings:
        """How to work on a database, with a backup directory of its own."""
        directory = self.directory / secrets.token_hex(4)
        directory.mkdir(mode=0o700)
        chosen = {"dsn": self.server.dsn(""), "database": name, "dir": directory, **settings}
        return load_settings(via="local", bin_dir=self.server.bin_dir, **chosen)

    def make_role(self, options: str = "") -> str:
        """A role that is dropped at the end; its name, quoted."""
        name = identifier(f'drill "role" è {secrets.token_hex(4)}')
        self.psql(f"CREATE ROLE {name} {options};", "postgres")
        self.roles.append(name)
        return name

    def psql(self, statements: str, database: str) -> str:
        """Run SQL; the unaligned rows."""
        psql = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]
        return self._run(psql, database, statements.encode()).decode().strip()

    def pg_dump(self, settings: Settings, *options: str, name: str = "old.sql") -> Path:
        """A file that `backup` did not make, in the backup directory."""
        assert settings.dir is not None
        path = settings.dir / name
        path.write_bytes(self._run(["pg_dump", *options], settings.database))
        return path

    def pg_dumpall(self, settings: Settings, *options: str) -> Path:
        """A dump of the cluster, as all.sql."""
        assert settings.dir is not None
        path = settings.dir / "all.sql"
        path.write_bytes(self._run(["pg_dumpall", *options], "postgres"))
        return path

    def archive(self, settings: Settings, form: str, name: str, *options: str) -> Path:
        """An archive of the database, compressed where its name says so."""
        assert settings.dir is not None
        path = settings.dir / name
        if form == "-Fd":
            self._run(["pg_dump", form, f"--file={path}", *options], settings.database)
            return path
        pack = {".xz": lzma.compress, ".gz": gzip.compress}.get(path.suffix, bytes)
        path.write_bytes(pack(self._run(["pg_dump", form, *options], settings.database)))
        return path

    def foreign(self, settings: Settings, change: Callable[[str], str]) -> str:
        """Such a file, changed; its name."""
        path = self.pg_dump(settings)
        before = path.read_text(encoding="utf-8")
        changed = change(before)
        assert changed != before
        path.write_text(changed, encoding="utf-8", newline="")
        return path.name

    def beside(self, settings: Settings) -> list[str]:
        """The database, and what was made beside it."""
        query = f"SELECT datname FROM pg_database WHERE starts_with(datname, {literal(settings.database)}) ORDER BY 1"
        return self.psql(query, "postgres").splitlines()

    def drop(self) -> None:
        """All of them."""
        for name in self.names:
            for found in self.psql(
                f"SELECT quote_ident(datname) FROM pg_database WHERE starts_with(datname, {literal(name)})", "postgres"
            ).splitlines():
                self.psql(f"DROP DATABASE {found} WITH (FORCE)", "postgres")
        self.psql("".join(f"DROP ROLE {role};" for role in self.roles), "postgres")

    def _run(self, command: list[str], database: str, stdin: bytes = b"") -> bytes:
        server, program = self.server, str(self.server.bin_dir / command[0])
        environment = {**os.environ, **server.environment, "PGDATABASE": database, "PGCLIENTENCODING": "UTF8"}
        done = subprocess.run([program, *command[1:]], input=stdin, capture_output=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout


# The throw-away server


@dataclass
class SandboxServers:
    """The throw-away servers that drills were given, to reach into them."""

    found: list[SandboxServer] = field(default_factory=list[SandboxServer])

    def run(self, *statements: str, database: str = "drill") -> None:
        """Run each of them in what the present drill restores."""
        with self.found[-1].server.session(database, {"session_replication_role": "replica"}) as session:
            for statement in statements:
                session.execute(statement)

    def tampering(self, *statements: str, stage: str = RESTORED) -> Watch:
        """A progress that does so between the load and the dump."""
        return Watch(stage, lambda _: self.run(*statements))

    @contextmanager
    def shared(self, ready: SandboxServer) -> Generator[SandboxServer]:
        """In the place of one that is made for a single drill: what the drill made is gone after the block."""
        self.found.append(ready)
        try:
            yield ready
        finally:
            with ready.server.session("postgres") as session:
                for database in ("drill", "drill_again"):
                    session.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
                roles = "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' AND rolname <> current_user"
                for row in session.rows(roles):
                    session.execute(f"DROP ROLE {identifier(row['rolname'])}")


def share(ready: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> SandboxServers:
    """Let the test's drills take place in that one server, one after the other."""
    kept = SandboxServers()

    def given(context: BackupContext, progress: Progress, tables: int = 0) -> AbstractContextManager[SandboxServer]:
        return kept.shared(ready)

    monkeypatch.setattr(drills, "sandbox_server", given)
    return kept


# The engine


class Wire:
    """A socket behind which the Docker engine answers until it is cut: then it is gone for whoever came through it."""

    def __init__(self, path: Path, engine: str) -> None:
        self.address = f"unix://{path}"
        self._engine = engine.removeprefix("unix://")
        self._sockets = [socket.socket(socket.AF_UNIX)]
        self._sockets[0].bind(str(path))
        self._sockets[0].listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """All connections end, and no new one is made."""
        for end in self._sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, far = self._sockets[0].accept()[0], socket.socket(socket.AF_UNIX)
                self._sockets += [near, far]
                far.connect(self._engine)
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    @staticmethod
    def _pass_on(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)


AGENTS = "CREATE TABLE agents AS SELECT generate_series(1, 3) AS id;"
REWRITTEN = """
CREATE TABLE moods (mood varchar(9) CHECK (mood IN ('sad', 'ok')));
INSERT INTO moods VALUES ('ok'), ('sad');
CREATE VIEW sad AS SELECT mood FROM moods WHERE mood IN ('sad', 'low');
"""
"""A check and a view that the server spells in another way once it has read them."""
VECTORS = """
CREATE TABLE passages AS SELECT i AS id, ARRAY[sin(i), cos(i), i]::real[]::vector(3) AS v FROM generate_series(1, 50) i;
CREATE INDEX passages_v ON passages USING hnsw (v vector_cosine_ops);
"""


def left(settings: Settings) -> list[str]:
    """What is there of this backup directory's drills: clusters, containers, volumes."""
    assert settings.dir is not None
    owner = owner_of(settings.dir / DRILLS)
    if settings.via == "local":
        return [path.name for path in Path(tempfile.gettempdir()).glob(f"scarlet-drill-{owner}-*")]
    label = f"label={containers.LABEL}={owner}"
    found = run_docker("ps", "-a", "--filter", label, "--format", "{{.Names}}").split()
    return found + run_docker("volume", "ls", "--filter", label, "--format", "{{.Name}}").split()


def proved(settings: Settings, **options: Any) -> None:
    """A drill of a new backup proves it, and finds nothing at all to say against it."""
    taken = take(settings, verify="drill", **options)
    assert taken.drill is not None
    assert (taken.drill.proved, taken.drill.detail, taken.drill.differences) == (True, "", [])
    assert (listed(settings, taken.name).state, taken.warnings, taken.drill.warnings) == ("good", [], [])


FOREIGN = f"""
{AGENTS} {REWRITTEN}
CREATE EXTENSION citext; COMMENT ON TABLE moods IS 'x';
CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$SELECT 'it''s'$$;
CREATE TABLE parts (id int, name text) PARTITION BY HASH (id);
CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO parts SELECT i, 'più' FROM generate_series(1, 9) AS i;
SELECT lo_from_bytea(4711, 'x');
"""
