"""The sandbox: a throw-away server for trying a backup, set up like the live one."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ... import __version__
from ...errors import (
    BackupToolError,
    Busy,
    DirectoryNotWritable,
    DrillImpossible,
    HostError,
    ProgramMissing,
    ServerError,
)
from ...hosts.docker import sandbox as containers
from ...hosts.docker import seeds
from ...hosts.local import LocalHost
from ...postgres.cluster import local as local_cluster
from ...postgres.cluster import recovery
from ...postgres.cluster import sandbox as sandbox_cluster
from ...postgres.server.installation import installation
from ...postgres.server.session import Server
from ...progress import Progress
from ...store.lock import remove_unused, writer_lock
from ...store.names import PARTIAL
from ...store.owner import OWNER, owner_of
from .. import durations
from ..context import TAG, BackupContext

DRILLS = ".scarlet-drill"
"""In the backup directory: the lock that allows one drill at a time, and the mark of its sandboxes' owner."""
SWEEP_SECONDS = 5
"""How long a drill waits for another call that is removing leftovers."""
START_SECONDS = 60
QUERY_SECONDS = 10

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SandboxServer:
    """An empty, ready sandbox server, which exists during the block; `warnings` may grow until its end."""

    server: Server
    where: str
    """For people, for example "a sandbox container of pgvector/pgvector:pg15 (sha256:65645f1a4561)"."""
    data_directory: str
    """The path as the server's programs see it."""
    warnings: list[str] = field(default_factory=list[str])


@dataclass(frozen=True)
class Vacant:
    """A container whose server starts once its data directory is ready (`recovery.make_ready`). It exists during the
    block; `warnings` may grow until its end."""

    container: containers.SandboxContainer
    server: Server
    where: str
    bin_dir: str
    libraries: str
    """What the live server preloads."""
    warnings: list[str]
    home: str = containers.HOME


@dataclass(frozen=True)
class _Likeness:
    """What the sandbox server takes over from the live one. Empty: nothing is known."""

    bin_dir: str = ""
    libraries: str = ""
    session_libraries: str = ""
    building: Mapping[str, str] = field(default_factory=dict[str, str])
    """Memory settings for building indexes."""
    warnings: tuple[str, ...] = ()


@contextmanager
def sandbox_server(context: BackupContext, progress: Progress, tables: int = 0) -> Generator[SandboxServer]:
    """Start a sandbox server for so many `tables`, with the live server's superuser and preloaded libraries.

    With Docker it is a container of the live one's image, which need not run; else a cluster from the same bin
    directory. What killed drills left is removed first. Raises Busy while another drill of the backup directory is
    running, DirectoryNotWritable, DrillImpossible, ProgramMissing, or what `BackupContext.container_info` raises.
    """
    with _making_room(context, progress) as (likeness, owner, left):
        start = _in_container if context.settings.via == "docker" else _as_cluster
        with start(context, likeness, owner, progress, tables) as ready:
            ready.warnings.extend(left)
            yield ready


@contextmanager
def vacant_container(context: BackupContext, progress: Progress) -> Generator[Vacant]:
    """Start a container of the live one's image for a server whose data directory is yet to come. For errors and
    leftovers see `sandbox_server`."""
    with _making_room(context, progress) as (likeness, owner, left):
        image, where = _image(context)
        command = recovery.command(likeness.bin_dir, containers.HOME)
        like = context.container_info.container_id
        with containers.sandbox_container(image, command, owner, progress, like=like) as container:
            server = _server(context, container)
            warnings = [*likeness.warnings, *left, *_unlike(container, where)]
            found = Vacant(container, server, where, likeness.bin_dir, likeness.libraries, warnings)
            yield found
        found.warnings.extend(container.left_behind)


@contextmanager
def _making_room(context: BackupContext, progress: Progress) -> Generator[tuple[_Likeness, str, list[str]]]:
    """Take the lock and remove leftovers; yield what is known about the live server, the owner, and warnings."""
    with ExitStack() as held:
        owner = _begin(held, context, progress)
        left = [f"Removed {name}, left by a drill that was killed." for name in _remove_leftovers(context, owner)]
        progress.stage("starting a sandbox server", seconds=durations.SANDBOX)
        yield _likeness(context, progress), owner, left


def sweep(context: BackupContext) -> list[str]:
    """Remove what killed drills of this backup directory left; return the names of what was removed.

    Does nothing while a drill is running, or if the engine does not answer.
    """
    try:
        drills = context.directory.path / DRILLS
        if not os.path.exists(drills / OWNER):
            return []
        with writer_lock(drills, "sweep"):
            return _remove_leftovers(context, owner_of(drills))
    except (BackupToolError, OSError) as error:
        log.info("Nothing was swept: %s", error)
        return []


# -- one at a time ---------------------------------------------------------------------------------------------------


