"""The restore journal: what an interrupted restore still owes, and how the next call pays it.

The journal is written before the first step that can't be undone by doing nothing (stopping dependents) and removed
after the last (starting them). Which side of the swap the server is on is never taken from the journal: databases keep
their OID through a rename, so the server tells.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from ...errors import (
    BackupToolError,
    Busy,
    ContainerMissing,
    DatabaseMissing,
    DiskFull,
    HostError,
    RestoreInterrupted,
    ServerError,
    StoreError,
)
from ...hosts import ContainerInfo
from ...hosts.docker.container import DockerHost
from ...models.common import OpenModel, Utc
from ...models.manifest import Site
from ...models.results import DependentReport
from ...nearest import nearest
from ...postgres.server import catalogue as pg
from ...postgres.server import databases
from ...postgres.server.quoting import identifier
from ...postgres.server.session import Session
from ...progress import Progress
from ...store import sidecars
from ...store.names import JOURNAL
from ...store.reserved import Reserved
from ...store.writing import delete, sync_directory, write_atomically
from .. import disk_space
from ..call_notes import CallNotes
from ..context import BackupContext
from ..loading import load_role
from ..own_names import is_marked, scratch_databases
from .helper_container import require_sole_writer

BACK_BY_HAND = (
    "The old contents of a volume are in pgsql_tmp_outgoing_…, if there is one: with the server stopped, move "
    "everything in it back, PG_VERSION last. Otherwise they are in pgsql_tmp_returning_… or, if PG_VERSION is missing, "
    "in the newest pgsql_tmp_before_restore_…: do the same, after moving everything else out of the way."
)
"""How the contents come back if no journal says it."""


class StoppedContainer(OpenModel):
    """A dependent that ran before the restore stopped it."""

    id: str
    name: str


class Journal(OpenModel):
    """`incoming` takes the place of `database`, whose present one becomes `undo`. OIDs are of `system_identifier`'s."""

    journal_version: Literal[1] = 1
    source: str
    source_kind: str
    container: str | None
    database: str
    live_oid: int | None
    incoming: str
    incoming_oid: int
    undo: str | None
    system_identifier: str
    dependents: list[StoppedContainer]
    started_at: Utc

    @property
    def where(self) -> str:
        """Into what it restores, in words."""
        return self.container or f"the database {self.database} of a local server"


class VolumeJournal(OpenModel):
    """The contents of `site`'s data directory are exchanged. What lies there tells how far that got: see
    `volume_layout`; `stamp` names the directories, `undo` is the stamp of those that come in, if it is an undo.
    `mounted` is the volume, or the directory of the engine's machine, and `engine` that engine's name for itself (null:
    not known). `removable`: what is in the volume goes with it, as it lies with the engine and nowhere else.
    `exchanging`: contents may be out of their place, and then the mark that `volume_exchange` has set lies beside them.
    `checked`: the server was seen to run on the new contents, so that what is left is only to be finished."""

    journal_version: Literal["volume 1"] = "volume 1"
    source: str
    container: str | None
    container_id: str | None
    image_id: str
    site: Site
    mounted: str | None = None
    engine: str | None = None
    removable: bool = False
    stamp: str
    undo: str | None
    was_running: bool
    dependents: list[StoppedContainer]
    exchanging: bool = True
    checked: bool = False
    started_at: Utc

    @property
    def where(self) -> str:
        """Into what it restores, in words."""
        return self.container or f"the volume {self.volume}"

    @property
    def volume(self) -> str | None:
        """`mounted`; an older version's journal tells it only in `site`, and of a directory not at all."""
        return self.mounted or self.site.volume

    def is_of(self, container_info: ContainerInfo) -> bool:
        """Tell whether that container, whatever its name, has the volume or directory under its data directory."""
        mount, same = (
            container_info.data_mount,
            container_info.container_id is not None and container_info.container_id == self.container_id,
        )
        return same or (mount is not None and mount.source == self.volume)

    def is_seen_by(self, container_info: ContainerInfo) -> bool:
        """Tell whether it also has that volume, and the server its data directory, where they were then."""
        mount, site = container_info.data_mount, self.site
        if not self.is_of(container_info) or mount is None or container_info.data_directory is None:
            return False
        now, then = (mount.destination, container_info.data_directory), (site.mounted_at, site.data_directory)
        return [PurePosixPath(path) for path in now] == [PurePosixPath(path) for path in then]


AnyJournal = Journal | VolumeJournal
_READER: TypeAdapter[AnyJournal] = TypeAdapter(AnyJournal)


def reserve(directory: Path) -> Reserved:
    """Reserve the space that the journal will need. Raises DiskFull."""
    return Reserved(directory / JOURNAL)


def write(directory: Path, journal: AnyJournal, room: Reserved | None = None) -> None:
    """Write the journal durably, into the `room` that was reserved for it."""
    text = journal.model_dump_json(indent=1).encode()
    if room is None:
        write_atomically(directory / JOURNAL, text)
    else:
        room.write(text)


