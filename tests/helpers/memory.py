"""A Compose project with PostgreSQL, Redis and a store of files, made of plain containers with Compose's labels."""

from __future__ import annotations

import secrets
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.settings import load_settings

from ..conftest import IMAGE
from .containers import run_docker, run_docker_quietly, wait_for_server

REDIS = "redis:7"
HASTY = ("-c", "fsync=off", "-c", "full_page_writes=off")


@dataclass
class Project:
    """A project; `add` puts another service into it."""

    name: str = field(default_factory=lambda: f"scarlet-test-{secrets.token_hex(4)}")

    def container(self, service: str) -> str:
        """Name the service's container."""
        return f"{self.name}-{service}-1"

    def volume(self, name: str) -> str:
        """Name a volume of the project."""
        return f"{self.name}_{name}"

    def add(self, service: str, image: str, *options: str, command: tuple[str, ...] = (), after: str = "") -> str:
        """Start a container of that service, which depends on the services `after`; return its name."""
        labels = {"project": self.name, "service": service, "oneoff": "False", "container-number": "1"}
        if after:
            labels["depends_on"] = after
        words = [word for key, value in labels.items() for word in ("--label", f"com.docker.compose.{key}={value}")]
        name = self.container(service)
        run_docker("run", "-d", "--name", name, *words, "--network", "bridge", *options, image, *command)
        return name

    def add_database(self) -> str:
        """Start PostgreSQL, which takes some seconds, and wait for it."""
        variables = ("-e", "POSTGRES_HOST_AUTH_METHOD=trust", "-e", "POSTGRES_DB=letta")
        data = ("-e", "POSTGRES_INITDB_ARGS=--no-sync", "-v", f"{self.volume('db')}:/var/lib/postgresql/data")
        name = self.add("postgres", IMAGE, *variables, *data, command=("postgres", *HASTY))
        wait_for_server(name)
        return name

    def context(self, directory: Path, **options: object) -> BackupContext:
        """Return a context of the project, whose backups are in `directory`."""
        return BackupContext(load_settings(container=self.container("postgres"), dir=directory, **options))

    def remove(self) -> None:
        """Remove its containers and volumes."""
        listed = run_docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={self.name}").split()
        if listed:
            run_docker_quietly("rm", "-f", "-v", *listed)
        volumes = run_docker("volume", "ls", "-q", "--filter", f"name={self.name}_").split()
        if volumes:
            run_docker_quietly("volume", "rm", *volumes)


@contextmanager
def project() -> Generator[Project]:
    """Remove what the block has added to a project of its own."""
    made = Project()
    try:
        yield made
    finally:
        made.remove()
