"""Any name, any text and any encoding comes back, in bounded time and memory."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg import sql

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.errors import BackupToolError
from scarlet_backup_mcp.postgres.server.quoting import identifier, literal
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.listing import list_backups
from scarlet_backup_mcp.procedures.own_names import undo_prefix
from scarlet_backup_mcp.procedures.prune import prune
from scarlet_backup_mcp.procedures.verify.sql import verify as drill
from scarlet_backup_mcp.progress import Progress

from ..helpers.roundtrip import Fresh, Place, bring_back, check, drop, query, round_trip, take

MEMORY_LIMIT = 150 << 20
HOSTILE_NAMES = (
    "dbname=postgres host=evil",
    "\"quoted\" 'twice'",
    "--version",
    "$(id) `id` $HOME",
    "back\\slash;--",
    "Ж" * 31,
    "a=b",
    "postgresql://evil",
    "two words",
    "memoria 🧠 Скарлет",
    "-dash",
    "%s %(x)s {}",
    "UPPER.lower",
    "x" * 31,
    "x" * 63,
)


# Names


@pytest.mark.sample(6)
@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_database_may_have_any_name(fresh: Fresh, name: str) -> None:
    settings = fresh(name, "CREATE TABLE agents AS SELECT generate_series(1, 3) AS id")
    taken = take(settings)
    assert (taken.database, taken.rows, taken.safe_to_proceed) == (name, 3, True)
    assert check(settings, taken.name).valid
    drop(settings)
    bring_back(settings, taken.name)
    query(settings, "INSERT INTO agents VALUES (4)")
    restored = bring_back(settings, "latest")
    assert restored.undo_point is not None
    with BackupContext(settings) as context:
        listing = list_backups(context)
    assert [(item.name, item.state, item.other_database) for item in listing.backups] == [(taken.name, "good", False)]
    assert [point.name for point in listing.undo_points or []] == [restored.undo_point]
    assert query(settings, "SELECT count(*) FROM agents") == "3"
    bring_back(settings, restored.undo_point)
    assert query(settings, "SELECT current_database(), count(*) FROM agents") == f"{name}|4"


def test_undo_after_undo_within_a_second(fresh: Fresh) -> None:
    """The names of undo points hold the second; on a small database a swap takes less."""
    settings = fresh(statements="CREATE TABLE agents AS SELECT 1 AS id")
    source = take(settings).name
    for _ in range(4):
        undo_point = bring_back(settings, source).undo_point
        assert undo_point is not None
        source = undo_point


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", ["è" * 31, "x" * 33, "m" * 62 + "1"], ids=["62", "33", "63"])
def test_undo_points_of_a_long_name_have_the_whole_name_in_their_comment(fresh: Fresh, name: str) -> None:
    settings = fresh(name, "CREATE TABLE agents AS SELECT generate_series(1, 3) AS id")
    other = fresh(name[:-1] + "2", "CREATE TABLE agents AS SELECT generate_series(1, 4) AS id")
    comment = f"SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = {literal('{}')}"
    query(settings, f"COMMENT ON DATABASE {identifier(name)} IS E'of\\nmine'")
    saved, others = take(settings).name, take(other).name
    query(settings, "DELETE FROM agents")
    restored = bring_back(settings, saved)
    undo_point = restored.undo_point
    assert undo_point is not None
    assert len(undo_point.encode()) <= 63
    assert query(settings, comment.format(undo_point)) == f"of\nmine\nscarlet-backup-mcp: undo point of {name}"
    of_the_other = bring_back(other, others).undo_point
    assert of_the_other not in (None, undo_point)
    with BackupContext(settings) as context:
        assert drill(context, Progress(), saved, "drill", on_live_server=True).drill is not None
        assert [point.name for point in list_backups(context).undo_points or []] == [undo_point]
    again = bring_back(settings, undo_point).undo_point
    assert again is not None
    assert query(settings, "SELECT count(*) FROM agents") == "0"
    assert query(settings, comment.format(name)) == "of\nmine"
    with BackupContext(settings) as context:
        items = prune(context, Progress(), dry_run=False, include_undo=True).items
    assert [item.name for item in items if item.what == "undo_point"] == [again]
    with BackupContext(other) as context:
        assert [point.name for point in list_backups(context).undo_points or []] == [of_the_other]


def test_undo_point_of_another_database_whose_name_has_the_same_digest_is_not_taken_for_ours(fresh: Fresh) -> None:
    name = "y" * 40
    settings = fresh(name, "CREATE TABLE agents AS SELECT 1 AS id")
    beside = undo_prefix(name) + "20260101_000000"
    fresh(beside, "SELECT 1")
    with BackupContext(settings) as context:
        assert list_backups(context).undo_points == []
    for whose, found in (("y" * 39 + "z", []), (name, [beside])):
        query(settings, f"COMMENT ON DATABASE {identifier(beside)} IS 'scarlet-backup-mcp: undo point of {whose}'")
        with BackupContext(settings) as context:
            assert [point.name for point in list_backups(context).undo_points or []] == found


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "table", ['a"gents', "ag''ents\\; --", "public.agents", "My agents", "Агенты 🧠", "select", "%s"]
)
def test_the_integrity_table_may_have_any_name(fresh: Fresh, table: str) -> None:
    settings = fresh(
        statements=f"""CREATE SCHEMA "Letta's";