def _begin(held: ExitStack, context: BackupContext, progress: Progress) -> str:
    """Take the lock; return the owner of this backup directory's sandboxes."""
    directory = context.directory.path
    if not directory.is_dir():
        raise DirectoryNotWritable(f"There is no backup directory {directory}.")
    drills = directory / DRILLS
    try:
        drills.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise DirectoryNotWritable(
            f"A drill's lock is in the backup directory, but {drills} can't be created: {error.strerror or error}."
        ) from error
    until = time.monotonic() + SWEEP_SECONDS
    while True:
        progress.check()
        try:
            held.enter_context(writer_lock(drills, "drill"))
            return owner_of(drills)
        except Busy:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def _remove_leftovers(context: BackupContext, owner: str) -> list[str]:
    """Remove leftovers. Call it under the lock: no drill is then using any sandbox.

    A script converted from an archive is used without the lock, but is `in_use` since its creation under it."""
    scripts = (context.directory.path / DRILLS).glob(f"*{PARTIAL}")
    gone = [script.name for script in scripts if remove_unused(script)]
    docker = context.settings.via == "docker"
    return gone + (containers.remove_leftovers(owner) if docker else local_cluster.remove_leftovers(_prefix(owner)))


def _prefix(owner: str) -> str:
    return f"scarlet-drill-{owner}-"


# -- the live server -------------------------------------------------------------------------------------------------


def _likeness(context: BackupContext, progress: Progress) -> _Likeness:
    try:
        with context.maintenance_session(progress) as session:
            found = installation(session, QUERY_SECONDS)
            return _Likeness(found.bin_dir, found.libraries, found.session_libraries, found.building)
    except (HostError, ServerError) as error:
        warning = f"The sandbox preloads no libraries, because the live server's are unknown: {error.message}"
        return _Likeness(warnings=(warning,))


def _settings(likeness: _Likeness) -> dict[str, str]:
    preloaded = {
        "shared_preload_libraries": likeness.libraries,
        "session_preload_libraries": likeness.session_libraries,
    }
    return {**sandbox_cluster.SETTINGS, **likeness.building, **preloaded}


def _user(context: BackupContext) -> str:
    try:
        return context.server.user
    except HostError:  # its password is in a container that does not run
        return context.settings.user


# -- with Docker -----------------------------------------------------------------------------------------------------


@contextmanager
def _in_container(
    context: BackupContext, likeness: _Likeness, owner: str, progress: Progress, tables: int
) -> Generator[SandboxServer]:
    where = _image(context)[1]
    seed, notes = _seed(context, likeness, progress)
    with ExitStack() as held:
        try:
            container, server = held.enter_context(_started(context, likeness, owner, progress, tables, seed))
        except DrillImpossible as error:
            if seed is None:
                raise
            notes = [_without(seed, error)]
            container, server = held.enter_context(_started(context, likeness, owner, progress, tables, None))
        warnings = [*likeness.warnings, *notes, *_unlike(container, where)]
        ready = SandboxServer(server, where, f"{containers.HOME}/{sandbox_cluster.DATA}", warnings)
        yield ready
    ready.warnings.extend(container.left_behind)


@contextmanager
def _started(
    context: BackupContext, likeness: _Likeness, owner: str, progress: Progress, tables: int, seed: str | None
) -> Generator[tuple[containers.SandboxContainer, Server]]:
    home, (image, where) = containers.HOME, _image(context)
    command = sandbox_cluster.command_in_container(
        likeness.bin_dir,
        home,
        _user(context),
        sandbox_cluster.with_locks(_settings(likeness), tables),
        containers.SEED_HOME if seed else "",
    )
    like = context.container_info.container_id
    with containers.sandbox_container(image, command, owner, progress, like=like, seed=seed) as container:
        server = _server(context, container)
        _wait_until_ready(server, container, where, progress)
        yield container, server


def _seed(context: BackupContext, likeness: _Likeness, progress: Progress) -> tuple[str | None, list[str]]:
    """Return the volume with an empty cluster for this image and these settings, and notes about it."""
    if not context.settings.sandbox_cache:
        return None, []
    command, key = _seed_key(context, likeness)
    live = context.container_info
    try:
        found = seeds.seed(_image(context)[0], command, key, live.container or "", progress, live.container_id)
    except HostError as error:
        log.warning("There is no empty cluster to begin with: %s", error.message)
        return None, []
    if found is None or not found.last_line:
        return found and found.volume, []
    size = int(found.last_line.split()[0]) / 1000 if found.last_line.split()[0].isdigit() else 0
    return found.volume, [
        f"An empty cluster of {size:.0f} MB is kept for drills in the Docker volume {found.volume}. Set "
        "SCARLET_BACKUP_SANDBOX_CACHE=false to do without; pruning then removes it."
    ]


def _seed_key(context: BackupContext, likeness: _Likeness) -> tuple[list[str], str]:
    """Return the command that creates that cluster, and the key of its volume."""
    command = sandbox_cluster.seed_command(likeness.bin_dir, containers.HOME, _user(context))
    key = json.dumps([_image(context)[0], command, _settings(likeness), __version__], sort_keys=True)
    return command, hashlib.sha256(key.encode()).hexdigest()[:16]


