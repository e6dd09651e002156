"""Which container is meant if no setting names one, and what its command says of its server."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

import pytest

from scarlet_backup_mcp.errors import ContainerMissing, SeveralCandidates
from scarlet_backup_mcp.hosts.docker.candidates import data_directory, server_options
from scarlet_backup_mcp.hosts.docker.container import DockerHost
from scarlet_backup_mcp.hosts.docker.labels import DRILL, HELPER, ONEOFF, PROJECT, SERVICE

from ..helpers.hosts import IMAGE

ENTRY = "docker-entrypoint.sh"
SERVER: dict[str, Any] = {"entrypoint": [ENTRY], "start": False}
Maker = Callable[..., str]


def inspected(*command: str, **environment: str) -> dict[str, Any]:
    env = [f"{name}={value}" for name, value in environment.items()]
    return {"Path": command[0], "Args": list(command[1:]), "Config": {"Env": env}}


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ((ENTRY, "postgres"), {}),
        ((ENTRY, "postgres", "-p", "5433"), {"port": "5433"}),
        ((ENTRY, "-p5433", "-c", "fsync=off"), {"port": "5433", "fsync": "off"}),
        ((ENTRY, "postgres", "-cport=5433", "-c", "port=5434"), {"port": "5434"}),
        ((ENTRY, "postgres", "--port=5433", "--max-connections=9"), {"port": "5433", "max_connections": "9"}),
        (("/usr/lib/postgresql/15/bin/postgres", "-D", "/data"), {"data_directory": "/data"}),
        (("tini", "--", ENTRY, "postgres", "-k", "/run/a,/run/b"), {"unix_socket_directories": "/run/a,/run/b"}),
        (("sh", "-c", "chown x y; exec docker-entrypoint.sh postgres -c port=5433"), {"port": "5433"}),
        (("gosu", "postgres", "postgres", "-p", "5433"), {"port": "5433"}),
        ((ENTRY, "bash", "-c", "pg_dump -U postgres -p 5433"), {}),
        (("pg_dump", "-U", "postgres", "-p", "5433"), {}),
        (("sh", "-c", "echo 'no end"), {}),
        ((ENTRY, "postgres", "-p"), {"port": ""}),
    ],
)
def test_the_options_of_a_server(command: tuple[str, ...], options: dict[str, str]) -> None:
    assert server_options(inspected(*command)) == options


def test_the_data_directory_is_the_commands_then_the_environments() -> None:
    assert data_directory(inspected(ENTRY, "postgres", "-D", "/a", PGDATA="/b")) == "/a"
    assert data_directory(inspected(ENTRY, "postgres", PGDATA="/b")) == "/b"
    assert data_directory(inspected(ENTRY, "postgres")) == "/var/lib/postgresql/data"


@pytest.fixture
def project() -> str:
    return f"p{secrets.token_hex(4)}"


def host(project: str, **labels: str) -> DockerHost:
    """As if nothing were named, on an engine with the containers of that project alone."""
    return DockerHost("no-such-name", "postgres", "no-such-project", else_with={PROJECT: project, **labels})


def test_the_only_one_that_runs_postgresql_is_meant(make_container: Maker, project: str) -> None:
    of_project = {PROJECT: project, SERVICE: "letta_db"}
    name = make_container("postgres", labels=of_project, **SERVER)
    make_container("sh", "-c", "pg_dump -U postgres", labels={PROJECT: project, SERVICE: "saver"}, **SERVER)
    make_container("postgres", labels=of_project | {ONEOFF: "True"}, **SERVER)
    make_container("postgres", labels=of_project | {DRILL: "us"}, **SERVER)
    make_container("postgres", labels=of_project | {HELPER: "us"}, **SERVER)
    found = host(project)
    info = found.container_info()
    assert (info.container, info.only_candidate) == (name, True)
    second = make_container("postgres", labels={PROJECT: project, SERVICE: "other"}, **SERVER)
    assert found.container_info().container == name
    with pytest.raises(SeveralCandidates) as refused:
        host(project).container_info()
    assert sorted(refused.value.message.splitlines()[1:]) == sorted(
        f"SCARLET_BACKUP_CONTAINER={each}  # created, {IMAGE}, Compose project {project}, service {service}"
        for each, service in ((name, "letta_db"), (second, "other"))
    )
    assert host(project, **{SERVICE: "other"}).container_info().container == second


def test_a_script_that_starts_a_server_counts_once_there_is_a_cluster(make_container: Maker, project: str) -> None:
    """Letta's image with everything in it starts PostgreSQL from a script, unless it is told to use another server."""
    script = ("sh", "-c", "docker-entrypoint.sh postgres & exec sleep 600")
    name = make_container(*script, labels={PROJECT: project}, entrypoint=[ENTRY], environment=["POSTGRES_PASSWORD=x"])
    make_container("sleep", "600", labels={PROJECT: project}, entrypoint=[ENTRY])
    for _ in range(600):
        try:
            assert host(project).container_info().container == name
            break
        except ContainerMissing:
            time.sleep(0.1)
    else:
        pytest.fail("no cluster was found")


def test_what_was_named_has_no_stand_in(make_container: Maker, project: str) -> None:
    name = make_container("postgres", labels={PROJECT: project}, **SERVER)
    with pytest.raises(ContainerMissing, match=f"There are: .*{name}"):
        DockerHost(f"{name}x", stand_in=False).container_info()
    with pytest.raises(ContainerMissing, match="no other one that runs PostgreSQL"):
        DockerHost("", "postgres", project, else_with={SERVICE: f"{name}x"}).container_info()
