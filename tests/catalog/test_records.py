"""What `list_backups` tells, and which backup `latest` means."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.errors import BackupMissing, again
from scarlet_backup_mcp.models.results import Listing
from scarlet_backup_mcp.procedures import own_names
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.prune import prune
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.store.directory import DRILL
from scarlet_backup_mcp.store.names import MANIFEST, VERIFIED
from scarlet_backup_mcp.summaries import describe

from ..conftest import LocalDatabase
from ..helpers.records import DAY, DEAD, add, ago, in_docker, names_of, within_seconds
from ..helpers.store import Made, Shelf, execute, shelf, small_database

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files.")


@pytest.fixture
def database(embedded: EmbeddedServer) -> Iterator[LocalDatabase]:
    """A database that a test may empty."""
    with small_database(embedded) as one:
        yield one


# Order, limit, totals, age


def test_newest_first_by_the_time_in_the_manifest(made: Made, tmp_path: Path) -> None:
    """Neither names nor files' times are to be trusted: both change when files are copied about."""
    here = made.shelf.copy(tmp_path / "backups")
    add(here, made, "letta_backup_20300101_000000.sql", created_at=ago(3))
    add(here, made, "aaa_20200101_000000.sql", created_at=ago(1))
    add(here, made, "letta_backup_20250101_000000.sql", created_at=ago(2))
    for days, name in ((0, "letta_backup_20300101_000000.sql"), (400, "aaa_20200101_000000.sql")):
        moment = time.time() - days * DAY
        os.utime(here.file(name), (moment, moment))
    assert names_of(here.listing()) == [
        "aaa_20200101_000000.sql",
        "letta_backup_20250101_000000.sql",
        "letta_backup_20300101_000000.sql",
    ]
    assert here.latest() == "aaa_20200101_000000.sql"


def test_limit_cuts_the_list_and_not_the_totals(made: Made, tmp_path: Path) -> None:
    here = made.shelf.copy(tmp_path / "backups")
    for day in range(1, 6):
        add(here, made, f"letta_backup_2026010{day}_000000.sql", created_at=ago(10 - day))
    listing = here.listing(limit=2)
    assert names_of(listing) == ["letta_backup_20260105_000000.sql", "letta_backup_20260104_000000.sql"]
    assert (listing.total_backups, listing.total_bytes) == (5, 5 * made.shelf.file(made.plain).stat().st_size)
    assert listing.directory == str(here.directory)
    assert len(here.listing(limit=1000).backups) == 5


def test_listed_backup_tells_what_its_manifest_does(made: Made, here: Shelf) -> None:
    here.edit_manifest(made.plain, label="prima di PROC-003 🌹")
    manifest = json.loads(here.manifest(made.plain).read_bytes())
    listed = here.listed(made.plain)
    assert (listed.kind, listed.state, listed.verified, listed.shrunk) == ("sql", "good", "full", False)
    assert (listed.bytes, listed.rows, listed.integrity_rows) == (manifest["bytes"], manifest["rows"], 2)
    assert (listed.database, listed.project) == (None, None)
    assert (listed.label, listed.other_database) == ("prima di PROC-003 🌹", False)
    assert listed.created_at.isoformat().replace("+00:00", "Z") == manifest["created_at"]
    assert 0 <= listed.age_seconds < 600


def test_age_of_the_newest_good_backup(made: Made, here: Shelf) -> None:
    listing = here.listing()
    assert listing.newest_good_age_seconds is not None
    assert 0 <= listing.newest_good_age_seconds < 600
    assert listing.warnings == []
    assert [(step.step, step.ok, step.detail) for step in listing.steps] == [("Passo 4", True, "1 backup")]


@pytest.mark.parametrize(("days", "warned"), [(6.9, False), (7.1, True), (40, True)])
def test_week_without_a_backup_is_a_warning(made: Made, here: Shelf, days: float, warned: bool) -> None:
    here.edit_manifest(made.plain, created_at=ago(days))
    listing = here.listing()
    assert listing.newest_good_age_seconds == pytest.approx(days * DAY, abs=60)
    assert any("days old" in warning and "take a backup" in warning for warning in listing.warnings) is warned


