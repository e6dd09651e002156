"""Manifests: what `backup` records about a backup's origin and content. All times are UTC; sizes are bytes.

A manifest proves that a file is intact, not who made it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import AliasChoices, Field

from .common import Compression, Kind, Model, OpenModel, Utc


class TableData(Model):
    """One COPY target of a dump. `bytes` and `digest` are those of its data, with all blocks joined. A table appears
    twice only if partitions with another order of columns are loaded through it."""

    schema_: str = Field(alias="schema")
    name: str
    columns: list[str]
    rows: int
    bytes: int
    digest: str = Field(
        validation_alias=AliasChoices("digest", "sha256"),
        description="XXH3-128 in hex; in a manifest of version 1 SHA-256, named `sha256`.",
    )


def rows_by_table(tables: Iterable[TableData]) -> dict[tuple[str, str], int]:
    """Sum the rows of each table, by (schema, name)."""
    found: dict[tuple[str, str], int] = {}
    for table in tables:
        found[table.schema_, table.name] = found.get((table.schema_, table.name), 0) + table.rows
    return found


class TableCount(Model):
    """Rows of one table in a backup."""

    schema_: str = Field(alias="schema")
    name: str
    rows: int


class NotDumped(Model):
    """Rows of one table that a dump lacks, because pg_dump leaves them out."""

    schema_: str = Field(alias="schema")
    name: str
    rows: int | None = Field(description="null: not counted, because the role may not read the table.")


class Recomputed(Model):
    """What a load recomputes: a table's stored generated columns, or a materialised view. The digests do not depend on
    the order of rows, and are comparable between servers of any version."""

    schema_: str = Field(alias="schema")
    name: str
    view: bool = Field(description="A materialised view.")
    key: str = Field(default="", description="The primary key's columns; empty without one.")
    rows: int = 0
    digests: dict[str, str] = Field(default={}, description='By column; "" is a whole row of a view.')
    sample: dict[str, str] = Field(default={}, description="Of some rows: a digest by that of the key.")
    keys: dict[str, str] = Field(default={}, exclude=True, description="The primary keys themselves; not stored.")
    why_not: str = Field(default="", description="Why it could not be read.")


class Extension(Model):
    """An installed extension."""

    name: str
    schema_: str = Field(alias="schema")
    version: str


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
    """What `pg_dump` without `--create` leaves out."""

    owner: str
    encoding: str
    locale_provider: str = Field(description="c (libc), i (ICU) or b (builtin), as pg_database.datlocprovider.")
    collate: str
    ctype: str
    locale: str | None = Field(description="The ICU or builtin locale.")
    icu_rules: str | None = None
    comment: str | None
    connection_limit: int
    template: bool = Field(default=False, description="Whether other databases may be created from it.")
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
    """The database that a backup belongs to."""

    system_identifier: str = Field(description="pg_control_system(): new for every initdb, so for every fresh volume.")
    database: str
    database_oid: int | None = Field(description="null in a cold copy.")
    server_version: str
    server_version_num: int
    via: str = Field(description="docker or local; a newer version may know more.")
    container: str | None
    container_id: str | None
    image: str | None
    image_id: str | None
    project: str | None
    volume: str | None


class ManifestHead(Model):
    """The first fields of a manifest: what a listing needs.

    A version may add fields, which older ones skip. `manifest_version` rises only if that would make them misjudge the
    backup; the field itself, `name` and the seal (see `store.manifests`) stay the same in every version.
    """

    manifest_version: Literal[1, 2] = 1
    name: str
    kind: Kind
    compression: Compression
    created_at: Utc = Field(
        description="The time of the snapshot; for a volume, when its rows were counted, just before its copy."
    )
    label: str | None
    repaired_from: str | None = Field(
        default=None, description="The PowerShell-made file that it is a repaired copy of; its origin is unknown."
    )
    repaired_how: str | None = Field(default=None, description="What happened to that file, and what is lost.")
    identity: Identity | None = Field(description="null in a repaired copy, where it is unknown.")
    bytes: int = Field(description="Of the file.")
    sha256: str = Field(description="Of the file.")
    rows: int | None = Field(
        description="Rows of the database; for a volume the smaller of the counts before and after its copy; null: a "
        "cold copy, of a stopped server, whose rows nobody counted."
    )
    integrity_rows: int | None = Field(description="Rows of the integrity table; null if there is none.")
    shrunk: bool
    shrunk_reasons: list[str]
    last_full: str | None = Field(description="The backup that this one was compared with.")
    definitions_sha256: str | None = Field(
        default=None,
        description="Of everything that decides whether the dump loads, except its rows; null: a volume, a repaired "
        "copy, or an older manifest.",
    )
    rules: int | None = Field(
        default=None,
        description="The version of the rules by which all of its content was checked, with success, while it was "
        "written; null: a check failed, an older manifest, or a repaired copy.",
    )


class Activity(Model):
    """A server's activity up to some moment. Stored in manifests."""

    in_recovery: bool | None = Field(default=None, description="Whether it was a standby; null: an older manifest.")
    transactions: str = Field(description="pg_current_snapshot(): `xmin:xmax:` and the running transactions.")
    changed_rows: int = Field(description="Rows inserted, updated and deleted, ever: definitions are rows, too.")
    changes: str = Field(default="", description="A digest of their numbers in each table.")
    sequences: str = Field(description="A digest of the values of the database's sequences.")
    counted_since: str | None = Field(description="When the server was started, and when its counts were reset.")
    settled: bool = Field(default=False, description="Whether every session had reported what it had written.")

    @property
    def quiet(self) -> bool:
        """Whether no transaction that writes was running."""
        return self.transactions.endswith(":") and len(set(self.transactions.split(":")[:2])) == 1


