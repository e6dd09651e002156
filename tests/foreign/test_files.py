"""Dumps as others make and keep them: listed, verified, drilled and restored for what they are."""

from __future__ import annotations

import gzip
import lzma
import os
import re
import shutil
import sqlite3
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import zstandard

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.errors import (
    BackupNotValid,
    ConfirmationStale,
    NameRefused,
    OtherDatabaseRefused,
    PreflightFailed,
    SmallerRefused,
    StoreError,
    again,
)
from scarlet_backup_mcp.models.common import Level
from scarlet_backup_mcp.models.verification import Verification
from scarlet_backup_mcp.postgres.server import catalogue as pg
from scarlet_backup_mcp.postgres.server.session import Session
from scarlet_backup_mcp.procedures.catalog import records
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.drill import sql as drills
from scarlet_backup_mcp.procedures.restore import size_guard
from scarlet_backup_mcp.procedures.restore.options import RestoreOptions
from scarlet_backup_mcp.procedures.restore.service import dry_run, propose, restore
from scarlet_backup_mcp.procedures.sandbox import pg_restore
from scarlet_backup_mcp.procedures.sandbox.lifecycle import SandboxServer, sandbox_server, sweep
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import Settings
from scarlet_backup_mcp.store import reading
from scarlet_backup_mcp.summaries import describe

from ..helpers.drill import Databases, SandboxServers, bring_back, drill, listed, take

MEMORY = """
CREATE SCHEMA s; CREATE EXTENSION vector SCHEMA s; SET search_path = s;
ALTER DATABASE :"DBNAME" SET search_path = s, public;
CREATE TABLE agents (id int PRIMARY KEY, name text);
INSERT INTO agents VALUES (1, 'Scarlet'), (2, 'perché'), (3, NULL);
CREATE TABLE messages (id int PRIMARY KEY, agent int REFERENCES agents, body text);
INSERT INTO messages SELECT n, 1 + n % 3, 'note ' || n FROM generate_series(1, 40) n;
SELECT lo_from_bytea(4711, '\\x00ff');
COMMENT ON DATABASE :"DBNAME" IS 'mind';
"""
ROWS = 43


@pytest.fixture
def shared(running: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> SandboxServers:
    kept = SandboxServers()

    def given(context: BackupContext, progress: Progress, tables: int = 0) -> AbstractContextManager[SandboxServer]:
        assert context.directory.path.is_dir()
        (context.directory.path / ".scarlet-drill").mkdir(exist_ok=True)
        return kept.shared(running)

    monkeypatch.setattr(drills, "sandbox_server", given)
    monkeypatch.setattr(pg_restore, "sandbox_server", given)
    return kept


@pytest.fixture(scope="module")
def mind(embedded: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Databases, Settings]]:
    databases = Databases(embedded, tmp_path_factory.mktemp("mind"))
    yield databases, databases.make(MEMORY)
    databases.drop()


@pytest.fixture
def here(mind: tuple[Databases, Settings]) -> Iterator[Settings]:
    """The directory is empty before and after; what was restored stays."""
    _, settings = mind
    yield settings
    assert settings.dir is not None
    for path in settings.dir.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@pytest.fixture
def databases(mind: tuple[Databases, Settings]) -> Databases:
    return mind[0]


def look(settings: Settings, name: str, level: Level = "full") -> Verification:
    with BackupContext(settings) as context:
        return verify(context, Progress(), name, level)


def said(found: Verification, check: str) -> str:
    return next((f"{item.found} {item.detail}".strip() for item in found.checks if item.check == check), "")


def rows_in(databases: Databases, settings: Settings) -> str:
    query = "SELECT (SELECT count(*) FROM s.agents) + (SELECT count(*) FROM s.messages)"
    return databases.psql(query, settings.database)


def drop_undo(databases: Databases, settings: Settings) -> None:
    for name in databases.beside(settings):
        if name != settings.database:
            databases.psql(f"DROP DATABASE {name}", "postgres")


# -- several dumps, and statements for the database itself -----------------------------------------------------------

