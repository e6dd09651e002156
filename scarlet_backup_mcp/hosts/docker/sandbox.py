"""Sandbox containers: throw-away containers of a local image, isolated, and removed with their volume afterwards."""

from __future__ import annotations

import io
import logging
import os
import secrets
import tarfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress

from ...errors import DrillImpossible, HostError
from ...progress import Progress
from .container import DockerHost
from .engine import Answer, Engine, EngineRefused, container_name, find_endpoint
from .images import ImageLost, usable
from .labels import DRILL as LABEL
from .labels import SEED as SEED_LABEL
from .refusals import FORBIDDEN
from .resources import Resources, resources_of

PREFIX = "scarlet-drill-"
COMPOSE_LABELS = "com.docker.compose."

VOLUME_AT = "/scarlet-drill"
HOME = f"{VOLUME_AT}/home"
"""The only directory that programs there may write to, on the container's own volume."""
SEED_AT = "/scarlet-sandbox"
SEED_HOME = f"{SEED_AT}/home"
"""`HOME` as the seed volume has it (see `seeds`). Read-only."""
ACCOUNT = 10001
"""User and group of all programs there: any number but root's will do, as in OpenShift."""

PROCESSES = 512
LOG_LINES = 15
REMOVAL_SECONDS = 10.0

log = logging.getLogger(__name__)


