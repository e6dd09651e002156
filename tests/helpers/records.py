"""Backups, listed and looked up."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from scarlet_backup_mcp.models.results import Listing
from scarlet_backup_mcp.settings import load_settings

from .store import Made, Shelf

DAY = 86400


def add(here: Shelf, made: Made, name: str, **changes: Any) -> None:
    """One more good backup: the same file under another name, with some of its manifest's fields changed."""
    for path in (made.shelf.file(made.plain), made.shelf.manifest(made.plain), made.shelf.outcome(made.plain)):
        shutil.copy2(path, here.directory / path.name.replace(made.plain, name))
    here.edit_manifest(name, name=name, **changes)


def ago(days: float) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()


def names_of(listing: Listing) -> list[str]:
    return [item.name for item in listing.backups]


def within_seconds(seconds: float, ask: Callable[[], Listing]) -> Listing | None:
    """What it gives; None when it does not come to an end in time."""
    answers: list[Listing] = []
    asking = threading.Thread(target=lambda: answers.append(ask()), daemon=True)
    asking.start()
    asking.join(seconds)
    return answers[0] if answers else None


def in_docker(directory: Path, **more: str) -> Shelf:
    """The same directory for someone who has Docker, or had."""
    return Shelf(load_settings(**{"dir": directory, **more}))


DEAD = "unix:///var/run/no-such-docker.sock"
