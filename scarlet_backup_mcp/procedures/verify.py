"""`verify_backup`: PROC-004's step 4 and "Verifica Finale". `quick` and `full` need the backup directory only."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from ..errors import ArgumentsInvalid, BackupNotValid, CodePageNeeded
from ..models import Check, CodePage, CodePageChoice, Drill, Level, Manifest, Step, Verification
from ..postgres.contents import Contents
from ..postgres.script import Handler
from ..progress import Progress
from ..store.directory import DRILL, Entry
from ..store.encodings import DESCRIPTIONS, Container
from ..store.powershell import Repair, Survey, survey
from ..store.reading import CompressionDamaged, FileReader, decompress
from . import catalogue, checks
from .catalogue import Known
from .drill import Rehearsal, rehearsal
from .examine import Examination, examine
from .target import Target


@dataclass(frozen=True)
class Reading:
    """What checks of a backup gave. `survey` is of a file that PowerShell has written."""

    checks: list[Check]
    examination: Examination | None = None
    survey: Survey | None = None

    @property
    def failed(self) -> list[Check]:
        """What is wrong."""
        return [check for check in self.checks if check.ok is False]

    @property
    def ambiguous(self) -> Survey | None:
        """What was found out of a file that can be repaired in several ways, with different texts."""
        looked = self.survey
        unclear = looked is not None and looked.repair is None and looked.damage is None and bool(looked.choices)
        return looked if unclear else None

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong but that there is no manifest."""
        return all(check.check == checks.MANIFEST for check in self.failed)


def verify(
    target: Target,
    progress: Progress,
    name: str = "latest",
    level: Level = "full",
    *,
    code_page: CodePage | None = None,
    on_live_server: bool = False,
) -> Verification:
    """Check a backup and, after `full` or `drill`, keep the outcome beside it.

    `code_page` is for a file that PowerShell has written; `on_live_server` has a drill use a scratch database on the
    live server. Raises NameRefused, BackupMissing, BackupNotValid (an archive of a whole volume), StoreError, and with
    `drill` what keeps the throw-away server from being had.
    """
    began = time.monotonic()
    if (on_live_server and level != "drill") or (code_page is not None and level == "quick"):
        raise ArgumentsInvalid(
            f"Level {level} has no use for {'on_live_server' if on_live_server else 'code_page'}.",
            "Call it again without it, or with level drill.",
        )
    known = find(target, name)
    drilled: Drill | None = None
    if level == "quick":
        progress.stage(f"looking at {known.name}")
        reading = Reading(checks.quick_checks(known))
    elif level == "full":
        reading = full(target, known, progress, code_page=code_page)
    else:
        contents = Contents()
        reading = full(target, known, progress, contents, code_page=code_page)
        if reading.whole and reading.examination is not None:
            with rehearsal(target, known, reading.examination, contents, progress, on_live_server) as rehearsed:
                keep(target, known, reading, rehearsed)
            drilled = rehearsed.report
            reading.checks.extend(rehearsed.checks)
        else:
            reading.checks.append(Check(check=DRILL, ok=None, detail="not done: the file itself is not whole"))
    return _report(target, known, level, reading, drilled, time.monotonic() - began)


def find(target: Target, name: str) -> Known[Manifest]:
    """The SQL backup that `name` (or `latest`) means."""
    entry = target.directory.find(catalogue.latest(target) if name == "latest" else name)
    if entry.name.kind == "volume":
        raise BackupNotValid(
            f"{name} is an archive of a whole volume: its content can't be checked by this version.",
            "Take an SQL backup with `backup`: that one can be verified.",
        )
    return catalogue.know(target, entry)


def full(
    target: Target,
    known: Known[Manifest],
    progress: Progress,
    *extra: Handler,
    store: bool = True,
    code_page: CodePage | None = None,
) -> Reading:
    """Every check, and what the reading found. The outcome is kept beside the backup if `store`.

    Raises ArgumentsInvalid for a `code_page` that the file has no use for.
    """
    entry = known.entry
    looked, repair = None, None
    if (container := checks.container_of(entry)) != "plain":
        looked = _survey(entry, progress)
        repair = _repair(container, looked, code_page)
    elif code_page is not None:
        raise ArgumentsInvalid(
            f"{known.name} was not re-encoded, so it has no code page.", "Call it again without code_page."
        )
    examination = examine(entry.path, entry.name.compression, progress, *extra, repair=repair)
    certain = code_page is not None or looked is None or looked.repair is not None
    found = checks.content_checks(known, looked, examination, certain)
    if store and (known.manifest is not None or known.detail):
        keep(target, known, Reading(found, examination))
    return Reading(found, examination, looked)


