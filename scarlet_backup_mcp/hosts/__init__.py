"""Where PostgreSQL's programs run: in a container (`docker`) or on this machine (`local`). No PostgreSQL here."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

from ..errors import ProgramMissing
from ..progress import Progress

CHUNK = 1 << 20
"""Bytes to move at a time."""
NO_PROCESS = (
    "If the container limits its processes or memory (`pids_limit`, `mem_limit`), raise that limit. Else its image has "
    "no shell: set SCARLET_BACKUP_VIA=local."
)
"""What to do where the container runtime can't start a process."""
POLL = 0.25
"""Seconds between two checks for cancellation while a program is silent."""


Packed = bool | Literal["kept"]
"""Whether a program's output, if that is much, may come here compressed where that is faster. With True, `read` gives
the plain bytes; with "kept", a zstd stream if the output came as one."""


@dataclass(frozen=True)
class Exit:
    """How a program ended. `code` is None if it can't be known any more (the container or the engine went away), and
    128 + n after signal n: 137 also when the whole container was killed. `stderr` is its last 64 KiB, as text."""

    code: int | None
    stderr: str


class Process(Protocol):
    """A running program. A thread reads its output, so a slow caller delays it no longer than necessary; `read` and
    `write` may be called from different threads."""

    def read(self, timeout: float | None = None) -> bytes | None:
        """Return the next chunk of stdout; None after `timeout` seconds without any.

        Returns b"", on every call, once the program has ended and all its output was read. A program that closes its
        stdout early but works on is still running, so its input must still be fed. Raises EngineUnreachable when
        contact with it is lost.
        """
        ...

    def write(self, data: bytes) -> None:
        """Feed stdin. Raises OSError when the program takes no more."""
        ...

    def end_input(self) -> None:
        """Close stdin: the program sees the end of its input."""
        ...

    def kill(self) -> None:
        """End the program where it runs (TERM, then KILL after 5 s), discard its output, and return when it is gone.

        Harmless when it has ended; never raises. From any thread. If it can't be reached (a paused container, an
        engine that does not answer) this returns after 10 s and keeps trying in the background."""
        ...

    def wait(self) -> Exit:
        """Discard what is left of stdout, wait for the end and release everything; a pending write fails.

        Does not end the input: call `end_input` or `kill` first, or a program that reads stdin never ends.
        """
        ...


@dataclass(frozen=True)
class Dependent:
    """A container that depends on the database's service, or is connected to it. `running` is its state at that time;
    `service` is "" if it is not of the same Compose project."""

    id: str
    name: str
    service: str
    running: bool


@dataclass(frozen=True)
class Mount:
    """A volume (`source` is its name) or a directory of the machine, as a container sees it."""

    kind: str
    """Docker's term: volume, bind, tmpfs …"""
    source: str
    destination: str
    writable: bool = True
    path: str = ""
    """Where its content lies on the engine's machine, as the engine says."""


@dataclass(frozen=True)
class ContainerInfo:
    """What is known about the container. On a local host, all its fields are None."""

    kind: Literal["docker", "local"]
    container: str | None = None
    container_id: str | None = None
    state: str | None = None
    """Docker's term: created, running, paused, restarting, removing, exited, dead."""
    health: str | None = None
    """starting, healthy, unhealthy; None without a health check."""
    started_at: str | None = None
    image: str | None = None
    image_id: str | None = None
    project: str | None = None
    service: str | None = None
    user: str = ""
    """The account that the container's program is started as; "" is root."""
    data_directory: str | None = None
    """Where the server keeps its data, by the container's command and environment."""
    server_options: Mapping[str, str] = field(default_factory=dict[str, str])
    """Settings in the command line of the container's server, such as `port`."""
    only_candidate: bool = False
    """Whether it was found only because no other container runs PostgreSQL."""
    mounts: tuple[Mount, ...] = ()
    working_dir: str | None = None
    """Compose's project directory, in the spelling of the machine that ran Compose."""
    engine_local: bool = True
    """Whether the engine shares this machine's file system."""
    engine: str | None = None
    """The engine's address, unless it is this machine's default."""
    auto_remove: bool = False
    """Whether the engine removes the container as soon as it stops."""
    environment: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """The container's own environment: holds secrets, never shown."""

    @property
    def data_mount(self) -> Mount | None:
        """The mount that holds the data directory; None if that lies in the container itself."""
        if self.data_directory is None:
            return None
        above = [m for m in self.mounts if PurePosixPath(self.data_directory).is_relative_to(m.destination)]
        return max(above, key=lambda mount: len(PurePosixPath(mount.destination).parts), default=None)

    @property
    def mounts_inside(self) -> list[Mount]:
        """The mounts below the data directory."""
        if self.data_directory is None:
            return []
        inside = PurePosixPath(self.data_directory)
        return [m for m in self.mounts if inside in PurePosixPath(m.destination).parents]

    @property
    def volume(self) -> str | None:
        """Name of the volume that holds the data directory."""
        mount = self.data_mount
        return mount.source if mount is not None and mount.kind == "volume" else None


