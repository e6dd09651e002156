"""`db_integrity`: PROC-004's prerequisites, step 5 and troubleshooting. Problems are findings, not exceptions."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import BackupToolError, ConfigurationError, EngineUnreachable, RestoreInterrupted, ServerUnreachable
from ..hosts import ContainerInfo
from ..models.common import Step
from ..models.manifest import Extension
from ..models.results import Finding, Integrity, SiblingStore, TableSize
from ..postgres.server import catalogue as pg
from ..postgres.server import counting, programs
from ..progress import Progress
from .context import BackupContext
from .findings import findings
from .gate import ON_A_STANDBY, gate
from .listing import WEEK, list_backups, no_success, remedy_of
from .loss import Loss, loss
from .memory.project_stores import REMEDY, described, missing_words, project_stores
from .proc004 import COUNT_AGENTS, PREREQUISITES
from .recovery import journal, stopped
from .recovery.helper_container import require_sole_writer

SHOWN_TABLES = 20
EMPTY = "integrity_table_empty"
LOSSES = ("integrity_table_missing", EMPTY, "database_missing")
NOT_BACKED_UP = "store_not_backed_up"
FOR_A_BACKUP = (
    NOT_BACKED_UP,
    "no_good_backup",
    "backup_old",
    "scheduled_backup_failed",
    "scheduled_backup_unended",
    "server_version_vulnerable",
    "container_unhealthy",
    "container_starting",
)
"""Findings whose remedies ask for a backup."""
LOCK_WAIT = "3s"
"""How long to wait for a table that a migration has locked."""


@dataclass
class Inspection:
    """What was found so far."""

    findings: list[Finding] = field(default_factory=list[Finding])
    steps: list[Step] = field(default_factory=list[Step])
    container_info: ContainerInfo | None = None
    server_version: str | None = None
    database_bytes: int | None = None
    count: counting.Count | None = None
    """The integrity table's, if it could be counted."""
    tables: list[TableSize] = field(default_factory=list[TableSize])
    extensions: list[Extension] = field(default_factory=list[Extension])
    stores: list[SiblingStore] = field(default_factory=list[SiblingStore])

    def lost(self, loss: Loss) -> None:
        """Put a loss first, with what brings it back, and let nothing ask for a backup, which would be of the loss."""
        first, others = list[Finding](), list[Finding]()
        for finding in self.findings:
            if finding.code in LOSSES:
                remedy = " ".join([loss.remedy, *([finding.remedy] if finding.code != EMPTY else [])])
                first.append(finding.model_copy(update={"remedy": remedy, "next_call": loss.next_call}))
            else:
                others.append(finding.model_copy(update={"remedy": ""}) if finding.code in FOR_A_BACKUP else finding)
        self.findings = [*first, *others]

    def found(self, severity: str, code: str, message: str, remedy: str = "", **evidence: object) -> None:
        """Add a finding."""
        self.findings.append(
            Finding.model_validate(
                {"severity": severity, "code": code, "message": message, "remedy": remedy, "evidence": evidence}
            )
        )

    def failed(self, error: BackupToolError) -> None:
        """Add an error as a finding."""
        self.found("error", error.code, error.message, error.remedy)


def db_integrity(context: BackupContext, progress: Progress) -> Integrity:
    """Inspect container, server, database and backups. Changes nothing."""
    inspection = Inspection()
    progress.stage("checking the container")
    if _look_at_container(context, inspection):
        progress.stage("querying the server")
        _look_at_server(context, inspection, progress)
        _look_at_stores(context, inspection, progress)
    progress.stage("checking the backups")
    newest, age = _look_at_backups(context, inspection)
    if lost := loss(context, inspection.count) if inspection.server_version else None:
        inspection.lost(lost)
    verdict = gate(context)
    table, agents = context.settings.integrity_table, inspection.count.rows if inspection.count else None
    inspection.steps.append(
        COUNT_AGENTS.titled(f"SELECT count(*) FROM {table}").reported(
            bool(agents), "could not be counted" if agents is None else str(agents)
        )
    )
    container_info = inspection.container_info
    return Integrity(
        healthy=not any(finding.severity == "error" for finding in inspection.findings),
        database=context.database,
        server=context.about,
        found=findings(context),
        agents=agents,
        via=context.settings.via,
        container=container_info.container if container_info else None,
        container_state=container_info.state if container_info else None,
        container_health=container_info.health if container_info else None,
        server_version=inspection.server_version,
        database_bytes=inspection.database_bytes,
        tables=inspection.tables,
        extensions=inspection.extensions,
        stores=inspection.stores,
        newest_good_backup=newest,
        newest_good_age_seconds=age,
        safe_to_proceed=verdict.safe_to_proceed,
        gate=verdict,
        findings=inspection.findings,
        steps=inspection.steps,
    )


