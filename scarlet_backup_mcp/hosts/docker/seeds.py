"""A volume that one program has filled, for throw-away containers to begin with: filled once, and then only read."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ...errors import DrillImpossible
from ...progress import Progress
from .engine import Answer, Engine, EngineRefused, find_endpoint
from .resources import Resources
from .sandbox import LOG_LINES, ThrowAwayContainer, remove
from .sandbox import SEED_LABEL as LABEL

PREFIX = "scarlet-sandbox-"
FILL_SECONDS = 60
CREATED_SECONDS = 5.0
"""How long another call's container is waited for that was made and is not started: that call may have been killed."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seed:
    """A filled volume. `said` is the last line of the program that has filled it now; "" if it was there before."""

    volume: str
    said: str = ""


def volume_of(key: str) -> str:
    """The name of the volume for that key."""
    return f"{PREFIX}{key}"


def seed(image: str, argv: Sequence[str], key: str, owner: str, progress: Progress) -> Seed | None:
    """The volume that `argv`, once run in a container of the image, has filled; one for each `key`, with the `owner`
    in its label for whom it was filled. None where it could not be had.

    The container that fills it has the volume's name, so that only one does: as long as it is there the volume is not
    ready. It gets nothing but the image and `argv`: no data of a user's. Raises HostError.
    """
    name, mine = volume_of(key), False
    with _engine() as engine:
        container = ThrowAwayContainer(engine, name)
        try:
            if _inspect(engine, name) is None:
                if engine.has_volume(name):
                    return Seed(name)
                mine = _started(container, image, argv, owner)
            found = _wait(engine, name, progress, CREATED_SECONDS if not mine else 0)
        except BaseException:
            if mine:
                with progress.uninterrupted():
                    container.remove()
            raise
        if found is None:  # another call has dealt with it
            return Seed(name) if engine.has_volume(name) else None
        filled = (found["State"]["Status"], found["State"]["ExitCode"]) == ("exited", 0)
        said = ""
        with suppress(EngineRefused):  # it is just being removed
            said = engine.container_log(found["Id"], 1 if filled else LOG_LINES).strip()
        remove(engine.remove_container, found["Id"], "container")
        if filled:
            return Seed(name, said)
        log.warning("%s could not be filled, its container was %s: %s", name, found["State"]["Status"], said)
        remove(engine.remove_volume, name, "volume")
        return None


def unused(owner: str) -> list[str]:
    """Names of the volumes that were filled for that owner and that no container has. Raises HostError."""
    with _engine() as engine:
        volumes = sorted(engine.volumes_labelled(f"{LABEL}={owner}"))
        used = {mount.get("Name") for container in engine.containers() for mount in container["Mounts"]}
        return [name for name in volumes if name not in used]


def remove_seed(name: str) -> bool:
    """Whether such a volume is gone now: one that a container has stays. Raises HostError."""
    with _engine() as engine:
        try:
            engine.remove_volume(name)
        except EngineRefused as refused:
            return refused.status == 404
        return True


def _started(container: ThrowAwayContainer, image: str, argv: Sequence[str], owner: str) -> bool:
    """Whether the container that fills the volume, if there is one now, is this call's."""
    try:
        container.start(image, argv, {LABEL: owner}, Resources())
    except DrillImpossible as error:
        refused = error.__cause__
        return not (isinstance(refused, EngineRefused) and refused.status == 409)
    return True


def _wait(engine: Engine, name: str, progress: Progress, to_start: float) -> Answer | None:
    """The container as it is when it has ended, was not started within `to_start` seconds, or took too long."""
    began = time.monotonic()
    patience = {"created": to_start, "running": FILL_SECONDS, "removing": FILL_SECONDS}
    while (found := _inspect(engine, name)) is not None:
        if time.monotonic() - began > patience.get(found["State"]["Status"], 0):
            break
        progress.check()
        time.sleep(0.05)
    return found


def _inspect(engine: Engine, name: str) -> Answer | None:
    try:
        return engine.inspect_container(name)
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
