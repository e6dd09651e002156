"""A helper container of an image that is there: it sees a volume that another container has, and waits for programs."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from ...errors import HostError
from ...progress import Progress
from .container import DockerHost
from .engine import Answer, Engine, EngineRefused, container_name, find_endpoint
from .sandbox import COMPOSE_LABELS, PROCESSES, remove, remove_leftovers

LABEL = "scarlet-backup-mcp.helper"
"""On the container; the value tells whose it is."""
PREFIX = "scarlet-helper-"
LIFE_SECONDS = 6 * 3600
"""After which one that nobody has removed ends by itself, and goes."""
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER")
"""What root needs to read, write and give away other accounts' files, and no more."""


@dataclass(frozen=True)
class Sight:
    """What a helper sees: all that the container `container` has mounted, or else the volume `volume` at `mounted_at`.
    `read_only` holds for all of it."""

    container: str | None = None
    volume: str | None = None
    mounted_at: str = ""
    read_only: bool = False


@contextmanager
def helper_container(image: str, sight: Sight, owner: str, progress: Progress) -> Generator[DockerHost]:
    """A container of the image (by its id: nothing is pulled) in which programs run as root, with `owner` in its label.

    It has no network, and nothing runs in it of itself. Whatever ends the block, it is removed; what it sees stays. A
    container that `sight` names need not run, and may. Raises HostError.
    """
    engine = Engine(find_endpoint(os.environ))
    name = f"{PREFIX}{secrets.token_hex(4)}"
    try:
        host = DockerHost(name)
        try:
            progress.check()
            _start(engine, name, image, sight, owner)
            yield host
        finally:
            with progress.uninterrupted():
                host.close()
                remove(engine.remove_container, name, "container")
    finally:
        engine.close()


def helpers_of(owner: str) -> list[str]:
    """Names of that owner's. Raises HostError."""
    engine = Engine(find_endpoint(os.environ))
    try:
        return [container_name(found) for found in engine.containers_labelled([f"{LABEL}={owner}"])]
    finally:
        engine.close()


def first_present(*images: str | None) -> str | None:
    """The first of these images, by id or name, that is on the engine's machine. Raises HostError."""
    engine = Engine(find_endpoint(os.environ))
    try:
        return next((image for image in images if image and engine.has_image(image)), None)
    finally:
        engine.close()


def remove_helpers(owner: str) -> list[str]:
    """Remove what killed calls of that owner left, and so end what still runs in them: the names of those gone now."""
    return remove_leftovers(owner, LABEL)


def _start(engine: Engine, name: str, image: str, sight: Sight, owner: str) -> None:
    try:
        engine.create_container(name, _configuration(engine, image, sight, owner))
        engine.start_container(name)
    except EngineRefused as refused:
        raise HostError(f"The helper container could not be started. {refused.message}", refused.remedy) from refused


def _configuration(engine: Engine, image: str, sight: Sight, owner: str) -> Answer:
    """As https://docs.docker.com/reference/api/engine/version/v1.41/#operation/ContainerCreate has it."""
    built: Answer = engine.inspect_image(image)["Config"]
    seen: Answer = {}
    destinations = {sight.mounted_at}
    if sight.container is not None:
        destinations = {mount["Destination"] for mount in engine.inspect_container(sight.container)["Mounts"]}
        seen = {"VolumesFrom": [f"{sight.container}:{'ro' if sight.read_only else 'rw'}"]}
    elif sight.volume is not None:
        mount = {"Type": "volume", "Source": sight.volume, "Target": sight.mounted_at, "ReadOnly": sight.read_only}
        seen = {"Mounts": [{**mount, "VolumeOptions": {"NoCopy": True}}]}
    inherited: dict[str, str] = built.get("Labels") or {}
    return {
        "Image": image,
        "Entrypoint": ["sleep", str(LIFE_SECONDS)],
        "Cmd": [],
        "User": "0:0",
        "WorkingDir": "/",
        # An image that Compose has built passes for a container of its project.
        "Labels": {**{name: "" for name in inherited if name.startswith(COMPOSE_LABELS)}, LABEL: owner},
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            **seen,
            "AutoRemove": True,
            "NetworkMode": "none",
            # In the place of anonymous volumes, which would stay when somebody else removes the container.
            "Tmpfs": dict.fromkeys(set(built.get("Volumes") or {}) - destinations, "size=1m"),
            "PidsLimit": PROCESSES,
            "CapDrop": ["ALL"],
            "CapAdd": list(CAPABILITIES),
            "SecurityOpt": ["no-new-privileges"],
        },
    }
