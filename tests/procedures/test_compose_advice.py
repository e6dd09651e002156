"""What to run with Compose is said in the names of the container that was found."""

from __future__ import annotations

import pytest

from scarlet_backup_mcp.errors import ContainerMissing, ContainerNotRunning, ContainerPaused, ServerUnreachable
from scarlet_backup_mcp.hosts import ContainerInfo
from scarlet_backup_mcp.procedures.compose_advice import in_names_of

SCARLETS = ContainerInfo(kind="docker", container="abiogenesis-postgres", project="scarlet", service="postgres")
LETTAS = ContainerInfo(
    kind="docker", container="letta-letta_db-1", project="letta", service="letta_db", working_dir="/home/me/letta"
)
LONE = ContainerInfo(kind="docker", container="memory")


@pytest.mark.parametrize(
    ("info", "advice"),
    [
        (SCARLETS, ContainerPaused.default_remedy),
        (LETTAS, "Run `docker compose unpause letta_db` in /home/me/letta, then try again."),
        (LONE, "Run `docker unpause memory`, then try again."),
        (None, ContainerPaused.default_remedy),
        (ContainerInfo(kind="local"), ContainerPaused.default_remedy),
    ],
)
def test_the_service_is_the_found_one(info: ContainerInfo | None, advice: str) -> None:
    assert in_names_of(info, ContainerPaused.default_remedy) == advice


def test_every_command_of_a_remedy() -> None:
    found = in_names_of(LETTAS, ServerUnreachable.default_remedy)
    assert "`docker compose exec letta_db pg_isready`, `docker compose logs letta_db`" in found
    lone = in_names_of(LONE, ServerUnreachable.default_remedy)
    assert "`docker exec memory pg_isready`, `docker logs memory`" in lone
    assert "`docker start memory`" in in_names_of(LONE, ContainerNotRunning.default_remedy)
    assert "up -d letta_db`" in in_names_of(LETTAS, ContainerMissing.default_remedy)


def test_what_compose_alone_can_do_stays() -> None:
    advice = "Run `docker compose create postgres` in Scarlet's directory (or `up -d`), then restore again."
    assert in_names_of(LONE, advice) == advice
