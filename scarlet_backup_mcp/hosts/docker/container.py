"""Programs in a Docker container, through the Engine API."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from ...errors import ContainerMissing, ContainerNotRunning, ContainerPaused, HostError
from ...nearest import nearest
from .. import ContainerInfo, Dependent, Mount, Packed, run
from .candidates import container_environment, data_directory, server_options, several, the_only_one
from .engine import DEFAULT_ADDRESS, Answer, Engine, EngineRefused, container_name, find_endpoint
from .exec_stream import ExecProcess
from .labels import DEPENDS_ON, ONEOFF, PROJECT, SERVICE, WORKING_DIR

STOP_SECONDS = 10
PROCESSES_TO_PACK = 64
"""With a lower limit of processes and threads a container has none to spare for compressing an output."""
# What libpq and PostgreSQL's programs read, as a shell can unset it.
_CLIENT_VARIABLE = re.compile(r"PG\w*", re.ASCII)
_PROGRAMS = re.compile(r"/usr/lib/postgresql/\d+/bin")
"""Where Debian keeps PostgreSQL's programs. In /usr/bin there is a Perl script for each, which takes four times as long
to start it (seen in pgvector/pgvector:pg15, where PATH has this directory last)."""


class DockerHost:
    """Run programs in the container of that name, or else in the one of that Compose project and service, or else in
    the only one that runs PostgreSQL and has the labels `else_with`.

    An empty name or project is ignored, and so is an `else_with` of None. If name and project are given, the labels are
    used when no container has the name; with `stand_in` false, the container of that name must have them instead.
    Several containers are refused, because nothing says which one is meant.

    `container_info` (or whichever call comes first) looks the container up. Programs then run in that very container
    until `container_info` is called again, so one procedure never spans two containers unseen. Threads may share a
    host.
    """

    kind: Literal["docker", "local"] = "docker"

    def __init__(
        self,
        container: str,
        service: str = "",
        project: str = "",
        *,
        stand_in: bool = True,
        else_with: Mapping[str, str] | None = None,
    ) -> None:
        self._name, self._service, self._project = container, service, project
        self._stand_in, self._else_with = stand_in, else_with
        self._only_candidate = False
        self._lock = threading.Lock()
        self._connected: Engine | None = None
        self._container_id: str | None = None
        self._environment_names: tuple[str, ...] = ()
        self._path = ""
        self._few_processes = False

    def container_info(self) -> ContainerInfo:
        """Inspect the container. `image_id` is the digest of the image that it was made from."""
        return self._info(self._find())

    def _info(self, found: Answer) -> ContainerInfo:
        self._pin(found)
        settings: Answer = found["Config"]
        state: Answer = found["State"]
        labels: dict[str, str] = settings.get("Labels") or {}
        endpoint = self._engine().endpoint
        return ContainerInfo(
            kind="docker",
            container=found["Name"].lstrip("/"),
            container_id=found["Id"],
            state=state["Status"],
            health=(state["Health"]["Status"] if state.get("Health") else None)
            or None,  # Podman says "" without a check
            started_at=state["StartedAt"],
            image=settings["Image"],
            image_id=found["Image"],
            project=labels.get(PROJECT),
            service=labels.get(SERVICE),
            user=settings.get("User") or "",
            data_directory=data_directory(found),
            mounts=tuple(mount_of(mount) for mount in found["Mounts"]),
            working_dir=labels.get(WORKING_DIR),
            auto_remove=bool(found["HostConfig"].get("AutoRemove")),
            engine_local=endpoint.local,
            engine=None if endpoint.address == DEFAULT_ADDRESS else endpoint.address,
            environment=container_environment(found),
            server_options=server_options(found),
            only_candidate=self._only_candidate,
        )

    def require_running(self) -> ContainerInfo:
        """Inspect the container, and raise unless it runs. Unhealthy or starting is running; restarting is not."""
        found = self._find()
        _check_running(found)
        return self._info(found)

    def start(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, stdin: bool = False, packed: Packed = False
    ) -> ExecProcess:
        """Start a program. One that the container lacks ends with code 127 (see `missing_program`).

        No PG* variable of the container's own environment reaches it: it might point at another server. PostgreSQL's
        programs themselves are found before Debian's scripts for them.
        Raises EngineUnreachable, ContainerMissing, ContainerNotRunning, ContainerPaused or HostError.
        """
        container = self._require_id()
        env = {**({"PATH": self._path} if self._path else {}), **(env or {})}
        without = [name for name in self._environment_names if name not in env]
        try:
            packed = False if self._few_processes else packed
            return ExecProcess(self._engine(), container, argv, env, stdin, without, packed)
        except EngineRefused as refused:
            found = self._inspect(container)
            if found is None:
                raise ContainerMissing(f"The container {self._name} ({container[:12]}) is gone.") from refused
            _check_running(found)
            raise

    def free_bytes(self, directory: str) -> int | None:
        """Ask the container's own `df` for the free bytes where `directory` lies; None if it can't say."""
        table = bytearray()
        try:
            ended = run(self, ["df", "-Pk", "--", directory], env={"LC_ALL": "C"}, sink=table.extend)
        except HostError:
            return None
        # POSIX: blocks, used, available, capacity; the names around them may hold spaces
        row = re.search(rb"\s\d+\s+\d+\s+(\d+)\s+\d+%\s", bytes(table))
        return int(row[1]) * 1024 if ended.code == 0 and row else None

    def dependents(self) -> list[Dependent]:
        """Find dependents by their Compose labels, sorted by name, without one-off containers."""
        container_info = self.container_info()
        if not container_info.project or not container_info.service:
            return []
        found = self._engine().containers_labelled([f"{PROJECT}={container_info.project}", DEPENDS_ON])
        dependents = [dependent_of(item) for item in found if depends_on(item["Labels"], container_info.service)]
        return sorted(dependents, key=lambda dependent: dependent.name)

    def containers_at(self, addresses: Collection[str]) -> dict[str, Dependent]:
        """Find the running containers that have these addresses in a network, by address."""
        project, found = self.container_info().project, dict[str, Dependent]()
        for item in self._engine().containers_running() if addresses else []:
            held = dependent_of(item)
            held = held if item["Labels"].get(PROJECT) == project else replace(held, service="")
            networks = item["NetworkSettings"]["Networks"].values()
            own = {network.get(key) for network in networks for key in ("IPAddress", "GlobalIPv6Address")}
            found |= {address: held for address in addresses if address in own}
        return found

    def stop_container(self, container_id: str, seconds: int = STOP_SECONDS) -> None:
        """Stop a container: its stop signal, then KILL after `seconds`."""
        self._engine().stop_container(container_id, seconds)

    def start_container(self, container_id: str) -> None:
        """Start a container. One that runs is left alone."""
        self._engine().start_container(container_id)

    def container_log(self, container_id: str, lines: int) -> str:
        """Return the last lines that a container's own program wrote."""
        return self._engine().container_log(container_id, lines)

    def close(self) -> None:
        """Close the connection. The host connects again when it is next used."""
        with self._lock:
            connected, self._connected = self._connected, None
        if connected is not None:
            connected.close()

    def _engine(self) -> Engine:
        """Connect outside the lock: an engine that hangs must not make `close` hang too."""
        with self._lock:
            if self._connected is not None:
                return self._connected
        engine = Engine(find_endpoint(os.environ))
        with self._lock:
            if self._connected is None:
                self._connected = engine
                return engine
            connected = self._connected
        engine.close()
        return connected

    def _require_id(self) -> str:
        return self._container_id or self._pin(self._find())

    def _pin(self, found: Answer) -> str:
        environment = container_environment(found)
        self._environment_names = tuple(name for name in environment if _CLIENT_VARIABLE.fullmatch(name))
        self._path = _programs_first(environment.get("PATH", ""))
        self._few_processes = 0 < (found["HostConfig"].get("PidsLimit") or 0) < PROCESSES_TO_PACK
        self._container_id = container_id = str(found["Id"])
        return container_id

    def _find(self) -> Answer:
        found = self._find_by_name()
        if found is not None and not self._stand_in:
            self._require_labels(found)
        elif found is None and (self._stand_in or not self._name):
            found = self._find_by_labels() or self._find_the_only_one()
        if found is None:
            names = nearest(self._name or self._project, map(container_name, self._engine().containers()))
            raise ContainerMissing(f"There is {' and '.join(self._sought())}. There are: {names}.")
        return found

    def _require_labels(self, found: Answer) -> None:
        labels: dict[str, str] = found["Config"].get("Labels") or {}
        for label, kind, wanted in ((PROJECT, "project", self._project), (SERVICE, "service", self._service)):
            if wanted and labels.get(label) != wanted:
                actual = f"the {kind} {labels[label]!r}" if labels.get(label) else f"no Compose {kind}"
                raise ContainerMissing(
                    f"The container {self._name!r} belongs to {actual}; the settings say {wanted!r}.",
                    f"Correct SCARLET_BACKUP_CONTAINER or SCARLET_BACKUP_{kind.upper()}, or unset one of them.",
                )

    def _sought(self) -> list[str]:
        by_name = [f"no container named {self._name!r}"] if self._name else []
        by_labels = bool(self._project) and (self._stand_in or not self._name)
        labels = f"none of the Compose project {self._project!r} for its service {self._service!r}"
        at_all = ["no other one that runs PostgreSQL"] if self._else_with is not None else []
        return [*by_name, *([labels] if by_labels else []), *at_all]

    def _find_by_name(self) -> Answer | None:
        if not self._name:
            return None
        found = self._inspect(self._name)
        # The engine also accepts the beginning of an id: "db" would find the container db31c0…
        if found is None or (found["Name"] != f"/{self._name}" and found["Id"][:12] != self._name[:12]):
            return None
        return found

    def _find_the_only_one(self) -> Answer | None:
        """Raise SeveralCandidates if there are several. The one that was found then counts as named: what is started
        later changes nothing."""
        found = None if self._else_with is None else the_only_one(self._engine(), self._else_with)
        if found is not None:
            self._name, self._project, self._else_with = found["Name"].lstrip("/"), "", None
            self._only_candidate = True
        return found

    def _find_by_labels(self) -> Answer | None:
        """Raise SeveralCandidates if there are several."""
        if not self._project:
            return None
        labels = [f"{PROJECT}={self._project}", f"{SERVICE}={self._service}", f"{ONEOFF}=False"]
        found = self._engine().containers_labelled(labels)
        inspected = [answer for item in found if (answer := self._inspect(item["Id"])) is not None]
        if len(inspected) > 1:
            raise several(inspected)
        return inspected[0] if inspected else None

    def _inspect(self, name: str) -> Answer | None:
        try:
            return self._engine().inspect_container(name)
        except EngineRefused as refused:
            if refused.status == 404:
                return None
            raise


