"""Seed volumes: filled once by a program, then read by every sandbox container that starts from one."""

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
from .labels import SEED as LABEL
from .resources import Resources
from .sandbox import LOG_LINES, SandboxContainer, remove

PREFIX = "scarlet-sandbox-"
FILL_SECONDS = 60
CREATED_SECONDS = 5.0
"""How long to wait for another call's container that is created but not started: that call may have been killed."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seed:
    """A filled volume. `last_line` is what the program that filled it wrote last; "" if it existed before."""

    volume: str
    last_line: str = ""


def volume_of(key: str) -> str:
    """Return the name of the volume for that key."""
    return f"{PREFIX}{key}"


def seed(
    image: str, argv: Sequence[str], key: str, owner: str, progress: Progress, like: str | None = None
) -> Seed | None:
    """Return the volume for `key`, filled by running `argv` once in a container of the image; None if that failed.

    Its label names the `owner` it was filled for; `like` is a container of the image. The container that fills it has
    the volume's name, so only one can; while that container exists, the volume is not ready. It gets the image and
    `argv` only, no user's data. Raises HostError.
    """
    name, mine = volume_of(key), False
    with _engine() as engine:
        container = SandboxContainer(engine, name)
        try:
            if _inspect(engine, name) is None:
                if engine.has_volume(name):
                    return Seed(name)
                mine = _started(container, image, argv, owner, like)
            found = _wait(engine, name, progress, CREATED_SECONDS if not mine else 0)
        except BaseException:
            if mine:
                with progress.uninterrupted():
                    container.remove()
            raise
        if found is None:  # another call has dealt with it
            return Seed(name) if engine.has_volume(name) else None
        filled = (found["State"]["Status"], found["State"]["ExitCode"]) == ("exited", 0)
        output = ""
        with suppress(EngineRefused):  # it is just being removed
            output = engine.container_log(found["Id"], 1 if filled else LOG_LINES).strip()
        remove(engine.remove_container, found["Id"], "container")
        if filled:
            return Seed(name, output)
        log.warning("%s could not be filled, its container was %s: %s", name, found["State"]["Status"], output)
        remove(engine.remove_volume, name, "volume")
        return None


def unused(owner: str) -> list[str]:
    """List the volumes that were filled for that owner and that no container uses. Raises HostError."""
    with _engine() as engine:
        volumes = sorted(engine.volumes_labelled(f"{LABEL}={owner}"))
        used = {mount.get("Name") for container in engine.containers() for mount in container["Mounts"]}
        return [name for name in volumes if name not in used]


def remove_seed(name: str) -> bool:
    """Remove a seed volume; False if a container still uses it. Raises HostError."""
    with _engine() as engine:
        try:
            engine.remove_volume(name)
        except EngineRefused as refused:
            return refused.status == 404
        return True


def _started(container: SandboxContainer, image: str, argv: Sequence[str], owner: str, like: str | None) -> bool:
    """Start the container that fills the volume; False if another call has started it."""
    try:
        container.start(image, argv, {LABEL: owner}, Resources(), like=like)
    except DrillImpossible as error:
        refused = error.__cause__
        return not (isinstance(refused, EngineRefused) and refused.status == 409)
    return True


def _wait(engine: Engine, name: str, progress: Progress, to_start: float) -> Answer | None:
    """Wait until the container ends, isn't started within `to_start` seconds, or takes too long; then inspect it."""
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
