"""`list_backups`: what there is, and which backup a word like `latest` means. Works with no engine at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Generic, TypeVar

from ..errors import BackupMissing, BackupToolError, StoreError
from ..limits import within
from ..models import (
    AuditEntry,
    CodePage,
    Kind,
    Listed,
    Listing,
    Manifest,
    ManifestHead,
    State,
    Step,
    StoredVerification,
    UndoPoint,
    VolumeManifest,
)
from ..postgres import catalogue as pg
from ..store import audit
from ..store.directory import DRILL, Entry
from ..store.encodings import ARCHIVE, DESCRIPTIONS, recognise
from ..store.names import JOURNAL, PARTIAL, moment, parse
from ..store.reading import beginning
from . import retention
from .contents_of_volume import ASIDE
from .target import TAG, Target

M = TypeVar("M", bound=ManifestHead)
M_co = TypeVar("M_co", bound=ManifestHead, covariant=True)

WEEK = 7 * 24 * 3600
"""PROC-004: a backup at least once a week."""
ARCHIVED = "an archive in pg_dump's own format (-Fc), which pg_restore reads"
DRILL_FAILED = "a restore drill did not bring the same data back"
VOLUME_UNDO = "volume_before_restore_"
"""What the names of a volume's undo points begin with; a UTC time `YYYYMMDD_HHMMSS` follows."""
CLOCK_SLACK = timedelta(minutes=5)
SERVER_SECONDS = 2.0


@dataclass(frozen=True)
class Known(Generic[M_co]):
    """A file with all that is kept beside it. `created_at` is the manifest's time; without one the name's, else the
    file's."""

    entry: Entry
    manifest: M_co | None
    verification: StoredVerification | None
    state: State
    created_at: datetime
    detail: str = ""
    marked: bool = False
    """To be kept, whatever retention's rules say."""

    @property
    def name(self) -> str:
        """The file's name."""
        return self.entry.name.name

    @property
    def foreign(self) -> bool:
        """Whether something else than `backup` made it: what it holds may come from anywhere."""
        return self.manifest is None or self.manifest.repaired_from is not None

    @property
    def proved_at(self) -> datetime | None:
        """When a drill proved it, if the last one did."""
        outcome = self.verification
        return outcome.proved_at if outcome is not None and outcome.proved else None

    @property
    def failed_its_drill(self) -> bool:
        """Whether nothing is wrong with the file but that a drill did not bring the same data back."""
        return self.verification is not None and self.verification.failed_checks == [DRILL]

    def proved_with(self, code_page: CodePage | None) -> datetime | None:
        """The same, if it was read with that page: with another one it is another text."""
        outcome = self.verification
        return self.proved_at if outcome is not None and outcome.code_page == code_page else None

    @property
    def in_future(self) -> bool:
        """Whether its time is later than now by more than clocks differ."""
        return self.created_at > datetime.now(UTC) + CLOCK_SLACK


def known(target: Target) -> list[Known[ManifestHead]]:
    """Every backup in the directory, newest first. Only the heads of manifests are read."""
    found = [_know(target, entry, target.directory.manifest_head) for entry in target.directory.entries()]
    found = [item for item in found if item.manifest is not None or item.entry.path.exists()]  # else removed meanwhile
    return sorted(found, key=lambda item: (item.created_at, item.name), reverse=True)


def ours(
    target: Target, items: Iterable[Known[ManifestHead]], kinds: tuple[Kind, ...] = ("sql",)
) -> list[tuple[Known[ManifestHead], ManifestHead]]:
    """Of `items`, the backups of the configured database that are neither known to be damaged nor from the future."""
    return [
        (item, item.manifest)
        for item in items
        if item.manifest is not None
        and item.entry.name.kind in kinds
        and item.state in ("good", "unverified")
        and not item.in_future
        and target.is_ours(item.manifest)
    ]


def last_full(target: Target, kinds: tuple[Kind, ...] = ("sql",)) -> ManifestHead | None:
    """The newest good backup of the configured database that is not shrunk. A cold copy, whose rows nobody knows, is
    none."""
    mine = ours(target, known(target), kinds)
    return next((manifest for _, manifest in mine if not manifest.shrunk and manifest.rows is not None), None)


