"""Scheduled backups: a job of the system's own scheduler, printed or registered.

`schedule` describes a job, and with `install` registers it in place of an earlier one of its name; `unschedule` takes
it out. A run appends its result to the audit log of the backup directory, and `store.audit.last_runs` gives the last
ones of each job.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from ..models.common import Kind
from ..settings import Settings
from . import cron, launchd, systemd, windows
from .job import (
    Every,
    ScheduledJob,
    ScheduleFailed,
    Weekday,
    interpreter,
    job_for,
    job_name,
    require_job_name,
    require_runnable,
)
from .report import JobFile, ScheduleReport, System, lines

__all__ = [
    "Every",
    "JobFile",
    "ScheduleFailed",
    "ScheduleReport",
    "ScheduledJob",
    "System",
    "Weekday",
    "interpreter",
    "job_for",
    "job_name",
    "lines",
    "require_runnable",
    "schedule",
    "system_here",
    "unschedule",
    "without_console",
]


REPLACED = (
    "It is in place of the earlier job of this name. One of another database, directory, kind (--kind) or period "
    "(--daily, --weekly) has a name of its own."
)


class _Scheduler(Protocol):
    def files(self, job: ScheduledJob) -> list[JobFile]: ...
    def commands(self, name: str) -> list[str]: ...
    def notes(self, job: ScheduledJob) -> list[str]: ...
    def install(self, job: ScheduledJob) -> bool: ...
    def remove(self, name: str) -> bool: ...


_SCHEDULERS: dict[System, _Scheduler] = {"windows": windows, "systemd": systemd, "launchd": launchd, "cron": cron}


def system_here() -> System:
    """The scheduler of this machine; on Linux without a running systemd, cron."""
    if sys.platform == "win32":
        return "windows"
    if sys.platform == "darwin":
        return "launchd"
    return "systemd" if Path("/run/systemd/system").is_dir() else "cron"


def schedule(
    settings: Settings,
    every: Every,
    at: str,
    *,
    kind: Kind = "sql",
    weekday: Weekday = "sunday",
    options: Sequence[str] = (),
    system: System | None = None,
    install: bool = False,
) -> ScheduleReport:
    """Describe the job, and with `install` register it: once more with the same words changes nothing. That it is in
    place of an earlier one of its name is the first of the notes.

    `options` are those of the command `backup`. Raises ConfigurationError, ScheduleFailed or StoreError.
    """
    system = system or system_here()
    job, scheduler = job_for(settings, every, at, kind=kind, weekday=weekday, options=options), _SCHEDULERS[system]
    files, notes = scheduler.files(job), scheduler.notes(job)
    if install:
        if system != system_here() and system != "cron":
            raise ScheduleFailed(f"This machine has no {system}.", f"Leave out --system: here it is {system_here()}.")
        require_runnable(job)
        with _files_of(system):
            replaced = scheduler.install(job)
        if replaced:
            notes.insert(0, REPLACED)
    elsewhere = [] if system == system_here() else ["Its paths are those of this machine."]
    return ScheduleReport(
        system=system,
        name=job.name,
        action="installed" if install else "printed",
        files=files,
        commands=[] if install else scheduler.commands(job.name),
        notes=[*notes, *elsewhere],
    )


def unschedule(name: str, *, system: System | None = None) -> ScheduleReport:
    """Take the job of this name out, as `job_name` gives it. Raises ConfigurationError or ScheduleFailed."""
    require_job_name(name)
    system = system or system_here()
    with _files_of(system):
        removed = _SCHEDULERS[system].remove(name)
    return ScheduleReport(system=system, name=name, action="removed" if removed else "nothing to remove")


@contextmanager
def _files_of(system: System) -> Generator[None]:
    """What a scheduler's files and directories refuse, as ScheduleFailed."""
    try:
        yield
    except OSError as error:
        where = f" of {error.filename}" if error.filename else ""
        raise ScheduleFailed(
            f"The files of {system} can't be changed{where}: {error.strerror or error}.",
            "Mend that, and call it again: it does what is left to do.",
        ) from error


def without_console() -> None:
    """Give a process without standard streams, as pythonw.exe is on Windows, streams that lead nowhere."""
    nowhere = Path(os.devnull)
    sys.stdout = sys.stdout or nowhere.open("w", encoding="utf-8")
    sys.stderr = sys.stderr or nowhere.open("w", encoding="utf-8")
