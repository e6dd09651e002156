"""What comes out of the tools and what is kept beside a backup. All times are UTC; sizes are bytes.

Field names are part of the interface: agents and scripts rely on them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PlainSerializer

Utc = Annotated[datetime, PlainSerializer(lambda t: t.isoformat().replace("+00:00", "Z"), when_used="json")]
Kind = Literal["sql", "volume"]
Compression = Literal["none", "gzip", "zstd"]
"""An SQL backup is "none" or "zstd", an archive of a volume "gzip" or "zstd"."""
Packing = Literal["none", "gzip", "zstd", "xz"]
"""How a file is compressed that others may have made."""
Level = Literal["quick", "full", "drill"]
BackupLevel = Literal["auto", "full", "drill"]
CodePage = Literal[437, 850, 852, 858, 1250, 1252, 65001]
"""Code pages of Windows that PowerShell may have decoded a dump with; 65001 is UTF-8."""
DrillMode = Literal["full", "sample"]
State = Literal[
    "good", "unverified", "damaged", "foreign", "partial", "differs", "will_not_load", "constraint_violated"
]
Verdict = Literal["proved", "sound", "differs", "damaged", "will_not_load", "constraint_violated", "unknown"]
"""What a drill says of a backup, in one word: see `Drill`."""
SearchPath = Literal["empty", "database"]
"""With which search_path a dump was loaded: the empty one that pg_dump writes, or the database's own."""


class Model(BaseModel):
    """The base of all: unknown fields are an error."""

    model_config = ConfigDict(extra="forbid")


class Step(Model):
    """One step of PROC-004 that a result stands for."""

    step: str = Field(description="PROC-004's name of the step, e.g. 'Passo 3' or 'Verifica Finale'.")
    title: str
    ok: bool | None = Field(description="null: it was not needed or could not be looked at.")
    detail: str = ""


class Running(Model):
    """A long call that goes on: call the same tool again with this job."""

    status: Literal["running"] = "running"
    job: str = Field(description="Call the same tool again with the same arguments and this `job` to wait for it.")
    tool: str
    stage: str
    progress: float | None = Field(description="Between 0 and 1, of the present stage; null when unknown.")
    elapsed_seconds: float
    remedy: str


# -- manifest ----------------------------------------------------------------------------------------------------


class TableData(Model):
    """One COPY target of a dump. `bytes` and `sha256` are of its data, its blocks joined. A table appears twice only
    when partitions with another order of columns are loaded through it."""

    schema_: str = Field(alias="schema")
    name: str
    columns: list[str]
    rows: int
    bytes: int
    sha256: str

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


def rows_by_table(tables: Iterable[TableData]) -> dict[tuple[str, str], int]:
    """Rows of each table by (schema, name)."""
    found: dict[tuple[str, str], int] = {}
    for table in tables:
        found[table.schema_, table.name] = found.get((table.schema_, table.name), 0) + table.rows
    return found


class TableCount(Model):
    """Rows of one table in a backup."""

    schema_: str = Field(alias="schema")
    name: str
    rows: int

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class NotDumped(Model):
    """Rows of one table that a dump lacks, since pg_dump leaves them out."""

    schema_: str = Field(alias="schema")
    name: str
    rows: int | None = Field(description="null: they could not be counted; the role may not read the table.")

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Recomputed(Model):
    """What a load computes anew of one table, its stored generated columns, or of a materialised view: digests that do
    not depend on the order of rows, comparable on servers of any version."""

    schema_: str = Field(alias="schema")
    name: str
    view: bool = Field(description="A materialised view.")
    key: str = Field(default="", description="The columns that tell rows apart; of a view all.")
    rows: int = 0
    digests: dict[str, str] = Field(default={}, description='By column; "" is a whole row of a view.')
    sample: dict[str, str] = Field(default={}, description="Of some rows: a digest by that of the key.")
    keys: dict[str, str] = Field(default={}, exclude=True, description="The keys themselves; they are not kept.")
    why_not: str = Field(default="", description="Why it could not be read.")

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Extension(Model):
    """An installed extension."""

    name: str
    schema_: str = Field(alias="schema")
    version: str

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Setting(Model):
    """A value stored by `ALTER DATABASE … SET`, or for `role` by `ALTER ROLE … IN DATABASE … SET`."""

    role: str | None
    name: str
    value: str