def test_age_is_of_the_newest_that_is_good(made: Made, here: Shelf) -> None:
    add(here, made, "letta_backup_20260101_000000.sql", created_at=ago(9))
    here.file(made.plain).write_bytes(b"cut off")
    listing = here.listing()
    assert listing.newest_good_age_seconds == pytest.approx(9 * DAY, abs=60)
    assert any("9 days old" in warning for warning in listing.warnings)


@pytest.mark.parametrize("there", [True, False])
def test_no_good_backup_is_a_warning(made: Made, tmp_path: Path, there: bool) -> None:
    here = made.shelf.copy(tmp_path / "backups")
    if not there:
        here.directory.rmdir()
    listing = here.listing()
    assert (listing.backups, listing.total_backups, listing.newest_good_age_seconds) == ([], 0, None)
    assert any("no good SQL backup" in warning for warning in listing.warnings)
    assert any("does not exist yet" in warning for warning in listing.warnings) is not there
    assert listing.steps[0].ok is False
    assert here.directory.exists() is there


# States


def test_each_kind_of_file_has_its_state(made: Made, here: Shelf) -> None:
    whole = here.file(made.plain).read_bytes()
    add(here, made, "touched_20260101_000000.sql")
    os.utime(here.file("touched_20260101_000000.sql"))
    add(here, made, "cut_20260101_000000.sql")
    here.file("cut_20260101_000000.sql").write_bytes(whole[:-1])
    add(here, made, "lost_20260101_000000.sql")
    here.outcome("lost_20260101_000000.sql").unlink()
    here.file("foreign.sql").write_bytes(whole)
    here.file("empty.sql").write_bytes(b"")
    here.file("packed.sql.zst").write_bytes(b"x")
    here.file("postgres_volume_20260101_000000.tar.gz").write_bytes(b"x")
    here.file("letta_backup_20260102_000000.sql.partial").write_bytes(b"x")
    here.file("notes.txt").write_bytes(b"x")
    listed = {item.name: item for item in here.listing(limit=1000).backups}
    assert {name: item.state for name, item in listed.items()} == {
        made.plain: "good",
        "touched_20260101_000000.sql": "unverified",
        "cut_20260101_000000.sql": "damaged",
        "lost_20260101_000000.sql": "unverified",
        "foreign.sql": "foreign",
        "empty.sql": "foreign",
        "packed.sql.zst": "foreign",
        "postgres_volume_20260101_000000.tar.gz": "foreign",
        "letta_backup_20260102_000000.sql.partial": "partial",
    }
    assert f"{len(whole) - 1:,} bytes" in listed["cut_20260101_000000.sql"].detail
    assert "empty" in listed["empty.sql"].detail
    assert "no manifest" in listed["foreign.sql"].detail
    assert "in progress" in listed["letta_backup_20260102_000000.sql.partial"].detail
    assert listed["postgres_volume_20260101_000000.tar.gz"].kind == "volume"
    assert here.listing().total_backups == len(listed) - 1


def test_foreign_file_is_dated_by_its_name_else_by_its_time(made: Made, here: Shelf) -> None:
    here.file("letta_backup_20250301_123000.sql").write_bytes(b"x")
    here.file("old.sql").write_bytes(b"x")
    os.utime(here.file("old.sql"), (1_700_000_000, 1_700_000_000))
    assert here.listed("old.sql").created_at == datetime.fromtimestamp(1_700_000_000, UTC)
    by_name = here.listed("letta_backup_20250301_123000.sql").created_at
    assert by_name == datetime(2025, 3, 1, 12, 30).astimezone(UTC)


