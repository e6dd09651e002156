"""The throw-away server: it works, nobody else can use it, and nothing of it stays."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer, copy_programs, wheel_bin_dir
from scarlet_backup_mcp.errors import Busy, Cancelled, DirectoryNotWritable, DrillImpossible, ProgramMissing
from scarlet_backup_mcp.hosts import Host, run
from scarlet_backup_mcp.hosts.docker import sandbox as hosts
from scarlet_backup_mcp.postgres.cluster import local as local_cluster
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.sandbox import lifecycle as module
from scarlet_backup_mcp.procedures.sandbox.lifecycle import SandboxServer, owner_of, sandbox_server, sweep
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import load_settings

from ..conftest import IMAGE, Stack
from ..helpers.containers import run_docker, wait_for_server
from ..helpers.restore import started_at

TEST_LABEL = "scarlet-backup-mcp.test=1"
Options = dict[str, str]

HOLD = """
import json, sys, time
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.sandbox.lifecycle import sandbox_server
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import load_settings

settings = load_settings(**json.loads(sys.argv[1]))
with BackupContext(settings) as context, sandbox_server(context, Progress()) as ready:
    print(json.dumps([ready.server.host.container_info().container, ready.data_directory]), flush=True)
    time.sleep(60)
"""
"""A drill under way: tells the container's name and the data directory."""


class CancelWhen(Progress):
    """Cancels itself as soon as something is so."""

    def __init__(self, moment: Callable[[], bool]) -> None:
        super().__init__()
        self._moment = moment

    def check(self) -> None:
        if self._moment():
            self.cancel()
        super().check()


