"""`prune_backups`: PROC-004's retention (`retention` has the policy), and the mark that keeps a backup.

A backup is removed only if it is a good one of the configured database that no rule keeps; everything else is reported
and left alone. This happens under the directory's lock, so that none is being restored meanwhile. A reader (a
verification, a drill, a copy) reads an open file to its end, and finds no file when it opens it again; on Windows an
open file can't be removed, which is reported. The outcome of a drill or verification is not kept once its file is gone.

The server is only needed for undo points; if it does not answer, empty clusters for drills stay, too.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from ..errors import BackupToolError, Cancelled, ConfirmationStale, RestoreInterrupted, again
from ..models.results import Kept, Prune, PruneItem, UndoPoint
from ..postgres.server import catalogue as pg
from ..postgres.server import databases
from ..postgres.server.session import Session
from ..progress import Progress
from ..store import names
from ..store import sets as set_store
from ..store.directory import Entry
from ..store.lock import writer_lock
from ..store.sets import MemorySet
from . import disk_space, own_names
from .call_notes import CallNotes
from .catalog import by_name, records
from .context import BackupContext
from .memory import sets
from .own_names import ASIDE
from .proc004 import RETENTION
from .recovery import journal as journals
from .recovery.helper_container import require_alone
from .recovery.volume_layout import DROPPED, VolumeLayout
from .recovery.volume_settlement import settle_volume
from .sandbox import lifecycle

OLD = timedelta(days=30)
"""According to PROC-004's notes, backups older than this are deleted to save space."""


@dataclass(frozen=True)
class _Item:
    """A backup or undo point and what is reported about it. `identity` distinguishes contents of the same name."""

    shown: PruneItem
    identity: str
    entry: Entry | None
    of_set: MemorySet | None = None
    """The set that goes with it."""
    warning: str | None = None
    """Why its space may not be free yet, after its removal."""

    @property
    def going(self) -> bool:
        return self.shown.action == "would be removed"

    def removed(self, warning: str | None) -> _Item:
        return replace(self, shown=self.shown.model_copy(update={"action": "removed"}), warning=warning)

    def not_removed(self, reason: str) -> _Item:
        return replace(self, shown=self.shown.model_copy(update={"action": "not removed", "reason": reason}))


def prune(
    context: BackupContext,
    progress: Progress,
    *,
    dry_run: bool = True,
    include_undo: bool = False,
    confirmed: str | None = None,
    notes: CallNotes | None = None,
) -> Prune:
    """Report what the rules keep and, unless it is a `dry_run`, remove the rest; with `include_undo` also undo points.

    `confirmed` is the `confirmation` of the dry run that a user agreed to, "" for an empty list; None means that the
    caller has consent to remove whatever the rules don't keep. What can't be removed is reported; the rest goes on. A
    dry run changes nothing.

    Raises ConfirmationStale, with nothing removed, if the list has changed since; Busy; with `include_undo` whatever
    prevents querying the server; Cancelled between two removals, saying how many were done.
    """
    began = time.monotonic()
    if dry_run:
        if include_undo and (waiting := journals.waiting(context)):
            raise RestoreInterrupted(
                f"{waiting} Its undo point is not known yet.", "Wait until it ends, or do that; then try again."
            )
        server = context.maintenance_session(progress) if include_undo else nullcontext()
        with server as session:
            items = _plan(context, progress, session)
        seeds = lifecycle.forget_seeds(context, progress, dry_run=True)
        return _report(context, items, seeds, time.monotonic() - began, dry_run=True)
    notes = notes or CallNotes()
    context.directory.prepare()
    with writer_lock(context.directory.path, "prune"), _server(context, progress, include_undo, notes) as session:
        notes.settled += [*context.directory.sweep().sentences, *set_store.sweep(context.directory.path).sentences]
        items = _plan(context, progress, session)
        if confirmed is not None and confirmed != (_confirmation(items) or ""):
            raise ConfirmationStale(
                "The backups to remove are not exactly those that were confirmed; nothing was removed.",
                "Make another dry run, and ask the user about the new list.",
                again(dry_run=True, confirmation=None),
            )
        items = _remove(context, progress, items, session, notes)
        notes.settled += lifecycle.forget_seeds(context, progress, dry_run=False)
    return _report(context, items, notes.settled, time.monotonic() - began, dry_run=False)


