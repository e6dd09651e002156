"""The tools' results. All times are UTC; sizes are bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from ..errors import BackupToolError, NextCall
from .audit import AuditEntry, Outcome
from .common import (
    CodePageText,
    Compression,
    DrillMode,
    Kind,
    Level,
    Model,
    SparseModel,
    State,
    Step,
    Utc,
    UtcDay,
    UtcSecond,
)
from .manifest import Extension, TableCount
from .memory import SetManifest
from .verification import Drill


def _is_empty(value: object) -> bool:
    """Leave out of an answer what only a project with other stores has."""
    return not value


class Running(Model):
    """A long call that is still running: call the same tool again with this job."""

    status: Literal["running"] = "running"
    job: str = Field(description="Call the same tool again with this job alone to wait for it.")
    tool: str
    stage: str
    progress: float = Field(description="How much of the call is done, about, between 0 and 1.")
    elapsed_seconds: float
    remedy: str
    next_call: NextCall | None = None


class PruneItem(Model):
    """A backup or undo point, and retention's decision about it."""

    name: str
    what: Literal["sql", "volume", "undo_point"]
    created_at: Utc
    bytes: int | None = Field(description="null: a volume's undo point, whose size is unknown.")
    action: Literal["kept", "removed", "would be removed", "left alone", "not removed"] = Field(
        description="'left alone': no rule applies to it. 'not removed': it should have been removed, but could not be."
    )
    reason: str
    slots: list[str] = Field(default=[], description="E.g. 'last 3', 'daily 2026-11-22', 'weekly 2026-W47'.")


class Prune(Model):
    """The result of `prune_backups`."""

    status: Literal["done"] = "done"
    dry_run: bool
    directory: str
    server: str = Field(description="The database, container, Compose project and engine it concerns.")
    database: str
    policy: str = Field(description="The rules in words.")
    items: list[PruneItem] = Field(description="Newest first, undo points last.")
    kept: int
    removed: int = Field(description="In a dry run, how many would be.")
    left_alone: int
    bytes_freed: int = Field(description="By removing backups in the directory; in a dry run, how many would be.")
    undo_bytes_freed: int = Field(description="By removing undo points on the server, as far as their size is known.")
    older_than_30_days: str = Field(description="What happens to those mentioned in PROC-004's note.")
    confirmation: str | None = Field(
        description="In a dry run: binds the user's consent to exactly this list; null: nothing would be removed."
    )
    warnings: list[str]
    steps: list[Step]
    duration_seconds: float
    remedy: str | None = None
    next_call: NextCall | None = None


class Backup(Model):
    """The result of `backup`."""

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
    server: str = Field(description="The database, container, Compose project and engine it concerns.")
    databases: list[str] = Field(default=[], description="For a volume, every database in it; [] for a cold copy.")
    cold: bool = Field(default=False, description="A volume whose server was stopped: nobody counted its rows.")
    tables: list[TableCount] = Field(description="The ten with the most rows; all are in the backup's manifest.")
    total_tables: int
    rows: int | None = Field(
        description="Rows of `database`; for a volume the smaller of the counts before and after its copy; null: a "
        "cold copy."
    )
    integrity_rows: int | None
    steps: list[Step]
    proved: bool | None = Field(default=None, description="Whether a restore drill proved it; null without a drill.")
    proved_by: DrillMode | None = Field(
        default=None, description="The drill of this or an earlier backup that proved its definitions; null: none did."
    )
    drill: Drill | None = None
    memory: SetManifest | None = Field(
        default=None,
        exclude_if=_is_empty,
        description="The set that it belongs to, with the scope memory: archives of the other stores.",
    )
    good: bool = Field(
        description="Whether the file is intact, has all rows of a database that has not shrunk (pg_dump leaves out "
        "some of extensions), and is proved if that was requested. Rows written meanwhile do not matter here; for "
        "PROC-003 see safe_to_proceed."
    )
    safe_to_proceed: bool = Field(description="Whether PROC-003 (agent recreation) may go ahead on this backup.")
    reasons: list[str] = Field(description="Why it may not, or why it may.")
    shrunk: bool
    pruned: Prune | None = Field(default=None, description="What `backup --prune` on the command line removed.")
    not_pruned: str | None = Field(default=None, description="Why that failed, or was not complete.")
    warnings: list[str]
    duration_seconds: float
    remedy: str | None = None
    next_call: NextCall | None = None


class Listed(SparseModel):
    """One file in the backup directory. What is false, unknown or empty is left out."""

    name: str
    kind: Kind = "sql"
    created_at: UtcSecond
    age_seconds: int
    bytes: int
    state: State
    verified: Level | None = Field(default=None, description="The level of its last verification.")
    proved_at: UtcDay | None = Field(default=None, description="When a restore drill proved it.")
    other_database: bool = Field(default=False, description="A good backup, but not of the configured database.")
    database: str | None = Field(default=None, description="With `other_database`, which one.")
    project: str | None = None
    repaired_from: str | None = None
    label: str | None = None
    shrunk: bool = False
    rows: int | None = None
    integrity_rows: int | None = None
    keep: bool = Field(default=False, description="Marked so that retention never removes it.")
    slot: str | None = Field(
        default=None, description="The slots of `prune_backups` that it fills, e.g. 'last 3, weekly 2026-W47'."
    )
    detail: str = ""