def _look_at_container(context: BackupContext, inspection: Inspection) -> bool:
    """Inspect the container; tell whether programs can be started there."""
    try:
        inspection.container_info = context.container_info
        _note_health(inspection, inspection.container_info)
        context.host.require_running()
    except ConfigurationError:
        raise
    except BackupToolError as error:
        inspection.failed(error)
        inspection.steps.append(PREREQUISITES.reported(False, error.message))
        return False
    _note_others_on_the_volume(inspection, inspection.container_info)
    state = inspection.container_info.state or "local"
    health = f" ({inspection.container_info.health})" if inspection.container_info.health else ""
    detail = f"{inspection.container_info.container or 'local server'}: {state}{health}"
    inspection.steps.append(PREREQUISITES.reported(True, detail))
    return True


def _note_others_on_the_volume(inspection: Inspection, container_info: ContainerInfo) -> None:
    try:
        readers = require_sole_writer(container_info)
    except BackupToolError as error:
        inspection.failed(error)
        return
    if readers:
        inspection.found("info", "volume_read_by_others", f"{', '.join(readers)} can read the server's data directory.")


def _note_health(inspection: Inspection, container_info: ContainerInfo) -> None:
    if container_info.state == "running" and container_info.health in ("unhealthy", "starting"):
        inspection.found(
            "warning",
            f"container_{container_info.health}",
            f"The container {container_info.container} is {container_info.health}.",
            "Read `docker compose logs postgres`. Try a backup all the same: now is when it matters.",
        )
    if not container_info.engine_local:
        inspection.found(
            "info", "engine_remote", "The Docker engine is on another machine; backups come through its API."
        )


def _look_at_server(context: BackupContext, inspection: Inspection, progress: Progress) -> None:
    try:
        readiness = context.server.ready()
        try:  # only a session learns why nobody gets in: pg_isready says "no response" to a certificate it rejects, too
            session = context.maintenance_session(progress)
        except ServerUnreachable:
            if readiness.accepts or not readiness.asked:
                raise
            inspection.found(
                "error",
                "server_unreachable",
                f"pg_isready: {readiness.message}",
                "Wait ten seconds, then read its log (in Docker: `docker compose logs postgres`).",
            )
            return
        with session:
            session.ping()
            facts = pg.server_facts(session)
            _note_version(inspection, facts.version)
            if facts.in_recovery:
                inspection.found("warning", "server_is_standby", ON_A_STANDBY, "A restore, too, needs its primary.")
            databases = pg.databases(session)
            if context.database not in databases:
                inspection.found(
                    "error",
                    "database_missing",
                    f"There is no database {context.database!r} on the server.",
                    "Check SCARLET_BACKUP_DATABASE; restore a lost database from a backup.",
                    databases=sorted(databases),
                )
                return
            inspection.database_bytes = databases[context.database].bytes
        _look_at_database(context, inspection, progress)
    except BackupToolError as error:
        inspection.failed(error)


def _note_version(inspection: Inspection, version: str) -> None:
    inspection.server_version = version
    fixed = programs.has_known_holes(version)
    if fixed is not None:
        inspection.found(
            "warning",
            "server_version_vulnerable",
            f"PostgreSQL {version} has known vulnerabilities in pg_dump or psql (CVE-2026-18408).",
            f"Make a backup, then update to {fixed} or newer (in Docker: `docker compose pull postgres`, PROC-005).",
        )


