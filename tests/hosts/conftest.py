"""Hosts that programs run on."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from scarlet_backup_mcp.hosts import Host
from scarlet_backup_mcp.hosts.docker.container import DockerHost
from scarlet_backup_mcp.hosts.docker.engine import find_endpoint
from scarlet_backup_mcp.hosts.local import LocalHost

from ..helpers.hosts import IMAGE, OURS


@pytest.fixture(scope="session")
def docker(require_docker: None) -> Iterator[Any]:
    """docker-py's client, for what the tests do to containers behind the back of the code."""
    from docker import APIClient  # pyright: ignore[reportMissingTypeStubs]

    client: Any = APIClient(find_endpoint(os.environ).address, version="auto")
    yield client
    client.close()


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
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
