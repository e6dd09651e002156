"""`restore` of a whole volume: unpack next to the current contents, check, exchange them, see the server run.

Until the exchange the server runs on and nothing of its is touched. Whatever fails in it puts the old contents back.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ...errors import (
    BackupNotValid,
    BackupToolError,
    ConfirmationStale,
    NextCall,
    RestoreFailed,
    RestoreInterrupted,
    ServerError,
    again,
)
from ...hosts import Host
from ...hosts.docker.helper import HelperMounts
from ...hosts.docker.volumes import create_volume, engine_id, is_removable, volume_exists
from ...models.common import Step
from ...models.manifest import VolumeManifest
from ...models.results import DependentReport, Restore
from ...models.verification import Check, Drill
from ...postgres.cluster.configuration import SIGNALS
from ...progress import Progress
from ...store.lock import writer_lock
from ...store.reading import CompressionDamaged, FileReader, decompress
from ...wording import number_of
from .. import durations
from ..call_notes import CallNotes
from ..catalog.records import BackupRecord
from ..context import BackupContext
from ..own_names import VOLUME_UNDO
from ..proc004 import RESTORE_VOLUME
from ..reading import archive, archive_checks, archive_configuration, checks
from ..reading.archive import Archive
from ..recovery import journal as journals
from ..recovery.helper_container import helper, require_alone
from ..recovery.journal import StoppedContainer, VolumeJournal, maintenance_session, tidy_up
from ..recovery.volume_exchange import exchange, finish, roll_back
from ..recovery.volume_layout import VolumeLayout, put_in_of
from ..verify.volume import verify_volume
from .options import AS_USUAL, UNDO, WITHOUT_DRILL, Confirmed, Proposal, RestoreOptions
from .volume_plan import VolumePlan, plan
from .volume_preflight import ServerFound, look_at_the_server, look_at_the_volume, look_where_it_listens

SHOWN = 5


@dataclass
class VolumeRestored:
    """What a restore has come to know on its way."""

    files: int | None = None
    drill: Drill | None = None
    integrity_rows: int | None = None
    steps: list[Step] = field(default_factory=list[Step])
    warnings: list[str] = field(default_factory=list[str])

    def did(self, title: str, detail: str = "") -> None:
        """Note a step that succeeded."""
        self.steps.append(RESTORE_VOLUME.titled(title).reported(True, detail))


@dataclass(frozen=True)
class VolumeRestore:
    """A restore of the whole volume from an archive or an undo point."""

    context: BackupContext
    progress: Progress
    source: str
    options: RestoreOptions
    notes: CallNotes

    def propose(self) -> Proposal:
        """Write the question. Raises RestoreRefused's children and HostError."""
        planned = self._plan()
        return Proposal(planned.source, planned.question(self.context.settings.integrity_table), _confirms(planned))

    def dry_run(self) -> Restore:
        """Check everything that `run` would check except for a drill. Changes nothing in the volume."""
        began = time.monotonic()
        context, progress, planned = self.context, self.progress, self._plan()
        work = VolumeRestored(warnings=list(planned.warnings))
        if planned.record is not None:
            progress.expect(durations.of_verification(durations.content_bytes(planned.record.entry), "full"))
        read = _read(planned, work, progress)
        there = planned.container_info is not None or (
            planned.site.volume is not None and volume_exists(planned.site.volume)
        )
        mounts = planned.mounts if there else HelperMounts(mounted_at=planned.site.mounted_at)
        with helper(context, planned.image, mounts, progress, alone=False) as host:
            contents = _contents(host, planned)
            look_at_the_volume(planned, contents, read)
            work.warnings += look_where_it_listens(context, planned, contents, read)
            had_contents = contents.is_there
        work.did("Check that the volume is ready", "version, space, and nobody else uses it")
        dependents = context.host.dependents() if planned.container_info and planned.options.stop_dependents else []
        for title in (
            *(["Restore it into a sandbox"] if planned.drills else []),
            *(["Unpack it next to the current contents"] if planned.record else []),
            *(["Comment out what its configuration would do"] if planned.effects else []),
            "Stop the services that depend on the server, and the server",
            "Exchange the contents of the volume by renames",
            "Start the server, look at it, and start those services again",
        ):
            work.steps.append(RESTORE_VOLUME.titled(title).reported(None, "not done: dry run"))
        would = [DependentReport(name=d.name, action="would be restarted") for d in dependents if d.running]
        undo = f"{VOLUME_UNDO}<time>" if had_contents else None
        return _report(context, planned, work, began, undo=undo, restored=False, away=None, dependents=would)

    def run(self, confirmed: Confirmed | None) -> Restore:
        """Do it. Raises BackupToolError; its message says if the volume has changed."""
        context, progress = self.context, self.progress
        context.directory.prepare()
        with writer_lock(context.directory.path, "restore"):
            self._settle_database()
            planned = self._plan(asked=confirmed is not None)
            if confirmed is not None and confirmed != _confirms(planned):
                raise ConfirmationStale(f"{planned.source} or the container has changed since the confirmation.")
            self.notes.announce(planned.identity)
            return _restore(context, progress, planned, [*self.notes.settled, *planned.warnings])

    def _plan(self, *, asked: bool = False) -> VolumePlan:
        return plan(self.context, self.progress, self.source, self.options, asked=asked)

    def _settle_database(self) -> None:
        """Settle a database's restore that was interrupted there. Raises RestoreInterrupted."""
        if journals.read(self.context.directory.path) is not None:
            with maintenance_session(self.context, self.progress) as guard:
                tidy_up(self.context, guard, self.notes, restoring=True)


