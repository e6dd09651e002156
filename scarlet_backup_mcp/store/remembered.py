"""Remember each container's backup directory, and what was found without being named, so that backups are found while
its engine does not answer."""

from __future__ import annotations

import json
import os
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


def remember(sought: str, found: str, directory: Path) -> None:
    """Keep the directory of the container `found`, for calls that look for one by the same words (`sought`), in the
    user's state directory. Failing to is not an error."""
    _keep(f"{sought} -> {found}", {"sought": sought, "directory": str(directory)})


def recall(sought: str) -> Path | None:
    """Return the directory remembered for what is `sought`, if it still exists; None also if the same words have led to
    several containers with different ones, because nothing says which is meant now."""
    there: set[Path] = set()
    for entry in _read().values():
        match entry:
            case {"sought": str(words), "directory": str(directory)} if words == sought and os.path.isdir(directory):
                there.add(Path(directory))
            case _:  # of another version
                continue
    return there.pop() if len(there) == 1 else None


def remember_found(place: str, found: Found) -> None:
    """Keep what was found at a place. Failing to is not an error."""
    _keep(f"found: {place}", asdict(found))


def recall_found(place: str) -> Found | None:
    """Return what was found there last; None if nothing is known."""
    try:
        return _FOUND.validate_python(_read().get(f"found: {place}"))
    except ValidationError:
        return None


def _keep(name: str, value: dict[str, str]) -> None:
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
