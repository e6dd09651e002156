"""Podman's answers where they differ from Docker's, from a stand-in that gives those that Podman 4.3.1 gave."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scarlet_backup_mcp.hosts.docker.container import DockerHost
from scarlet_backup_mcp.hosts.docker.engine import Endpoint, Engine

from ..helpers.engine_front import Front, Reply

INFO = {"Name": "vm", "DockerRootDir": "/var/lib/containers/storage", "BuildahVersion": "1.28.2"}
STATES = {"configured": "created", "initialized": "created", "stopped": "exited", "stopping": "running"}


def container(state: str) -> dict[str, object]:
    return {"Id": state, "Names": [f"/{state}"], "State": state, "Mounts": [], "Labels": {}}


class Podman:
    """Answers like it. `answers` counts its answers, for the id that it makes up."""

    def __init__(self) -> None:
        self.answers = 0

    def __call__(self, method: str, target: str) -> Reply:
        self.answers += 1
        path, _, query = target.partition("?")
        if path.endswith("/version"):
            return Reply.json({"ApiVersion": "1.41"})
        if path.endswith("/info"):
            return Reply.json(INFO | {"ID": str(self.answers)})
        if path.endswith("/containers/json"):
            if "restarting" in query:
                return Reply.json({"message": "unknown container state: restarting: invalid argument"}, 500)
            return Reply.json([container(state) for state in (*STATES, "running", "paused", "exited")])
        state, health = path.split("/")[-2], {"Status": "", "FailingStreak": 0, "Log": None}
        found: dict[str, object] = {
            "Id": state,
            "Name": f"/{state}",
            "Image": "sha256:1",
            "Mounts": [],
            "HostConfig": {},
        }
        found |= {"Config": {"Image": "postgres"}, "State": {"Status": state, "StartedAt": "", "Health": health}}
        return Reply.json(found)


@pytest.fixture
def front() -> Iterator[Front]:
    with Front(Podman()) as made:
        yield made


def test_containers_that_run_are_told_by_their_states(front: Front) -> None:
    engine = Engine(Endpoint(front.address))
    assert [found["Id"] for found in engine.containers_running()] == ["stopping", "running", "paused"]


@pytest.mark.parametrize(("podmans", "dockers"), STATES.items())
def test_a_state_has_dockers_name(front: Front, monkeypatch: pytest.MonkeyPatch, podmans: str, dockers: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", front.address)
    host = DockerHost(podmans)
    info = host.container_info()
    assert (info.state, info.health) == (dockers, None)
    host.close()


def test_its_id_stays_the_same(front: Front) -> None:
    first, second = (Engine(Endpoint(front.address)).id() for _ in range(2))
    assert first == second == "Podman on vm in /var/lib/containers/storage"