def read(directory: Path) -> AnyJournal | None:
    """Return the journal of a restore that has not ended; None without one. Raises RestoreInterrupted if it is
    unreadable or of a newer version of this tool."""
    text = None
    try:
        text = sidecars.read(directory / JOURNAL)
        return None if text is None else _READER.validate_json(text)
    except (ValidationError, StoreError) as error:
        if _is_newer(text or b""):
            raise RestoreInterrupted(
                f"{directory / JOURNAL} is of a restore by a newer version of this tool, which is running, or was "
                "interrupted.",
                "Unless it is running, update scarlet-backup-mcp on this machine and take a backup, which first "
                "finishes that restore or rolls it back. Leave the file as it is.",
            ) from error
        raise RestoreInterrupted(
            f"{directory / JOURNAL} can't be read: an interrupted restore left it.",
            f"Look into the server's data directory first. {BACK_BY_HAND} Then see with `docker compose ps` that all "
            "services run and by checking the database that the database is intact, and remove that file.",
        ) from error


def _is_newer(text: bytes) -> bool:
    """Tell whether that is a journal of a higher version than this one reads."""
    try:
        version = str(from_json(text)["journal_version"]).removeprefix("volume ")
    except (ValueError, KeyError, TypeError):
        return False
    return version.isdecimal() and int(version) > 1


def remove(directory: Path) -> None:
    """Remove an ended restore's journal. Raises StoreError; then the next call finds nothing left to do."""
    delete(directory / JOURNAL)
    sync_directory(directory)


def waiting(context: BackupContext) -> str | None:
    """Describe a running or interrupted restore and what to do; None without one. Raises RestoreInterrupted."""
    journal = read(context.directory.path)
    if journal is None:
        return None
    what = f"A restore of {journal.source} into {journal.where} is running, or was interrupted"
    if _is_of(context, journal):
        return f"{what}: unless it is still running, the next backup first finishes it or rolls it back."
    return f"{what}, and shares this backup directory: take a backup of {journal.where}."


def require_running(context: BackupContext) -> ContainerInfo:
    """Look at the place before anything is written there: programs can be started, and nobody else writes to its data.

    Raises RestoreInterrupted if a journal waits to be settled, what `Host.require_running` raises, or VolumeShared.
    """
    try:
        container_info = context.host.require_running()
    except HostError as error:
        raise _with_journal(context, error) from error
    require_sole_writer(container_info)
    return container_info


def require_database(context: BackupContext, session: Session) -> None:
    """Raise DatabaseMissing, with the databases there are, unless the configured one is there."""
    names = pg.databases(session, sizes=False).keys() - {"template0", "template1"}
    if context.database not in names:
        there = nearest(context.database, names)
        raise DatabaseMissing(f"There is no database {identifier(context.database)} on the server. There are: {there}.")


def maintenance_session(context: BackupContext, progress: Progress) -> Session:
    """Open a session next to the database, for what changes databases as wholes.

    Raises RestoreInterrupted when the server can't be asked while a journal waits to be settled.
    """
    try:
        return context.maintenance_session(progress)
    except (HostError, ServerError) as error:
        raise _with_journal(context, error) from error


def _with_journal(context: BackupContext, error: BackupToolError) -> BackupToolError:
    journal = read(context.directory.path)
    if journal is None:
        return error
    remedy = error.remedy
    if isinstance(journal, Journal):  # of a volume it alone tells how the contents come back
        remedy = f"{remedy} {_only_if_gone(context)}"
    return RestoreInterrupted(
        f"A restore of {journal.source} was interrupted, and can't be finished or rolled back now: {error.message}",
        remedy,
    )


def _only_if_gone(context: BackupContext) -> str:
    """Say when a journal may be removed by hand: its databases' names show all that it records except the services."""
    return (
        f"Only if that server is gone for good, remove {context.directory.path / JOURNAL}, then start the services "
        "that depend on the database by hand."
    )


def tidy_up(context: BackupContext, session: Session, notes: CallNotes, *, restoring: bool) -> None:
    """Under the directory's lock: finish or roll back an interrupted restore, and drop scratch databases that
    killed restores left. `notes.settled` says what was done.

    The session then holds the server's restore lock. Raises Busy when another directory's restore holds it, unless
    there is nothing to settle and the caller is not `restoring`.
    """
    journal = read(context.directory.path)
    if not databases.advisory_lock(session):
        if journal is None and not restoring:
            return
        raise Busy("A restore, or a drill on the live server, is running there.")
    if isinstance(journal, VolumeJournal):  # `settle_volume` has told of it and left it: it is another container's
        if restoring:
            raise RestoreInterrupted(
                f"A restore of {journal.source} into {journal.where} was interrupted, and shares this backup "
                "directory.",
                "Take a backup of that one first, or restore it.",
            )
    elif journal is not None:
        notes.settled += _settle_what_was_left(context, session, journal, restoring=restoring)
    notes.settled += _sweep(context, session)
    load_role.sweep(session)