class Grant(Model):
    """One privilege on the database. `grantee` null is PUBLIC."""

    grantor: str
    grantee: str | None
    privilege: str
    grantable: bool


class DatabaseProperties(Model):
    """What `pg_dump` without `--create` does not carry."""

    owner: str
    encoding: str
    locale_provider: str = Field(description="c (libc), i (ICU) or b (builtin), as pg_database.datlocprovider.")
    collate: str
    ctype: str
    locale: str | None = Field(description="The ICU or builtin locale.")
    icu_rules: str | None = None
    comment: str | None
    connection_limit: int
    template: bool = Field(default=False, description="Whether other databases may be made from it.")
    tablespace: str | None = Field(default=None, description="null: pg_default, or an older manifest.")
    acl: list[Grant] | None = Field(description="null: the default privileges.")
    settings: list[Setting]
    extensions: list[Extension]


class Role(Model):
    """A role of the cluster, without its password."""

    name: str
    superuser: bool
    inherit: bool
    createrole: bool
    createdb: bool
    login: bool
    replication: bool
    bypassrls: bool
    connection_limit: int
    valid_until: str | None
    member_of: list[str]
    settings: list[str]


class Identity(Model):
    """Which database a backup is of."""

    system_identifier: str = Field(description="pg_control_system(): new for every initdb, so for every fresh volume.")
    database: str
    database_oid: int | None = Field(description="null in a cold copy, which can't be asked.")
    server_version: str
    server_version_num: int
    via: Literal["docker", "local"]
    container: str | None
    container_id: str | None
    image: str | None
    image_id: str | None
    project: str | None
    volume: str | None


class ManifestHead(Model):
    """The fields with which a manifest begins: what a listing needs."""

    manifest_version: Literal[1] = 1
    name: str
    kind: Kind
    compression: Compression
    created_at: Utc = Field(
        description="The moment of the snapshot; of a volume, when its rows were counted, just before its copy."
    )
    label: str | None
    repaired_from: str | None = Field(
        default=None, description="A copy of this file of PowerShell's, repaired: what it holds may come from anywhere."
    )
    repaired_how: str | None = Field(default=None, description="What had happened to that file, and what is lost.")
    identity: Identity | None = Field(description="null in a repaired copy, which does not tell it.")
    bytes: int = Field(description="Of the file.")
    sha256: str = Field(description="Of the file.")
    rows: int | None = Field(
        description="Of the database; of a volume counted before and after its copy, and the fewer; null: a cold copy, "
        "of a server that did not run, so that nobody counted."
    )
    integrity_rows: int | None = Field(description="Rows of the integrity table; null when it is not there.")
    shrunk: bool
    shrunk_reasons: list[str]
    last_full: str | None = Field(description="The backup that this one was measured against.")
    definitions_sha256: str | None = Field(
        default=None,
        description="Of all that decides whether the dump loads, but for its rows; null: a volume, a repaired copy, or "
        "an older manifest.",
    )


class Activity(Model):
    """What a server had done by a moment. Kept in manifests."""

    in_recovery: bool | None = Field(default=None, description="Whether it was a standby; null: an older manifest.")
    transactions: str = Field(description="pg_current_snapshot(): `xmin:xmax:` and the transactions under way.")
    changed_rows: int = Field(description="Rows inserted, updated and deleted, ever: definitions are rows, too.")
    changes: str = Field(default="", description="A digest of their numbers in each table.")
    sequences: str = Field(description="A digest of where the database's sequences are.")
    counted_since: str | None = Field(description="When the server was started, and when its counts were reset.")
    settled: bool = Field(default=False, description="Whether every session had reported what it had written.")

    @property
    def quiet(self) -> bool:
        """Whether no transaction that writes was under way."""
        return self.transactions.endswith(":") and len(set(self.transactions.split(":")[:2])) == 1