class Manifest(ManifestHead):
    """`<file>.manifest.json`: written once, never changed. It proves integrity, not origin.

    In version 1 the digests of `tables` are SHA-256."""

    manifest_version: Literal[1, 2] = 2
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
        default=None, description="What a load recomputes; null: an older manifest, or a repaired copy."
    )
    database_bytes: int | None = Field(description="pg_database_size, an estimate; null in a repaired copy.")
    script_bytes: int = Field(description="Of the plain dump, before compression.")
    rest_sha256: str = Field(description="Of the script without COPY data and without its volatile lines.")
    schemas: list[str] | None = Field(description="null in a repaired copy.")
    properties: DatabaseProperties | None = Field(description="null in a repaired copy.")
    effective: dict[str, str] | None = Field(
        default=None,
        description="Settings that affect values, checks and indexes during a load, as a session of the database had "
        "them; null: an older manifest, or a repaired copy.",
    )
    roles: list[Role]
    tables: list[TableData]
    not_dumped: list[NotDumped] = Field(
        default=[],
        description="Rows that pg_dump left out, of extensions' tables and in schemas named like PostgreSQL's own.",
    )


class CopiedTable(Model):
    """Rows of one table just before and just after its volume was copied. They are exactly those in the copy if nothing
    was written meanwhile."""

    schema_: str = Field(alias="schema")
    name: str
    rows: int
    rows_after: int | None = Field(description="null: the table was gone by then.")


class Site(OpenModel):
    """Where a container has its data directory, so that it can be restored without a container."""

    data_directory: str = Field(description="In the container, e.g. /var/lib/postgresql/data.")
    mounted_at: str = Field(description="Where the volume is mounted: that directory or one above it.")
    volume: str | None = Field(description="Name of the volume; null: a directory of the machine is mounted there.")
    volume_labels: dict[str, str] = Field(default={}, description="The labels by which Compose knows it.")


class WalSegment(Model):
    """A file of write-ahead log in an archive of a volume."""

    name: str
    bytes: int
    sha256: str


class VolumeManifest(ManifestHead):
    """`<file>.manifest.json` of an archive of the whole volume. The server's own `backup_manifest` in the archive lists
    its files, except the write-ahead log. A cold copy, of a stopped server, has none: everything except sizes, digests
    and versions is then null or empty."""

    finished_at: Utc
    cold: bool = Field(default=False, description="A copy of the files of a stopped server.")
    pg_basebackup_version: str | None
    tool_version: str
    integrity_table: str
    site: Site | None = Field(description="null: the server does not run in a container.")
    databases: list[str] = Field(description="Every database of the cluster: they all come back together.")
    cluster_bytes: int | None = Field(description="Sum of the databases' sizes; null if the role may not query them.")
    tables: list[CopiedTable] = Field(description="Those of the configured database.")
    uncounted: list[str] = Field(default=[], description="Its tables that could not be counted, as schema.name.")
    unlogged: list[str] = Field(
        default=[], description="Its unlogged tables, as schema.name, which are empty in the copy; [] for a cold one."
    )
    activity: Activity | None = Field(default=None, description="What the server had written just before the copy.")
    quiet: bool | None = Field(
        description="Whether nothing was written between the two counts, so that they are exact."
    )
    tar_bytes: int = Field(description="Of the archive, before compression.")
    files: int
    backup_manifest_sha256: str | None
    start_lsn: str | None
    end_lsn: str | None
    wal: list[WalSegment]
    configuration: list[str] | None = Field(
        default=None, description="Commands, libraries and access in its configuration; null: unknown."
    )
