"""`verify_backup` of an archive of a whole volume. `quick` and `full` need the backup directory only."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...errors import ArgumentsInvalid
from ...models.common import Level
from ...models.manifest import VolumeManifest
from ...models.verification import Check, Drill, Verification
from ...progress import Progress
from ...store.directory import DRILL, Entry
from ..catalog import records
from ..catalog.records import BackupRecord
from ..context import BackupContext
from ..drill.volume import drill_volume, require_docker
from ..proc004 import FINAL_CHECK_OF_VOLUME
from ..reading import archive, archive_checks, archive_configuration, checks
from ..reading.archive import Archive
from ..reading.archive_configuration import warnings_of
from . import outcomes

HARMLESS = (checks.MANIFEST, checks.CLOCK, archive_checks.CONSISTENT)
"""Checks that say nothing about the file's content."""


def verify_volume(
    context: BackupContext, progress: Progress, entry: Entry, level: Level, *, for_sql: Sequence[str] = ()
) -> Verification:
    """Check an archive and, after `full` or `drill`, keep the outcome with it. `for_sql` names given arguments that are
    only for SQL backups. Raises ArgumentsInvalid, StoreError, or what `drill.volume` raises."""
    began = time.monotonic()
    if for_sql:
        raise ArgumentsInvalid(
            f"{entry.name.name} is a backup of a whole volume, which does not take {' and '.join(for_sql)}.",
            "Leave it out.",
        )
    if level == "drill":
        require_docker(context)
    record = records.volume_record(context, entry)
    reading = ArchiveReading([])
    if level == "quick":
        progress.stage(f"checking {record.name}")
        reading.checks += archive_checks.quick_checks(record)
    elif level == "full" and (found := _unchanged(record, progress)):
        reading.checks += found
        reading.warnings += warnings_of(found)
        reading.unchanged = record.manifest
        reading.warnings += outcomes.keep(context, entry, reading.sha256 or "", found)
    else:
        reading.archive = read = archive.read(entry.path, entry.name.compression, progress)
        reading.checks += archive_checks.content_checks(record, read)
        reading.warnings += warnings_of(reading.checks)
        if record.manifest is not None or record.detail:
            reading.warnings += outcomes.keep(context, entry, read.sha256, reading.checks)
        intact = all(check.ok is not False or check.check in HARMLESS for check in reading.checks)
        if level == "drill" and intact:
            reading.drill, drilled = drill_volume(context, record, read, progress)
            reading.warnings += outcomes.keep(context, entry, read.sha256, reading.checks, reading.drill)
            reading.checks += drilled
        elif level == "drill":
            reading.checks.append(Check(check=DRILL, ok=None, detail="not done: the file itself is not intact"))
    return _report(context, record, level, reading, time.monotonic() - began)


@dataclass
class ArchiveReading:
    """The results of checking an archive."""

    checks: list[Check]
    archive: Archive | None = None
    unchanged: VolumeManifest | None = None
    """The manifest of a file whose content was not read through again, because it has not changed."""
    drill: Drill | None = None
    warnings: list[str] = field(default_factory=list[str])

    @property
    def sha256(self) -> str | None:
        """The file's digest; None after `quick`."""
        read = self.archive or self.unchanged
        return read.sha256 if read else None

    @property
    def files(self) -> int | None:
        """Number of files in it; None after `quick`."""
        if self.archive:
            return len(self.archive.contents.files)
        return self.unchanged.files if self.unchanged else None


def _unchanged(record: BackupRecord[VolumeManifest], progress: Progress) -> list[Check]:
    """Check an archive by its SHA-256 alone; return [] if that is not enough (see `checks.unchanged`)."""
    found = checks.unchanged(record, archive_checks.RULES_VERSION, progress)
    if found and record.manifest is not None:
        found.append(archive_configuration.check(record.manifest.configuration or [], foreign=False))
    return found


def _report(
    context: BackupContext, record: BackupRecord[VolumeManifest], level: Level, reading: ArchiveReading, seconds: float
) -> Verification:
    return outcomes.report(
        record,
        level,
        reading.checks,
        reading.drill,
        context.directory.verification(record.entry),
        FINAL_CHECK_OF_VOLUME,
        warnings=reading.warnings,
        rows=record.manifest.rows if record.manifest else None,
        files=reading.files,
        sha256=reading.sha256,
        duration_seconds=round(seconds, 3),
        remedy=_remedy(record, level, reading),
    )


def _remedy(record: BackupRecord[VolumeManifest], level: Level, reading: ArchiveReading) -> str | None:
    """Say what to do about an archive after these checks; None if nothing has to be done."""
    if reading.drill is not None and reading.drill.proved is not True:
        return _remedy_after(reading.drill)
    failed = [check.check for check in reading.checks if check.ok is False]
    wrong = [check for check in failed if check not in (checks.MANIFEST, checks.CLOCK)]
    if wrong == [archive_checks.CONSISTENT]:
        return (
            "The file is intact, but was copied from a running server: keep it if it is all you have, try it with "
            "level drill, and take a new backup of kind volume."
        )
    if wrong:
        return "Don't rely on it: take a new backup of kind volume while the database exists."
    if record.manifest is not None:
        return "Its time is in the future: check this machine's clock." if failed else None
    if record.detail:
        return "Its manifest is damaged, so nothing shows whether its content is intact: take a new backup."
    if level == "quick":
        return "Verify it with level full, which reads all of it."
    return "This tool did not make it, or its manifest is lost: take a new backup of kind volume."


def _remedy_after(drilled: Drill) -> str:
    if drilled.sound:
        return (
            f"Nothing is wrong with it as far as it could be tried: {drilled.detail}. Keep it, and make a new "
            "backup when the server runs."
        )
    if drilled.proved is None:
        return (
            f"Nothing is wrong with the file as far as it was read, but it is not proved: {drilled.detail}. Keep it, "
            "and take a new backup while the database exists."
        )
    return (
        "Don't rely on it, but keep the file: `drill` and the checks say what is wrong. Make a new backup with "
        "`backup` and kind volume while the database exists."
    )
