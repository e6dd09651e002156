"""The audit log of a backup directory: `audit.jsonl`, with every call that changed or tried to change something.

A call leaves a JSON line when it begins, one with what it is about to replace or remove, and one when it ends: one that
was killed is there, too. A reader is shown the last of them.

Lines are only ever added, each in one write under a lock of the log's own, and are on the disk before the call answers:
an append on Windows is a seek and a write, and rotation moves the file, so O_APPEND alone would not do. A line that a
kill or a full disk cut off is passed over by the reader, and the next one begins on a line of its own. When the log
would grow over 4 MiB (some 5000 calls) it becomes `audit.jsonl.1`, which becomes `.2`, and so on up to `.3`.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets as random
import stat
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, cast

from filelock import FileLock, Timeout
from pydantic import JsonValue, ValidationError

from ..errors import BackupToolError, Busy, StoreError
from ..models.audit import AuditEntry, Client
from ..redaction import redact, text
from .writing import replace, sync_directory

AUDIT = "audit.jsonl"
AUDIT_LOCK = ".scarlet-audit.lock"
LIMIT = 4 << 20
KEPT = 3
"""Rotated files beside the present one."""
LOCK_SECONDS = 10.0
SCHEDULE = "schedule"
"""Name of the client of a run that a scheduler began."""
UNENDED = "has not ended: it is under way, was killed, or could not write its end here (a full disk)."
_FLAGS = os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
log = logging.getLogger(__name__)


@dataclass
class Record:
    """What a call tells of itself while it is audited. `warning` is there afterwards, when the log failed."""

    good: bool = True
    message: str = ""
    before: dict[str, str] = field(default_factory=dict[str, str])
    after: dict[str, str] = field(default_factory=dict[str, str])
    warning: str = ""
    announce: Callable[[Mapping[str, str]], None] = lambda before: None
    """Takes `before` and has the log tell of it at once, in a line of the call's beginning."""


@dataclass(frozen=True)
class LogTail:
    """The last calls, newest first; `unreadable` lines lay between these."""

    entries: list[AuditEntry]
    unreadable: int


@contextmanager
def audited(
    where: Callable[[], Path],
    tool: str,
    arguments: Mapping[str, object],
    client: Client,
    secrets: Callable[[], Collection[str]] = tuple,
    *,
    begin: bool = True,
) -> Generator[Record]:
    """Append an entry when the block begins and one when it ends, in whatever way; what it raises goes on.

    `where` gives the backup directory and `secrets` what must not be kept; both are asked at the end again, since a
    call can make the one and learn the other, and `arguments` are read again. A log that can't be written does not fail
    the call: `Record.warning` says so at the end, and stderr. `begin` is false where the directory can't be told yet.
    """
    record, began_at, began = Record(), datetime.now(UTC), time.monotonic()
    error: BaseException | None = None
    call = random.token_hex(4)

    def entry(outcome: Literal["begun", "ok", "bad", "error"], code: str | None, message: str) -> AuditEntry:
        hidden = secrets()
        return AuditEntry(
            call=call,
            time=began_at,
            tool=tool,
            arguments=cast(dict[str, JsonValue], redact(arguments, hidden)),
            client=client,
            outcome=outcome,
            code=code,
            message=text(message, hidden),
            duration_seconds=None if outcome == "begun" else round(time.monotonic() - began, 3),
            before={name: text(value, hidden) for name, value in record.before.items()},
            after={name: text(value, hidden) for name, value in record.after.items()},
        )

    def announce(before: Mapping[str, str]) -> None:
        record.before = dict(before)
        with suppress(Exception):  # the line of the end will say what is wrong
            append(where(), entry("begun", None, UNENDED))

    record.announce = announce
    if begin:
        announce({})
    try:
        yield record
    except BaseException as raised:
        error = raised
        raise
    finally:
        try:
            code, message = (None, record.message) if error is None else _described(error)
            append(where(), entry("error" if code else "ok" if record.good else "bad", code, message))
        except Exception as failure:
            why = failure.message if isinstance(failure, BackupToolError) else type(failure).__name__
            record.warning = f"This call is not in the audit log: {why}"
            log.warning("%s", record.warning)


