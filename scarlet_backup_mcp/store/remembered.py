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


def remember(container: str, directory: Path) -> None:
    """Keep a container's directory in the user's state directory. Failing to is not an error."""
    known = _read()
    if known.get(container) != str(directory):
        with suppress(OSError, StoreError):
            state = user_state_path("scarlet-backup-mcp", appauthor=False, ensure_exists=True)
            write_atomically(state / FILE, json.dumps({**known, container: str(directory)}, indent=1).encode())


def recall(container: str) -> Path | None:
    """Return the directory remembered for a container, if it still exists."""
    known = _read().get(container)
    return Path(known) if isinstance(known, str) and Path(known).is_dir() else None


def _read() -> dict[str, Any]:
    try:
        file = user_state_path("scarlet-backup-mcp", appauthor=False) / FILE
        return _FILE.validate_json(sidecars.read(file) or b"{}")
    except (StoreError, ValidationError):
        return {}
