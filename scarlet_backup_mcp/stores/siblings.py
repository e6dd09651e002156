"""Find the stores beside a container, in its Compose project, by what the engine says of them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from ..errors import BackupToolError
from ..hosts import ContainerInfo, Dependent, Mount, run
from ..hosts.docker.container import DockerHost, dependent_of, depends_on, mount_of
from ..hosts.docker.engine import Answer, Engine, EngineRefused, find_endpoint
from ..hosts.docker.labels import DEPENDS_ON, ONEOFF, PROJECT, SERVICE
from ..limits import within
from .choice import Choice, Named
from .images import DATA, store_in, version_of

SIZE_SECONDS = 2.0
"""How long one store's files may be counted."""
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")
"""A name that the engine made up, for a volume that nobody named."""


@dataclass(frozen=True)
class Store:
    """A container that keeps data beside the database. `directory` is where it keeps them, `mount` what lies there;
    `unsaved` says why its data are on nothing that could be copied, and is "" if they are."""

    service: str
    container: str
    container_id: str
    image: str
    image_id: str
    version: str | None
    running: bool
    directory: str | None
    mount: Mount | None
    auto_remove: bool = False
    unsaved: str = ""

    @property
    def place(self) -> str:
        """Where its data lie, in words."""
        if self.mount is None:
            return "no volume"
        return f"{'volume' if self.mount.kind == 'volume' else 'directory'} {self.mount.source}"


@dataclass(frozen=True)
class Siblings:
    """The stores of a project, by service. `missing`: named services that the project does not have."""

    stores: list[Store] = field(default_factory=list[Store])
    missing: list[str] = field(default_factory=list[str])


def siblings(database: ContainerInfo, choice: Choice) -> Siblings:
    """Find the stores beside the database's container; none without a Compose project. Raises HostError."""
    if not database.project:
        return Siblings()
    named = {one.service: one for one in choice.also}
    found, services = list[Store](), set[str]()
    engine = Engine(find_endpoint(os.environ))
    try:
        for item in engine.containers_labelled([f"{PROJECT}={database.project}", SERVICE]):
            labels: Mapping[str, str] = item["Labels"]
            service = labels[SERVICE]
            if item["Id"] == database.container_id or labels.get(ONEOFF, "False").lower() == "true":
                continue
            services.add(service)
            if service in choice.without:
                continue
            if (inspected := _inspect(engine, item["Id"])) and (store := _store(service, inspected, named)):
                found.append(store)
    finally:
        engine.close()
    missing = sorted(({*named} | choice.without) - services)
    return Siblings(sorted(found, key=lambda store: (store.service, store.container)), missing)


def users_of(database: ContainerInfo, stores: Sequence[Store]) -> list[Dependent]:
    """List the running containers of the project that depend on the database or on one of these stores, without those
    themselves. Raises HostError."""
    services = {service for service in (database.service, *(store.service for store in stores)) if service}
    members = {database.container_id, *(store.container_id for store in stores)}
    engine = Engine(find_endpoint(os.environ))
    try:
        listed = engine.containers_labelled([f"{PROJECT}={database.project}", DEPENDS_ON])
    finally:
        engine.close()
    users = [dependent_of(item) for item in listed if any(depends_on(item["Labels"], one) for one in services)]
    return sorted((user for user in users if user.running and user.id not in members), key=lambda user: user.name)


def bytes_of(store: Store) -> int | None:
    """Return how much its data take on the disk, in bytes; None if it does not run, has no `du`, or has too many files
    to count soon."""
    if not store.running or store.directory is None:
        return None
    counted = bytearray()

    def count() -> int | None:
        host = DockerHost(store.container_id)
        try:
            ended = run(host, ["du", "-sk", store.directory or ""], env={"LC_ALL": "C"}, sink=counted.extend)
        finally:
            host.close()
        kilobytes = counted.split()[:1]
        return int(kilobytes[0]) * 1024 if ended.code == 0 and kilobytes and kilobytes[0].isdigit() else None

    try:
        return within(SIZE_SECONDS, count)
    except BackupToolError:
        return None


def _inspect(engine: Engine, container_id: str) -> Answer | None:
    """Return None for a container that is being removed."""
    try:
        return engine.inspect_container(container_id)
    except EngineRefused as refused:
        if refused.status in (404, 409):
            return None
        raise


def _store(service: str, found: Answer, named: Mapping[str, Named]) -> Store | None:
    image, by_name = str(found["Config"]["Image"]), named.get(service)
    known = store_in(image)
    if known is None and by_name is None:
        return None
    mounts = [mount_of(mount) for mount in found["Mounts"]] + _in_memory(found)
    directory = by_name.path if by_name and by_name.path else _data_directory(known, mounts)
    mount = _mount_above(directory, mounts)
    return Store(
        service=service,
        container=found["Name"].lstrip("/"),
        container_id=found["Id"],
        image=image,
        image_id=found["Image"],
        version=version_of(image, found["Config"].get("Labels") or {}),
        running=found["State"]["Status"] == "running",
        directory=directory,
        mount=mount if mount and mount.kind in ("volume", "bind") else None,
        auto_remove=bool(found["HostConfig"].get("AutoRemove")),
        unsaved=_why_unsaved(directory, mount),
    )


def _in_memory(found: Answer) -> list[Mount]:
    """Return the mounts that `--tmpfs` made, which the engine does not list among the others."""
    paths: Mapping[str, str] = found["HostConfig"].get("Tmpfs") or {}
    return [Mount("tmpfs", "", path) for path in paths]


def _data_directory(known: str | None, mounts: Sequence[Mount]) -> str | None:
    """Return where a store's image keeps its data, if something with a name is mounted there; else where its only named
    volume is mounted."""
    usual = DATA.get(known or "")
    if usual and not _why_unsaved(usual, _mount_above(usual, mounts)):
        return usual
    volumes = [mount.destination for mount in mounts if mount.kind == "volume" and not _is_anonymous(mount)]
    return volumes[0] if len(volumes) == 1 else usual


def _is_anonymous(mount: Mount) -> bool:
    return mount.kind == "volume" and _ANONYMOUS.fullmatch(mount.source) is not None


def _mount_above(directory: str | None, mounts: Sequence[Mount]) -> Mount | None:
    """Return the mount that holds the directory."""
    above = [mount for mount in mounts if directory and PurePosixPath(directory).is_relative_to(mount.destination)]
    return max(above, key=lambda mount: len(PurePosixPath(mount.destination).parts), default=None)


def _why_unsaved(directory: str | None, mount: Mount | None) -> str:
    if directory is None:
        return "nothing says where it keeps its data: name that as service:/path in SCARLET_BACKUP_STORES"
    if mount is None:
        return f"its data in {directory} are in the container itself, and go with it"
    if _is_anonymous(mount):
        return f"its data in {directory} are on a volume without a name, which nothing finds again"
    if mount.kind not in ("volume", "bind"):
        return f"its data in {directory} are in memory ({mount.kind}), and go when it stops"
    return ""
