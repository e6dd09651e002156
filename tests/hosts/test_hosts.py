"""Programs where they run: in a real container, and on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from scarlet_backup_mcp.errors import (
    Cancelled,
    ContainerAmbiguous,
    ContainerLost,
    ContainerMissing,
    ContainerNotRunning,
    ContainerPaused,
    EngineUnreachable,
    HostError,
    ProgramMissing,
)
from scarlet_backup_mcp.hosts import Exit, Host, missing_program, run
from scarlet_backup_mcp.hosts.docker.container import DockerHost
from scarlet_backup_mcp.hosts.docker.engine import DEFAULT_ADDRESS, Endpoint, container_name, find_endpoint
from scarlet_backup_mcp.hosts.endings import lost
from scarlet_backup_mcp.hosts.local import LocalHost
from scarlet_backup_mcp.progress import Progress

IMAGE = "pgvector/pgvector:pg15"
OURS = {"scarlet-backup-mcp.test": "1"}
MEGABYTE = 1 << 20
STARTS_UNDER_CTRL_C = """
import os, signal, threading
from scarlet_backup_mcp.hosts.local import LocalHost

signal.signal(signal.SIGINT, lambda number, frame: None)
host = LocalHost(None, {})
codes = []
starts = threading.Thread(target=lambda: codes.extend(host.start(["true"]).wait().code for _ in range(400)))
starts.start()
while starts.is_alive():
    os.killpg(0, signal.SIGINT)
    starts.join(0.0005)
print(*codes)
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uses sh and /proc as programs to run")


@pytest.fixture(scope="module")
def docker(require_docker: None) -> Iterator[Any]:
    """docker-py's client, for what the tests do to containers behind the back of the code."""
    from docker import APIClient  # pyright: ignore[reportMissingTypeStubs]

    client: Any = APIClient(find_endpoint(os.environ).address, version="auto")
    yield client
    client.close()


@pytest.fixture(scope="module")
def make_container(docker: Any) -> Iterator[Callable[..., str]]:
    """Start (or only create) a container that sleeps; gives its name. All are removed at the end."""
    from docker.errors import NotFound  # pyright: ignore[reportMissingTypeStubs]

    names: list[str] = []

    def make(*command: str, start: bool = True, labels: dict[str, str] | None = None, **settings: Any) -> str:
        name = f"hosts-test-{secrets.token_hex(4)}"
        settings.setdefault("entrypoint", ["sleep", "infinity"])
        docker.create_container(IMAGE, list(command), name=name, labels=OURS | (labels or {}), **settings)
        names.append(name)
        if start:
            docker.start(name)
        return name

    yield make
    for name in names:
        with contextlib.suppress(NotFound):  # the test has removed it
            docker.remove_container(name, force=True, v=True)


@pytest.fixture(scope="module")
def container(make_container: Callable[..., str]) -> str:
    """A container that outlives all tests."""
    return make_container()


@pytest.fixture
def box(make_container: Callable[..., str]) -> str:
    """A container to be stopped, killed, removed or paused."""
    return make_container()


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.docker), "local"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """Either kind of host."""
    made: Host
    if request.param == "docker":
        made = DockerHost(request.getfixturevalue("container"), "postgres", "none")
    else:
        made = LocalHost(None, {})
    yield made
    made.close()


@pytest.fixture
def marker() -> str:
    """A word that no other program has among its arguments."""
    return f"marker-{secrets.token_hex(6)}"


def output_of(host: Host, *argv: str, **env: str) -> str:
    output = bytearray()
    ended = run(host, argv, env=env, sink=output.extend)
    assert ended.code == 0, ended
    return output.decode()


def running(host: Host, marker: str) -> list[str]:
    """Command lines that hold the marker, where the host's programs run."""
    lines = output_of(
        host, "sh", "-c", r'for f in /proc/[0-9]*/cmdline; do tr "\0\n" "  " < $f; echo; done 2>/dev/null'
    )
    return [line for line in lines.splitlines() if marker in line]


def eventually(condition: Callable[[], object], seconds: float = 10) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.1)
    return False


def exists(host: Host, path: str) -> bool:
    return run(host, ["test", "-e", path]).code == 0