def _confirms(planned: VolumePlan) -> Confirmed:
    return Confirmed(planned.sha256, None, planned.container_info.container_id if planned.container_info else None)


def _restore(context: BackupContext, progress: Progress, planned: VolumePlan, warnings: list[str]) -> Restore:
    began = time.monotonic()
    work = VolumeRestored(warnings=warnings)
    if planned.record is not None:
        size = durations.content_bytes(planned.record.entry)
        progress.expect(durations.of_restore(size, drills=planned.drills))
    read = _verified(context, planned, work, progress)
    dependents = context.host.dependents() if planned.container_info else []
    running = [d for d in dependents if d.running] if planned.options.stop_dependents else []
    if planned.container_info is None and planned.site.volume is not None:
        create_volume(planned.site.volume, planned.site.volume_labels)
    with helper(context, planned.image, planned.mounts, progress) as host:
        contents = _contents(host, planned)
        owner = look_at_the_volume(planned, contents, read)
        work.warnings += look_where_it_listens(context, planned, contents, read)
        had_contents = contents.is_there
        require_alone(context, planned.source_of_mount, planned.container_info)
        work.did("Check that the volume is ready", "version, space, and nobody else uses it")
        journal = VolumeJournal(
            source=planned.source,
            container=planned.container_info.container if planned.container_info else None,
            container_id=planned.container_info.container_id if planned.container_info else None,
            image_id=planned.image,
            site=planned.site,
            mounted=planned.source_of_mount,
            engine=engine_id(),
            removable=planned.site.volume is not None and is_removable(planned.site.volume),
            stamp=contents.stamp,
            undo=planned.undo,
            was_running=planned.container_info is not None
            and planned.container_info.state in ("running", "restarting"),
            dependents=[StoppedContainer(id=d.id, name=d.name) for d in running],
            exchanging=False,
            started_at=datetime.now(UTC),
        )
        journals.write(context.directory.path, journal)
        incoming = _bring_in(context, planned, contents, journal, read, owner, work, progress)
        away = exchange(context, contents, journal, incoming, progress)
        work.did("Exchange the contents of the volume by renames", f"{away:.1f} s without the server" if away else "")
        if planned.container_info is not None:
            try:
                found = _look_at_the_server(context, planned)
            except BaseException as error:
                with progress.uninterrupted():
                    roll_back(context, contents, journal, error)
                raise
            work.integrity_rows = found.integrity_rows
            work.warnings += found.warnings
            databases, rows = number_of(found.databases, "database"), number_of(found.integrity_rows, "row")
            work.did("Start the server and look at it", f"{databases}, {rows} in the integrity table")
        reports = _finish(context, contents, journal, progress)
    for report in reports:
        if report.action == "start failed":
            work.warnings.append(f"{report.name} could not be started again: {report.detail} Start it by hand.")
    reports += [DependentReport(name=d.name, action="left stopped") for d in dependents if not d.running]
    reports += [
        DependentReport(name=d.name, action="left running") for d in dependents if d.running and d not in running
    ]
    if planned.container_info is None:
        work.warnings.append(
            f"There was no container, so no server has been started on it: run `docker compose up -d postgres`, which "
            f"takes over the volume {planned.site.volume}, then check the database."
        )
    undo = VOLUME_UNDO + contents.stamp if had_contents else None
    return _report(context, planned, work, began, undo=undo, restored=True, away=away, dependents=reports)


