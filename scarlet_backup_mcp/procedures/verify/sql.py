"""`verify_backup`: PROC-004's step 4 and "Verifica Finale". `quick` and `full` need the backup directory only."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from ...errors import ArgumentsInvalid, BackupNotValid, again
from ...models.common import CodePage, Level
from ...models.manifest import Manifest
from ...models.verification import Check, CodePageChoice, Drill, Verification
from ...postgres.dump.contents import Contents
from ...postgres.dump.events import Handler
from ...postgres.dump.refusals import RULES_VERSION
from ...progress import Progress
from ...store import names
from ...store.directory import DRILL, Entry
from ...store.encodings import DESCRIPTIONS
from ...store.forms import ARCHIVES
from ...store.forms import DESCRIPTIONS as DESCRIPTIONS_OF_FORMS
from ...store.powershell import Survey
from .. import durations
from ..catalog import by_name, recorded, records
from ..catalog.records import BackupRecord
from ..context import BackupContext
from ..drill.sql import Rehearsal, rehearsal
from ..memory import sets
from ..proc004 import FINAL_CHECK
from ..reading import checks, reencoded
from ..reading.foreign import DumpChoice, choose
from ..reading.sql import Examination, examine
from ..sandbox import pg_restore
from . import outcomes
from .volume import verify_volume

CONVERSION = "conversion"
"""Name of the check whether pg_restore could read an archive."""


@dataclass(frozen=True)
class SqlReading:
    """The results of checking a backup. `survey` is of a PowerShell-made file, `named` the code page that the caller
    named for it; `choice` is what was read of a foreign script."""

    checks: list[Check]
    examination: Examination | None = None
    survey: Survey | None = None
    named: CodePage | None = None
    warnings: list[str] = field(default_factory=list[str])
    choice: DumpChoice | None = None
    sha256: str | None = None
    """Of an archive, whether or not it was converted into a script, or of a file that is unchanged."""
    unchanged: Manifest | None = None
    """The manifest of a file whose content was not examined again, because it has not changed."""

    @property
    def failed(self) -> list[Check]:
        """The checks that failed."""
        return [check for check in self.checks if check.ok is False]

    @property
    def ambiguous(self) -> Survey | None:
        """The survey of a file that can be repaired in several ways, if none of them was named."""
        survey = self.survey
        unclear = survey is not None and survey.repair is None and survey.damage is None and bool(survey.choices)
        return survey if unclear and not (self.named and self.fits) else None

    @property
    def fits(self) -> bool:
        """Whether the named page, if any, can be the right one. 65001, the text as it is, always can."""
        return reencoded.fits(self.survey, self.named)

    @property
    def encoding(self) -> str:
        """What happened to a PowerShell-made file, and how it is undone."""
        return reencoded.describe(self.survey, self.named) if self.survey else ""

    @property
    def whole(self) -> bool:
        """Whether the file is intact: a missing manifest and a wrong clock are not its fault."""
        return all(check.check in (checks.MANIFEST, checks.CLOCK) for check in self.failed)


def verify(
    context: BackupContext,
    progress: Progress,
    name: str = "latest",
    level: Level = "full",
    *,
    code_page: CodePage | None = None,
    on_live_server: bool = False,
    sample: bool = False,
) -> Verification:
    """Check a backup and, after `full` or `drill`, keep the outcome with it.

    `code_page` is for a PowerShell-made file; with `on_live_server` a drill uses a scratch database on the live server;
    with `sample` it loads a sample only, and keeps nothing but a proof of the definitions. Raises NameRefused,
    BackupMissing, StoreError, and with `drill` whatever prevents starting the sandbox server.
    """
    began = time.monotonic()
    if names.is_set(name):
        return sets.verify(context, progress, name, level, lambda of, how: verify(context, progress, of, how))
    entry = by_name.find(context, name)
    progress.expect(durations.of_verification(durations.content_bytes(entry), level))
    if entry.name.kind == "volume":
        given = [*(["code_page"] if code_page is not None else []), *(["on_live_server"] if on_live_server else [])]
        return verify_volume(context, progress, entry, level, for_sql=given)
    if (on_live_server and level != "drill") or (code_page is not None and level == "quick"):
        raise ArgumentsInvalid(
            f"Level {level} takes no {'server to drill on' if on_live_server else 'code page'}.",
            "Leave it out, or choose level drill.",
        )
    record = records.sql_record(context, entry)
    rehearsed: Rehearsal | None = None
    if level == "quick":
        progress.stage(f"checking {record.name}")
        script = record.form == "script"
        reading = SqlReading(checks.quick_checks(record) if script else pg_restore.form_checks(record))
    elif record.form != "script" and (level == "full" or not pg_restore.is_archive(record)):
        found, sha256 = pg_restore.content_checks(record, progress)
        reading = SqlReading(found, sha256=sha256)
    elif level == "full":
        reading = unchanged(context, record, progress) if code_page is None else None
        reading = reading or full(context, record, progress, code_page=code_page)
    else:
        try:
            with pg_restore.as_script(context, record, progress) as script:
                reading, rehearsed = _drilled(context, record, script, progress, code_page, on_live_server, sample)
        except pg_restore.NotConverted as error:
            detail = f"{error.message} {error.remedy}"
            converted = Check(check=CONVERSION, ok=False if error.damaged else None, detail=detail)
            reading = SqlReading([*pg_restore.form_checks(record), converted])
    return _report(context, record, level, reading, rehearsed, time.monotonic() - began)


def _drilled(
    context: BackupContext,
    record: BackupRecord[Manifest],
    script: BackupRecord[Manifest],
    progress: Progress,
    code_page: CodePage | None,
    on_live_server: bool,
    sample: bool,
) -> tuple[SqlReading, Rehearsal | None]:
    """Drill the backup `record`, read as `script`."""
    contents = Contents()
    reading = full(context, script, progress, contents, code_page=code_page)
    reading = replace(reading, sha256=script.archive)
    if reading.choice is not None and reading.choice.refused:
        reading.checks.append(Check(check=DRILL, ok=None, detail=f"not done: {reading.choice.refused}"))
    elif reading.whole and reading.examination is not None:
        examined = reading.examination
        with rehearsal(context, script, examined, contents, progress, on_live_server, sample) as rehearsed:
            if not sample or rehearsed.report.proved_by is not None:
                reading.warnings.extend(keep(context, record.entry, reading, rehearsed.report))
        return reading, rehearsed
    else:
        reading.checks.append(Check(check=DRILL, ok=None, detail="not done: the file itself is not intact"))
    return reading, None


def find(context: BackupContext, name: str) -> BackupRecord[Manifest]:
    """Return the SQL backup that `name` (or `latest`) means. Raises BackupNotValid for an archive of a whole volume."""
    entry = by_name.find(context, name)
    if entry.name.kind == "volume":
        raise BackupNotValid(f"{name} is an archive of a whole volume, not SQL.", "Name an SQL backup.")
    record = records.sql_record(context, entry)
    if record.form != "script":
        raise BackupNotValid(f"{name} is {DESCRIPTIONS_OF_FORMS[record.form]}.", "Name a script (.sql).")
    return record


def unchanged(context: BackupContext, record: BackupRecord[Manifest], progress: Progress) -> SqlReading | None:
    """Check a backup by its SHA-256 alone, if that is enough (see `checks.unchanged`), and keep the outcome; else
    return None."""
    manifest, found = record.manifest, checks.unchanged(record, RULES_VERSION, progress)
    if manifest is None or not found:
        return None
    warnings = outcomes.keep(context, record.entry, manifest.sha256, found)
    return SqlReading(found, sha256=manifest.sha256, unchanged=manifest, warnings=warnings)


def full(
    context: BackupContext,
    record: BackupRecord[Manifest],
    progress: Progress,
    *extra: Handler,
    store: bool = True,
    code_page: CodePage | None = None,
) -> SqlReading:
    """Read a backup completely and check everything; with `store`, keep the outcome with it.

    Raises ArgumentsInvalid for a `code_page` that the file does not need.
    """
    entry = record.entry
    survey, repair = None, None
    if (container := checks.container_of(entry)) != "plain":
        survey = reencoded.examine(entry, progress)
        repair = reencoded.way_back(container, survey, code_page)
    elif code_page is not None:
        raise ArgumentsInvalid(
            f"{record.name} was not re-encoded, so it has no code page.", "Leave it out.", again(code_page=None)
        )
    choice = choose(entry, repair, context.database, progress) if record.manifest is None else None
    way = choice.way if choice else None
    older = record.manifest is not None and record.manifest.manifest_version == 1
    examination = examine(
        entry.path, entry.name.compression, progress, *extra, repair=repair, way=way, sha256_of_blocks=older
    )
    certain = survey is None or (
        reencoded.fits(survey, code_page) if code_page is not None else survey.repair is not None
    )
    encoding = reencoded.describe(survey, code_page) if survey else ""
    found = checks.content_checks(record, encoding, examination, certain, choice)
    reading = SqlReading(found, examination, survey, code_page, choice=choice)
    if store and (record.manifest is not None or record.detail):
        reading.warnings.extend(keep(context, entry, reading))
    return reading


def keep(context: BackupContext, entry: Entry, reading: SqlReading, drilled: Drill | None = None) -> list[str]:
    """Keep the outcome of a reading, and of a drill if there was one (see `outcomes.keep`)."""
    read = reading.examination
    assert read is not None
    return outcomes.keep(context, entry, reading.sha256 or read.sha256, reading.checks, drilled, read.code_page)


# -- the report ------------------------------------------------------------------------------------------------------


def _report(
    context: BackupContext,
    record: BackupRecord[Manifest],
    level: Level,
    reading: SqlReading,
    rehearsed: Rehearsal | None,
    seconds: float,
) -> Verification:
    examination, survey = reading.examination, reading.survey
    drilled = rehearsed.report if rehearsed else None
    tables = examination.tables if examination else reading.unchanged.tables if reading.unchanged else None
    outcome = context.directory.verification(record.entry)
    if outcome is not None and examination is not None and outcome.code_page != examination.code_page:
        outcome = None  # it belongs to what another code page makes of the file
    return outcomes.report(
        record,
        level,
        [*reading.checks, *(rehearsed.checks if rehearsed else [])],
        drilled,
        outcome,
        FINAL_CHECK,
        repairable=reading.whole and examination is not None and examination.repair is not None if survey else None,
        code_pages=[
            CodePageChoice(code_pages=list(choice.code_pages), samples=list(choice.samples))
            for choice in (reading.ambiguous.choices if reading.ambiguous else ())
        ],
        warnings=[*_known_before(record), *reading.warnings],
        tables=None if tables is None else len(tables),
        rows=None if tables is None else sum(table.rows for table in tables),
        sha256=reading.sha256 or (examination.sha256 if examination else None),
        duration_seconds=round(seconds, 3),
        remedy=remedy_for(record, reading, drilled),
    )


def _known_before(record: BackupRecord[Manifest]) -> list[str]:
    manifest, found = record.manifest, recorded.not_dumped(record.manifest)
    if manifest is not None and manifest.repaired_from is not None:
        found.append(f"It is a repaired copy of {manifest.repaired_from}. {manifest.repaired_how or ''}".strip())
    return found


def remedy_for(record: BackupRecord[Manifest], reading: SqlReading, drilled: Drill | None = None) -> str | None:
    """Say what to do about a backup after these checks; None if nothing has to be done."""
    if drilled is not None and drilled.proved is not True:
        return _remedy_after(drilled)
    if record.manifest is not None:
        if not reading.whole:
            return "Don't rely on it: take a new backup, and check the disk."
        return "Its time is in the future: check this machine's clock." if reading.failed else None
    if converted := [check.detail for check in reading.checks if check.check == CONVERSION]:
        return converted[0]
    if record.form not in ("script", *ARCHIVES):
        return f"It is {DESCRIPTIONS_OF_FORMS[record.form]}. It may well be intact, but it can't be restored here."
    if reading.choice is not None and reading.choice.refused:
        return f"Nothing is wrong with the file, but it can't be restored as a database: {reading.choice.refused}."
    if record.detail:
        return "Its manifest is damaged, so nothing shows whether its content is intact: take a new backup."
    if not reading.whole:
        if not reading.fits:
            return "Leave the code page out: the possible pages, if any, are listed then."
        if reading.ambiguous is not None:
            return (
                "Choose the code page whose sample words are right. If none are, the file is "
                "damaged: 65001 takes its text as it is."
            )
        return "It is damaged: choose another one, or take a new backup while the database exists."
    if pg_restore.is_archive(record):
        if drilled is not None:
            return "It can be restored as a foreign file (accept_foreign)."
        return "Only pg_restore can read all of it: verify it with level drill, which uses that."
    if (container := checks.container_of(record.entry)) != "plain":
        return (
            f"The file is {DESCRIPTIONS[container]}. {reencoded.how_much(reading.survey)}: a restore reads it "
            "repaired, and `scarlet-backup-mcp repair` writes a clean copy."
        )
    if drilled is not None:
        return "It can be restored as a foreign file (accept_foreign)."
    if reading.examination is None:
        return "Only its beginning and end were checked: verify it with level full or drill."
    return "Its structure is intact, but nothing shows whether its content is: verify it with level drill."


def _remedy_after(drilled: Drill) -> str:
    if drilled.verdict == "constraint_violated":
        return (
            "Fix the rows in the live database, then take a new backup; or, if it is lost, restore with the violations "
            "accepted (accept_violations)."
        )
    if drilled.verdict == "will_not_load":
        return drilled.detail
    if drilled.proved_by == "sample":
        return f"Of it {drilled.detail}; verify it with level drill to try all of it."
    if drilled.sound:
        return f"All of its content comes back, but it is not proved: {drilled.detail}."
    if drilled.proved is None:
        return f"Nothing is wrong with the file as far as it was read. {drilled.detail}"
    return "Don't rely on it, but keep the file: `differences` and the checks say what differs. Make a new backup."
