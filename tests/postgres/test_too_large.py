"""A value of more than half a gigabyte, which no dump can hold: a volume that has one is not called damaged for it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from scarlet_backup_mcp import summaries
from scarlet_backup_mcp.postgres.cluster import recovery
from scarlet_backup_mcp.postgres.dump.too_large import is_too_large, too_large_table, without_rows_of

from ..conftest import IMAGE
from ..helpers.backup_faults import Box
from ..helpers.containers import QUICKLY, run_docker, run_docker_quietly
from ..helpers.drill import drill, take

# Compressed it takes 2 MB; lz4 takes the fewest seconds for it.
DATABASE = """
SET default_toast_compression = 'lz4';
CREATE TABLE agents (id int PRIMARY KEY); INSERT INTO agents VALUES (1), (2);
CREATE SCHEMA "The big";
CREATE TABLE "The big"."one ""here" (id int PRIMARY KEY, value bytea);
INSERT INTO "The big"."one ""here" SELECT 1, convert_to(repeat('x', 537000000), 'UTF8');
"""


@pytest.fixture
def box(require_docker: None) -> Iterator[Box]:
    made = Box(f"too-large-{secrets.token_hex(4)}", "x")
    given = ("-e", "POSTGRES_PASSWORD=x", "-e", "POSTGRES_DB=letta", *QUICKLY)
    try:
        run_docker("run", "-d", "--pull", "never", "--name", made.name, *given, IMAGE, "-c", "fsync=off")
        made.wait_until_ready()
        made.psql(DATABASE)
        yield made
    finally:
        run_docker_quietly("rm", "-fv", made.name)


@pytest.mark.long
def test_a_volume_with_a_value_that_no_dump_can_hold_is_sound_but_for_that(box: Box, tmp_path: Path) -> None:
    settings = box.settings(tmp_path)
    name = take(settings, kind="volume").name
    found = drill(settings, name)
    assert found.drill is not None
    assert [check for check in found.checks if check.ok is False] == []
    assert (found.valid, found.proved, found.drill.proved, found.drill.verdict) == (True, None, None, "unknown")
    assert found.drill.detail == (
        'The big.one "here of letta has a row too large for any dump: its rows could be counted, but not read'
    )
    assert found.drill.rows_compared == 3
    assert found.drill.detail in summaries.describe(found)


@pytest.mark.parametrize(
    ("said", "too_large"),
    [
        ("invalid memory alloc request size 1200000003", True),
        ("Cannot enlarge string buffer containing 1073741800 bytes by 40 more bytes.", True),
        ("invalid memory alloc request size 18446744073709551613", False),
        ("invalid memory alloc request size 1000", False),
        ("missing chunk number 0 for toast value 16421 in pg_toast_16389", False),
    ],
)
def test_a_damaged_length_is_told_from_a_large_row(said: str, too_large: bool) -> None:
    assert is_too_large(said) == too_large
    assert recovery.damage(f"XX000 ERROR:  {said}\n") == ("" if too_large else said)
    stderr = (
        'pg_dump: error: Dumping the contents of table "one "here" failed: PQgetResult() failed.\n'
        f"pg_dump: detail: Error message from server: ERROR:  {said}\n"
        'pg_dump: detail: Command was: COPY "The big"."one ""here" (id, value) TO stdout;\n'
    )
    assert too_large_table(stderr) == (("The big", 'one "here') if too_large else None)


def test_pg_dump_is_told_which_rows_to_leave_out() -> None:
    assert without_rows_of(("The big", 'one "here')) == '--exclude-table-data="The big"."one ""here"'
