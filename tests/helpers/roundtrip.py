"""Dump, destroy, restore, dump again: the oracle of what a backup brings back."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import xxhash

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.hosts import run
from scarlet_backup_mcp.models.common import Compression
from scarlet_backup_mcp.models.manifest import DatabaseProperties
from scarlet_backup_mcp.models.results import Backup, Restore
from scarlet_backup_mcp.models.verification import Verification
from scarlet_backup_mcp.postgres.dump.script import Handler, ScriptReader
from scarlet_backup_mcp.postgres.dump.script import Target as CopyTarget
from scarlet_backup_mcp.postgres.server import catalogue as pg
from scarlet_backup_mcp.postgres.server.quoting import identifier, literal
from scarlet_backup_mcp.postgres.server.session import OWN_SEARCH_PATH
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.listing import list_backups
from scarlet_backup_mcp.procedures.own_names import scratch_prefix, undo_prefix
from scarlet_backup_mcp.procedures.reading.sql import examine
from scarlet_backup_mcp.procedures.restore.options import RestoreOptions
from scarlet_backup_mcp.procedures.restore.service import restore
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import Settings, load_settings

from ..conftest import PROJECT_ROOT

NASTY = PROJECT_ROOT / "tests" / "data" / "nasty.sql"
OWNER, READER, USER, PUBLIC = 'nasty O\'Brien "the" owner', "nasty роль с пробелом", "nasty user", "nasty PUBLIC"
ROLES = (OWNER, READER, USER, PUBLIC)

TEMPLATE = "nasty_template"


class Dump(Handler):
    """The content of a script: its statements in order, and each table's rows whatever their order.

    Columns are taken by name: rows of a table that is loaded through its partition root may come with the columns
    in another order after they moved to another partition.
    """

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.rows: dict[tuple[str, str], tuple[int, int]] = {}
        self._pieces: list[bytes] = []
        self._order: list[int] = []
        self._table = ("", "")

    def statement(self, sql: bytes, line: int) -> None:
        if not sql.startswith(b"COPY "):
            self.statements.append(sql.decode("utf-8", "surrogateescape"))

    def copy_begin(self, target: CopyTarget, line: int) -> None:
        self._table, self._pieces = (target.schema, target.name), []
        self._order = sorted(range(len(target.columns)), key=target.columns.__getitem__)

    def copy_data(self, data: bytes) -> None:
        self._pieces.append(data)

    def copy_end(self, rows: int) -> None:
        lines = b"".join(self._pieces).split(b"\n")[:-1]
        count, total = self.rows.get(self._table, (0, 0))
        for line in lines:
            values = line.split(b"\t")
            total += xxhash.xxh3_128_intdigest(b"\t".join([values[at] for at in self._order]))
        self.rows[self._table] = count + len(lines), total % (1 << 128)


@dataclass(frozen=True)
class Content:
    """All that has to come back."""

    statements: list[str]
    rows: dict[tuple[str, str], tuple[int, int]]
    properties: DatabaseProperties
    schemas: list[dict[str, str]]


def content(settings: Settings) -> Content:
    """What the database holds now."""
    dump = Dump()
    reader = ScriptReader(dump)
    with BackupContext(settings) as context:
        with context.server.session(context.database) as session:
            properties = pg.properties(session)
            schemas = session.rows(
                """SELECT nspname, nspowner::regrole, nspacl::text, obj_description(oid, 'pg_namespace') AS comment
                   FROM pg_namespace WHERE nspname !~ '^pg_(temp|toast)' ORDER BY nspname"""
            )
        pg_dump = ["pg_dump", "--no-password", f"--encoding={properties.encoding}"]
        ended = run(context.host, pg_dump, env=context.server.environment(context.database), sink=reader.feed)
        assert ended.code == 0, ended.stderr
        assert reader.finish().trailer
    return Content(dump.statements, dump.rows, properties, schemas)


def differences(before: Sequence[str], after: Sequence[str]) -> list[tuple[str | None, str | None]]:
    return [(old, new) for old, new in zip_longest(before, after) if old != new]


def assert_same(before: Content, after: Content, rewritten: Sequence[str] = ()) -> None:
    """Equal but for the statements in which one of `rewritten` stands."""
    assert after.rows == before.rows
    assert after.properties == before.properties
    assert after.schemas == before.schemas
    changed = differences(before.statements, after.statements)
    assert [(old, new) for old, new in changed if not any(name in str(old) for name in rewritten)] == []


# The procedures, each with a target of its own as the faces have it


def take(settings: Settings, compression: Compression = "none") -> Backup:
    with BackupContext(settings) as context:
        return backup(context, Progress(), compression=compression)


def check(settings: Settings, name: str) -> Verification:
    with BackupContext(settings) as context:
        return verify(context, Progress(), name)


def bring_back(settings: Settings, name: str) -> Restore:
    with BackupContext(settings) as context:
        return restore(context, Progress(), name, RestoreOptions(stop_dependents=False))


def good_backup(settings: Settings, compression: Compression, holds: Content) -> Backup:
    """A backup that is listed as good, verifies in full, has no statement that a restore refuses, and holds that."""
    taken = take(settings, compression)
    with BackupContext(settings) as context:
        listed = {item.name: item.state for item in list_backups(context).backups}
    assert listed[taken.name] == "good"
    written = Dump()
    assert examine(Path(taken.path), compression, Progress(), written).refusals == []
    assert differences(written.statements, holds.statements) == []
    assert written.rows == holds.rows
    report = check(settings, taken.name)
    assert report.valid, [check for check in report.checks if check.ok is False]
    assert report.rows == taken.rows
    return taken


def drop(settings: Settings) -> None:
    with BackupContext(settings) as context, context.server.session(context.maintenance_database) as session:
        session.execute(f"DROP DATABASE {identifier(context.database)} WITH (FORCE)")


def query(settings: Settings, statement: str) -> str:
    with BackupContext(settings) as context, context.server.session(context.database, OWN_SEARCH_PATH) as session:
        return session.execute(statement).removesuffix("\n")


def round_trip(
    settings: Settings, compression: Compression = "none", *, rewritten: Sequence[str] = ()
) -> tuple[Backup, Restore]:
    """Backup, drop, restore by name, backup again: everything as it was."""
    before = content(settings)
    first = good_backup(settings, compression, before)
    drop(settings)
    restored = bring_back(settings, first.name)
    assert restored.rows_compared == first.rows
    # Before 17 its event trigger, which always fires, keeps what is computed anew from being read.
    unread = [
        told for told in restored.warnings if told.endswith("reading it would run the event trigger nasty_always.")
    ]
    assert restored.warnings == unread or first.shrunk
    after = content(settings)
    assert_same(before, after, rewritten)
    second = good_backup(settings, compression, after)
    assert second.rows == first.rows
    return first, restored


@dataclass(frozen=True)
class Place:
    """A server: how to speak to it in a test, and how the product is told of it."""

    run: Callable[[str, str], str]
    """Runs statements in a database; the rows."""
    settings: Callable[..., Settings]
    """Settings for a database and a backup directory."""

    def create(self, name: str, options: str = "") -> None:
        self.run(f"CREATE DATABASE {identifier(name)} {options};", "postgres")

    def remove(self, name: str) -> None:
        """Drop a database with what was restored from it or beside it."""
        prefixes = ", ".join(literal(prefix) for prefix in (name, undo_prefix(name), scratch_prefix(name)))
        found = f"SELECT quote_ident(datname) FROM pg_database, unnest(ARRAY[{prefixes}]) AS prefix "
        found += "WHERE starts_with(datname, prefix) GROUP BY datname;"
        for quoted in self.run(found, "postgres").splitlines():
            self.run(f"DROP DATABASE {quoted} WITH (FORCE);", "postgres")


def embedded_place(server: EmbeddedServer) -> Place:
    def run_statements(statements: str, database: str) -> str:
        psql = [
            str(server.bin_dir / "psql"),
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            server.dsn(database),
        ]
        done = subprocess.run([*psql, "-f", "-"], input=statements.encode(), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout.decode()

    def settings(database: str, directory: Path, integrity_table: str = "agents") -> Settings:
        return load_settings(
            via="local",
            dsn=server.dsn(""),
            bin_dir=server.bin_dir,
            dir=directory,
            database=database,
            integrity_table=integrity_table,
        )

    return Place(run_statements, settings)


@dataclass(frozen=True)
class Fresh:
    """Makes databases that are dropped at the end of the test."""

    place: Place
    directory: Path
    names: list[str] = field(default_factory=list[str])

    def __call__(self, name: str | None = None, statements: str = "", options: str = "", **settings: str) -> Settings:
        """Settings for a new database with these statements run in it; `name` None: one of its own."""
        name = name or f"roundtrip_{secrets.token_hex(4)}"
        self.place.create(name, options)
        self.names.append(name)
        made = self.place.settings(name, self.directory, **settings)
        for statement in filter(str.strip, statements.split(";\n")):
            query(made, statement)
        return made


def properties_of(database: str) -> str:
    """Statements that give a database what a plain dump does not carry."""
    name, owner, reader, user = (identifier(text) for text in (database, OWNER, READER, USER))
    settings = """
        search_path TO nasty, "$user", "Ünïcode . ""схема"" 🧠", public, extensions
        timezone TO 'Europe/Rome'
        datestyle TO 'SQL, DMY'
        intervalstyle TO 'sql_standard'
        bytea_output TO 'escape'
        extra_float_digits TO -3
        statement_timeout TO '1ms'
        lock_timeout TO '1ms'
        default_transaction_read_only TO on
        default_transaction_isolation TO 'serializable'
        client_encoding TO 'LATIN1'
        standard_conforming_strings TO off
        row_security TO off
        array_nulls TO off
        xmloption TO 'document'
        session_replication_role TO 'replica'
        client_min_messages TO 'debug1'
        default_text_search_config TO 'nasty."my search"'
        default_table_access_method TO 'nasty_heap'
        temp_tablespaces TO ''
        "nasty.setting" TO E'a, "b" ''c'' \\\\d\\n$user=e'
    """.strip().splitlines()
    return "\n".join(
        [
            f"ALTER DATABASE {name} OWNER TO {owner};",
            f"ALTER DATABASE {name} CONNECTION LIMIT 77;",
            f"COMMENT ON DATABASE {name} IS E'it''s a \\\\. comment\\n\\\\connect evil\\nмозг 🧠';",
            f"REVOKE ALL ON DATABASE {name} FROM PUBLIC;",
            f"SET SESSION AUTHORIZATION {owner};",
            f"REVOKE TEMPORARY ON DATABASE {name} FROM {owner};",
            f"GRANT CONNECT, CREATE ON DATABASE {name} TO {reader} WITH GRANT OPTION;",
            f"SET SESSION AUTHORIZATION {reader};",
            f"GRANT CONNECT ON DATABASE {name} TO {user}, PUBLIC;",
            "RESET SESSION AUTHORIZATION;",
            *(f"ALTER DATABASE {name} SET {setting};" for setting in settings),
            f"ALTER ROLE {user} IN DATABASE {name} SET search_path TO '';",
            f"ALTER ROLE {user} IN DATABASE {name} SET role TO 'nasty PUBLIC';",
            f"""ALTER ROLE {reader} IN DATABASE {name} SET search_path TO "$user", 'a "b', public;""",
            f"ALTER ROLE postgres IN DATABASE {name} SET work_mem TO '5MB';",
        ]
    )
