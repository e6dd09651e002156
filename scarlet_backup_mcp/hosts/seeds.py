"""A volume that one program has filled, for throw-away containers to begin with: filled once, and then only read."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ..errors import DrillImpossible
from ..progress import Progress
from .engine import Answer, Engine, EngineRefused, container_name, find_endpoint
from .resources import Resources
from .throw_away import SEED_LABEL as LABEL
from .throw_away import ThrowAwayContainer

PREFIX = "scarlet-sandbox-"
FILL_SECONDS = 60

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seed:
    """A filled volume. `said` is the last line of the program that has filled it now; "" if it was there before."""

    volume: str
    said: str = ""


def seed(image: str, argv: Sequence[str], key: str, progress: Progress) -> Seed | None:
    """The volume that `argv`, once run in a container of the image, has filled; one for each `key`. None where it
    could not be had.

    The container that fills it has the volume's name, so that only one does: as long as it is there the volume is not
    ready. It gets nothing but the image and `argv`: no data of a user's. Raises HostError.
    """
    name = f"{PREFIX}{key}"
    with _engine() as engine:
        container = ThrowAwayContainer(engine, name)
        if _state(engine, name) is None:
            if engine.has_volume(name):
                return Seed(name)
            with suppress(DrillImpossible):  # another call's is there by now, or there is none afterwards
                container.start(image, argv, {LABEL: key}, Resources())
        try:
            state = _wait(engine, name, progress)
            if state is None:
                return Seed(name) if engine.has_volume(name) else None
            if (state["Status"], state["ExitCode"]) == ("exited", 0):
                lines = engine.container_log(name, 1).strip()
                engine.remove_container(name)
                return Seed(name, lines)
        except BaseException:
            with progress.uninterrupted():
                container.remove()
            raise
        log.warning("%s could not be filled: %s", name, container.ended())
        container.remove()
        return None


def seeds() -> list[str]:
    """Names of all such volumes. Raises HostError."""
    with _engine() as engine:
        return sorted(engine.volumes_labelled(LABEL))


def remove_seeds() -> list[str]:
    """Remove those that nothing uses; their names. Raises HostError."""
    with _engine() as engine:
        filling = {container_name(container) for container in engine.containers_labelled([LABEL])}
        return [name for name in sorted(engine.volumes_labelled(LABEL)) if name not in filling and _gone(engine, name)]


def _gone(engine: Engine, name: str) -> bool:
    try:
        engine.remove_volume(name)
    except EngineRefused:  # a drill has it
        return False
    return True


def _wait(engine: Engine, name: str, progress: Progress) -> Answer | None:
    until = time.monotonic() + FILL_SECONDS
    while (state := _state(engine, name)) is not None and state["Status"] in ("created", "running"):
        progress.check()
        if time.monotonic() > until:
            break
        time.sleep(0.05)
    return state


def _state(engine: Engine, name: str) -> Answer | None:
    try:
        return engine.inspect_container(name)["State"]
    except EngineRefused as refused:
        if refused.status == 404:
            return None
        raise


@contextmanager
def _engine() -> Generator[Engine]:
    engine = Engine(find_endpoint(os.environ))
    try:
        yield engine
    finally:
        engine.close()
