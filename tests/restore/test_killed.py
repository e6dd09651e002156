"""Restores that are cancelled, killed, or lose their server: all of it happened, or nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import (
    Cancelled,
    ContainerLost,
    RestoreInterrupted,
    ServerUnreachable,
    StoreError,
)
from scarlet_backup_mcp.postgres.server.session import Session
from scarlet_backup_mcp.procedures.recovery import journal as journals
from scarlet_backup_mcp.progress import Progress

from ..conftest import PROJECT_ROOT, Stack
from ..helpers.containers import run_docker, wait_for_server
from ..helpers.restore import Mind, Watch, put_back, take
from ..helpers.sampling import sampled

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills with SIGKILL")


# -- cancelled -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "title",
    sampled(
        [
            "looking at the container",
            "looking at the source",
            "reading",
            "creating",
            "loading",
            "comparing",
            "analysing",
            "putting back",
        ],
        "reading",
    ),
)
def test_cancelled_restore_leaves_nothing_behind(mind: Mind, title: str) -> None:
    around = mind.around()
    watch = Watch(title, Progress.cancel)
    with pytest.raises(Cancelled):
        put_back(mind, mind.saved, watch, stop_dependents=True)
    assert watch.reached(title)
    assert not watch.reached("swapping")
    assert mind.around() == around
    assert not mind.journal.exists()


def test_cancellation_in_the_middle_of_the_load_leaves_nothing_behind(mind: Mind) -> None:
    around = mind.around()
    with pytest.raises(Cancelled):
        put_back(mind, mind.saved, Watch("loading", Progress.cancel, done=1 << 20))
    assert mind.around() == around
    ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'scarlet-backup-mcp%'"
    deadline = time.monotonic() + 10
    while mind.psql(ours, "postgres") != "0":
        assert time.monotonic() < deadline, "no backend of ours outlives the call"


def test_cancellation_during_the_swap_waits_until_it_is_done(mind: Mind, stack: Stack) -> None:
    watch = Watch("swapping", Progress.cancel)
    done = put_back(mind, mind.saved, watch, stop_dependents=True)
    assert watch.reached("swapping")
    assert mind.fingerprint() == mind.saved_fingerprint
    assert mind.undo_points() == [done.undo_point]
    assert [(d.name, d.action) for d in done.dependents] == [(stack.dependent, "restarted")]
    assert not mind.journal.exists()


# -- killed ----------------------------------------------------------------------------------------------------------

NOT_SWAPPED = [
    "when the new database is not marked yet",
    "before the load",
    "in the middle of the load",
    "after owner and settings are put back",
    "after the journal is written",
    "after a dependent is stopped",
    "between the renames and their COMMIT",
]
SWAPPED = ["after the swap", "before the journal is removed"]


def kill_a_restore(mind: Mind, moment: str, source: str) -> None:
    """A restore in a process of its own, killed at that moment."""
    settings = {"dir": str(mind.directory), "container": mind.container, "database": mind.name}
    order = json.dumps({"moment": moment, "backup": source, "settings": settings})
    command = [sys.executable, "-m", "tests.helpers.restore_killer", order]
    killed = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr


@pytest.mark.parametrize("moment", sampled(NOT_SWAPPED, "between the renames and their COMMIT"))
def test_restore_killed_before_the_swap_is_rolled_back_by_the_next_call(mind: Mind, stack: Stack, moment: str) -> None:
    around = mind.around()
    kill_a_restore(mind, moment, mind.saved)
    assert mind.databases()[mind.name] == around.databases[mind.name]
    journal = mind.journal.exists()
    told = " ".join(take(mind).warnings)
    assert mind.around() == around
    assert not mind.journal.exists()
    assert stack.state(stack.dependent) == "running"
    assert ("rolled back" in told) is journal


@pytest.mark.parametrize("moment", sampled(SWAPPED, "after the swap"))
def test_restore_killed_after_the_swap_is_finished_by_the_next_call(mind: Mind, stack: Stack, moment: str) -> None:
    oid, live = mind.databases()[mind.name], mind.fingerprint()
    kill_a_restore(mind, moment, mind.saved)
    assert mind.journal.exists()
    told = " ".join(take(mind).warnings)
    assert mind.fingerprint() == mind.saved_fingerprint
    (undo,) = mind.undo_points()
    assert (mind.databases()[undo], mind.fingerprint(undo)) == (oid, live)
    assert sorted(mind.databases()) == [mind.name, undo]
    assert not mind.journal.exists()
    assert stack.state(stack.dependent) == "running"
    assert "finished" in told


@pytest.mark.long
def test_journal_that_can_not_be_removed_spoils_no_restore(
    mind: Mind, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Played here: on Windows another program that has the file open keeps it."""

    def refuse(path: Path) -> None:
        raise StoreError(f"{path} can't be removed: it is in use.")

    with monkeypatch.context() as patched:
        patched.setattr(journals, "delete", refuse)
        done = put_back(mind, mind.saved)
    assert done.restored
    assert any("can't be removed: it is in use. The next backup" in warning for warning in done.warnings)
    assert mind.fingerprint() == mind.saved_fingerprint
    assert mind.journal.exists()
    assert "it is finished now" in " ".join(take(mind).warnings)
    assert mind.fingerprint() == mind.saved_fingerprint
    assert not mind.journal.exists()
    assert stack.state(stack.dependent) == "running"