def keep(target: Target, known: Known[Manifest], reading: Reading, rehearsed: Rehearsal | None = None) -> None:
    """Keep the outcome of a full verification, and of a drill if one was done, beside the backup."""
    assert reading.examination is not None
    failed = [check.check for check in reading.failed if check.check != checks.CLOCK]
    proved = rehearsed.report.proved if rehearsed else None
    if proved is False:
        failed.append(DRILL)
    target.directory.store_verification(known.entry, sha256=reading.examination.sha256, failed=failed, proved=proved)


def code_page_needed(known: Known[Manifest], looked: Survey) -> CodePageNeeded:
    """The error where a file can't be read before the caller has named its code page."""
    choices = "; ".join(f"code_page={choice.code_pages[0]}: {', '.join(choice.samples)}" for choice in looked.choices)
    return CodePageNeeded(f"{known.name}: {looked.why} {choices}.")


# -- files that PowerShell has written -------------------------------------------------------------------------------


def _survey(entry: Entry, progress: Progress) -> Survey:
    progress.stage(f"finding out what PowerShell did to {entry.name.name}", entry.bytes)
    try:
        return survey(decompress(iter(FileReader(entry.path, progress.report)), entry.name.compression))
    except CompressionDamaged:
        return survey(iter([]))


def _repair(container: Container, looked: Survey, code_page: CodePage | None) -> Repair | None:
    """What to read the file through. Between choices the structure is the same, so any of them will do for a look."""
    if code_page is not None:
        return Repair(container, code_page)
    if looked.repair is None and looked.choices:
        return Repair(container, looked.choices[0].code_pages[0])
    return looked.repair


# -- what is told ----------------------------------------------------------------------------------------------------


def _report(
    target: Target, known: Known[Manifest], level: Level, reading: Reading, drilled: Drill | None, seconds: float
) -> Verification:
    failed, examination, looked = reading.failed, reading.examination, reading.survey
    valid = not failed
    outcome = target.directory.verification(known.entry)
    return Verification(
        name=known.name,
        level=level,
        valid=valid,
        proved=outcome.proved if outcome else None,
        proved_at=outcome.proved_at if outcome else None,
        foreign=known.foreign,
        shrunk=known.manifest.shrunk if known.manifest else None,
        repairable=looked.repair is not None and reading.whole if looked else None,
        code_pages=[
            CodePageChoice(code_pages=list(choice.code_pages), samples=list(choice.samples))
            for choice in (reading.ambiguous.choices if reading.ambiguous else ())
        ],
        drill=drilled,
        checks=reading.checks,
        tables=len(examination.tables) if examination else None,
        rows=examination.rows if examination else None,
        bytes=known.entry.bytes,
        sha256=examination.sha256 if examination else None,
        verified_at=datetime.now(UTC),
        duration_seconds=round(seconds, 3),
        steps=[
            Step(
                step="Verifica Finale",
                title="The file exists, is not empty, has the right time, and holds what it should",
                ok=valid,
                detail="; ".join(check.check for check in failed) or "every check holds",
            )
        ],
        remedy=remedy_for(known, reading),
    )


def remedy_for(known: Known[Manifest], reading: Reading) -> str | None:
    """What to do about a backup with these checks; None if nothing has to be done."""
    container = checks.container_of(known.entry)
    if known.manifest is not None:
        return "Don't rely on it: take a new backup with `backup`, and check the disk." if reading.failed else None
    if known.detail:
        return "Its manifest is damaged, so nothing tells whether its content is whole: call `backup` for a new one."
    if not reading.whole:
        if reading.ambiguous is not None:
            return "Call it again with code_page= the page whose words read right."
        return "It is damaged: take a new backup with `backup` while the database is there."
    if container != "plain":
        told = "Its text can be had back in full" if reading.survey else "Call `verify_backup` with level full"
        return (
            f"The file is {DESCRIPTIONS[container]}. {told}: `restore` reads it repaired, and "
            "`scarlet-backup-mcp repair` writes a clean copy."
        )
    return "Its structure is whole, but nothing tells whether its content is: call `verify_backup` with level drill."