CREATES = [("-C",), ("-C", "--clean"), ("-C", "--clean", "--if-exists"), ("--clean", "--if-exists"), ("--inserts",)]


@pytest.mark.sample(2)
@pytest.mark.parametrize("options", CREATES, ids=" ".join)
def test_a_dump_that_makes_its_database(
    databases: Databases, here: Settings, shared: SandboxServers, options: tuple[str, ...]
) -> None:
    databases.pg_dump(here, *options)
    found = look(here, "old.sql")
    assert ({check.check for check in found.checks if check.ok is False}, found.rows) == (
        {"manifest"},
        ROWS * (options[0] != "--inserts"),
    )
    if "-C" in options:
        assert f"CREATE DATABASE {here.database}" in said(found, "contents")
        assert "search_path" in said(found, "contents")
    assert drill(here, "old.sql").proved is True
    done = bring_back(here, "old.sql", accept_foreign=True)
    assert (rows_in(databases, here), done.integrity_rows) == (str(ROWS), 3)
    assert any("left out" in warning for warning in done.warnings) is ("-C" in options)
    assert databases.psql("SHOW search_path", here.database) == "s, public"
    drop_undo(databases, here)


@pytest.mark.sample(1)
@pytest.mark.parametrize("options", [(), ("--clean", "--if-exists")], ids=["plain", "clean"])
def test_of_a_dump_of_the_cluster_the_database_is_taken(
    databases: Databases, here: Settings, shared: SandboxServers, options: tuple[str, ...]
) -> None:
    databases.pg_dumpall(here, *options)
    other = databases.make("CREATE TABLE agents AS SELECT 1 AS id; CREATE TABLE more AS SELECT 2 AS id")
    databases.pg_dumpall(here, *options)
    found = look(here, "all.sql")
    assert (found.rows, {check.check for check in found.checks if check.ok is False}) == (ROWS, {"manifest"})
    assert other.database in said(found, "contents")
    assert look(here, "all.sql", "quick").checks[-1].ok is True
    assert bring_back(here, "all.sql", accept_foreign=True).integrity_rows == 3
    assert rows_in(databases, here) == str(ROWS)
    drop_undo(databases, here)


def test_roles_that_a_dump_of_the_cluster_makes_are_offered(databases: Databases, here: Settings) -> None:
    role = databases.make_role("LOGIN CREATEDB PASSWORD 'hidden'")
    databases.psql(f"GRANT SELECT ON s.agents TO {role}", here.database)
    path = databases.pg_dumpall(here)
    databases.psql(f"DROP OWNED BY {role}; DROP ROLE {role}", here.database)
    databases.roles.remove(role)
    assert "hidden" not in said(look(here, "all.sql"), "contents")
    with pytest.raises(PreflightFailed) as refused:
        bring_back(here, path.name, accept_foreign=True)
    assert f"CREATE ROLE {role} LOGIN CREATEDB;" in refused.value.remedy
    assert "SCRAM" not in str(refused.value)


def test_a_dump_of_roles_only_is_no_database(databases: Databases, here: Settings) -> None:
    databases.pg_dumpall(here, "--globals-only")
    assert "only roles and tablespaces" in str(look(here, "all.sql").remedy)
    with pytest.raises(BackupNotValid, match="only roles and tablespaces"):
        bring_back(here, "all.sql", accept_foreign=True)


def test_a_dump_of_another_database_needs_a_word(databases: Databases, here: Settings, shared: SandboxServers) -> None:
    path = databases.pg_dump(here, "-C")
    path.write_text(re.sub(rf"\b{here.database}\b", '"an other"', path.read_text()))
    with pytest.raises(OtherDatabaseRefused, match="an other"):
        bring_back(here, path.name, accept_foreign=True)
    bring_back(here, path.name, accept_foreign=True, accept_other_database=True)
    assert rows_in(databases, here) == str(ROWS)
    drop_undo(databases, here)


def changed(databases: Databases, here: Settings, how: Callable[[str], str]) -> str:
    path = databases.pg_dump(here)
    path.write_text(how(path.read_text()), newline="")
    return path.name


