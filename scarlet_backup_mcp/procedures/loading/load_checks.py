"""Compare after a drill's restore: contents, what a dump does not contain, and the structure of the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...models.manifest import DatabaseProperties, Extension, Manifest, Setting
from ...models.verification import Check, Difference, Drill, Violation
from ...postgres.dump.contents import Comparison
from ...postgres.dump.differences import DumpDifference as Found
from ...postgres.dump.meanings import MEANING, MEND
from ...postgres.dump.sample import ROWS as SAMPLED
from ...postgres.server import amcheck, databases
from ...postgres.server import catalogue as pg
from ...postgres.server.counting import count_table
from ...postgres.server.session import Server
from ...progress import Progress
from ...wording import number_of, shortened

LOAD, ROWS, OBJECTS = "drill_load", "drill_rows", "drill_objects"
SETTINGS = "drill_settings"
INTEGRITY, AMCHECK = "drill_integrity", "drill_amcheck"
SHOWN = 20


def roles_of(properties: DatabaseProperties) -> set[str]:
    """Return the roles in a database's own properties: owner, grants and settings."""
    grants = {name for grant in properties.acl or [] for name in (grant.grantor, grant.grantee) if name}
    return {properties.owner} | grants | {setting.role for setting in properties.settings if setting.role}


@dataclass(frozen=True)
class Restored:
    """The database that a drill restored. `options` are for its sessions, `as_loaded` is SQL that gives one the
    settings of the load. No dump contains rows of the `unread` tables (schema and name)."""

    server: Server
    name: str
    options: Mapping[str, str]
    as_loaded: str = "SELECT"
    unread: Sequence[tuple[str, str]] = ()


def of_contents(comparison: Comparison, report: Drill, *, foreign: bool, excused: set[str]) -> list[Check]:
    """Compare rows and definitions of the file with those of the restored database; fill in `report`.

    The settings and options of a `foreign` file's dump are unknown: if its rows in the `excused` tables
    ("schema.name") or its definitions are spelled differently, it remains open whether they are equal. Missing
    definitions are always a difference.
    """
    report.rows_compared, report.objects_compared = comparison.rows_compared, comparison.objects_compared
    report.differences = [_difference(found) for found in comparison.differences[:SHOWN]]
    report.normalised = [_difference(found) for found in comparison.rewritten[:SHOWN]]
    rows = [found for found in comparison.differences if found.what.startswith("rows of ")]
    open_rows = {found.what for found in rows if found.same_number and found.what[len("rows of ") :] in excused}
    wrong_rows = [found.what for found in rows if found.what not in open_rows]
    wrong_objects = [found.what for found in comparison.differences if found not in rows]
    lost = any(found.before and not found.after for found in comparison.differences if found not in rows)
    complete = comparison.complete and not open_rows
    return [
        Check(
            check=ROWS,
            ok=False if wrong_rows else True if complete else None,
            expected="the same rows in every table, in any order",
            found=f"{number_of(comparison.rows_compared, 'row')} compared",
            detail=shortened(wrong_rows, SHOWN) or _incomplete(comparison, sorted(open_rows)),
        ),
        Check(
            check=OBJECTS,
            ok=True if not wrong_objects else None if foreign and not lost else False,
            expected="the same definitions",
            found=f"{number_of(comparison.objects_compared, 'object')} compared",
            detail=_objects_detail(wrong_objects, len(comparison.rewritten)),
        ),
    ]


def conclude(report: Drill, checks: list[Check], lacking: list[str], *, sample: bool = False) -> None:
    """Conclude a drill that loaded a backup, or a `sample` of it, which says nothing about the whole. `lacking` says
    which rows pg_dump left out."""
    failed = [check for check in checks if check.ok is False]
    untold = [check for check in checks if check.ok is None and check.check in (ROWS, OBJECTS, SETTINGS)]
    report.sound = True if lacking and not (failed or untold or sample) else None
    report.proved_by = None if failed or untold else "sample" if sample else "full"
    wrong, doubts = ([f"{check.check}: {check.detail}" for check in found] for found in (failed, untold))
    differing = report.except_recomputed
    except_recomputed = [f"some of what a load recomputes differs: {'; '.join(differing)}"] if differing else []
    came_back = [f"its definitions load, and the first {SAMPLED:,} rows of each table came back"] if sample else []
    judge(report, wrong, doubts or came_back, lacking, except_recomputed)
    if report.violations and [check.check for check in failed] == [LOAD]:
        report.verdict, report.detail = "constraint_violated", failed[0].detail


def judge(report: Drill, wrong: list[str], doubts: list[str], lacking: list[str], remarks: list[str]) -> None:
    """Give a drill its verdict, by what weighs most: what is `wrong`; `doubts` whether it is; what the backup is
    `lacking` for a proof. `remarks` change nothing."""
    report.proved = False if wrong else None if doubts or lacking else True
    report.verdict = "differs" if wrong else "unknown" if doubts else "sound" if lacking else "proved"
    report.detail = "; ".join([*(wrong or doubts), *lacking, *remarks])


