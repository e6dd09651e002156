"""What the tests run on: an embedded PostgreSQL, and Scarlet's Compose project under another name."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import psycopg
import pytest
from psycopg import sql

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.sandbox.lifecycle import SandboxServer, sandbox_server
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import load_settings

from .helpers.containers import psql_in, run_docker, run_docker_quietly, wait_for_server

if TYPE_CHECKING:
    from .helpers.drill import Databases, SandboxServers
    from .helpers.store import Made

PROJECT_ROOT = Path(__file__).resolve().parents[1]
MEMORY = PROJECT_ROOT / "scarlet_backup_mcp" / "cli" / "demo" / "memory.sql"
IMAGE = "pgvector/pgvector:pg15"

hypothesis.settings.register_profile("on a busy machine", deadline=None)
hypothesis.settings.load_profile("on a busy machine")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


NO_DRILLS = {"SCARLET_BACKUP_GATE_LEVEL": "unproved", "SCARLET_BACKUP_SANDBOX_CACHE": "false"}
"""Else every first backup of a test's database would be drilled, and a volume of the sandbox's stay behind. Tests of
these set them anew."""
ENGLISH = {"LC_ALL": "C.UTF-8"}
"""Whatever the machine speaks: what `lang` reads first."""


@pytest.fixture(scope="session", autouse=True)
def no_drills_by_themselves() -> Iterator[None]:
    """For fixtures that are made once for several tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (NO_DRILLS | ENGLISH).items():
            patch.setenv(name, value)
        yield


@pytest.fixture(autouse=True)
def nothing_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A developer's own SCARLET_… settings or remembered directories would lead a test to a real database."""
    monkeypatch.delenv("PGPASSFILE", raising=False)
    for name in list(os.environ):
        if name.startswith("SCARLET_") and not name.startswith("SCARLET_TEST_"):
            monkeypatch.delenv(name)
    for name, value in NO_DRILLS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs Docker with `docker`, and what a `sample` leaves out with `long`.

    Files with many of Docker's tests come first: no process is to end with a long file while the others have nothing
    to do.
    """
    slow, cases = Counter[Path](), Counter[str]()
    for item in items:
        if (sample := item.get_closest_marker("sample")) is not None:
            test, _, _ = item.nodeid.partition("[")
            cases[test] += 1
            if cases[test] > sample.args[0]:
                item.add_marker(pytest.mark.long)
        if "require_docker" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.docker)
            slow[item.path] += 1
    items.sort(key=lambda item: -slow[item.path])


# An embedded server


@dataclass(frozen=True)
class LocalDatabase:
    """A database on the embedded server, with Scarlet's small memory in it."""

    server: EmbeddedServer
    name: str
    dsn: str = field(repr=False)

    @property
    def bin_dir(self) -> Path:
        """The server's own client programs."""
        return self.server.bin_dir


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedServer]:
    """One embedded server for the whole session; its databases are the tests' to make and drop.

    Without autovacuum: its transactions, which come when it likes, can keep the gate shut.
    """
    with EmbeddedServer() as server:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET autovacuum = off")
            connection.execute("SELECT pg_reload_conf()")
        yield server


@pytest.fixture(scope="module")
def made(embedded: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """A small database and two good backups of it, which tests copy and leave as they are."""
    from .helpers.store import made_backups  # which builds on this module

    with made_backups(embedded, tmp_path_factory.mktemp("made")) as taken:
        yield taken


@pytest.fixture
def local_database(embedded: EmbeddedServer) -> Iterator[LocalDatabase]:
    """A fresh database filled with memory.sql; dropped afterwards, with whatever was restored from or beside it."""
    name = f"letta_{secrets.token_hex(4)}"
    with psycopg.connect(embedded.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    database = LocalDatabase(embedded, name, embedded.dsn(name))
    load(database, MEMORY)
    yield database
    with psycopg.connect(embedded.dsn(), autocommit=True) as connection:
        names = connection.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [name]).fetchall()
        for (found,) in names:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(found)))


@pytest.fixture
def databases(embedded: EmbeddedServer, tmp_path: Path) -> Iterator[Databases]:
    """Makes databases on the embedded server and backups of them; they are dropped with what lies beside them."""
    from .helpers.drill import Databases  # which builds on this module

    made = Databases(embedded, tmp_path)
    yield made
    made.drop()


@pytest.fixture(scope="session")
def running(embedded: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxServer]:
    """A throw-away server beside the embedded one."""
    directory = tmp_path_factory.mktemp("running")
    settings = load_settings(via="local", dsn=embedded.dsn(), bin_dir=embedded.bin_dir, dir=directory)
    with BackupContext(settings) as context, sandbox_server(context, Progress()) as ready:
        yield ready