def _look_at_database(context: BackupContext, inspection: Inspection, progress: Progress) -> None:
    table = context.settings.integrity_table
    count = inspection.count = counting.count_table(context.server, context.database, table)
    with context.server.session(context.database, {"lock_timeout": LOCK_WAIT}, progress) as session:
        sizes = sorted(pg.tables(session), key=lambda t: t.bytes, reverse=True)
        inspection.extensions = pg.properties(session).extensions
    inspection.tables = [
        TableSize(schema=t.schema, name=t.name, estimated_rows=t.estimated_rows, bytes=t.bytes)
        for t in sizes
        if t.kind == "r"
    ][:SHOWN_TABLES]
    if count.rules:
        inspection.found(
            "warning",
            "integrity_table_has_rules",
            f"The table {table} has rules: rows written to it may end up elsewhere, or nowhere.",
            f"See them with `\\d {table}` in psql; `DROP RULE` removes one.",
            rules=list(count.rules),
        )
    if count.why:
        inspection.found(
            "error",
            "integrity_table_no_table",
            f"{count.why}. It was not counted, because counting would run its author's code.",
            "Find out who created it: it hides the table of that name in the search_path. Drop it, or set "
            "SCARLET_BACKUP_INTEGRITY_TABLE to the name of a table.",
        )
    elif count.rows is None:
        inspection.found(
            "error",
            "integrity_table_missing",
            f"The database's search_path finds no table {table}.",
            "If it was lost, restore it; if it is in another schema, see `ALTER DATABASE … SET search_path`.",
        )
    elif count.rows == 0:
        inspection.found(
            "error",
            EMPTY,
            f"The table {table} is empty: Scarlet's memory is not there.",
            "If that is not intended, see the list of backups, and restore one.",
        )


def _look_at_stores(context: BackupContext, inspection: Inspection, progress: Progress) -> None:
    progress.stage("looking for other stores")
    found_stores = project_stores(context)
    inspection.stores = found_stores.stores
    for store in found_stores.stores:
        evidence = store.model_dump(mode="json")
        if store.unsaved:
            inspection.found(
                "info",
                "store_unsaved",
                f"No backup could hold {store.service} ({store.image}): {store.unsaved}.",
                "If they matter, put them on a named volume.",
                **evidence,
            )
        elif store.in_set is None:
            inspection.found("warning", NOT_BACKED_UP, described(store), REMEDY, **evidence)
    if found_stores.missing:
        inspection.found(
            "warning", "store_missing", missing_words(found_stores.missing), "Correct it, or start that service."
        )
    if found_stores.unknown:
        inspection.found(
            "info", "stores_unknown", f"Which other stores the project has is unknown: {found_stores.unknown}"
        )


def _look_at_backups(context: BackupContext, inspection: Inspection) -> tuple[str | None, float | None]:
    try:
        listing = list_backups(context, limit=1)
    except EngineUnreachable:
        return None, None
    except BackupToolError as error:
        inspection.found("warning", error.code, error.message, error.remedy)
        return None, None
    try:
        if waiting := journal.waiting(context):
            inspection.found("error", "restore_interrupted", waiting, "Wait until it ends, or do that.")
        if waiting := stopped.waiting(context):
            inspection.found("error", "containers_stopped", waiting, "Wait until it ends, or take a backup.")
    except RestoreInterrupted as error:
        inspection.failed(error)
    for run in listing.scheduled:
        if run.outcome != "ok":
            code = "scheduled_backup_unended" if run.outcome == "begun" else "scheduled_backup_failed"
            inspection.found("warning", code, no_success(run), remedy_of(run), job=run.job, error=run.code)
    age = listing.newest_good_age_seconds
    if age is None:
        inspection.found("warning", "no_good_backup", "There is no good SQL backup of this database.", "Take a backup.")
    elif age > WEEK:
        days = age / 86400
        inspection.found(
            "warning", "backup_old", f"The newest good SQL backup is {days:.0f} days old.", "Take a backup."
        )
    return listing.newest_good, age
