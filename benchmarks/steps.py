"""Every step that is timed: PROC-004's own commands, and ours for the same."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from letta import docker

from scarlet_backup_mcp.models.common import Compression, Kind, Level
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.listing import list_backups
from scarlet_backup_mcp.procedures.prune import prune
from scarlet_backup_mcp.procedures.restore.options import RestoreOptions
from scarlet_backup_mcp.procedures.restore.service import restore
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import Settings, load_settings
from scarlet_backup_mcp.store import manifests
from scarlet_backup_mcp.store.directory import BackupDirectory

DUMP, LOAD, BASE = "docker exec pg_dump > file", "psql < file, into a new database", "pg_basebackup > file"
LISTING = "list_backups"


class Bench:
    """One container, and every step in it, in the order of a round: what a step is compared with, and what it does.

    A step that returns seconds is not timed by the clock. The volume's come first: restores of SQL leave databases
    behind until `tidy`, which its copy would hold, too.
    """

    def __init__(self, container: str, directory: Path, backups: int = 0) -> None:
        self._container = container
        self._directory = directory
        self._settings = load_settings(dir=str(directory / "backups"), container=container)
        self._newest: dict[Kind, str] = {}
        self._undo_point = ""
        self._unavailable = 0.0
        self.bytes: dict[str, int] = {}
        """Of the files that steps wrote."""
        self.steps: dict[str, tuple[str | None, Callable[[], float | None]]] = {
            BASE: (None, self._shell_base),
            "backup, volume": (BASE, lambda: self._backup("backup, volume", "volume", "gzip")),
            "backup, volume, zstd": (BASE, lambda: self._backup("backup, volume, zstd", "volume", "zstd")),
            "drill, volume": (None, lambda: self._verify("volume", "drill")),
            "restore, volume": (None, lambda: self._restore("volume")),
            "restore, volume: server down": (None, lambda: self._unavailable),
            DUMP: (None, self._shell_dump),
            "backup, zstd": (DUMP, lambda: self._backup("backup, zstd", "sql", "zstd")),
            "backup": (DUMP, lambda: self._backup("backup", "sql", "none")),
            "verify full": (DUMP, lambda: self._verify("sql", "full")),
            LOAD: (None, self._shell_load),
            "restore": (LOAD, lambda: self._restore("sql")),
            "restore: nobody can connect": (None, lambda: self._unavailable),
            "undo": (None, self._undo),
            "drill": (LOAD, lambda: self._verify("sql", "drill")),
        }
        if backups:
            self.steps[f"{LISTING}, no backup"] = (None, lambda: self._list(0))
            self.steps[f"{LISTING}, {backups:,} backups"] = (None, lambda: self._list(backups))

    @property
    def megabytes(self) -> float:
        """Size of the plain dump, once there is one."""
        return self.bytes[DUMP] / 1e6

    def tidy(self) -> None:
        """Drop undo points, and remove the backups that retention does not keep."""
        with BackupContext(self._settings) as context:
            would = prune(context, Progress(), include_undo=True)
            prune(context, Progress(), dry_run=False, include_undo=True, confirmed=would.confirmation)

    def peak_megabytes(self, *command: str) -> float:
        """Return the most memory that a process of ours takes for a command."""
        ours = {"SCARLET_BACKUP_DIR": str(self._settings.dir), "SCARLET_BACKUP_CONTAINER": self._container}
        words = [sys.executable, "-m", "scarlet_backup_mcp", *command, "--quiet"]
        child = subprocess.Popen(words, env=os.environ | ours, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            sys.exit(f"{' '.join(command)} failed.")
        return usage.ru_maxrss / 1e3

    def _shell_dump(self) -> None:
        """PROC-004's step 3, in a shell that leaves bytes alone."""
        self._to_file(DUMP, "plain.sql", "pg_dump", "-U", "postgres", "letta")

    def _shell_base(self) -> None:
        copy = ("pg_basebackup", "-U", "postgres", "-D", "-", "-Ft", "-X", "fetch", "-c", "fast")
        self._to_file(BASE, "base.tar", *copy)

    def _to_file(self, step: str, name: str, *program: str) -> None:
        path = self._directory / name
        with path.open("wb") as out:
            subprocess.run(["docker", "exec", self._container, *program], stdout=out, check=True)
        self.bytes[step] = path.stat().st_size

    def _shell_load(self) -> None:
        """PROC-004's restore, into an empty database so that it can succeed."""
        psql = ("exec", "-i", self._container, "psql", "-q", "-U", "postgres", "-v", "ON_ERROR_STOP=1")
        docker(*psql, stdin=b"CREATE DATABASE shell")
        with (self._directory / "plain.sql").open("rb") as source:
            subprocess.run(["docker", *psql, "-d", "shell"], stdin=source, stdout=subprocess.DEVNULL, check=True)
        docker(*psql, stdin=b"DROP DATABASE shell")

    def _backup(self, step: str, kind: Kind, compression: Compression) -> None:
        with BackupContext(self._settings) as context:
            made = backup(context, Progress(), kind=kind, compression=compression, verify="full")
        self._newest[kind] = made.name
        self.bytes[step] = made.bytes

    def _verify(self, kind: Kind, level: Level) -> None:
        with BackupContext(self._settings) as context:
            verified = verify(context, Progress(), self._newest[kind], level)
        assert verified.valid

    def _restore(self, kind: Kind) -> None:
        with BackupContext(self._settings) as context:
            options = RestoreOptions(drop_oldest_undo=True)
            restored = restore(context, Progress(), self._newest[kind], options)
        self._undo_point = restored.undo_point or ""
        self._unavailable = restored.unavailable_seconds or 0.0

    def _undo(self) -> None:
        with BackupContext(self._settings) as context:
            restore(context, Progress(), self._undo_point, RestoreOptions(drop_oldest_undo=True))

    def _list(self, backups: int) -> float:
        with BackupContext(self._listed(backups)) as context:
            began = time.perf_counter()
            assert list_backups(context).total_backups == backups
            return time.perf_counter() - began

    def _listed(self, backups: int) -> Settings:
        """Fill a directory with so many backups, made of one; return the settings that lead to it."""
        settings = self._settings.model_copy(update={"dir": self._directory / f"{backups} backups"})
        assert settings.dir is not None
        if not settings.dir.exists():
            made, filled = BackupDirectory(self._directory / "backups"), BackupDirectory(settings.dir)
            filled.prepare()
            manifest = made.manifest(self._newest["sql"])
            assert manifest is not None
            for number in range(backups):
                moment = datetime.now(UTC) - timedelta(hours=7 * number)
                name = f"letta_backup_{moment:%Y%m%d_%H%M%S}.sql"
                os.link(made.path / manifest.name, filled.path / name)
                copy = manifest.model_copy(update={"name": name, "created_at": moment})
                (filled.path / f"{name}.manifest.json").write_bytes(manifests.seal(copy))
                filled.store_verification(filled.find(name), sha256=manifest.sha256, failed=[])
        return settings
