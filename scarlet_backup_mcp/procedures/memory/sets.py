"""Sets among the backups: which SQL backup has one, and how a set is verified."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from ...errors import ArgumentsInvalid, BackupToolError, StoreError, again
from ...models.common import Level
from ...models.memory import StoreMember
from ...models.results import ListedSet
from ...models.verification import Check, Verification
from ...progress import Progress
from ...store import sets
from ...store.sets import MemorySet
from ...wording import shortened
from ..context import BackupContext
from ..proc004 import FINAL_CHECK
from ..reading import store_archive

VerifySql = Callable[[str, Level], Verification]
"""Verifies the SQL backup of that name."""


def by_backup(context: BackupContext) -> dict[str, MemorySet]:
    """Return the sets by the names of their SQL backups. Raises StoreError."""
    return {found.manifest.backup: found for found in sets.sets(context.directory.path) if found.manifest}


def newest(context: BackupContext) -> MemorySet | None:
    """Return the newest set that has all its members; None if there is none, or the directory is unknown."""
    try:
        return sets.newest(context.directory.path)
    except BackupToolError:
        return None


def listed(context: BackupContext, backups: Iterable[str]) -> tuple[list[ListedSet], list[str]]:
    """Return the sets of these SQL backups and those that lack theirs, newest first, and what is wrong with any."""
    shown, warnings, named = list[ListedSet](), list[str](), set(backups)
    everything = sets.sets(context.directory.path)
    for found in everything:
        manifest = found.manifest
        if found.fault:
            warnings.append(f"The set {found.name} can't be relied on: {found.fault}.")
        if manifest is None or found.fault or manifest.backup in named:
            shown.append(
                ListedSet(
                    name=found.name,
                    backup=manifest.backup if manifest else None,
                    stores=[member.service for member in manifest.stores] if manifest else [],
                    bytes=found.bytes,
                    fault=found.fault,
                )
            )
    if alone := sets.alone(context.directory.path, everything):
        warnings.append(
            f"No set names {shortened(alone)}: left by a call that was killed, or the set's own file is lost. Nothing "
            "removes them; do so by hand if they are not needed."
        )
    return shown, warnings


def backup_of(context: BackupContext, name: str) -> str:
    """Return the SQL backup of the set of that name. Raises BackupMissing or StoreError."""
    found = sets.find(context.directory.path, name).manifest
    assert found is not None
    return found.backup


def verify(context: BackupContext, progress: Progress, name: str, level: Level, verify_sql: VerifySql) -> Verification:
    """Check a set: that all its members are there as it names them (`quick`), and every byte of them (`full`), the SQL
    backup's by `verify_sql`. Raises ArgumentsInvalid for a drill, BackupMissing, StoreError."""
    began = time.monotonic()
    if level == "drill":
        raise ArgumentsInvalid(
            "A set has no drill: its stores are not tried out.",
            "Verify the set in full, and drill its SQL backup by name.",
            again(level="full"),
        )
    found = sets.find(context.directory.path, name)
    manifest = found.manifest
    assert manifest is not None
    checks = [Check(check="members", ok=not found.fault, expected="all that the set names", detail=found.fault)]
    files, size = 0, found.bytes
    for member in manifest.stores:
        checks += _checks_of(context, progress, member, level)
        files += member.files
    sql = verify_sql(manifest.backup, level)
    failed = ", ".join(check.check for check in sql.checks if check.ok is False)
    same = level == "quick" or sql.sha256 == manifest.backup_sha256
    checks.append(
        Check(
            check=manifest.backup,
            ok=sql.valid and same,
            detail=failed or ("" if same else "it is not the backup that the set was made with"),
        )
    )
    valid = all(check.ok is not False for check in checks)
    return Verification(
        name=name,
        level=level,
        valid=valid,
        foreign=False,
        shrunk=sql.shrunk,
        proved=sql.proved,
        proved_at=sql.proved_at,
        warnings=sql.warnings,
        checks=checks,
        rows=sql.rows,
        files=files,
        bytes=size + sql.bytes,
        verified_at=datetime.now(UTC),
        duration_seconds=round(time.monotonic() - began, 3),
        steps=[FINAL_CHECK.reported(valid, "" if valid else "not every member is as the set names it")],
        remedy=None if valid else "Don't rely on this set: take a new backup with the scope memory.",
    )


def _checks_of(context: BackupContext, progress: Progress, member: StoreMember, level: Level) -> list[Check]:
    """Check one archive; each check's name begins with the archive's."""
    try:
        manifest = sets.archive_manifest(context.directory.path, member)
        if level == "quick":
            return [Check(check=member.name, ok=True)]
        read = store_archive.read(context.directory.path / member.name, progress)
    except (StoreError, FileNotFoundError) as error:
        missing = "it is missing"
        return [Check(check=member.name, ok=False, detail=error.message if isinstance(error, StoreError) else missing)]
    found = store_archive.content_checks(member, manifest, read)
    return [check.model_copy(update={"check": f"{member.name}: {check.check}"}) for check in found]