def append(directory: Path, entry: AuditEntry) -> None:
    """Add a line, durably. Raises StoreError; then the log is as it was."""
    line = entry.model_dump_json(by_alias=True).encode() + b"\n"
    path = directory / AUDIT
    if not directory.is_dir():  # the lock would make it
        raise StoreError(f"There is no directory {directory}.")
    try:
        with FileLock(directory / AUDIT_LOCK, timeout=LOCK_SECONDS, mode=0o600, thread_local=False):
            _make_room(path, len(line))
            _write(path, line)
    except Timeout:
        raise Busy(f"Another process has held {directory / AUDIT_LOCK} for {LOCK_SECONDS:.0f} s.") from None
    except (OSError, NotImplementedError) as error:  # the latter on a file system without locks
        raise StoreError(f"{path} can't be written: {getattr(error, 'strerror', None) or error}.") from error


def read(directory: Path, count: int) -> LogTail:
    """The last `count` calls. Raises StoreError when the log is there but can't be read."""
    entries: list[AuditEntry] = []
    unreadable = 0
    for entry in _entries(directory):
        if entry is None:
            unreadable += 1
            continue
        entries.append(entry)
        if len(entries) == count:
            break
    return LogTail(entries, unreadable)


def last_runs(directory: Path) -> list[AuditEntry]:
    """Of each scheduled job its last run that has ended, and one after that which has not; newest first.

    A job that was taken out (`schedule --remove`) since has none. Raises StoreError as `read` does.
    """
    runs: list[AuditEntry] = []
    unended: set[str] = set()
    settled: set[str] = set()
    for entry in filter(None, _entries(directory)):
        if entry.tool == "schedule" and entry.outcome == "ok" and entry.arguments.get("remove"):
            settled.add(str(entry.arguments.get("job")))
        elif (job := entry.job) is not None and job not in settled:
            if entry.outcome != "begun":
                settled.add(job)
            elif job in unended:
                continue
            unended.add(job)
            runs.append(entry)
    return runs


# --------------------------------------------------------------------------------------------------------------------


def _described(error: BaseException) -> tuple[str, str]:
    if isinstance(error, BackupToolError):
        return error.code, error.message
    if isinstance(error, Exception):
        return "internal_error", f"It failed unexpectedly ({type(error).__name__})."
    return "cancelled", f"It was stopped ({type(error).__name__})."


def _write(path: Path, line: bytes) -> None:
    file = os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise StoreError(f"{path} is not a regular file.")
        if found.st_size:
            os.lseek(file, -1, os.SEEK_END)
            line = line if os.read(file, 1) == b"\n" else b"\n" + line
        if os.write(file, line) != len(line):
            os.ftruncate(file, found.st_size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file)
    finally:
        os.close(file)
    if not found.st_size:
        sync_directory(path.parent)


def _make_room(path: Path, bytes_needed: int) -> None:
    """Rotate when the line would not fit. A kill between two renames leaves a gap, which the next call fills."""
    if not path.exists() or path.stat().st_size + bytes_needed <= LIMIT:
        return
    files = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, KEPT + 1))]
    free = next((number for number, file in enumerate(files) if number and not file.exists()), KEPT)
    for number in range(free, 0, -1):
        replace(files[number - 1], files[number])
    sync_directory(path.parent)


def _entries(directory: Path) -> Iterator[AuditEntry | None]:
    """Newest first, of each call its last line; None is a line that can't be read."""
    seen: set[str] = set()
    for line in _lines(directory):
        try:
            entry = AuditEntry.model_validate_json(line, extra="ignore")
        except ValidationError:
            yield None
            continue
        if entry.call not in seen:
            seen.add(entry.call)
            yield entry


def _open_to_read(path: str, flags: int) -> int:
    return os.open(path, flags | _FLAGS & ~os.O_APPEND)


def _lines(directory: Path) -> Iterator[bytes]:
    seen: set[tuple[int, int]] = set()
    for name in (AUDIT, *(f"{AUDIT}.{number}" for number in range(1, KEPT + 1))):
        try:
            with open(directory / name, "rb", opener=_open_to_read) as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise StoreError(f"{directory / name} is not a regular file.")
                if (found.st_dev, found.st_ino) in seen:  # rotated since it was read
                    continue
                seen.add((found.st_dev, found.st_ino))
                content = file.read()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise StoreError(f"{directory / name} can't be read: {error.strerror or error}.") from error
        yield from (line for line in reversed(content.split(b"\n")) if line.strip())
