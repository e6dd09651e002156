"""What is compared after a drill's restore: contents, what a dump does not carry, and the structure of the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..models import Check, DatabaseProperties, Difference, Drill, Extension, Manifest, Setting
from ..postgres import amcheck, databases
from ..postgres import catalogue as pg
from ..postgres import differences as contents
from ..postgres.contents import Comparison
from ..postgres.server import Server
from ..progress import Progress

LOAD, ROWS, OBJECTS = "drill_load", "drill_rows", "drill_objects"
INTEGRITY, AMCHECK = "drill_integrity", "drill_amcheck"
SHOWN = 20


def roles_of(properties: DatabaseProperties) -> set[str]:
    """The roles that a database's own properties name: owner, grants and settings."""
    grants = {name for grant in properties.acl or [] for name in (grant.grantor, grant.grantee) if name}
    return {properties.owner} | grants | {setting.role for setting in properties.settings if setting.role}


@dataclass(frozen=True)
class Restored:
    """The database that a drill has restored, in a server whose other database is `maintenance`; `options` are for
    sessions in it."""

    server: Server
    name: str
    maintenance: str
    options: Mapping[str, str]


def of_contents(comparison: Comparison, report: Drill) -> list[Check]:
    """Rows and definitions of the file against those of the restored database. Fills `report`."""
    report.rows_compared, report.objects_compared = comparison.rows_compared, comparison.objects_compared
    report.differences = [_difference(found) for found in comparison.differences[:SHOWN]]
    report.normalised = [_difference(found) for found in comparison.rewritten[:SHOWN]]
    wrong_rows = [found.what for found in comparison.differences if found.what.startswith("rows of ")]
    wrong_objects = [found.what for found in comparison.differences if not found.what.startswith("rows of ")]
    return [
        Check(
            check=ROWS,
            ok=False if wrong_rows else True if comparison.complete else None,
            expected="the same rows in every table, in any order",
            found=f"{comparison.rows_compared:,} rows compared",
            detail=_list(wrong_rows) or _incomplete(comparison),
        ),
        Check(
            check=OBJECTS,
            ok=not wrong_objects,
            expected="the same definitions",
            found=f"{comparison.objects_compared:,} objects compared",
            detail=_list(wrong_objects) or _normalised(len(comparison.rewritten)),
        ),
    ]


def of_database(restored: Restored, manifest: Manifest | None, table: str, warnings: list[str]) -> list[Check]:
    """What a dump does not carry, against the manifest; and PROC-004's step 5, on the integrity `table` where there is
    no manifest. `warnings` are of the database's creation."""
    server, name, options = restored.server, restored.name, restored.options
    if manifest is None or manifest.properties is None:
        count = pg.count_table(server, name, table)
        return [Check(check=INTEGRITY, ok=None, found=_rows(count), detail=f"SELECT count(*) FROM {table}")]
    with server.session(name, options) as session:
        schemas, extensions = pg.schemas(session), pg.properties(session).extensions
    warnings = warnings + databases.apply_properties(server, restored.maintenance, name, manifest.properties, options)
    for setting in _role_settings(server, manifest):
        databases.apply_setting(server, name, setting, options)
    count = pg.count_table(server, name, manifest.integrity_table)
    return [
        Check(
            check="drill_schemas",
            ok=manifest.schemas is None or set(manifest.schemas) == set(schemas),
            expected=", ".join(manifest.schemas or []),
            found=", ".join(schemas),
        ),
        _extensions(manifest.properties.extensions, extensions),
        Check(
            check="drill_settings",
            ok=not warnings,
            expected="owner, privileges, settings, encoding and locale as they were",
            detail=" ".join(warnings),
        ),
        Check(
            check=INTEGRITY,
            ok=count == manifest.integrity_rows,
            expected=_rows(manifest.integrity_rows),
            found=_rows(count),
            detail=f"SELECT count(*) FROM {manifest.integrity_table}",
        ),
    ]


def of_structure(restored: Restored, progress: Progress) -> list[Check]:
    """What amcheck says of the restored tables and indexes."""
    progress.stage("checking tables and indexes with amcheck")
    with restored.server.session(restored.name, restored.options, progress) as session:
        checked = amcheck.check(session, progress.check)
    if checked is None:
        return [Check(check=AMCHECK, ok=None, detail="the server has no amcheck")]
    return [
        Check(
            check=AMCHECK,
            ok=not checked.problems,
            found=f"{checked.tables} tables, {checked.indexes} btree indexes",
            detail="; ".join(checked.problems),
        )
    ]


def _extensions(wanted: list[Extension], found: list[Extension]) -> Check:
    """A dump names no versions: the server's own come back, as in any restore."""
    before, after = ({(e.name, e.schema_): e.version for e in side} for side in (wanted, found))
    moved = [
        f"{name} {version} → {after[name, schema]}"
        for (name, schema), version in before.items()
        if after.get((name, schema), version) != version
    ]
    return Check(
        check="drill_extensions",
        ok=before.keys() == after.keys(),
        expected=", ".join(f"{name} in {schema}" for name, schema in sorted(before)),
        found=", ".join(f"{name} in {schema}" for name, schema in sorted(after)),
        detail=f"other versions on this server: {', '.join(moved)}" if moved else "",
    )


def _role_settings(server: Server, manifest: Manifest) -> list[Setting]:
    """What the connecting role had set for itself, which may be the search_path by which its tables are found."""
    own = [entry for role in manifest.roles if role.name == server.user for entry in role.settings]
    pairs = [entry.partition("=") for entry in own]
    return [Setting(role=server.user, name=name, value=value) for name, _, value in pairs]


def _difference(found: contents.Difference) -> Difference:
    return Difference(what=found.what, backup=found.before, restored=found.after)


def _list(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _incomplete(comparison: Comparison) -> str:
    by_number = f"only the number of rows could be compared of {_list(comparison.by_number)}"
    not_at_all = f"rows could not be compared of {_list(comparison.not_compared)}"
    return "; ".join([by_number] * bool(comparison.by_number) + [not_at_all] * bool(comparison.not_compared))


def _normalised(count: int) -> str:
    return f"the server spells {count} of them in another way, with the same meaning" if count else ""


def _rows(count: int | None) -> str:
    return "no such table" if count is None else f"{count:,} rows"