class Manifest(ManifestHead):
    """`<file>.manifest.json`: written once, never changed. It proves integrity, not origin."""

    finished_at: Utc
    pg_dump_version: str
    tool_version: str
    integrity_table: str
    activity: Activity | None = Field(default=None, description="What the server had written by the snapshot.")
    meanings: dict[str, list[str]] | None = Field(
        default=None,
        description="The operators, functions and types of users and extensions that each object with expressions "
        "uses; null: an older manifest, or a repaired copy.",
    )
    recomputed: list[Recomputed] | None = Field(
        default=None, description="What a load computes anew; null: an older manifest, or a repaired copy."
    )
    database_bytes: int | None = Field(description="pg_database_size, an estimate; null in a repaired copy.")
    script_bytes: int = Field(description="Of the plain dump, before compression.")
    rest_sha256: str = Field(description="Of the script without COPY data and without its volatile lines.")
    schemas: list[str] | None = Field(description="null in a repaired copy.")
    properties: DatabaseProperties | None = Field(description="null in a repaired copy.")
    effective: dict[str, str] | None = Field(
        default=None,
        description="Settings that decide what values, checks and indexes become at a load, as a session of the "
        "database had them; null: an older manifest, or a repaired copy.",
    )
    roles: list[Role]
    tables: list[TableData]
    not_dumped: list[NotDumped] = Field(
        default=[],
        description="Rows that pg_dump left out, of tables of extensions and in schemas named as PostgreSQL's own.",
    )


class CopiedTable(Model):
    """Rows of one table of a database whose volume was copied, just before and just after the copy. They tell the rows
    in the copy exactly where nothing was written meanwhile."""

    schema_: str = Field(alias="schema")
    name: str
    rows: int
    rows_after: int | None = Field(description="null: the table was gone by then.")

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Site(Model):
    """Where a container has its data directory: what has to be known to put it back where there is no container."""

    data_directory: str = Field(description="In the container, e.g. /var/lib/postgresql/data.")
    mounted_at: str = Field(description="Where the volume is mounted: that directory or one above it.")
    volume: str | None = Field(description="Name of the volume; null: a directory of the machine is mounted there.")
    volume_labels: dict[str, str] = Field(default={}, description="Those by which Compose knows it.")


class WalSegment(Model):
    """A file of write-ahead log in an archive of a volume."""

    name: str
    bytes: int
    sha256: str


class VolumeManifest(ManifestHead):
    """`<file>.manifest.json` of an archive of the whole volume. The server's own `backup_manifest` in the archive tells
    what is in it, file by file; only the write-ahead log is not listed there. A cold copy, of a server that did not
    run, has none: for it everything but sizes, digests and versions is null or empty."""

    finished_at: Utc
    cold: bool = Field(default=False, description="A copy of the files of a server that did not run.")
    pg_basebackup_version: str | None
    tool_version: str
    integrity_table: str
    site: Site | None = Field(description="null: the server does not run in a container.")
    databases: list[str] = Field(description="Every database of the cluster: they all come back together.")
    cluster_bytes: int | None = Field(description="Sizes of the databases, summed; null where they may not be asked.")
    tables: list[CopiedTable] = Field(description="Those of the configured database.")
    uncounted: list[str] = Field(default=[], description="Its tables that could not be counted, as schema.name.")
    unlogged: list[str] = Field(
        default=[], description="Its unlogged tables, as schema.name, which are empty in the copy; none in a cold one."
    )
    activity: Activity | None = Field(default=None, description="What the server had written just before the copy.")
    quiet: bool | None = Field(
        description="Whether nothing was written between the two counts, so that rows are exactly those in the copy."
    )
    tar_bytes: int = Field(description="Of the archive, before compression.")
    files: int
    backup_manifest_sha256: str | None
    start_lsn: str | None
    end_lsn: str | None
    wal: list[WalSegment]
    configuration: list[str] | None = Field(
        default=None, description="What its configuration makes a server do: commands, libraries, doors; null: unknown."
    )