def settle(context: BackupContext, session: Session, journal: Journal) -> tuple[bool, list[DependentReport]]:
    """Finish an interrupted restore (True) or roll it back (False), as the server is on one side or the other of
    its swap; start what it had stopped; forget the journal. Raises RestoreInterrupted when neither side is there."""
    swapped = side_of_swap(session, journal)
    reports = start(context, journal.dependents)
    if not swapped and journal.source_kind == "backup":
        with suppress(DiskFull):  # it is marked, and swept by a later call
            disk_space.drop(context.server, session, journal.incoming)
    remove(context.directory.path)
    return swapped, reports


def _is_of(context: BackupContext, journal: AnyJournal) -> bool:
    """Tell whether it is of the configured database, or its container's volume, as far as a moment's look shows."""
    docker, container_info = context.settings.via == "docker", context.known_container_info
    container = (
        container_info.container if container_info is not None else context.settings.container if docker else None
    )
    if isinstance(journal, VolumeJournal):
        return docker and (
            journal.container in (None, container) or (container_info is not None and journal.is_of(container_info))
        )
    return (journal.container, journal.database) == (container, context.database)


def _settle_what_was_left(context: BackupContext, session: Session, journal: Journal, *, restoring: bool) -> list[str]:
    where = journal.container or "a local server"
    what = f"A restore of {journal.source} as {journal.database} in {where} was interrupted"
    same_cluster = pg.server_facts(session).system_identifier == journal.system_identifier
    oids = {facts.oid for facts in pg.databases(session, sizes=False).values()}
    is_here = same_cluster and journal.incoming_oid in oids
    if not is_here and (journal.container, journal.database) != (context.container_info.container, context.database):
        if restoring:
            raise RestoreInterrupted(
                f"{what}, and shares this backup directory.",
                f"Take a backup of that one first, or restore it. {_only_if_gone(context)}",
            )
        return [f"{what}. It is another database's: take a backup of that one, or restore it. {_only_if_gone(context)}"]
    if not same_cluster:
        reports = start(context, journal.dependents)
        remove(context.directory.path)
        ended = f"{what}. The cluster has changed since: there is nothing to settle."
    else:
        swapped, reports = settle(context, session, journal)
        ended = f"{what} {'after the swap: it is finished' if swapped else 'before the swap: it is rolled back'} now."
    return [ended, *(f"{report.name}: {report.action} {report.detail}".strip() for report in reports)]


def side_of_swap(session: Session, journal: Journal) -> bool:
    """Tell whether the swap happened. Raises RestoreInterrupted when neither its before nor its after is to be seen."""
    names = {facts.oid: name for name, facts in pg.databases(session, sizes=False).items()}
    incoming = names.get(journal.incoming_oid)
    if incoming == journal.database:
        return True
    if incoming == journal.incoming or (incoming is None and journal.live_oid in names):
        return False
    raise RestoreInterrupted(
        f"A restore of {journal.source} was interrupted, and the databases are not in the state it left: OID "
        f"{journal.incoming_oid} is {incoming!r}, OID {journal.live_oid} is {names.get(journal.live_oid or 0)!r}.",
        f"Look with `\\l` in psql which database is the right one, rename it to {journal.database}, "
        f"let connections in (ALTER DATABASE … ALLOW_CONNECTIONS true), "
        f"and remove the backup directory's {JOURNAL} of {journal.started_at:%Y-%m-%d %H:%M} UTC.",
    )


def start(context: BackupContext, containers: list[StoppedContainer]) -> list[DependentReport]:
    """Start dependents that were stopped, or what has their names now; those that run already are left alone."""
    return [_start(context, container) for container in containers]


def _start(context: BackupContext, container: StoppedContainer) -> DependentReport:
    try:
        container_info = _present(container)
        if container_info.state == "running":
            return DependentReport(name=container.name, action="left running")
        context.host.start_container(container_info.container_id or container.id)
    except ContainerMissing:
        detail = "It was removed in the meantime: `docker compose up -d` creates it again."
        return DependentReport(name=container.name, action="start failed", detail=detail)
    except HostError as error:
        return DependentReport(name=container.name, action="start failed", detail=error.message)
    return DependentReport(name=container.name, action="restarted")


def _present(container: StoppedContainer) -> ContainerInfo:
    """Return it, or what Compose created again under the same name. Raises ContainerMissing if there is neither."""
    with suppress(ContainerMissing):
        return _container_info(container.id)
    return _container_info(container.name)


def _container_info(container: str) -> ContainerInfo:
    host = DockerHost(container)
    try:
        return host.container_info()
    finally:
        host.close()


def _sweep(context: BackupContext, session: Session) -> list[str]:
    notes: list[str] = []
    for scratch in scratch_databases(context, pg.databases(session, sizes=False).values()):
        if is_marked(scratch) or _is_empty(context, scratch.name):
            try:
                disk_space.drop(context.server, session, scratch.name)
                notes.append(f"The scratch database {scratch.name}, left by a restore that was killed, is dropped.")
            except DiskFull as error:
                notes.append(f"{error.message} {error.remedy}")
            except BackupToolError:
                pass
    return notes


def _is_empty(context: BackupContext, name: str) -> bool:
    """Tell whether a scratch database is empty: so is one whose restore was killed before it had marked it."""
    with suppress(BackupToolError), context.server.session(name) as session:
        return pg.is_empty(session)
    return False