def broken(violations: list[Violation], said: list[str], *, foreign: bool) -> str:
    """Describe which constraints rows violate, with what the server `said`; "" if none."""
    names = shortened((f"{found.constraint} of {found.table}" for found in violations), SHOWN)
    who = "its rows violate" if foreign else "the database had rows that violate"
    faithful = "" if foreign else "; the backup is faithful"
    return f"{who} {names}{faithful} ({'; '.join(said)})" if names else ""


def without_violations(comparison: Comparison, violations: list[Violation]) -> Comparison:
    """Remove the differences due to constraints that could not be created as they were."""
    excused: set[str] = set()
    for found in violations:
        schema, _, of = found.table.partition(".")
        name = found.constraint
        kinds = ("FK CONSTRAINT", "CHECK CONSTRAINT", "CONSTRAINT")
        excused |= {f"{kind} {found.table} {name}" for kind in kinds} | {f"INDEX {schema}.{name}"}
        excused |= {f"COMMENT ON CONSTRAINT {schema}.{name} ON {of}", f"COMMENT ON INDEX {schema}.{name}"}
        excused |= {f"TABLE {found.table}", f"DOMAIN {found.table}"} if found.kind == "check" else set()
    # In a file without pg_dump's comments such a statement stands alone.
    added = [f"ADD CONSTRAINT {found.constraint} " for found in violations]
    kept = [
        difference
        for difference in comparison.differences
        if difference.what not in excused
        and not (not difference.after and any(adding in difference.before for adding in added))
    ]
    return replace(comparison, differences=kept)


def of_database(
    restored: Restored, manifest: Manifest | None, table: str, unlike: list[str], lacking: list[str]
) -> list[Check]:
    """Compare what a dump does not contain with the manifest, and do PROC-004's step 5. Without a manifest, that counts
    the integrity `table`. `unlike` says what of owner, privileges and settings did not come back, `lacking` what this
    server could not give the database before the load, so that the result is open."""
    server, name, options = restored.server, restored.name, restored.options
    if manifest is None or manifest.properties is None:
        count = count_table(server, name, table, options)
        return [Check(check=INTEGRITY, ok=None, found=count.in_words, detail=f"SELECT count(*) FROM {table}")]
    with server.session(name, options) as session:
        schemas, extensions = pg.schemas(session), pg.properties(session).extensions
    for setting in _role_settings(server, manifest):
        databases.apply_setting(server, name, setting, options)
    count = count_table(server, name, manifest.integrity_table, options)
    return [
        Check(
            check="drill_schemas",
            ok=manifest.schemas is None or set(manifest.schemas) == set(schemas),
            expected=", ".join(manifest.schemas or []),
            found=", ".join(schemas),
        ),
        _extensions(manifest.properties.extensions, extensions),
        Check(
            check=SETTINGS,
            ok=None if lacking else not unlike,
            expected="owner, privileges, settings, encoding and locale as they were",
            detail=" ".join(dict.fromkeys(unlike + lacking)),
        ),
        Check(
            check=INTEGRITY,
            ok=count.rows == manifest.integrity_rows,
            expected=rows_in_words(manifest.integrity_rows),
            found=count.in_words,
            detail=f"SELECT count(*) FROM {manifest.integrity_table}",
        ),
    ]


def of_structure(restored: Restored, progress: Progress) -> list[Check]:
    """Check the restored tables and indexes with amcheck, which recomputes indexes' expressions."""
    progress.stage("checking tables and indexes with amcheck")
    with restored.server.session(restored.name, restored.options, progress) as session:
        session.execute(restored.as_loaded)
        checked = amcheck.check(session, progress.check, toast=restored.unread)
    if checked is None:
        return [Check(check=AMCHECK, ok=None, detail="the server has no amcheck, or this role may not use it")]
    return [
        Check(
            check=AMCHECK,
            ok=not checked.problems,
            found=f"{number_of(checked.tables, 'table')}, {checked.indexes} btree indexes",
            detail="; ".join(checked.problems),
        )
    ]


def _extensions(wanted: list[Extension], found: list[Extension]) -> Check:
    """Compare extensions. A dump names no versions, so the server's own come back, as in any restore."""
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
    """Return the connecting role's own settings, perhaps the search_path that finds its tables."""
    own = [entry for role in manifest.roles if role.name == server.user for entry in role.settings]
    pairs = [entry.partition("=") for entry in own]
    return [Setting(role=server.user, name=name, value=value) for name, _, value in pairs]


def _difference(found: Found) -> Difference:
    return Difference(what=found.what, backup=found.before, restored=found.after)


def _incomplete(comparison: Comparison, spelt: list[str]) -> str:
    parts = [
        (comparison.by_number, "only the number of rows could be compared of"),
        (comparison.not_compared, "rows could not be compared of"),
        (spelt, "as many, but perhaps dumped with another TimeZone or bytea_output:"),
    ]
    return "; ".join(f"{words} {shortened(names, SHOWN)}" for names, words in parts if names)


def _objects_detail(wrong: list[str], rewritten: int) -> str:
    if wrong:
        return shortened(wrong, SHOWN) + (f" ({MEND})" if any(what.startswith(MEANING) for what in wrong) else "")
    return f"the server spells {rewritten} of them differently, with the same meaning" if rewritten else ""


def rows_in_words(count: int | None) -> str:
    """Word a number of rows; None: there is no such table."""
    return "no such table" if count is None else number_of(count, "row")
