"""The restore journal: what a restore that was cut off still owes, and how the next call pays it.

The journal is written before the first step that can't be undone by doing nothing (stopping dependents) and removed
after the last (starting them). Which side of the swap the server is on is never taken from the journal: databases keep
their OID through a rename, so the server tells.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from ..errors import BackupToolError, Busy, ContainerMissing, HostError, RestoreInterrupted, ServerError
from ..hosts import Place
from ..hosts.docker import DockerHost
from ..hosts.engine import EngineRefused
from ..models import DependentReport, Model, Site, Utc
from ..postgres import catalogue as pg
from ..postgres import databases
from ..postgres.server import Session
from ..progress import Progress
from ..store.names import JOURNAL
from ..store.writing import delete, sync_directory, write_atomically
from .set_aside import is_marked, scratch_databases
from .target import Target


class StoppedContainer(Model):
    """A dependent that ran before the restore stopped it."""

    id: str
    name: str


class Journal(Model):
    """`incoming` takes the place of `database`, whose present one becomes `undo`. OIDs are of `system_identifier`'s."""

    journal_version: Literal[1] = 1
    source: str
    source_kind: Literal["backup", "undo_point"]
    container: str | None
    database: str
    live_oid: int | None
    incoming: str
    incoming_oid: int
    undo: str | None
    system_identifier: str
    dependents: list[StoppedContainer]
    started_at: Utc


class VolumeJournal(Model):
    """The contents of `site`'s data directory are exchanged. What lies there tells how far that got: see
    `contents_of_volume`; `stamp` names the directories, `undo` is the stamp of those that come in, if it is an undo.
    `mounted` is the volume, or the directory of the engine's machine, and `engine` that engine's name for itself.
    `checked`: the server was seen to run on the new contents, so that what is left is only to be finished."""

    journal_version: Literal["volume 1"] = "volume 1"
    source: str
    container: str | None
    container_id: str | None
    image_id: str
    site: Site
    mounted: str
    engine: str | None
    stamp: str
    undo: str | None
    was_running: bool
    dependents: list[StoppedContainer]
    checked: bool = False
    started_at: Utc


AnyJournal = Journal | VolumeJournal
_READER: TypeAdapter[AnyJournal] = TypeAdapter(AnyJournal)


def write(directory: Path, journal: AnyJournal) -> None:
    """Durably."""
    write_atomically(directory / JOURNAL, journal.model_dump_json(indent=1).encode())


def read(directory: Path) -> AnyJournal | None:
    """The journal of a restore that has not ended; None without one. Raises RestoreInterrupted if it is unreadable."""
    try:
        return _READER.validate_json((directory / JOURNAL).read_bytes())
    except FileNotFoundError:
        return None
    except (ValidationError, OSError) as error:
        raise RestoreInterrupted(
            f"{directory / JOURNAL} can't be read: a restore was cut off and left it.",
            "See with `docker compose ps` that all services run and with `db_integrity` that the database is whole, "
            "then remove that file.",
        ) from error


def remove(directory: Path) -> None:
    """The restore has ended. Raises StoreError; then the next call finds that nothing is left to be done."""
    delete(directory / JOURNAL)
    sync_directory(directory)


def waiting(target: Target) -> str | None:
    """In words, with what to do: a restore that is under way, or was cut off. None without one. Raises
    RestoreInterrupted as `read` does."""
    journal = read(target.directory.path)
    if journal is None:
        return None
    where = journal.container or "a local server"
    what = f"A restore of {journal.source} into {where} is under way, or was cut off"
    if _is_of(target, journal):
        return f"{what}: unless one is under way, call `backup`, which first finishes it or rolls it back."
    return f"{what}, and shares this backup directory: call `backup` for {where}."


def require_running(target: Target) -> Place:
    """As `Host.require_running`. Raises RestoreInterrupted if a journal waits to be settled."""
    try:
        return target.host.require_running()
    except HostError as error:
        raise _with_journal(target, error) from error


def maintenance_session(target: Target, progress: Progress) -> Session:
    """A session beside the database, for what changes databases as wholes.

    Raises RestoreInterrupted when the server can't be asked while a journal waits to be settled.
    """
    try:
        return target.server.session(target.maintenance_database, progress=progress)
    except (HostError, ServerError) as error:
        raise _with_journal(target, error) from error


def _with_journal(target: Target, error: BackupToolError) -> BackupToolError:
    journal = read(target.directory.path)
    if journal is None:
        return error
    return RestoreInterrupted(
        f"A restore of {journal.source} was cut off, and can't be finished or rolled back now: {error.message}",
        error.remedy,
    )


