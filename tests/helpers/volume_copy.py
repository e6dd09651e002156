"""Archives of a whole volume, and servers at work while they are taken."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.models.common import Compression
from scarlet_backup_mcp.models.results import Backup
from scarlet_backup_mcp.models.verification import Check, Verification
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.progress import Progress, State
from scarlet_backup_mcp.settings import Settings
from scarlet_backup_mcp.store import gzip
from scarlet_backup_mcp.store.audit import AUDIT

from ..conftest import LocalDatabase
from .backup_faults import Box
from .store import Shelf

SLOTS = "SELECT slot_name, temporary, active, restart_lsn IS NOT NULL FROM pg_replication_slots"

BALANCES = """SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches),
                     (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT sum(delta) FROM pgbench_history)"""
"""pgbench's own invariant: four sums that are equal after any whole number of its transactions."""
COPYING = "copying the cluster"


def take(settings: Settings, progress: Progress | None = None, compression: Compression | None = None) -> Backup:
    with BackupContext(settings) as context:
        return backup(context, progress or Progress(), kind="volume", compression=compression)


def failed(report: Verification) -> set[str]:
    return {check.check for check in report.checks if check.ok is False}


def check(report: Verification, name: str) -> Check:
    return next(found for found in report.checks if found.check == name)


def left(directory: Path) -> list[str]:
    """What is in a backup directory beside its own files."""
    return sorted(path.name for path in directory.iterdir() if not path.name.startswith(".") and path.name != AUDIT)


class WhileItCopies(Progress):
    """Calls `act` once, in the backup's own thread, when some of the copy has come. Keeps the stages."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self.stages: list[str] = []
        self._act: Callable[[], object] | None = act

    def show(self, state: State) -> None:
        if not state.done:
            self.stages.append(state.stage)
        if self._act is not None and state.stage == COPYING and state.done:
            act, self._act = self._act, None
            act()


@contextmanager
def write_load(box: Box) -> Generator[None]:
    """pgbench, until the shell's input ends."""
    # Waited for: an orphan that dies of a signal is inherited by process 1, the server, which takes it for one of its
    # own that has crashed, and starts anew (seen on 15.20).
    script = "pgbench -n -c 4 -R 200 -T 120 -U postgres bench & cat; kill $!; wait"
    command = ["docker", "exec", "-i", box.name, "sh", "-c", script]
    with subprocess.Popen(command, stdin=-1, stdout=-3, stderr=-3) as process:
        assert process.stdin is not None
        try:
            yield
        finally:
            process.stdin.close()
            process.wait(10)


LOSE_THE_SLOT = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE temporary"


@dataclass(frozen=True)
class Kept:
    """A local server's volume backup, only to be copied from; and where it was taken."""

    database: LocalDatabase
    here: Shelf
    name: str


def ask(server: EmbeddedServer, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


Files = dict[str, bytes]


def packed(data: bytes) -> bytes:
    stream = gzip.compressor()
    return stream.compress(data) + stream.flush()


def a_table(files: Files) -> str:
    """The biggest file of a database."""
    return max((name for name in files if name.startswith("base/")), key=lambda name: len(files[name]))


def a_segment(files: Files) -> str:
    return next(name for name in files if re.fullmatch(r"pg_wal/[0-9A-F]{24}", name))


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
