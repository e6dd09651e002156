"""The audit log of a backup directory: `audit.jsonl`, with every call that changed or tried to change something.

A call writes a JSON line when it begins, one before it replaces or removes something, and one when it ends; so a
killed call is in the log, too. Readers get the last line of each call.

Lines are only ever added, each in one write under the log's own lock, and are on the disk before the call answers.
O_APPEND alone would not do: on Windows an append is a seek and a write, and rotation moves the file. Readers skip a
line that a kill or a full disk cut off, and the next one begins on a new line. Before the log grows over 4 MiB (some
5000 calls) it becomes `audit.jsonl.1`, that becomes `.2`, and so on up to `.3`.
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

from filelock import Timeout
from pydantic import JsonValue, ValidationError

from ..errors import BackupToolError, Busy, StoreError
from ..models.audit import AuditEntry, Client
from ..redaction import redact, text
from .lock import NO_LOCKS, lock_of, not_locked
from .permissions import cannot_read, is_directory
from .writing import replace, sync_directory

AUDIT = "audit.jsonl"
AUDIT_LOCK = ".scarlet-audit.lock"
LIMIT = 4 << 20
KEPT = 3
"""Number of rotated files, besides the current one."""
LOCK_SECONDS = 10.0
SCHEDULE = "schedule"
"""Name of the client when a scheduler started the run."""
UNENDED = "has not ended: it is still running, was killed, or could not log its end (a full disk)."
_FLAGS = os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
log = logging.getLogger(__name__)


@dataclass
class Record:
    """What a call reports about itself to the log. `warning` is set afterwards if the log could not be written."""

    good: bool = True
    message: str = ""
    before: dict[str, str] = field(default_factory=dict[str, str])
    after: dict[str, str] = field(default_factory=dict[str, str])
    warning: str = ""
    announce: Callable[[Mapping[str, str]], None] = lambda before: None
    """Log `before` at once, as a line of the call's beginning."""


@dataclass(frozen=True)
class LogTail:
    """The last calls, newest first, and how many `unreadable` lines lay between them."""

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
    """Append an entry when the block begins and one when it ends, however it ends; pass on what it raises.

    `where` returns the backup directory and `secrets` what must not be logged. Both are called again at the end, since
    a call can create the one and learn the other; `arguments` are read again, too. A log that can't be written does
    not fail the call: `Record.warning` and stderr say so. Set `begin` to false if the directory isn't known yet.
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
        with suppress(Exception):  # the entry of the end will report what is wrong
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
            if error is None or _has_directory(where):  # else that error says it
                log.warning("%s", record.warning)


def _has_directory(where: Callable[[], Path]) -> bool:
    with suppress(BackupToolError):
        return is_directory(where())
    return False


def append(directory: Path, entry: AuditEntry) -> None:
    """Append an entry, durably. Raises StoreError, with the log unchanged."""
    line = entry.model_dump_json(by_alias=True).encode() + b"\n"
    path = directory / AUDIT
    if not is_directory(directory):  # the lock would create it
        raise StoreError(f"There is no directory {directory}.")
    try:
        with lock_of(directory / AUDIT_LOCK, LOCK_SECONDS):
            _make_room(path, len(line))
            _write(path, line)
    except Timeout:
        raise Busy(f"Another process has held {directory / AUDIT_LOCK} for {LOCK_SECONDS:.0f} s.") from None
    except OSError as error:
        if error.errno in NO_LOCKS:
            raise not_locked(directory / AUDIT_LOCK, error) from error
        raise StoreError(f"{path} can't be written: {error.strerror or error}.") from error


def read(directory: Path, count: int) -> LogTail:
    """Return the last `count` calls. Raises StoreError if the log exists but can't be read."""
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
    """Return each scheduled job's last finished run, and a later one that has not finished; newest first.

    Jobs that were removed since (`schedule --remove`) are left out. Raises StoreError as `read` does.
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
        return "internal_error", f"The call failed unexpectedly ({type(error).__name__})."
    return "cancelled", f"The call was stopped ({type(error).__name__})."


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
    """Rotate if the line would not fit. A kill between two renames leaves a gap, which the next call fills."""
    if not path.exists() or path.stat().st_size + bytes_needed <= LIMIT:
        return
    files = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, KEPT + 1))]
    free = next((number for number, file in enumerate(files) if number and not file.exists()), KEPT)
    for number in range(free, 0, -1):
        replace(files[number - 1], files[number])
    sync_directory(path.parent)


def _entries(directory: Path) -> Iterator[AuditEntry | None]:
    """Yield each call's last entry, newest first, and None for a line that can't be read."""
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
            raise cannot_read(directory / name, error) from error
        yield from (line for line in reversed(content.split(b"\n")) if line.strip())
