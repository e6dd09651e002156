"""A small database of the tests' own on Scarlet's server, and what can be told of it from outside."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from scarlet_backup_mcp.errors import (
    BackupToolError,
)
from scarlet_backup_mcp.models.manifest import DatabaseProperties
from scarlet_backup_mcp.models.results import Backup, Restore
from scarlet_backup_mcp.postgres.dump.digests import RowDigest, RowDigests
from scarlet_backup_mcp.postgres.dump.script import RESTRICT_LINE, Handler, read_script
from scarlet_backup_mcp.postgres.server import catalogue as pg
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.restore.options import Confirmed, RestoreDrill, RestoreOptions
from scarlet_backup_mcp.procedures.restore.service import dry_run, restore
from scarlet_backup_mcp.progress import Progress, State
from scarlet_backup_mcp.settings import Settings, load_settings

from .containers import docker, psql_in, run_docker

SMALL_MEMORY = """
CREATE SCHEMA letta;
DROP SCHEMA public;
CREATE EXTENSION vector SCHEMA letta;
ALTER DATABASE :"DBNAME" SET search_path TO letta, "$user", public;
SET search_path TO letta;
CREATE TABLE agents (id int PRIMARY KEY, name text NOT NULL, mood vector(3));
INSERT INTO agents VALUES (1, 'Scarlet 🌹', '[1,2,3]'), (2, E'nota\\\\\\ta\\nb', NULL), (3, '', '[0,0,0]');
CREATE TABLE notes (id int PRIMARY KEY, body text NOT NULL);
-- Some 2.4 MB, so that a load takes more than one piece.
INSERT INTO notes SELECT n, repeat(md5(n::text) || ' perché ', 200) FROM generate_series(1, 300) AS n;
CREATE TABLE marker (was text NOT NULL);
INSERT INTO marker VALUES ('saved');
"""
"""`was` tells the state that was backed up ('saved') from the live one ('live'): see `Mind`."""

# Databases beside it and their OIDs, and a digest of content and settings: the same as long as nobody changed anything.
_AROUND = """
SELECT (SELECT string_agg(datname || ' ' || oid, ',' ORDER BY datname) FROM pg_database
        WHERE starts_with(datname, '{name}')),
       md5(concat((SELECT string_agg(a::text, '|' ORDER BY id) FROM letta.agents a),
                  (SELECT string_agg(n::text, '|' ORDER BY id) FROM letta.notes n),
                  (SELECT string_agg(m::text, '|' ORDER BY was) FROM letta.marker m),
                  (SELECT string_agg(concat(setrole::regrole, setconfig), '|' ORDER BY setrole)
                   FROM pg_db_role_setting JOIN pg_database ON setdatabase = pg_database.oid
                   WHERE datname = current_database()),
                  (SELECT concat(datacl, datconnlimit, datdba::regrole, shobj_description(oid, 'pg_database'))
                   FROM pg_database WHERE datname = current_database())));
"""


@dataclass(frozen=True)
class Content:
    """Everything in a database: rows whatever their order, all other lines of its dump, and what a dump leaves out."""

    rows: frozenset[RowDigest]
    script: list[bytes]
    schemas: list[str]
    properties: DatabaseProperties


@dataclass(frozen=True)
class Around:
    """What a call that changes nothing leaves as it was: the databases (name → OID) and the live one's content."""

    databases: dict[str, str]
    fingerprint: str


@dataclass(frozen=True)
class Mind:
    """A database with a small memory, in a container, with a directory for its backups."""

    container: str
    name: str
    directory: Path
    saved: str = ""
    """Name of a backup of it in `directory`, of the time when `marker` held 'saved'."""
    saved_fingerprint: str = ""
    password: str = field(default="", repr=False)

    @property
    def settings(self) -> Settings:
        """How to work on it."""
        return load_settings(dir=self.directory, container=self.container, database=self.name)

    @property
    def journal(self) -> Path:
        """Where a restore keeps its journal."""
        return self.directory / "restore.journal.json"

    def context(self) -> BackupContext:
        """A new one, as each call has."""
        return BackupContext(self.settings)

    def psql(self, statements: str, database: str | None = None) -> str:
        """Run SQL as an ordinary client would, with the database's own settings; the unaligned rows."""
        return psql_in(self.container, statements, database or self.name).strip()

    def databases(self) -> dict[str, str]:
        """Name → OID of the database and of all that restores made beside it."""
        named = f"SELECT datname || ' ' || oid FROM pg_database WHERE starts_with(datname, '{self.name}') ORDER BY 1"
        return dict(line.split() for line in self.psql(named, "postgres").splitlines())

    def undo_points(self) -> list[str]:
        """Databases that restores set aside, oldest first."""
        return sorted(name for name in self.databases() if name.startswith(f"{self.name}_before_restore_"))

    def around(self, database: str | None = None) -> Around:
        """What must stay the same when a call was refused, cancelled, or failed before its swap. The fingerprint is
        of the live database, or of one beside it."""
        found, fingerprint = self.psql(_AROUND.format(name=self.name), database).split("|")
        return Around(dict(item.split(" ") for item in found.split(",")), fingerprint)

    def fingerprint(self, database: str | None = None) -> str:
        """Only that."""
        return self.around(database).fingerprint

    def content(self) -> Content:
        """See `content`."""
        return content(self.container, self.settings)

    def make(self, then: str = "") -> None:
        """Make it anew, as it was when it was saved; drop what was there before."""
        self.psql(f"{self._drop}CREATE DATABASE {self.name};\n\\connect {self.name}\n{SMALL_MEMORY}{then}", "postgres")

    def make_changed(self) -> None:
        """The same, and let it differ from what was saved."""
        self.make("UPDATE marker SET was = 'live'; DELETE FROM notes WHERE id > 200; COMMENT ON SCHEMA letta IS 'x';")

    def drop(self) -> None:
        """Drop it and all beside it."""
        self.psql(self._drop, "postgres")

    def set_aside(self, was: str, stamp: str = "20260101_000000") -> str:
        """An undo point, as a restore would have left it, with that in `marker`; its name."""
        name = f"{self.name}_before_restore_{stamp}"
        update = f"UPDATE letta.marker SET was = '{was}';"
        self.psql(f"CREATE DATABASE {name} TEMPLATE {self.name};\n\\connect {name}\n{update}", "postgres")
        return name

    @property
    def _drop(self) -> str:
        drops = "SELECT format('DROP DATABASE %I WITH (FORCE)', datname) FROM pg_database"
        return f"{drops} WHERE starts_with(datname, '{self.name}') \\gexec\n"


