"""What the tools answer. All times are UTC; sizes are bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from ..errors import BackupToolError, NextCall
from .audit import AuditEntry
from .common import CodePageText, Compression, DrillMode, Kind, Model, Packing, State, Step, Utc
from .manifest import Extension, TableCount
from .verification import Drill, StoredVerification


class Running(Model):
    """A long call that goes on: call the same tool again with this job."""

    status: Literal["running"] = "running"
    job: str = Field(description="Call the same tool again with this job alone to wait for it.")
    tool: str
    stage: str
    progress: float | None = Field(description="Between 0 and 1, of the present stage; null when unknown.")
    elapsed_seconds: float
    remedy: str
    next_call: NextCall | None = None


class PruneItem(Model):
    """One backup, or undo point, and what retention makes of it."""

    name: str
    what: Literal["sql", "volume", "undo_point"]
    created_at: Utc
    bytes: int | None = Field(description="null: a volume's undo point, whose size the server does not tell.")
    action: Literal["kept", "removed", "would be removed", "left alone", "not removed"] = Field(
        description="'left alone': no rule is for it. 'not removed': it should have gone, and could not."
    )
    reason: str
    slots: list[str] = Field(default=[], description="E.g. 'last 3', 'daily 2026-11-22', 'weekly 2026-W47'.")


class Prune(Model):
    """Answer of `prune_backups`."""

    status: Literal["done"] = "done"
    dry_run: bool
    directory: str
    server: str = Field(description="Database, container, Compose project and engine that it was about.")
    database: str
    policy: str = Field(description="The rules in words.")
    items: list[PruneItem] = Field(description="Newest first, undo points last.")
    kept: int
    removed: int = Field(description="In a dry run those that would be.")
    left_alone: int
    bytes_freed: int = Field(description="Of backups' files in the directory; in a dry run what would be.")
    undo_bytes_freed: int = Field(description="Of undo points on the server, as far as their size is known.")
    older_than_30_days: str = Field(description="What becomes of those that PROC-004's note speaks of.")
    confirmation: str | None = Field(
        description="In a dry run: what a yes of the user's to this very list is bound to; null: nothing would go."
    )
    warnings: list[str]
    steps: list[Step]
    duration_seconds: float
    remedy: str | None = None
    next_call: NextCall | None = None


class Backup(Model):
    """Answer of `backup`."""

    status: Literal["done"] = "done"
    name: str
    path: str
    kind: Kind
    created_at: Utc
    bytes: int
    sha256: str
    compression: Compression
    label: str | None
    database: str
    server: str = Field(description="Database, container, Compose project and engine that it was about.")
    databases: list[str] = Field(default=[], description="Of a volume: every database in it; none for a cold copy.")
    cold: bool = Field(default=False, description="A volume whose server did not run: nobody counted its rows.")
    tables: list[TableCount]
    rows: int | None = Field(
        description="Of `database`; of a volume counted before and after its copy, and the fewer; null: a cold copy."
    )
    integrity_rows: int | None
    steps: list[Step]
    proved: bool | None = Field(default=None, description="Whether a restore drill proved it; null without a drill.")
    proved_by: DrillMode | None = Field(
        default=None, description="The drill, of it or of an earlier one, that proved its definitions; null: none did."
    )
    drill: Drill | None = None
    good: bool = Field(
        description="Whether the file is whole, with all rows of a database that has not shrunk (pg_dump leaves out "
        "some of extensions), and proved if that was asked for. Rows that were written meanwhile do no harm to it: see "
        "safe_to_proceed for PROC-003."
    )
    safe_to_proceed: bool = Field(description="Whether PROC-003 (agent recreation) may go ahead on this backup.")
    reasons: list[str] = Field(description="Why it may not, or what it rests on.")
    shrunk: bool
    pruned: Prune | None = Field(default=None, description="What `backup --prune` on the command line has removed.")
    not_pruned: str | None = Field(default=None, description="Why that could not be done, or not in full.")
    warnings: list[str]
    duration_seconds: float


class Listed(Model):
    """One file in the backup directory."""

    name: str
    kind: Kind
    created_at: Utc
    age_seconds: float
    bytes: int
    state: State
    verified: StoredVerification | None
    proved_at: Utc | None = Field(default=None, description="When a restore drill proved it; null: none did.")
    compression: Packing = "none"
    database: str | None = None
    project: str | None = None
    other_database: bool = Field(default=False, description="A good backup, but not of the configured database.")
    repaired_from: str | None = None
    label: str | None = None
    shrunk: bool = False
    rows: int | None = None
    integrity_rows: int | None = None
    sha256: str | None = None
    keep: bool = Field(default=False, description="Marked so that retention never removes it.")
    slot: str | None = Field(
        default=None,
        description="What it fills for `prune_backups`, e.g. 'last 3, weekly 2026-W47'; null: no slot, see there.",
    )
    detail: str = ""


class Kept(Model):
    """What is marked now, or no longer, to be kept."""

    status: Literal["done"] = "done"
    name: str
    keep: bool


class UndoPoint(Model):
    """What an earlier restore set aside: a database, or a volume's contents. `restore` accepts its name."""

    name: str
    kind: Kind = Field(default="sql", description="'sql': a database; 'volume': the whole cluster.")
    created_at: Utc
    bytes: int | None = Field(description="null: it was not measured.")