def supabase(script: str) -> str:
    """As its CLI writes it: `sed '/^--/d'`, some forms made idempotent, and RESET ALL behind it."""
    script = re.sub("^--.*\n", "", script, flags=re.MULTILINE)
    return script.replace("CREATE TABLE ", "CREATE TABLE IF NOT EXISTS ") + "RESET ALL;\n"


CHANGES: dict[str, Callable[[str], str]] = {
    "no comments": lambda script: re.sub("^--.*\n", "", script, flags=re.MULTILINE),
    "Supabase": supabase,
    "byte order mark": lambda script: "\ufeff" + script,
    "a setting before it": lambda script: f"SET session_replication_role = replica;\n{script}RESET ALL;\n",
}


@pytest.mark.parametrize("how", CHANGES.values(), ids=CHANGES)
def test_scripts_that_others_have_changed(
    databases: Databases, here: Settings, shared: SandboxServers, how: Callable[[str], str]
) -> None:
    name = changed(databases, here, how)
    found = look(here, name)
    assert ({check.check for check in found.checks if check.ok is False}, found.rows) == ({"manifest"}, ROWS)
    bring_back(here, name, accept_foreign=True)
    assert rows_in(databases, here) == str(ROWS)
    drop_undo(databases, here)


def test_a_script_that_connects_to_the_database_first(
    databases: Databases, here: Settings, shared: SandboxServers
) -> None:
    name = changed(databases, here, lambda script: f"\\connect {here.database}\n{script}")
    bring_back(here, name, accept_foreign=True)
    assert rows_in(databases, here) == str(ROWS)
    drop_undo(databases, here)


def test_two_dumps_are_taken_as_one_unless_they_are_of_the_same_tables(
    databases: Databases, here: Settings, shared: SandboxServers
) -> None:
    whole = databases.pg_dump(here).read_text()
    schema = databases.pg_dump(here, "--schema-only").read_text()
    data = databases.pg_dump(here, "--data-only").read_text()
    assert here.dir is not None
    (here.dir / "both.sql").write_text(schema + data)
    (here.dir / "twice.sql").write_text(whole + whole)
    bring_back(here, "both.sql", accept_foreign=True)
    assert rows_in(databases, here) == str(ROWS)
    drop_undo(databases, here)
    second = whole.count("\n") + 2
    with pytest.raises(BackupNotValid, match=rf"the same tables twice \(s.agents, s.messages\).* 2 and {second}"):
        bring_back(here, "twice.sql", accept_foreign=True)
    assert look(here, "twice.sql").drill is None


def test_one_of_two_dumps_that_is_cut_off_is_damage(databases: Databases, here: Settings) -> None:
    schema = databases.pg_dump(here, "--schema-only").read_text()
    data = databases.pg_dump(here, "--data-only").read_text()
    assert here.dir is not None
    trailer = "--\n-- PostgreSQL database dump complete\n--\n"
    for name, content in (
        ("first.sql", schema.replace(trailer, "") + data),
        ("last.sql", schema + data.replace(trailer, "")),
    ):
        (here.dir / name).write_text(content)
        assert "trailer" in {check.check for check in look(here, name).checks if check.ok is False}
    (here.dir / "uncommented.sql").write_text(
        re.sub("^--.*\n", "", schema, flags=re.MULTILINE) + "COPY s.agents (id) FROM stdin;\n1\n"
    )
    assert "COPY data" in said(look(here, "uncommented.sql"), "structure")


def test_statements_of_somebodys_own_behind_a_whole_dump_are_no_damage(
    databases: Databases, here: Settings, shared: SandboxServers
) -> None:
    own = "CREATE INDEX own ON s.agents (name);\n"
    whole = changed(databases, here, lambda script: script + own)
    levels: tuple[Level, ...] = ("quick", "full")
    for level in levels:
        found = look(here, whole, level)
        assert {check.check for check in found.checks if check.ok is False} == {"manifest"}
        assert "damaged" not in str(found.remedy)
    assert "a dump and statements outside of it" in said(look(here, whole), "contents")
    bring_back(here, whole, accept_foreign=True)
    assert databases.psql("SELECT 's.own'::regclass", here.database) == "own"
    drop_undo(databases, here)
    cut = changed(databases, here, lambda script: script.replace("-- PostgreSQL database dump complete\n", "") + own)
    assert "trailer" in {check.check for check in look(here, cut).checks if check.ok is False}