class TestRun:
    @pytest.mark.parametrize("code", [0, 1, 3, 255])
    def test_exit_code(self, host: Host, code: int) -> None:
        assert run(host, ["sh", "-c", f"exit {code}"]) == Exit(code, "")

    def test_a_signal_is_an_exit_code_over_128(self, host: Host) -> None:
        assert run(host, ["sh", "-c", "kill -KILL $$"]).code == 137

    def test_a_program_that_was_killed_is_told_as_that_where_its_place_is_still_there(self, host: Host) -> None:
        gone = lost(host, run(host, ["sh", "-c", "echo 'no memory' >&2; kill -KILL $$"]), "the load")
        assert gone is not None
        assert gone.message == "The program was killed during the load. no memory"
        assert (isinstance(gone, ContainerLost), "docker" in gone.remedy) == (host.kind == "docker", False)
        assert lost(host, run(host, ["sh", "-c", "exit 3"]), "the load") is None

    def test_output_and_errors_are_kept_apart(self, host: Host) -> None:
        output = bytearray()
        ended = run(host, ["sh", "-c", "echo out; echo 'è andata' >&2; echo more"], sink=output.extend)
        assert (bytes(output), ended) == (b"out\nmore\n", Exit(0, "è andata\n"))

    def test_stderr_is_its_last_64_kib(self, host: Host) -> None:
        ended = run(host, ["sh", "-c", r"seq 1 100000 >&2; printf '\377 the end' >&2"])
        assert ended.stderr.endswith("99999\n100000\n� the end")
        assert len(ended.stderr) == 64 << 10

    def test_200_mb_arrive_whole_and_in_flat_memory(self, host: Host) -> None:
        oracle = output_of(host, "sh", "-c", "seq 1 24000000 | sha256sum").split()[0]
        digest, size = hashlib.sha256(), 0

        def sink(chunk: bytes) -> None:
            nonlocal size
            digest.update(chunk)
            size += len(chunk)
            if size < 20 * MEGABYTE:
                time.sleep(0.01)  # slower than the program, so that whatever can pile up does

        tracemalloc.start()
        try:
            ended = run(host, ["seq", "1", "24000000"], sink=sink)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert ended.code == 0
        assert size > 200_000_000
        assert digest.hexdigest() == oracle
        assert peak < 20 * MEGABYTE

    def test_200_mb_in_and_out_at_once(self, host: Host) -> None:
        block = secrets.token_bytes(MEGABYTE - 8)
        sent, received = hashlib.sha256(), hashlib.sha256()

        def source() -> Iterator[bytes]:
            for number in range(200):
                chunk = number.to_bytes(8, "big") + block
                sent.update(chunk)
                yield chunk
                yield b""

        assert run(host, ["cat"], source=source(), sink=received.update).code == 0
        assert received.digest() == sent.digest()

    def test_a_program_may_end_before_it_has_read_its_input(self, host: Host) -> None:
        def endless() -> Iterator[bytes]:
            while True:
                yield bytes(MEGABYTE)

        assert run(host, ["sh", "-c", "head -c 10 >/dev/null; exit 4"], source=endless()).code == 4

    def test_a_program_may_close_its_output_before_it_has_read_its_input(self, host: Host, marker: str) -> None:
        def slow() -> Iterator[bytes]:
            for _ in range(5):
                time.sleep(0.2)
                yield b"x" * 1000

        ended = run(host, ["sh", "-c", f"exec >&- 2>&-; cat > /tmp/{marker}"], source=slow())
        assert ended.code == 0
        assert output_of(host, "wc", "-c", f"/tmp/{marker}").split()[0] == "5000"
        run(host, ["rm", f"/tmp/{marker}"])

    def test_environment_reaches_the_program_but_not_its_arguments(self, host: Host, marker: str) -> None:
        started = host.start(["sh", "-c", "echo $TOKEN; sleep 60"], env={"TOKEN": marker})
        assert started.read(10) == marker.encode() + b"\n"
        assert running(host, marker) == []
        started.kill()
        started.wait()

    def test_a_silent_program_makes_read_time_out(self, host: Host) -> None:
        started = host.start(["sh", "-c", "read line; echo got $line"], stdin=True)
        assert started.read(0.3) is None
        started.write(b"it\n")
        assert started.read(10) == b"got it\n"
        assert [started.read(10), started.read(10)] == [b"", b""]
        assert started.wait() == started.wait() == Exit(0, "")
        with pytest.raises(BrokenPipeError):
            started.write(bytes(MEGABYTE))
        started.kill()

    def test_nothing_is_started_after_cancellation(self, host: Host, marker: str) -> None:
        progress = Progress()
        progress.cancel()
        with pytest.raises(Cancelled):
            run(host, ["touch", f"/tmp/{marker}"], progress=progress)
        assert not exists(host, f"/tmp/{marker}")


