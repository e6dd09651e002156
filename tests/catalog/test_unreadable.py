"""Backups that this user may not read: they may be good, so nobody says that they are damaged or not there."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from scarlet_backup_mcp.models.results import ErrorReport, Gate, Listing, Prune
from scarlet_backup_mcp.models.setup import SetupReport

from ..helpers.records import add
from ..helpers.store import Made, Shelf
from ..helpers.users import Ordinary, open_again, ordinary_user, shut

pytestmark = ordinary_user
OWNER = "belongs to"


@pytest.fixture
def user(here: Shelf, tmp_path: Path) -> Ordinary:
    return Ordinary(here.settings, tmp_path)


def the_file(here: Shelf, name: str) -> Path:
    return here.file(name)


def the_manifest(here: Shelf, name: str) -> Path:
    return here.manifest(name)


def the_outcome(here: Shelf, name: str) -> Path:
    return here.outcome(name)


EACH = pytest.mark.parametrize("part", [the_file, the_manifest, the_outcome])


@pytest.mark.sample(1)
@EACH
def test_listing_and_gate_say_whose_it_is(
    here: Shelf, made: Made, user: Ordinary, part: Callable[[Shelf, str], Path]
) -> None:
    shut(part(here, made.plain))
    listing = user.answer(Listing, 0, "list")
    (item,) = listing.backups
    assert item.state == "unreadable"
    assert part(here, made.plain).name in item.detail
    assert OWNER in item.detail
    assert "mode 0000" in item.detail
    assert any("can't be judged" in warning for warning in listing.warnings)
    gate = user.answer(Gate, 1, "gate")
    reasons = " ".join(gate.reasons)
    assert "There is no backup" not in reasons
    assert "mode 0000" in reasons
    assert "Run this as the owner" in reasons


@pytest.mark.sample(1)
@pytest.mark.parametrize("command", ["restore", "verify"])
@pytest.mark.parametrize("part", [the_file, the_manifest])
@pytest.mark.parametrize("named", [True, False])
def test_it_can_be_neither_verified_nor_restored(
    here: Shelf, made: Made, user: Ordinary, command: str, part: Callable[[Shelf, str], Path], named: bool
) -> None:
    shut(part(here, made.plain))
    options = ["--yes"] if command == "restore" else []
    error = user.answer(ErrorReport, 2, command, made.plain if named else "latest", *options)
    assert error.code == "backup_unreadable"
    assert OWNER in error.message


@pytest.mark.long
@pytest.mark.parametrize("level", ["quick", "drill"])
def test_at_every_level(here: Shelf, made: Made, user: Ordinary, level: str) -> None:
    shut(here.file(made.plain))
    assert user.answer(ErrorReport, 2, "verify", made.plain, "--level", level).code == "backup_unreadable"


@pytest.mark.long
def test_latest_is_not_an_earlier_one_for_a_restore(here: Shelf, made: Made, user: Ordinary) -> None:
    later = "letta_backup_20990101_000000.sql"
    add(here, made, later, created_at=(datetime.now(UTC) + timedelta(minutes=1)).isoformat())
    shut(here.manifest(later))
    error = user.answer(ErrorReport, 2, "restore", "latest", "--yes")
    assert error.code == "backup_unreadable"
    assert later in error.message
    assert made.plain in error.remedy


@pytest.mark.sample(1)
@EACH
def test_it_is_never_pruned(here: Shelf, made: Made, user: Ordinary, part: Callable[[Shelf, str], Path]) -> None:
    shut(part(here, made.plain))
    found = user.answer(Prune, 0, "prune", "--dry-run")
    assert [(item.action, item.reason.partition(" ")[0]) for item in found.items] == [("left alone", "unreadable")]


def test_an_outcome_that_can_not_be_read_is_not_replaced(here: Shelf, made: Made, user: Ordinary) -> None:
    """It may say that a drill failed."""
    outcome = here.outcome(made.plain)
    before = outcome.read_bytes()
    shut(outcome)
    done = user.run("verify", made.plain)
    assert done.returncode == 0, done.stderr
    assert "could not be stored" in done.stdout
    open_again(outcome)
    assert outcome.read_bytes() == before


def test_rows_may_have_been_lost_since_one_that_can_not_be_read(here: Shelf, made: Made, user: Ordinary) -> None:
    """A backup that was compared with none does not open the gate then."""
    later = "letta_backup_20260101_000000.sql"
    add(here, made, later, created_at=(datetime.now(UTC) + timedelta(minutes=1)).isoformat(), last_full=None)
    shut(here.manifest(made.plain))
    gate = user.answer(Gate, 1, "gate")
    assert any(f"since {made.plain} is unknown" in reason for reason in gate.reasons)


@pytest.mark.sample(1)
@pytest.mark.parametrize("mode", [0o644, 0o311, 0])
def test_a_directory_that_can_be_listed_or_entered_only(here: Shelf, user: Ordinary, mode: int) -> None:
    shut(here.directory, mode)
    try:
        for command in ("list", "verify"):
            error = user.answer(ErrorReport, 2, command)
            assert error.code == "backup_unreadable", error
            assert f"mode {here.directory.stat().st_mode & 0o777:04o}" in error.message
        assert "may not read" in " ".join(user.answer(Gate, 1, "gate").reasons)
    finally:
        open_again(here.directory)


@pytest.mark.long
def test_a_directory_below_one_that_can_not_be_entered(made: Made, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    here = made.shelf.copy(closed / "backups", made.plain)
    user = Ordinary(here.settings, tmp_path)
    shut(closed)
    try:
        for command in ("list", "verify"):
            error = user.answer(ErrorReport, 2, command)
            assert f"the directory {closed} {OWNER}" in error.message
        failed = user.answer(ErrorReport, 2, "backup")
        assert failed.code == "directory_not_writable"
        assert f"the directory {closed} {OWNER}" in failed.message
        report = user.answer(SetupReport, 1, "doctor")
        assert any(check.check == "directory" and OWNER in check.message for check in report.checks)
    finally:
        open_again(closed)


@pytest.mark.long
def test_a_directory_that_may_be_a_dump(here: Shelf, user: Ordinary) -> None:
    (here.directory / "dump").mkdir()
    shut(here.directory / "dump")
    assert any("which may be a dump" in warning for warning in user.answer(Listing, 0, "list").warnings)


@pytest.mark.long
def test_doctor_says_so(here: Shelf, made: Made, user: Ordinary) -> None:
    shut(here.manifest(made.plain))
    checks = [check for check in user.answer(SetupReport, 1, "doctor").checks if check.check == "backups"]
    assert [check.status for check in checks] == ["fail"]
    assert OWNER in checks[0].message
