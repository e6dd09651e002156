"""Backups of other databases, and of a clock that was wrong: never the latest one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import BackupMissing, OtherDatabaseRefused, again
from scarlet_backup_mcp.procedures.catalog import records
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.restore.service import dry_run
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import load_settings

from ..helpers.records import DAY, DEAD, add, ago, in_docker, names_of, within_seconds
from ..helpers.store import Made, Shelf

# Whose


@pytest.mark.parametrize("identity", [{"database": "another"}, {"via": "docker", "container": "c", "project": "p"}])
def test_backup_of_another_database_is_listed_and_never_meant(
    made: Made, here: Shelf, identity: dict[str, str]
) -> None:
    add(here, made, "other_20260101_000000.sql", created_at=ago(0), identity=identity)
    listed = here.listed("other_20260101_000000.sql")
    assert (listed.state, listed.other_database) == ("good", True)
    assert here.latest() == here.latest(for_restore=True) == made.plain
    here.edit_manifest(made.plain, created_at=ago(30))
    assert here.listing().newest_good_age_seconds == pytest.approx(30 * DAY, abs=60)
    with BackupContext(here.settings) as context, pytest.raises(OtherDatabaseRefused) as refused:
        dry_run(context, Progress(), "other_20260101_000000.sql")
    assert refused.value.next_call == again(accept_other_database=True)


def test_only_backups_of_others_leave_nothing_to_mean(made: Made, here: Shelf) -> None:
    here.edit_manifest(made.plain, identity={"database": "another"})
    assert here.listing().newest_good_age_seconds is None
    with pytest.raises(BackupMissing):
        here.latest()


OURS = {"via": "docker", "database": "letta", "container": "abiogenesis-postgres", "project": "scarlet"}
THEIRS = {**OURS, "container": "other-postgres", "project": "other"}


@pytest.fixture
def two_projects(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with backups of two Compose projects whose databases have one name, and no engine."""
    monkeypatch.setenv("DOCKER_HOST", DEAD)
    here = made.shelf.copy(tmp_path / "shared")
    add(here, made, "ours_20260101_000000.sql", created_at=ago(5), identity=OURS)
    add(here, made, "theirs_20260102_000000.sql", created_at=ago(1), identity=THEIRS)
    return here.directory


def test_two_projects_in_one_directory_are_told_apart(two_projects: Path) -> None:
    ours, theirs = in_docker(two_projects), in_docker(two_projects, container="other-postgres")
    assert ours.latest() == "ours_20260101_000000.sql"
    assert theirs.latest() == "theirs_20260102_000000.sql"
    listing = ours.listing()
    assert {item.name: item.other_database for item in listing.backups} == {
        "ours_20260101_000000.sql": False,
        "theirs_20260102_000000.sql": True,
    }
    assert {item.project for item in listing.backups} == {None, "other"}
    assert listing.newest_good_age_seconds == pytest.approx(5 * DAY, abs=60)


def test_without_an_engine_the_settings_tell_whose_a_backup_is(two_projects: Path) -> None:
    """Also where the container had another name, since Compose's labels lead to it, but not where one was named."""
    here = in_docker(two_projects)
    here.edit_manifest("ours_20260101_000000.sql", identity={"container": "scarlet-db-1"})
    for given, others in ((here, [True, False]), (in_docker(two_projects, container="not-its-name"), [True, True])):
        assert [item.other_database for item in given.listing().backups] == others


def test_latest_for_a_restore_is_of_the_live_cluster_where_there_is_one(made: Made, here: Shelf) -> None:
    add(here, made, "letta_backup_20260101_000000.sql", created_at=ago(-0.001), identity={"system_identifier": "1"})
    with BackupContext(here.settings) as context:
        assert records.latest(context) == "letta_backup_20260101_000000.sql"
        assert dry_run(context, Progress(), "latest").source == made.plain
    here.file(made.plain).unlink()
    with BackupContext(here.settings) as context:
        assert dry_run(context, Progress(), "latest").source == "letta_backup_20260101_000000.sql"


def test_listing_works_with_no_engine(two_projects: Path) -> None:
    listing = in_docker(two_projects).listing()
    assert listing.undo_points is None
    assert any("ndo points" in warning for warning in listing.warnings)
    assert len(listing.backups) == 2


def test_listing_works_with_no_server(made: Made, here: Shelf) -> None:
    dead = Shelf(
        load_settings(
            **{
                "via": "local",
                "dir": here.directory,
                "bin_dir": here.settings.bin_dir,
                "dsn": f"postgresql://127.0.0.1:1/{here.listing().database}",
            }
        )
    )
    listing = dead.listing()
    assert listing.undo_points is None
    assert any("ndo points" in warning for warning in listing.warnings)
    assert names_of(listing) == [made.plain]
    assert dead.latest() == made.plain


@pytest.fixture
def hanging_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A port that takes connections and never answers, as an engine does whose machine is asleep."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        yield


@pytest.mark.usefixtures("hanging_engine")
def test_hanging_engine_does_not_hang_the_listing(made: Made, tmp_path: Path) -> None:
    here = made.shelf.copy(tmp_path / "shared")
    add(here, made, "ours_20260101_000000.sql", created_at=ago(5), identity=OURS)
    listing = within_seconds(8, in_docker(here.directory).listing)
    assert listing is not None
    assert listing.undo_points is None
    assert any("ndo points" in warning for warning in listing.warnings)
    assert listing.newest_good_age_seconds == pytest.approx(5 * DAY, abs=60)


# From the future


def test_backup_from_the_future_is_told_and_never_meant(made: Made, here: Shelf) -> None:
    here.edit_manifest(made.plain, created_at=ago(30))
    add(here, made, "letta_backup_20990101_000000.sql", created_at=ago(-2))
    listing = here.listing()
    assert names_of(listing)[0] == "letta_backup_20990101_000000.sql"
    assert any("letta_backup_20990101_000000.sql" in w and "future" in w for w in listing.warnings)
    assert listing.newest_good_age_seconds == pytest.approx(30 * DAY, abs=60)
    assert here.latest() == here.latest(for_restore=True) == made.plain


def test_nothing_but_the_future_is_nothing(made: Made, here: Shelf) -> None:
    here.edit_manifest(made.plain, created_at=ago(-1))
    assert here.listing().newest_good_age_seconds is None
    with pytest.raises(BackupMissing):
        here.latest()