class _Rest(Handler):
    """The lines outside COPY data, without those that differ between two dumps of one database."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def text(self, data: bytes, line: int) -> None:
        self.lines += [line for line in data.splitlines() if not RESTRICT_LINE.fullmatch(line)]


def content(container: str, settings: Settings) -> Content:
    """What a plain pg_dump of today's client and the catalogue say of a database.

    The server rewrites `CHECK (x IN (…))` on a varchar when it is loaded for the first time: the casts and parentheses
    of checks are left out.
    """
    done = docker(("exec", container, "pg_dump", "-U", "postgres", settings.database))
    assert done.returncode == 0, done.stderr.decode()
    rows, rest = RowDigests(), _Rest()
    assert read_script([done.stdout], rows, rest).trailer
    script = [re.sub(rb"::[a-z ]+(\[\])?|[()]", b"", line) if b"CHECK" in line else line for line in rest.lines]
    with BackupContext(settings) as context, context.server.session(settings.database) as session:
        properties, schemas = pg.properties(session), pg.schemas(session)
    properties.settings.sort(key=lambda setting: (setting.role or "", setting.name))
    if properties.acl is not None:
        properties.acl.sort(key=lambda grant: (grant.grantor, grant.grantee or "", grant.privilege))
    return Content(frozenset(rows.rows), script, schemas, properties)


class Watch(Progress):
    """Keeps the titles of the stages, and calls `act` once: when the stage whose title begins with `title` begins, or
    has more than `done` bytes behind it."""

    def __init__(self, title: str = "", act: Callable[[Progress], object] | None = None, done: int = -1) -> None:
        super().__init__()
        self.stages: list[str] = []
        self._title, self._act, self._done = title, act, done

    def show(self, state: State) -> None:
        if self.stages[-1:] != [state.stage]:
            self.stages.append(state.stage)
        if self._act is not None and state.stage.startswith(self._title) and state.done > self._done:
            act, self._act = self._act, None
            act(self)

    def reached(self, title: str) -> bool:
        """Whether a stage has begun whose title begins with that."""
        return any(stage.startswith(title) for stage in self.stages)


def started_at(container: str) -> str:
    """When a container was last started; as long as that is the same it was not restarted."""
    return run_docker("inspect", "--format", "{{.State.StartedAt}}", container).strip()


def listing(directory: Path) -> dict[str, tuple[int, int]]:
    """Size and modification time of all that lies in a directory, and of itself."""
    return {path.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in [directory, *directory.iterdir()]}


IMPOSSIBLE = b"ALTER TABLE letta.agents ADD CONSTRAINT impossible CHECK ((id < 0));\n"
TRAILER = b"--\n-- PostgreSQL database dump complete\n--\n"
UNAVAILABLE = 5
"""Seconds: what a swap takes at most on a busy machine (0.2 s on a quiet one)."""


def take(mind: Mind, **options: Any) -> Backup:
    with mind.context() as context:
        return backup(context, Progress(), **options)


def put_back(
    mind: Mind,
    source: str,
    progress: Progress | None = None,
    *,
    confirmed: Confirmed | None = None,
    stop_dependents: bool = False,
    drill: RestoreDrill = "auto",
    **consents: bool,
) -> Restore:
    """Leaves the dependents alone unless it is told otherwise: stopping them takes its time."""
    with mind.context() as context:
        wished = replace(RestoreOptions(stop_dependents=stop_dependents, drill=drill), **consents)
        return restore(context, progress or Progress(), source, wished, confirmed=confirmed)


def refusal(
    mind: Mind,
    kind: type[BackupToolError],
    source: str,
    *,
    accept_foreign: bool = False,
    accept_other_database: bool = False,
) -> BackupToolError:
    """Both a dry run and a restore refuse, for the same reason, before anything is made, and change nothing."""
    around, files = mind.around(), listing(mind.directory)
    watch = Watch()
    with mind.context() as context, pytest.raises(kind) as dry:
        dry_run(
            context,
            watch,
            source,
            RestoreOptions(accept_foreign=accept_foreign, accept_other_database=accept_other_database),
        )
    assert listing(mind.directory) == files
    with pytest.raises(kind) as real:
        put_back(mind, source, watch, accept_foreign=accept_foreign, accept_other_database=accept_other_database)
    assert mind.around() == around
    assert not watch.reached("creating")
    assert (dry.type, str(dry.value)) == (kind, str(real.value))
    return real.value


def foreign(mind: Mind, before_the_trailer: bytes) -> str:
    """A file without a manifest: the backup with something more at its end."""
    script = (mind.directory / mind.saved).read_bytes()
    assert script.count(TRAILER) == 1
    name = "from_elsewhere_20260101_000000.sql"
    (mind.directory / name).write_bytes(script.replace(TRAILER, before_the_trailer + TRAILER))
    return name
