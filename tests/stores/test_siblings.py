"""Which containers of a Compose project are stores, and where they keep their data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import ConfigurationError
from scarlet_backup_mcp.hosts.docker.container import DockerHost
from scarlet_backup_mcp.settings import load_settings
from scarlet_backup_mcp.stores.choice import Choice, Named, choice_of
from scarlet_backup_mcp.stores.images import store_in, version_of
from scarlet_backup_mcp.stores.siblings import bytes_of, siblings

from ..conftest import IMAGE, require_image
from ..helpers.containers import run_docker
from ..helpers.memory import REDIS, Project, project


@pytest.mark.parametrize(
    ("image", "store", "version"),
    [
        ("qdrant/qdrant", "qdrant", None),
        ("qdrant/qdrant:v1.12.4", "qdrant", "v1.12.4"),
        ("redis", "redis", None),
        ("redis:7-alpine", "redis", "7-alpine"),
        ("mirror.lan:5000/library/redis:7", "redis", "7"),
        ("mirror.lan:5000/redis", "redis", None),
        ("valkey/valkey:8@sha256:0123", "valkey", "8"),
        ("redis@sha256:0123", "redis", None),
        ("oliver006/redis_exporter:v1", None, "v1"),
        ("redis/other:7", None, "7"),
        ("sha256:0123456789", None, "0123456789"),
        ("", None, None),
    ],
)
def test_images(image: str, store: str | None, version: str | None) -> None:
    assert store_in(image) == store
    assert version_of(image, {}) == version
    assert version_of(image, {"org.opencontainers.image.version": "1.2"}) == "1.2"


def test_the_setting() -> None:
    assert choice_of(None) == choice_of(" , ") == Choice()
    assert choice_of("files:/var/lib/files, graph,-redis") == Choice(
        (Named("files", "/var/lib/files"), Named("graph")), frozenset({"redis"})
    )


@pytest.mark.parametrize("wrong", ["files:data", "-redis:/data", "two words", ":/data", "files:"])
def test_a_wrong_setting_is_refused_at_the_start(wrong: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(stores=wrong)
    assert "SCARLET_BACKUP_STORES" in caught.value.message


@pytest.fixture
def made(require_docker: None) -> Iterator[Project]:
    """A project whose database is a container that only has its labels."""
    require_image(REDIS)
    with project() as made:
        made.add("postgres", IMAGE, command=("sleep", "600"))
        yield made


def test_stores_of_a_project(made: Project, tmp_path: Path) -> None:
    made.add("redis", REDIS, "-v", f"{made.volume('redis')}:/data")
    made.add("cache", REDIS)
    made.add("memory", REDIS, "--tmpfs", "/data")
    made.add("elsewhere", REDIS, "-v", f"{made.volume('elsewhere')}:/var/redis", command=("sleep", "600"))
    made.add("files", IMAGE, "-v", f"{tmp_path}:/files", "-v", "/var/lib/postgresql/data", command=("sleep", "600"))
    made.add("graph", IMAGE, "-v", f"{made.volume('graph')}:/graph", command=("sleep", "600"))
    made.add("unnamed", IMAGE, "-v", f"{made.volume('graph')}:/graph", command=("sleep", "600"))
    run_docker("stop", "-t", "0", made.container("elsewhere"))
    database = DockerHost(made.container("postgres")).container_info()

    found = siblings(database, choice_of("files:/files/inside,graph,-other,lost"))
    stores = {store.service: store for store in found.stores}

    assert list(stores) == ["cache", "elsewhere", "files", "graph", "memory", "redis"]
    assert found.missing == ["lost", "other"]
    redis = stores["redis"]
    assert (redis.image, redis.version, redis.directory) == (REDIS, "7", "/data")
    assert (redis.place, redis.unsaved, redis.running) == (f"volume {made.volume('redis')}", "", True)
    assert "without a name" in stores["cache"].unsaved
    assert stores["memory"].mount is None
    assert "in memory" in stores["memory"].unsaved
    assert (stores["elsewhere"].place, stores["elsewhere"].running) == (f"volume {made.volume('elsewhere')}", False)
    assert (stores["files"].place, stores["files"].directory) == (f"directory {tmp_path}", "/files/inside")
    assert (stores["graph"].place, stores["graph"].directory) == (f"volume {made.volume('graph')}", "/graph")
    assert [store.service for store in siblings(database, choice_of("-redis,-cache,-memory")).stores] == ["elsewhere"]

    run_docker("exec", made.container("graph"), "sh", "-c", "head -c 3000000 /dev/zero > /graph/zeros")
    assert 3_000_000 <= (bytes_of(stores["graph"]) or 0) < 3_200_000
    assert bytes_of(stores["elsewhere"]) is None
    assert bytes_of(stores["files"]) is None


@pytest.mark.long
def test_other_projects_and_single_containers_have_none(made: Project) -> None:
    made.add("redis", REDIS, "-v", f"{made.volume('redis')}:/data")
    with project() as other:
        alone = other.add("postgres", IMAGE, command=("sleep", "600"))
        assert siblings(DockerHost(alone).container_info(), Choice()).stores == []
    database = DockerHost(made.container("postgres")).container_info()
    assert [store.container for store in siblings(database, Choice()).stores] == [made.container("redis")]
