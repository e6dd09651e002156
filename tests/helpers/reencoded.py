"""Dumps as PowerShell wrote them, and calls on them."""

from __future__ import annotations

import re
import secrets
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import zstandard
from psycopg import sql

from scarlet_backup_mcp.errors import (
    BackupToolError,
)
from scarlet_backup_mcp.models.common import CodePage, Level
from scarlet_backup_mcp.models.results import Repaired, Restore
from scarlet_backup_mcp.models.verification import Check, Verification
from scarlet_backup_mcp.postgres.dump.contents import Contents, compare
from scarlet_backup_mcp.postgres.dump.digests import BlockDigests
from scarlet_backup_mcp.postgres.dump.script import ScriptReader, read_script
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.repair import repair
from scarlet_backup_mcp.procedures.restore.options import RestoreOptions
from scarlet_backup_mcp.procedures.restore.service import dry_run, restore
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.store.encodings import Container

from ..conftest import LocalDatabase
from .store import Shelf, execute

OLD = "letta_backup_20250102_030405.sql"
COPY = "letta_backup_repaired_20250102_030405.sql"
WORDS: dict[Container, str] = {
    "utf-16le": "UTF-16",
    "utf-16be": "UTF-16 (big-endian)",
    "utf-8-bom": "UTF-8 with a byte order mark",
    "crlf": "lines that end in CRLF",
}

KINDS: list[tuple[Container, CodePage, str]] = [
    *(("utf-16le", page, "") for page in (437, 850, 852, 1252, 65001)),
    ("utf-16le", 850, ".zst"),
    ("utf-16be", 858, ""),
    ("utf-8-bom", 1250, ""),
    ("utf-8-bom", 850, ".zst"),
    ("crlf", 850, ""),
    ("crlf", 65001, ".zst"),
]


@dataclass(frozen=True)
class Origin:
    """A database that was dumped before PowerShell had the dump."""

    database: LocalDatabase
    dump: bytes = field(repr=False)

    def saying(self, word: str) -> bytes:
        """The dump of a database in which that is Scarlet's name, and everything else is ASCII."""
        return self.dump.decode().encode("ascii", "ignore").replace(b"Scarlet", word.encode())


@dataclass(frozen=True)
class Place:
    """A live database that has moved on since the dump, and a directory for its backups."""

    origin: Origin
    database: LocalDatabase
    shelf: Shelf

    def put(self, content: bytes, name: str = OLD) -> Path:
        """A file in the backup directory; a name in .zst is compressed."""
        path = self.shelf.file(name)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_bytes(zstandard.compress(content) if name.endswith(".zst") else content)
        return path

    def verify(self, name: str = OLD, level: Level = "full", code_page: CodePage | None = None) -> Verification:
        with BackupContext(self.shelf.settings) as context:
            return verify(context, Progress(), name, level, code_page=code_page)

    def repair(self, name: str = OLD, code_page: CodePage | None = None, progress: Progress | None = None) -> Repaired:
        with BackupContext(self.shelf.settings) as context:
            return repair(context, progress or Progress(), name, code_page=code_page)

    def restore(self, name: str = OLD, **options: Any) -> Restore:
        with BackupContext(self.shelf.settings) as context:
            return restore(context, Progress(), name, RestoreOptions(**options))

    def dry_run(self, name: str = OLD, **options: Any) -> Restore:
        with BackupContext(self.shelf.settings) as context:
            return dry_run(context, Progress(), name, RestoreOptions(**options))

    def differences(self, dump: bytes) -> list[str]:
        """What is not the same in the live database as in the dumped one: rows of tables, and definitions."""
        before = Contents()
        read_script([dump], before)
        after = Contents(before)
        read_script([pg_dump(self.database)], after)
        comparison = compare(before, after)
        assert comparison.complete
        assert comparison.rows_compared <= rows_of(dump)
        return [found.what for found in (*comparison.differences, *comparison.rewritten)]

    def fails(self, error: type[BackupToolError], **options: Any) -> BackupToolError:
        """A restore and its dry run that are refused and leave the live database alone; the error."""
        before = pg_dump(self.database)
        for call in (self.dry_run, self.restore):
            with pytest.raises(BackupToolError) as caught:
                call(**options)
            assert type(caught.value) is error, caught.value.message
        assert without_key(pg_dump(self.database)) == without_key(before)
        return caught.value


def pg_dump(database: LocalDatabase, *options: str) -> bytes:
    command = [str(database.bin_dir / "pg_dump"), *options, "-d", database.dsn]
    return subprocess.run(command, capture_output=True, check=True).stdout


def without_key(dump: bytes) -> bytes:
    """A dump less what pg_dump makes anew each time."""
    return re.sub(rb"\\(un)?restrict \w+", b"", dump)


def rows_of(script: bytes) -> int:
    """Rows of the tables that are whole in a script or in its beginning."""
    digests = BlockDigests()
    ScriptReader(digests).feed(script)
    return sum(block.rows for block in digests.blocks)


def check_of(report: Verification, name: str) -> Check:
    return next(check for check in report.checks if check.check == name)


@contextmanager
def moved_on(origin: Origin) -> Generator[LocalDatabase]:
    """That database as it is some time after it was dumped. Dropped afterwards, with what restores set aside."""
    server, name = origin.database.server, f"live_{secrets.token_hex(4)}"
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        live, template = sql.Identifier(name), sql.Identifier(origin.database.name)
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(live, template))
        try:
            connection.execute(sql.SQL('ALTER DATABASE {} SET search_path TO letta, "$user", public').format(live))
            database = LocalDatabase(server, name, server.dsn(name))
            execute(database, "DELETE FROM messages WHERE sequence_id > 9; UPDATE agents SET name = 'now'")
            yield database
        finally:
            found = connection.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [name])
            for (made,) in found.fetchall():
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(made)))


def cut_in_a_row(dump: bytes) -> int:
    """A place in a row of the messages, some tables after the first."""
    return dump.index(b"\n", dump.index(b"COPY letta.messages") + 400) + 40
