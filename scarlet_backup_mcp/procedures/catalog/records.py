"""Records of the existing backups, and which one `latest` means. Works without an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

from ...errors import BackupMissing, BackupUnreadable, NewerVersion, StoreError, again
from ...models.common import CodePage, Kind, State
from ...models.manifest import Manifest, ManifestHead, VolumeManifest
from ...models.verification import StoredVerification
from ...store import forms
from ...store.directory import DRILL, Entry
from ...store.forms import Form
from ...store.permissions import may_read
from ...wording import number_of
from ..context import BackupContext
from . import retention
from .consistency import believed, contradictions

M = TypeVar("M", bound=ManifestHead)
M_co = TypeVar("M_co", bound=ManifestHead, covariant=True)

FAITHFUL = ("will_not_load", "constraint_violated")
"""Verdicts and states of backups that contain what the database did, but can't be loaded as they are."""
USABLE: tuple[State, ...] = ("good", "unverified", *FAITHFUL)
"""States of backups that are not known to be unfit."""
DRILL_FAILED = "a restore drill did not bring the same data back"
CLOCK_SLACK = timedelta(minutes=5)


@dataclass(frozen=True)
class BackupRecord(Generic[M_co]):
    """A backup's file with all that its sidecar files say. `created_at` is the time in the manifest, else in the name,
    else the file's."""

    entry: Entry
    manifest: M_co | None
    verification: StoredVerification | None
    state: State
    created_at: datetime
    detail: str = ""
    marked: bool = False
    """Marked to be kept, whatever retention's rules say."""
    form: Form = "script"
    """The file's form by its content, if there is no manifest."""
    archive: str | None = None
    """SHA-256 of the archive that this script was converted from."""

    @property
    def name(self) -> str:
        """The file's name."""
        return self.entry.name.name

    @property
    def foreign(self) -> bool:
        """Whether it was not made by `backup`: its content may come from anywhere."""
        return self.manifest is None or self.manifest.repaired_from is not None

    @property
    def proved_at(self) -> datetime | None:
        """When a drill proved it, if the last one did."""
        outcome = self.verification
        return outcome.proved_at if outcome is not None and outcome.proved else None

    def proved_with(self, code_page: CodePage | None) -> datetime | None:
        """Return when a drill proved it, if it was read with that page: another page gives another text."""
        outcome = self.verification
        return self.proved_at if outcome is not None and outcome.code_page == code_page else None

    @property
    def in_future(self) -> bool:
        """Whether its time is in the future, by more than clocks differ."""
        return self.created_at > datetime.now(UTC) + CLOCK_SLACK


def all_backups(context: BackupContext) -> list[BackupRecord[ManifestHead]]:
    """List every backup in the directory, newest first. Only the heads of manifests are read."""
    found = [_record(context, entry, context.directory.manifest_head) for entry in context.directory.entries()]
    found = [item for item in found if item.manifest is not None or item.entry.path.exists()]  # else removed meanwhile
    return sorted(found, key=lambda item: (item.created_at, item.name), reverse=True)


def ours(
    context: BackupContext,
    items: Iterable[BackupRecord[ManifestHead]],
    kinds: tuple[Kind, ...] = ("sql",),
    states: tuple[State, ...] = USABLE,
) -> list[tuple[BackupRecord[ManifestHead], ManifestHead]]:
    """Select the configured database's backups that are neither known to be damaged, unreadable nor from the future."""
    return [
        (item, item.manifest)
        for item in items
        if item.manifest is not None
        and item.entry.name.kind in kinds
        and item.state in states
        and not item.in_future
        and context.is_ours(item.manifest)
    ]


def unread(items: Iterable[BackupRecord[ManifestHead]]) -> str:
    """Say which of these backups this user may not read, and why; "" if there is none."""
    closed = [item for item in items if item.state == "unreadable"]
    if not closed:
        return ""
    others = f" and {number_of(len(closed) - 1, 'other backup')}" if len(closed) > 1 else ""
    return f"{closed[0].name}{others} can't be judged: {closed[0].detail}."


def unread_before(context: BackupContext, item: BackupRecord[ManifestHead]) -> BackupRecord[ManifestHead] | None:
    """Return the newest backup before `item` whose manifest this user may not read, if it is later than the one that
    `item` was compared with: it may have held more rows."""
    for earlier in all_backups(context):
        if item.manifest is not None and earlier.name == item.manifest.last_full:
            return None
        if earlier.created_at < item.created_at and earlier.manifest is None and earlier.state == "unreadable":
            return earlier
    return None