class Check(Model):
    """One check of a verification."""

    check: str
    ok: bool | None = Field(description="null: not applicable or could not be done; counts neither way.")
    expected: str = ""
    found: str = ""
    detail: str = ""


class Difference(Model):
    """Something that is in the backup and not, or not the same, in the database restored from it."""

    what: str = Field(description="For example 'rows of letta.messages' or 'INDEX letta.agents_name_idx'.")
    backup: str
    restored: str


class Violation(Model):
    """A constraint that rows of the database broke when it was backed up."""

    table: str = Field(description="Or the domain whose check it is.")
    constraint: str
    kind: Literal["foreign key", "check", "unique index"]
    rows: int | None = Field(description="null: that could not be told.")
    keys: list[str] = Field(description="Primary keys of the first five.")


class Drill(Model):
    """A restore into a throw-away server: what came of it."""

    verdict: Verdict = Field(
        default="unknown",
        description="'sound': all it holds came back, but that is no proof. 'damaged': the file is not what was "
        "written. 'will_not_load': the file is whole, and the server refuses it. 'constraint_violated': the database "
        "held rows that break its constraints, and the backup is faithful. 'unknown': also of a sample that came back.",
    )
    proved: bool | None = Field(
        description="Whether the same data came back; null: it could not be told, see detail, or nobody knows what "
        "should have come back, as of a cold copy, or pg_dump has left rows out."
    )
    sound: bool | None = Field(
        default=None,
        description="Of a volume: whether a server came up on it, all of it could be read, and nothing speaks against "
        "it, though it may not be proved. Of an SQL backup: true where all that it holds came back, but pg_dump left "
        "rows out, so that it is not proved; else null.",
    )
    proved_by: DrillMode | None = Field(
        default=None,
        description="What has shown that its definitions load: all of it, or a 'sample' with 1,000 rows of each table.",
    )
    detail: str = ""
    where: str = Field(description="The server it was restored into.")
    server_version: str
    rows_compared: int = 0
    objects_compared: int = 0
    differences: list[Difference] = Field(default=[], description="The first twenty.")
    normalised: list[Difference] = Field(
        default=[], description="Definitions that the server spells in another way, but which mean the same."
    )
    violations: list[Violation] = []
    except_recomputed: list[str] = Field(
        default=[], description="What no dump carries and a load computes anew, and which differs or was not compared."
    )
    search_path: SearchPath | None = Field(default=None, description="With which it loads; null: with neither.")
    warnings: list[str] = []
    database_bytes: int | None = None
    load_seconds: float | None = None
    restore_seconds: float | None = Field(default=None, description="About how long a real restore would take.")
    duration_seconds: float


class CodePageChoice(Model):
    """Code pages that give a PowerShell file the same text, with words of it."""

    code_pages: list[CodePage]
    samples: list[str]


class Verification(Model):
    """Answer of `verify_backup`."""

    status: Literal["done"] = "done"
    name: str
    verdict: Verdict | None = Field(default=None, description="Of the last restore drill: see `drill`.")
    level: Level
    valid: bool = Field(description="True only if every check holds and the backup has our manifest.")
    proved: bool | None = Field(
        default=None, description="Whether a restore drill proved it, this one or an earlier one; null without one."
    )
    proved_at: Utc | None = Field(default=None, description="When that drill was done.")
    foreign: bool = Field(description="Made by something else than `backup`, or its manifest is lost.")
    shrunk: bool | None = Field(description="A whole backup of a database that had shrunk; null without a manifest.")
    repairable: bool | None = Field(
        default=None, description="For files that PowerShell re-encoded: whether all of it can be undone; else null."
    )
    code_pages: list[CodePageChoice] = Field(
        default=[], description="When its code page can't be told for certain: call again with the right one of these."
    )
    drill: Drill | None = None
    warnings: list[str] = []
    checks: list[Check]
    tables: int | None = None
    rows: int | None = None
    files: int | None = Field(default=None, description="In an archive of a volume.")
    bytes: int
    sha256: str | None = None
    verified_at: Utc
    duration_seconds: float
    steps: list[Step]
    remedy: str | None = None