CREATE TABLE "Letta's".{identifier(table)} AS SELECT generate_series(1, 3) AS id""",
        integrity_table=table,
    )
    query(settings, f"""ALTER DATABASE {identifier(settings.database)} SET search_path TO "$user", "Letta's" """)
    taken = take(settings)
    assert (taken.integrity_rows, taken.safe_to_proceed) == (3, True)
    drop(settings)
    assert bring_back(settings, taken.name).integrity_rows == 3


def test_a_schema_may_have_a_name_like_the_system_s(fresh: Fresh) -> None:
    names = ("information_schema_2", '"pg_quoted', "PG_upper", "pgx", "Information_Schema")
    schemas = [
        f"CREATE SCHEMA {identifier(name)};\nCREATE TABLE {identifier(name)}.pg_class AS SELECT 1" for name in names
    ]
    settings = fresh(statements=";\n".join(["CREATE TABLE agents AS SELECT 1 AS id", *schemas]))
    taken = take(settings)
    assert (taken.rows, taken.safe_to_proceed, check(settings, taken.name).valid) == (6, True, True)
    drop(settings)
    assert bring_back(settings, taken.name).rows_compared == 6


def test_functions_in_the_way_of_the_system_s_own_are_not_called(fresh: Fresh) -> None:
    """Whoever may create something in `public` would otherwise have it run with a superuser's rights."""
    refuse = "LANGUAGE plpgsql AS $$BEGIN RAISE 'called'; END$$"
    settings = fresh(
        statements=f"""CREATE TABLE agents AS SELECT 1 AS id;
CREATE FUNCTION public.pg_table_size(oid) RETURNS bigint {refuse};
CREATE FUNCTION public.pg_partition_root(oid) RETURNS regclass {refuse}"""
    )
    taken = take(settings)
    drop(settings)
    assert bring_back(settings, taken.name).rows_compared == 1


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=80)
identifiers = texts.filter(lambda text: 0 < len(text.encode()) <= 63)


@hypothesis_settings(
    max_examples=6,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    schema=identifiers.filter(lambda name: not name.startswith("pg_") and name != "information_schema"),
    tables=st.dictionaries(identifiers, st.tuples(identifiers, st.lists(st.none() | texts, max_size=5)), max_size=6),
)
@example(schema="\r\n", tables={"\\.\n": ("\x85", ["\\.", "\n\\.\n", "", None, "\\N", "\r"]), "--": ("/*", ["\x1a"])})
@example(schema="\u00c8", tables={"\u00d2": ("true", ["one name is a key word, and no other needs no quotes"])})
@example(schema="COPY", tables={"FROM": ("stdin;", ["\u2028"]), "stdin": ("(", ["\t"]), ")": ("$$", ["$$"])})
def test_any_identifier_and_any_text_comes_back(
    local: Place,
    embedded: EmbeddedServer,
    schema: str,
    tables: dict[str, tuple[str, list[str | None]]],
) -> None:
    name = f"roundtrip_{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory() as directory:
        settings = local.settings(name, Path(directory) / "backups")
        local.create(name)
        try:
            with psycopg.connect(embedded.dsn(name), autocommit=True) as connection:
                connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
                for table, (column, values) in tables.items():
                    full, quoted = sql.Identifier(schema, table), sql.Identifier(column)
                    connection.execute(sql.SQL("CREATE TABLE {} ({} text)").format(full, quoted))
                    connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(full, sql.Literal(table)))
                    for value in values:  # not as a parameter: psycopg would look for placeholders in the names
                        connection.execute(sql.SQL("INSERT INTO {} VALUES ({})").format(full, sql.Literal(value)))
            taken = take(settings)
            assert check(settings, taken.name).valid
            drop(settings)
            bring_back(settings, taken.name)
            with psycopg.connect(embedded.dsn(name)) as connection:
                for table, (column, values) in tables.items():
                    read = sql.SQL("SELECT {}, obj_description({}::regclass) FROM {}")
                    full = sql.Identifier(schema, table)
                    found = connection.execute(
                        read.format(sql.Identifier(column), sql.Literal(full.as_string(connection)), full)
                    ).fetchall()
                    assert sorted(found, key=repr) == sorted([(value, table) for value in values], key=repr)
        finally:
            local.remove(name)


