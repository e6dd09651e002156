"""`backup`: PROC-004's steps 1 to 4. A file gets a backup's name only after every check holds."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from functools import partial

from ...errors import (
    ArgumentsInvalid,
    BackupToolError,
    Cancelled,
    ConfigurationError,
    ContainerLost,
    ContainerNotRunning,
    ContainerPaused,
    ServerUnreachable,
    TableLocked,
)
from ...models.common import BackupLevel, Compression, Kind, Scope
from ...models.manifest import Manifest, VolumeManifest
from ...models.results import Backup
from ...postgres.server import catalogue as pg
from ...postgres.server import programs
from ...progress import Progress
from ...store.lock import patiently, writer_lock
from ...store.names import SUFFIXES
from ...store.writing import PartialFile
from .. import durations
from ..call_notes import CallNotes
from ..catalog import proved_definitions, recorded, records
from ..catalog.recorded import Order
from ..catalog.records import last_full
from ..context import BackupContext
from ..reading.checks import describe_refusals
from ..recovery.journal import maintenance_session, require_database, require_running, tidy_up
from ..recovery.volume_settlement import settle_first
from ..sandbox import lifecycle
from ..verify.sql import verify as verify_backup
from . import cold_copy, memory_set, volume_copy
from .client_programs import require_pg_dump
from .dump_errors import ConcurrentChange, locked
from .meanwhile import Meanwhile, result
from .report import Proof, outcome
from .snapshot_reading import SnapshotReading
from .sql_dump import compare_with_snapshot, own, stream, take_snapshot

ROOM = {"none": 1.2, "zstd": 0.6}
"""Free space required for a dump, in sizes of the database. A real Letta database of 427 MB dumps to 497 MB."""
LABEL_LENGTH = 80


def backup(
    context: BackupContext,
    progress: Progress,
    *,
    kind: Kind = "sql",
    label: str | None = None,
    compression: Compression | None = None,
    accept_smaller: bool = False,
    verify: BackupLevel = "auto",
    keep: bool = False,
    scope: Scope | None = None,
    patience_seconds: float = 0,
    notes: CallNotes | None = None,
) -> Backup:
    """Make one backup, of the database (`sql`) or of the whole cluster (`volume`).

    With the `scope` memory, the setting's if it is None, the stores beside the database are stopped and copied, too:
    see `memory_set`. Only an SQL backup has one.

    A volume whose container is stopped is copied cold, file by file. `compression` None is PROC-004's: none for SQL,
    gzip for a volume. `accept_smaller`: rows were deleted on purpose since the last full backup, so this one becomes
    the new measure. `verify` "drill" always drills the backup; "auto" does if no drill has proved its definitions, or
    the last full one is too old (`proved_definitions.due`), and then ignores a drill that can't be run. `keep` marks
    the backup so that retention never removes it.

    Waits `patience_seconds` for another call, and as long again for another drill. Raises BackupToolError; then no file
    is left behind unless the message names it.
    """
    if kind != "sql" and scope == "memory":
        raise ArgumentsInvalid("The scope memory is for SQL backups.", "Leave out the scope, or take kind sql.")
    memory = kind == "sql" and (scope or context.settings.scope) == "memory"
    order = Order(_checked_label(label), _checked_compression(kind, compression), accept_smaller, keep)
    try:
        take = partial(_take, context, progress, kind, order, verify, memory, patience_seconds, notes or CallNotes())
        return patiently(progress, take, patience_seconds)
    except (ContainerNotRunning, ContainerPaused, ContainerLost, ServerUnreachable) as error:
        if kind != "volume" or context.settings.via != "docker":
            raise
        raise cold_copy.or_stopped(error) from None


def _take(
    context: BackupContext,
    progress: Progress,
    kind: Kind,
    order: Order,
    verify: BackupLevel,
    memory: bool,
    patience_seconds: float,
    notes: CallNotes,
) -> Backup:
    began = time.monotonic()
    directory = context.directory
    directory.prepare()  # first, so that the audit log can record whatever fails next
    settle_first(context, progress, notes)
    _expect(context, progress, kind, verify)
    progress.stage("looking at the container")
    stopped = cold_copy.stopped(context) if kind == "volume" else None
    container_info = stopped or require_running(context)
    valid, of_set = True, None
    planned = memory_set.plan(context) if memory else None
    with writer_lock(directory.path, "backup"):
        notes.settled += directory.sweep().sentences
        if stopped is None:
            _tidy_up(context, progress, notes)
        if order.label and any(secret in order.label for secret in context.secrets()):
            raise ConfigurationError("The label holds the database's password, and labels are shown.", "Use another.")
        notes.settled += [f"{name}, left by a drill that was killed, is removed." for name in lifecycle.sweep(context)]
        try:
            if stopped is not None:
                manifest, said = cold_copy.copy(context, progress, order)
            elif kind == "volume":
                manifest, said = volume_copy.copy(context, progress, order)
            elif planned is not None:
                dump = partial(_dump_twice, context, progress, order)
                (manifest, said, valid), of_set = memory_set.make(context, progress, planned, dump)
            else:
                manifest, said, valid = _dump_twice(context, progress, order)
        except TableLocked as error:
            raise locked(error.message) from None
    if stopped is None and container_info.health in ("unhealthy", "starting"):
        said.append(
            f"The container {container_info.container} is {container_info.health}: read `docker compose logs postgres`."
        )
    proof = _proof(context, manifest, verify if valid or verify == "drill" else "full", progress, patience_seconds)
    warnings = [*notes.settled, *directory.warnings(), *said]
    made = outcome(context, manifest, valid, proof, warnings, time.monotonic() - began)
    return made.model_copy(update={"memory": of_set})


def _expect(context: BackupContext, progress: Progress, kind: Kind, verify: BackupLevel) -> None:
    """Let the bar expect a backup like the last one."""
    last = last_full(context, (kind,))
    if last is None:
        return
    with suppress(BackupToolError):
        entry, drills = context.directory.find(last.name), verify == "drill"
        if verify == "auto":
            manifest = records.manifest_of(context, entry)
            drills = isinstance(manifest, Manifest) and proved_definitions.due(context, manifest) is not None
        progress.expect(durations.of_backup(durations.content_bytes(entry), drills=drills))


def _tidy_up(context: BackupContext, progress: Progress, notes: CallNotes) -> None:
    """Remove what killed calls left on the server. Raises ServerUnreachable."""
    with maintenance_session(context, progress) as session:
        tidy_up(context, session, notes, restoring=False)
        require_database(context, session)
        pg.terminate_backends(session, tag=context.server.tag)


def _dump_twice(context: BackupContext, progress: Progress, order: Order) -> tuple[Manifest, list[str], bool]:
    try:
        return _dump(context, progress, order)
    except ConcurrentChange:
        progress.stage("the schema changed during the dump: trying again with a new snapshot")
        return _dump(context, progress, order)


def _dump(context: BackupContext, progress: Progress, order: Order) -> tuple[Manifest, list[str], bool]:
    """Dump once; return the manifest, warnings, and whether `full` holds."""
    directory, compression = context.directory, order.compression
    name = directory.new_name(context.settings.prefix, compression)
    with PartialFile(directory.path / name) as partial, Meanwhile() as meanwhile:
        version = meanwhile.start(lambda: context.server.program_version("pg_dump"))
        database = meanwhile.start(lambda: own(context, meanwhile.progress))
        patience = {"lock_timeout": str(programs.LOCK_WAIT_MS)}
        with context.server.session(context.database, patience, progress) as session:
            require_pg_dump(context, session, result(version, progress))
            progress.stage("taking a snapshot")
            snapshot = take_snapshot(session, result(database, progress))
            recorded.require_room(context, int((snapshot.database.bytes or 0) * ROOM[compression]), "this database")
            reading = SnapshotReading(context, snapshot, meanwhile)
            written = stream(context, snapshot, partial, compression, progress, reading.begin)
            counts = compare_with_snapshot(
                context, session, snapshot, written.tables, reading.counted(progress), progress
            )
            computed, unread = reading.recomputed(progress)
        partial.finish()
        recorded.read_back(partial, progress)
        refused = describe_refusals(written.refusals)
        if refused:
            written.warnings.append(f"`restore` will refuse to load this backup: {refused}.")
        rows, last = sum(table.rows for table in written.tables), last_full(context)
        manifest = Manifest(
            **recorded.file_fields(context, partial, order, "sql", snapshot.taken_at),
            **recorded.measured(context, rows, counts.integrity, last, accept_smaller=order.accept_smaller),
            **written.fields,
            identity=recorded.identity_of_running(context, snapshot.server, snapshot.database),
            schemas=snapshot.schemas,
            properties=snapshot.properties,
            effective=snapshot.effective,
            meanings=snapshot.meanings,
            roles=snapshot.roles,
            database_bytes=snapshot.database.bytes or 0,
            not_dumped=counts.not_dumped,
            activity=snapshot.activity,
            recomputed=computed,
        )
        recorded.publish(context, progress, partial, manifest, order, ["statements"] if refused else [])
    warnings = [*written.warnings, *counts.warnings, *unread, *recorded.not_dumped(manifest)]
    if snapshot.server.in_recovery:
        warnings.append("The server is a standby: the backup holds what this had received from its primary by then.")
    return manifest, warnings, not refused


# -- the steps -------------------------------------------------------------------------------------------------------


def _proof(
    context: BackupContext,
    manifest: Manifest | VolumeManifest,
    verify: BackupLevel,
    progress: Progress,
    patience_seconds: float,
) -> Proof | None:
    """Run the drill that was requested or is due; return None if there is none."""
    if verify == "drill":
        return _prove(context, manifest.name, progress, patience_seconds)
    if verify == "full" or isinstance(manifest, VolumeManifest):
        return None
    proof: Proof | None = None
    try:
        mode = proved_definitions.due(context, manifest)
    except BackupToolError as error:
        return Proof(why_not=f"could not be done: {error.message} {error.remedy}", asked=False)
    if mode == "sample":
        proof = _prove(context, manifest.name, progress, patience_seconds, sample=True)
    if mode == "full" or (proof is not None and proof.drill is not None and proof.drill.proved_by is None):
        proof = _prove(context, manifest.name, progress, patience_seconds)
    return proof and replace(proof, asked=False)


def _prove(
    context: BackupContext, name: str, progress: Progress, patience_seconds: float, *, sample: bool = False
) -> Proof:
    """Drill the backup. The lock is free by now, so that other backups need not wait: a drill may take long."""
    try:
        drill = partial(verify_backup, context, progress, name, "drill", sample=sample)
        verified = patiently(progress, drill, patience_seconds)
    except Cancelled:
        raise Cancelled(
            f"The drill was cancelled. The backup {name} exists and was read back in full.",
            f"Drill {name} when you want it proved.",
        ) from None
    except BackupToolError as error:
        return Proof(why_not=f"could not be done: {error.message} {error.remedy}")
    if verified.drill is None:
        return Proof(why_not="was not started, because the file is not intact: verify it.")
    return Proof(verified.drill)


# -- arguments -----------------------------------------------------------------------------------------------------


def _checked_compression(kind: Kind, compression: Compression | None) -> Compression:
    known: list[Compression] = [of for of_kind, of in SUFFIXES if of_kind == kind]
    if compression is not None and compression not in known:
        raise ArgumentsInvalid(
            f"A backup of kind {kind} can't have compression {compression}.",
            f"Choose compression {' or '.join(known)}, or without it.",
        )
    return compression or known[0]


def _checked_label(label: str | None) -> str | None:
    label = (label or "").strip()
    for wrong, what, remedy in (
        (len(label) > LABEL_LENGTH, f"has {len(label)} characters", f"Use at most {LABEL_LENGTH}."),
        (any(ord(c) < 32 for c in label), "has a line end or another control character", "Leave those out."),
        (any("\ud800" <= c <= "\udfff" for c in label), "has bytes that are no text", "Leave those out."),
    ):
        if wrong:
            raise ConfigurationError(f"The label {what}.", remedy)
    return label or None
