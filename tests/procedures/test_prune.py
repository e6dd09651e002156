"""`prune_backups` on real backups: what is told, what goes, and what is left when it is killed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.errors import BackupMissing, Busy, ConfirmationStale, ServerUnreachable
from scarlet_backup_mcp.models.results import Kept, Prune
from scarlet_backup_mcp.procedures import prune
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.call_notes import CallNotes
from scarlet_backup_mcp.procedures.catalog import records
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import load_settings
from scarlet_backup_mcp.store.directory import BackupDirectory
from scarlet_backup_mcp.store.names import KEEP
from scarlet_backup_mcp.store.writing import PartialFile

from ..helpers.prune import backups, fill, mark, pruned, put, snapshot
from ..helpers.store import Made, Shelf

DEAD = "postgresql://postgres@127.0.0.1:1/"
"""Nobody listens there."""


@pytest.fixture(scope="module")
def volume(made: Made) -> str:
    with BackupContext(made.shelf.settings) as context:
        return backup(context, Progress(), kind="volume").name


def reason(report: Prune, name: str) -> str:
    item = next(item for item in report.items if item.name == name)
    assert item.action == "left alone"
    return item.reason


# Dry run and removal


def test_dry_run_changes_nothing_and_tells_what_would_go(made: Made, here: Shelf) -> None:
    names = fill(here, made, 5)
    before = snapshot(here)
    report = pruned(here)
    assert snapshot(here) == before
    assert [(item.name, item.action) for item in report.items] == [
        (names[0], "kept"),
        (names[1], "kept"),
        *((name, "would be removed") for name in names[2:]),
    ]
    assert report.items[0].slots == ["last 1"]
    assert report.items[1].reason.startswith("daily 2")
    assert (report.removed, report.kept, report.bytes_freed) == (3, 2, 3 * here.file(names[0]).stat().st_size)
    assert report.confirmation is not None


def test_what_was_told_goes_with_all_that_lies_beside_it(made: Made, here: Shelf) -> None:
    names = fill(here, made, 5)
    told = pruned(here)
    report = pruned(here, dry_run=False, confirmed=told.confirmation)
    assert [(item.name, item.action.replace("would be ", "")) for item in told.items] == [
        (item.name, item.action) for item in report.items
    ]
    assert (report.removed, report.bytes_freed, report.warnings) == (3, told.bytes_freed, [])
    left = {path.name for path in here.directory.iterdir() if path.name.startswith(("letta", ".letta"))}
    assert left == {
        path.name for name in names[:2] for path in (here.file(name), here.manifest(name), here.outcome(name))
    }
    assert [here.state(name) for name in names[:2]] == ["good", "good"]
    again = pruned(here, dry_run=False)
    assert (again.removed, again.bytes_freed, pruned(here).confirmation) == (0, 0, None)


def test_rules_are_those_of_the_settings(made: Made, here: Shelf) -> None:
    fill(here, made, 12)
    usual = Shelf(made.shelf.settings.model_copy(update={"dir": here.directory}))
    report = pruned(usual)
    assert report.policy.startswith("the last 3, one per day for 7 days, per week for 4 weeks, per month for 3 months")
    assert [item.action for item in report.items[:8]] == ["kept"] * 8
    assert report.removed >= 1
    assert pruned(Shelf(usual.settings.model_copy(update={"keep_last": 12}))).removed == 0


def test_what_is_older_than_30_days_is_told_of(made: Made, here: Shelf) -> None:
    fill(here, made, 2)
    assert "none" in pruned(here).older_than_30_days
    put(here, made, 40)
    mark(here, put(here, made, 50))
    here.file("foreign_20200101_000000.sql").write_bytes(b"x")
    told = pruned(here).older_than_30_days
    assert "of 3 such, 1 would be removed, 1 kept for another reason, shown with it, 1 left alone" in told
    assert "1 removed" in pruned(here, dry_run=False).older_than_30_days


def test_no_directory_is_nothing_to_prune(made: Made, here: Shelf) -> None:
    here.directory.rmdir()
    report = pruned(here)
    assert (report.items, report.confirmation, here.directory.exists()) == ([], None, False)


def test_server_is_not_needed(made: Made, here: Shelf) -> None:
    fill(here, made, 3)
    with BackupContext(here.settings) as context:
        away = here.settings.model_copy(update={"dsn": SecretStr(DEAD + context.database)})
    assert pruned(Shelf(away), dry_run=False).removed == 1
    with pytest.raises(ServerUnreachable):
        pruned(Shelf(away), include_undo=True)


@pytest.mark.parametrize(
    ("settings", "ours"),
    [
        ({"container": "my-own"}, {"my-own"}),
        ({"project": "other"}, {"other-db-1"}),
        ({}, {"abiogenesis-postgres", "scarlet-db-1"}),
    ],
    ids=["container", "project", "defaults"],
)
def test_backups_of_another_container_stay_while_the_engine_is_down(
    made: Made, here: Shelf, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], ours: set[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    containers = {"abiogenesis-postgres": "scarlet", "scarlet-db-1": "scarlet", "my-own": None, "other-db-1": "other"}
    container_of: dict[str, str] = {}
    for number, (container, project) in enumerate(containers.items()):
        identity = {"via": "docker", "database": "letta", "container": container, "project": project}
        container_of |= {put(here, made, days + number / 10, identity=identity): container for days in range(3)}
    few = here.settings.model_dump(include={"keep_last", "keep_daily", "keep_weekly", "keep_monthly"})
    report = pruned(Shelf(load_settings(dir=here.directory, **few, **settings)), dry_run=False)
    assert {container_of[item.name] for item in report.items if item.action != "left alone"} == ours
    assert report.removed >= 1


# What no rule is for


def test_what_is_no_good_backup_of_this_database_fills_no_slot_and_stays(made: Made, here: Shelf) -> None:
    good = [put(here, made, 20), put(here, made, 30), put(here, made, 40)]
    other = put(here, made, 1, identity={"database": "another"})
    touched = put(here, made, 2)
    os.utime(here.file(touched))
    cut = put(here, made, 3)
    here.file(cut).write_bytes(b"cut off")
    bad_manifest = put(here, made, 4)
    text = here.manifest(bad_manifest).read_bytes()
    stamp = here.manifest(bad_manifest).stat()
    here.manifest(bad_manifest).write_bytes(text[:-200] + text[-200:].replace(b"e", b"a"))
    os.utime(here.manifest(bad_manifest), ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    repaired = put(here, made, 5, repaired_from="old.sql")
    ahead = put(here, made, -2)
    here.file("old.sql").write_bytes(b"x")
    report = pruned(here, dry_run=False)
    assert backups(here) == {*good[:2], other, touched, cut, bad_manifest, repaired, ahead, "old.sql"}
    assert "of another database (another of" in reason(report, other)
    assert "verify it" in reason(report, touched)
    assert "7 bytes" in reason(report, cut)
    assert "is damaged" in reason(report, bad_manifest)
    assert "repaired copy" in reason(report, repaired)
    assert "check the clock" in reason(report, ahead)
    assert "foreign" in reason(report, "old.sql")


def test_backups_that_fail_verification_push_no_good_one_out(made: Made, here: Shelf) -> None:
    good = [put(here, made, 20), put(here, made, 30)]
    bad = [put(here, made, n) for n in range(7)]
    for name in bad:
        content = bytearray(here.file(name).read_bytes())
        content[len(content) // 2] ^= 1
        here.file(name).write_bytes(content)
        assert not here.verify(name).valid
    report = pruned(here, dry_run=False)
    assert (report.removed, backups(here)) == (0, {*good, *bad})
    assert all(reason(report, name).startswith("damaged") for name in bad)


def test_shrunk_backups_push_the_last_full_one_not_out(made: Made, here: Shelf) -> None:
    full = [put(here, made, 20), put(here, made, 21), put(here, made, 22)]
    shrunk = [put(here, made, n, shrunk=True, shrunk_reasons=["empty"], last_full=full[0]) for n in range(7)]
    assert pruned(here, dry_run=False).kept == 4
    assert backups(here) == {*full[:2], *shrunk[:2]}


def test_copies_of_the_volume_have_slots_of_their_own_and_cold_ones_take_none_of_them(
    made: Made, here: Shelf, volume: str
) -> None:
    scripts = fill(here, made, 3)
    warm = [put(here, made, n, volume) for n in (20, 21, 22)]
    cold = [put(here, made, n, volume, cold=True, rows=None, integrity_rows=None) for n in (10, 11, 12)]
    pruned(here, dry_run=False)
    assert backups(here) == {*scripts[:2], *warm[:2], *cold[:2]}


def test_newest_proved_one_stays(made: Made, here: Shelf) -> None:
    names = fill(here, made, 5)
    with BackupContext(here.settings) as context:
        entry = context.directory.find(names[4])
        sha256 = records.sql_record(context, entry).manifest
        assert sha256 is not None
        context.directory.store_verification(entry, sha256=sha256.sha256, failed=[], proved=True, proved_on="a drill")
    report = pruned(here, dry_run=False)
    assert backups(here) == {names[0], names[1], names[4]}
    assert "restore drill has proved" in report.items[-1].reason


def test_what_is_about_to_go_is_announced_with_its_digest(made: Made, here: Shelf) -> None:
    names = fill(here, made, 3)
    announced: list[Mapping[str, str]] = []
    with BackupContext(here.settings) as context:
        digests = {name: records.sql_record(context, context.directory.find(name)).manifest for name in names}
        prune.prune(context, Progress(), dry_run=False, notes=CallNotes(announce=announced.append))
    gone = digests[names[2]]
    assert gone is not None
    assert announced == [{names[2]: gone.sha256}]


# The mark


def test_marked_backup_stays_until_the_mark_is_taken_away(made: Made, here: Shelf) -> None:
    names = fill(here, made, 4)
    assert mark(here, names[3]) == mark(here, names[3]) == Kept(name=names[3], keep=True)
    assert here.file(names[3] + KEEP).exists()
    pruned(here, dry_run=False)
    assert backups(here) == {names[0], names[1], names[3]}
    assert mark(here, names[3], on=False).keep is False
    mark(here, names[3], on=False)
    pruned(here, dry_run=False)
    assert backups(here) == set(names[:2])


def test_listing_shows_slots_and_marks(made: Made, here: Shelf) -> None:
    names = fill(here, made, 3)
    mark(here, names[2])
    listed = [here.listed(name) for name in names]
    assert [item.keep for item in listed] == [False, False, True]
    assert listed[0].slot == "last 1"
    assert (listed[1].slot or "").startswith("daily 2")
    assert listed[2].slot is None


@pytest.mark.parametrize("lost", [False, True])
def test_mark_is_published_with_its_backup_or_not_at_all(made: Made, here: Shelf, lost: bool) -> None:
    manifest = BackupDirectory(made.shelf.directory).manifest(made.plain)
    assert manifest is not None
    partial = PartialFile(here.file(made.plain))
    partial.write(made.shelf.file(made.plain).read_bytes())
    partial.finish()
    if lost:
        partial.discard()
        with pytest.raises(FileNotFoundError):
            BackupDirectory(here.directory).publish(partial, manifest, [], keep=True)
        assert list(here.directory.iterdir()) == []
    else:
        BackupDirectory(here.directory).publish(partial, manifest, [], keep=True)
        assert here.listed(made.plain).keep


def test_only_a_backup_that_is_there_can_be_marked(here: Shelf) -> None:
    with pytest.raises(BackupMissing):
        mark(here, "letta_backup_20260101_000000.sql")


# Undo points


@pytest.fixture
def undo_points(made: Made, embedded: EmbeddedServer) -> Iterator[list[str]]:
    """Two, and a database that only looks like one; newest first."""
    with BackupContext(made.shelf.settings) as context:
        names = [
            f"{context.database}_before_restore_{stamp}" for stamp in ("20260102_000000", "20260101_000000", "mine")
        ]
    with psycopg.connect(embedded.dsn(), autocommit=True) as connection:
        for name in names:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield names
        for name in names:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))


def databases(embedded: EmbeddedServer) -> set[str]:
    with psycopg.connect(embedded.dsn()) as connection:
        return {name for (name,) in connection.execute("SELECT datname FROM pg_database").fetchall()}


def test_undo_points_go_only_when_asked_for(
    made: Made, here: Shelf, embedded: EmbeddedServer, undo_points: list[str]
) -> None:
    fill(here, made, 3)
    assert all(item.what != "undo_point" for item in pruned(here, dry_run=False).items)
    before = databases(embedded)
    told = pruned(here, include_undo=True)
    assert [(item.name, item.action) for item in told.items[2:]] == [
        (name, "would be removed") for name in undo_points[:2]
    ]
    assert databases(embedded) == before
    assert told.undo_bytes_freed > told.bytes_freed == 0
    report = pruned(here, dry_run=False, include_undo=True, confirmed=told.confirmation)
    assert (report.removed, report.undo_bytes_freed) == (2, told.undo_bytes_freed)
    assert before - databases(embedded) == set(undo_points[:2])


def test_removal_of_a_volume_s_undo_point_that_cannot_be_finished_stops_no_other(
    made: Made, here: Shelf, embedded: EmbeddedServer, undo_points: list[str]
) -> None:
    """With `local` no program reaches into the data directory."""
    with psycopg.connect(embedded.dsn()) as connection:
        found = connection.execute("SHOW data_directory").fetchone()
    assert found is not None
    dropped = Path(found[0]) / "pgsql_tmp_dropped_20260101_000000"
    dropped.mkdir()
    try:
        report = pruned(here, dry_run=False, include_undo=True)
    finally:
        dropped.rmdir()
    assert [warning.split()[0] for warning in report.warnings] == [dropped.name]
    assert report.removed == 2


def test_consent_without_undo_points_is_none_to_drop_them(
    made: Made, here: Shelf, embedded: EmbeddedServer, undo_points: list[str]
) -> None:
    names = fill(here, made, 3)
    with pytest.raises(ConfirmationStale):
        pruned(here, dry_run=False, include_undo=True, confirmed=pruned(here).confirmation)
    assert set(undo_points) <= databases(embedded)
    assert backups(here) == set(names)


def test_undo_points_stay_while_a_restore_of_another_directory_runs(
    made: Made, here: Shelf, embedded: EmbeddedServer, undo_points: list[str]
) -> None:
    names = fill(here, made, 3)
    with BackupContext(made.shelf.settings) as context, context.server.session(context.maintenance_database) as session:
        assert prune.databases.advisory_lock(session)
        with pytest.raises(Busy):
            pruned(here, dry_run=False, include_undo=True)
    assert set(undo_points) <= databases(embedded)
    assert backups(here) == set(names)


def test_report_is_json(made: Made, here: Shelf) -> None:
    fill(here, made, 3)
    report = json.loads(pruned(here).model_dump_json())
    assert report["items"][0]["created_at"].endswith("Z")


def test_backup_and_listing_leave_unfinished_dumps_of_other_programs(made: Made, here: Shelf) -> None:
    mine = Shelf(here.settings.model_copy(update={"prefix": "scarlet"}))
    for name in ("scarlet_20260101_000000.sql.partial", "shop_20260101_000000.sql.partial"):
        mine.file(name).write_bytes(b"x")
    assert [item.name for item in mine.listing().backups] == ["scarlet_20260101_000000.sql.partial"]
    mine.back_up()
    assert [path.name for path in mine.directory.glob("*.partial")] == ["shop_20260101_000000.sql.partial"]