def latest(target: Target, *, for_restore: bool = False) -> str:
    """The name that `latest` means: an SQL backup's. A restore never means a shrunk one by it. Raises BackupMissing."""
    mine = ours(target, known(target))
    if not mine:
        raise BackupMissing(
            f"There is no good SQL backup of the database {target.database} in {target.directory.path}.",
            "Call `backup` first; `list_backups` shows what else lies there.",
        )
    newest, manifest = mine[0]
    if for_restore and manifest.shrunk:
        full = last_full(target)
        raise BackupMissing(
            f"The newest backup, {newest.name}, is of a database that had shrunk "
            f"({'; '.join(manifest.shrunk_reasons)}), so `latest` does not mean it. "
            + (f"The last full one is {full.name}." if full else "There is no full one."),
            f"Call `restore` with backup={full.name!r}." if full else f"If you want it, name it: {newest.name!r}.",
        )
    return newest.name


def list_backups(target: Target, limit: int = 10, log: int = 0) -> Listing:
    """The newest `limit` backups, totals, undo points, the last `log` calls, and what should be worried about."""
    directory = target.directory
    everything = known(target)
    warnings = list(directory.warnings()) if directory.path.is_dir() else [f"{directory.path} does not exist yet."]
    undo, server_warnings = _ask_the_server(target)
    newest = next((item for item, _ in ours(target, everything) if item.state == "good"), None)
    age = None if newest is None else max(0.0, _age(newest.created_at))
    if age is None:
        warnings.append(f"There is no good SQL backup of the database {target.database}: call `backup`.")
    elif age > WEEK:
        warnings.append(
            f"The newest good SQL backup is {age / 86400:.0f} days old; PROC-004 wants one a week: call `backup`."
        )
    warnings += [
        f"{item.name} says it was made in the future: check the clock." for item in everything if item.in_future
    ]
    warnings += server_warnings
    calls, run = _audited(directory.path, log, warnings)
    if (directory.path / JOURNAL).exists():
        warnings.append("A restore was cut off: call `backup` or `restore`, either finishes it or rolls it back first.")
    slots = {name: verdict.slots for name, verdict in verdicts(target, everything).items()}
    listed = [_listed(target, item, slots[item.name]) for item in everything[:limit]] + _partials(target)
    listed.sort(key=lambda item: (item.created_at, item.name), reverse=True)
    return Listing(
        directory=str(directory.path),
        database=target.database,
        backups=listed[:limit],
        total_backups=len(everything),
        total_bytes=sum(item.entry.bytes for item in everything),
        newest_good=newest.name if newest else None,
        newest_good_age_seconds=None if age is None else round(age, 1),
        undo_points=undo,
        log=calls,
        last_scheduled=run,
        warnings=warnings,
        steps=[
            Step(
                step="Passo 4",
                title="Look at the newest backups",
                ok=newest is not None,
                detail=newest.name if newest else "no good backup",
            )
        ],
    )


# -- retention -------------------------------------------------------------------------------------------------------


def rules(target: Target) -> retention.Rules:
    """As they are set."""
    settings = target.settings
    return retention.Rules(settings.keep_last, settings.keep_daily, settings.keep_weekly, settings.keep_monthly)


def verdicts(target: Target, items: Iterable[Known[ManifestHead]]) -> dict[str, retention.Verdict]:
    """What retention says of each of these, which are all there are, by name."""
    return retention.decide([_candidate(target, item) for item in items], rules(target))


def _candidate(target: Target, item: Known[ManifestHead]) -> retention.Candidate:
    manifest = item.manifest
    mine = manifest is not None and target.is_ours(manifest)
    return retention.Candidate(
        name=item.name,
        kind=item.entry.name.kind,
        created_at=item.created_at,
        left_alone=_why_no_slot(item, mine),
        shrunk=manifest is not None and mine and manifest.shrunk,
        cold=manifest is not None and manifest.kind == "volume" and manifest.rows is None,
        proved=item.proved_at is not None,
        marked=item.marked,
        last_full=manifest.last_full if manifest else None,
    )


def _why_no_slot(item: Known[ManifestHead], mine: bool) -> str:
    """Why retention's rules are not for it; "" if they are."""
    if item.state == "damaged":
        return f"damaged ({item.detail})"
    if item.manifest is None:
        return "foreign: `backup` did not make it, or its manifest is lost"
    identity = item.manifest.identity
    if identity is None or item.foreign:
        return "a repaired copy, which does not tell for certain of which database it is"
    if not mine:
        of = identity.project or identity.container or "another server"
        return f"of another database ({identity.database} of {of})"
    if item.in_future:
        return "says that it was made in the future: check the clock"
    if item.state != "good":
        return "not verified in full as it is now: call `verify_backup`"
    return ""


