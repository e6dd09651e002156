"""Docker volumes, and the containers that have them mounted."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from . import helper
from .engine import Engine, EngineRefused, container_name, find_endpoint
from .labels import PROJECT

COMPOSE_VOLUME = "com.docker.compose.volume"
"""With `PROJECT` what Compose v2 knows a volume by: it takes over one that has both, without a warning."""


def volume_labels(name: str) -> dict[str, str]:
    """Return the labels by which Compose knows a volume; {} if it has none or is gone. Raises HostError."""
    with _engine() as engine:
        try:
            labels = engine.volume_labels(name)
        except EngineRefused as refused:
            if refused.status == 404:
                return {}
            raise
    return {key: labels[key] for key in (PROJECT, COMPOSE_VOLUME) if key in labels}


def engine_id() -> str | None:
    """Return the id of the engine that holds the volumes; None if it has none. Raises HostError."""
    with _engine() as engine:
        return engine.id()


def is_removable(name: str) -> bool:
    """Tell whether removing that volume also removes its contents. Raises HostError."""
    with _engine() as engine:
        return engine.volume_is_removable(name)


def volume_exists(name: str) -> bool:
    """Tell whether there is such a volume. Raises HostError."""
    with _engine() as engine:
        return engine.has_volume(name)


def create_volume(name: str, labels: Mapping[str, str]) -> None:
    """Create the volume unless it exists. Raises HostError."""
    with _engine() as engine:
        engine.create_volume(name, labels)


@dataclass(frozen=True)
class User:
    """A container that has a volume or a directory of this machine mounted. `helper`: it is one of ours."""

    name: str
    writable: bool
    helper: bool


def running_with(source: str) -> list[User]:
    """List the running, paused and restarting containers that mount that volume or directory. Raises HostError."""
    found: list[User] = []
    with _engine() as engine:
        # The engine's own volume filter knows volume names and destinations, but not the sources of other mounts.
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
