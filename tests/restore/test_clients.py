"""Clients and dependent containers around a restore's swap."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from scarlet_backup_mcp.errors import (
    RestoreFailed,
)
from scarlet_backup_mcp.postgres.server import databases
from scarlet_backup_mcp.postgres.server.session import Session

from ..conftest import Stack
from ..helpers.containers import run_docker, run_docker_quietly
from ..helpers.restore import UNAVAILABLE, Mind, Watch, put_back, started_at

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills with SIGKILL")

_CLIENTS = """
for client in 1 2 3 4 5 6 7 8; do
    for _ in $(seq 2000); do
        [ -e {stop} ] && break
        psql -X -At -U postgres -d {name} -c \
            "SELECT '$client ' || current_database() || ' ' || was FROM marker, pg_sleep(0.05)" 2>/dev/null
    done &
done
wait
"""


def test_clients_that_reconnect_in_a_loop_neither_stop_the_swap_nor_see_a_wrong_database(mind: Mind) -> None:
    stop = f"/tmp/stop-{secrets.token_hex(6)}"
    clients = subprocess.Popen(
        ["docker", "exec", mind.container, "bash", "-c", _CLIENTS.format(stop=stop, name=mind.name)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        done = put_back(mind, mind.saved)
        time.sleep(0.5)
    finally:
        run_docker("exec", mind.container, "touch", stop)
        said, _ = clients.communicate(timeout=60)
    assert done.unavailable_seconds is not None
    assert done.unavailable_seconds < UNAVAILABLE
    seen: dict[str, list[str]] = {}
    for line in said.splitlines():
        client, database, was = line.split()
        assert database == mind.name
        seen.setdefault(client, []).append(was)
    assert len(seen) == 8
    for answers in seen.values():
        assert {answers[0], answers[-1]} == {"live", "saved"}
        assert answers == sorted(answers), "no client saw the old database after the new one"


@pytest.mark.long
def test_stopped_dependent_stays_stopped(mind: Mind, stack: Stack) -> None:
    run_docker("stop", stack.dependent)
    try:
        done = put_back(mind, mind.set_aside("aside"), stop_dependents=True)
        assert [(d.name, d.action) for d in done.dependents] == [(stack.dependent, "left stopped")]
        assert stack.state(stack.dependent) == "exited"
    finally:
        run_docker("start", stack.dependent)


def before_the_swap(monkeypatch: pytest.MonkeyPatch, act: Callable[[str], object]) -> None:
    """Dependents are stopped then, and nothing is swapped yet: no stage tells of that moment. `act` is called with the
    name that the live database is about to get."""
    swap = databases.swap

    def act_and_swap(
        renaming: Session, ending: Session, database: str, incoming: str, undo: str, comments: dict[str, str | None]
    ) -> float:
        act(undo)
        return swap(renaming, ending, database, incoming, undo, comments)

    monkeypatch.setattr(databases, "swap", act_and_swap)


@pytest.fixture
def lost_dependent(stack: Stack) -> Iterator[str]:
    """For a test that removes it."""
    yield stack.dependent
    stack.bring_up()


@pytest.mark.long
def test_dependent_that_can_not_be_started_again_is_reported(
    mind: Mind, lost_dependent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_the_swap(monkeypatch, lambda _: run_docker("rm", "-f", lost_dependent))
    done = put_back(mind, mind.set_aside("aside"), stop_dependents=True)
    assert [(d.name, d.action) for d in done.dependents] == [(lost_dependent, "start failed")]
    assert lost_dependent in " ".join(done.warnings)
    assert mind.psql("SELECT was FROM letta.marker") == "aside"
    assert not mind.journal.exists()


@pytest.mark.long
def test_failed_swap_tells_of_a_dependent_that_can_not_be_started_again(
    mind: Mind, lost_dependent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = mind.set_aside("aside")

    def remove_it_and_occupy_the_name(undo: str) -> None:
        run_docker("rm", "-f", lost_dependent)
        mind.psql(f"CREATE DATABASE {undo}", "postgres")

    before_the_swap(monkeypatch, remove_it_and_occupy_the_name)
    with pytest.raises(RestoreFailed, match="could not be swapped") as raised:
        put_back(mind, point, stop_dependents=True)
    assert mind.psql("SELECT was FROM letta.marker") == "live"
    assert lost_dependent in str(raised.value)


def test_failed_swap_leaves_the_live_database_and_starts_dependents_again(
    mind: Mind, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name that the live database should get is taken by someone else in between."""
    around, was_started = mind.around(), started_at(stack.dependent)
    taken: list[str] = []

    def occupy_the_name(undo: str) -> None:
        taken.append(undo)
        mind.psql(f"CREATE DATABASE {undo}", "postgres")

    before_the_swap(monkeypatch, occupy_the_name)
    with pytest.raises(RestoreFailed, match=r"could not be swapped: .* already exists"):
        put_back(mind, mind.saved, stop_dependents=True)
    mind.psql(f"DROP DATABASE {taken[0]}", "postgres")
    assert mind.around() == around
    assert stack.state(stack.dependent) == "running"
    assert started_at(stack.dependent) != was_started
    assert not mind.journal.exists()


@pytest.mark.long
def test_undo_point_that_goes_away_in_between_is_a_failure_told_as_one(mind: Mind) -> None:
    around, point = mind.around(), mind.set_aside("aside")
    watch = Watch("swapping", lambda _: mind.psql(f"DROP DATABASE {point}", "postgres"))
    with pytest.raises(RestoreFailed, match=point):
        put_back(mind, point, watch)
    assert mind.around() == around
    assert not mind.journal.exists()


_BLOCKER = """
SET application_name = 'a copy being made';
BEGIN;
ALTER DATABASE {name} CONNECTION LIMIT 50;
\\! touch {ready}
SELECT pg_sleep(30) FROM pg_database WHERE datname = 'postgres';
"""


def test_swap_that_someone_blocks_gives_up_and_names_them(mind: Mind, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a shorter time-out than the 15 s that users have."""
    monkeypatch.setattr(databases, "SWAP_LOCK_SECONDS", 1)
    point = mind.set_aside("aside")
    around, ready = mind.around(), f"/tmp/ready-{secrets.token_hex(6)}"
    psql = ["docker", "exec", "-i", mind.container, "psql", "-X", "-q", "-U", "postgres", "-d", "postgres"]
    blocker = subprocess.Popen(psql, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        assert blocker.stdin is not None
        blocker.stdin.write(_BLOCKER.format(name=mind.name, ready=ready).encode())
        blocker.stdin.flush()
        while not run_docker_quietly("exec", mind.container, "ls", ready):
            assert blocker.poll() is None
        with pytest.raises(RestoreFailed, match="could not be swapped") as raised:
            put_back(mind, point)
    finally:
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'a copy being made'"
        mind.psql(ended, "postgres")
        blocker.communicate(timeout=30)
    assert mind.around() == around
    assert not mind.journal.exists()
    assert "a copy being made" in raised.value.message
