"""`list_backups`: list backups for people and agents. Works without an engine."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from ..errors import BackupToolError, StoreError
from ..limits import within
from ..models.audit import AuditEntry
from ..models.manifest import ManifestHead
from ..models.results import Listed, Listing, ScheduledRun, UndoPoint
from ..postgres.server import catalogue as pg
from ..store import audit, forms
from ..store.encodings import DESCRIPTIONS, recognise
from ..store.names import PARTIAL, parse
from ..store.reading import beginning
from ..wording import number_of, shortened
from . import own_names
from .catalog import recorded
from .catalog.records import DRILL_FAILED, BackupRecord, all_backups, ours, unread, verdicts
from .catalog.weeks import weeks
from .context import BackupContext
from .loss import restore_it
from .memory.project_stores import REMEDY, missing_words, stores_soon
from .memory.sets import listed as listed_sets
from .own_names import ASIDE
from .proc004 import NEWEST_BACKUPS
from .recovery import journal, stopped

WEEK = 7 * 24 * 3600
"""PROC-004: a backup at least once a week."""
SERVER_SECONDS = 2.0


def list_backups(context: BackupContext, limit: int = 10, log: int = 0) -> Listing:
    """List the newest `limit` backups, totals, undo points, the last `log` calls, and what to worry about."""
    directory = context.directory
    everything = all_backups(context)
    warnings = directory.warnings() if directory.exists() else [directory.absence()]
    points, server_warnings = _ask_the_server(context)
    newest = next((item for item, _ in ours(context, everything) if item.state == "good"), None)
    age = None if newest is None else _age(newest.created_at)
    if newest and newest.manifest and newest.manifest.shrunk and (full := newest.manifest.last_full):
        warnings.append(
            f"{newest.name} is of a database that had shrunk: {'; '.join(newest.manifest.shrunk_reasons)}. If that was "
            f"not intended, and is not undone yet, {restore_it(full)}."
        )
    elif age is None:
        warnings.append(f"There is no good SQL backup of the database {context.database}: take a backup.")
    elif age > WEEK:
        warnings.append(
            f"The newest good SQL backup is {age / 86400:.0f} days old; PROC-004 asks for one a week: take a backup."
        )
    warnings += [
        f"{item.name} says it was made in the future: check the clock." for item in everything if item.in_future
    ]
    warnings += filter(None, [unread(everything)])
    warnings += server_warnings
    found_stores = stores_soon(context)
    if uncovered := found_stores.uncovered:
        named = shortened(f"{store.service} ({store.place})" for store in uncovered)
        warnings.append(f"No backup holds the project's other stores: {named}. {REMEDY}")
    if found_stores.missing:
        warnings.append(missing_words(found_stores.missing))
    calls, runs = _audited(directory.path, log, warnings)
    with_sets, of_sets = listed_sets(context, (item.name for item in everything[:limit]))
    warnings += of_sets
    try:
        warnings += filter(None, [journal.waiting(context), stopped.waiting(context)])
    except BackupToolError as error:
        warnings.append(error.message)
    how_many = number_of(len(everything), "backup") if newest else "no good backup"
    slots = {name: verdict.slots for name, verdict in verdicts(context, everything).items()}
    listed = [_listed(context, item, slots[item.name]) for item in everything[:limit]] + _partials(context)
    listed.sort(key=lambda item: (item.created_at, item.name), reverse=True)  # partial files don't count
    return Listing(
        directory=str(directory.path),
        database=context.database,
        server=context.about,
        backups=listed,
        total_backups=len(everything),
        total_bytes=sum(item.entry.bytes for item in everything),
        newest_good=newest.name if newest else None,
        newest_good_age_seconds=age,
        undo_points=points,
        log=calls,
        scheduled=runs,
        sets=with_sets,
        stores=found_stores.stores,
        weeks=weeks(context, everything),
        warnings=warnings,
        steps=[NEWEST_BACKUPS.reported(newest is not None, how_many)],
    )


# -- retention -------------------------------------------------------------------------------------------------------


def _audited(directory: Path, count: int, warnings: list[str]) -> tuple[list[AuditEntry], list[ScheduledRun]]:
    """Read the last entries of the audit log, and scheduled jobs' last runs; add to `warnings` what is wrong."""
    try:
        tail, last = audit.read(directory, count) if count else audit.LogTail([], 0), audit.last_runs(directory)
    except StoreError as error:
        warnings.append(f"The audit log can't be shown: {error.message}")
        return [], []
    if tail.unreadable:
        warnings.append(f"{number_of(tail.unreadable, 'line')} of the audit log can't be read.")
    runs = [run_of(entry) for entry in last]
    warnings += [f"{no_success(run)} {remedy_of(run)}" for run in runs if run.outcome != "ok"]
    return tail.entries, runs


def run_of(entry: AuditEntry) -> ScheduledRun:
    """Return what a listing shows of a scheduled job's run."""
    message = "" if entry.outcome == "ok" else entry.message
    return ScheduledRun(job=entry.job or "", time=entry.time, outcome=entry.outcome, code=entry.code, message=message)