@POSIX
@POSIX
@pytest.mark.parametrize("zone", ["EST5", "JST-9"])
def test_name_with_a_time_that_no_zone_reaches_is_dated_by_its_file(
    made: Made, here: Shelf, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("letta_backup_00010101_000000.sql", "letta_backup_99991231_235959.sql")
    for name in names:
        here.file(name).write_bytes(b"x")
        os.utime(here.file(name), (1_700_000_000, 1_700_000_000))
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        listed = {item.name: item.created_at for item in here.listing().backups}
        with BackupContext(here.settings) as context:
            prune(context, Progress())
    finally:
        monkeypatch.undo()
        time.tzset()
    assert listed.keys() == {made.plain, *names}
    assert {listed[name] for name in names} == {datetime.fromtimestamp(1_700_000_000, UTC)}


def test_what_is_no_regular_file_is_passed_over(made: Made, here: Shelf) -> None:
    here.file("link.sql").symlink_to(here.file(made.plain))
    here.file("dangling.sql").symlink_to("nowhere")
    here.file("folder.sql").mkdir()
    os.mkfifo(here.file("pipe.sql"))
    os.mkfifo(here.file("pipe.sql.partial"))
    listing = here.listing()
    assert names_of(listing) == [made.plain]
    assert listing.total_backups == 1


@pytest.mark.parametrize("ending", [MANIFEST, VERIFIED])
def test_companion_that_cannot_be_read_does_not_stop_the_listing(made: Made, here: Shelf, ending: str) -> None:
    """A directory can't be read, nor can a file of another user: backups that an administrator took."""
    add(here, made, "letta_backup_20260101_000000.sql", created_at=ago(1))
    companion = here.directory / f"letta_backup_20260101_000000.sql{ending}"
    companion.unlink()
    companion.mkdir()
    states = {item.name: item.state for item in here.listing().backups}
    assert states[made.plain] == "good"
    assert states["letta_backup_20260101_000000.sql"] in ("damaged", "unverified")


@POSIX
@pytest.mark.parametrize("ending", [MANIFEST, VERIFIED])
def test_companion_that_is_a_pipe_does_not_stop_the_listing(made: Made, here: Shelf, ending: str) -> None:
    """Whoever opens a pipe that nobody writes to waits forever."""
    here.file("old.sql").write_bytes(b"x")
    os.mkfifo(here.directory / f"old.sql{ending}")
    listing = within_seconds(5, here.listing)
    if listing is None:
        os.close(os.open(here.directory / f"old.sql{ending}", os.O_RDWR | os.O_NONBLOCK))
    assert listing is not None
    assert made.plain in names_of(listing)


@POSIX
@pytest.mark.parametrize("name", [b"caff\xe8.sql", b"a\x1b[2J.sql", b"\xed\xa0\x80.sql"])
def test_odd_file_name_does_not_break_the_answer(made: Made, here: Shelf, name: bytes) -> None:
    """Bytes that are no UTF-8 come out of the file system as lone surrogates, which JSON can't hold."""
    Path(os.fsdecode(os.fsencode(here.directory) + b"/" + name)).write_bytes(b"x")
    listing = here.listing()
    assert made.plain in names_of(listing)
    Listing.model_validate_json(listing.model_dump_json(by_alias=True))
    assert "\x1b" not in describe(listing)


def test_long_foreign_name_is_no_damage(made: Made, here: Shelf) -> None:
    """Its manifest's name would be longer than a file system allows."""
    name = "漢" * 80 + ".sql"
    here.file(name).write_bytes(b"x")
    assert {item.name: item.state for item in here.listing().backups}.get(name) in (None, "foreign")


def test_listing_goes_on_while_files_come_and_go(made: Made, here: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup that is published, or swept away, between the look at the directory and the look at the file."""
    monkeypatch.setenv("DOCKER_HOST", DEAD)
    listing = in_docker(here.directory)
    stop = threading.Event()
    partial = [here.file(f"letta_backup_202601{day:02}_000000.sql.partial") for day in range(1, 29)]

    def come_and_go() -> None:
        while not stop.is_set():
            for path in partial:
                path.write_bytes(b"x")
            for path in partial:
                path.unlink()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(150):
            assert made.plain in names_of(listing.listing(limit=1000))
    finally:
        stop.set()
        thread.join()


# Shrunk


def test_emptied_database_gives_a_shrunk_backup(database: LocalDatabase, tmp_path: Path) -> None:
    here = shelf(database, tmp_path / "backups")
    full = here.back_up()
    assert (full.shrunk, full.safe_to_proceed) == (False, True)
    execute(database, "TRUNCATE letta.agents CASCADE")
    emptied = here.back_up()
    assert (emptied.shrunk, emptied.safe_to_proceed, emptied.integrity_rows) == (True, False, 0)
    assert any("agents is empty" in reason for reason in emptied.reasons)
    assert any(full.name in reason for reason in emptied.reasons)
    listed = here.listed(emptied.name)
    assert (listed.state, listed.shrunk) == ("good", True)
    assert here.latest() == emptied.name
    with pytest.raises(BackupMissing, match=full.name) as refused:
        here.latest(for_restore=True)
    assert full.name in refused.value.remedy
    assert emptied.name in refused.value.message

    again = here.back_up(accept_smaller=True)
    assert (again.shrunk, again.safe_to_proceed) == (True, False), "an empty table is never meant"


def test_latest_means_none_that_a_drill_could_not_load(database: LocalDatabase, tmp_path: Path) -> None:
    here = shelf(database, tmp_path / "backups")
    loads, fails = here.back_up(), here.back_up()
    with BackupContext(here.settings) as context:
        entry, why = context.directory.find(fails.name), "no function f(text). Mend it."
        failed = {"failed": [DRILL], "proved": False, "verdict": "will_not_load", "said": why}
        context.directory.store_verification(entry, sha256=fails.sha256, **failed)  # pyright: ignore[reportArgumentType]
    assert here.latest() == fails.name
    with pytest.raises(BackupMissing, match=r"could not be loaded in a restore drill \(no function f") as refused:
        here.latest(for_restore=True)
    assert refused.value.next_call == again(backup=loads.name)

    execute(database, "TRUNCATE letta.agents CASCADE")
    emptied = here.back_up()
    with pytest.raises(BackupMissing, match=f"{emptied.name}.* had shrunk") as refused:
        here.latest(for_restore=True)
    assert loads.name in refused.value.remedy


def test_missing_integrity_table_gives_a_shrunk_backup(database: LocalDatabase, tmp_path: Path) -> None:
    here = shelf(database, tmp_path / "backups")
    execute(database, "DROP TABLE letta.agents CASCADE")
    first = here.back_up()
    assert (first.shrunk, first.safe_to_proceed, first.integrity_rows) == (True, False, None)
    assert any("agents is missing" in reason for reason in first.reasons)
    with pytest.raises(BackupMissing, match="no full one") as refused:
        here.latest(for_restore=True)
    assert first.name in refused.value.remedy


def test_more_than_half_of_all_rows_gone_gives_a_shrunk_backup(database: LocalDatabase, tmp_path: Path) -> None:
    here = shelf(database, tmp_path / "backups")
    execute(database, "CREATE TABLE letta.many AS SELECT generate_series(1, 1000) AS n")
    full = here.back_up()
    execute(database, "DELETE FROM letta.many WHERE n > 500")
    half = here.back_up()
    assert not half.shrunk
    execute(database, "TRUNCATE letta.many")
    less = here.back_up()
    assert (less.shrunk, less.safe_to_proceed) == (True, False)
    assert any(f"{less.rows:,} rows" in reason and half.name in reason for reason in less.reasons)

    still = here.back_up()
    assert still.shrunk, "a shrunk backup must not become the measure"

    meant = here.back_up(accept_smaller=True)
    assert (meant.shrunk, meant.safe_to_proceed) == (False, True)
    after = here.back_up()
    assert (after.shrunk, after.safe_to_proceed) == (False, True)
    assert here.latest(for_restore=True) == after.name
    assert full.rows is not None
    assert after.rows is not None
    assert full.rows > 2 * after.rows


def test_backup_is_measured_against_its_own_database_only(made: Made, database: LocalDatabase, tmp_path: Path) -> None:
    """Not against a larger one of another database, nor against one that is damaged."""
    here = made.shelf.copy(tmp_path / "backups")
    add(here, made, "letta_backup_20260101_000000.sql", created_at=ago(1), rows=10**9)
    mine = shelf(database, here.directory)
    assert not mine.back_up().shrunk
    add(here, made, "letta_backup_20260102_000000.sql", rows=10**9, identity={"database": database.name})
    mine.file("letta_backup_20260102_000000.sql").write_bytes(b"")
    assert not mine.back_up().shrunk


# Undo points


def test_undo_points_of_this_database_are_listed_newest_first(
    embedded: EmbeddedServer, database: LocalDatabase, tmp_path: Path
) -> None:
    names = [f"{database.name}_before_restore_20260{month}01_000000" for month in (1, 3, 2)]
    others = [f"{database.name}_before_restore_x", f"x_{names[0]}", f"{database.name}_restore_20260101_000000"]
    server = LocalDatabase(embedded, "postgres", embedded.dsn())
    try:
        for name in (*names, *others):
            execute(server, f'CREATE DATABASE "{name}"')
        points = shelf(database, tmp_path / "backups").listing().undo_points
    finally:
        for name in (*names, *others):
            execute(server, f'DROP DATABASE IF EXISTS "{name}"')
    assert points is not None
    assert [point.name for point in points] == [names[1], names[2], names[0]]
    assert points[0].created_at == datetime(2026, 3, 1, tzinfo=UTC)
    assert all(point.bytes is not None and point.bytes > 1_000_000 for point in points)


# Speed


@pytest.mark.long
def test_each_of_a_thousand_backups_is_listed_as_fast_as_each_of_a_hundred(made: Made, tmp_path: Path) -> None:
    """Manifests of 49 tables, as Letta has them. The processor's time is taken, since other work may go on beside."""

    def seconds(count: int) -> float:
        began = time.process_time()
        listing = here.listing()
        assert (listing.total_backups, len(listing.backups)) == (count, 10)
        return time.process_time() - began

    cost: dict[int, float] = {}
    here = made.shelf.copy(tmp_path / "backups")
    add(here, made, "letta_backup_20200101_000000.sql", tables=tables_of_letta(made), created_at=ago(0.5))
    manifest = here.manifest("letta_backup_20200101_000000.sql").read_bytes()
    for number in range(999):
        moment = datetime(2024, 1, 1) + timedelta(hours=7 * number)
        name = f"letta_backup_{moment:%Y%m%d_%H%M%S}.sql"
        text = manifest.replace(b"letta_backup_20200101_000000.sql", name.encode())
        here.manifest(name).write_bytes(text)
        os.link(here.file("letta_backup_20200101_000000.sql"), here.file(name))
        outcome = json.loads(here.outcome("letta_backup_20200101_000000.sql").read_bytes())
        status = here.manifest(name).stat()
        outcome |= {"manifest_bytes": status.st_size, "manifest_mtime_ns": status.st_mtime_ns}
        here.outcome(name).write_text(json.dumps(outcome))
        if (count := number + 2) in (100, 1000):
            cost[count] = min(seconds(count) for _ in range(3))
    assert {item.state for item in here.listing(limit=1000).backups} == {"good"}
    assert cost[1000] < 20 * cost[100]


def tables_of_letta(made: Made) -> list[dict[str, Any]]:
    tables = json.loads(made.shelf.manifest(made.plain).read_bytes())["tables"]
    return [{**tables[number % len(tables)], "name": f"table_{number}"} for number in range(49)]


@pytest.mark.parametrize(
    ("name", "made_at"),
    [
        ("letta_before_restore_20261123_065100", datetime(2026, 11, 23, 6, 51, tzinfo=UTC)),
        ("letta_before_restore_99999999_999999", None),
        ("letta_before_restore_20261123_065100_", None),
        ("Xletta_before_restore_20261123_065100", None),
        ("letta_before_restore_", None),
    ],
)
def test_only_a_name_with_a_time_that_exists_is_an_undo_points(name: str, made_at: datetime | None) -> None:
    assert own_names.stamped(own_names.undo_prefix("letta"), name) == made_at