def _look_at_the_server(context: BackupContext, planned: VolumePlan) -> ServerFound:
    try:
        return look_at_the_server(context, planned)
    except ServerError as error:  # whose remedies are for the live server, which has its old contents again by then
        raise RestoreFailed(
            f"The server started on {planned.source} is not usable: {error.message.rstrip('. ')}.",
            "Choose another backup, and prove it first with a drill.",
        ) from error


def _finish(
    context: BackupContext, contents: VolumeLayout, journal: VolumeJournal, progress: Progress
) -> list[DependentReport]:
    try:
        with progress.uninterrupted():
            return finish(context, contents, journal)
    except BackupToolError as error:
        raise RestoreInterrupted(
            f"{journal.source} is restored and the server runs on it, but afterwards something failed: {error.message}",
            "The next backup or restore first does what is left to be done.",
            NextCall(tool="backup"),
        ) from error


# -- the steps -------------------------------------------------------------------------------------------------------


def _verified(context: BackupContext, planned: VolumePlan, work: VolumeRestored, progress: Progress) -> Archive | None:
    """Read the archive in full, and try it out if that is wanted; None for an undo point."""
    read = _read(planned, work, progress)
    if planned.record is None or read is None or not planned.drills:
        return read
    verified = verify_volume(context, progress, planned.record.entry, "drill", for_sql=[])
    work.drill = verified.drill
    told = archive_configuration.warnings_of(verified.checks)  # the plan has told it
    work.warnings += [warning for warning in verified.warnings if warning not in told]
    drill = verified.drill
    if drill is None or drill.proved is False or (planned.options.drill == "always" and not drill.sound):
        raise BackupNotValid(
            f"{planned.source} was not proved by a restore drill: {drill.detail if drill else 'it was not begun'}",
            *WITHOUT_DRILL,
        )
    work.warnings += drill.warnings
    if drill.proved is None:
        work.warnings.append(f"A drill did not prove it: {drill.detail}.")
    work.did("Restore it into a sandbox", drill.where)
    return read


def _read(planned: VolumePlan, work: VolumeRestored, progress: Progress) -> Archive | None:
    """Read and check the archive. Raises BackupNotValid, or ConfirmationStale if it is not its manifest's file."""
    record = planned.record
    if record is None:
        work.did("Find the undo point", planned.source)
        return None
    read = planned.read or archive.read(record.entry.path, record.entry.name.compression, progress)
    looked = archive_checks.content_checks(record, read)
    if record.manifest is not None and record.manifest.configuration is None:
        work.warnings += archive_configuration.warnings_of(looked)
    failed = [check for check in looked if check.ok is False]
    wrong = [check for check in failed if not _excused(record, check)]
    if wrong:
        raise BackupNotValid(f"{record.name} did not pass verification: {checks.describe(wrong)}.")
    if any(check.check == archive_checks.CONSISTENT for check in failed):
        work.warnings.append(
            f"{record.name} was copied while its server ran: a restore may have torn data, without any error."
        )
    work.did("Verify the archive in full", f"{read.bytes:,} bytes, {number_of(len(read.contents.files), 'file')}")
    return read


def _excused(record: BackupRecord[VolumeManifest], check: Check) -> bool:
    """A wrong clock, a missing manifest and a torn copy are the user's to accept (and were), damage is not."""
    if check.check == checks.CLOCK:
        return True
    return record.manifest is None and check.check in (checks.MANIFEST, archive_checks.CONSISTENT)