class TestKill:
    def test_a_failing_sink_ends_the_program(self, host: Host, marker: str) -> None:
        def full(chunk: bytes) -> None:
            raise OSError(28, "No space left on device")

        with pytest.raises(OSError, match="No space left"):
            run(host, ["sh", "-c", "while :; do echo data; done", marker], sink=full)
        assert running(host, marker) == []

    def test_a_failing_source_is_no_end_of_input(self, host: Host, marker: str) -> None:
        """The program acts on the end of its input, as `psql --single-transaction` commits."""
        argv = ["sh", "-c", f"cat >/dev/null && touch /tmp/{marker}", marker]

        def broken() -> Iterator[bytes]:
            yield b"one"
            raise ValueError("the file is damaged")

        with pytest.raises(ValueError, match="damaged"):
            run(host, argv, source=broken())
        assert eventually(lambda: running(host, marker) == [])
        assert not exists(host, f"/tmp/{marker}")
        assert run(host, argv, source=[b"one"]).code == 0
        assert exists(host, f"/tmp/{marker}")
        run(host, ["rm", f"/tmp/{marker}"])

    def test_a_sink_that_fails_while_input_flows_is_no_end_of_input(self, host: Host, marker: str) -> None:
        def source() -> Iterator[bytes]:
            for _ in range(20):
                time.sleep(0.1)
                yield b"x" * 1000

        def interrupted(chunk: bytes) -> None:
            raise KeyboardInterrupt

        program = f"trap '' TERM; cat && touch /tmp/{marker}"  # takes TERM for nothing: its input goes on to its KILL
        with pytest.raises(KeyboardInterrupt):
            run(host, ["sh", "-c", program, marker], source=source(), sink=interrupted)
        assert eventually(lambda: running(host, marker) == [])
        assert not exists(host, f"/tmp/{marker}")

    def test_cancellation_while_the_program_is_silent(self, host: Host, marker: str) -> None:
        progress = Progress()
        moments: list[float] = []

        def cancel(chunk: bytes) -> None:
            moments.append(time.monotonic())
            threading.Timer(0.7, progress.cancel).start()

        with pytest.raises(Cancelled):
            run(host, ["sh", "-c", "echo begun; sleep 600; :", marker], sink=cancel, progress=progress)
        assert time.monotonic() - moments[0] < 10
        assert running(host, marker) == []

    def test_a_program_that_ignores_term_is_killed(self, host: Host, marker: str) -> None:
        started = host.start(["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done", marker])
        assert started.read(60) == b"deaf\n"
        started.kill()
        assert running(host, marker) == []
        assert started.wait().code == 137

    def test_every_program_of_a_pipeline_ends(self, host: Host, marker: str) -> None:
        script = f"(sh -c 'sleep 600; :' {marker}; :) | cat | sh -c 'cat; sleep 600' {marker}"
        started = host.start(["sh", "-c", script])
        assert eventually(lambda: len(running(host, marker)) >= 3)
        started.kill()
        assert started.wait().code not in (0, None)
        assert eventually(lambda: running(host, marker) == [])

    def test_a_killed_pipeline_is_no_end_of_input(self, host: Host, marker: str) -> None:
        """As with `zstd -dc | psql --single-transaction`: the last must not take the first's death for the end.

        The crowd between them makes the time between their signals long enough to see.
        """
        pipe, committed = f"/tmp/{marker}.pipe", f"/tmp/{marker}"
        script = (
            f"mkfifo {pipe}; sleep 600 > {pipe} & for i in $(seq 150); do sleep 600 & done; "
            f"sh -c 'echo begun; read line || : > {committed}' < {pipe} & wait"
        )
        started = host.start(["sh", "-c", script])
        assert started.read(10) == b"begun\n"
        started.kill()
        started.wait()
        assert not exists(host, committed)
        run(host, ["rm", pipe])

    def test_at_once_after_the_start_and_from_two_threads(self, host: Host, marker: str) -> None:
        started = host.start(["sh", "-c", "sleep 600 && :", marker])
        other = threading.Thread(target=started.kill)
        other.start()
        started.kill()
        assert running(host, marker) == []
        other.join()
        assert started.wait().code == 143


