"""Find the Docker engine that is meant, and connect to it, typed. Only this and `client` know docker-py."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...errors import EngineUnreachable
from .refusals import EngineRefused, refused
from .unreachable import unreachable

DEFAULT_ADDRESS = "npipe:////./pipe/docker_engine" if sys.platform == "win32" else "unix:///var/run/docker.sock"
TIMEOUT_SECONDS = 60
"""For one answer of the engine. Docker Desktop may need much of it to wake from its resource saver."""

SILENCE_SECONDS = 20.0
"""How long an answer or a program's stream may be silent before the engine is pinged on another connection."""
PING_SECONDS = 25
"""How long to wait for that ping. So an engine that wakes within 40 s interrupts nothing. One that stays silent is
reported after 50 s at most (`exec_stream` checks every 5 s), which leaves 25 s for cleaning up of the 75 s in which
every call has to end."""
SILENT_PING_SECONDS = 3
"""How long to wait for a ping if the engine did not answer the last one."""

_PODMANS_STATES = {"configured": "created", "initialized": "created", "stopped": "exited", "stopping": "running"}
"""States that only Podman knows, in Docker's words. See `libpod/define/containerstate.go` in Podman's source."""
IDLE = ("created", "exited", "dead", "removing")
"""Docker's states of a container in which nothing runs and which does not start by itself."""

Answer = dict[str, Any]
"""A JSON object from the Engine API."""


@dataclass(frozen=True)
class Endpoint:
    """Where an engine listens: `address` as DOCKER_HOST spells it; `certificates` holds ca.pem, cert.pem, key.pem."""

    address: str
    certificates: Path | None = None
    verify: bool = True

    @property
    def local(self) -> bool:
        """Whether the engine shares this machine's file system, judging by its address."""
        parts = urlsplit(self.address)
        if parts.scheme in ("tcp", "http", "https"):
            return is_loopback(parts.hostname or "")
        return parts.scheme in ("unix", "npipe")


