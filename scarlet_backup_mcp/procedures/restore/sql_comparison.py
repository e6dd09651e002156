"""What a restore has loaded, compared with what its source holds, before it goes live."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from ...errors import PermissionDenied, QueryFailed, RestoreFailed, again
from ...models.common import CodePage, Step
from ...models.manifest import Manifest, Recomputed, TableData, rows_by_table
from ...models.verification import Drill
from ...postgres.dump.builds import Batch
from ...postgres.dump.contents import Contents
from ...postgres.dump.meanings import MEND
from ...postgres.server import catalogue as pg
from ...postgres.server import counting
from ...postgres.server.session import Session
from ...progress import Progress
from ...wording import number_of
from ..context import BackupContext
from ..loading import load_checks
from ..loading.attempts import Loader
from ..loading.load_checks import rows_in_words
from ..loading.staging import Staging
from ..proc004 import RESTORE
from .options import WITHOUT_DRILL
from .sql_plan import SqlPlan


@dataclass
class Staged:
    """What a restore has come to know on its way."""

    staging: str
    incoming_oid: int = 0
    rows_compared: int = 0
    integrity_rows: int | None = None
    comment: str | None = None
    drill: Drill | None = None
    code_page: CodePage | None = None
    template: bool = False
    journalled: bool = False
    """Whether the journal tells of `staging`: what becomes of it is then for whoever settles that to decide."""
    steps: list[Step] = field(default_factory=list[Step])
    warnings: list[str] = field(default_factory=list[str])

    def did(self, title: str, detail: str = "") -> None:
        """Note a step that succeeded."""
        self.steps.append(RESTORE.titled(title).reported(True, detail))


@dataclass(frozen=True)
class Script:
    """What is loaded, from its beginning at each call; the tables and contents in it, which may be known only at its
    end; and what a load computed from it before (None: nobody knows). `foreign`: others wrote it, with a pg_dump of the
    version `written_by` ("" if nobody knows)."""

    chunks: Callable[..., Iterator[bytes]]
    tables: Callable[[], list[TableData]]
    contents: Callable[[], Contents]
    recomputed: Callable[[], list[Recomputed] | None]
    written_by: str
    foreign: bool
    apart: Callable[[bytes], Iterator[bytes | Batch]] | None = None
    """See `Loader`."""


def require_equal(planned: SqlPlan, work: Staged, staging: Staging, script: Script) -> None:
    """Raise RestoreFailed unless the loaded database has the rows and definitions of the script, or no drill was
    wanted."""
    comparison = staging.compare(script.contents())
    excused = staging.of_other_formats() if comparison.differences else set[str]()
    report = Drill(proved=None, where=work.staging, server_version="", duration_seconds=0)
    found = load_checks.of_contents(comparison, report, foreign=script.foreign, excused=excused)
    wrong = "; ".join(check.detail for check in found if check.ok is False)
    shown = "; ".join(str(one) for one in comparison.differences[:3])
    if wrong and staging.loader.way.search_path is not None:
        raise RestoreFailed(
            f"Loaded with the database's own search_path, it differs from the backup: {shown}. The live database is "
            "unchanged.",
            "Give the functions that look for names without a schema a path of their own (ALTER FUNCTION … SET "
            "search_path), then take a new backup.",
        )
    if wrong and planned.options.drill != "never":
        raise RestoreFailed(
            f"The loaded database differs from the backup: {wrong} ({shown}). The live database is unchanged.",
            *WITHOUT_DRILL,
        )
    if wrong:
        work.warnings.append(f"The loaded database differs from the backup: {wrong} ({shown}).")


def require_same_meanings(loader: Loader, *, accepted: bool) -> list[str]:
    """Compare what names mean in what `loader` has loaded with what they meant in the backed-up database.

    Raises RestoreFailed with what differs, or gives it as warnings where the caller has `accepted` it.
    """
    found = [str(one) for one in loader.other_meanings()]
    if found and not accepted:
        raise RestoreFailed(
            f"Names changed their meaning in the loaded database: {'; '.join(found[:3])}. The live database is "
            "unchanged.",
            f"If the original database is still there, {MEND}. Or restore without a drill, and recreate those objects "
            "afterwards.",
            again(drill="never"),
        )
    return [f"Restored with another meaning; create it again: {one}." for one in found]


def compare_counts(work: Staged, loaded: list[TableData], session: Session, progress: Progress) -> None:
    """Compare the number of rows in every table that was loaded, once nobody else is in there. Raises RestoreFailed."""
    progress.stage("comparing the rows of every table")
    tables = pg.tables(session)
    dumped = rows_by_table(loaded)
    counted = counting.count_rows(session, tables)
    if damaged := [lost for lost in counted.failed if lost.damaged]:
        raise RestoreFailed(f"Some loaded tables could not be read again: {counting.listed(damaged)}.")
    work.warnings += counted.warnings("The rows of some tables could not be counted, so they were not compared")
    unknown = counted.unknown_roots(tables)
    work.rows_compared, differences = pg.compare_rows(dumped, tables, counted.by_root(tables), unknown)
    if differences:
        shown = "; ".join(f"{d.table}: {d.dumped} in the file, {d.counted} loaded" for d in differences[:5])
        raise RestoreFailed(f"The loaded database does not hold the backup's rows: {shown}.")
    work.did(
        "Compare the rows of every table",
        f"{number_of(work.rows_compared, 'row')} in {number_of(len(dumped), 'table')}",
    )


def check_integrity_rows(context: BackupContext, planned: SqlPlan, work: Staged, options: Mapping[str, str]) -> None:
    """Count the integrity table (PROC-004's step 5) in the new database, by its own search_path."""
    manifest = planned.manifest
    table = manifest.integrity_table if manifest else context.settings.integrity_table
    try:
        count = counting.count_table(context.server, work.staging, table, options)
    except (PermissionDenied, QueryFailed) as error:
        work.warnings.append(f"{table} could not be counted in the restored database: {error.message}")
        return
    found = count.rows
    if manifest is not None and found != manifest.integrity_rows:
        raise RestoreFailed(
            f"In the restored database {table} shows {count.in_words}, not {rows_in_words(manifest.integrity_rows)}. "
            "The live database is unchanged.",
            _role_settings(context, manifest),
        )
    before = planned.now.integrity_rows
    if found is None and before is not None:
        raise RestoreFailed(
            f"The file has no table {table}, which the live database has. The live database is unchanged."
        )
    if found is not None and before is not None and found * 2 < before:
        work.warnings.append(f"It has {number_of(found, 'row')} in {table}; the database before had {before:,}.")
    work.integrity_rows = found
    work.did(f"SELECT count(*) FROM {table}, in the new database", count.in_words)


def _role_settings(context: BackupContext, manifest: Manifest) -> str | None:
    """Say how to set the role's own settings again: its search_path is in no dump of a database."""
    user = context.server.user
    settings = "; ".join(setting for role in manifest.roles if role.name == user for setting in role.settings)
    return f"The role {user} had its own settings at the time. Set them again first: {settings}." if settings else None
