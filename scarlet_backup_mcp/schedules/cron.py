"""cron: lines in the user's own table (crontab(1), crontab(5)). Nobody catches up a run that was missed."""

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
    """The lines, between their markers."""
    return [JobFile(path="crontab", text="\n".join([_begin(job.name), _line(job), _end(job.name)]) + "\n")]


def commands(name: str) -> list[str]:
    """What registers them by hand."""
    return ["crontab -e"]


def notes(job: ScheduledJob) -> list[str]:
    """What to know of it."""
    return [
        "cron does not catch up: a run that was due while the machine was off or asleep is lost. Choose systemd or "
        "launchd where there is one.",
        "What a failed run says is mailed to you if this machine can send mail; the audit log has it in any case.",
    ]


def install(job: ScheduledJob) -> bool:
    """Put the lines into the table; the rest of it stays as it is. Gives whether they are in place of others of that
    name.

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


def remove(name: str) -> bool:
    """Take the lines out again; False when they are not there. Raises ScheduleFailed."""
    rest = _without(_table(), name)
    if rest is not None:
        require_success(["crontab", "-"], rest)
    return rest is not None


def _line(job: ScheduledJob) -> str:
    words = [*(f"{name}={shlex.quote(value)}" for name, value in job.environment.items()), shlex.join(job.argv)]
    command = f"{' '.join(words)} >/dev/null"
    # A bare % is a line end to cron, and of two backslashes it drops one (seen with 3.0pl1). Backslashes stand within
    # single quotes only, which are closed and opened again after one that would have another or a % behind it.
    command = re.sub(r"\\(?=[\\%])", r"\\''", command).replace("%", r"\%")
    if len(command.encode()) > LONGEST_COMMAND:
        raise ConfigurationError(
            f"The command has {len(command.encode())} bytes; cron takes {LONGEST_COMMAND}.",
            "Use shorter paths; where SCARLET_BACKUP_BIN_DIR is set, PATH need not stand in it.",
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
    """The table less the lines of that name, None when it has none. Raises ScheduleFailed when a marker is missing."""
    lines = table.splitlines(keepends=True)
    bare = [line.rstrip(b"\r\n") for line in lines]
    begins = [at for at, line in enumerate(bare) if line == _begin(name).encode()]
    ends = [at for at, line in enumerate(bare) if line == _end(name).encode()]
    if not begins and not ends:
        return None
    if len(begins) != 1 or len(ends) != 1 or ends[0] < begins[0]:
        raise ScheduleFailed(
            f"The markers of {name} in your crontab do not come in one pair; nothing was changed.",
            "Take those lines out with `crontab -e` and call it again.",
        )
    return b"".join(lines[: begins[0]] + lines[ends[0] + 1 :])
