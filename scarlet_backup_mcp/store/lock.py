"""One writer at a time in a backup directory."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import Busy, DirectoryNotWritable

LOCK = ".scarlet-backup.lock"
HOLDER = ".scarlet-backup.holder.json"


@contextmanager
def writer_lock(directory: Path, purpose: str) -> Generator[None]:
    """Hold the directory's lock; the kernel releases it when the process dies, whatever way.

    Raises Busy, naming who holds it, when it is taken: waiting would hide that two things are at it.
    """
    lock = FileLock(directory / LOCK, mode=0o600, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Busy(f"Another call holds the backup directory{_holder(directory)}.") from None
    except OSError as error:
        raise DirectoryNotWritable(f"{directory / LOCK} can't be locked: {error.strerror or error}.") from error
    try:
        with suppress(OSError):
            who = {"purpose": purpose, "pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
            (directory / HOLDER).write_text(json.dumps(who), encoding="ascii")
        yield
    finally:
        with suppress(OSError):
            (directory / HOLDER).unlink(missing_ok=True)
        lock.release()


def _holder(directory: Path) -> str:
    try:
        who = json.loads((directory / HOLDER).read_text(encoding="ascii"))
        return f": a {who['purpose']} of process {who['pid']} since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
