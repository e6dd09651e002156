"""Removals that are refused, cancelled or killed: no backup is lost by half."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scarlet_backup_mcp.errors import BackupMissing, Busy, Cancelled, ConfirmationStale
from scarlet_backup_mcp.procedures.catalog import records
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.progress import Progress, State
from scarlet_backup_mcp.store.directory import BackupDirectory
from scarlet_backup_mcp.store.lock import writer_lock
from scarlet_backup_mcp.store.names import REMOVED
from scarlet_backup_mcp.store.removal import Swept

from ..conftest import PROJECT_ROOT
from ..helpers.prune import backups, fill, mark, pruned, put, snapshot
from ..helpers.store import Made, Shelf

# Consent, lock, cancellation


def test_consent_is_for_one_very_list(made: Made, here: Shelf) -> None:
    fill(here, made, 4)
    agreed = pruned(here).confirmation
    assert pruned(here).confirmation == agreed
    new = put(here, made, -0.001)
    before = backups(here)
    with pytest.raises(ConfirmationStale):
        pruned(here, dry_run=False, confirmed=agreed)
    assert backups(here) == before
    assert new in before


def test_consent_is_for_that_very_content(made: Made, here: Shelf) -> None:
    names = fill(here, made, 3)
    agreed = pruned(here).confirmation
    here.edit_manifest(names[2], sha256="0" * 64)
    with pytest.raises(ConfirmationStale):
        pruned(here, dry_run=False, confirmed=agreed)


def test_nothing_goes_while_another_call_holds_the_directory(made: Made, here: Shelf) -> None:
    names = fill(here, made, 3)
    with writer_lock(here.directory, "restore"):
        assert pruned(here).removed == 1
        for call in (lambda: pruned(here, dry_run=False), lambda: mark(here, names[2])):
            with pytest.raises(Busy, match="restore"):
                call()
    assert backups(here) == set(names)


def test_cancelled_between_two_removals_tells_how_many_are_gone(made: Made, here: Shelf) -> None:
    class Impatient(Progress):
        def show(self, state: State) -> None:
            if state.stage.startswith("removing") and state.done == 2:
                self.cancel()

    names = fill(here, made, 6)
    with pytest.raises(Cancelled, match="3 of 4 were removed"):
        pruned(here, Impatient(), dry_run=False)
    assert backups(here) == set(names[:3])


def test_one_that_cannot_be_removed_stops_no_other(made: Made, here: Shelf) -> None:
    """Its new name is taken by a directory."""
    names = fill(here, made, 5)
    here.file(f".{names[3]}{REMOVED}").mkdir()
    report = pruned(here, dry_run=False)
    assert [item.action for item in report.items] == ["kept", "kept", "removed", "not removed", "removed"]
    assert names[3] in report.warnings[0]
    assert (report.removed, here.state(names[3])) == (2, "good")


def test_one_that_has_lost_its_name_is_removed_though_its_room_is_not_free_yet(
    made: Made, here: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its file can be renamed and not removed, as on a share: no real system does that at will."""
    names = fill(here, made, 4)
    unlink = Path.unlink

    def refused(self: Path, missing_ok: bool = False) -> None:
        if self.name == f".{names[3]}{REMOVED}":
            raise PermissionError(errno.EACCES, "Permission denied")
        unlink(self, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refused)
        report = pruned(here, dry_run=False)
    assert [item.action for item in report.items[2:]] == ["removed", "removed"]
    assert (report.removed, report.bytes_freed, report.steps[0].ok) == (2, report.items[2].bytes, True)
    assert [warning for warning in report.warnings if warning.startswith(f"{names[3]} is removed")] == report.warnings
    assert "Permission denied" in report.warnings[0]
    assert backups(here) == set(names[:2])
    assert any(names[3] in warning for warning in pruned(here, dry_run=False).warnings)
    assert not here.file(f".{names[3]}{REMOVED}").exists()