def tidy_up(target: Target, session: Session, *, restoring: bool) -> None:
    """Under the directory's lock: finish or roll back a restore that was cut off, and drop scratch databases that
    killed restores left. `target.settled` tells what was done.

    The session then holds the server's restore lock. Raises Busy when another directory's restore holds it, unless
    there is nothing to settle and the caller is not `restoring`.
    """
    journal = read(target.directory.path)
    if not databases.advisory_lock(session):
        if journal is None and not restoring:
            return
        raise Busy("A restore, or a drill on the live server, is under way there.")
    if isinstance(journal, VolumeJournal):  # `settle_volume` has left it: it is another container's
        what = f"A restore of {journal.source} into {journal.container or journal.site.volume} was cut off"
        if restoring:
            raise RestoreInterrupted(
                f"{what}, and shares this backup directory.", "Call `backup` or `restore` for that one first."
            )
        target.settled.append(f"{what}. It is not this one's: call `backup` or `restore` for that one.")
    elif journal is not None:
        target.settled += _settle_what_was_left(target, session, journal, restoring=restoring)
    target.settled += _sweep(target, session)


def settle(target: Target, session: Session, journal: Journal) -> tuple[bool, list[DependentReport]]:
    """Finish a restore that was cut off (True) or roll it back (False), as the server is on one side or the other of
    its swap; start what it had stopped; forget the journal. Raises RestoreInterrupted when neither side is there."""
    swapped = side_of_swap(session, journal)
    reports = start(target, journal.dependents)
    if not swapped and journal.source_kind == "backup":
        databases.drop(session, journal.incoming)
    remove(target.directory.path)
    return swapped, reports


def _is_of(target: Target, journal: AnyJournal) -> bool:
    """Whether it is about the configured database, or the volume of its container."""
    container = target.settings.container if target.settings.via == "docker" else None
    if (place := target.known_place) is not None:
        container = place.container
    if isinstance(journal, VolumeJournal):
        return journal.container in (None, container)
    return (journal.container, journal.database) == (container, target.database)


def _settle_what_was_left(target: Target, session: Session, journal: Journal, *, restoring: bool) -> list[str]:
    what = f"A restore of {journal.source} as {journal.database} in {journal.container or 'a local server'} was cut off"
    if (journal.container, journal.database) != (target.place.container, target.database):
        if restoring:
            raise RestoreInterrupted(
                f"{what}, and shares this backup directory.", "Call `backup` or `restore` for that one first."
            )
        return [f"{what}. It is not this one's: call `backup` or `restore` for that one."]
    if pg.server_facts(session).system_identifier != journal.system_identifier:
        reports = start(target, journal.dependents)
        remove(target.directory.path)
        told = f"{what}, on a cluster that is no longer this one: there is nothing to settle."
    else:
        swapped, reports = settle(target, session, journal)
        told = f"{what} {'after the swap: it is finished' if swapped else 'before the swap: it is rolled back'} now."
    return [told, *(f"{report.name}: {report.action} {report.detail}".strip() for report in reports)]


def side_of_swap(session: Session, journal: Journal) -> bool:
    """Whether the swap happened. Raises RestoreInterrupted when neither its before nor its after is to be seen."""
    names = {facts.oid: name for name, facts in pg.databases(session).items()}
    incoming = names.get(journal.incoming_oid)
    if incoming == journal.database:
        return True
    if incoming == journal.incoming or (incoming is None and journal.live_oid in names):
        return False
    raise RestoreInterrupted(
        f"A restore of {journal.source} was cut off, and the databases are not as it left them: OID "
        f"{journal.incoming_oid} is {incoming!r}, OID {journal.live_oid} is {names.get(journal.live_oid or 0)!r}.",
        f"Look with `\\l` in psql which database is the right one, rename it to {journal.database}, "
        f"and remove the backup directory's {JOURNAL} of {journal.started_at:%Y-%m-%d %H:%M} UTC.",
    )


def start(target: Target, containers: list[StoppedContainer]) -> list[DependentReport]:
    """Start dependents that were stopped, or what has their names now; those that run already are left alone."""
    return [_start(target, container) for container in containers]


def _start(target: Target, container: StoppedContainer) -> DependentReport:
    try:
        try:
            target.host.start_container(container.id)
        except EngineRefused as refused:
            if refused.status != 404:
                raise
            target.host.start_container(_id_now(container.name))  # Compose makes it anew under the same name
    except ContainerMissing:
        detail = "It was removed meanwhile: `docker compose up -d` makes it anew."
        return DependentReport(name=container.name, action="start failed", detail=detail)
    except HostError as error:
        return DependentReport(name=container.name, action="start failed", detail=error.message)
    return DependentReport(name=container.name, action="restarted")


def _id_now(container: str) -> str:
    """Of the container that has that name. Raises ContainerMissing if there is none."""
    host = DockerHost(container)
    try:
        return host.place().container_id or container
    finally:
        host.close()


def _sweep(target: Target, session: Session) -> list[str]:
    told: list[str] = []
    for scratch in scratch_databases(target, pg.databases(session).values()):
        if is_marked(scratch) or _is_empty(target, scratch.name):
            with suppress(BackupToolError):
                databases.drop(session, scratch.name)
                told.append(f"The scratch database {scratch.name}, left by a restore that was killed, is dropped.")
    return told


def _is_empty(target: Target, name: str) -> bool:
    """So is a scratch database whose restore was killed before it had marked it."""
    with suppress(BackupToolError), target.server.session(name) as session:
        return pg.is_empty(session)
    return False