@pytest.mark.long
def test_next_restore_settles_a_killed_one_first(mind: Mind, stack: Stack) -> None:
    live = mind.fingerprint()
    kill_a_restore(mind, "after the swap", mind.set_aside("aside"))
    (undo,) = mind.undo_points()
    done = put_back(mind, undo)
    assert "finished" in done.warnings[0]
    assert mind.fingerprint() == live
    assert stack.state(stack.dependent) == "running"
    assert not mind.journal.exists()


@pytest.mark.long
def test_undo_point_survives_an_undo_that_is_killed(mind: Mind, stack: Stack) -> None:
    point = mind.set_aside("aside")
    around = mind.around()
    kill_a_restore(mind, "between the renames and their COMMIT", point)
    take(mind)
    assert mind.around() == around
    assert mind.psql("SELECT was FROM letta.marker", point) == "aside"
    assert stack.state(stack.dependent) == "running"


# -- the server goes away --------------------------------------------------------------------------------------------


def start_again(mind: Mind) -> None:
    run_docker("start", mind.container)
    wait_for_server(mind.container)


@pytest.mark.long
def test_server_killed_during_the_load_leaves_the_live_database_whole(mind: Mind) -> None:
    around = mind.around()
    watch = Watch("loading", lambda _: run_docker("kill", mind.container), done=1 << 20)
    with pytest.raises((ContainerLost, ServerUnreachable)):
        put_back(mind, mind.saved, watch)
    start_again(mind)
    take(mind)
    assert mind.around() == around


@pytest.mark.sample(1)
@pytest.mark.parametrize("committed", [False, True])
def test_server_killed_in_the_swap_is_whole_on_either_side(
    mind: Mind, stack: Stack, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """The kill is real; only its moment, between two statements of the swap, needs a hand on them."""
    execute, renames = Session.execute, list[str]()

    def killing(self: Session, statement: str, timeout: float | None = None) -> str:
        answer = execute(self, statement, timeout)
        renames.extend([statement] if "RENAME TO" in statement or (statement == "COMMIT" and renames) else [])
        if len(renames) == (3 if committed else 2):
            renames.clear()
            run_docker("kill", mind.container)
        return answer

    point = mind.set_aside("aside")
    around = mind.around()
    with monkeypatch.context() as patch:
        patch.setattr(Session, "execute", killing)
        with pytest.raises(RestoreInterrupted) as raised:
            put_back(mind, point, stop_dependents=True)
    assert "docker compose up -d postgres" in raised.value.remedy
    assert mind.journal.exists()
    start_again(mind)
    told = " ".join(take(mind).warnings)
    assert not mind.journal.exists()
    assert stack.state(stack.dependent) == "running"
    if committed:
        assert "finished" in told
        (undo,) = mind.undo_points()
        assert (mind.databases()[mind.name], mind.databases()[undo]) == (
            around.databases[point],
            around.databases[mind.name],
        )
        assert mind.fingerprint(undo) == around.fingerprint
        assert mind.psql("SELECT was FROM letta.marker") == "aside"
    else:
        assert "rolled back" in told
        assert mind.around() == around
        assert mind.psql("SELECT was FROM letta.marker", point) == "aside"
