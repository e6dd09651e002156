"""Backups of the whole cluster of a local server."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from scarlet_backup_mcp import summaries
from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.errors import (
    ArgumentsInvalid,
    BackupMissing,
    Cancelled,
)
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.restore.service import dry_run
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress

from ..helpers.faces import agent, environment_of, until
from ..helpers.store import Shelf, execute, shelf, small_database
from ..helpers.volume_copy import LOSE_THE_SLOT, SLOTS, Kept, WhileItCopies, ask, check, left, take

SENDERS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'"


def test_local_server_is_copied_and_verified_without_a_server(kept: Kept, tmp_path: Path) -> None:
    alone = kept.here.copy(tmp_path / "backups", kept.name)
    elsewhere = Shelf(alone.settings.model_copy(update={"bin_dir": tmp_path / "nowhere"}))
    quick, full = elsewhere.verify(kept.name, "quick"), elsewhere.verify(kept.name, "full")
    assert (quick.valid, full.valid, full.foreign, full.remedy) == (True, True, False, None)
    assert check(quick, "structure").found == "it begins with the file backup_label"
    assert (full.files or 0) > 900
    assert kept.here.state(kept.name) == "good"
    with tarfile.open(kept.here.file(kept.name)) as tar:
        names = {member.name for member in tar}
    assert {"PG_VERSION", "global/pg_control", "backup_label", "backup_manifest"} <= names
    assert "is valid" in summaries.describe(full)


def test_copy_that_loses_its_slot_is_whole_when_no_wal_is_missing(
    kept: Kept, embedded: EmbeddedServer, tmp_path: Path
) -> None:
    here = Shelf(kept.here.settings.model_copy(update={"dir": tmp_path}))
    made = take(here.settings, WhileItCopies(lambda: ask(embedded, LOSE_THE_SLOT)))
    assert here.verify(made.name).valid


def test_zstd_is_a_choice_and_none_is_not(kept: Kept, tmp_path: Path) -> None:
    here = Shelf(kept.here.settings.model_copy(update={"dir": tmp_path}))
    made = take(here.settings, compression="zstd")
    assert made.name.endswith(".tar.zst")
    assert here.verify(made.name).valid
    for kind, wrong in (("volume", "none"), ("sql", "gzip")):
        with BackupContext(here.settings) as context, pytest.raises(ArgumentsInvalid, match=wrong):
            backup(context, Progress(), kind=kind, compression=wrong)  # type: ignore[arg-type]


def test_latest_means_sql_and_listings_show_both(kept: Kept, tmp_path: Path) -> None:
    here = kept.here.copy(tmp_path / "backups", kept.name)
    with pytest.raises(BackupMissing, match="SQL"):
        here.verify("latest")
    assert "no good SQL backup" in " ".join(here.listing().warnings)
    plain = here.back_up().name
    newer = take(here.settings).name
    assert here.latest() == here.latest(for_restore=True) == plain
    assert {item.name: (item.kind, item.state) for item in here.listing().backups} == {
        plain: ("sql", "good"),
        kept.name: ("volume", "good"),
        newer: ("volume", "good"),
    }
    assert here.listing().newest_good == plain
    with BackupContext(here.settings) as context:
        assert any(newer in warning for warning in dry_run(context, Progress(), plain).warnings)


def test_drill_that_can_not_be_had_leaves_the_backup_unproved(kept: Kept, tmp_path: Path) -> None:
    here = kept.here.settings.model_copy(update={"dir": tmp_path})
    with BackupContext(here) as context:
        made = backup(context, Progress(), kind="volume", verify="drill")
    assert (made.proved, made.drill, made.safe_to_proceed) == (None, None, False)
    assert "needs Docker" in made.reasons[-1]
    assert Shelf(here).state(made.name) == "good"


def test_what_is_for_sql_only_is_refused(kept: Kept) -> None:
    with BackupContext(kept.here.settings) as context, pytest.raises(ArgumentsInvalid, match="code_page"):
        verify(context, Progress(), kept.name, code_page=850)


def test_rows_are_counted_again_only_where_something_was_written(kept: Kept, tmp_path: Path) -> None:
    here = kept.here.settings.model_copy(update={"dir": tmp_path})
    for statement in ("SELECT 1", "CREATE TABLE more AS SELECT 1; DROP TABLE more"):
        progress = WhileItCopies(lambda statement=statement: execute(kept.database, statement))
        made = take(here, progress)
        with BackupContext(here) as context:
            manifest = context.directory.volume_manifest(made.name)
        assert manifest is not None
        assert progress.stages.count("counting the rows of the database") == (1 if manifest.quiet else 2)
        assert [table.rows for table in manifest.tables] == [table.rows_after for table in manifest.tables]
        assert not (manifest.quiet and statement != "SELECT 1")


def test_unlogged_tables_count_as_the_empty_ones_they_come_back_as(kept: Kept, tmp_path: Path) -> None:
    here = kept.here.settings.model_copy(update={"dir": tmp_path})
    execute(kept.database, "CREATE UNLOGGED TABLE letta.scratch AS SELECT generate_series(1, 7) AS n")
    try:
        made = take(here)
        assert {table.name: table.rows for table in made.tables}["scratch"] == 0
        assert "letta.scratch" in " ".join(made.warnings)
        with BackupContext(here) as context:
            manifest = context.directory.volume_manifest(made.name)
        assert manifest is not None
        assert manifest.unlogged == ["letta.scratch"]
        assert (made.good, made.safe_to_proceed) == (True, False)
        assert "Unlogged tables are empty" in " ".join(made.reasons)
        execute(kept.database, "ALTER TABLE letta.scratch SET LOGGED")
        logged = take(here)
        assert logged.safe_to_proceed
        assert {table.name: table.rows for table in logged.tables}["scratch"] == 7
        assert (logged.rows, logged.warnings) == ((made.rows or 0) + 7, [])
    finally:
        execute(kept.database, "DROP TABLE letta.scratch")


def test_unlogged_integrity_table_is_empty_in_a_copy(kept: Kept, tmp_path: Path) -> None:
    execute(kept.database, "CREATE UNLOGGED TABLE letta.watched AS SELECT 1 AS n")
    try:
        made = take(kept.here.settings.model_copy(update={"dir": tmp_path, "integrity_table": "watched"}))
    finally:
        execute(kept.database, "DROP TABLE letta.watched")
    assert (made.integrity_rows, made.shrunk, made.safe_to_proceed) == (0, True, False)


def test_database_that_is_dropped_while_it_is_copied_is_not_promised(
    embedded: EmbeddedServer, kept: Kept, tmp_path: Path
) -> None:
    execute(kept.database, "CREATE DATABASE passing")
    drop = WhileItCopies(lambda: execute(kept.database, "DROP DATABASE passing"))
    made = take(kept.here.settings.model_copy(update={"dir": tmp_path}), drop)
    assert kept.database.name in made.databases
    assert "passing" not in made.databases


def test_emptied_database_is_shrunk(kept: Kept, embedded: EmbeddedServer, tmp_path: Path) -> None:
    with small_database(embedded) as database:
        here = shelf(database, tmp_path)
        full = here.back_up()
        execute(database, "SET search_path TO letta; TRUNCATE agents CASCADE")
        made = take(here.settings)
    assert (made.shrunk, made.safe_to_proceed, made.integrity_rows) == (True, False, 0)
    assert any(full.name in reason for reason in made.reasons)


def test_database_that_is_emptied_while_it_is_copied_is_shrunk(embedded: EmbeddedServer, tmp_path: Path) -> None:
    with small_database(embedded) as database:
        empty = "SET search_path TO letta; TRUNCATE agents CASCADE"
        made = take(shelf(database, tmp_path).settings, WhileItCopies(lambda: execute(database, empty)))
    assert (made.shrunk, made.safe_to_proceed, made.integrity_rows) == (True, False, 0)


def test_cancelled_copy_leaves_nothing(kept: Kept, embedded: EmbeddedServer, tmp_path: Path) -> None:
    progress = WhileItCopies(lambda: progress.cancel())
    with pytest.raises(Cancelled):
        take(kept.here.settings.model_copy(update={"dir": tmp_path}), progress)
    assert left(tmp_path) == []
    assert ask(embedded, SLOTS) == []
    until(lambda: ask(embedded, SENDERS) == [(0,)], 10, "the copy's backend gone")


async def test_agent_takes_lists_and_verifies_a_volume(kept: Kept, tmp_path: Path) -> None:
    async with agent(kept.here.settings.model_copy(update={"dir": tmp_path}), "2026-07-28") as it:
        made = await it.call("backup", kind="volume", label="prima", wait_seconds=0)
        assert made["kind"] == "volume"
        assert made["steps"][3]["step"] == "Alternativa: Backup Volume Completo"
        assert (await it.call("verify_backup", backup=made["name"]))["valid"] is True
        assert [item["name"] for item in (await it.call("list_backups"))["backups"]] == [made["name"]]
        assert (await it.fail("verify_backup", backup=made["name"], level="drill"))["code"] == "drill_impossible"
        assert (await it.fail("backup", kind="volume", compression="none"))["code"] == "arguments_invalid"


def test_command_line_takes_a_volume(kept: Kept, tmp_path: Path) -> None:
    settings = kept.here.settings.model_copy(update={"dir": tmp_path})
    command = [sys.executable, "-m", "scarlet_backup_mcp", "backup", "--kind", "volume", "--compression", "zstd"]
    done = subprocess.run(
        command, env=environment_of(settings), cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert f"rows in 9 tables of {kept.database.name}" in done.stdout
    assert len([name for name in left(tmp_path) if name.endswith(".tar.zst")]) == 1