def last_full(
    context: BackupContext, kinds: tuple[Kind, ...] = ("sql",), *, readable: bool = False
) -> ManifestHead | None:
    """Return the newest backup of the configured database that is neither known to be damaged nor shrunk. Unless it has
    to be `readable`, its manifest is enough. Cold copies, whose rows nobody counted, don't count."""
    mine = ours(context, all_backups(context), kinds, USABLE if readable else (*USABLE, "unreadable"))
    return next((manifest for _, manifest in mine if not manifest.shrunk and manifest.rows is not None), None)


def latest(context: BackupContext, *, for_restore: bool = False, cluster: str | None = None) -> str:
    """Return the name that `latest` means: the newest SQL backup, of the `cluster` with that system identifier if it
    has any. For a restore, never a shrunk one, or one that a drill could not load. Raises BackupMissing."""
    everything = all_backups(context)
    every = ours(context, everything)
    mine = [item for item in every if _cluster(item[1]) == cluster] or every
    if not mine and (unread := next((item for item in everything if item.state == "unreadable"), None)):
        raise BackupUnreadable(f"{unread.name} may be meant, but {unread.detail}.")
    if not mine:
        raise BackupMissing(
            f"There is no good SQL backup of the database {context.database} in {context.directory.path}.",
            "The list of backups shows what else is there.",
        )
    newest, manifest = mine[0]
    later = [item for item in everything if item.entry.name.kind == "sql" and item.created_at > newest.created_at]
    if for_restore and (closed := [item for item in later if item.state == "unreadable"]):
        raise BackupUnreadable(
            f"{closed[0].name} is later than {newest.name}, the newest one that can be read: {closed[0].detail}.",
            f"{BackupUnreadable.default_remedy} If you want the earlier one, name it: {newest.name!r}.",
        )
    if for_restore and (unread := [item for item in later if item.state == "newer"]):
        raise NewerVersion(
            f"{unread[0].name} is later than {newest.name}, the newest one that can be read here. {unread[0].detail}.",
            f"{NewerVersion.default_remedy} If you want the earlier one, name it: {newest.name!r}.",
        )
    unfit = newest.state in FAITHFUL
    if for_restore and (manifest.shrunk or unfit):
        better = next((item.name for item, of in (*mine, *every) if not of.shrunk and item.state not in FAITHFUL), None)
        shrunk = f"is of a database that had shrunk ({'; '.join(manifest.shrunk_reasons)})"
        why = f"could not be loaded in a restore drill ({newest.detail})" if unfit else shrunk
        full = "full one that is not known to fail"
        raise BackupMissing(
            f"The newest backup, {newest.name}, {why}, so `latest` does not mean it. "
            + (f"The last {full} is {better}." if better else f"There is no {full}."),
            f"Restore {better} by its name." if better else f"If you want it, name it: {newest.name!r}.",
            again(backup=better or newest.name),
        )
    return newest.name


# -- retention -------------------------------------------------------------------------------------------------------


def rules(context: BackupContext) -> retention.Rules:
    """Return retention's rules as they are set."""
    settings = context.settings
    return retention.Rules(settings.keep_last, settings.keep_daily, settings.keep_weekly, settings.keep_monthly)


def verdicts(context: BackupContext, items: Iterable[BackupRecord[ManifestHead]]) -> dict[str, retention.Fate]:
    """Return retention's decision on each backup by its name; `items` are all there are."""
    return retention.decide([_candidate(context, item) for item in items], rules(context))


def _candidate(context: BackupContext, item: BackupRecord[ManifestHead]) -> retention.Candidate:
    manifest = item.manifest
    mine = manifest is not None and context.is_ours(manifest)
    return retention.Candidate(
        name=item.name,
        kind=item.entry.name.kind,
        created_at=item.created_at,
        cluster=_cluster(manifest),
        left_alone=_why_no_slot(item, mine),
        shrunk=manifest is not None and mine and manifest.shrunk,
        cold=manifest is not None and manifest.kind == "volume" and manifest.rows is None,
        proved=item.proved_at is not None,
        marked=item.marked,
        last_full=manifest.last_full if manifest else None,
    )


def _cluster(manifest: ManifestHead | None) -> str | None:
    return manifest.identity.system_identifier if manifest is not None and manifest.identity is not None else None


def _why_no_slot(item: BackupRecord[ManifestHead], mine: bool) -> str:
    """Say why retention's rules are not for it; "" if they are."""
    if item.state in ("damaged", "differs", "newer", "unreadable"):
        return f"{item.state} ({item.detail})"
    if item.manifest is None:
        return "foreign: `backup` did not make it, or its manifest is lost"
    identity = item.manifest.identity
    if identity is None or item.foreign:
        return "a repaired copy, whose database is not certain"
    if not mine:
        of = identity.project or identity.container or "another server"
        return f"of another database ({identity.database} of {of})"
    if item.in_future:
        return "says that it was made in the future: check the clock"
    if item.state not in ("good", *FAITHFUL):
        return "not fully verified in its current state: verify it"
    return ""