def _audited(directory: Path, count: int, warnings: list[str]) -> tuple[list[AuditEntry], AuditEntry | None]:
    """The last entries of the audit log, and the last scheduled run. Adds to `warnings` what is wrong with them."""
    try:
        tail, run = audit.read(directory, count) if count else audit.Tail([], 0), audit.last_scheduled(directory)
    except StoreError as error:
        warnings.append(f"The audit log can't be shown: {error.message}")
        return [], None
    if tail.unreadable:
        warnings.append(f"{tail.unreadable} lines of the audit log can't be read.")
    if run is not None and run.outcome != "ok":
        warnings.append(f"The last scheduled run, of {run.time:%Y-%m-%d %H:%M} UTC, was no success: {run.message}")
    return tail.entries, run


# -- one file --------------------------------------------------------------------------------------------------------


def know(target: Target, entry: Entry) -> Known[Manifest]:
    """An entry with what is kept beside it, its whole manifest checked."""
    return _know(target, entry, target.directory.manifest)


def know_head(target: Target, entry: Entry) -> Known[ManifestHead]:
    """The same for either kind, with the head of its manifest only."""
    return _know(target, entry, target.directory.manifest_head)


def know_volume(target: Target, entry: Entry) -> Known[VolumeManifest]:
    """The same, for an archive of a volume."""
    return _know(target, entry, target.directory.volume_manifest)


def manifest_of(target: Target, entry: Entry) -> Manifest | VolumeManifest | None:
    """The whole manifest of a backup of either kind; None without a good one."""
    return (know_volume if entry.name.kind == "volume" else know)(target, entry).manifest


def _know(target: Target, entry: Entry, manifest_of: Callable[[str], M | None]) -> Known[M]:
    verification, marked = target.directory.verification(entry), target.directory.is_marked(entry)
    detail = ""
    try:
        manifest = manifest_of(entry.name.name)
    except StoreError as error:
        manifest, detail = None, error.message
    if manifest is None:
        unknown: State = "damaged" if detail else "foreign"
        return Known(entry, None, verification, unknown, _time_without_manifest(entry), detail, marked)
    state: State = "unverified"
    if entry.bytes != manifest.bytes:
        state, detail = "damaged", f"{entry.bytes:,} bytes, the manifest says {manifest.bytes:,}"
    elif verification is not None:
        state = "good" if verification.valid else "damaged"
        detail = "; ".join(DRILL_FAILED if check == DRILL else check for check in verification.failed_checks)
    return Known(entry, manifest, verification, state, manifest.created_at, detail, marked)


def _time_without_manifest(entry: Entry) -> datetime:
    if entry.name.stamp is not None:
        return entry.name.stamp.astimezone(UTC)
    return datetime.fromtimestamp(entry.mtime_ns / 1e9, UTC)


def _age(moment: datetime) -> float:
    return round((datetime.now(UTC) - moment).total_seconds(), 1)


def _listed(target: Target, item: Known[ManifestHead], slots: tuple[str, ...]) -> Listed:
    manifest = item.manifest
    identity = manifest.identity if manifest else None
    detail = item.detail
    if manifest is None and not detail:
        detail = _what_it_looks_like(item.entry)
        if item.verification is not None and item.verification.proved is False:
            detail += f"; {DRILL_FAILED}"
    if manifest is not None and manifest.rows is None:
        detail = "; ".join(filter(None, ["cold: the files of a server that did not run", detail]))
    if manifest is not None and manifest.repaired_how:
        detail = "; ".join(filter(None, [detail, manifest.repaired_how]))
    return Listed(
        name=item.name,
        kind=item.entry.name.kind,
        created_at=item.created_at,
        age_seconds=_age(item.created_at),
        bytes=item.entry.bytes,
        state=item.state,
        verified=item.verification,
        compression=item.entry.name.compression,
        proved_at=item.proved_at,
        database=identity.database if identity else None,
        project=identity.project if identity else None,
        other_database=manifest is not None and identity is not None and not target.is_ours(manifest),
        repaired_from=manifest.repaired_from if manifest else None,
        label=manifest.label if manifest else None,
        shrunk=manifest.shrunk if manifest else False,
        rows=manifest.rows if manifest else None,
        integrity_rows=manifest.integrity_rows if manifest else None,
        sha256=manifest.sha256 if manifest else None,
        keep=item.marked,
        slot=", ".join(slots) or None,
        detail=detail,
    )