@contextmanager
def under_way(options: Options) -> Generator[tuple[subprocess.Popen[str], str, str]]:
    """A drill in another process, which is dead after the block; its container's name and its data directory."""
    command = [sys.executable, "-c", HOLD, json.dumps(options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            container, data = json.loads(process.stdout.readline())
            yield process, container, data
        finally:
            process.kill()


def told_by(host: Host, *argv: str) -> str:
    output = bytearray()
    ended = run(host, argv, sink=output.extend)
    assert ended.code == 0, ended
    return output.decode()


def ask(ready: SandboxServer, query: str) -> list[dict[str, Any]]:
    return ready.server.rows("postgres", query)


# With Docker


@pytest.fixture
def docker_options(stack: Stack, tmp_path: Path) -> Options:
    return {"container": stack.container, "project": stack.project, "dir": str(tmp_path)}


@pytest.fixture
def beside_docker(docker_options: Options) -> Iterator[BackupContext]:
    with BackupContext(load_settings(**docker_options)) as context:
        yield context


@pytest.fixture
def make_image(require_docker: None, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """An image like the usual one, with changes as `docker commit` takes them and another initdb; its name."""
    names: list[str] = []

    def make(*changes: str, initdb: str | None = None) -> str:
        names.append(f"throw-away-test-{secrets.token_hex(4)}")
        run_docker("create", "--name", names[-1], "--label", TEST_LABEL, IMAGE)
        try:
            if initdb is not None:
                (tmp_path / "initdb").write_text(initdb)
                (tmp_path / "initdb").chmod(0o755)
                run_docker("cp", str(tmp_path / "initdb"), f"{names[-1]}:/usr/local/bin/initdb")
            run_docker("commit", *(part for change in changes for part in ("--change", change)), names[-1], names[-1])
        finally:
            run_docker("rm", "-fv", names[-1])
        return names[-1]

    yield make
    for name in names:
        run_docker("rmi", name)


@pytest.fixture
def make_live(make_image: object, tmp_path: Path) -> Iterator[Callable[..., BackupContext]]:
    """Make a container that plays the live one, by `docker create` or another command with such arguments.

    After `make_image`, so that a container is gone before its image.
    """
    names: list[str] = []

    def make(*arguments: str, command: str = "create", user: str = "postgres") -> BackupContext:
        names.append(f"throw-away-test-{secrets.token_hex(4)}")
        run_docker(*command.split(), "--name", names[-1], "--label", TEST_LABEL, "--network", "none", *arguments)
        return BackupContext(load_settings(container=names[-1], dir=tmp_path, user=user))

    yield make
    for name in names:
        run_docker("rm", "-fv", name)


@pytest.fixture(scope="module")
def drill(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxServer]:
    """One under way, of a backup directory of its own."""
    settings = load_settings(container=stack.container, project=stack.project, dir=tmp_path_factory.mktemp("drill"))
    with BackupContext(settings) as context, sandbox_server(context, Progress()) as ready:
        yield ready


def left(context: BackupContext) -> list[str]:
    """Names of the containers and volumes of this backup directory's drills."""
    label = f"label={hosts.LABEL}={owner_of(context.directory.path / module.DRILLS)}"
    containers = run_docker("ps", "-a", "--filter", label, "--format", "{{.Names}}").split()
    return containers + run_docker("volume", "ls", "--filter", label, "--format", "{{.Name}}").split()


def inspect(container: str) -> dict[str, Any]:
    return json.loads(run_docker("inspect", container))[0]


def name_of(ready: SandboxServer) -> str:
    name = ready.server.host.container_info().container
    assert name is not None
    return name


def test_container_is_ready_empty_and_gone_afterwards_with_all_its_volumes(
    beside_docker: BackupContext, stack: Stack
) -> None:
    with sandbox_server(beside_docker, Progress()) as ready:
        databases = ask(ready, "SELECT datname FROM pg_database ORDER BY 1")
        versions = [server.rows("postgres", "SELECT version()") for server in (ready.server, beside_docker.server)]
        volumes = [mount["Name"] for mount in inspect(name_of(ready))["Mounts"]]
        assert left(beside_docker) == [name_of(ready)] * 2
        assert ready.data_directory == ask(ready, "SELECT current_setting('data_directory') AS it")[0]["it"]
        assert (ready.server.host.free_bytes(ready.data_directory) or 0) > 0
    assert [row["datname"] for row in databases] == ["postgres", "template0", "template1"]
    assert versions[0] == versions[1]
    assert ready.where.startswith(f"a sandbox container of {IMAGE} (sha256:")
    assert ready.warnings == []
    assert left(beside_docker) == []
    assert len(volumes) == 1  # where the image declares another, there is none that somebody could leave behind
    assert not set(volumes) & set(run_docker("volume", "ls", "-q").split())


def test_container_is_out_of_everybodys_reach(drill: SandboxServer) -> None:
    found = inspect(name_of(drill))
    status = told_by(drill.server.host, "cat", "/proc/1/status", "/proc/self/status")
    assert told_by(drill.server.host, "ls", "/sys/class/net").split() == ["lo"]
    assert ask(drill, "SELECT current_setting('listen_addresses') AS it") == [{"it": ""}]
    assert found["HostConfig"]["NetworkMode"] == "none"
    assert {mount["Type"] for mount in found["Mounts"]} == {"volume"}
    assert found["HostConfig"]["RestartPolicy"]["Name"] in ("", "no")
    uids = [line.split()[1:] for line in status.splitlines() if line.startswith("Uid:")]
    capabilities = [line.split()[1] for line in status.splitlines() if line.startswith(("CapEff:", "CapBnd:"))]
    assert uids == [["10001"] * 4] * 2
    assert set(capabilities) == {"0" * 16}
    assert len(capabilities) == 4


def test_live_container_is_only_asked_by_psql(beside_docker: BackupContext, stack: Stack) -> None:
    def live() -> tuple[str, str]:
        return started_at(stack.container), stack.psql("SELECT oid, datname FROM pg_database ORDER BY 1")

    before = live()
    since = str(time.time())
    with sandbox_server(beside_docker, Progress()):
        pass
    events = ("events", "--since", since, "--until", str(time.time()), "--format", "{{.Action}}")
    actions = run_docker(*events, "--filter", f"container={stack.container}").splitlines()
    ours = [action for action in actions if 'echo "$$"' in action and action.startswith("exec_create")]
    assert [("psql -X" in action) for action in ours if "/postmaster.pid" not in action] == [True]
    assert not {"stop", "kill", "pause", "restart", "update", "archive-path", "extract-to-dir"} & set(actions)
    assert live() == before


def test_vector_index_is_built_within_the_limits(drill: SandboxServer) -> None:
    """A parallel build takes all of maintenance_work_mem from /dev/shm, however few rows there are."""
    build = """
        CREATE EXTENSION vector;
        CREATE TABLE t AS SELECT n, (SELECT array_agg(random()) FROM generate_series(1, 64) WHERE n > 0)::vector(64) v
                          FROM generate_series(1, 3000) AS n;
        ALTER TABLE t SET (parallel_workers = 2);
        CREATE INDEX ON t USING hnsw (v vector_l2_ops)"""
    with drill.server.session("postgres", {"search_path": "public", "min_parallel_table_scan_size": "0"}) as session:
        for statement in build.split(";"):
            session.execute(statement)
        nearest = "SELECT n FROM t ORDER BY v <-> (SELECT v FROM t WHERE n = 7) LIMIT 1"
        assert session.rows(nearest) == [{"n": 7}]


def test_container_is_gone_after_an_exception_and_after_a_cancellation(beside_docker: BackupContext) -> None:
    with pytest.raises(ZeroDivisionError), sandbox_server(beside_docker, Progress()):
        raise ZeroDivisionError
    assert left(beside_docker) == []
    progress = CancelWhen(lambda: len(left(beside_docker)) == 2)
    with pytest.raises(Cancelled), sandbox_server(beside_docker, progress):
        pytest.fail("It was not cancelled while it was being started.")
    assert left(beside_docker) == []


def test_container_under_way_is_left_alone_and_a_killed_ones_is_swept(
    beside_docker: BackupContext, docker_options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SWEEP_SECONDS", 0)
    with under_way(docker_options) as (process, container, _):
        assert sweep(beside_docker) == []
        with pytest.raises(Busy, match=f"a drill of process {process.pid} "):
            sandbox_server(beside_docker, Progress()).__enter__()
        assert left(beside_docker) == [container] * 2
    assert left(beside_docker) == [container] * 2
    other = BackupContext(load_settings(**{**docker_options, "dir": str(beside_docker.directory.path.parent)}))
    assert sweep(other) == []
    assert left(beside_docker) == [container] * 2
    assert sweep(beside_docker) == [container]
    assert left(beside_docker) == []


def test_what_can_not_be_removed_is_told_and_swept_later(
    beside_docker: BackupContext, make_live: Callable[..., BackupContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "REMOVAL_SECONDS", 0)
    with sandbox_server(beside_docker, Progress()) as ready:
        name = name_of(ready)
        holder = make_live("-v", f"{name}:/held", IMAGE).settings.container
    assert [warning for warning in ready.warnings if f"volume {name} is left behind" in warning] == ready.warnings
    assert left(beside_docker) == [name]
    with pytest.raises(ZeroDivisionError), sandbox_server(beside_docker, Progress()):  # which can't sweep it either
        raise ZeroDivisionError
    run_docker("rm", "-fv", holder)
    assert sweep(beside_docker) == [name]
    assert left(beside_docker) == []


def test_sweep_is_harmless_without_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    (tmp_path / module.DRILLS).mkdir()
    owner_of(tmp_path / module.DRILLS)
    assert sweep(BackupContext(load_settings(dir=tmp_path))) == []


def test_server_is_like_the_live_one(make_live: Callable[..., BackupContext], tmp_path: Path) -> None:
    """The live one has another superuser, a library to preload, and its data below a bind mount that the image knows
    nothing of."""
    (tmp_path / "data").mkdir()
    settings = ("-e", "POSTGRES_USER=scarlet admin", "-e", "POSTGRES_PASSWORD=x", "-e", "PGDATA=/srv/memory/pg/data")
    libraries = ("-c", "shared_preload_libraries=pg_stat_statements", "-c", "session_preload_libraries=auto_explain")
    live = make_live(
        *(*settings, "-v", f"{tmp_path / 'data'}:/srv/memory", IMAGE, "postgres", *libraries, "-c", "fsync=off"),
        command="run -d",
        user="scarlet admin",
    )
    wait_for_server(live.settings.container)
    try:
        with sandbox_server(live, Progress()) as ready:
            shared, own = (f"current_setting('{kind}_preload_libraries')" for kind in ("shared", "session"))
            found = ask(ready, f"SELECT current_user AS me, {shared} AS libraries, {own} AS session_libraries")
            with ready.server.session("postgres", {"search_path": "public"}) as session:
                session.execute("CREATE EXTENSION pg_stat_statements")
                assert session.rows("SELECT count(*) >= 0 AS works FROM pg_stat_statements") == [{"works": True}]
    finally:
        run_docker("exec", live.settings.container, "sh", "-c", "rm -rf /srv/memory/*")
    libraries = {"libraries": "pg_stat_statements", "session_libraries": "auto_explain"}
    assert found == [{"me": "scarlet admin", **libraries}]
    assert ready.warnings == []


def test_live_container_need_not_run_and_its_image_may_be_composes(
    make_live: Callable[..., BackupContext], make_image: Callable[..., str]
) -> None:
    labels = {"com.docker.compose.project": "scarlet", "com.docker.compose.service": "postgres", "kept": "yes"}
    with make_live(make_image(*(f"LABEL {name}={value}" for name, value in labels.items()))) as live:
        with sandbox_server(live, Progress()) as ready:
            found = inspect(name_of(ready))["Config"]["Labels"]
        assert left(live) == []
    assert [warning for warning in ready.warnings if "is not running" in warning] == ready.warnings != []
    assert {name: found[name] for name in labels} == {**dict.fromkeys(labels, ""), "kept": "yes"}


def test_image_whose_server_does_not_start_is_told(
    make_live: Callable[..., BackupContext], make_image: Callable[..., str]
) -> None:
    broken = make_image(initdb="#!/bin/sh\necho 'initdb has a bad day' >&2\nexit 3\n")
    with make_live(broken) as live:
        with pytest.raises(DrillImpossible, match="did not start: exit code 3\ninitdb has a bad day"):
            sandbox_server(live, Progress()).__enter__()
        assert left(live) == []


def test_image_without_a_shell_or_gone_is_told(
    make_live: Callable[..., BackupContext], make_image: Callable[..., str]
) -> None:
    image = make_image("ENV PATH=/nowhere")
    with make_live(image) as live:
        with pytest.raises(DrillImpossible, match=r"could not be started\..*\"sh\""):
            sandbox_server(live, Progress()).__enter__()
        assert left(live) == []


# On this machine


@pytest.fixture
def local_options(embedded: EmbeddedServer, tmp_path: Path) -> Options:
    return {"via": "local", "dsn": embedded.dsn(), "bin_dir": str(embedded.bin_dir), "dir": str(tmp_path)}


@pytest.fixture
def beside_local(local_options: Options) -> Iterator[BackupContext]:
    with BackupContext(load_settings(**local_options)) as context:
        yield context


def directories(context: BackupContext) -> list[Path]:
    """Those of this backup directory's drills."""
    owner = owner_of(context.directory.path / module.DRILLS)
    return sorted(Path(tempfile.gettempdir()).glob(f"scarlet-drill-{owner}-*"))


def is_alive(data: Path) -> bool:
    """Whether a server listens on the port of that data directory."""
    port = int((data / "postmaster.pid").read_text().splitlines()[3])
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_cluster_is_ready_and_gone_afterwards(beside_local: BackupContext, embedded: EmbeddedServer) -> None:
    with sandbox_server(beside_local, Progress()) as ready:
        found = ask(
            ready,
            """SELECT current_user AS me, current_setting('listen_addresses') AS listens,
                      current_setting('data_directory') AS data, current_setting('port')::int AS port""",
        )[0]
        with ready.server.session("postgres", {"search_path": "public"}) as session:
            session.execute("CREATE EXTENSION vector")
        data = Path(ready.data_directory)
        assert [data.parent] == directories(beside_local)
        assert data.parent.stat().st_mode & 0o077 == 0 or sys.platform == "win32"
        assert (ready.server.host.free_bytes(ready.data_directory) or 0) > 0
        assert sweep(beside_local) == []
    assert found == {"me": "postgres", "listens": "127.0.0.1", "data": str(data), "port": found["port"]}
    assert found["port"] != embedded.port
    assert ready.where == f"a sandbox cluster of {embedded.bin_dir}"
    assert ready.warnings == []
    assert directories(beside_local) == []


def test_cluster_is_gone_after_a_cancellation(beside_local: BackupContext) -> None:
    progress = CancelWhen(lambda: any((found / "data").is_dir() for found in directories(beside_local)))
    with pytest.raises(Cancelled), sandbox_server(beside_local, progress):
        pytest.fail("It was not cancelled while it was being started.")
    assert directories(beside_local) == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the server of a killed drill ends a minute later")
def test_cluster_under_way_is_left_alone_and_the_next_drill_sweeps_a_killed_ones(
    beside_local: BackupContext, local_options: Options
) -> None:
    with under_way(local_options) as (_, _, path):
        data = Path(path)
        assert sweep(beside_local) == []
        assert is_alive(data)
    assert is_alive(data)
    number = (data / "postmaster.pid").read_text().splitlines()[0]
    with sandbox_server(beside_local, Progress()) as ready:
        assert not data.parent.exists()
        assert not Path(f"/proc/{number}/cwd").exists()
        assert ask(ready, "SELECT 1 AS it") == [{"it": 1}]


@pytest.mark.skipif(sys.platform == "win32", reason="uses sleep and links")
def test_sweep_ends_no_process_but_the_directorys_own_server(beside_local: BackupContext, tmp_path: Path) -> None:
    (tmp_path / module.DRILLS).mkdir()
    owner = owner_of(tmp_path / module.DRILLS)
    stale = Path(tempfile.mkdtemp(prefix=f"scarlet-drill-{owner}-"))
    link = stale.with_name(f"{stale.name}-link")
    (tmp_path / "precious").mkdir()
    link.symlink_to(tmp_path / "precious")
    (stale / "data").mkdir()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        try:
            (stale / "data" / "postmaster.pid").write_text(f"{stranger.pid}\n{stale / 'data'}\n")
            assert sweep(beside_local) == [str(stale)]
            assert stranger.poll() is None
            assert (tmp_path / "precious").is_dir()
        finally:
            stranger.kill()
            link.unlink()
            shutil.rmtree(stale, ignore_errors=True)


def test_client_programs_alone_make_no_cluster(
    local_options: Options, embedded: EmbeddedServer, tmp_path: Path
) -> None:
    clients = tmp_path / "clients"
    clients.mkdir()
    for program in ("psql", "pg_dump"):
        (clients / local_cluster.executable(program)).symlink_to(embedded.bin_dir / local_cluster.executable(program))
    local_options["bin_dir"] = str(clients)
    with BackupContext(load_settings(**local_options)) as context:
        found = module._server_programs(clients, module._likeness(context, Progress()))  # pyright: ignore[reportPrivateUsage]
        assert found == embedded.bin_dir  # the live server is on this machine
    local_options["dsn"] = "postgresql://postgres@127.0.0.1:1/letta"
    with BackupContext(load_settings(**local_options)) as context, pytest.raises(ProgramMissing) as caught:
        sandbox_server(context, Progress()).__enter__()
    assert str(clients) in caught.value.message
    assert "on_live_server" in caught.value.remedy


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root has another account run the server")
def test_programs_out_of_the_accounts_reach_are_told(local_options: Options, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    local_options["bin_dir"] = str(copy_programs(wheel_bin_dir(), private))
    with BackupContext(load_settings(**local_options)) as context:
        with pytest.raises(DrillImpossible, match="no other account can reach"):
            sandbox_server(context, Progress()).__enter__()
        assert directories(context) == []


def test_preloaded_library_that_is_missing_is_told(
    beside_local: BackupContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A live server that runs with a library its bin directory lacks can't be had: only what it says is made up."""
    monkeypatch.setattr(module, "_likeness", lambda *_: module._Likeness(libraries="no_such_library"))  # pyright: ignore
    with pytest.raises(DrillImpossible, match="no_such_library"):
        sandbox_server(beside_local, Progress()).__enter__()
    assert directories(beside_local) == []


@pytest.mark.parametrize("directory", ["missing", "closed"])
def test_backup_directory_has_to_be_there_and_writable(local_options: Options, tmp_path: Path, directory: str) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / module.DRILLS).touch()  # root, who runs some tests, may write anywhere
    local_options["dir"] = str(tmp_path / directory)
    with BackupContext(load_settings(**local_options)) as context:
        with pytest.raises(DirectoryNotWritable):
            sandbox_server(context, Progress()).__enter__()
        assert sweep(context) == []