@pytest.mark.parametrize(
    "more",
    [
        "CREATE DATABASE other;",
        "DROP DATABASE x;",
        "ALTER DATABASE other OWNER TO postgres;",
        "\\! id",
        "\\connect postgres",
        "ALTER ROLE postgres SET work_mem = 1;",
        "GRANT postgres TO public;",
    ],
)
def test_statements_for_databases_are_left_out_only_where_pg_dump_writes_them(
    databases: Databases, here: Settings, more: str
) -> None:
    path = databases.pg_dump(here, "-C")
    trailer = "--\n-- PostgreSQL database dump complete\n"
    path.write_text(path.read_text().replace(trailer, f"{more}\n{trailer}"))
    line = path.read_text().splitlines().index(more) + 1
    assert f"line {line} " in said(look(here, path.name), "statements")


# -- parts of a database, and less than there is ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--data-only",), "data-only dump: it fills s.agents, s.messages"),
        (("--data-only", "--inserts"), "data-only dump: it fills s.agents, s.messages"),
        (("-t", "s.agents"), "a dump of some tables only (s.agents)"),
        (("-t", "s.messages"), "a dump of some tables only (s.messages)"),
    ],
)
def test_a_part_of_a_database_is_refused_for_what_it_is(
    databases: Databases, here: Settings, options: tuple[str, ...], word: str
) -> None:
    databases.pg_dump(here, *options)
    found = look(here, "old.sql")
    assert {check.check for check in found.checks if check.ok is False} == {"manifest"}
    assert word in str(found.remedy)
    with pytest.raises(BackupNotValid, match=re.escape(word)):
        bring_back(here, "old.sql", accept_foreign=True)


def test_a_restore_that_brings_less_needs_a_word_of_its_own(
    databases: Databases, here: Settings, shared: SandboxServers
) -> None:
    databases.pg_dump(here, "--schema-only")
    with pytest.raises(SmallerRefused, match=r"contains 0 rows.*replace 43 rows.*3 of them in agents") as refused:
        bring_back(here, "old.sql", accept_foreign=True)
    assert refused.value.next_call == again(accept_smaller=True)
    assert rows_in(databases, here) == str(ROWS)
    options = RestoreOptions(accept_foreign=True, accept_smaller=True)
    with BackupContext(here) as context:
        question = propose(context, Progress(), "old.sql", options).question
    assert re.search("contains 0 rows.* replace 43 rows", question)
    live = databases.make(MEMORY)
    assert live.dir is not None
    shutil.copy(databases.pg_dump(here, "--schema-only"), live.dir)
    assert bring_back(live, "old.sql", accept_foreign=True, accept_smaller=True).integrity_rows == 0


def test_so_does_a_backup_of_our_own(databases: Databases, shared: SandboxServers) -> None:
    settings = databases.make(MEMORY)
    name = take(settings).name
    databases.psql("INSERT INTO s.agents SELECT n, 'x' FROM generate_series(4, 100) n", settings.database)
    with pytest.raises(SmallerRefused, match=r"contains 43 rows in .* replace 140 rows"):
        bring_back(settings, name)
    with BackupContext(settings) as context, pytest.raises(SmallerRefused):
        dry_run(context, Progress(), name)
    assert bring_back(settings, name, accept_smaller=True).integrity_rows == 3