def _what_it_looks_like(entry: Entry) -> str:
    if entry.bytes == 0:
        return "empty: not a backup"
    if entry.name.kind == "volume":
        return "no manifest"
    try:
        head = beginning(entry.path, entry.name.compression)
        return f"no manifest; {ARCHIVED if head.startswith(ARCHIVE) else DESCRIPTIONS[recognise(head)]}"
    except StoreError as error:
        return f"no manifest; {error.message}"


def _partials(target: Target) -> list[Listed]:
    found: list[Listed] = []
    for path in target.directory.partials():
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
                verified=None,
                detail="under way, or left by a backup that was killed: the next `backup` removes it",
            )
        )
    return found


# -- undo points -----------------------------------------------------------------------------------------------------


def undo_prefix(database: str) -> str:
    """What the names of a database's undo points begin with; a UTC time `YYYYMMDD_HHMMSS` follows."""
    return f"{database}_before_restore_"


def scratch_prefix(database: str) -> str:
    """What the names of a database's scratch databases begin with; a UTC time `YYYYMMDD_HHMMSS` follows."""
    return f"{database}_restore_"


def stamped(prefix: str, name: str) -> datetime | None:
    """The UTC time in a name of ours, `prefix` and `YYYYMMDD_HHMMSS`; None for any other name."""
    if not re.fullmatch(re.escape(prefix) + r"\d{8}_\d{6}", name):
        return None
    found = moment(name.removeprefix(prefix))
    return None if found is None else found.replace(tzinfo=UTC)


def undo_points(target: Target, of: Iterable[pg.DatabaseFacts]) -> list[UndoPoint]:
    """The undo points among a server's databases, newest first."""
    prefix = undo_prefix(target.database)
    found = [
        UndoPoint(name=database.name, created_at=made, bytes=database.bytes or 0)
        for database in of
        if (made := stamped(prefix, database.name)) is not None
    ]
    return sorted(found, key=lambda point: point.name, reverse=True)


def volume_undo_points(set_aside: Iterable[str]) -> list[UndoPoint]:
    """The undo points of volumes among the names of directories in the data directory, newest first."""
    found = [
        UndoPoint(name=VOLUME_UNDO + name.removeprefix(ASIDE), kind="volume", created_at=made, bytes=None)
        for name in set_aside
        if (made := stamped(ASIDE, name)) is not None
    ]
    return sorted(found, key=lambda point: point.name, reverse=True)


def scratch_databases(target: Target, of: Iterable[pg.DatabaseFacts]) -> list[pg.DatabaseFacts]:
    """What by its name was made by restores that are under way or were killed; `is_marked` tells if it is certain."""
    prefix = scratch_prefix(target.database)
    return [facts for facts in of if stamped(prefix, facts.name) is not None]


def is_marked(scratch: pg.DatabaseFacts) -> bool:
    """Whether a database carries our comment."""
    return (scratch.comment or "").startswith(TAG)


def _ask_the_server(target: Target) -> tuple[list[UndoPoint] | None, list[str]]:
    """Undo points, and warnings; a hanging engine must not hang the listing."""

    def ask() -> tuple[dict[str, pg.DatabaseFacts], list[UndoPoint]]:
        target.host.require_running()
        with target.server.session(target.maintenance_database) as session:
            return pg.databases(session), volume_undo_points(pg.entries_beside(session, ASIDE))

    try:
        found = within(SERVER_SECONDS, ask)
    except BackupToolError as error:
        return None, [f"The server could not be asked for undo points: {error.message}"]
    if found is None:
        return None, [f"The server did not tell its undo points within {SERVER_SECONDS:g} s."]
    databases, of_volume = found
    left = filter(is_marked, scratch_databases(target, databases.values()))
    points = [*undo_points(target, databases.values()), *of_volume]
    return sorted(points, key=lambda point: point.created_at, reverse=True), [
        f"The database {facts.name} is of a restore or drill that is under way, or of a killed one, which the next "
        "`backup` removes."
        for facts in left
    ]