def container_name(listed: Answer) -> str:
    """Return the name of a container from a listing; its id if it has no name, like one that is being removed."""
    name: str = (listed["Names"] or [listed["Id"]])[0]
    return name.lstrip("/")


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address means this machine."""
    return host.lower() in ("localhost", "::1") or host.startswith("127.")


def find_endpoint(environment: Mapping[str, str]) -> Endpoint:
    """Find the engine that `docker` itself would talk to with these variables.

    The order is that of Docker's command line: DOCKER_HOST (with DOCKER_TLS_VERIFY and DOCKER_CERT_PATH),
    DOCKER_CONTEXT, the configuration's current context, the platform's default socket. docker-py 7.2 is not asked: if
    a context does not exist or config.json is missing, it falls back to the default socket, perhaps another engine.

    Raises EngineUnreachable for a context that does not exist or can't be read.
    """
    configuration = Path(environment.get("DOCKER_CONFIG") or Path.home() / ".docker")
    if address := environment.get("DOCKER_HOST"):
        verify, path = environment.get("DOCKER_TLS_VERIFY"), environment.get("DOCKER_CERT_PATH")
        certificates = Path(path) if path else configuration if verify else None
        return Endpoint(address, certificates, verify=bool(verify))
    context = environment.get("DOCKER_CONTEXT") or _current_context(configuration)
    return Endpoint(DEFAULT_ADDRESS) if context == "default" else _endpoint_of_context(configuration, context)


def _current_context(configuration: Path) -> str:
    try:
        settings: Answer = json.loads((configuration / "config.json").read_bytes())
        return str(settings.get("currentContext") or "default")
    except FileNotFoundError:
        return "default"
    except (OSError, ValueError, AttributeError) as error:
        why = (error.strerror or "no reason is known") if isinstance(error, OSError) else "it is not valid JSON"
        raise EngineUnreachable(
            f"Docker's settings in {configuration / 'config.json'} can't be read: {why}.",
            "Correct that file, or set DOCKER_HOST or DOCKER_CONTEXT.",
        ) from error


def _endpoint_of_context(configuration: Path, context: str) -> Endpoint:
    """Read a context from its directory, named by the SHA-256 of its name (see `docker context inspect`)."""
    number = hashlib.sha256(context.encode()).hexdigest()
    try:
        meta: Answer = json.loads((configuration / "contexts/meta" / number / "meta.json").read_bytes())
        settings: Answer = meta["Endpoints"]["docker"]
        address = str(settings["Host"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineUnreachable(
            f"The Docker context {context!r} does not exist in {configuration} or can't be read.",
            "Choose one that `docker context ls` shows, with `docker context use` or DOCKER_CONTEXT.",
        ) from error
    certificates = configuration / "contexts/tls" / number / "docker"
    verify = not settings.get("SkipTLSVerify", False)
    return Endpoint(address, certificates if certificates.is_dir() else None, verify)


class Engine:
    """A connection to an engine. Every method may raise EngineUnreachable or EngineRefused.

    Threads may share it: docker-py is a requests session over a urllib3 pool that hands a connection to one thread
    at a time, opens more when its ten are taken, and never takes back one that became an exec's stream.
    """

    def __init__(self, endpoint: Endpoint, timeout: int = TIMEOUT_SECONDS) -> None:
        self.endpoint = endpoint
        self.silent = False
        """Whether it failed to answer the last time."""
        try:
            from .client import Client, tls

            self._api: Any = Client(
                base_url=endpoint.address,
                tls=tls(endpoint.address, endpoint.certificates, endpoint.verify) or False,
                version="auto",
                timeout=timeout,
                use_ssh_client=True,
            )
        except EngineUnreachable:
            raise
        except Exception as error:
            if "paramiko" in str(error):
                raise EngineUnreachable(
                    f"The engine at {endpoint.address} needs docker-py's ssh support, which is not installed.",
                    'Install it with `pip install "docker[ssh]"`, or reach the engine another way.',
                ) from error
            raise unreachable(endpoint.address, error, certificates=endpoint.certificates) from error

    def answers(self) -> bool:
        """Ping the engine on a new connection. From any thread."""
        try:
            Engine(self.endpoint, SILENT_PING_SECONDS if self.silent else PING_SECONDS).close()
        except EngineUnreachable:
            self.silent = True
        else:
            self.silent = False
        return not self.silent

    def inspect_container(self, name_or_id: str) -> Answer:
        """Return a container's state and configuration. 404 if there is none."""
        found: Answer = self._ask(f"look at the container {name_or_id}", self._api.inspect_container, name_or_id)
        found["State"]["Status"] = _dockers_state(found["State"]["Status"])
        return found

    def containers_labelled(self, labels: Iterable[str]) -> list[Answer]:
        """List the containers, in any state, that have all these labels ("key" or "key=value")."""
        return self._containers(filters={"label": list(labels)})

    def create_container(self, name: str, configuration: Answer) -> None:
        """Create a container (the API's ContainerCreate). 404: no such image, 409: the name is taken."""
        self._ask(f"make the container {name}", self._api.create_container_from_config, configuration, name)

    def unpack(self, container: str, archive: bytes) -> None:
        """Unpack a tar archive into a container's root directory and volumes. The container need not run."""
        self._ask(f"put files into the container {container}", self._api.put_archive, container, "/", archive)

    def has_file(self, container: str, path: str) -> bool:
        """Tell whether a container, running or not, has such a file."""
        try:
            content, _ = self._ask(f"look for {path} in a container", self._api.get_archive, container, path)
        except EngineRefused as refused:
            if refused.status == 404:
                return False
            raise
        content.close()
        return True

    def container_log(self, container: str, lines: int) -> str:
        """Return the last lines that a container's own program wrote."""
        doing = f"read the log of the container {container}"
        return self._ask(doing, self._api.logs, container, tail=lines).decode("utf-8", errors="replace")

    def remove_container(self, name: str) -> None:
        """Kill and remove a container, with its anonymous volumes. 404 if there is none."""
        self._ask(f"remove the container {name}", self._api.remove_container, name, force=True, v=True)

    def inspect_image(self, name_or_id: str) -> Answer:
        """Return an image's configuration. 404 if there is none."""
        return self._ask(f"look at the image {name_or_id}", self._api.inspect_image, name_or_id)

    def volumes_labelled(self, label: str) -> list[str]:
        """List the names of the volumes with that label ("key" or "key=value")."""
        found: list[Answer] | None = self._ask("list volumes", self._api.volumes, filters={"label": label})["Volumes"]
        return [volume["Name"] for volume in found or []]

    def volume_labels(self, name: str) -> dict[str, str]:
        """Return a volume's labels. 404 if there is none."""
        found: Answer = self._ask(f"look at the volume {name}", self._api.inspect_volume, name)
        return found["Labels"] or {}

    def volume_is_removable(self, name: str) -> bool:
        """Tell whether removing a volume removes its contents: they lie in the engine's own directory, not where a
        driver or an option puts them. 404 if there is none."""
        found: Answer = self._ask(f"look at the volume {name}", self._api.inspect_volume, name)
        return found["Driver"] == "local" and not found["Options"]

    def create_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Create a volume. One that exists stays as it is."""
        self._ask(f"make the volume {name}", self._api.create_volume, name, labels=dict(labels))

    def containers(self) -> list[Answer]:
        """List the containers in any state."""
        return self._containers()

    def containers_running(self) -> list[Answer]:
        """List the containers that are running, paused or restarting. Podman rejects a filter by states of Docker's."""
        return [found for found in self._containers() if found["State"] not in IDLE]

    def has_volume(self, name: str) -> bool:
        """Tell whether there is such a volume."""
        return self._exists(self.volume_labels, name)

    def id(self) -> str | None:
        """Return what tells this engine from others and survives restarts; None if nothing does.

        Docker has an id. Podman makes up a new one for each answer (seen on 4.3.1): it is known by its machine and
        storage.
        """
        found: Answer = self._ask("tell what it is", self._api.info)
        if "BuildahVersion" in found:
            return f"Podman on {found['Name']} in {found['DockerRootDir']}"
        return found.get("ID") or None

    def has_image(self, name_or_id: str) -> bool:
        """Tell whether there is such an image."""
        return self._exists(self.inspect_image, name_or_id)

    def _containers(self, **options: object) -> list[Answer]:
        found: list[Answer] = self._ask("list containers", self._api.containers, all=True, **options)
        return [{**container, "State": _dockers_state(container["State"])} for container in found]

    def _exists(self, inspect: Callable[[str], object], name: str) -> bool:
        try:
            inspect(name)
        except EngineRefused as refused:
            if refused.status == 404:
                return False
            raise
        return True

    def remove_volume(self, name: str) -> None:
        """Remove a volume. 404 if there is none, 409 while a container uses it."""
        self._ask(f"remove the volume {name}", self._api.remove_volume, name)

    def exec_create(
        self, container: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None, stdin: bool = False
    ) -> str:
        """Prepare a program in a container; return its exec id. 404: no such container, 409: not running or paused."""
        doing = "prepare a program in the container"
        made = self._ask(doing, self._api.exec_create, container, list(argv), stdin=stdin, environment=dict(env or {}))
        return made["Id"]

    def exec_open(self, exec_id: str) -> Any:
        """Start the program; return docker-py's socket of its stream (see `exec_stream.Connection`)."""
        return self._ask("start a program in the container", self._api.exec_start, exec_id, socket=True)

    def exec_detached(self, exec_id: str) -> None:
        """Start the program without any stream."""
        self._ask("start a program in the container", self._api.exec_start, exec_id, detach=True)

    def exec_code(self, exec_id: str) -> int | None:
        """Return the program's exit code; None while it runs. 404 when its container is gone."""
        state: Answer = self._ask("ask for an exit code", self._api.exec_inspect, exec_id)
        return None if state["Running"] else state["ExitCode"]

    def stop_container(self, container_id: str, seconds: int) -> None:
        """Stop a container: its stop signal, then KILL after `seconds`."""
        self._ask(f"stop the container {container_id[:12]}", self._api.stop, container_id, timeout=seconds)

    def signal_container(self, container_id: str, signal: str) -> None:
        """Send a signal to a container's own program. With its stop signal, which asks it to end, the engine does not
        start it again by itself. 409 if it does not run."""
        self._ask(f"ask the container {container_id[:12]} to stop", self._api.kill, container_id, signal=signal)

    def start_container(self, container_id: str) -> None:
        """Start a container."""
        self._ask(f"start the container {container_id[:12]}", self._api.start, container_id)

    def close(self) -> None:
        """Close pooled connections. Open streams go on."""
        self._api.close()

    def _ask(self, doing: str, call: Callable[..., Any], *args: object, **options: object) -> Any:
        from docker.errors import APIError, DockerException  # pyright: ignore[reportMissingTypeStubs]
        from requests import RequestException
        from urllib3.exceptions import HTTPError

        if self.silent and not self.answers():
            raise unreachable(self.endpoint.address, TimeoutError(), doing)
        try:
            return self._unless_silent(lambda: call(*args, **options))
        except APIError as error:
            raise refused(error, self.endpoint.address, doing) from error
        except Exception as error:
            # pywintypes.error, raised by docker-py's Windows pipes, is neither an OSError nor importable elsewhere.
            windows_pipe = type(error).__module__ == "pywintypes"
            if not windows_pipe and not isinstance(error, (RequestException, HTTPError, DockerException, OSError)):
                raise
            self.silent = True
            raise unreachable(self.endpoint.address, error, doing, self.endpoint.certificates) from error

    def _unless_silent(self, call: Callable[[], Any]) -> Any:
        """Return what `call` returns. Raises TimeoutError if it takes long and the engine answers no ping either."""
        answer: Future[Any] = Future()

        def work() -> None:
            try:
                answer.set_result(call())
            except BaseException as error:
                answer.set_exception(error)

        threading.Thread(target=work, name="engine", daemon=True).start()
        while not wait([answer], SILENCE_SECONDS).done:
            if not self.answers():
                raise TimeoutError
        return answer.result()


def _dockers_state(state: str) -> str:
    return _PODMANS_STATES.get(state, state)


__all__ = [
    "DEFAULT_ADDRESS",
    "Answer",
    "Endpoint",
    "Engine",
    "EngineRefused",
    "container_name",
    "find_endpoint",
    "is_loopback",
]