def test_leftover_that_cannot_be_removed_stops_no_call(made: Made, here: Shelf) -> None:
    """A directory lies where its manifest would."""
    left = "letta_backup_20260101_000000.sql"
    here.file(f"{left}.partial").write_bytes(b"x")
    here.manifest(left).mkdir()
    taken = here.back_up()
    assert taken.good
    for warnings in (taken.warnings, pruned(here, dry_run=False).warnings):
        assert any(warning.startswith(f"{left}.partial") for warning in warnings)


# Killed, and read meanwhile

KILLED = """
import os, signal, sys
from pathlib import Path
from scarlet_backup_mcp.store.directory import BackupDirectory

left = int(sys.argv[3])

def mortal(function):
    def counted(*arguments, **options):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return function(*arguments, **options)
    return counted

for name in ("replace", "unlink", "fsync"):
    setattr(os, name, mortal(getattr(os, name)))
directory = BackupDirectory(Path(sys.argv[1]))
directory.remove(directory.find(sys.argv[2]))
"""
STEPS = 8
"""A rename, three files beside it, the file, and three times the directory made durable."""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL.")
@pytest.mark.parametrize("steps", range(STEPS + 1))
def test_killed_at_any_step_it_leaves_a_whole_backup_or_none(made: Made, here: Shelf, steps: int) -> None:
    name = put(here, made, 1)
    mark(here, name)
    beside = {path.name for path in here.directory.iterdir() if name in path.name}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, here.directory, name, str(steps)], cwd=PROJECT_ROOT, timeout=60, check=False
    )
    assert killed.returncode == (0 if steps == STEPS else -signal.SIGKILL)
    with BackupContext(here.settings) as context:
        assert [(item.name, item.state) for item in records.all_backups(context)] == (
            [(name, "good")] if steps == 0 else []
        )
        swept = context.directory.sweep()
    assert swept == Swept([name] if 0 < steps < STEPS - 1 else [])
    left = {path.name for path in here.directory.iterdir() if name in path.name}
    assert left == (beside if steps == 0 else set())


def test_sweep_leaves_a_backup_that_someone_put_back(made: Made, here: Shelf) -> None:
    name = put(here, made, 1)
    shutil.copy2(here.file(name), here.file(f".{name}{REMOVED}"))
    assert BackupDirectory(here.directory).sweep() == Swept([name])
    assert (here.state(name), here.file(f".{name}{REMOVED}").exists()) == ("good", False)


def test_sweep_leaves_names_that_are_not_ours(here: Shelf) -> None:
    for name in (".notes.txt.removed", "letta_backup_20260101_000000.sql.removed", ".removed"):
        here.file(name).write_bytes(b"x")
    before = snapshot(here)
    assert BackupDirectory(here.directory).sweep() == Swept()
    assert snapshot(here) == before


def test_outcome_of_a_verification_is_not_left_beside_nothing(made: Made, here: Shelf) -> None:
    directory = BackupDirectory(here.directory)
    entry = directory.find(put(here, made, 1))
    directory.remove(entry)
    with pytest.raises(BackupMissing):
        directory.store_verification(entry, sha256="0" * 64, failed=[])
    assert list(here.directory.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no open file.")
def test_who_reads_a_backup_reads_it_to_its_end(made: Made, here: Shelf) -> None:
    name = put(here, made, 1)
    directory = BackupDirectory(here.directory)
    with here.file(name).open("rb") as file:
        directory.remove(directory.find(name))
        assert file.read() == made.shelf.file(made.plain).read_bytes()


def test_listing_never_takes_one_that_is_just_removed_for_foreign(
    made: Made, here: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removed between the look at the file and the look at its manifest: no real timing would hit that for certain."""
    name = put(here, made, 1)
    look = BackupDirectory.manifest_head

    def removed_first(self: BackupDirectory, name: str) -> Any:
        self.remove(self.find(name))
        return look(self, name)

    monkeypatch.setattr(BackupDirectory, "manifest_head", removed_first)
    with BackupContext(here.settings) as context:
        assert records.all_backups(context) == []
    assert not here.file(name).exists()
