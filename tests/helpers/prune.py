"""Backups to be removed, and calls of `prune_backups`."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from typing import Any

from scarlet_backup_mcp.models.results import Kept, Prune
from scarlet_backup_mcp.procedures import prune
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.progress import Progress

from .store import Made, Shelf


def put(here: Shelf, made: Made, days: float, source: str = "", **changes: Any) -> str:
    """A good backup that was taken so many days ago; its name."""
    source = source or made.plain
    at = datetime.now(UTC) - timedelta(days=days)
    stem = "postgres_volume" if source.startswith("postgres_volume") else "letta_backup"
    name = f"{stem}_{at.astimezone():%Y%m%d_%H%M%S}{source[source.index('.') :]}"
    for path in (made.shelf.file(source), made.shelf.manifest(source), made.shelf.outcome(source)):
        shutil.copy2(path, here.directory / path.name.replace(source, name))
    here.edit_manifest(name, name=name, created_at=at.isoformat(), **changes)
    return name


def fill(here: Shelf, made: Made, days: int, **changes: Any) -> list[str]:
    """One of each day, newest first."""
    return [put(here, made, n, **changes) for n in range(days)]


def pruned(here: Shelf, progress: Progress | None = None, **options: Any) -> Prune:
    with BackupContext(here.settings) as context:
        return prune.prune(context, progress or Progress(), **options)


def mark(here: Shelf, name: str, on: bool = True) -> Kept:
    with BackupContext(here.settings) as context:
        return prune.keep(context, name, on)


def snapshot(here: Shelf) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in here.directory.iterdir()}


def backups(here: Shelf) -> set[str]:
    return {path.name for path in here.directory.iterdir() if path.suffix in (".sql", ".zst", ".gz")}