@pytest.fixture
def shared(running: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> SandboxServers:
    """Drills take place in that one server, one after the other: to make one takes longer than most of them."""
    from .helpers.drill import share

    return share(running, monkeypatch)


def load(database: LocalDatabase, script: Path) -> None:
    """Run an SQL file through the server's own psql."""
    psql = [str(database.bin_dir / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database.dsn, "-f", str(script)]
    done = subprocess.run(psql, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr


# Docker


@dataclass(frozen=True)
class Stack:
    """Scarlet's Compose project from examples/compose.yaml, under a name of its own."""

    project: str
    container: str
    """Name of the container with PostgreSQL 15."""
    dependent: str
    """Name of the container that depends on it, a client that reconnects whenever it is cut off."""
    directory: Path
    """Compose's working directory, a copy of examples/: the default backup directory is in it."""
    password: str = field(repr=False)
    """The superuser's password: it may be seen nowhere."""

    def compose(self, *arguments: str) -> str:
        """Run `docker compose` on this project; its stdout. Raises AssertionError with its stderr when it fails."""
        files = ("-f", str(self.directory / "compose.yaml"), "-f", str(self.directory / "override.yaml"))
        environment = {**os.environ, "SCARLET_CONTAINER": self.container, "POSTGRES_PASSWORD": self.password}
        return run_docker("compose", "-p", self.project, *files, *arguments, env=environment)

    def psql(self, statements: str, database: str = "letta") -> str:
        """Run SQL in the container; the unaligned rows. Raises AssertionError with the server's error."""
        return psql_in(self.container, statements, database)

    def state(self, container: str) -> str:
        """Docker's word for a container's state: running, paused, exited …"""
        return run_docker("inspect", "--format", "{{.State.Status}}", container).strip()

    def bring_up(self) -> None:
        """Have both containers run and PostgreSQL accept connections, whatever a test did to them."""
        states = {name: run_docker_quietly("inspect", "-f", "{{.State.Status}}", name) for name in self.containers}
        for name in self.containers:
            if states[name] == "paused":
                run_docker("unpause", name)
        if any(state not in ("running", "paused") for state in states.values()):
            self.compose("up", "-d", "--pull", "never")
        wait_for_server(self.container)

    @property
    def containers(self) -> tuple[str, str]:
        """Both containers."""
        return self.container, self.dependent


@pytest.fixture(scope="session")
def require_docker() -> None:
    """Skip with a reason where Docker can't be used; with SCARLET_TEST_REQUIRE_DOCKER=1 that is a failure."""
    require(docker_missing())


def require_image(image: str) -> None:
    """The same for an image that only some tests need."""
    here = run_docker_quietly("image", "inspect", "--format", "{{.Id}}", image)
    require(None if here else f"The image is not here: docker pull {image}")


def require(missing: str | None) -> None:
    """Skip if something is missing, for that reason; with SCARLET_TEST_REQUIRE_DOCKER=1 that is a failure."""
    if missing and os.environ.get("SCARLET_TEST_REQUIRE_DOCKER") == "1":
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)


@contextmanager
def compose_stack(directory: Path) -> Generator[Stack]:
    """A running Compose project. A user's own Scarlet has other names and is never touched."""
    project = f"scarlet-test-{secrets.token_hex(4)}"
    shutil.copytree(PROJECT_ROOT / "examples", directory)
    shutil.copy(PROJECT_ROOT / "tests" / "data" / "compose.override.yaml", directory / "override.yaml")
    running = Stack(project, f"{project}-postgres", f"{project}-letta-server-1", directory, secrets.token_urlsafe(18))
    try:
        running.compose("up", "-d", "--pull", "never")
        wait_for_server(running.container)
        yield running
    finally:
        running.compose("down", "--volumes", "--remove-orphans", "--timeout", "1")


@pytest.fixture(scope="session")
def stack(require_docker: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The Compose project that tests share."""
    with compose_stack(tmp_path_factory.mktemp("stack") / "scarlet") as running:
        yield running


@pytest.fixture
def scarlet(stack: Stack) -> Stack:
    """The stack as at its first start: containers running, `letta` filled with memory.sql, nothing beside it."""
    stack.bring_up()
    ours = "datname = 'letta' OR datname ~ '^letta_(before_restore|restore)_'"
    names = stack.psql(f"SELECT quote_ident(datname) FROM pg_database WHERE {ours}", "postgres").split()
    drops = [f"DROP DATABASE {name} WITH (FORCE);" for name in names]
    stack.psql("\n".join([*drops, "CREATE DATABASE letta;"]), "postgres")
    stack.psql(MEMORY.read_text(encoding="utf-8"))
    return stack


def docker_missing() -> str | None:
    """Why Docker tests can't run here, or None."""
    if shutil.which("docker") is None:
        return "There is no docker command."
    if not run_docker_quietly("version", "--format", "{{.Server.Version}}"):
        return "No Docker engine answers."
    if not run_docker_quietly("compose", "version", "--short"):
        return "Docker has no compose plugin."
    if not run_docker_quietly("image", "inspect", "--format", "{{.Id}}", IMAGE):
        return f"The image is not here: docker pull {IMAGE}"
    return None
