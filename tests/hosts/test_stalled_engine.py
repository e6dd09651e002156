"""The connection to the engine stalls: every call ends within a bound and says so; nothing goes on in the container."""

from __future__ import annotations

import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import BackupToolError, ContainerLost, EngineUnreachable, RestoreInterrupted
from scarlet_backup_mcp.hosts.docker import engine as engines
from scarlet_backup_mcp.hosts.docker import exec_stream
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.restore.options import RestoreOptions
from scarlet_backup_mcp.procedures.restore.service import restore
from scarlet_backup_mcp.progress import Progress

from ..conftest import Stack
from ..helpers.containers import run_docker
from ..helpers.restore import Mind, Watch

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="stands in front of a Unix socket")

ENGINE = "/var/run/docker.sock"
SILENCE = 2.0
BOUND = 25.0
"""Seconds, with silence and pings so short, on a busy machine; with the real ones it is less than 50 more."""
REAL_SILENCE, REAL_PING = engines.SILENCE_SECONDS, engines.PING_SECONDS


class Proxy:
    """Stands in front of the engine's socket. While `stalled` it takes connections and bytes, and passes none on."""

    def __init__(self, path: Path) -> None:
        self.stalled = False
        self.address = f"unix://{path}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(50)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.stalled = False
        self._listener.close()

    def stall(self) -> float:
        """Begins now; gives that moment."""
        self.stalled = True
        return time.monotonic()

    def wake(self) -> None:
        self.stalled = False

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(ENGINE)
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                while self.stalled:
                    time.sleep(0.05)
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The tool reaches the engine through it, and loses patience soon."""
    made = Proxy(tmp_path / "engine.sock")
    for name, seconds in (("SILENCE_SECONDS", SILENCE), ("PING_SECONDS", 2), ("SILENT_PING_SECONDS", 1)):
        monkeypatch.setattr(engines, name, seconds)
    monkeypatch.setattr(exec_stream, "SILENCE_SECONDS", SILENCE)
    yield made
    made.close()


@pytest.fixture(scope="module")
def saved(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mind]:
    directory = tmp_path_factory.mktemp("saved") / "backups"
    mind = Mind(stack.container, f"mind_{secrets.token_hex(4)}", directory)
    mind.make()
    with mind.context() as context:
        made = backup(context, Progress())
    mind.psql("UPDATE marker SET was = 'live'")
    yield replace(mind, saved=made.name)
    stack.bring_up()
    mind.drop()


def stalled(proxy: Proxy, began: list[float]) -> Callable[[Progress], None]:
    return lambda _: began.append(proxy.stall())


def through(proxy: Proxy, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> BackupToolError:
    """What it ends with, within the bound; `DOCKER_HOST` leads through the proxy meanwhile."""
    monkeypatch.setenv("DOCKER_HOST", proxy.address)
    with pytest.raises(BackupToolError) as caught:
        act()
    monkeypatch.delenv("DOCKER_HOST")
    return caught.value


def assert_idle(mind: Mind, within: float = 15) -> None:
    """Nothing of ours is connected to the database or what is beside it."""
    query = f"""SELECT count(*) FROM pg_stat_activity
                WHERE application_name LIKE 'scarlet-backup-mcp%' AND starts_with(datname, '{mind.name}')"""
    until = time.monotonic() + within
    while mind.psql(query, "postgres") != "0":
        assert time.monotonic() < until, "Something goes on."
        time.sleep(0.2)


def test_a_dump_over_a_stalled_connection_ends(saved: Mind, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[float] = []

    def take() -> None:
        with saved.context() as context:
            backup(context, Watch("dumping", stalled(proxy, began)))

    error = through(proxy, monkeypatch, take)
    assert time.monotonic() - began[0] < BOUND
    assert isinstance(error, EngineUnreachable)
    assert "docker ps" in error.remedy
    proxy.stalled = False
    assert_idle(saved)


@pytest.mark.parametrize(
    ("stage", "done"),
    [
        ("loading", -1),
        *(pytest.param(*case, marks=pytest.mark.long) for case in (("loading", 1 << 20), ("swapping", -1))),
    ],
)
def test_a_restore_over_a_stalled_connection_ends(
    saved: Mind, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, stage: str, done: int
) -> None:
    before, began = saved.fingerprint(), list[float]()

    def put_back() -> None:
        with saved.context() as context:
            options = RestoreOptions(drill="never", stop_dependents=False)
            restore(context, Watch(stage, stalled(proxy, began), done), saved.saved, options)

    error = through(proxy, monkeypatch, put_back)
    assert time.monotonic() - began[0] < BOUND
    assert isinstance(error, (EngineUnreachable, RestoreInterrupted))
    proxy.stalled = False
    assert_idle(saved)
    with saved.context() as context:
        backup(context, Progress())
    assert saved.fingerprint() == before
    assert list(saved.databases()) == [saved.name]


def test_a_program_that_is_silent_for_long_is_waited_for(
    saved: Mind, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", proxy.address)
    with saved.context() as context, context.server.session(saved.name) as session:
        began = time.monotonic()
        session.execute("SELECT pg_sleep(7)")
    assert time.monotonic() - began > 3 * SILENCE


def test_an_engine_that_wakes_within_40_seconds_ends_nothing(
    saved: Mind, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second takes a fifth of one. As Docker Desktop after the sleep of a laptop."""
    monkeypatch.setenv("DOCKER_HOST", proxy.address)
    monkeypatch.setattr(engines, "SILENCE_SECONDS", REAL_SILENCE / 5)
    monkeypatch.setattr(exec_stream, "SILENCE_SECONDS", REAL_SILENCE / 5)
    monkeypatch.setattr(engines, "PING_SECONDS", REAL_PING / 5)
    with saved.context() as context, context.server.session(saved.name) as session:
        timer = threading.Timer(40 / 5, proxy.wake)
        proxy.stall()
        timer.start()
        assert session.rows("SELECT 1 AS one") == [{"one": 1}]
        assert not proxy.stalled


def test_a_container_that_is_lost_when_a_load_begins_is_told_as_that(saved: Mind, stack: Stack) -> None:
    def lose(_: Progress) -> None:
        run_docker("kill", saved.container)

    try:
        with saved.context() as context, pytest.raises(ContainerLost) as caught:
            restore(context, Watch("loading", lose), saved.saved, RestoreOptions(drill="never", stop_dependents=False))
        assert "during" in caught.value.message
    finally:
        stack.bring_up()
