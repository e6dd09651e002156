"""Helper containers of a local image: they mount another container's volumes, or one volume, and run programs there."""

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
from .images import usable
from .labels import HELPER as LABEL
from .sandbox import COMPOSE_LABELS, PROCESSES, remove, remove_leftovers

PREFIX = "scarlet-helper-"
LIFE_SECONDS = 6 * 3600
"""After this, a helper that nobody has removed ends by itself and is removed."""
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER")
"""Just what root needs to read, write and give away other accounts' files."""


@dataclass(frozen=True)
class HelperMounts:
    """What a helper sees: everything that the container `container` mounts, or the volume `volume` at `mounted_at`.
    `read_only` holds for all of it."""

    container: str | None = None
    volume: str | None = None
    mounted_at: str = ""
    read_only: bool = False


@contextmanager
def helper_container(image: str, mounts: HelperMounts, owner: str, progress: Progress) -> Generator[DockerHost]:
    """Start a container of the image (by its id: nothing is pulled) to run programs in as root; label it `owner`.

    The container has no network and runs nothing by itself. However the block ends, it is removed; what it mounts
    stays. A container that `mounts` names may run, but need not. On an image that the engine has lost see
    `images.usable`. Raises HostError.
    """
    engine = Engine(find_endpoint(os.environ))
    name = f"{PREFIX}{secrets.token_hex(4)}"
    try:
        host = DockerHost(name)
        try:
            progress.check()
            _start(engine, name, image, mounts, owner)
            yield host
        finally:
            with progress.uninterrupted():
                host.close()
                remove(engine.remove_container, name, "container")
    finally:
        engine.close()


def helpers_of(owner: str) -> list[str]:
    """List the helper containers of that owner. Raises HostError."""
    engine = Engine(find_endpoint(os.environ))
    try:
        return [container_name(found) for found in engine.containers_labelled([f"{LABEL}={owner}"])]
    finally:
        engine.close()


def first_present(*images: str | None) -> str | None:
    """Return the first of these images, by id or name, that the engine has; None if it has none. Raises HostError."""
    engine = Engine(find_endpoint(os.environ))
    try:
        return next((image for image in images if image and engine.has_image(image)), None)
    finally:
        engine.close()


def remove_helpers(owner: str) -> list[str]:
    """Remove the helpers that killed calls of that owner left, with any program in them; return their names."""
    return remove_leftovers(owner, LABEL)


def _start(engine: Engine, name: str, image: str, mounts: HelperMounts, owner: str) -> None:
    try:
        engine.create_container(name, _configuration(engine, image, mounts, owner))
        engine.start_container(name)
    except EngineRefused as refused:
        raise HostError(f"The helper container could not be started. {refused.message}", refused.remedy) from refused


def _configuration(engine: Engine, image: str, mounts: HelperMounts, owner: str) -> Answer:
    """Build the body of ContainerCreate (https://docs.docker.com/reference/api/engine/version/v1.41/)."""
    image = usable(engine, image, mounts.container)
    built: Answer = engine.inspect_image(image)["Config"]
    seen: Answer = {}
    destinations = {mounts.mounted_at}
    if mounts.container is not None:
        destinations = {mount["Destination"] for mount in engine.inspect_container(mounts.container)["Mounts"]}
        seen = {"VolumesFrom": [f"{mounts.container}:{'ro' if mounts.read_only else 'rw'}"]}
    elif mounts.volume is not None:
        mount = {"Type": "volume", "Source": mounts.volume, "Target": mounts.mounted_at, "ReadOnly": mounts.read_only}
        seen = {"Mounts": [{**mount, "VolumeOptions": {"NoCopy": True}}]}
    inherited: dict[str, str] = built.get("Labels") or {}
    return {
        "Image": image,
        "Entrypoint": ["sleep", str(LIFE_SECONDS)],
        "Cmd": [],
        "User": "0:0",
        "WorkingDir": "/",
        # An image that Compose built would make this look like a container of its project.
        "Labels": {**{name: "" for name in inherited if name.startswith(COMPOSE_LABELS)}, LABEL: owner},
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            **seen,
            "AutoRemove": True,
            "NetworkMode": "none",
            # Instead of anonymous volumes, which would remain if somebody else removes the container.
            "Tmpfs": dict.fromkeys(set(built.get("Volumes") or {}) - destinations, "size=1m"),
            "PidsLimit": PROCESSES,
            "CapDrop": ["ALL"],
            "CapAdd": list(CAPABILITIES),
            "SecurityOpt": ["no-new-privileges"],
        },
    }
