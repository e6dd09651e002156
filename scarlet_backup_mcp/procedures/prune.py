"""`prune_backups`: retention as PROC-004 has it (`retention` holds the policy), and the mark that keeps one backup.

A backup goes only if it is a good one of the configured database that no rule keeps; whatever else lies there is told
of and left. It goes under the directory's lock, so that none is being restored meanwhile. Who only reads it (a
verification, a drill, a copy) reads an open file to its end and finds no file when it opens it again; on Windows an
open file can't be removed, and is told as such. A drill's or verification's outcome is not kept once its file is gone.

The server is needed for undo points only; where it does not answer, empty clusters for drills stay too.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from ..errors import BackupToolError, Cancelled, ConfirmationStale, RestoreInterrupted
from ..models.results import Kept, Prune, PruneItem, UndoPoint
from ..postgres.server import catalogue as pg
from ..postgres.server import databases
from ..postgres.server.session import Session
from ..progress import Progress
from ..store.directory import Entry
from ..store.lock import writer_lock
from . import disk_space, own_names
from .call_notes import CallNotes
from .catalog import records
from .context import BackupContext
from .own_names import ASIDE
from .proc004 import RETENTION
from .recovery import journal as journals
from .recovery.helper_container import require_alone
from .recovery.volume_layout import DROPPED, VolumeLayout
from .recovery.volume_settlement import settle_volume
from .sandbox import lifecycle

OLD = timedelta(days=30)
"""PROC-004's notes: backups older than this are deleted to save space."""


@dataclass(frozen=True)
class _Item:
    """What is told of one backup or undo point. `identity` tells its content from another one of that name."""

    told: PruneItem
    identity: str
    entry: Entry | None
    warning: str | None = None
    """Why its room may not be free yet, of one that is removed."""

    @property
    def going(self) -> bool:
        return self.told.action == "would be removed"

    def removed(self, warning: str | None) -> _Item:
        return replace(self, told=self.told.model_copy(update={"action": "removed"}), warning=warning)

    def not_removed(self, reason: str) -> _Item:
        return replace(self, told=self.told.model_copy(update={"action": "not removed", "reason": reason}))


def prune(
    context: BackupContext,
    progress: Progress,
    *,
    dry_run: bool = True,
    include_undo: bool = False,
    confirmed: str | None = None,
    notes: CallNotes | None = None,
) -> Prune:
    """Tell what the rules keep, and unless it is a `dry_run` remove the rest; with `include_undo` every undo point too.

    `confirmed` is the `confirmation` of the dry run that a user agreed to, "" for an empty list; None means that the
    caller has consent for whatever the rules let go. What can't be removed is told as such, and the rest goes on. A dry
    run changes nothing.

    Raises ConfirmationStale, with nothing removed, when it is not exactly that list any more; Busy; with `include_undo`
    what keeps the server from being asked; Cancelled between two removals, telling how many there were.
    """
    began = time.monotonic()
    if dry_run:
        if include_undo and (waiting := journals.waiting(context)):
            raise RestoreInterrupted(
                f"{waiting} Its undo point is not to be told yet.", "Wait until it ends, or do that; then call again."
            )
        look = (
            context.server.session(context.maintenance_database, progress=progress) if include_undo else nullcontext()
        )
        with look as session:
            items = _plan(context, progress, session)
        seeds = lifecycle.forget_seeds(context, progress, dry_run=True)
        return _report(context, items, seeds, time.monotonic() - began, dry_run=True)
    notes = notes or CallNotes()
    context.directory.prepare()
    with writer_lock(context.directory.path, "prune"), _server(context, progress, include_undo, notes) as session:
        notes.settled += context.directory.sweep().told
        items = _plan(context, progress, session)
        if confirmed is not None and confirmed != (_confirmation(items) or ""):
            raise ConfirmationStale(
                "What the rules let go is not exactly what was confirmed; nothing was removed.",
                "Call it again with dry_run=true, and ask the user about what it tells now.",
            )
        items = _remove(context, progress, items, session, notes)
        notes.settled += lifecycle.forget_seeds(context, progress, dry_run=False)
    return _report(context, items, notes.settled, time.monotonic() - began, dry_run=False)


