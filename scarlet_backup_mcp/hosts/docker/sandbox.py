"""A throw-away container of an image that is there: out of everybody's reach, and gone with its volume afterwards."""

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
from .resources import Resources, resources_of

LABEL = "scarlet-backup-mcp.drill"
"""On the container and on its volume; the value tells whose they are."""
SEED_LABEL = "scarlet-backup-mcp.sandbox"
"""On a volume that containers begin with (see `seeds`), and on the container that fills it; the value tells for whom
it was filled."""
PREFIX = "scarlet-drill-"
COMPOSE_LABELS = "com.docker.compose."

VOLUME_AT = "/scarlet-drill"
HOME = f"{VOLUME_AT}/home"
"""The one directory in which programs there may write, on the container's own volume."""
SEED_AT = "/scarlet-sandbox"
SEED_HOME = f"{SEED_AT}/home"
"""`HOME` as it was when the volume that a container begins with was filled (see `seeds`). Nobody can write there."""
ACCOUNT = 10001
"""User and group of all programs there: as in OpenShift, any number that is not root's."""

PROCESSES = 512
LOG_LINES = 15
REMOVAL_SECONDS = 10.0

log = logging.getLogger(__name__)


class ThrowAwayContainer:
    """One under way. `host` runs programs in it; `left_behind` says, after its end, what could not be removed, and
    `differs` in what it is not like the container that it was to be like."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.name = name
        self.host = DockerHost(name)
        self.left_behind: list[str] = []
        self.differs = ""
        self._engine = engine

    def ended(self) -> str | None:
        """None while its program runs; else how that ended, and the last lines that it wrote. Raises HostError."""
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
    ) -> None:
        """Raises DrillImpossible when the engine refuses."""
        try:
            self._engine.create_container(self.name, self._configuration(image, argv, labels, resources, seed))
            self._engine.unpack(self.name, _home())
            self._engine.start_container(self.name)
        except EngineRefused as refused:
            raise DrillImpossible(f"The throw-away container could not be started. {refused.message}") from refused

    def remove(self) -> None:
        """The container first, since its volume can't go before. Never raises HostError: see `left_behind`."""
        self.host.close()
        self.left_behind += remove(self._engine.remove_container, self.name, "container")
        self.left_behind += remove(self._engine.remove_volume, self.name, "volume")

    def _configuration(
        self, image: str, argv: Sequence[str], labels: Mapping[str, str], resources: Resources, seed: str | None
    ) -> Answer:
        """As https://docs.docker.com/reference/api/engine/version/v1.41/#operation/ContainerCreate has it.

        The program takes the place of the image's entry point. What it logs may hold the user's data, so it goes into
        a file that is removed with the container, whatever the engine's own log driver.
        """
        own: Answer = {"Source": self.name, "Target": VOLUME_AT, "VolumeOptions": {"Labels": dict(labels)}}
        # The engine makes it anew, empty, if it was removed just now.
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
            # An image that Compose has built passes for a container of its project.
            "Labels": {**{name: "" for name in inherited if name.startswith(COMPOSE_LABELS)}, **labels},
            "Healthcheck": {"Test": ["NONE"]},
            "HostConfig": {
                "NetworkMode": "none",
                "Mounts": volumes,
                # In the place of anonymous volumes, which would stay when somebody else removes the container.
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
def throw_away_container(
    image: str,
    argv: Sequence[str],
    owner: str,
    progress: Progress,
    *,
    like: str | None = None,
    seed: str | None = None,
) -> Generator[ThrowAwayContainer]:
    """Run `argv` in a new container of the image (by its id: nothing is pulled), with `owner` in its label.

    No network, no mount of this machine, no privilege; memory and shared memory as the container `like` has them. It
    sees what is in the volume `seed`, and can't write to it. Whatever ends the block, the container and its volume are
    removed. Raises DrillImpossible or EngineUnreachable.
    """
    engine = Engine(find_endpoint(os.environ))
    try:
        container = ThrowAwayContainer(engine, f"{PREFIX}{secrets.token_hex(4)}")
        try:
            progress.check()
            resources = resources_of(engine, like)
            container.differs = resources.differs
            container.start(image, argv, {LABEL: owner}, resources, seed)
            yield container
        finally:
            with progress.uninterrupted():
                container.remove()
    finally:
        engine.close()


def remove_leftovers(owner: str, label: str = LABEL) -> list[str]:
    """Remove every container and volume with that owner in its label; the names of those that are gone now.

    Only for whoever knows that none of them is in use. Raises HostError when the engine can't be asked.
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
    """What is left to tell: nothing when it is gone. For a while the engine refuses what it is just doing itself."""
    until = time.monotonic() + REMOVAL_SECONDS
    while True:
        try:
            call(name)
            return []
        except HostError as error:
            if isinstance(error, EngineRefused) and error.status == 404:
                return []
            if not isinstance(error, EngineRefused) or time.monotonic() > until:
                told = f"The {kind} {name} is left behind: {error.message}"
                log.warning(told)
                return [told]
        time.sleep(0.2)


def _home() -> bytes:
    """A tar archive: the account's entry in /etc/passwd, without which initdb refuses to run, and its directory.

    Laid over the container before it starts, so it does not matter what accounts the image has, who owns its
    directories and which of them are volumes.
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