def _check_running(found: Answer) -> None:
    name, state = found["Name"].lstrip("/"), found["State"]["Status"]
    if state == "paused":
        raise ContainerPaused(f"The container {name} is paused.")
    if state != "running":
        how = f"exited with code {found['State']['ExitCode']}" if state == "exited" else f"its state is {state!r}"
        raise ContainerNotRunning(f"The container {name} is not running: {how}.")


def mount_of(found: Answer) -> Mount:
    """Return what an entry of a container's `Mounts` says."""
    path: str = found.get("Source", "")
    return Mount(found["Type"], found.get("Name") or path, found["Destination"], found["RW"], path)


def depends_on(labels: Mapping[str, str], service: str) -> bool:
    """Tell whether a container depends on that service by Compose's label, for example
    "postgres:service_healthy:false,redis:service_started:true"."""
    services = [item.partition(":")[0].strip() for item in labels.get(DEPENDS_ON, "").split(",")]
    return service in services and labels.get(ONEOFF, "False").lower() != "true"


def dependent_of(item: Answer) -> Dependent:
    """Return what a listing says of a container that depends on another one."""
    return Dependent(
        id=item["Id"],
        name=container_name(item),
        service=item["Labels"].get(SERVICE, ""),
        running=item["State"] in ("running", "restarting"),
    )


def _programs_first(path: str) -> str:
    """Return a PATH in which the directories of PostgreSQL's programs stand before /usr/bin."""
    directories = path.split(":")
    programs = [directory for directory in directories if _PROGRAMS.fullmatch(directory)]
    others = [directory for directory in directories if directory not in programs]
    at = others.index("/usr/bin") if "/usr/bin" in others else len(others)
    return ":".join([*others[:at], *programs, *others[at:]])