def no_success(run: ScheduledRun) -> str:
    """Describe a scheduled run that did not succeed."""
    what = "" if run.outcome == "begun" else "failed: "
    return f"The scheduled run of {run.job} at {run.time:%Y-%m-%d %H:%M} UTC {what}{run.message}"


def remedy_of(run: ScheduledRun) -> str:
    """Say what to do about such a run, and until when it is reported."""
    first = "If it was killed," if run.outcome == "begun" else "Fix that, then"
    return (
        f"{first} take one now; this is reported until the job's next good run. If the job no longer "
        f"exists, run `scarlet-backup-mcp schedule --remove --job {run.job}` with the same settings."
    )


# -- one file ----------------------------------------------------------------------------------------------------------


def _age(moment: datetime) -> int:
    return max(0, round((datetime.now(UTC) - moment).total_seconds()))


def _listed(context: BackupContext, item: BackupRecord[ManifestHead], slots: tuple[str, ...]) -> Listed:
    manifest = item.manifest
    identity = manifest.identity if manifest and not context.is_ours(manifest) else None
    detail = item.detail
    if manifest is None and not detail:
        detail = _what_it_looks_like(item)
        if item.verification is not None and item.verification.proved is False:
            detail += f"; {item.verification.said.removesuffix('.') or DRILL_FAILED}"
    if manifest is not None and manifest.rows is None:
        detail = "; ".join(filter(None, ["cold: the files of a stopped server", detail]))
    if manifest is not None and manifest.repaired_how:
        detail = "; ".join(filter(None, [detail, manifest.repaired_how]))
    detail = "; ".join(filter(None, [detail, *_not_dumped(context, item)]))
    return Listed(
        name=item.name,
        kind=item.entry.name.kind,
        created_at=item.created_at,
        age_seconds=_age(item.created_at),
        bytes=item.entry.bytes,
        state=item.state,
        verified=item.verification.level if item.verification else None,
        proved_at=item.proved_at,
        other_database=identity is not None,
        database=identity.database if identity else None,
        project=identity.project if identity else None,
        repaired_from=manifest.repaired_from if manifest else None,
        label=manifest.label if manifest else None,
        shrunk=manifest.shrunk if manifest else False,
        rows=manifest.rows if manifest else None,
        integrity_rows=manifest.integrity_rows if manifest else None,
        keep=item.marked,
        slot=", ".join(slots) or None,
        detail=detail,
    )


def _not_dumped(context: BackupContext, item: BackupRecord[ManifestHead]) -> list[str]:
    """Return what its whole manifest says about rows that pg_dump left out."""
    if item.manifest is None or item.manifest.kind == "volume":
        return []
    try:
        return recorded.not_dumped(context.directory.manifest(item.name))
    except StoreError:  # damaged after its head, which `verify_backup` reports
        return []


def _what_it_looks_like(item: BackupRecord[ManifestHead]) -> str:
    entry = item.entry
    if entry.bytes == 0:
        return "empty: not a backup"
    if entry.name.kind == "volume":
        return "no manifest"
    try:
        if item.form != "script":
            what = forms.DESCRIPTIONS[item.form]
        else:
            what = DESCRIPTIONS[recognise(beginning(entry.path, entry.name.compression))]
        packed = "" if entry.name.compression == "none" else f", compressed with {entry.name.compression}"
        return f"no manifest; {what}{packed}"
    except StoreError as error:
        return f"no manifest; {error.message}"


def _partials(context: BackupContext) -> list[Listed]:
    found: list[Listed] = []
    for path in context.directory.partials():
        try:
            status = path.stat()
        except FileNotFoundError:  # published or swept since it was seen
            continue
        moment = datetime.fromtimestamp(status.st_mtime, UTC)
        unfinished = parse(path.name.removesuffix(PARTIAL))
        found.append(
            Listed(
                name=path.name,
                kind=unfinished.kind if unfinished else "sql",
                created_at=moment,
                age_seconds=_age(moment),
                bytes=status.st_size,
                state="partial",
                detail="in progress, or left by a backup that was killed: the next backup removes it",
            )
        )
    return found


# -- the server ----------------------------------------------------------------------------------------------------


def _ask_the_server(context: BackupContext) -> tuple[list[UndoPoint] | None, list[str]]:
    """Query undo points, and warnings; a hanging engine must not hang the listing."""

    def ask() -> tuple[dict[str, pg.DatabaseFacts], list[UndoPoint]]:
        context.host.require_running()
        with context.maintenance_session() as session:
            return pg.databases(session), own_names.volume_undo_points(pg.data_directory_entries(session, ASIDE))

    try:
        found = within(SERVER_SECONDS, ask)
    except BackupToolError as error:
        return None, [f"Undo points are unknown: {error.message}"]
    if found is None:
        return None, [f"Undo points are unknown: the server did not answer within {SERVER_SECONDS:g} s."]
    databases, of_volume = found
    left = filter(own_names.is_marked, own_names.scratch_databases(context, databases.values()))
    points = [*own_names.undo_points(context, databases.values()), *of_volume]
    return sorted(points, key=lambda point: point.created_at, reverse=True), [
        f"The database {facts.name} belongs to a restore or drill that is running, or that was killed; in that case "
        "the next backup removes it."
        for facts in left
    ]