class SandboxContainer:
    """A sandbox container. `host` runs programs in it; `left_behind` says afterwards what could not be removed, and
    `differs` how its limits differ from those of the container it imitates."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.name = name
        self.host = DockerHost(name)
        self.left_behind: list[str] = []
        self.differs = ""
        self._engine = engine

    def ended(self) -> str | None:
        """Return how its program ended, with its last lines of output; None while it runs. Raises HostError."""
        try:
            state: Answer = self._engine.inspect_container(self.name)["State"]
        except EngineRefused as refused:
            if refused.status == 404:
                return "somebody has removed it"
            raise
        if state["Running"]:
            return None
        how = "out of memory" if state["OOMKilled"] else f"exit code {state['ExitCode']}"
        with suppress(EngineRefused):  # one that is being removed has none
            how += f"\n{self._engine.container_log(self.name, LOG_LINES).strip()}"
        return how

    def start(
        self,
        image: str,
        argv: Sequence[str],
        labels: Mapping[str, str],
        resources: Resources,
        seed: str | None = None,
        like: str | None = None,
    ) -> None:
        """Create and start the container; `like` is a container of the image. Raises DrillImpossible if the engine
        refuses."""
        try:
            image = usable(self._engine, image, like)
            self._engine.create_container(self.name, self._configuration(image, argv, labels, resources, seed))
            self._engine.unpack(self.name, _home())
            self._engine.start_container(self.name)
        except EngineRefused as refused:
            remedy = refused.remedy if isinstance(refused, ImageLost) or refused.status in FORBIDDEN else None
            message = f"The sandbox container could not be started. {refused.message}"
            raise DrillImpossible(message, remedy) from refused

    def remove(self) -> None:
        """Remove the container, then its volume. Never raises HostError: see `left_behind`."""
        self.host.close()
        self.left_behind += remove(self._engine.remove_container, self.name, "container")
        self.left_behind += remove(self._engine.remove_volume, self.name, "volume")

    def _configuration(
        self, image: str, argv: Sequence[str], labels: Mapping[str, str], resources: Resources, seed: str | None
    ) -> Answer:
        """Build the body of ContainerCreate (https://docs.docker.com/reference/api/engine/version/v1.41/).

        The program replaces the image's entry point. Its log may hold the user's data, so it goes into a file that
        is removed with the container, whatever the engine's default log driver.
        """
        own: Answer = {"Source": self.name, "Target": VOLUME_AT, "VolumeOptions": {"Labels": dict(labels)}}
        # If it was removed just now, the engine creates an empty one.
        options = {"NoCopy": True, "Labels": {SEED_LABEL: seed}}
        seeded: Answer = {"Source": seed, "Target": SEED_AT, "ReadOnly": True, "VolumeOptions": options}
        volumes = [{"Type": "volume", **mount} for mount in ([own, seeded] if seed else [own])]
        built: Answer = self._engine.inspect_image(image)["Config"]
        inherited: dict[str, str] = built.get("Labels") or {}
        return {
            "Image": image,
            "Entrypoint": list(argv),
            "User": f"{ACCOUNT}:{ACCOUNT}",
            "WorkingDir": "/",
            # An image that Compose built would make this look like a container of its project.
            "Labels": {**{name: "" for name in inherited if name.startswith(COMPOSE_LABELS)}, **labels},
            "Healthcheck": {"Test": ["NONE"]},
            "HostConfig": {
                "NetworkMode": "none",
                "Mounts": volumes,
                # Instead of anonymous volumes, which would remain if somebody else removes the container.
                "Tmpfs": dict.fromkeys(built.get("Volumes") or {}, "size=1m"),
                "RestartPolicy": {"Name": "no"},
                **resources.limits(),
                "PidsLimit": PROCESSES,
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges"],
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "8m"}},
            },
        }


@contextmanager
def sandbox_container(
    image: str,
    argv: Sequence[str],
    owner: str,
    progress: Progress,
    *,
    like: str | None = None,
    seed: str | None = None,
) -> Generator[SandboxContainer]:
    """Run `argv` in a new container of the image (by its id: nothing is pulled), with `owner` in its label.

    It has no network, no mount of this machine, no privileges, and the memory limits of the container `like`. It can
    read the volume `seed`, but not write to it. However the block ends, the container and its volume are removed.
    Raises DrillImpossible or EngineUnreachable.
    """
    engine = Engine(find_endpoint(os.environ))
    try:
        container = SandboxContainer(engine, f"{PREFIX}{secrets.token_hex(4)}")
        try:
            progress.check()
            resources = resources_of(engine, like)
            container.differs = resources.differs
            container.start(image, argv, {LABEL: owner}, resources, seed, like)
            yield container
        finally:
            with progress.uninterrupted():
                container.remove()
    finally:
        engine.close()


def remove_leftovers(owner: str, label: str = LABEL) -> list[str]:
    """Remove every container and volume with that owner in its label; return the names of those removed.

    Call it only when none of them can be in use. Raises HostError when the engine can't be asked.
    """
    engine = Engine(find_endpoint(os.environ))
    try:
        labelled = f"{label}={owner}"
        found = engine.containers_labelled([labelled])
        containers = [container_name(container) for container in found]
        kept = {name for name in containers if remove(engine.remove_container, name, "container")}
        volumes = engine.volumes_labelled(labelled)
        kept |= {name for name in volumes if remove(engine.remove_volume, name, "volume")}
        return sorted({*containers, *volumes} - kept)
    finally:
        engine.close()


def remove(call: Callable[[str], None], name: str, kind: str) -> list[str]:
    """Remove something; return a warning if it stays, else []. Retries while the engine is busy removing it itself."""
    until = time.monotonic() + REMOVAL_SECONDS
    while True:
        try:
            call(name)
            return []
        except HostError as error:
            if isinstance(error, EngineRefused) and error.status == 404:
                return []
            if not isinstance(error, EngineRefused) or time.monotonic() > until:
                warning = f"The {kind} {name} is left behind: {error.message}"
                log.warning(warning)
                return [warning]
        time.sleep(0.2)


def _home() -> bytes:
    """Build a tar archive with the account's /etc/passwd entry, which initdb needs, and its home directory.

    It is unpacked into the container before the start, so it does not matter which accounts the image has, who owns
    its directories and which of them are volumes.
    """
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        passwd = f"root:x:0:0:root:/root:/bin/sh\npostgres:x:{ACCOUNT}:{ACCOUNT}::{HOME}:/bin/sh\n".encode()
        file = tarfile.TarInfo("etc/passwd")
        file.size, file.mode = len(passwd), 0o644
        tar.addfile(file, io.BytesIO(passwd))
        directory = tarfile.TarInfo(HOME.lstrip("/"))
        directory.type, directory.mode = tarfile.DIRTYPE, 0o700
        directory.uid = directory.gid = ACCOUNT
        tar.addfile(directory)
    return archive.getvalue()
