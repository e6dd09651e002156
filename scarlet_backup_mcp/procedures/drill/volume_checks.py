"""Compare what came up in a drill of a volume with what was there when it was copied."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ...models.manifest import CopiedTable, ManifestHead, VolumeManifest
from ...models.verification import Check, Difference, Drill
from ...postgres.cluster import recovery
from ...postgres.server import catalogue as pg
from ...postgres.server import counting
from ...postgres.server.session import Session
from ...wording import number_of
from ..loading.load_checks import INTEGRITY, ROWS, SHOWN, rows_in_words

DATABASES = "drill_databases"

Name = tuple[str, str]
"""Schema and name of a table."""


@dataclass(frozen=True)
class RecoveredRows:
    """Rows of a database that came up, partitions counted at their root."""

    rows: Mapping[Name, int]
    unlogged: frozenset[Name]
    faults: list[str]
    """Tables whose count differs from their dump."""


def count(session: Session, dumped: Mapping[Name, int], unread: Collection[Name] = ()) -> RecoveredRows:
    """Count the rows of the connected database and compare them with `dumped`, the rows in its dump, which lacks those
    of the `unread` tables. Raises ServerError."""
    tables = pg.tables(session)
    found, emptied = counting.count_rows(session, tables), recovery.unlogged(session)
    found.require()
    counted = found.by_root(tables)
    roots = {table.oid: (table.schema, table.name) for table in tables if table.root == table.oid}
    missing = {table.root for table in tables if (table.schema, table.name) in unread}
    _, differences = pg.compare_rows(dumped, tables, counted, missing)
    return RecoveredRows(
        {name: counted.get(oid, 0) for oid, name in roots.items()},
        frozenset(name for oid, name in roots.items() if oid in emptied),
        [f"{d.table}: {rows_in_words(d.dumped)} in its dump, {rows_in_words(d.counted)} counted" for d in differences],
    )


def counted_when_copied(manifest: VolumeManifest | None) -> bool:
    """Tell whether its rows were counted for the copy: not those of a cold copy or a foreign archive."""
    return manifest is not None and not manifest.cold


def of_databases(manifest: VolumeManifest | None, database: str, found: list[str]) -> Check:
    """Compare the cluster's databases with those that were copied; `database` is the configured one."""
    expected = manifest.databases if manifest else []
    missing = sorted(set(expected) - set(found))
    certain = manifest is not None and (manifest.quiet is True or database in missing)
    return Check(
        check=DATABASES,
        ok=True if not missing else False if certain else None,
        expected=", ".join(expected),
        found=", ".join(sorted(found)),
        detail=f"missing{'' if certain else ', perhaps dropped during the copy'}: {', '.join(missing)}"
        if missing
        else "",
    )


def of_rows(manifest: VolumeManifest | None, counted: RecoveredRows, report: Drill) -> Check:
    """Compare the rows of each table with those counted before and after the copy, and fill `report`. Only tables that
    were counted then are compared.

    If something was written meanwhile, nobody knows the number at the moment of the copy: then one outside of the two
    counts is inconclusive. Unlogged tables count as empty on both sides: their rows are in no copy.
    """
    expected = manifest.tables if manifest else []
    names = {(table.schema_, table.name) for table in expected}
    compared = [rows for name, rows in counted.rows.items() if name in names]
    report.rows_compared, report.objects_compared = sum(compared), len(compared)
    wrong, unsure = list(counted.faults), list[str]()
    for table in expected:
        name, found = f"{table.schema_}.{table.name}", counted.rows.get((table.schema_, table.name))
        ok = _as_copied(table, found, quiet=bool(manifest and manifest.quiet))
        if ok is False:
            wrong.append(f"{name}: {rows_in_words(found)} instead of {_expected(table)}")
        elif ok is None:
            unsure.append(
                f"{name}: {rows_in_words(found)}, {_expected(table)} when it was counted; it was being written to"
            )
        if ok is not True:
            difference = Difference(what=f"rows of {name}", backup=_expected(table), restored=rows_in_words(found))
            report.differences = [*report.differences, difference][:SHOWN]
    uncounted = set(manifest.uncounted if manifest else [])
    unsure += [f"{name}: it could not be counted when it was copied" for name in sorted(uncounted)]
    if manifest is not None and manifest.quiet:
        others = [f"{schema}.{name}" for schema, name in sorted(counted.rows.keys() - names)]
        wrong += [f"{name} did not exist" for name in others if name not in uncounted]
    details, known = wrong or unsure, counted_when_copied(manifest)
    return Check(
        check=ROWS,
        ok=False if wrong else None if unsure or not known else True,
        expected="as many rows in each table as were counted" if known else "",
        found=f"{number_of(sum(counted.rows.values()), 'row')} in {number_of(len(counted.rows), 'table')}",
        detail="; ".join(details[:SHOWN]) or ("" if known else "nobody counted them for the copy"),
    )


def of_integrity(manifest: VolumeManifest | None, table: str, count: int | None, why: str = "") -> Check:
    """Check the integrity `table` (PROC-004 step 5); `why` says what it is if it is no table."""
    exact = manifest is not None and manifest.quiet is True
    return Check(
        check=INTEGRITY,
        ok=count == manifest.integrity_rows if manifest and exact else None,
        expected=rows_in_words(manifest.integrity_rows) if manifest and manifest.tables else "",
        found=why or rows_in_words(count),
        detail=f"SELECT count(*) FROM {table}",
    )


def lost_since(full: ManifestHead, rows: int, table: str, watched: int | None) -> str:
    """Say that the last full backup holds more than the `rows` that were read, of which `watched` are in the integrity
    `table`; "" if it does not."""
    before, held = full.rows or 0, full.integrity_rows or 0
    if before <= rows and held <= (watched or 0):
        return ""
    return (
        f"The last full backup, {full.name}, has {number_of(before, 'row')} ({held:,} in {table}); {rows:,} "
        f"({watched or 0:,}) were read here."
    )


def _as_copied(table: CopiedTable, found: int | None, *, quiet: bool) -> bool | None:
    if quiet:
        return found == table.rows
    if found is None:
        return table.rows_after is None
    after = table.rows if table.rows_after is None else table.rows_after
    return True if min(table.rows, after) <= found <= max(table.rows, after) else None


def _expected(table: CopiedTable) -> str:
    if table.rows == table.rows_after:
        return rows_in_words(table.rows)
    return f"{rows_in_words(table.rows)} before, {rows_in_words(table.rows_after)} after"