def _without(seed: str, error: DrillImpossible) -> str:
    """Remove a volume that can't be used, so that the next drill fills it again; return a warning."""
    try:
        gone = seeds.remove_seed(seed)
    except HostError:
        gone = False
    kept = "was removed" if gone else f"could not be removed: use `docker volume rm {seed}`"
    warning = f"The empty cluster in the Docker volume {seed} was unusable and {kept}. {error.message}"
    log.warning(warning)
    return warning


def forget_seeds(context: BackupContext, progress: Progress, *, dry_run: bool) -> list[str]:
    """Remove this container's empty clusters in volumes that no drill would use any more; return notes about them.

    These were made for another image, other settings or another version of this tool; with the cache turned off, all
    are removed. Does nothing if the engine does not answer, or if the server can't be queried for the current one."""
    if context.settings.via != "docker" or context.known_container_info is None:
        return []
    why = "no drill of this image, these settings and this version of the tool uses it"
    try:
        names = seeds.unused(context.container_info.container or "")
        if names and not context.settings.sandbox_cache:
            why = "SCARLET_BACKUP_SANDBOX_CACHE is off"
        elif names:
            likeness = _likeness(context, progress)
            current = seeds.volume_of(_seed_key(context, likeness)[1])
            names = [] if likeness.warnings else [name for name in names if name != current]
        gone = names if dry_run else [name for name in names if seeds.remove_seed(name)]
    except HostError as error:
        log.info("No volume was looked for: %s", error.message)
        return []
    verb = "would be removed" if dry_run else "was removed"
    return [f"The volume {name}, an empty cluster for drills, {verb}: {why}." for name in gone]


def _unlike(container: containers.SandboxContainer, where: str) -> list[str]:
    return [f"{where} differs from the live one: {container.differs}."] if container.differs else []


def _image(context: BackupContext) -> tuple[str, str]:
    """Return the live container's image, and a description of a sandbox container of it."""
    container_info = context.container_info
    assert container_info.image_id is not None
    return container_info.image_id, f"a sandbox container of {container_info.image} ({container_info.image_id[:19]})"


def _server(context: BackupContext, container: containers.SandboxContainer) -> Server:
    reached = {"PGHOST": containers.HOME, "PGPORT": sandbox_cluster.PORT}
    return Server(container.host, _user(context), reached, f"{TAG} drill")


def _wait_until_ready(server: Server, container: containers.SandboxContainer, where: str, progress: Progress) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        progress.check()
        try:
            ready, said, *_ = server.ready()
        except HostError as error:
            ready, said = False, error.message
        if ready:
            return
        if (ended := container.ended()) is not None:
            raise DrillImpossible(f"PostgreSQL in {where} did not start: {ended}")
        if time.monotonic() > until:
            raise DrillImpossible(f"PostgreSQL in {where} is not ready after {START_SECONDS} s: {said}")
        time.sleep(0.1)


# -- on this machine -------------------------------------------------------------------------------------------------


@contextmanager
def _as_cluster(
    context: BackupContext, likeness: _Likeness, owner: str, progress: Progress, tables: int
) -> Generator[SandboxServer]:
    bin_dir = _server_programs(context.settings.bin_dir, likeness)
    made = local_cluster.LocalCluster(
        lambda: bin_dir,
        user=_user(context),
        settings=sandbox_cluster.with_locks(_settings(likeness), tables),
        prefix=_prefix(owner),
    )
    where = f"a sandbox cluster of {bin_dir}"
    try:
        made.start(progress)
    except HostError as error:
        raise DrillImpossible(f"{where} did not start. {error.message}") from error
    host = LocalHost(context.settings.bin_dir, made.environment)  # with the same client programs as the live server
    server = Server(host, made.user, made.environment, f"{TAG} drill")
    ready = SandboxServer(server, where, str(made.data), list(likeness.warnings))
    try:
        yield ready
    finally:
        with progress.uninterrupted():
            try:
                made.stop()
            except HostError as error:
                warning = f"{where} could not be removed: {error.message}"
                log.warning(warning)
                ready.warnings.append(warning)


def _server_programs(bin_dir: Path | None, likeness: _Likeness) -> Path:
    """Find the server programs in the configured directory, else in the live server's or in PATH."""
    live = [Path(likeness.bin_dir)] if likeness.bin_dir else []
    path = [Path(entry) for entry in os.get_exec_path() if Path(entry).is_absolute()]
    try:
        return sandbox_cluster.find_server_programs([bin_dir, *live] if bin_dir else [*live, *path])
    except ProgramMissing as error:
        raise ProgramMissing(
            error.message,
            "Set SCARLET_BACKUP_BIN_DIR to the bin directory of a PostgreSQL server installation. Without one, "
            "verification can drill in a scratch database on the live server (on_live_server), and a restore can do "
            "without a drill.",
        ) from error
