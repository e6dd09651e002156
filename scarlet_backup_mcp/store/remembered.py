"""Remember each container's backup directory, so that backups are found while its engine does not answer."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from platformdirs import user_state_path
from pydantic import TypeAdapter, ValidationError

from ..errors import StoreError
from . import sidecars
from .writing import write_atomically

FILE = "directories.json"
_FILE = TypeAdapter(dict[str, Any])


def remember(sought: str, found: str, directory: Path) -> None:
    """Keep the directory of the container `found`, for calls that look for one by the same words (`sought`), in the
    user's state directory. Failing to is not an error."""
    known, key = _read(), f"{sought} -> {found}"
    entry = {"sought": sought, "directory": str(directory)}
    if known.get(key) != entry:
        with suppress(OSError, StoreError):
            state = user_state_path("scarlet-backup-mcp", appauthor=False, ensure_exists=True)
            write_atomically(state / FILE, json.dumps({**known, key: entry}, indent=1).encode())


def recall(sought: str) -> Path | None:
    """Return the directory remembered for what is `sought`, if it still exists; None also if the same words have led to
    several containers with different ones, because nothing says which is meant now."""
    there: set[Path] = set()
    for entry in _read().values():
        match entry:
            case {"sought": str(words), "directory": str(directory)} if words == sought and Path(directory).is_dir():
                there.add(Path(directory))
            case _:  # of another version
                continue
    return there.pop() if len(there) == 1 else None


def _read() -> dict[str, Any]:
    try:
        file = user_state_path("scarlet-backup-mcp", appauthor=False) / FILE
        return _FILE.validate_json(sidecars.read(file) or b"{}")
    except (StoreError, ValidationError):
        return {}
