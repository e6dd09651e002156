"""Letta's own set-up, as examples/letta has it, with no setting at all."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .conftest import PROJECT_ROOT, require_image
from .helpers.containers import run_docker
from .helpers.part_of_engine import only_labelled

pytestmark = pytest.mark.long
IMAGE = "pgvector/pgvector:pg18"


@dataclass(frozen=True)
class Letta:
    """The running example, and an engine with nothing else on it."""

    project: str
    directory: Path
    """The Compose file's."""
    environment: dict[str, str]

    @property
    def container(self) -> str:
        """Of the database, as Compose calls it."""
        return f"{self.project}-letta_db-1"

    def call(self, *arguments: str, codes: tuple[int, ...] = (0, 1)) -> dict[str, Any]:
        """What a command answers as data; 1 is the code of what works but is not all well, such as a shut gate."""
        command = [sys.executable, "-m", "scarlet_backup_mcp", *arguments, "--json"]
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", env=self.environment, timeout=300, check=False
        )
        assert done.returncode in codes, done.stderr + done.stdout
        return json.loads(done.stdout)

    def psql(self, statements: str) -> str:
        """Run SQL as Letta; the unaligned rows."""
        return run_docker("exec", "-i", self.container, "psql", "-XqAt", "-U", "letta", "letta", stdin=statements)


@contextmanager
def letta_up(directory: Path) -> Generator[Letta]:
    """`docker compose up`, as the example says."""
    project = f"letta-{secrets.token_hex(4)}"
    shutil.copytree(PROJECT_ROOT / "examples", directory)
    place = directory / project
    (directory / "letta").rename(place)
    compose = ("compose", "-f", str(place / "compose.yaml"))
    try:
        run_docker(*compose, "up", "-d", "--wait", "--pull", "never")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SCARLET_")}
        with only_labelled(f"com.docker.compose.project={project}", directory / "engine.sock") as address:
            yield Letta(project, place, kept | {"DOCKER_HOST": address})
    finally:
        run_docker(*compose, "down", "--volumes", "--timeout", "1")
        # what the image's own user has made there
        run_docker("run", "--rm", "-v", f"{place}:/place", "--entrypoint", "rm", IMAGE, "-rf", "/place/.persist")


@pytest.fixture(scope="module")
def letta(require_docker: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Letta]:
    require_image(IMAGE)
    with letta_up(tmp_path_factory.mktemp("stock") / "examples") as running:
        yield running


def test_the_whole_loop_of_an_sql_backup(letta: Letta) -> None:
    found = letta.call("integrity")
    assert (found["healthy"], found["agents"]) == (True, 2)
    assert found["found"] == {
        "container": f"{letta.container} (the only one that runs PostgreSQL)",
        "database": "letta (POSTGRES_DB of the container)",
        "user": "letta (POSTGRES_USER of the container)",
        "data_directory": "/var/lib/postgresql/18/docker (PGDATA of the container)",
        "port": "5432 (postmaster.pid)",
    }
    made = letta.call("backup")
    assert (made["good"], made["proved"], made["rows"]) == (True, True, 554)
    assert Path(made["path"]).parent == letta.directory / "backups"
    assert f"database letta (POSTGRES_DB), role letta (POSTGRES_USER), container {letta.container} (" in made["server"]
    assert "the only PostgreSQL)" in made["server"]
    assert letta.call("verify", "latest")["valid"]
    before = letta.psql("TABLE letta.agents")
    letta.psql("TRUNCATE letta.agents CASCADE")
    lost = letta.call("integrity", codes=(1,))
    assert [finding["code"] for finding in lost["findings"]][:1] == ["integrity_table_empty"]
    brought = letta.call("restore", "latest", "--yes")
    assert (brought["rows_compared"], brought["integrity_rows"], brought["server"]) == (554, 2, made["server"])
    assert [each["name"] for each in brought["dependents"]] == [f"{letta.project}-letta_server-1"]
    assert letta.psql("TABLE letta.agents") == before
    assert letta.call("prune", "--dry-run")["removed"] == 0
    listed = letta.call("list")
    assert ([each["name"] for each in listed["backups"]], listed["newest_good"]) == ([made["name"]], made["name"])
    assert listed["server"] == made["server"]


def test_the_whole_loop_of_a_volume(letta: Letta) -> None:
    made = letta.call("backup", "--kind", "volume")
    assert made["good"]
    before = letta.psql("TABLE letta.agents")
    letta.psql("TRUNCATE letta.agents CASCADE")
    assert letta.call("restore", made["name"], "--yes")["files_compared"] > 100
    assert letta.psql("TABLE letta.agents") == before


def test_a_second_postgresql_is_not_chosen_from(letta: Letta) -> None:
    second = f"{letta.project}-second"
    label = f"com.docker.compose.project={letta.project}"
    run_docker("create", "--name", second, "--label", label, IMAGE)
    try:
        error = letta.call("backup", codes=(2,))
        assert error["code"] == "several_candidates"
        [_, one, other] = error["message"].splitlines()
        assert one.startswith(f"--container={letta.container}  # running, {IMAGE}, Compose project {letta.project}")
        assert other.startswith(f"--container={second}  # created, {IMAGE}")
        option = one.split()[0]
        assert letta.call("list", option)["database"] == "letta"
        shown = letta.call("doctor")["checks"]
        assert any(
            f"SCARLET_BACKUP_CONTAINER={second}" in check["message"] for check in shown if check["check"] == "container"
        )
    finally:
        run_docker("rm", second)


def test_without_an_engine_its_backups_are_still_known(letta: Letta) -> None:
    made = letta.call("list")["newest_good"]
    socket = Path(letta.environment["DOCKER_HOST"].removeprefix("unix://"))
    hidden = socket.rename(socket.with_suffix(".away"))
    try:
        listed = letta.call("list")
    finally:
        hidden.rename(socket)
    assert made is not None
    assert (listed["newest_good"], listed["directory"]) == (made, str(letta.directory / "backups"))
    assert "could not be inspected" in listed["server"]
