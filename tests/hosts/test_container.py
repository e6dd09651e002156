"""Programs in a real container, and what the engine does to them."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from scarlet_backup_mcp.errors import (
    Cancelled,
    ContainerMissing,
    ContainerNotRunning,
    ContainerPaused,
    EngineUnreachable,
    HostError,
    SeveralCandidates,
)
from scarlet_backup_mcp.hosts import run
from scarlet_backup_mcp.hosts.docker.container import DockerHost
from scarlet_backup_mcp.hosts.docker.engine import DEFAULT_ADDRESS, Endpoint, container_name, find_endpoint
from scarlet_backup_mcp.progress import Progress

from ..helpers.hosts import IMAGE, MEGABYTE, eventually, exists, output_of, running

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uses sh and /proc as programs to run")


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
        with pytest.raises(SeveralCandidates) as refused:
            DockerHost("no-such-name", "postgres", project).container_info()
        of_both = f"{IMAGE}, Compose project {project}, service postgres"
        assert sorted(refused.value.message.splitlines()[1:]) == sorted(
            [
                f"SCARLET_BACKUP_CONTAINER={name}  # running, {of_both}",
                f"SCARLET_BACKUP_CONTAINER={second}  # created, {of_both}",
            ]
        )

    def test_labels_that_are_named_beside_a_name_have_to_be_its(self, make_container: Callable[..., str]) -> None:
        project = f"p{secrets.token_hex(4)}"
        name = make_container(labels={"com.docker.compose.project": project, "com.docker.compose.service": "db"})
        assert DockerHost(name, project=project, stand_in=False).container_info().container == name
        for wrong, service in (("another", ""), (project, "postgres")):
            with pytest.raises(ContainerMissing, match=f"{name}.*(project|service)"):
                DockerHost(name, service, wrong, stand_in=False).container_info()
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

    @pytest.mark.parametrize(
        ("usual", "found"),
        [
            ("/usr/local/bin:/usr/sbin:/usr/bin:/bin:/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/15/bin/psql"),
            ("/usr/sbin:/usr/bin:/bin", "/usr/bin/psql"),
        ],
    )
    def test_the_programs_themselves_come_before_debians_script(
        self, make_container: Callable[..., str], usual: str, found: str
    ) -> None:
        host = DockerHost(make_container(environment={"PATH": usual}))
        where = "command -v psql"
        assert output_of(host, "sh", "-c", where).strip() == found
        own = f"printf '#!/bin/sh\n' > /usr/local/bin/psql && chmod 755 /usr/local/bin/psql; {where}"
        assert output_of(host, "sh", "-c", own).startswith("/usr/local/" if "local" in usual else found)

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

    @pytest.mark.long
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