def keep(context: BackupContext, name: str, on: bool) -> Kept:
    """Mark a backup so that retention never removes it, or remove the mark; a set is marked with its SQL backup. Raises
    BackupMissing, NameRefused or Busy."""
    if names.is_set(name):
        name = sets.backup_of(context, name)
    whole_name = by_name.find(context, name).name.name
    with writer_lock(context.directory.path, "mark"):
        context.directory.mark(context.directory.find(whole_name), on)
    return Kept(name=whole_name, keep=on)


@contextmanager
def _server(context: BackupContext, progress: Progress, wanted: bool, notes: CallNotes) -> Generator[Session | None]:
    """Connect with the server's restore lock, and settle an interrupted restore; yield None unless `wanted`."""
    if not wanted:
        yield None
        return
    settle_volume(context, progress, notes)
    journals.require_running(context)
    with journals.maintenance_session(context, progress) as session:
        journals.tidy_up(context, session, notes, restoring=True)
        _finish_drops(context, session, notes)
        yield session


# -- what to remove --------------------------------------------------------------------------------------------------


def _plan(context: BackupContext, progress: Progress, session: Session | None) -> list[_Item]:
    """List backups, newest first, then undo points (only with a session). Manifests are read completely: one that is
    damaged anywhere fills no slot."""
    progress.stage("checking the backups")
    everything = [
        item
        if item.state in ("newer", "unreadable")
        else records.volume_record(context, item.entry)
        if item.entry.name.kind == "volume"
        else records.sql_record(context, item.entry)
        for item in records.all_backups(context)
    ]
    verdicts = records.verdicts(context, everything)
    actions: dict[str, Literal["kept", "would be removed", "left alone"]] = {
        "keep": "kept",
        "remove": "would be removed",
        "leave": "left alone",
    }
    items: list[_Item] = []
    with_set = sets.by_backup(context)
    for item in everything:
        verdict, of_set = verdicts[item.name], with_set.get(item.name)
        shown = PruneItem(
            name=item.name,
            what=item.entry.name.kind,
            created_at=item.created_at,
            bytes=item.entry.bytes + (of_set.bytes if of_set else 0),
            action=actions[verdict.fate],
            reason=f"{verdict.reason}; with the set {of_set.name}" if of_set else verdict.reason,
            slots=list(verdict.slots),
        )
        identity = f"{item.manifest.sha256 if item.manifest else ''}{f' {of_set.name}' if of_set else ''}"
        items.append(_Item(shown, identity, item.entry, of_set))
    if session is not None:
        points = own_names.undo_points(context, pg.databases(session).values())
        items += [_undo(point, str(databases.oid(session, point.name))) for point in points]
        of_volume = own_names.volume_undo_points(pg.data_directory_entries(session, ASIDE))
        items += [_undo(point, point.name) for point in of_volume]
    return items


def _undo(point: UndoPoint, identity: str) -> _Item:
    shown = PruneItem(
        name=point.name,
        what="undo_point",
        created_at=point.created_at,
        bytes=point.bytes,
        action="would be removed",
        reason="undo points were included",
    )
    return _Item(shown, identity, None)


def _confirmation(items: Sequence[_Item]) -> str | None:
    """Return a token for exactly this list of what would be removed, and its contents; None for an empty list."""
    lines = sorted(f"{item.shown.what} {item.shown.name} {item.identity}\n" for item in items if item.going)
    return f"prune {hashlib.sha256(''.join(lines).encode()).hexdigest()[:16]}" if lines else None


def _remove(
    context: BackupContext, progress: Progress, items: list[_Item], session: Session | None, notes: CallNotes
) -> list[_Item]:
    """Remove what is going, oldest first; return all items with what became of them."""
    going = [item for item in reversed(items) if item.going]
    became: dict[str, _Item] = {}
    notes.announce({item.shown.name: item.identity for item in going})
    try:
        progress.stage("removing what no rule keeps", len(going))
        for item in going:
            progress.report(len(became), item.shown.name)
            warning = None
            try:
                if item.entry is not None:
                    late = set_store.remove(context.directory.path, item.of_set) if item.of_set else []
                    warning = " ".join([*late, context.directory.remove(item.entry) or ""]).strip() or None
                elif session is not None and item.shown.name.startswith(own_names.VOLUME_UNDO):
                    stamp = item.shown.name.removeprefix(own_names.VOLUME_UNDO)
                    _set_aside(context, session, stamp).drop()
                elif session is not None:
                    disk_space.drop(context.server, session, item.shown.name)
                became[item.shown.name] = item.removed(warning)
            except Cancelled:
                raise
            except BackupToolError as error:
                became[item.shown.name] = item.not_removed(error.message)
    except Cancelled:
        gone = sum(item.shown.action == "removed" for item in became.values())
        raise Cancelled(
            f"The call was cancelled; {gone} of {len(going)} were removed, the others are unchanged.",
            "Make a dry run to see what is left.",
            again(dry_run=True, confirmation=None),
        ) from None
    return [became.get(item.shown.name, item) for item in items]


