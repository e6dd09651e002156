"""One writer at a time in a backup directory, and how the next one waits."""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from ..errors import Busy, DirectoryNotWritable, LocksUnsupported, StoreError
from ..progress import Progress
from . import sidecars
from .file_system import called
from .permissions import in_the_way

log = logging.getLogger(__name__)

T = TypeVar("T")
LOCK = ".scarlet-backup.lock"
HOLDER = ".scarlet-backup.holder.json"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What flock answers where it can't lock: NFS without its lock service, Lustre without `-o flock`, and the like."""
PAUSE_SECONDS = 2.0
"""How long to wait between two tries."""


def lock_of(path: Path, seconds: float = 0) -> FileLock:
    """Return the lock that a file stands for, and make that file, for its owner only; acquiring waits that long.

    FileLock would set the mode by a chmod, which FAT through FUSE answers with ENOSYS; and where flock is missing it
    would lock by the file's existence, which outlives a killed process.
    """
    with suppress(OSError):  # which acquiring raises again
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    return FileLock(path, timeout=seconds, thread_local=False, fallback_to_soft=False)


def not_locked(path: Path, error: OSError) -> StoreError:
    """Return the error for a lock that can't be taken, though nobody holds it."""
    if error.errno in NO_LOCKS:
        return LocksUnsupported(
            f"{called(path.parent)} can't lock files ({error.strerror}), and without a lock two calls could disturb "
            "each other."
        )
    if os.path.islink(path):
        return DirectoryNotWritable(f"{path} is a link, which is never followed.", "Remove that link, then try again.")
    if isinstance(error, PermissionError):
        return DirectoryNotWritable(f"This user may not write {path}: {in_the_way(path)}.")
    return DirectoryNotWritable(f"{path} can't be locked: {error.strerror or error}.")


@contextmanager
def writer_lock(directory: Path, purpose: str) -> Generator[None]:
    """Hold the directory's lock; the kernel releases it however the process dies.

    Raises Busy, naming the holder, if it is taken: waiting would hide that two calls want it.
    """
    lock = lock_of(directory / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Busy(f"Another call holds the lock of {directory}{_holder(directory)}.") from None
    except OSError as error:
        raise not_locked(directory / LOCK, error) from error
    try:
        who = {"purpose": purpose, "pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
        sidecars.note(directory / HOLDER, json.dumps(who).encode())
        yield
    finally:
        with suppress(OSError):
            (directory / HOLDER).unlink(missing_ok=True)
        lock.release()


@contextmanager
def in_use(path: Path) -> Generator[None]:
    """Protect a file from `remove_unused` during the block; the kernel ends the protection when the process dies.

    Raises Busy if the file is in use already, and DirectoryNotWritable.
    """
    mark = path.with_name(path.name + LOCK)
    lock = lock_of(mark)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Busy(f"Another call is using {path}.") from None
    except OSError as error:
        raise not_locked(mark, error) from error
    try:
        yield
    finally:
        with suppress(OSError):
            mark.unlink(missing_ok=True)
        lock.release()


def remove_unused(path: Path) -> bool:
    """Remove a file unless a call has it `in_use`; tell whether it is gone."""
    try:
        with in_use(path):
            path.unlink(missing_ok=True)
        return True
    except (StoreError, OSError) as error:
        log.info("%s stays: %s", path, error)
        return False


def patiently(progress: Progress, work: Callable[[], T], seconds: float) -> T:
    """Return what `work` returns, retrying while it raises Busy. Raises what it raises; Busy after so many seconds."""
    until = time.monotonic() + seconds
    while True:
        try:
            return work()
        except Busy:
            if time.monotonic() >= until:
                raise
        progress.stage("waiting for another call", seconds=0)
        again = time.monotonic() + PAUSE_SECONDS
        while time.monotonic() < again:
            progress.check()
            time.sleep(0.1)


def _holder(directory: Path) -> str:
    try:
        who = json.loads(sidecars.read(directory / HOLDER) or b"")
        return f": a {who['purpose']} of process {who['pid']} since {who['since']}"
    except (StoreError, ValueError, KeyError, TypeError):
        return ""
