"""Remember each container's backup directory, and what was found without being named, so that backups are found while
its engine does not answer."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_state_path
from pydantic import TypeAdapter, ValidationError

from ..errors import StoreError
from . import sidecars
from .writing import write_atomically

FILE = "directories.json"
_FILE = TypeAdapter(dict[str, Any])


@dataclass(frozen=True)
class Found:
    """The names of a container and of a database that no setting named."""

    container: str
    database: str


_FOUND = TypeAdapter(Found)


def remember(container: str, directory: Path) -> None:
    """Keep a container's directory in the user's state directory. Failing to is not an error."""
    _keep(container, str(directory))


def recall(container: str) -> Path | None:
    """Return the directory remembered for a container, if it still exists."""
    known = _read().get(container)
    return Path(known) if isinstance(known, str) and Path(known).is_dir() else None


def remember_found(place: str, found: Found) -> None:
    """Keep what was found at a place. Failing to is not an error."""
    _keep(f"found: {place}", asdict(found))


def recall_found(place: str) -> Found | None:
    """Return what was found there last; None if nothing is known."""
    try:
        return _FOUND.validate_python(_read().get(f"found: {place}"))
    except ValidationError:
        return None


def _keep(name: str, value: str | dict[str, str]) -> None:
    known = _read()
    if known.get(name) != value:
        with suppress(OSError, StoreError):
            state = user_state_path("scarlet-backup-mcp", appauthor=False, ensure_exists=True)
            write_atomically(state / FILE, json.dumps({**known, name: value}, indent=1).encode())


def _read() -> dict[str, Any]:
    try:
        file = user_state_path("scarlet-backup-mcp", appauthor=False) / FILE
        return _FILE.validate_json(sidecars.read(file) or b"{}")
    except (StoreError, ValidationError):
        return {}
