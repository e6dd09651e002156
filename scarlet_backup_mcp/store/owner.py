"""The owner of the containers and clusters that calls create: the backup directory, identified by a mark in it."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

from . import sidecars
from .permissions import cannot_read
from .writing import write_atomically

OWNER = "owner"


def owner_of(drills: Path) -> str:
    """Hash the directory's path and a random mark in it. Call it under the lock. The mark is there because machines
    that share an engine may have backup directories of the same path."""
    mark = drills / OWNER
    try:
        if not mark.exists():
            write_atomically(mark, secrets.token_hex(16).encode())
        return hashlib.sha256(str(drills).encode() + (sidecars.read(mark) or b"")).hexdigest()[:12]
    except OSError as error:
        raise cannot_read(mark, error) from error
