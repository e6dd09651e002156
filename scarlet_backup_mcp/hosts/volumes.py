"""Docker volumes, and who has them mounted."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager

from .docker import PROJECT
from .engine import Engine, EngineRefused, find_endpoint

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


def running_with(source: str) -> list[str]:
    """Names of the containers that run, are paused or are restarting with that volume, or that directory of the
    machine, mounted. Raises HostError."""
    with _engine() as engine:
        return engine.containers_running_with(source)


@contextmanager
def _engine() -> Generator[Engine]:
    engine = Engine(find_endpoint(os.environ))
    try:
        yield engine
    finally:
        engine.close()
