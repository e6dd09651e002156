"""Real backups of a small database, taken once and copied for each test that harms one."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.models.common import Compression, Level, State
from scarlet_backup_mcp.models.results import Backup, Listed, Listing
from scarlet_backup_mcp.models.verification import Verification
from scarlet_backup_mcp.procedures import listing
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.catalog import records
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.recovery.journal import Journal
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import Settings, load_settings
from scarlet_backup_mcp.store.manifests import DIGEST
from scarlet_backup_mcp.store.names import MANIFEST, VERIFIED

from ..conftest import LocalDatabase, with_memory

SMALLER = """
SET search_path TO letta;
DELETE FROM archival_passages WHERE id NOT IN (SELECT id FROM archival_passages ORDER BY created_at LIMIT 3);
DELETE FROM messages WHERE sequence_id > 24;
"""


@dataclass(frozen=True)
class Shelf:
    """A backup directory and the settings that lead to it."""

    settings: Settings

    @property
    def directory(self) -> Path:
        assert self.settings.dir is not None
        return self.settings.dir

    def file(self, name: str) -> Path:
        return self.directory / name

    def manifest(self, name: str) -> Path:
        return self.directory / (name + MANIFEST)

    def outcome(self, name: str) -> Path:
        return self.directory / (name + VERIFIED)

    def back_up(self, compression: Compression = "none", *, accept_smaller: bool = False) -> Backup:
        with BackupContext(self.settings) as context:
            return backup(context, Progress(), compression=compression, accept_smaller=accept_smaller)

    def verify(self, name: str, level: Level = "full") -> Verification:
        with BackupContext(self.settings) as context:
            return verify(context, Progress(), name, level)

    def listing(self, limit: int = 10) -> Listing:
        with BackupContext(self.settings) as context:
            return listing.list_backups(context, limit)

    def listed(self, name: str) -> Listed:
        return next(item for item in self.listing(limit=1000).backups if item.name == name)

    def state(self, name: str) -> State:
        """As `list_backups` tells it, without asking the server for undo points."""
        with BackupContext(self.settings) as context:
            return next(item.state for item in records.all_backups(context) if item.name == name)

    def latest(self, *, for_restore: bool = False) -> str:
        with BackupContext(self.settings) as context:
            return records.latest(context, for_restore=for_restore)

    def copy(self, to: Path, *names: str) -> Shelf:
        """Another directory with some of these backups, files' times and all."""
        to.mkdir(mode=0o700, parents=True)
        for name in names:
            for path in (self.file(name), self.manifest(name), self.outcome(name)):
                shutil.copy2(path, to)
        return Shelf(self.settings.model_copy(update={"dir": to}))

    def edit_manifest(self, backup: str, **changes: Any) -> None:
        """Change fields of a manifest as if it had been written so: its seal and the last outcome go along.

        `identity` is changed field by field.
        """
        fields = json.loads(self.manifest(backup).read_bytes())
        del fields[DIGEST]
        fields["identity"].update(changes.pop("identity", {}))
        fields.update(changes)
        content = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
        sealed = {**fields, DIGEST: hashlib.sha256(content).hexdigest()}
        self.manifest(backup).write_text(json.dumps(sealed, indent=1) + "\n", encoding="utf-8")
        self._bind_outcome(backup)

    def _bind_outcome(self, backup: str) -> None:
        if self.outcome(backup).exists():
            outcome = json.loads(self.outcome(backup).read_bytes())
            status = self.manifest(backup).stat()
            outcome |= {"manifest_bytes": status.st_size, "manifest_mtime_ns": status.st_mtime_ns}
            self.outcome(backup).write_text(json.dumps(outcome), encoding="utf-8")

    def rename(self, old: str, new: str, **changes: Any) -> None:
        """Give a backup another name that its manifest agrees with, as if it had been taken under it."""
        for path in (self.file(old), self.manifest(old), self.outcome(old)):
            path.rename(path.with_name(path.name.replace(old, new)))
        self.edit_manifest(new, name=new, **changes)


@dataclass(frozen=True)
class Made:
    """One good backup of each compression, of the same database. Only to be copied from."""

    shelf: Shelf
    plain: str
    zstd: str


def shelf(database: LocalDatabase, directory: Path, **more: Any) -> Shelf:
    """A directory for backups of a database on the embedded server."""
    values = {"via": "local", "dsn": database.dsn, "bin_dir": database.bin_dir, "dir": directory, **more}
    return Shelf(load_settings(**values))


@contextmanager
def small_database(server: EmbeddedServer) -> Generator[LocalDatabase]:
    """Scarlet's memory, less most of its passages and messages: a dump of some 80 kB. Dropped afterwards."""
    name = f"small_{secrets.token_hex(4)}"
    try:
        database = with_memory(server, name)
        execute(database, SMALLER)
        yield database
    finally:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def made_backups(server: EmbeddedServer, directory: Path) -> Generator[Made]:
    """The database stays as long as the block."""
    with small_database(server) as database:
        there = shelf(database, directory / "backups")
        yield Made(there, there.back_up().name, there.back_up("zstd").name)


def waiting_journal(source: str, container: str | None) -> Journal:
    """Of a restore into the database letta, of a container or a local server, that was cut off."""
    return Journal(
        source=source,
        source_kind="backup",
        container=container,
        database="letta",
        live_oid=1,
        incoming="letta_restore_20260101_000000",
        incoming_oid=2,
        undo=None,
        system_identifier="1",
        dependents=[],
        started_at=datetime.now(UTC),
    )


def execute(database: LocalDatabase, statements: str) -> None:
    """Run SQL in a database."""
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute(statements.encode())
