"""An agent, a person and a scheduler, with a database that they keep."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from scarlet_backup_mcp.cli.commands import main
from scarlet_backup_mcp.models.audit import AuditEntry
from scarlet_backup_mcp.postgres.server.dsn import environment_of
from scarlet_backup_mcp.settings import Settings
from scarlet_backup_mcp.store.audit import AUDIT

from ..helpers.command_line import CommandLine
from .faces import (
    ERAS,
)
from .store import Made, Shelf

SETTLED = 0.3
"""A session reports its statistics when it ends."""
FEW = {"keep_last": 2, "keep_daily": 0, "keep_weekly": 0, "keep_monthly": 0}
NOWHERE = "postgresql://postgres@127.0.0.1:1/"
"""Nobody listens there."""

each_era = pytest.mark.parametrize("era", ERAS)


@dataclass(frozen=True)
class Full:
    """A directory with five good backups, newest first, of which the rules keep two."""

    shelf: Shelf
    names: list[str]
    command_line: CommandLine

    @property
    def settings(self) -> Settings:
        return self.shelf.settings

    def there(self) -> list[str]:
        return sorted((path.name for path in self.shelf.directory.glob("*.sql")), reverse=True)

    def everything(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.shelf.directory.iterdir()}


def put(here: Shelf, made: Made, days: float, **changes: Any) -> str:
    """A good backup that was taken so many days ago; its name."""
    at = datetime.now(UTC) - timedelta(days=days)
    name = f"letta_backup_{at.astimezone():%Y%m%d_%H%M%S}.sql"
    for path in (made.shelf.file(made.plain), made.shelf.manifest(made.plain), made.shelf.outcome(made.plain)):
        shutil.copy2(path, here.directory / path.name.replace(made.plain, name))
    here.edit_manifest(name, name=name, created_at=at.isoformat(), **changes)
    return name


class Quick(CommandLine):
    """In this process: most of a command's second is its start."""

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        done = CliRunner().invoke(main, arguments, env=self.environment | environment)
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def command_line_of(settings: Settings, tmp_path: Path) -> CommandLine:
    return Quick(settings, tmp_path)


def log_of(directory: Path) -> list[AuditEntry]:
    """Every call in it that has ended, in that order; each line is one."""
    path = directory / AUDIT
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [entry for entry in map(AuditEntry.model_validate_json, lines) if entry.outcome != "begun"]


def told_in(entries: list[AuditEntry]) -> list[tuple[str, str | None]]:
    return [(entry.tool, entry.code or entry.outcome) for entry in entries]


def secret_of(settings: Settings) -> str:
    """The embedded server's password, which its DSN holds."""
    assert settings.dsn is not None
    secret = environment_of(settings.dsn.get_secret_value())["PGPASSWORD"]
    assert len(secret) > 5
    return secret


def nowhere(settings: Settings) -> str:
    """A DSN with that password, of a server that is not there."""
    return NOWHERE.replace("@", f":{secret_of(settings)}@")