class JobState(Model):
    """A job under way in this server."""

    job: str
    tool: str
    stage: str
    elapsed_seconds: float
    done: bool


class Listing(Model):
    """Answer of `list_backups`."""

    directory: str
    database: str
    server: str = Field(description="Database, container, Compose project and engine that it was about.")
    backups: list[Listed]
    total_backups: int
    total_bytes: int
    newest_good: str | None = Field(
        description="Name of the newest SQL backup of the configured database that is verified as it is now."
    )
    newest_good_age_seconds: float | None
    undo_points: list[UndoPoint] | None = Field(description="null: the server could not be asked.")
    jobs: list[JobState] = []
    log: list[AuditEntry] = Field(default=[], description="The last calls that changed something, newest first.")
    scheduled: list[AuditEntry] = Field(
        default=[],
        description="Of each scheduled job (`arguments.scheduled` is its name) the last run that has ended, and one "
        "after that which has not; newest first.",
    )
    warnings: list[str]
    steps: list[Step]


class DependentReport(Model):
    """What was done to a container that depends on the database."""

    name: str
    action: Literal["restarted", "left stopped", "left running", "start failed", "would be restarted"]
    detail: str = ""


class Restore(Model):
    """Answer of `restore`."""

    status: Literal["done"] = "done"
    restored: bool
    dry_run: bool
    kind: Kind = Field(default="sql", description="'volume': the whole cluster was exchanged.")
    source: str
    source_kind: Literal["backup", "undo_point"]
    source_created_at: Utc
    source_proved_at: Utc | None = Field(
        default=None, description="When a restore drill proved the source; null: none did, or it is an undo point."
    )
    drill: Drill | None = Field(default=None, description="The drill that came before the restore, if one did.")
    database: str
    server: str = Field(description="Database, container, Compose project and engine that it was about.")
    undo_point: str | None = Field(
        description="The old database, or the volume's old contents, under a new name: restore it by this name to undo."
    )
    rows_compared: int | None = Field(description="null: a volume's are not counted one by one, see files_compared.")
    files_compared: int | None = Field(default=None, description="Of a volume, read back after they were unpacked.")
    integrity_rows: int | None
    integrity_rows_before: int | None
    unavailable_seconds: float | None
    dependents: list[DependentReport]
    steps: list[Step]
    warnings: list[str]
    duration_seconds: float
    remedy: str | None = None
    next_call: NextCall | None = None


class Repaired(Model):
    """Answer of the command `repair`."""

    status: Literal["done"] = "done"
    name: str
    path: str
    repaired_from: str
    found: str = Field(description="What had happened to the file, and how it was undone.")
    code_page: CodePageText
    bytes: int
    sha256: str
    tables: int
    rows: int
    integrity_rows: int | None
    duration_seconds: float
    remedy: str
    next_call: NextCall | None = None


class Finding(Model):
    """Something that `db_integrity` saw and a user should know. `code` is stable."""

    severity: Literal["info", "warning", "error"]
    code: str
    message: str
    remedy: str = ""
    next_call: NextCall | None = None
    evidence: dict[str, Any] = {}


class TableSize(Model):
    """A table of the live database; `bytes` with TOAST and without indexes."""

    schema_: str = Field(alias="schema")
    name: str
    estimated_rows: int | None = Field(description="pg_class.reltuples; null when never analysed.")
    bytes: int


class Gate(Model):
    """Whether PROC-003 (agent recreation) may go ahead: a backup of this very database is there, with all of it."""

    safe_to_proceed: bool
    server: str = Field(description="Database, container, Compose project and engine that it was about.")
    reasons: list[str] = Field(description="Why not, or what it rests on.")
    backup: str | None = Field(description="The backup that it rests on, or that comes nearest.")
    age_seconds: float | None
    checked_at: Utc


class Integrity(Model):
    """Answer of `db_integrity`."""

    healthy: bool = Field(description="True when no finding is an error.")
    level: Literal["quick"] = "quick"
    database: str
    server: str = Field(description="Database, container, Compose project and engine that it was about.")
    agents: int | None = Field(description="SELECT count(*) FROM the integrity table; null when it can't be counted.")
    via: Literal["docker", "local"]
    container: str | None
    container_state: str | None
    container_health: str | None
    server_version: str | None
    database_bytes: int | None
    tables: list[TableSize]
    extensions: list[Extension]
    newest_good_backup: str | None
    newest_good_age_seconds: float | None
    safe_to_proceed: bool = Field(description="Whether PROC-003 (agent recreation) may go ahead: see `gate`.")
    gate: Gate
    findings: list[Finding]
    steps: list[Step]


class ErrorReport(Model):
    """The structured content of an error result."""

    code: str
    message: str
    remedy: str
    next_call: NextCall | None = Field(default=None, description="A call that follows the remedy, if one does.")

    @classmethod
    def of(cls, error: BackupToolError, tool: str, arguments: Mapping[str, Any]) -> ErrorReport:
        """Report the error of a call of `tool` with these arguments."""
        next_call = error.next_call and error.next_call.after(tool, arguments)
        return cls(code=error.code, message=error.message, remedy=error.remedy, next_call=next_call)