def _contents(host: Host, planned: VolumePlan) -> VolumeLayout:
    """Return the layout with a stamp, UTC now, after which nothing is named there yet."""
    while True:
        contents = VolumeLayout(host, planned.site.data_directory, f"{datetime.now(UTC):%Y%m%d_%H%M%S}")
        if not contents.exists(contents.aside):
            return contents
        time.sleep(0.2)


def _bring_in(
    context: BackupContext,
    planned: VolumePlan,
    contents: VolumeLayout,
    journal: VolumeJournal,
    read: Archive | None,
    owner: str,
    work: VolumeRestored,
    progress: Progress,
) -> str:
    """Return the directory with what is to be put in place, read back from the volume. Nothing stays if that fails."""
    if planned.undo is not None:
        return contents.set_aside(planned.undo)
    assert read is not None
    expected = put_in_of(read.contents.files)
    try:
        if not contents.is_there:
            contents.make_ready(owner)
        contents.unpack(_tar(planned, read, progress), read.contents.root, owner, progress)
        if planned.effects:
            expected = {name: file for name, file in expected.items() if name not in SIGNALS}
            expected |= contents.disarm(read.contents.kept, planned.effects, progress)
            work.did("Comment out what its configuration would do", number_of(len(planned.effects), "line"))
        progress.stage("reading back what was unpacked")
        if differing := contents.differing(expected, progress):
            raise RestoreFailed(
                f"The unpacked files differ from the archive: {', '.join(differing[:SHOWN])}.",
                "The volume's disk or its driver is at fault: check it.",
            )
    except BaseException as error:
        with progress.uninterrupted():
            roll_back(context, contents, journal, error)
        raise
    work.files = len(expected)
    work.did("Unpack it next to the current contents, and read it back", number_of(work.files, "file"))
    return contents.incoming


def _tar(planned: VolumePlan, read: Archive, progress: Progress) -> Iterator[bytes]:
    """Give the archive's plain bytes. Raises ConfirmationStale, at the latest at the end, if the file is no longer the
    one that was read."""
    assert planned.record is not None
    entry = planned.record.entry
    progress.stage(f"unpacking {entry.name.name} next to the current contents", entry.bytes)
    raw = FileReader(entry.path, progress.report)
    changed = ConfirmationStale(f"{entry.name.name} changed after it was verified.", "Restore again.", again())
    try:
        yield from decompress(iter(raw), entry.name.compression, single=True)
    except CompressionDamaged:
        raise changed from None
    if raw.sha256 != read.sha256:
        raise changed


# -- what is told ----------------------------------------------------------------------------------------------------


def _report(
    context: BackupContext,
    planned: VolumePlan,
    work: VolumeRestored,
    began: float,
    *,
    undo: str | None,
    restored: bool,
    away: float | None,
    dependents: list[DependentReport],
) -> Restore:
    if not restored:
        remedy, next_call = "To do it, restore without the dry run.", planned.options.call(planned.source)
    else:
        remedy, next_call = (UNDO, AS_USUAL.call(undo)) if undo else (None, None)
    return Restore(
        restored=restored,
        dry_run=not restored,
        kind="volume",
        source=planned.source,
        source_kind="undo_point" if planned.undo else "backup",
        source_created_at=planned.created_at,
        source_proved_at=planned.record.proved_at if planned.record else None,
        drill=work.drill,
        database=context.database,
        server=context.about,
        comparison="" if restored else planned.comparison(context.settings.integrity_table),
        undo_point=undo,
        rows_compared=None,
        files_compared=work.files,
        integrity_rows=work.integrity_rows
        if restored
        else planned.manifest.integrity_rows
        if planned.manifest
        else None,
        integrity_rows_before=planned.now.integrity_rows if planned.now else None,
        unavailable_seconds=None if away is None else round(away, 3),
        dependents=dependents,
        steps=work.steps,
        warnings=work.warnings,
        duration_seconds=round(time.monotonic() - began, 3),
        remedy=remedy,
        next_call=next_call,
    )