# Encodings


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_every_byte_of_a_single_byte_encoding_comes_back(fresh: Fresh, encoding: str) -> None:
    settings = fresh(options=f"TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
    query(settings, "CREATE TABLE agents AS SELECT i AS id, chr(i) AS byte FROM generate_series(1, 255) AS i")
    in_order = "SELECT md5(string_agg(byte, '' ORDER BY id)) FROM agents"
    digest = hashlib.md5(bytes(range(1, 256)), usedforsecurity=False).hexdigest()
    assert query(settings, in_order) == digest
    round_trip(settings)
    assert query(settings, in_order) == digest


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_names_in_another_encoding_come_back(fresh: Fresh, encoding: str) -> None:
    settings = fresh(options=f"TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
    query(settings, 'CREATE TABLE agents AS SELECT 1 AS "città"')
    query(settings, """CREATE TABLE "perché" AS SELECT 'più' AS "età" """)
    query(settings, "COMMENT ON TABLE agents IS 'è così'")
    round_trip(settings)
    assert query(settings, 'SELECT "età" FROM "perché"') == "più"


def test_names_that_are_not_utf_8_are_refused(fresh: Fresh) -> None:
    """As an old application in an SQL_ASCII database makes them: nothing tells what their bytes mean."""
    settings = fresh(options="TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    query(settings, "CREATE TABLE agents AS SELECT 1 AS id")
    made = "EXECUTE format('CREATE TABLE %I AS SELECT 1 AS id', 'perch' || chr(233))"
    query(settings, f"DO $$BEGIN {made}; END$$")
    with pytest.raises(BackupToolError, match="encoding"):
        take(settings)
    with BackupContext(settings) as context:
        assert list_backups(context).backups == []


def test_neighbours_with_names_in_another_encoding_do_not_matter(fresh: Fresh, embedded: EmbeddedServer) -> None:
    """Names of databases and roles are the cluster's, and lie there as the session that made them wrote them."""
    settings = fresh(statements="CREATE TABLE agents AS SELECT 1 AS id")
    latin = fresh(options="TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    neighbour = f"perch\xe9_{secrets.token_hex(4)}"
    quoted = identifier(neighbour)
    with psycopg.connect(embedded.dsn(latin.database), autocommit=True, client_encoding="latin1") as connection:
        connection.execute(f"CREATE ROLE {quoted}".encode("latin1"))
        connection.execute(f"CREATE DATABASE {quoted} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'".encode("latin1"))
        try:
            round_trip(settings)
        finally:
            connection.execute(f"DROP DATABASE {quoted}".encode("latin1"))
            connection.execute(f"DROP ROLE {quoted}".encode("latin1"))


# Time and memory


def test_two_backups_in_a_second_have_a_name_each(fresh: Fresh) -> None:
    settings = fresh(statements="CREATE TABLE agents AS SELECT 1 AS id")
    taken = [take(settings, compression) for compression in ("none", "none", "zstd", "none")]
    assert len({item.name.partition(".")[0] for item in taken}) == len(taken)
    assert [item.created_at for item in taken] == sorted(item.created_at for item in taken)
    assert all(check(settings, item.name).valid for item in taken)


PEAK = """
import json, resource, sys
from pathlib import Path
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import load_settings

with BackupContext(load_settings()) as context:
    taken = backup(context, Progress())
with BackupContext(load_settings()) as context:
    report = verify(context, Progress(), taken.name)
# What getrusage tells can be the parent's: on Linux it goes from one program to the next through vfork and exec.
status = Path("/proc/self/status")
if status.exists():
    peak = int(status.read_text().partition("VmHWM:")[2].split()[0]) << 10
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps([taken.bytes, report.valid, peak]))
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="Windows tells no peak by getrusage.")
def test_memory_stays_flat(fresh: Fresh, embedded: EmbeddedServer) -> None:
    settings = fresh(
        statements="""CREATE UNLOGGED TABLE agents AS SELECT i AS id, md5(i::text) AS a, md5((-i)::text) AS b
    FROM generate_series(1, 1000000) AS i;
CREATE UNLOGGED TABLE big AS SELECT i AS id, repeat(md5(i::text), 1000000) AS text FROM generate_series(1, 7) AS i"""
    )
    environment = {
        "SCARLET_BACKUP_VIA": "local",
        "SCARLET_BACKUP_DSN": embedded.dsn(""),
        "SCARLET_BACKUP_BIN_DIR": str(embedded.bin_dir),
        "SCARLET_BACKUP_DIR": str(settings.dir),
        "SCARLET_BACKUP_DATABASE": settings.database,
    }
    done = subprocess.run(
        [sys.executable, "-c", PEAK], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    size, valid, peak = json.loads(done.stdout)
    assert size > 280_000_000
    assert valid
    assert peak < MEMORY_LIMIT