def keep(context: BackupContext, name: str, on: bool) -> Kept:
    """Mark a backup so that retention never removes it, or take the mark away. Raises BackupMissing, NameRefused or
    Busy."""
    context.directory.find(name)
    with writer_lock(context.directory.path, "mark"):
        context.directory.mark(context.directory.find(name), on)
    return Kept(name=name, keep=on)


@contextmanager
def _server(context: BackupContext, progress: Progress, wanted: bool, notes: CallNotes) -> Generator[Session | None]:
    """With the server's restore lock, and a restore that was cut off settled; None where it is not `wanted`."""
    if not wanted:
        yield None
        return
    settle_volume(context, progress, notes)
    journals.require_running(context)
    with journals.maintenance_session(context, progress) as session:
        journals.tidy_up(context, session, notes, restoring=True)
        _finish_drops(context, session, notes)
        yield session


# -- what goes -------------------------------------------------------------------------------------------------------


def _plan(context: BackupContext, progress: Progress, session: Session | None) -> list[_Item]:
    """Newest first, undo points (only with a session) last. Manifests are read whole: one that is damaged anywhere
    fills no slot."""
    progress.stage("looking at the backups")
    everything = [
        item
        if item.state == "newer"
        else records.know_volume(context, item.entry)
        if item.entry.name.kind == "volume"
        else records.know(context, item.entry)
        for item in records.all_backups(context)
    ]
    verdicts = records.verdicts(context, everything)
    actions: dict[str, Literal["kept", "would be removed", "left alone"]] = {
        "keep": "kept",
        "remove": "would be removed",
        "leave": "left alone",
    }
    items: list[_Item] = []
    for item in everything:
        verdict = verdicts[item.name]
        told = PruneItem(
            name=item.name,
            what=item.entry.name.kind,
            created_at=item.created_at,
            bytes=item.entry.bytes,
            action=actions[verdict.fate],
            reason=verdict.reason,
            slots=list(verdict.slots),
        )
        items.append(_Item(told, item.manifest.sha256 if item.manifest else "", item.entry))
    if session is not None:
        points = own_names.undo_points(context, pg.databases(session).values())
        items += [_undo(point, str(databases.oid(session, point.name))) for point in points]
        of_volume = own_names.volume_undo_points(pg.entries_beside(session, ASIDE))
        items += [_undo(point, point.name) for point in of_volume]
    return items


def _undo(point: UndoPoint, identity: str) -> _Item:
    told = PruneItem(
        name=point.name,
        what="undo_point",
        created_at=point.created_at,
        bytes=point.bytes,
        action="would be removed",
        reason="undo points were asked for",
    )
    return _Item(told, identity, None)


def _confirmation(items: Sequence[_Item]) -> str | None:
    """For this very list of what would be removed, and its contents; None for an empty one."""
    lines = sorted(f"{item.told.what} {item.told.name} {item.identity}\n" for item in items if item.going)
    return f"prune {hashlib.sha256(''.join(lines).encode()).hexdigest()[:16]}" if lines else None


def _remove(
    context: BackupContext, progress: Progress, items: list[_Item], session: Session | None, notes: CallNotes
) -> list[_Item]:
    """Oldest first; gives what became of all."""
    going = [item for item in reversed(items) if item.going]
    became: dict[str, _Item] = {}
    notes.announce({item.told.name: item.identity for item in going})
    try:
        progress.stage("removing what no rule keeps", len(going))
        for item in going:
            progress.report(len(became), item.told.name)
            warning = None
            try:
                if item.entry is not None:
                    warning = context.directory.remove(item.entry)
                elif session is not None and item.told.name.startswith(own_names.VOLUME_UNDO):
                    stamp = item.told.name.removeprefix(own_names.VOLUME_UNDO)
                    _set_aside(context, session, stamp).drop()
                elif session is not None:
                    disk_space.drop(context.server, session, item.told.name)
                became[item.told.name] = item.removed(warning)
            except Cancelled:
                raise
            except BackupToolError as error:
                became[item.told.name] = item.not_removed(error.message)
    except Cancelled:
        gone = sum(item.told.action == "removed" for item in became.values())
        raise Cancelled(
            f"The call was cancelled; {gone} of {len(going)} are removed, the others are as they were.",
            "Call `prune_backups` with dry_run=true: it tells what is left.",
        ) from None
    return [became.get(item.told.name, item) for item in items]


