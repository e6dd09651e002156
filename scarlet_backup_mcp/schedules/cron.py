"""cron: lines in the user's own crontab (crontab(1), crontab(5)). Missed runs are not made up for."""

from __future__ import annotations

import re
import shlex

from ..errors import ConfigurationError
from .job import ScheduledJob, ScheduleFailed, require_success, run_program
from .report import JobFile

LONGEST_COMMAND = 990
"""Bytes. Debian's cron refuses a command of more than 998 ("command too long", seen with 3.0pl1)."""
WEEKDAYS = {"sunday": 0, "monday": 1, "tuesday": 2, "wednesday": 3, "thursday": 4, "friday": 5, "saturday": 6}


def files(job: ScheduledJob) -> list[JobFile]:
    """Return the job's lines, between their markers."""
    return [JobFile(path="crontab", text="\n".join([_begin(job.name), _line(job), _end(job.name)]) + "\n")]


def commands(name: str) -> list[str]:
    """Return the command that registers the lines by hand."""
    return ["crontab -e"]


def notes(job: ScheduledJob) -> list[str]:
    """Return what the user should know about cron jobs."""
    return [
        "cron does not make up for missed runs: one that was due while the machine was off or asleep is lost. Prefer "
        "systemd or launchd where available.",
        "The output of a failed run is mailed to you if this machine can send mail; the audit log has it in any case.",
    ]


def install(job: ScheduledJob) -> bool:
    """Put the lines into the crontab and leave the rest of it alone; tell whether they replaced others of that name.

    Raises ScheduleFailed, or ConfigurationError for a command that cron would refuse.
    """
    lines = files(job)[0].text.encode()
    before = _table()
    without = _without(before, job.name)
    rest = before if without is None else without
    if rest and not rest.endswith(b"\n"):
        rest += b"\n"
    if rest + lines == before:
        return False
    require_success(["crontab", "-"], rest + lines)
    return without is not None


def registered(name: str) -> bool:
    """Tell whether the crontab has lines of that name. Raises ScheduleFailed."""
    return _without(_table(), name) is not None


def remove(name: str) -> bool:
    """Remove the job's lines; False if there are none. Raises ScheduleFailed."""
    rest = _without(_table(), name)
    if rest is not None:
        require_success(["crontab", "-"], rest)
    return rest is not None


def _line(job: ScheduledJob) -> str:
    words = [*(f"{name}={shlex.quote(value)}" for name, value in job.environment.items()), shlex.join(job.argv)]
    command = f"{' '.join(words)} >/dev/null"
    # To cron a bare % is a line end, and it drops one of two backslashes (seen with 3.0pl1). Backslashes only occur in
    # single quotes; after one that another or a % would follow, the quotes are closed and opened again.
    command = re.sub(r"\\(?=[\\%])", r"\\''", command).replace("%", r"\%")
    if len(command.encode()) > LONGEST_COMMAND:
        raise ConfigurationError(
            f"The command has {len(command.encode())} bytes; cron accepts {LONGEST_COMMAND}.",
            "Use shorter paths; with SCARLET_BACKUP_BIN_DIR set, the command needs no PATH.",
        )
    day = WEEKDAYS[job.weekday] if job.weekday else "*"
    return f"{job.at.minute} {job.at.hour} * * {day} {command}"


def _begin(name: str) -> str:
    return f"# BEGIN {name} (written by scarlet-backup-mcp; `schedule --remove` takes it out)"


def _end(name: str) -> str:
    return f"# END {name}"


def _table() -> bytes:
    done = run_program(["crontab", "-l"])
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.decode(errors="replace").strip()
    if "no crontab for" in said:
        return b""
    raise ScheduleFailed(f"`crontab -l` failed with exit code {done.returncode}: {said}.")


def _without(table: bytes, name: str) -> bytes | None:
    """Return the table without the lines of that name; None if it has none. Raises ScheduleFailed without a marker."""
    lines = table.splitlines(keepends=True)
    bare = [line.rstrip(b"\r\n") for line in lines]
    begins = [at for at, line in enumerate(bare) if line == _begin(name).encode()]
    ends = [at for at, line in enumerate(bare) if line == _end(name).encode()]
    if not begins and not ends:
        return None
    if len(begins) != 1 or len(ends) != 1 or ends[0] < begins[0]:
        raise ScheduleFailed(
            f"Your crontab should have exactly one pair of markers for {name}, but does not; nothing was changed.",
            "Remove those lines with `crontab -e`, then run it again.",
        )
    return b"".join(lines[: begins[0]] + lines[ends[0] + 1 :])
