"""Whose the containers and clusters are that calls for a backup directory make: a mark in that directory."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

from ..errors import StoreError
from . import sidecars
from .writing import write_atomically

OWNER = "owner"


def owner_of(drills: Path) -> str:
    """A hash of the directory's path and of a random mark in it: two machines that share an engine may have backup
    directories of the same path. Under the lock."""
    mark = drills / OWNER
    try:
        if not mark.exists():
            write_atomically(mark, secrets.token_hex(16).encode())
        return hashlib.sha256(str(drills).encode() + (sidecars.read(mark) or b"")).hexdigest()[:12]
    except OSError as error:
        raise StoreError(f"{mark} can't be read: {error.strerror or error}.") from error