class TestPlaces:
    def test_free_bytes(self, host: Host) -> None:
        free = host.free_bytes("/tmp")
        assert free is not None
        told = int(output_of(host, "df", "-Pk", "/tmp").splitlines()[-1].split()[3]) * 1024
        assert abs(free - told) < 1 << 30
        assert host.free_bytes("/no such directory") is None

    def test_missing_program(self, host: Host) -> None:
        if host.kind == "local":
            with pytest.raises(ProgramMissing, match="pg_nothing"):
                run(host, ["pg_nothing"])
        else:
            ended = run(host, ["pg_nothing"])
            assert ended.code == 127
            assert "pg_nothing: not found" in str(missing_program(["pg_nothing"], ended))
        assert missing_program(["sh"], run(host, ["sh", "-c", "exit 1"])) is None


class TestLocal:
    def test_our_own_pg_variables_do_not_leak(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PGHOST", "elsewhere.example")
        monkeypatch.setenv("PGOPTIONS", "-c search_path=x")
        host = LocalHost(None, {"PGUSER": "postgres", "PGDATABASE": "letta"})
        names = [line for line in output_of(host, "env", PGDATABASE="other").splitlines() if line.startswith("PG")]
        assert sorted(names) == ["PGDATABASE=other", "PGUSER=postgres"]

    def test_programs_come_from_the_bin_directory_only(self, tmp_path: Path) -> None:
        (tmp_path / "psql").write_text("#!/bin/sh\necho mine\n")
        host = LocalHost(tmp_path, {})
        with pytest.raises(ProgramMissing):
            run(host, ["psql"])  # not executable yet
        (tmp_path / "psql").chmod(0o755)
        assert output_of(host, "psql") == "mine\n"
        with pytest.raises(ProgramMissing, match=str(tmp_path)):
            run(host, ["cat"])

    @pytest.mark.parametrize(
        ("settings", "here"),
        [
            ({}, True),
            ({"PGHOST": "/var/run/postgresql"}, True),
            ({"PGHOST": "localhost"}, True),
            ({"PGHOST": "::1"}, True),
            ({"PGHOST": "db.example"}, False),
            ({"PGHOST": "localhost", "PGHOSTADDR": "192.0.2.1"}, False),
        ],
    )
    def test_free_bytes_only_of_this_machine(self, settings: dict[str, str], here: bool, tmp_path: Path) -> None:
        assert (LocalHost(None, settings).free_bytes(str(tmp_path)) is not None) is here

    def test_ctrl_c_reaches_no_program_not_even_one_that_is_just_being_started(self) -> None:
        done = subprocess.run(
            [sys.executable, "-c", STARTS_UNDER_CTRL_C], stdout=subprocess.PIPE, timeout=60, process_group=0, check=True
        )
        assert done.stdout.split() == [b"0"] * 400

    def test_there_are_no_containers(self) -> None:
        host = LocalHost(None, {})
        assert host.dependents() == []
        assert host.require_running() == host.container_info()
        with pytest.raises(HostError):
            host.stop_container("x")
        with pytest.raises(HostError):
            host.start_container("x")


class TestContainer:
    def test_place(self, docker: Any, make_container: Callable[..., str]) -> None:
        project = f"p{secrets.token_hex(4)}"
        volume = f"hosts-test-{secrets.token_hex(4)}"
        labels = {
            "com.docker.compose.project": project,
            "com.docker.compose.service": "postgres",
            "com.docker.compose.oneoff": "False",
            "com.docker.compose.project.working_dir": r"C:\scarlet",
        }
        name = make_container(
            labels=labels,
            environment={"PGDATA": "/data/db/pgdata", "POSTGRES_PASSWORD": "very=secret"},
            volumes=["/data", "/data/db"],
            host_config=docker.create_host_config(binds=[f"{volume}:/data/db"]),
        )
        try:
            host = DockerHost("no-such-name", "postgres", project)
            container_info = host.require_running()
            assert (container_info.container, container_info.state, container_info.project, container_info.service) == (
                name,
                "running",
                project,
                "postgres",
            )
            assert (container_info.volume, container_info.working_dir, container_info.engine_local) == (
                volume,
                r"C:\scarlet",
                True,
            )
            assert container_info.environment["POSTGRES_PASSWORD"] == "very=secret"
            assert "secret" not in repr(container_info)
            assert (container_info.image, container_info.image_id) == (IMAGE, docker.inspect_image(IMAGE)["Id"])
            assert container_info.health is None
            host.close()
        finally:
            docker.remove_container(name, force=True, v=True)
            docker.remove_volume(volume)

    def test_several_of_one_service_are_refused(self, make_container: Callable[..., str]) -> None:
        project = f"p{secrets.token_hex(4)}"
        labels = {
            "com.docker.compose.project": project,
            "com.docker.compose.service": "postgres",
            "com.docker.compose.oneoff": "False",
        }
        name = make_container(labels=labels)
        make_container(labels=labels | {"com.docker.compose.oneoff": "True"})
        assert DockerHost("", "postgres", project).container_info().container == name
        second = make_container(labels=labels, start=False)
        with pytest.raises(ContainerAmbiguous) as refused:
            DockerHost("no-such-name", "postgres", project).container_info()
        assert f"{name} (running)" in refused.value.message
        assert f"{second} (created)" in refused.value.message

    def test_labels_that_are_named_beside_a_name_have_to_be_its(self, make_container: Callable[..., str]) -> None:
        project = f"p{secrets.token_hex(4)}"
        name = make_container(labels={"com.docker.compose.project": project, "com.docker.compose.service": "db"})
        assert DockerHost(name, project=project, stand_in=False).container_info().container == name
        for wrong in ({"project": "another"}, {"project": project, "service": "postgres"}):
            with pytest.raises(ContainerMissing, match=f"{name}.*(project|service)"):
                DockerHost(name, **wrong, stand_in=False).container_info()
        with pytest.raises(ContainerMissing, match=f"There are: .*{name}"):
            DockerHost(f"{name}x", "db", project, stand_in=False).container_info()

    def test_the_beginning_of_an_id_is_no_name(self, docker: Any, container: str) -> None:
        number = docker.inspect_container(container)["Id"]
        with pytest.raises(ContainerMissing, match=number[:6]):
            DockerHost(number[:6], "postgres", "none").container_info()
        assert DockerHost(number[:12], "postgres", "none").container_info().container_id == number

    def test_missing(self, docker: Any) -> None:
        host = DockerHost("hosts-test-nothing", "postgres", "nowhere")
        for call in (host.container_info, host.require_running, host.dependents, lambda: host.start(["true"])):
            with pytest.raises(ContainerMissing, match=r"hosts-test-nothing.*nowhere.*postgres"):
                call()
        assert host.free_bytes("/") is None

    def test_states(self, docker: Any, box: str) -> None:
        host = DockerHost(box, "postgres", "none")
        assert run(host, ["true"]).code == 0
        docker.pause(box)
        assert host.container_info().state == "paused"
        for call in (host.require_running, lambda: host.start(["true"])):
            with pytest.raises(ContainerPaused, match=box):
                call()
        docker.unpause(box)
        docker.kill(box)
        docker.wait(box)
        assert host.container_info().state == "exited"
        for call in (host.require_running, lambda: host.start(["true"])):
            with pytest.raises(ContainerNotRunning, match="exited with code 137"):
                call()
        docker.remove_container(box, v=True)
        with pytest.raises(ContainerMissing, match="is gone"):
            host.start(["true"])

    def test_restarting_is_not_running(self, docker: Any, make_container: Callable[..., str]) -> None:
        policy = docker.create_host_config(restart_policy={"Name": "always"})
        name = make_container(entrypoint=["false"], host_config=policy)
        with pytest.raises(ContainerNotRunning, match="restarting"):  # between restarts it runs for a moment
            eventually(lambda: DockerHost(name, "postgres", "none").require_running().state == "exited")

    def test_start_and_stop(self, docker: Any, make_container: Callable[..., str]) -> None:
        name = make_container(start=False, stop_signal="SIGKILL")
        host = DockerHost(name, "postgres", "none")
        number = host.container_info().container_id or ""
        host.start_container(number)
        assert host.container_info().state == "running"
        host.stop_container(number)
        assert host.container_info().state == "exited"
        with pytest.raises(HostError, match=r"stop the container no-such: No such container"):
            host.stop_container("no-such")

    def test_dependents(self, docker: Any, make_container: Callable[..., str]) -> None:
        project = f"p{secrets.token_hex(4)}"

        def make(service: str, depends_on: str, start: bool = False, oneoff: str = "False", of: str = project) -> str:
            labels = {"project": of, "service": service, "oneoff": oneoff, "depends_on": depends_on}
            return make_container(start=start, labels={f"com.docker.compose.{key}": labels[key] for key in labels})

        database = make("postgres", "", start=True)
        both = make("letta", "redis:service_started:true,postgres:service_healthy:false", start=True)
        plain = make("panel", "postgres:service_started:false")
        make("other", "postgres2:service_started:false,my-postgres:service_started:false")
        make("migrate", "postgres:service_healthy:false", oneoff="True")
        make("letta", "postgres:service_healthy:false", of=f"{project}2")
        found = {item.name: item for item in DockerHost(database, "postgres", "none").dependents()}
        assert found.keys() == {both, plain}
        assert (found[both].service, found[both].running) == ("letta", True)
        assert (found[plain].service, found[plain].running) == ("panel", False)
        assert found[both].id == docker.inspect_container(both)["Id"]

    def test_no_dependents_without_compose(self, container: str) -> None:
        assert DockerHost(container, "postgres", "none").dependents() == []


class TestContainerEndsDuringARun:
    @pytest.mark.parametrize("way", ["stop", "kill", "restart"])
    def test_stopped(self, docker: Any, box: str, way: str) -> None:
        host = DockerHost(box, "postgres", "none")
        options = {} if way == "kill" else {"timeout": 0}
        begun = threading.Event()
        with ThreadPoolExecutor() as pool:
            ended = pool.submit(run, host, ["sh", "-c", "echo begun; sleep 600"], sink=lambda chunk: begun.set())
            assert begun.wait(20)
            getattr(docker, way)(box, **options)
            assert ended.result(20).code in (137, None)

    def test_removed(self, docker: Any, box: str) -> None:
        host = DockerHost(box, "postgres", "none")
        started = host.start(["sh", "-c", "echo begun; sleep 600"])
        assert started.read(10) == b"begun\n"
        docker.remove_container(box, force=True, v=True)
        assert started.read(15) == b""
        started.kill()
        assert started.wait().code in (137, None)

    def test_paused_and_cancelled_is_no_end_of_input(self, docker: Any, box: str, marker: str) -> None:
        host = DockerHost(box, "postgres", "none")
        progress = Progress()
        argv = ["sh", "-c", f"echo begun; cat >/dev/null && touch /tmp/{marker}", marker]
        begun = threading.Event()

        def endless() -> Iterator[bytes]:
            while True:
                time.sleep(0.05)
                yield bytes(MEGABYTE)

        with ThreadPoolExecutor() as pool:
            ended = pool.submit(run, host, argv, source=endless(), sink=lambda chunk: begun.set(), progress=progress)
            assert begun.wait(20)
            docker.pause(box)
            time.sleep(0.5)
            progress.cancel()
            with pytest.raises(Cancelled):
                ended.result(30)
        docker.unpause(box)
        assert eventually(lambda: running(host, marker) == [])
        assert not exists(host, f"/tmp/{marker}")

    def test_paused_for_a_while(self, docker: Any, box: str) -> None:
        host = DockerHost(box, "postgres", "none")
        begun, output = threading.Event(), bytearray()

        def sink(chunk: bytes) -> None:
            output.extend(chunk)
            begun.set()

        with ThreadPoolExecutor() as pool:
            ended = pool.submit(run, host, ["sh", "-c", "echo begun; sleep 1; echo done"], sink=sink)
            assert begun.wait(20)
            docker.pause(box)
            time.sleep(2)
            docker.unpause(box)
            assert ended.result(20).code == 0
        assert output == b"begun\ndone\n"


@pytest.mark.long
def test_60_short_runs_beside_busy_threads_lose_nothing(container: str) -> None:
    """docker-py's own readers lose output here: https://github.com/docker/docker-py/issues/3332."""
    host = DockerHost(container, "postgres", "none")
    stop = threading.Event()

    def burn() -> None:
        while not stop.is_set():
            sum(range(1000))

    busy = [threading.Thread(target=burn, daemon=True) for _ in range(3)]
    for thread in busy:
        thread.start()

    def short(number: int) -> tuple[bytes, Exit]:
        output = bytearray()
        ended = run(host, ["sh", "-c", f"echo out {number}; echo err {number} >&2; exit {number}"], sink=output.extend)
        return bytes(output), ended

    try:
        with ThreadPoolExecutor(max_workers=6) as pool:
            results = list(pool.map(short, range(60)))
    finally:
        stop.set()
    assert results == [(f"out {n}\n".encode(), Exit(n, f"err {n}\n")) for n in range(60)]


def test_without_a_shell_the_runtimes_words_are_the_errors(docker: Any, box: str) -> None:
    host = DockerHost(box, "postgres", "none")
    assert run(host, ["rm", "/usr/bin/sh"]).code == 0
    output = bytearray()
    ended = run(host, ["true"], sink=output.extend)
    assert ended.code in (126, 127)
    assert '"sh"' in str(missing_program(["true"], ended))
    assert not output


def test_a_killed_pipeline_is_no_crashed_backend(docker: Any, make_container: Callable[..., str]) -> None:
    """The postmaster is process 1 there: orphans that die of a signal would make it throw all sessions out."""
    host = DockerHost(make_container(entrypoint=None, environment={"POSTGRES_PASSWORD": "x"}), "postgres", "none")
    ask = ("psql", "-XAtq", "-h", "127.0.0.1", "-U", "postgres", "-c")
    assert eventually(lambda: run(host, [*ask, "select 1"], env={"PGPASSWORD": "x"}).code == 0, 60)
    bystander = host.start([*ask, "select pg_sleep(600)"], env={"PGPASSWORD": "x"})
    for script in ("sleep 600 | (sleep 600; :) | cat", "trap '' TERM; sleep 600 | cat; sleep 600"):
        pipeline = host.start(["sh", "-c", script])
        assert pipeline.read(1) is None
        pipeline.kill()
        assert pipeline.wait().code not in (0, None)
    sessions = "select count(*) from pg_stat_activity where query like 'select pg_sleep%'"
    assert output_of(host, *ask, sessions, PGPASSWORD="x") == "1\n"
    assert bystander.read(0.1) is None
    bystander.kill()
    bystander.wait()


class TestEngine:
    @pytest.mark.parametrize("names", [None, []])
    def test_a_container_without_a_name_is_called_by_its_id(self, names: list[str] | None) -> None:
        """The engine lists one so while it removes it; no test can tell that moment."""
        assert container_name({"Id": "9f2c", "Names": names}) == "9f2c"
        assert container_name({"Id": "9f2c", "Names": ["/postgres"]}) == "postgres"

    def test_unreachable(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        address = f"unix://{tmp_path}/dead.sock"
        monkeypatch.setenv("DOCKER_HOST", address)
        host = DockerHost("x", "postgres", "none")
        for call in (host.container_info, host.require_running, host.dependents, lambda: host.start(["true"])):
            with pytest.raises(EngineUnreachable, match=address):
                call()
        assert host.free_bytes("/") is None

    @pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense://x", "npipe:////./pipe/docker_engine"])
    def test_no_engine_there(self, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
        monkeypatch.setenv("DOCKER_HOST", address)
        with pytest.raises(EngineUnreachable, match=address.replace(".", r"\.")):
            DockerHost("x", "postgres", "none").container_info()

    def test_missing_certificates(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
        monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
        monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
        with pytest.raises(EngineUnreachable, match="certificate"):
            DockerHost("x", "postgres", "none").container_info()

    @pytest.mark.parametrize(
        ("address", "local"),
        [
            ("unix:///var/run/docker.sock", True),
            ("npipe:////./pipe/dockerDesktopLinuxEngine", True),
            ("tcp://localhost:2375", True),
            ("tcp://127.0.0.1:2375", True),
            ("http://[::1]:2375", True),
            ("tcp://192.0.2.1:2376", False),
            ("ssh://me@localhost", False),
        ],
    )
    def test_local_or_not(self, address: str, local: bool) -> None:
        assert Endpoint(address).local is local

    def test_a_context_is_followed(
        self, docker: Any, container: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        real = find_endpoint(os.environ).address
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        monkeypatch.delenv("DOCKER_HOST", raising=False)
        add_context(tmp_path, "desktop-linux", real)
        add_context(tmp_path, "dead", "unix:///nowhere/dead.sock")
        monkeypatch.setenv("DOCKER_CONTEXT", "desktop-linux")
        assert DockerHost(container, "postgres", "none").container_info().container == container
        (tmp_path / "config.json").write_text(json.dumps({"currentContext": "dead"}))
        assert DockerHost(container, "postgres", "none").container_info().container == container
        monkeypatch.delenv("DOCKER_CONTEXT")
        with pytest.raises(EngineUnreachable, match=r"unix:///nowhere/dead\.sock"):
            DockerHost(container, "postgres", "none").container_info()
        monkeypatch.setenv("DOCKER_HOST", real)
        assert DockerHost(container, "postgres", "none").container_info().container == container

    def test_which_endpoint(self, tmp_path: Path) -> None:
        settings = {"DOCKER_CONFIG": str(tmp_path)}
        assert find_endpoint(settings) == Endpoint(DEFAULT_ADDRESS)
        add_context(tmp_path, "remote", "tcp://192.0.2.1:2376")
        certificates = tmp_path / "contexts/tls" / hashlib.sha256(b"remote").hexdigest() / "docker"
        certificates.mkdir(parents=True)
        assert find_endpoint(settings | {"DOCKER_CONTEXT": "remote"}) == Endpoint("tcp://192.0.2.1:2376", certificates)
        assert find_endpoint(settings | {"DOCKER_CONTEXT": "default"}) == Endpoint(DEFAULT_ADDRESS)
        with_host = settings | {"DOCKER_HOST": "tcp://h:1", "DOCKER_CONTEXT": "remote"}
        assert find_endpoint(with_host) == Endpoint("tcp://h:1", verify=False)
        assert find_endpoint(with_host | {"DOCKER_TLS_VERIFY": "1"}) == Endpoint("tcp://h:1", tmp_path)

    @pytest.mark.parametrize("broken", ["{", "[]", '{"currentContext": "gone"}'])
    def test_broken_settings_never_lead_to_another_engine(self, broken: str, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(broken)
        with pytest.raises(EngineUnreachable, match=str(tmp_path)):
            find_endpoint({"DOCKER_CONFIG": str(tmp_path)})

    def test_over_ssh(self, docker: Any, container: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """The ssh program is a stand-in that runs the far side's command here; everything else is real."""
        pytest.importorskip("paramiko", reason="docker-py wants paramiko for ssh, even with the ssh program")
        if shutil.which("docker") is None:
            pytest.skip("the far side needs the docker program")
        (tmp_path / "ssh").write_text("#!/bin/sh\nunset DOCKER_HOST\nexec docker system dial-stdio\n")
        (tmp_path / "ssh").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setenv("DOCKER_HOST", "ssh://me@far.example")
        host = DockerHost(container, "postgres", "none")
        assert host.container_info().engine_local is False
        digest = hashlib.sha256()
        chunks = [secrets.token_bytes(MEGABYTE) for _ in range(5)]
        assert run(host, ["cat"], source=chunks, sink=digest.update).code == 0
        assert digest.digest() == hashlib.sha256(b"".join(chunks)).digest()
        started = host.start(["cat"], stdin=True)
        started.kill()
        assert started.wait().code == 143
        host.close()


def add_context(configuration: Path, name: str, address: str) -> None:
    """As `docker context create NAME --docker host=ADDRESS` writes it."""
    directory = configuration / "contexts/meta" / hashlib.sha256(name.encode()).hexdigest()
    directory.mkdir(parents=True)
    endpoint = {"Host": address, "SkipTLSVerify": False}
    (directory / "meta.json").write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}))