def _set_aside(context: BackupContext, session: Session, stamp: str) -> VolumeLayout:
    """Return the layout of the volume's undo point of that moment, which may be removed. Raises HostError, or
    PreflightFailed if another container uses the volume."""
    container_info = context.host.container_info()
    if (mount := container_info.data_mount) is not None:
        require_alone(context, mount.source, container_info)
    return VolumeLayout(context.host, pg.server_facts(session).data_directory or "", stamp)


def _finish_drops(context: BackupContext, session: Session, notes: CallNotes) -> None:
    """Finish interrupted removals of a volume's undo points. What can't be removed does not stop the call."""
    left = pg.data_directory_entries(session, DROPPED)
    if not left:
        return
    why = ""
    try:
        _set_aside(context, session, "").remove_dropped()
    except BackupToolError as error:
        why = f": {error.message}"
    still = pg.data_directory_entries(session, DROPPED)
    notes.settled += [f"Removed {name}, left by a call that was killed." for name in left if name not in still]
    notes.settled += [f"{name} in the data directory can't be removed{why or '.'}" for name in still]


# -- the report ------------------------------------------------------------------------------------------------------


def _report(
    context: BackupContext, items: Sequence[_Item], warnings: list[str], seconds: float, *, dry_run: bool
) -> Prune:
    shown = [item.shown for item in items]
    gone = [item for item in shown if item.action == ("would be removed" if dry_run else "removed")]
    late = {item.shown.name: item.warning for item in items if item.warning is not None}
    failed = [item for item in shown if item.action == "not removed"]
    policy = str(records.rules(context))
    confirmation = _confirmation(items) if dry_run else None
    return Prune(
        dry_run=dry_run,
        directory=str(context.directory.path),
        server=context.about,
        database=context.database,
        policy=f"{policy}; each kind separately, and everything that is marked",
        items=shown,
        kept=sum(item.action == "kept" for item in shown),
        removed=len(gone),
        left_alone=sum(item.action == "left alone" for item in shown),
        bytes_freed=sum(item.bytes or 0 for item in gone if item.what != "undo_point" and item.name not in late),
        undo_bytes_freed=sum(item.bytes or 0 for item in gone if item.what == "undo_point"),
        older_than_30_days=_older_than_30_days(shown, gone, dry_run),
        confirmation=confirmation,
        warnings=[
            *warnings,
            *(f"{item.name} could not be removed: {item.reason}" for item in failed),
            *late.values(),
        ],
        steps=[RETENTION.reported(None if dry_run else not failed, policy)],
        duration_seconds=round(seconds, 3),
        remedy="Ask the user about what would be removed; if the user agrees, prune without the dry run."
        if confirmation
        else None,
    )


def _older_than_30_days(shown: Sequence[PruneItem], gone: Sequence[PruneItem], dry_run: bool) -> str:
    limit = datetime.now(UTC) - OLD
    old = [item for item in shown if item.what != "undo_point" and item.created_at < limit]
    if not old:
        return "PROC-004 asks to delete backups older than 30 days: there are none."
    staying = [item for item in old if item not in gone]
    kept = [item for item in staying if item.action == "kept"]
    in_table = [item for item in kept if item.slots]
    counts = [
        (len(old) - len(staying), "would be removed" if dry_run else "removed"),
        (len(in_table), "kept by a slot of PROC-004's own table"),
        (len(kept) - len(in_table), "kept for another reason, shown with it"),
        (len(staying) - len(kept), "left alone"),
    ]
    counted = ", ".join(f"{count} {what}" for count, what in counts if count)
    return f"PROC-004 asks to delete backups older than 30 days: of {len(old)} such, {counted}."