class DrillOutcome(Model):
    """What the last drill of an SQL backup has shown of its definitions."""

    by: DrillMode | None = Field(description="null: it could not load them, or not as they were.")
    at: Utc
    on: str = Field(description="Id of the image it was done in; without one the server's version.")
    verdict: Verdict | None = Field(default=None, description="Where it could not: the drill's; null: an older file.")
    detail: str = Field(default="", description="Why not; or what is not all as it was, though it is proved.")


class StoredVerification(Model):
    """`<file>.verified.json`: the last outcome of `full` or `drill`, replaced atomically. Bound to the file and its
    manifest by sizes and modification times, so that an outcome never outlives a change of either.

    `proved` is the verdict of the last drill that had one, on the server `proved_on`; it stays when the same content is
    verified in full again, and so do that drill's own `verdict`, `said` and `search_path`."""

    level: Level
    valid: bool
    proved: bool | None = None
    proved_at: Utc | None = None
    proved_on: str | None = None
    drilled: DrillOutcome | None = None
    verdict: Verdict | None = None
    said: str = Field(default="", description="By a drill that could not load it: why.")
    search_path: SearchPath | None = Field(default=None, description="With which the last drill could load it.")
    code_page: CodePage | None = Field(default=None, description="With which a file of PowerShell's was read for this.")
    verified_at: Utc
    sha256: str | None
    bytes: int
    mtime_ns: int
    manifest_bytes: int
    manifest_mtime_ns: int
    failed_checks: list[str]


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


class Client(Model):
    """Who called: an MCP client as it introduced itself, "cli", or "schedule"."""

    name: str
    version: str | None = None


class AuditEntry(Model):
    """One call. `before` and `after` name what it worked on and what it left, with SHA-256 digests where there are."""

    # A line of a later version may hold more, and is still to be shown.
    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    schema_: Literal[1] = Field(default=1, alias="schema")
    call: str = Field(
        description="The same in the two lines of a call: the one of its beginning and the one of its end."
    )
    time: Utc = Field(description="When the call began.")
    tool: str
    arguments: dict[str, JsonValue] = Field(description="Without secrets.")
    client: Client
    outcome: Literal["begun", "ok", "bad", "error"] = Field(
        description="'begun': it has not ended, so it is under way or was killed. 'bad': it was done, but its result "
        "is not what a user needs, such as a backup that has shrunk."
    )
    code: str | None = Field(description="With 'error': the error's code.")
    message: str
    duration_seconds: float | None = Field(description="null with 'begun'.")
    before: dict[str, str] = Field(default={})
    after: dict[str, str] = Field(default={})

    @property
    def job(self) -> str | None:
        """Name of the scheduled job whose run it is; None: it is none of a scheduler's."""
        name = self.arguments.get("scheduled") if self.tool == "backup" else None
        return None if name is None else str(name)


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


class Repaired(Model):
    """Answer of the command `repair`."""

    status: Literal["done"] = "done"
    name: str
    path: str
    repaired_from: str
    found: str = Field(description="What had happened to the file, and how it was undone.")
    code_page: CodePage
    bytes: int
    sha256: str
    tables: int
    rows: int
    integrity_rows: int | None
    duration_seconds: float
    remedy: str


class Finding(Model):
    """Something that `db_integrity` saw and a user should know. `code` is stable."""

    severity: Literal["info", "warning", "error"]
    code: str
    message: str
    remedy: str = ""
    evidence: dict[str, Any] = {}


class TableSize(Model):
    """A table of the live database; `bytes` with TOAST and without indexes."""

    schema_: str = Field(alias="schema")
    name: str
    estimated_rows: int | None = Field(description="pg_class.reltuples; null when never analysed.")
    bytes: int

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


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
