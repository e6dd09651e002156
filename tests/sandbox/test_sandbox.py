"""The throw-away server has the live one's own limits, and begins with an empty cluster that is kept for it."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scarlet_backup_mcp.errors import Cancelled
from scarlet_backup_mcp.hosts.docker import seeds
from scarlet_backup_mcp.hosts.docker.engine import Engine, find_endpoint
from scarlet_backup_mcp.hosts.docker.resources import Resources, resources_of
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.prune import prune
from scarlet_backup_mcp.procedures.sandbox.lifecycle import SandboxServer, sandbox_server
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import Settings, load_settings

from ..conftest import IMAGE
from ..helpers.containers import QUICKLY, run_docker, run_docker_quietly
from ..helpers.drill import take

MEMORY_KB = 70_001 + 2 * secrets.randbelow(9999)
AGENTS = "CREATE TABLE agents (id int PRIMARY KEY, at date CHECK (at > '2000-01-01')); INSERT INTO agents VALUES (1)"


@pytest.fixture(scope="module")
def container(require_docker: None) -> Iterator[str]:
    """A server with limits of its own."""
    name = f"sandbox-test-{secrets.token_hex(4)}"
    limits = ("--shm-size=96m", "--memory=900m", "--memory-swap=1g", "--network=none")
    trusted = ("-e", "POSTGRES_HOST_AUTH_METHOD=trust", *QUICKLY)
    run_docker("run", "-d", "--pull", "never", "--name", name, *limits, *trusted, IMAGE, "-c", "fsync=off")
    try:
        deadline = time.monotonic() + 60
        while not run_docker_quietly("exec", name, "pg_isready", "-h", "127.0.0.1", "-U", "postgres"):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        psql(name, "CREATE DATABASE letta", "postgres")
        psql(name, AGENTS)
        # A number of its own: what is kept for other servers' drills is not for these.
        psql(name, f"ALTER SYSTEM SET maintenance_work_mem = {MEMORY_KB}; SELECT pg_reload_conf()", "postgres")
        yield name
    finally:
        run_docker("rm", "-f", "-v", name)


@pytest.fixture
def letta(container: str, tmp_path: Path) -> Settings:
    return load_settings(container=container, dir=tmp_path, sandbox_cache=False)


@pytest.fixture
def cached(letta: Settings) -> Iterator[Settings]:
    """With a cache, which is gone afterwards."""
    before = there()
    yield letta.model_copy(update={"sandbox_cache": True})
    for name in there() - before:
        run_docker_quietly("volume", "rm", name)


def there() -> set[str]:
    return set(run_docker("volume", "ls", "-q", "--filter", f"label={seeds.LABEL}").split())


def psql(container: str, statements: str, database: str = "letta") -> str:
    command = ("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-f", "-")
    return run_docker("exec", "-i", container, *command, stdin=statements).strip()


def inspected(ready: SandboxServer) -> dict[str, Any]:
    name = ready.server.host.container_info().container
    assert name is not None
    return json.loads(run_docker("inspect", name))[0]


def test_sandbox_server_may_use_as_much_as_the_live_one(letta: Settings) -> None:
    with BackupContext(letta) as context, sandbox_server(context, Progress()) as ready:
        host = inspected(ready)["HostConfig"]
        asked = "SELECT current_setting('maintenance_work_mem') AS memory"
        assert (host["ShmSize"], host["Memory"], host["MemorySwap"]) == (96 << 20, 900 << 20, 1 << 30)
        assert ready.server.rows("postgres", asked) == [{"memory": f"{MEMORY_KB}kB"}]
        assert ready.warnings == []


def test_limits_that_can_not_be_had_are_told(container: str) -> None:
    engine = Engine(find_endpoint({}))
    name = f"{container}-host-ipc"
    run_docker("create", "--pull", "never", "--name", name, "--ipc=host", IMAGE)
    try:
        assert "shares its /dev/shm" in resources_of(engine, name).differs
        assert "limits could not be read" in resources_of(engine, f"{container}-none").differs
        assert resources_of(engine, name).memory == 0
        assert resources_of(engine, None) == Resources()
    finally:
        run_docker("rm", "-f", name)
        engine.close()


def test_first_backup_is_drilled_and_the_empty_cluster_is_kept_and_pruned(cached: Settings) -> None:
    settings, before = cached.model_copy(update={"gate_level": "full"}), there()
    first = take(settings)
    assert first.safe_to_proceed, first.reasons
    assert first.drill is not None
    assert (first.proved_by, first.drill.proved) == ("full", True)
    (volume,) = there() - before
    assert any(f"MB is kept for drills in the Docker volume {volume}" in told for told in first.drill.warnings)
    again = take(settings)
    assert (again.drill, again.safe_to_proceed) == (None, True)
    with BackupContext(cached) as context:
        assert not any(volume in told for told in prune(context, Progress(), dry_run=False).warnings)
    assert volume in there()
    with BackupContext(cached.model_copy(update={"sandbox_cache": False})) as context:
        assert any(
            f"{volume}, an empty cluster for drills, would be" in told for told in prune(context, Progress()).warnings
        )
        assert volume in there()
        told = prune(context, Progress(), dry_run=False).warnings
        assert any(f"{volume}, an empty cluster for drills, was removed" in word for word in told)
    assert volume not in there()


def test_prune_removes_this_containers_unused_stale_clusters_only(container: str, cached: Settings) -> None:
    labels = {"stale": container, "in-use": container, "foreign": f"{container}-other"}
    names = {what: f"{seeds.PREFIX}{what}-{secrets.token_hex(4)}" for what in labels}
    for what, name in names.items():
        run_docker("volume", "create", "--label", f"{seeds.LABEL}={labels[what]}", name)
    run_docker("create", "--pull", "never", "--name", names["in-use"], "-v", f"{names['in-use']}:/x", IMAGE)
    try:
        with BackupContext(cached) as context:
            for dry_run in (True, False):
                told = "\n".join(prune(context, Progress(), dry_run=dry_run).warnings)
                assert [what for what, name in names.items() if name in told] == ["stale"]
        assert there() & set(names.values()) == {names["in-use"], names["foreign"]}
    finally:
        run_docker("rm", "-f", names["in-use"])


@pytest.mark.long
@pytest.mark.parametrize("lost", ["complete", "data/global/pg_control"])
def test_kept_cluster_that_is_no_good_is_removed_and_the_drill_goes_on(cached: Settings, lost: str) -> None:
    """As after a power cut, or when the container that filled it was removed in the middle."""
    before = there()
    with BackupContext(cached) as context:
        with sandbox_server(context, Progress()):
            (volume,) = there() - before
        run_docker(
            "run", "--rm", "--network=none", "-v", f"{volume}:/x", "--entrypoint", "rm", IMAGE, f"/x/home/{lost}"
        )
        with sandbox_server(context, Progress()) as ready:
            assert ready.server.ready()[0]
        (told,) = ready.warnings
        assert f"Docker volume {volume} was unusable and was removed" in told
    assert volume not in there()


def test_kept_cluster_is_read_only_and_never_held_a_database_of_a_users(cached: Settings) -> None:
    before = there()
    with BackupContext(cached) as context:
        with sandbox_server(context, Progress()) as ready:
            (volume,) = there() - before
            ready.server.rows("postgres", "SELECT 1 AS one")
            with ready.server.session("postgres") as session:
                session.execute("CREATE DATABASE mine")
            (mount,) = [found for found in inspected(ready)["Mounts"] if found["Name"] == volume]
            assert mount["RW"] is False
            assert not seeds.remove_seed(volume)
        with sandbox_server(context, Progress()) as ready:
            assert volume in there()
            assert ready.warnings == []
            names = "SELECT datname AS name FROM pg_database ORDER BY 1"
            found = [row["name"] for row in ready.server.rows("postgres", names)]
            assert found == ["postgres", "template0", "template1"]


def test_volume_whose_filling_was_cut_off_is_not_taken_for_a_cluster(container: str, cached: Settings) -> None:
    """A call that is killed leaves the container that fills it: as long as that is there it is not ready."""
    image, key = run_docker("image", "inspect", "--format", "{{.Id}}", IMAGE).strip(), secrets.token_hex(8)
    name, fail, fill = f"{seeds.PREFIX}{key}", ["sh", "-c", "exit 3"], ["sh", "-c", "echo 12"]
    assert seeds.seed(image, fail, key, container, Progress()) is None
    assert name not in there()
    label = f"{seeds.LABEL}={container}"
    run_docker("volume", "create", "--label", label, name)
    run_docker(
        "run", "-d", "--name", name, "--label", label, "-v", f"{name}:/x", "--entrypoint", "sh", IMAGE, "-c", "exit 1"
    )
    assert seeds.seed(image, fill, key, container, Progress()) is None
    assert seeds.seed(image, fill, key, container, Progress()) == seeds.Seed(name, "12")
    assert seeds.seed(image, fail, key, container, Progress()) == seeds.Seed(name)


def test_who_waits_for_another_call_that_fills_it_leaves_that_alone(
    container: str, cached: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, fill = secrets.token_hex(8), ["sh", "-c", "echo 12"]
    name = seeds.volume_of(key)
    filler = ("--pull", "never", "--name", name, "-v", f"{name}:/x", "--entrypoint", "sleep", IMAGE, "60")
    run_docker("volume", "create", "--label", f"{seeds.LABEL}={container}", name)
    run_docker("create", *filler)
    monkeypatch.setattr(seeds, "CREATED_SECONDS", 60)
    for _ in range(2):
        progress = Progress()
        progress.cancel()
        with pytest.raises(Cancelled):
            seeds.seed(IMAGE, fill, key, container, progress)
        assert run_docker_quietly("start", name)
    monkeypatch.undo()
    run_docker("rm", "-f", name)
    run_docker("create", *filler)
    began = time.monotonic()
    assert seeds.seed(IMAGE, fill, key, container, Progress()) is None
    assert time.monotonic() - began < 30
    assert seeds.seed(IMAGE, fill, key, container, Progress()) == seeds.Seed(name, "12")


def test_kept_cluster_that_was_removed_just_now_is_made_in_the_drill(
    cached: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = seeds.Seed(f"{seeds.PREFIX}{secrets.token_hex(8)}")

    def just_removed(*_: object) -> seeds.Seed:
        return gone

    monkeypatch.setattr(seeds, "seed", just_removed)
    with BackupContext(cached) as context, sandbox_server(context, Progress()) as ready:
        assert ready.server.ready()[0]
    assert gone.volume not in there()
