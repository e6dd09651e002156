"""`verify_backup` of an archive of a whole volume. Needs the backup directory only."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from ..errors import ArgumentsInvalid, DrillFailed, StoreError
from ..models import Check, Level, Step, Verification, VolumeManifest
from ..progress import Progress
from ..store.directory import Entry
from . import archive, archive_checks, catalogue, checks
from .archive import Archive
from .catalogue import Known
from .target import Target


def verify_volume(
    target: Target, progress: Progress, entry: Entry, level: Level, *, for_sql: list[str]
) -> Verification:
    """Check it and, after `full`, keep the outcome beside it. `for_sql` names arguments that were given, but are for
    SQL backups only. Raises ArgumentsInvalid, DrillFailed or StoreError."""
    began = time.monotonic()
    if for_sql:
        raise ArgumentsInvalid(
            f"{entry.name.name} is a backup of a whole volume, which has no use for {' and '.join(for_sql)}.",
            "Call it again without it.",
        )
    if level == "drill":
        raise DrillFailed(
            f"{entry.name.name} is a backup of a whole volume: a drill of such a one is not done by this version.",
            "Call it again with level full, which compares every file with the server's own list of them.",
        )
    known = catalogue.know_volume(target, entry)
    if level == "quick":
        progress.stage(f"looking at {known.name}")
        return _report(known, level, archive_checks.quick_checks(known), None, [], time.monotonic() - began)
    read = archive.read(entry.path, entry.name.compression, progress)
    found = archive_checks.content_checks(known, read)
    warnings = _keep(target, known, found, read) if known.manifest is not None or known.detail else []
    return _report(known, level, found, read, warnings, time.monotonic() - began)


def _keep(target: Target, known: Known[VolumeManifest], found: list[Check], read: Archive) -> list[str]:
    """As `verify.keep`."""
    failed = [check.check for check in found if check.ok is False and check.check != checks.CLOCK]
    try:
        target.directory.store_verification(known.entry, sha256=read.sha256, failed=failed)
    except StoreError as error:
        return [f"The outcome could not be kept beside the backup: {error.message}"]
    return []


def _report(
    known: Known[VolumeManifest],
    level: Level,
    found: list[Check],
    read: Archive | None,
    warnings: list[str],
    seconds: float,
) -> Verification:
    failed = [check.check for check in found if check.ok is False]
    return Verification(
        name=known.name,
        level=level,
        valid=not failed,
        foreign=known.foreign,
        shrunk=known.manifest.shrunk if known.manifest else None,
        warnings=warnings,
        checks=found,
        rows=known.manifest.rows if known.manifest else None,
        files=len(read.contents.files) if read else None,
        bytes=known.entry.bytes,
        sha256=read.sha256 if read else None,
        verified_at=datetime.now(UTC),
        duration_seconds=round(seconds, 3),
        steps=[
            Step(
                step="Verifica Finale",
                title="The archive exists, is not empty, has the right time, and holds what it should",
                ok=not failed,
                detail="; ".join(failed) or "every check holds",
            )
        ],
        remedy=_remedy(known, level, failed),
    )


def _remedy(known: Known[VolumeManifest], level: Level, failed: list[str]) -> str | None:
    """What to do about it after these checks; None if nothing has to be done."""
    wrong = [check for check in failed if check not in (checks.MANIFEST, checks.CLOCK)]
    if wrong == [archive_checks.CONSISTENT]:
        return (
            "The file is whole, but was copied from a server that ran: keep it if it is all there is, try it out on a "
            "spare machine only, and take a new backup with `backup` and kind volume."
        )
    if wrong:
        return "Don't rely on it: take a new backup with `backup` and kind volume while the database is there."
    if known.manifest is not None:
        return "Its time lies in the future: check this machine's clock." if failed else None
    if known.detail:
        return "Its manifest is damaged, so nothing tells whether its content is whole: call `backup` for a new one."
    if level == "quick":
        return "Call `verify_backup` with level full: it reads all of it."
    return "`backup` did not make it, or its manifest is lost: take a new one with `backup` and kind volume."