def _set_aside(context: BackupContext, session: Session, stamp: str) -> VolumeLayout:
    """What the restore of a volume of that moment has set aside in the data directory, which may be removed. Raises
    HostError, or PreflightFailed where another container uses it."""
    container_info = context.host.container_info()
    if (mount := container_info.data_mount) is not None:
        require_alone(context, mount.source, container_info)
    return VolumeLayout(context.host, pg.server_facts(session).data_directory or "", stamp)


def _finish_drops(context: BackupContext, session: Session, notes: CallNotes) -> None:
    """Of undo points of volumes whose removal was cut off, do the rest. What can't be removed stops nothing."""
    left = pg.entries_beside(session, DROPPED)
    if not left:
        return
    said = ""
    try:
        _set_aside(context, session, "").remove_dropped()
    except BackupToolError as error:
        said = f": {error.message}"
    there = pg.entries_beside(session, DROPPED)
    notes.settled += [f"{name}, left by a call that was killed, is removed." for name in left if name not in there]
    notes.settled += [f"{name} in the data directory can't be removed{said or '.'}" for name in there]


# -- what is told ----------------------------------------------------------------------------------------------------


def _report(
    context: BackupContext, items: Sequence[_Item], warnings: list[str], seconds: float, *, dry_run: bool
) -> Prune:
    told = [item.told for item in items]
    gone = [item for item in told if item.action == ("would be removed" if dry_run else "removed")]
    late = {item.told.name: item.warning for item in items if item.warning is not None}
    failed = [item for item in told if item.action == "not removed"]
    policy = str(records.rules(context))
    confirmation = _confirmation(items) if dry_run else None
    return Prune(
        dry_run=dry_run,
        directory=str(context.directory.path),
        server=context.about,
        database=context.database,
        policy=f"{policy}; kinds apart, and whatever is marked",
        items=told,
        kept=sum(item.action == "kept" for item in told),
        removed=len(gone),
        left_alone=sum(item.action == "left alone" for item in told),
        bytes_freed=sum(item.bytes or 0 for item in gone if item.what != "undo_point" and item.name not in late),
        undo_bytes_freed=sum(item.bytes or 0 for item in gone if item.what == "undo_point"),
        older_than_30_days=_older_than_30_days(told, gone, dry_run),
        confirmation=confirmation,
        warnings=[
            *warnings,
            *(f"{item.name} could not be removed: {item.reason}" for item in failed),
            *late.values(),
        ],
        steps=[RETENTION.reported(None if dry_run else not failed, policy)],
        duration_seconds=round(seconds, 3),
        remedy="Ask the user about what would be removed, then call it again with dry_run=false."
        if confirmation
        else None,
    )


def _older_than_30_days(told: Sequence[PruneItem], gone: Sequence[PruneItem], dry_run: bool) -> str:
    limit = datetime.now(UTC) - OLD
    old = [item for item in told if item.what != "undo_point" and item.created_at < limit]
    if not old:
        return "PROC-004 wants to be rid of backups older than 30 days: there is none."
    staying = [item for item in old if item not in gone]
    kept = [item for item in staying if item.action == "kept"]
    in_table = [item for item in kept if item.slots]
    counts = [
        (len(old) - len(staying), "would go" if dry_run else "went"),
        (len(in_table), "kept in a slot of its own table"),
        (len(kept) - len(in_table), "kept for another reason that its line tells"),
        (len(staying) - len(kept), "left alone"),
    ]
    told_of = ", ".join(f"{count} {what}" for count, what in counts if count)
    return f"PROC-004 wants to be rid of backups older than 30 days: of {len(old)} such, {told_of}."
