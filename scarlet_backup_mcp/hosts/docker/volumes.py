"""Docker volumes, and who has them mounted."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from . import helper
from .container import PROJECT
from .engine import Engine, EngineRefused, container_name, find_endpoint

COMPOSE_VOLUME = "com.docker.compose.volume"
"""With `PROJECT` what Compose v2 knows a volume by: one with both is taken over by it without a word."""


def volume_labels(name: str) -> dict[str, str]:
    """The labels by which Compose knows a volume; none if it has none, or is gone. Raises HostError."""
    with _engine() as engine:
        try:
            labels = engine.volume_labels(name)
        except EngineRefused as refused:
            if refused.status == 404:
                return {}
            raise
    return {key: labels[key] for key in (PROJECT, COMPOSE_VOLUME) if key in labels}


def engine_id() -> str | None:
    """On which engine volumes are looked for; None if it has no name for itself. Raises HostError."""
    with _engine() as engine:
        return engine.id()


def is_removable(name: str) -> bool:
    """Whether what is in that volume goes with it. Raises HostError."""
    with _engine() as engine:
        return engine.volume_is_removable(name)


def volume_exists(name: str) -> bool:
    """Raises HostError."""
    with _engine() as engine:
        return engine.has_volume(name)


def create_volume(name: str, labels: Mapping[str, str]) -> None:
    """Make it if it is not there. Raises HostError."""
    with _engine() as engine:
        engine.create_volume(name, labels)


@dataclass(frozen=True)
class User:
    """A container that has a volume, or a directory of the machine, mounted. `helper`: it is one of ours."""

    name: str
    writable: bool
    helper: bool


def running_with(source: str) -> list[User]:
    """The containers that run, are paused or are restarting with that volume or directory. Raises HostError."""
    found: list[User] = []
    with _engine() as engine:
        # The engine's own filter by volume knows volumes' names and destinations, but no sources of other mounts.
        for item in engine.containers_running():
            mounts = [mount for mount in item["Mounts"] if source in (mount.get("Name"), mount.get("Source"))]
            if mounts:
                writable = any(mount["RW"] for mount in mounts)
                found.append(User(container_name(item), writable, helper.LABEL in (item["Labels"] or {})))
    return found


@contextmanager
def _engine() -> Generator[Engine]:
    engine = Engine(find_endpoint(os.environ))
    try:
        yield engine
    finally:
        engine.close()