def test_undo_point_is_compared_too_and_nothing_is_counted_again_after_the_question(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = databases.make(MEMORY)
    undo = bring_back(settings, take(settings).name).undo_point
    assert undo is not None
    databases.psql("INSERT INTO s.agents VALUES (4, 'x')", settings.database)
    with BackupContext(settings) as context:
        proposal = propose(context, Progress(), undo)
        monkeypatch.setattr(size_guard, "measured", None)
        done = restore(context, Progress(), undo, confirmed=proposal.confirms)
    assert re.search(r"What comes: 43 rows in .*; it was set aside at 20", proposal.question)
    assert re.search(r"What it replaces: 44 rows in .*; when it was last written to is not recorded", proposal.question)
    assert "CAUTION: the live database has 1 more row, 1 more row in agents than what comes!" in proposal.question
    assert done.integrity_rows == 3


def test_partitions_are_compared_as_the_backup_names_them(databases: Databases) -> None:
    settings = databases.make(
        "CREATE TABLE agents (id int) PARTITION BY RANGE (id); CREATE TABLE low PARTITION OF agents DEFAULT;"
        "CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TABLE moods (m mood) PARTITION BY HASH (m);"
        "CREATE TABLE m0 PARTITION OF moods FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
        "CREATE TABLE m1 PARTITION OF moods FOR VALUES WITH (MODULUS 2, REMAINDER 1);"
        "INSERT INTO agents VALUES (1); INSERT INTO moods VALUES ('a'), ('b')"
    )
    name = take(settings).name
    with BackupContext(settings) as context:
        question = propose(context, Progress(), name).question
    assert question.count("3 rows in 2 tables, 1 of them in agents") == 2
    assert "CAUTION" not in question


def test_all_tables_together_are_counted_for_so_long_only(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = [f"t{n}" for n in range(6)]
    settings = databases.make("".join(f"CREATE TABLE {name} AS SELECT 1;" for name in tables))
    with BackupContext(settings) as context, context.server.session(context.database) as other:
        found = size_guard.measured(context, context.database, 3, Progress())
        assert (found.rows, found.integrity_rows, found.tables) == (6, 3, 6)
        assert (found.bytes or 0) > 1_000_000

        def then_locked(session: Session, *, sizes: bool = True) -> list[pg.Table]:
            found = listed_tables(session, sizes=sizes)
            other.execute(f"BEGIN; LOCK TABLE {', '.join(f'public.{name}' for name in tables)}")
            return found

        listed_tables = pg.tables
        monkeypatch.setattr(pg, "tables", then_locked)
        monkeypatch.setattr(size_guard, "SECONDS", 1)
        began = time.monotonic()
        found = size_guard.measured(context, context.database, 3, Progress())
        assert (found.rows, found.integrity_rows, found.tables) == (None, 3, 6)
        assert time.monotonic() - began < 3


# -- compressed, archives, and what is no dump -------------------------------------------------------------------------


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "mind.sql.gz": gzip.compress,
    "mind.sql.zst": zstandard.compress,
    "mind.sql.xz": lzma.compress,
    "mind.dump.gz": lambda data: gzip.compress(data[:500]) + gzip.compress(data[500:]),
    "mind.bak": gzip.compress,
    "Mind of 2024.SQL": bytes,
}


@pytest.mark.parametrize(("name", "pack"), PACKED.items())
def test_a_compressed_script_is_read_as_what_is_inside(
    databases: Databases, here: Settings, shared: SandboxServers, name: str, pack: Callable[[bytes], bytes]
) -> None:
    path = databases.pg_dump(here)
    packed = pack(path.read_bytes())
    assert here.dir is not None
    (here.dir / name).write_bytes(packed)
    assert listed(here, name).state == "foreign"
    found = look(here, name)
    assert ({check.check for check in found.checks if check.ok is False}, found.rows) == ({"manifest"}, ROWS)
    bring_back(here, name, accept_foreign=True)
    assert rows_in(databases, here) == str(ROWS)
    drop_undo(databases, here)
    if name != "Mind of 2024.SQL":
        (here.dir / name).write_bytes(packed[:-20])
        assert {check.check for check in look(here, name).checks if check.ok is False} > {"compression"}


FORMS = [("-Fc", "mind.dump"), ("-Fc", "mind.backup.xz"), ("-Ft", "mind.tar"), ("-Ft", "mind.tar.gz"), ("-Fd", "mind")]


@pytest.mark.parametrize(("form", "name"), FORMS)
def test_an_archive_is_converted_and_then_as_any_other_file(
    databases: Databases, here: Settings, shared: SandboxServers, form: str, name: str
) -> None:
    archive = databases.archive(here, form, name)
    shown = listed(here, name)
    assert (shown.state, form in shown.detail) == ("foreign", True)
    found = look(here, name)
    assert ({check.check for check in found.checks if check.ok is False}, found.rows) == ({"manifest"}, None)
    assert (here.database in said(found, "form"), "level drill" in str(found.remedy)) == (True, True)
    assert "whole" not in describe(found)
    drilled = drill(here, name)
    assert (drilled.proved, drilled.rows, drilled.sha256) == (True, ROWS, found.sha256)
    assert listed(here, name).proved_at == drilled.proved_at
    with BackupContext(here) as context:
        assert dry_run(context, Progress(), name, RestoreOptions(accept_foreign=True)).restored is False
    bring_back(here, name, accept_foreign=True)
    assert rows_in(databases, here) == str(ROWS)
    drop_undo(databases, here)
    assert archive.exists()
    assert not [path for path in (archive.parent / ".scarlet-drill").iterdir() if path.suffix == ".partial"]


def test_what_killed_conversions_left_is_removed_and_nothing_that_is_used(databases: Databases, here: Settings) -> None:
    name = databases.archive(here, "-Fc", "mind.dump").name
    assert here.dir is not None
    drills = here.dir / ".scarlet-drill"
    with BackupContext(here) as context:
        record = records.sql_record(context, context.directory.find(name))
        with pg_restore.as_script(context, record, Progress()) as script:
            left = drills / "0123456789abcdef.sql.zst.partial"
            left.write_bytes(b"secrets")
            assert sweep(context) == [left.name]
            assert (script.entry.path.exists(), left.exists()) == (True, False)
        left.write_bytes(b"secrets")
        with sandbox_server(context, Progress()) as ready:
            assert not left.exists()
        assert any(left.name in warning for warning in ready.warnings)
    assert {path.name for path in drills.iterdir()} <= {"owner", ".scarlet-backup.lock"}


def test_an_archive_that_holds_less_is_refused_once_it_is_converted(
    databases: Databases, here: Settings, shared: SandboxServers
) -> None:
    databases.archive(here, "-Fc", "schema.dump", "--schema-only")
    databases.archive(here, "-Fc", "data.dump", "--data-only")
    with pytest.raises(SmallerRefused, match="contains 0 rows"):
        bring_back(here, "schema.dump", accept_foreign=True)
    with pytest.raises(BackupNotValid, match="data-only"):
        bring_back(here, "data.dump", accept_foreign=True)
    assert rows_in(databases, here) == str(ROWS)


def test_an_archive_that_is_cut_off(databases: Databases, here: Settings, shared: SandboxServers) -> None:
    archive = databases.archive(here, "-Fc", "mind.dump")
    archive.write_bytes(archive.read_bytes()[:-400])
    found = drill(here, archive.name)
    assert "conversion" in {check.check for check in found.checks if check.ok is False}
    with pytest.raises(BackupNotValid, match="pg_restore"):
        bring_back(here, archive.name, accept_foreign=True)
    archive.write_bytes(archive.read_bytes().replace(b"PGDMP\x01\x10", b"PGDMP\x01\x7f"))
    newer = drill(here, archive.name)
    assert ("newer pg_dump" in str(newer.remedy), "whole" in describe(newer)) == (True, False)
    assert "newer pg_dump" in str(_refusal(here, archive.name).remedy)
    assert rows_in(databases, here) == str(ROWS)


def _refusal(settings: Settings, name: str) -> BackupNotValid:
    with pytest.raises(BackupNotValid) as refused:
        bring_back(settings, name, accept_foreign=True)
    return refused.value


def test_a_directory_that_changes_after_it_was_confirmed(
    databases: Databases, here: Settings, shared: SandboxServers
) -> None:
    archive = databases.archive(here, "-Fd", "mind")
    with BackupContext(here) as context:
        agreed = propose(context, Progress(), "mind", RestoreOptions(accept_foreign=True))
        (archive / "more").write_bytes(b"x")
        with pytest.raises(ConfirmationStale):
            restore(context, Progress(), "mind", RestoreOptions(accept_foreign=True), confirmed=agreed.confirms)


def sqlite(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE agents (id)")
    connection.close()


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("letta.sql", "--")


NO_DUMPS: list[tuple[str, Callable[[Path], object], str]] = [
    ("shop.sql", lambda path: path.write_text("-- MySQL dump 10.13  Distrib 8.0.36\n--\nSELECT 1;\n"), "MySQL"),
    ("shop.sql.gz", lambda path: path.write_bytes(gzip.compress(b"-- MariaDB dump 10.19\n")), "MariaDB"),
    ("letta.db", sqlite, "SQLite"),
    ("letta.sql.zip", zipped, "ZIP"),
    ("letta.tar", lambda path: shutil.make_archive(str(path)[:-4], "tar", path.parent, "."), "not one of pg_dump's"),
]


@pytest.mark.parametrize(("name", "write", "word"), NO_DUMPS)
def test_what_is_no_dump_of_postgresql_is_named(
    here: Settings, name: str, write: Callable[[Path], object], word: str
) -> None:
    assert here.dir is not None
    write(here.dir / name)
    assert word in listed(here, name).detail
    levels: tuple[Level, ...] = ("quick", "full", "drill")
    for level in levels:
        found = look(here, name, level)
        assert (found.valid, word in str(found.remedy), "damaged" in str(found.remedy)) == (False, True, False)
    assert word in _refusal(here, name).message


def test_a_db_file_is_listed_only_for_what_it_holds(databases: Databases, here: Settings) -> None:
    assert here.dir is not None
    (here.dir / "Thumbs.db").write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(504) + b"\xfd\xff")
    sqlite(here.dir / "letta.db")
    plain = databases.pg_dump(here, name="plain.db").read_text()
    (here.dir / "utf-16.db").write_bytes(plain.encode("utf-16"))
    (here.dir / "packed.DB").write_bytes(gzip.compress(plain.encode()))
    databases.archive(here, "-Fc", "archive.db")
    with BackupContext(here) as context:
        found = {entry.name.name for entry in context.directory.entries()}
    assert found == {"letta.db", "plain.db", "utf-16.db", "packed.DB", "archive.db"}


def test_an_xz_stream_that_takes_too_much_memory_is_not_called_damaged(
    databases: Databases, here: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that passes the real limit would take gigabytes to be written."""
    monkeypatch.setattr(reading, "XZ_MEMORY", 1 << 20)
    path = databases.pg_dump(here, name="mind.sql.xz")
    path.write_bytes(lzma.compress(path.read_bytes()))
    assert listed(here, path.name).state == "foreign"
    levels: tuple[Level, ...] = ("quick", "full", "drill")
    for level in levels:
        with pytest.raises(StoreError, match="needs more than the 1 MiB of memory") as refused:
            look(here, path.name, level)
        assert ("xz -d" in refused.value.remedy, "corrupt" in refused.value.message) == (True, False)
    with pytest.raises(StoreError, match="1 MiB"):
        bring_back(here, path.name, accept_foreign=True)


def test_links_and_devices_are_no_backups(here: Settings, tmp_path: Path) -> None:
    assert here.dir is not None
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "toc.dat").write_bytes(b"PGDMP")
    (here.dir / "link").symlink_to(outside)
    (here.dir / "inner").mkdir()
    (here.dir / "inner" / "toc.dat").symlink_to(outside / "toc.dat")
    os.mkfifo(here.dir / "pipe.dump")
    with BackupContext(here) as context:
        assert list(context.directory.entries()) == []
        for name in ("link", "inner", "pipe.dump", "../outside", "outside/toc.dat"):
            with pytest.raises(NameRefused):
                context.directory.find(name)
