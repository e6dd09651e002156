"""Report a backup: what was made, which steps of PROC-004 that was, and whether PROC-003 may go ahead."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from ...errors import BackupToolError, NextCall
from ...models.common import Kind
from ...models.manifest import Manifest, TableCount, VolumeManifest, rows_by_table
from ...models.results import Backup
from ...models.verification import Drill, DrillOutcome
from ...wording import number_of
from ..catalog import proved_definitions, recorded, records
from ..context import BackupContext
from ..gate import judge
from ..loss import restore_it
from ..proc004 import CHECK_BACKUP, COPY_VOLUME, CREATE_BACKUPS, DUMP, GO_TO_DIRECTORY, PREREQUISITES

SHOWN_TABLES = 10


@dataclass(frozen=True)
class Proof:
    """The result of a drill, which the caller `asked` for or which was due; `why_not` says why there is none."""

    drill: Drill | None = None
    why_not: str = ""
    asked: bool = True


def safe_to_proceed(context: BackupContext, manifest: Manifest | VolumeManifest, valid: bool) -> tuple[bool, list[str]]:
    """Say whether PROC-003 may go ahead on this fresh backup, and why: the gate's verdict in a fresh backup's words.
    `valid`: it passed `full`."""
    if not valid:
        return False, ["The backup contains statements that a restore refuses; see the warning."]
    if manifest.shrunk:
        return False, [f"The database has shrunk: {'; '.join(manifest.shrunk_reasons)}."]
    read = [
        f"{manifest.name} was read back in full and matches its manifest.",
        f"It contains the configured database {context.database}.",
    ]
    if isinstance(manifest, VolumeManifest):
        if manifest.cold:
            return False, [
                f"{manifest.name} is a cold copy of a stopped server: nobody counted its rows.",
                "PROC-003 needs a running server: start it with `docker compose up -d postgres` and take a backup.",
            ]
        read = [
            f"{manifest.name} was read back in full and matches its manifest and the server's own list of files.",
            f"It contains the whole cluster, which is restored as a whole: {', '.join(manifest.databases)}.",
        ]
    try:
        verdict = judge(context, records.head_record(context, context.directory.find(manifest.name)))
    except BackupToolError as error:
        return False, [*read, f"The gate to PROC-003 can't be checked: {error.message} {error.remedy}"]
    if not verdict.safe_to_proceed:
        return False, [*read, *verdict.reasons]
    return True, [
        *read,
        f"{manifest.integrity_table} holds {number_of(manifest.integrity_rows, 'row')}; nothing has shrunk.",
        *verdict.reasons[3:],  # the first ones say what is said above already
    ]


def outcome(
    context: BackupContext,
    manifest: Manifest | VolumeManifest,
    valid: bool,
    proof: Proof | None,
    warnings: list[str],
    seconds: float,
) -> Backup:
    """Report a backup. `valid`: it passed `full`; `proof`: the result of its drill, if there was one. A drill that was
    only due and did not finish takes nothing from the backup."""
    safe, reasons = safe_to_proceed(context, manifest, valid)
    lacking = recorded.not_dumped(manifest)
    reasons += [said for said in lacking if said not in reasons]
    drill, earlier = proof.drill if proof else None, _proof_of_definitions(context, manifest)
    good = valid and not manifest.shrunk and not lacking
    if proof is not None:
        proved = drill is not None and drill.proved is True
        if proof.asked:
            safe, good = safe and proved, good and proved
        elif drill is not None and drill.proved is False:
            safe, good = False, False
        said_by_gate = drill is not None and drill.detail and any(drill.detail[:99] in reason for reason in reasons)
        reasons += [] if said_by_gate and not proof.asked else [_drill_result(proof, manifest.kind, earlier)]
    path = context.directory.path / manifest.name
    copied = manifest if isinstance(manifest, VolumeManifest) else None
    cold_copy = copied is not None and copied.cold
    where = context.describe()
    tables, full = _tables(manifest), manifest.last_full if manifest.shrunk else None
    held = (
        number_of(copied.files, "file")
        if copied is not None and copied.rows is None
        else number_of(manifest.rows, "row")
    )
    return Backup(
        name=manifest.name,
        path=str(path),
        kind=manifest.kind,
        created_at=manifest.created_at,
        bytes=manifest.bytes,
        sha256=manifest.sha256,
        compression=manifest.compression,
        label=manifest.label,
        database=context.database,
        server=context.about,
        databases=copied.databases if copied else [],
        cold=cold_copy,
        tables=sorted(tables, key=lambda table: -table.rows)[:SHOWN_TABLES],
        total_tables=len(tables),
        rows=manifest.rows,
        integrity_rows=manifest.integrity_rows,
        steps=[
            PREREQUISITES.reported(not cold_copy, f"{where} is stopped: its files were copied" if cold_copy else where),
            GO_TO_DIRECTORY.reported(True, str(context.directory.path.parent)),
            CREATE_BACKUPS.reported(True, str(context.directory.path)),
            (DUMP if manifest.kind == "sql" else COPY_VOLUME).reported(True, manifest.name),
            CHECK_BACKUP.reported(True, f"{manifest.bytes:,} bytes, {held}, read back in full"),
        ],
        proved=drill.proved if drill else None,
        proved_by=earlier.by if earlier else None,
        drill=drill,
        good=good,
        safe_to_proceed=safe,
        reasons=reasons,
        shrunk=manifest.shrunk,
        remedy=f"If that was not intended, {restore_it(full)}." if full else None,
        next_call=NextCall(tool="restore", arguments={"backup": full}) if full else None,
        warnings=warnings,
        duration_seconds=round(seconds, 3),
    )


def _proof_of_definitions(context: BackupContext, manifest: Manifest | VolumeManifest) -> DrillOutcome | None:
    if manifest.definitions_sha256 is None or manifest.identity is None:
        return None
    with suppress(BackupToolError):  # the backup is there, even if others can't be read
        on = proved_definitions.image(context, manifest.identity.server_version)
        return proved_definitions.proof(context, manifest.definitions_sha256, on)
    return None


def _tables(manifest: Manifest | VolumeManifest) -> list[TableCount]:
    if isinstance(manifest, VolumeManifest):
        return [TableCount(schema=table.schema_, name=table.name, rows=table.rows) for table in manifest.tables]
    rows = rows_by_table(manifest.tables)
    return [TableCount(schema=schema, name=name, rows=count) for (schema, name), count in rows.items()]


def _drill_result(proof: Proof, kind: Kind, earlier: DrillOutcome | None) -> str:
    """Put a drill's result in words; `earlier` is the last drill of these definitions."""
    if proof.drill is None:
        if earlier is not None and earlier.by is not None and not proof.asked:
            since = f"{earlier.at:%Y-%m-%d %H:%M} UTC"
            return (
                f"The proof of these definitions from {since} still holds; the full drill that was due {proof.why_not}"
            )
        return f"The drill{' that was asked for' if proof.asked else ''} {proof.why_not}"
    if proof.drill.proved and kind == "volume":
        but = f"; but {proof.drill.detail}" if proof.drill.detail else ""
        return f"In a restore drill a server started on it, its rows ({proof.drill.rows_compared:,}) were read{but}."
    if proof.drill.proved_by == "sample":
        brought = f"A restore drill with a sample brought {_equal_rows(proof.drill)} back"
        return f"{brought}, which proves its definitions; not all of its rows were tried."
    if proof.drill.sound and kind == "sql":
        brought = f"A restore drill brought {_equal_rows(proof.drill)} back"
        return f"{brought}, all that it holds; it is not proved, since it lacks others."
    if proof.drill.sound:
        return f"A restore drill found nothing wrong with it: {proof.drill.detail}."
    if proof.drill.proved:
        but = f"; but {proof.drill.detail}" if proof.drill.except_recomputed else ""
        return f"A restore drill brought {_equal_rows(proof.drill)} back{but}."
    return f"A restore drill did not prove it: {proof.drill.detail}"


def _equal_rows(drill: Drill) -> str:
    return number_of(drill.rows_compared, "equal row") if drill.rows_compared else "its definitions, without any row,"