class Host(Protocol):
    """A place where programs run."""

    kind: Literal["docker", "local"]

    def container_info(self) -> ContainerInfo:
        """Inspect the container now, running or not. Raises EngineUnreachable or ContainerMissing."""
        ...

    def require_running(self) -> ContainerInfo:
        """Inspect the container, and raise ContainerNotRunning or ContainerPaused unless programs can be started."""
        ...

    def start(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, stdin: bool = False, packed: Packed = False
    ) -> Process:
        """Start a program with these arguments; no shell reads them. Raises HostError."""
        ...

    def free_bytes(self, directory: str) -> int | None:
        """Return the free bytes where `directory` lies, as the programs see it; None if unknown."""
        ...

    def dependents(self) -> list[Dependent]:
        """List the containers of the same Compose project that depend on this service; [] on a local host."""
        ...

    def containers_at(self, addresses: Collection[str]) -> dict[str, Dependent]:
        """Find the running containers that have these addresses in a network, by address; {} on a local host."""
        ...

    def stop_container(self, container_id: str, seconds: int = 10) -> None:
        """Stop a container: its stop signal, then KILL after `seconds`."""
        ...

    def start_container(self, container_id: str) -> None:
        """Start a container. One that runs is left alone."""
        ...

    def container_log(self, container_id: str, lines: int) -> str:
        """Return the last lines that a container's own program wrote."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


def run(
    host: Host,
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    source: Iterable[bytes] | None = None,
    sink: Callable[[bytes], object] | None = None,
    progress: Progress | None = None,
    look: Callable[[], None] = lambda: None,
    packed: Packed = False,
) -> Exit:
    """Run a program to its end: feed it `source`, pass its stdout to `sink`, and call `look` all the while.

    When `source`, `sink`, `look` or the progress's cancellation raises, the program is killed *before* its input ends
    (an end would make partial input look complete), the rest of its output is discarded, and the exception goes on.
    A program that stops reading early is no error here; its exit code tells. Check `Exit.code`: unless it is 0,
    neither the input nor the output can be relied on.
    """
    progress = progress or Progress()
    progress.check()
    process = host.start(argv, env=env, stdin=source is not None, packed=packed)
    feed: _Feed | None = None
    try:
        if source is not None:
            feed = _Feed(process, source)
        while chunk := _next_chunk(process, progress, feed, look):
            if sink is not None:
                sink(chunk)
    except BaseException:
        if feed is not None:
            feed.stop()
        process.kill()
        raise
    finally:
        if feed is not None:
            feed.stop()
        ended = process.wait()
        if feed is not None:
            feed.join()
    progress.check()  # an end that a cancellation caused is no good end
    return ended


def output_of(
    host: Host,
    argv: Sequence[str],
    watch: Callable[[bytes], object],
    *,
    env: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    packed: Packed = False,
) -> Generator[bytes, None, Exit]:
    """Yield a program's stdout in chunks, after passing each to `watch`; return its `Exit`.

    The program is killed if the generator is closed early, or if `watch` or the progress raises.
    """
    progress = progress or Progress()
    progress.check()
    process = host.start(argv, env=env, packed=packed)
    try:
        while chunk := _next_chunk(process, progress):
            watch(chunk)
            yield chunk
    except BaseException:
        process.kill()
        raise
    finally:
        ended = process.wait()
    return ended


def _next_chunk(
    process: Process, progress: Progress, feed: _Feed | None = None, look: Callable[[], None] = lambda: None
) -> bytes:
    while True:
        progress.check()
        look()
        chunk = process.read(POLL)
        if feed is not None and feed.error is not None:
            raise feed.error
        if chunk is not None:
            return chunk


class _Feed:
    """Writes a source to a program's stdin, in a thread. `error` is what the *source* raised."""

    def __init__(self, process: Process, source: Iterable[bytes]) -> None:
        self.error: BaseException | None = None
        self._process, self._source = process, source
        self._stopped = False
        self._ending = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="feed", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            chunks = iter(self._source)
            while not self._stopped and (chunk := next(chunks, None)) is not None:
                try:
                    self._process.write(chunk)
                except OSError:
                    return
        except BaseException as error:
            self.error = error
            self._process.kill()
            return
        with self._ending:
            if not self._stopped:
                self._process.end_input()

    def stop(self) -> None:
        """Stop feeding, and leave the input open: only a source that was read to its end closes it."""
        with self._ending:
            self._stopped = True

    def join(self) -> None:
        """Wait for the thread, but not for a source that hangs. Call after `Process.wait`: it fails a blocked write."""
        self._thread.join(timeout=5)


def missing_program(argv: Sequence[str], ended: Exit) -> ProgramMissing | None:
    """Return the error to raise if a program could not be started at all, else None.

    Shells and container runtimes then end with code 127 (not found) or 126 (found, but not executable); PostgreSQL's
    own programs use neither.
    """
    if ended.code not in (126, 127):
        return None
    said = ended.stderr.strip() or f"exit code {ended.code}"
    no_shell = "exec failed" in said  # the container runtime's own words: not even the shell before it was started
    return ProgramMissing(f"{argv[0]} could not be started: {said}.", NO_PROCESS if no_shell else None)


def free_bytes_of(directory: Path) -> int | None:
    """Return this user's free bytes where `directory` lies on this machine; None if unknown."""
    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return None


__all__ = [
    "CHUNK",
    "POLL",
    "ContainerInfo",
    "Dependent",
    "Exit",
    "Host",
    "Mount",
    "Packed",
    "Process",
    "free_bytes_of",
    "missing_program",
    "output_of",
    "run",
]