class Kept(Model):
    """A backup that is now, or no longer, marked to be kept."""

    status: Literal["done"] = "done"
    name: str
    keep: bool


class UndoPoint(Model):
    """What an earlier restore replaced: a database, or a volume's contents. `restore` accepts its name."""

    name: str
    kind: Kind = Field(default="sql", description="'sql': a database; 'volume': the whole cluster.")
    created_at: Utc
    bytes: int | None = Field(description="null: unknown.")


class JobState(Model):
    """A job running in this MCP server."""

    job: str
    tool: str
    stage: str
    elapsed_seconds: float
    done: bool


Safety = Literal["proved", "good", "missing", "to come"]


class Week(Model):
    """Which usable backups there are of each day of a week, Monday first, in UTC."""

    week: str = Field(description="E.g. 2026-W47.")
    days: list[Safety]


class ScheduledRun(SparseModel):
    """A run of a scheduled job; `code` and `message` say why it did not succeed."""

    job: str
    time: UtcSecond
    outcome: Outcome
    code: str | None = None
    message: str = ""


class ListedSet(SparseModel):
    """A set: an SQL backup with archives of stores."""

    name: str
    backup: str | None = Field(default=None, description="Its SQL backup; null: unknown.")
    stores: list[str] = Field(default=[], description="The services whose data it holds.")
    bytes: int = Field(default=0, description="Of its archives, without the SQL backup.")
    fault: str = Field(default="", description="Why it can't be relied on.")


class SiblingStore(SparseModel):
    """A store beside the database in its Compose project, such as Qdrant or Redis."""

    service: str
    container: str
    image: str
    version: str | None = None
    directory: str | None = Field(default=None, description="Where it keeps its data, in its container.")
    place: str = Field(description="The volume or directory that holds them.")
    bytes: int | None = Field(default=None, description="On the disk.")
    unsaved: str = Field(default="", description="Why they are on nothing that could be copied.")
    in_set: str | None = Field(default=None, description="The newest set that holds them.")


class Listing(Model):
    """The result of `list_backups`."""

    directory: str
    database: str
    server: str = Field(description="The database, container, Compose project and engine it concerns.")
    backups: list[Listed]
    total_backups: int
    total_bytes: int
    newest_good: str | None = Field(
        description="Name of the configured database's newest SQL backup that is verified in its current state."
    )
    newest_good_age_seconds: float | None
    undo_points: list[UndoPoint] | None = Field(description="null: unknown, the server did not answer.")
    jobs: list[JobState] = []
    log: list[AuditEntry] = Field(default=[], description="The last calls that changed something, newest first.")
    scheduled: list[ScheduledRun] = Field(
        default=[],
        description="Each scheduled job's last finished run, and a later one that has not finished; newest first.",
    )
    sets: list[ListedSet] = Field(
        default=[], exclude_if=_is_empty, description="Those of the backups shown, and any that has a fault."
    )
    stores: list[SiblingStore] = Field(
        default=[], exclude_if=_is_empty, description="Stores of the same Compose project, such as Qdrant and Redis."
    )
    weeks: list[Week] = Field(default=[], exclude=True, description="The last weeks, for the text.")
    warnings: list[str]
    steps: list[Step]


class DependentReport(Model):
    """What was done with a container that depends on the database."""

    name: str
    action: Literal["restarted", "left stopped", "left running", "start failed", "would be restarted"]
    detail: str = ""


class Restore(Model):
    """The result of `restore`."""

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
    drill: Drill | None = Field(default=None, description="The drill before the restore, if there was one.")
    database: str
    server: str = Field(description="The database, container, Compose project and engine it concerns.")
    comparison: str = Field(default="", description="In a dry run: what comes, and what it would replace.")
    undo_point: str | None = Field(
        description="The old database, or the volume's old contents, under a new name: restore it by this name to undo."
    )
    rows_compared: int | None = Field(description="null: for a volume, see files_compared.")
    files_compared: int | None = Field(default=None, description="For a volume: files read back after unpacking.")
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
    """The result of the command `repair`."""

    status: Literal["done"] = "done"
    name: str
    path: str
    repaired_from: str
    found: str = Field(description="What happened to the file, and how it was undone.")
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
    """Something that `db_integrity` found and a user should know. `code` is stable."""

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
    """Whether PROC-003 (agent recreation) may go ahead: whether a backup has all of exactly this database."""

    safe_to_proceed: bool
    server: str = Field(description="The database, container, Compose project and engine it concerns.")
    reasons: list[str] = Field(description="Why not, or why.")
    backup: str | None = Field(description="The backup that this relies on, or that comes nearest.")
    age_seconds: float | None
    checked_at: Utc


class Integrity(Model):
    """The result of `db_integrity`."""

    healthy: bool = Field(description="True when no finding is an error.")
    level: Literal["quick"] = "quick"
    database: str
    server: str = Field(description="The database, container, Compose project and engine it concerns.")
    found: dict[str, str] = Field(description="What no setting names, and why it is this.")
    agents: int | None = Field(description="SELECT count(*) FROM the integrity table; null when it can't be counted.")
    via: Literal["docker", "local"]
    container: str | None
    container_state: str | None
    container_health: str | None
    server_version: str | None
    database_bytes: int | None
    tables: list[TableSize]
    extensions: list[Extension]
    stores: list[SiblingStore] = Field(
        default=[], exclude_if=_is_empty, description="Stores of the same Compose project, such as Qdrant and Redis."
    )
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
