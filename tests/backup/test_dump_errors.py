"""Dumps that fail for what is in the database: each is told apart, and its remedy leads on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import BackupToolError, DumpFailed
from scarlet_backup_mcp.hosts import Exit
from scarlet_backup_mcp.postgres.server import dump_failures
from scarlet_backup_mcp.postgres.server.dump_failures import Kind
from scarlet_backup_mcp.postgres.server.locks import LockTable
from scarlet_backup_mcp.procedures.backup.dump_errors import DumpPosition, dump_error
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import load_settings

from ..helpers.backup_faults import Box, a_box, failure, success
from ..helpers.containers import run_docker

SMALL = ("fsync=off", "autovacuum=off", "max_connections=20", "max_wal_senders=4")
SPILL = ("--tmpfs", "/spill:size=64k,mode=777")
AGENTS = "CREATE TABLE agents (id int PRIMARY KEY); INSERT INTO agents VALUES (1);"
LARGE = """
CREATE TABLE "Big" (part text, id int, v varbit, PRIMARY KEY (part, id));
INSERT INTO "Big" VALUES ('a', 1, '0'), (E'b\\tc', 2, '1');
WITH a AS (SELECT 0::bit(83886080)::varbit AS bits), b AS (SELECT bits || bits || bits || bits AS bits FROM a)
INSERT INTO "Big" SELECT E'b\\tc', 3, bits || bits || bits || bits FROM b;
INSERT INTO "Big" VALUES ('d', 4, '1');
"""
"""A bit takes a byte in a dump: 160 MiB that are 1.25 GiB there."""
TOASTED = """
CREATE TABLE notes (id int PRIMARY KEY, v text);
ALTER TABLE notes ALTER v SET STORAGE EXTERNAL;
INSERT INTO notes SELECT n, repeat(md5(n::text), 200) FROM generate_series(1, 9) AS n;
SELECT reltoastrelid::regclass FROM pg_class WHERE relname = 'notes';
"""
# A chunk is taken out of the TOAST table, which is called an ordinary one for that moment.
CHUNK_LOST = """
SET allow_system_table_mods = on;
UPDATE pg_class SET relkind = 'r' WHERE oid = '{0}'::regclass;
DELETE FROM {0} WHERE chunk_seq > 0
AND chunk_id = (SELECT chunk_id FROM {0} WHERE chunk_seq = 0 ORDER BY 1 OFFSET 4 LIMIT 1);
UPDATE pg_class SET relkind = 't' WHERE oid = '{0}'::regclass;
"""
PAGES = """
CREATE TABLE pages (id int PRIMARY KEY, v text);
INSERT INTO pages SELECT n, repeat(md5(n::text), 5) FROM generate_series(1, 300) AS n;
VACUUM pages;
CHECKPOINT;
SELECT pg_relation_filepath('pages');
"""
MANY = "SELECT format('CREATE TABLE t%s ()', n) FROM generate_series(1, 1500) AS n \\gexec"


@pytest.fixture(scope="module")
def box(require_docker: None) -> Iterator[Box]:
    settings = [word for setting in SMALL for word in ("-c", setting)]
    with a_box({}, "postgres", *settings, run=SPILL) as one:
        one.wait_until_ready()
        one.psql("ALTER SYSTEM SET max_locks_per_transaction = 10")
        restart(one)
        yield one


def restart(box: Box) -> None:
    run_docker("restart", "-t", "10", box.name)
    box.wait_until_ready()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "backups"


def database(box: Box, name: str, statements: str) -> str:
    box.psql(f"CREATE DATABASE {name}", "postgres")
    return box.psql(AGENTS + statements, name)


def test_a_value_that_no_dump_can_hold_is_named_and_a_volume_backup_holds_it(box: Box, directory: Path) -> None:
    database(box, "large", LARGE)
    error = failure(box, directory, database="large")
    assert error.code == "value_too_large"
    assert error.message.startswith("In the table public.Big the row with the key part=b\\tc, id=3 behind the first 2 ")
    assert "invalid memory alloc request size 1342177281" in error.message
    assert "kind volume" in error.remedy
    with BackupContext(box.settings(directory, database="large")) as context:
        assert backup(context, Progress(), kind="volume").rows == 5
    box.psql("DROP DATABASE large", "postgres")


@pytest.mark.long
def test_too_few_locks_say_how_many_it_takes(box: Box, directory: Path) -> None:
    database(box, "many", MANY)
    error = failure(box, directory, database="many")
    assert error.code == "too_few_locks"
    assert "1,501 here" in error.message
    assert "200 locks" in error.message
    assert error.remedy.startswith("Set max_locks_per_transaction to 94 (")
    with BackupContext(box.settings(directory, database="many")) as context:
        assert backup(context, Progress(), kind="volume").rows == 1
    box.psql("ALTER SYSTEM SET max_locks_per_transaction = 94")
    restart(box)
    assert success(box, directory, database="many").rows == 1
    assert LockTable(94, 20).needed(100) == 95


def test_a_lost_chunk_of_a_value_is_damage_and_told_with_its_key(box: Box, directory: Path) -> None:
    toast = database(box, "chunks", TOASTED)
    box.psql(CHUNK_LOST.format(toast), "chunks")
    box.psql(f"VACUUM {toast}", "chunks")  # until then a chunk that was deleted is found
    error = failure(box, directory, database="chunks")
    assert error.code == "data_damaged"
    assert error.message.startswith("In the table public.notes the row with the key id=5 behind the first 4 can't be")
    assert "missing chunk number 1" in error.message
    assert "cold copy" in error.remedy


def test_a_damaged_page_is_told_with_its_block(box: Box, directory: Path) -> None:
    path = database(box, "pages", PAGES)
    box.sh(f"cd $PGDATA && head -c 20 /dev/zero | tr '\\0' '\\377' | dd of={path} bs=8192 seek=2 conv=notrunc 2>&1")
    restart(box)  # the server forgets what it has read
    error = failure(box, directory, database="pages")
    assert error.code == "data_damaged"
    assert "invalid page in block 2 of relation" in error.message
    assert re.search(r"In the table public.pages the row behind the first \d\d can't be read", error.message)


def test_a_full_disk_for_temporary_files_and_a_limit_on_them_are_told(box: Box, directory: Path) -> None:
    database(box, "spilling", MANY.replace("1500", "350"))
    box.sh("chown postgres /spill")
    box.psql("CREATE TABLESPACE spill LOCATION '/spill'", "postgres")
    box.sh("cat /dev/zero > /spill/full || true")
    spill = "-c work_mem=64kB -c temp_tablespaces=spill"
    with box.pg_dump_is(f'PGOPTIONS="$PGOPTIONS {spill}" exec $REAL "$@"'):
        error = failure(box, directory, database="spilling")
        assert (error.code, "No space left on device" in error.message) == ("disk_full", True), error
    with box.pg_dump_is(f'PGOPTIONS="$PGOPTIONS {spill} -c temp_file_limit=0" exec $REAL "$@"'):
        error = failure(box, directory, database="spilling")
        assert 'ALTER ROLE "postgres" SET temp_file_limit' in error.remedy, error
    box.psql("ALTER DATABASE spilling SET work_mem = '64kB'; ALTER DATABASE spilling SET temp_tablespaces = 'spill'")
    error = failure(box, directory, database="spilling")  # a look of ours
    assert (error.code, error.remedy.startswith("Free some space")) == ("query_failed", True), error


# -- every way on ----------------------------------------------------------------------------------------------------

COPY = "pg_dump: detail: Command was: COPY public.t (a) TO stdout;"


@pytest.mark.parametrize(
    ("said", "kind", "code"),
    [
        ("ERROR:  invalid memory alloc request size 1200000003", "too large", "value_too_large"),
        (
            "ERROR:  out of memory\nDETAIL:  Cannot enlarge string buffer containing 6 bytes by 9 more bytes.",
            "too large",
            "value_too_large",
        ),
        ("ERROR:  invalid memory alloc request size 18446744073709551613", "damage", "data_damaged"),
        ("ERROR:  invalid page in block 3 of relation base/1/2", "damage", "data_damaged"),
        ('ERROR:  could not read block 3 in file "base/1/2": read only 0 of 8192 bytes', "damage", "data_damaged"),
        ('ERROR:  could not open file "base/1/2": No such file or directory', "damage", "data_damaged"),
        ('ERROR:  could not open file "base/1/2": Too many open files in system', "other", "dump_failed"),
        ('ERROR:  could not open file "base/1/2": Permission denied', "other", "dump_failed"),
        ('ERROR:  could not open file "base/pgsql_tmp/a": No space left on device', "spilled", "disk_full"),
        ('ERROR:  could not read block 3 in file "base/1/2": Input/output error', "damage", "data_damaged"),
        ("ERROR:  missing chunk number 0 for toast value 1 in pg_toast_2", "damage", "data_damaged"),
        ("ERROR:  compressed pglz data is corrupt", "damage", "data_damaged"),
        (
            "ERROR:  out of shared memory\nHINT:  You might need to increase max_locks_per_transaction.",
            "locks",
            "too_few_locks",
        ),
        ("ERROR:  permission denied for table t", "denied", "permission_denied"),
        ('ERROR:  query would be affected by row-level security policy for table "t"', "denied", "permission_denied"),
        (
            "ERROR:  canceling statement due to lock timeout\npg_dump: detail: Query was: LOCK TABLE public.t",
            "locked",
            "dump_failed",
        ),
        ("ERROR:  cache lookup failed for type 1", "changed", "dump_failed"),
        (
            'ERROR:  could not write to file "base/pgsql_tmp/pgsql_tmp1.0": No space left on device',
            "spilled",
            "disk_full",
        ),
        ("ERROR:  temporary file size exceeds temp_file_limit (1kB)", "limit", "dump_failed"),
        ("FATAL:  terminating connection due to administrator command", "other", "server_unreachable"),
        ("ERROR:  something new", "other", "dump_failed"),
    ],
)
def test_each_failure_has_a_remedy_that_leads_on(said: str, kind: Kind, code: str, tmp_path: Path) -> None:
    """Without a server: nothing more can be asked of it then."""
    shown = f'pg_dump: error: Dumping the contents of table "t" failed.\npg_dump: detail: {said}\n{COPY}'
    assert dump_failures.kind_of(shown) == kind
    with BackupContext(load_settings(dir=tmp_path, via="local", dsn="postgresql://127.0.0.1:1/letta")) as context:
        error = dump_error(context, Exit(1, shown), DumpPosition("public", "t", 3, "0-0-1", superuser=True))
    assert error.code == code
    assert "db_integrity" not in error.remedy
    assert error.remedy != BackupToolError.default_remedy
    for again in re.finditer(r"(\S+)[^.;]*take a backup", error.remedy):
        before = error.remedy[: again.start()] + again[0]
        assert re.search(r"Wait|Set|Free|Raise|Stop|kind|mend", before + error.remedy[again.end() :][:20]), error.remedy


def test_the_role_that_a_remedy_changes_is_quoted(tmp_path: Path) -> None:
    shown = f"pg_dump: detail: ERROR:  temporary file size exceeds temp_file_limit (1kB)\n{COPY}"
    dsn = 'postgresql://Max-"1"@127.0.0.1:1/letta'
    with BackupContext(load_settings(dir=tmp_path, via="local", dsn=dsn)) as context:
        error = dump_error(context, Exit(1, shown), DumpPosition("public", "t", 3, "0-0-1", superuser=True))
    assert '`ALTER ROLE "Max-""1""" SET temp_file_limit = -1`' in error.remedy


def test_no_error_of_a_dump_sends_to_a_look_that_finds_nothing() -> None:
    kinds = [DumpFailed, *DumpFailed.__subclasses__()]
    assert len(kinds) >= 5
    assert not [kind for kind in kinds if "db_integrity" in kind.default_remedy]


def test_the_table_is_found_whatever_its_name() -> None:
    said = 'pg_dump: detail: Command was: COPY "a.b"."c ""d"" (e)" (f, g) TO stdout;'
    assert dump_failures.table_of(said) == ("a.b", 'c "d" (e)')
    assert dump_failures.table_of("pg_dump: detail: Query was: LOCK TABLE public.t") is None
