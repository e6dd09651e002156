"""`db_integrity`: PROC-004's prerequisites, step 5 and troubleshooting. What is wrong is a finding, no exception."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import BackupToolError, ConfigurationError, EngineUnreachable, RestoreInterrupted
from ..hosts import ContainerInfo
from ..models.common import Step
from ..models.manifest import Extension
from ..models.results import Finding, Integrity, TableSize
from ..postgres.server import catalogue as pg
from ..postgres.server import counting, programs
from ..progress import Progress
from .context import BackupContext
from .gate import gate
from .listing import WEEK, list_backups, no_success, remedy_of
from .proc004 import COUNT_AGENTS, PREREQUISITES
from .recovery import journal
from .recovery.helper_container import require_sole_writer

SHOWN_TABLES = 20
LOCK_WAIT = "3s"
"""How long a look at a table waits behind a migration."""


@dataclass
class Looked:
    """What has been seen so far."""

    findings: list[Finding] = field(default_factory=list[Finding])
    steps: list[Step] = field(default_factory=list[Step])
    container_info: ContainerInfo | None = None
    server_version: str | None = None
    database_bytes: int | None = None
    agents: int | None = None
    tables: list[TableSize] = field(default_factory=list[TableSize])
    extensions: list[Extension] = field(default_factory=list[Extension])

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
    """Look at container, server, database and backups. Changes nothing."""
    looked = Looked()
    progress.stage("looking at the container")
    if _look_at_container(context, looked):
        progress.stage("asking the server")
        _look_at_server(context, looked, progress)
    progress.stage("looking at the backups")
    newest, age = _look_at_backups(context, looked)
    verdict = gate(context)
    table = context.settings.integrity_table
    looked.steps.append(
        COUNT_AGENTS.titled(f"SELECT count(*) FROM {table}").reported(
            bool(looked.agents), "could not be counted" if looked.agents is None else str(looked.agents)
        )
    )
    container_info = looked.container_info
    return Integrity(
        healthy=not any(finding.severity == "error" for finding in looked.findings),
        database=context.database,
        server=context.about,
        agents=looked.agents,
        via=context.settings.via,
        container=container_info.container if container_info else None,
        container_state=container_info.state if container_info else None,
        container_health=container_info.health if container_info else None,
        server_version=looked.server_version,
        database_bytes=looked.database_bytes,
        tables=looked.tables,
        extensions=looked.extensions,
        newest_good_backup=newest,
        newest_good_age_seconds=age,
        safe_to_proceed=verdict.safe_to_proceed,
        gate=verdict,
        findings=looked.findings,
        steps=looked.steps,
    )


def _look_at_container(context: BackupContext, looked: Looked) -> bool:
    """Whether programs can be started there."""
    try:
        looked.container_info = context.container_info
        _note_health(looked, looked.container_info)
        context.host.require_running()
    except ConfigurationError:
        raise
    except BackupToolError as error:
        looked.failed(error)
        looked.steps.append(PREREQUISITES.reported(False, error.message))
        return False
    _note_others_on_the_volume(looked, looked.container_info)
    state = looked.container_info.state or "local"
    health = f" ({looked.container_info.health})" if looked.container_info.health else ""
    detail = f"{looked.container_info.container or 'local server'}: {state}{health}"
    looked.steps.append(PREREQUISITES.reported(True, detail))
    return True


def _note_others_on_the_volume(looked: Looked, container_info: ContainerInfo) -> None:
    try:
        readers = require_sole_writer(container_info)
    except BackupToolError as error:
        looked.failed(error)
        return
    if readers:
        looked.found("info", "volume_read_by_others", f"{', '.join(readers)} can read the server's data directory.")


def _note_health(looked: Looked, container_info: ContainerInfo) -> None:
    if container_info.state == "running" and container_info.health in ("unhealthy", "starting"):
        looked.found(
            "warning",
            f"container_{container_info.health}",
            f"The container {container_info.container} is {container_info.health}.",
            "Read `docker compose logs postgres`; a backup can be tried all the same, and now is when it matters.",
        )
    if not container_info.engine_local:
        looked.found("info", "engine_remote", "The Docker engine is on another machine; backups come through its API.")


def _look_at_server(context: BackupContext, looked: Looked, progress: Progress) -> None:
    try:
        ready, said = context.server.ready()
        if not ready:
            looked.found(
                "error",
                "server_unreachable",
                f"pg_isready: {said}",
                "Wait ten seconds; then read its log (in Docker: `docker compose logs postgres`).",
            )
            return
        with context.server.session(context.maintenance_database, progress=progress) as session:
            session.ping()
            facts = pg.server_facts(session)
            _note_version(looked, facts.version)
            databases = pg.databases(session)
            if context.database not in databases:
                looked.found(
                    "error",
                    "database_missing",
                    f"There is no database {context.database!r} on the server.",
                    "Check SCARLET_BACKUP_DATABASE; to bring a lost database back call `restore`.",
                    databases=sorted(databases),
                )
                return
            looked.database_bytes = databases[context.database].bytes
        _look_at_database(context, looked, progress)
    except BackupToolError as error:
        looked.failed(error)


def _note_version(looked: Looked, version: str) -> None:
    looked.server_version = version
    fixed = programs.has_known_holes(version)
    if fixed is not None:
        looked.found(
            "warning",
            "server_version_vulnerable",
            f"PostgreSQL {version} has known holes in pg_dump or psql (CVE-2026-18408).",
            f"Take a backup, then update to {fixed} or newer (in Docker: `docker compose pull postgres`, PROC-005).",
        )


def _look_at_database(context: BackupContext, looked: Looked, progress: Progress) -> None:
    table = context.settings.integrity_table
    count = counting.count_table(context.server, context.database, table)
    looked.agents = count.rows
    with context.server.session(context.database, {"lock_timeout": LOCK_WAIT}, progress) as session:
        sizes = sorted(pg.tables(session), key=lambda t: t.bytes, reverse=True)
        looked.extensions = pg.properties(session).extensions
    looked.tables = [
        TableSize(schema=t.schema, name=t.name, estimated_rows=t.estimated_rows, bytes=t.bytes)
        for t in sizes
        if t.kind == "r"
    ][:SHOWN_TABLES]
    if count.rules:
        looked.found(
            "warning",
            "integrity_table_has_rules",
            f"The table {table} has rules: what is written to it may go elsewhere, or nowhere.",
            f"Look at them with `\\d {table}` in psql; `DROP RULE` takes one away.",
            rules=list(count.rules),
        )
    if count.why:
        looked.found(
            "error",
            "integrity_table_no_table",
            f"{count.why}. It was not counted: to do that would run what its maker has put into it.",
            "Find out who made it: it hides the table of that name in the search_path. Drop it, or set "
            "SCARLET_BACKUP_INTEGRITY_TABLE to the name of a table.",
        )
    elif looked.agents is None:
        looked.found(
            "error",
            "integrity_table_missing",
            f"The table {table} is not found by the database's search_path.",
            "If it was lost, call `restore`; if tables lie in another schema, see `ALTER DATABASE … SET search_path`.",
        )
    elif looked.agents == 0:
        looked.found(
            "error",
            "integrity_table_empty",
            f"The table {table} is empty: Scarlet's memory is not there.",
            "If that is not meant, call `list_backups` and `restore`.",
        )


def _look_at_backups(context: BackupContext, looked: Looked) -> tuple[str | None, float | None]:
    try:
        listing = list_backups(context, limit=1)
    except EngineUnreachable:
        return None, None
    except BackupToolError as error:
        looked.found("warning", error.code, error.message, error.remedy)
        return None, None
    try:
        if waiting := journal.waiting(context):
            looked.found("error", "restore_interrupted", waiting, "Wait until it ends, or do that.")
    except RestoreInterrupted as error:
        looked.failed(error)
    for run in listing.scheduled:
        if run.outcome != "ok":
            code = "scheduled_backup_unended" if run.outcome == "begun" else "scheduled_backup_failed"
            looked.found("warning", code, no_success(run), remedy_of(run), job=run.job, error=run.code)
    age = listing.newest_good_age_seconds
    if age is None:
        looked.found("warning", "no_good_backup", "There is no good SQL backup of this database.", "Call `backup`.")
    elif age > WEEK:
        days = age / 86400
        looked.found("warning", "backup_old", f"The newest good SQL backup is {days:.0f} days old.", "Call `backup`.")
    return listing.newest_good, age