# -- one file --------------------------------------------------------------------------------------------------------


def sql_record(context: BackupContext, entry: Entry) -> BackupRecord[Manifest]:
    """Build the record of an SQL backup, with its whole manifest checked. Raises NewerVersion or
    BackupUnreadable."""
    return _readable(_record(context, entry, context.directory.manifest))


def head_record(context: BackupContext, entry: Entry) -> BackupRecord[ManifestHead]:
    """Build the record of a backup of either kind, with the head of its manifest only."""
    return _record(context, entry, context.directory.manifest_head)


def volume_record(context: BackupContext, entry: Entry) -> BackupRecord[VolumeManifest]:
    """Build the record of a volume's archive, with its whole manifest checked. Raises NewerVersion or
    BackupUnreadable."""
    return _readable(_record(context, entry, context.directory.volume_manifest))


def manifest_of(context: BackupContext, entry: Entry) -> Manifest | VolumeManifest | None:
    """Return the whole manifest of a backup of either kind; None without a good one."""
    return (volume_record if entry.name.kind == "volume" else sql_record)(context, entry).manifest


def _readable(record: BackupRecord[M]) -> BackupRecord[M]:
    """Return the record. Raises NewerVersion if only a newer version of this tool can read its manifest, and
    BackupUnreadable if this user may not."""
    if record.state == "newer":
        raise NewerVersion(f"{record.detail}.")
    if record.state == "unreadable" and (record.manifest is None or not may_read(record.entry.path)):
        raise BackupUnreadable(f"{record.name} can't be used: {record.detail}.")
    return record


def _record(context: BackupContext, entry: Entry, manifest_of: Callable[[str], M | None]) -> BackupRecord[M]:
    verification, marked = context.directory.verification(entry), context.directory.is_marked(entry)
    unknown: State = "foreign"
    detail, closed = "", context.directory.unreadable(entry)
    try:
        manifest = manifest_of(entry.name.name)
    except BackupUnreadable as error:
        manifest, detail, unknown = None, _within(error.message), "unreadable"
    except StoreError as error:
        manifest, detail = None, error.message.removesuffix(".")
        unknown = "newer" if isinstance(error, NewerVersion) else "damaged"
    if manifest is None:
        if closed and unknown == "foreign":
            unknown, detail = "unreadable", closed
        entry, form = _by_content(entry)
        return BackupRecord(entry, None, verification, unknown, _time_without_manifest(entry), detail, marked, form)
    state: State = "unverified"
    verification = believed(verification, manifest)
    if wrong := contradictions(entry.name, manifest):
        state, detail = "damaged", f"its manifest contradicts itself: {'; '.join(wrong)}"
    elif entry.bytes != manifest.bytes:
        state, detail = "damaged", f"{entry.bytes:,} bytes, the manifest says {manifest.bytes:,}"
    elif closed:
        state, detail = "unreadable", closed
    elif verification is not None:
        state = "good" if verification.valid else "damaged"
        detail = "; ".join(DRILL_FAILED if check == DRILL else check for check in verification.failed_checks)
        if verification.failed_checks == [DRILL]:  # the file is what was written, whatever came of it in a drill
            state = "differs"
            if verification.verdict in FAITHFUL:
                state, detail = verification.verdict, verification.said.removesuffix(".")
    return BackupRecord(entry, manifest, verification, state, manifest.created_at, detail, marked)


def _within(message: str) -> str:
    """Word an error's message for the inside of a sentence."""
    return message[:1].lower() + message[1:].removesuffix(".")


def _by_content(entry: Entry) -> tuple[Entry, Form]:
    """Return the entry with its compression by content, and the form of that content."""
    if entry.name.kind == "volume":
        return entry, "script"
    try:
        found = forms.file_form(entry.path)
    except StoreError:  # whoever reads it gets the error
        return entry, "script"
    if found.packing == "none" and entry.name.compression != "none":  # as its name says: then it is damaged
        return entry, "script"
    return replace(entry, name=replace(entry.name, compression=found.packing)), found.form


def _time_without_manifest(entry: Entry) -> datetime:
    if entry.name.stamp is not None:
        with suppress(ValueError, OverflowError, OSError):  # a time that the system's time zones do not reach
            return entry.name.stamp.astimezone(UTC)
    return datetime.fromtimestamp(entry.mtime_ns / 1e9, UTC)
