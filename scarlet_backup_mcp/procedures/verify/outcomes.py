"""What verifications of either kind share: keep the outcome with the backup, and report it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from ...errors import StoreError
from ...models.common import CodePage, Level
from ...models.manifest import ManifestHead
from ...models.verification import Check, Drill, DrillOutcome, StoredVerification, Verification
from ...store.directory import DRILL, Entry
from ..catalog import proved_definitions, records
from ..catalog.records import BackupRecord
from ..context import BackupContext
from ..proc004 import ProcedureStep
from ..reading import checks

DETAIL_LENGTH = 500


def keep(
    context: BackupContext,
    entry: Entry,
    sha256: str,
    found: Iterable[Check],
    drilled: Drill | None = None,
    code_page: CodePage | None = None,
) -> list[str]:
    """Keep the outcome of a full verification, and of a drill if there was one; return a warning if it can't be
    written. The outcome is valid all the same."""
    failed = [check.check for check in found if check.ok is False and check.check != checks.CLOCK]
    proved = drilled.proved if drilled else None
    verdict = drilled.verdict if drilled and drilled.proved_by != "sample" else None
    if proved is False:
        failed.append(DRILL)
    proved_on = f"PostgreSQL {drilled.server_version}, {drilled.where}" if drilled else None
    try:
        context.directory.store_verification(
            entry,
            sha256=sha256,
            failed=failed,
            proved=proved,
            proved_on=proved_on,
            verdict=verdict,
            said=drilled.detail if drilled and verdict in records.FAITHFUL else "",
            search_path=drilled.search_path if drilled else None,
            code_page=code_page,
            drilled=_outcome(context, drilled) if drilled and entry.name.kind == "sql" else None,
        )
    except StoreError as error:
        return [f"The outcome could not be stored with the backup: {error.message}"]
    return []


def report(
    record: BackupRecord[ManifestHead],
    level: Level,
    found: list[Check],
    drilled: Drill | None,
    outcome: StoredVerification | None,
    step: ProcedureStep,
    **fields: Any,
) -> Verification:
    """Report a verification: its checks, its drill, and the last kept `outcome`. `fields` are those that depend on the
    kind of backup."""
    failed = [check.check for check in found if check.ok is False]
    return Verification(
        name=record.name,
        level=level,
        valid=not failed,
        verdict=drilled.verdict if drilled else outcome.verdict if outcome else None,
        proved=outcome.proved if outcome else None,
        proved_at=outcome.proved_at if outcome else None,
        foreign=record.foreign,
        shrunk=record.manifest.shrunk if record.manifest else None,
        drill=drilled,
        checks=found,
        bytes=record.entry.bytes,
        verified_at=datetime.now(UTC),
        steps=[step.reported(not failed, "; ".join(failed) or "every check passed")],
        **fields,
    )


def _outcome(context: BackupContext, drilled: Drill) -> DrillOutcome:
    on = proved_definitions.image(context, drilled.server_version)
    by, now = drilled.proved_by, datetime.now(UTC)
    if by is not None:
        but = drilled.detail[:DETAIL_LENGTH] if drilled.except_recomputed else ""
        return DrillOutcome(by=by, at=now, on=on, detail=but)
    return DrillOutcome(by=None, at=now, on=on, verdict=drilled.verdict, detail=drilled.detail[:DETAIL_LENGTH])
