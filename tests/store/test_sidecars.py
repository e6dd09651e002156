"""What lies beside backups may be anything: it hangs no call, slows none down, and is not believed against reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from scarlet_backup_mcp.errors import BackupToolError, DirectoryNotWritable, RestoreInterrupted
from scarlet_backup_mcp.limits import within
from scarlet_backup_mcp.models.common import State
from scarlet_backup_mcp.models.results import Backup
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.gate import gate
from scarlet_backup_mcp.procedures.integrity import db_integrity
from scarlet_backup_mcp.procedures.sandbox import lifecycle
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.store import owner
from scarlet_backup_mcp.store.lock import HOLDER, writer_lock
from scarlet_backup_mcp.store.names import JOURNAL
from scarlet_backup_mcp.store.sidecars import SMALL, read

from ..helpers.backup_faults import At
from ..helpers.store import Made, Shelf

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs FIFOs")


@pytest.fixture
def here(made: Made, tmp_path: Path) -> Shelf:
    """A directory of the test's own with both backups."""
    return made.shelf.copy(tmp_path / "backups", made.plain, made.zstd)


def soon(act: Callable[[], object]) -> object:
    """What `act` gives, or the error of ours that it raises; it must not hang."""
    answers: list[object] = []

    def work() -> bool:
        try:
            answers.append(act())
        except BackupToolError as error:
            answers.append(error)
        return True

    assert within(30, work), "It hangs."
    return answers[0]


def on(here: Shelf, act: Callable[[BackupContext], object]) -> Callable[[], object]:
    def work() -> object:
        with BackupContext(here.settings) as context:
            return act(context)

    return work


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def test_a_fifo_for_a_journal_hangs_nothing_and_stops_writers_with_what_to_do(here: Shelf) -> None:
    fifo(here.directory / JOURNAL)
    assert isinstance(soon(here.back_up), RestoreInterrupted)
    soon(on(here, gate))
    soon(on(here, lambda context: db_integrity(context, Progress())))
    soon(here.listing)


def test_fifos_for_what_lies_beside_a_backup_hang_nothing(made: Made, here: Shelf) -> None:
    fifo(here.outcome(made.plain))
    fifo(here.manifest(made.zstd))
    fifo(here.directory / HOLDER)
    soon(here.listing)
    assert (here.state(made.plain), here.state(made.zstd)) == ("unverified", "damaged")
    assert isinstance(soon(here.back_up), Backup)

    def lock() -> None:
        with writer_lock(here.directory, "test"):
            assert isinstance(soon(here.back_up), BackupToolError)

    soon(lock)


def test_a_fifo_for_a_drills_mark_hangs_nothing(here: Shelf) -> None:
    drills = here.directory / lifecycle.DRILLS
    drills.mkdir()
    fifo(drills / owner.OWNER)
    assert isinstance(soon(lambda: owner.owner_of(drills)), BackupToolError)


def test_a_link_is_no_sidecar(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("{}")
    (tmp_path / JOURNAL).symlink_to(tmp_path / "secret")
    with pytest.raises(BackupToolError):
        read(tmp_path / JOURNAL)
    assert read(tmp_path / "nothing") is None


def test_a_record_that_is_far_too_large_is_passed_over_at_once(made: Made, here: Shelf) -> None:
    text = here.outcome(made.plain).read_text()
    here.outcome(made.plain).write_text(text.replace('"failed_checks": []', f'"failed_checks": [{"1" * (60 << 20)}]'))
    assert here.outcome(made.plain).stat().st_size > SMALL
    began = time.monotonic()
    assert here.state(made.plain) == "unverified"
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"sha256": "0" * 64}, "unverified"),
        ({"failed_checks": ["header"]}, "unverified"),
        ({"sha256": "0" * 64, "valid": False, "failed_checks": ["sha256"]}, "damaged"),
    ],
)
def test_a_record_is_believed_only_of_its_own_backup(
    made: Made, here: Shelf, changes: dict[str, Any], state: State
) -> None:
    outcome = here.outcome(made.plain)
    outcome.write_text(json.dumps({**json.loads(outcome.read_text()), **changes}))
    assert here.state(made.plain) == state


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rows": 1}, "its tables"),
        ({"kind": "volume"}, "kind volume"),
        ({"compression": "zstd"}, "compression zstd"),
        ({"created_at": "0001-01-01T00:00:00Z"}, "made in 1"),
    ],
)
def test_a_manifest_that_contradicts_itself_fails_by_name(
    made: Made, here: Shelf, changes: dict[str, Any], said: str
) -> None:
    here.edit_manifest(made.plain, **changes)
    report = here.verify(made.plain)
    assert [check.check for check in report.checks if check.ok is False] == ["consistency"]
    assert said in next(check.detail for check in report.checks if check.check == "consistency")
    assert here.state(made.plain) == "damaged"


@contextmanager
def read_only_for_new_files(directory: Path) -> Generator[Callable[[], None]]:
    """What is called to have a mount laid over the directory that is read-only: open files can still be written."""
    done: list[bool] = []

    def lay() -> None:
        for options in (["--bind", str(directory), str(directory)], ["-o", "remount,bind,ro", str(directory)]):
            laid = subprocess.run(["mount", *options], capture_output=True, timeout=10, check=False)
            if laid.returncode != 0:
                pytest.skip(f"Nothing can be mounted here: {laid.stderr.decode()}")
            done.append(True)

    try:
        yield lay
    finally:
        if done:
            subprocess.run(["umount", str(directory)], check=True, capture_output=True, timeout=10)


@pytest.mark.parametrize("stage", ["dumping", "counting the rows of the snapshot"])
def test_a_file_system_that_turns_read_only_is_told_as_that(here: Shelf, stage: str) -> None:
    with read_only_for_new_files(here.directory) as lay, BackupContext(here.settings) as context:
        seen = At(stage, lay)
        with pytest.raises(DirectoryNotWritable) as caught:
            backup(context, seen)
    assert stage in seen.stages
    assert "Read-only file system" in caught.value.message
    assert here.state(here.back_up().name) == "good"
