"""Scheduled backups: jobs for the system's own scheduler, printed or registered.

`schedule` describes a job, and with `install` registers it in place of an earlier one of its name; `unschedule` removes
it. A run appends its result to the audit log of the backup directory, and `store.audit.last_runs` returns the last
runs of each job.
"""

from __future__ import annotations

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
    "registered",
    "require_runnable",
    "schedule",
    "system_here",
    "unschedule",
]


REPLACED = (
    "It replaces the earlier job of this name. A job for another database, directory, kind (--kind) or period "
    "(--daily, --weekly) has its own name."
)


class _Scheduler(Protocol):
    def files(self, job: ScheduledJob) -> list[JobFile]: ...
    def commands(self, name: str) -> list[str]: ...
    def notes(self, job: ScheduledJob) -> list[str]: ...
    def install(self, job: ScheduledJob) -> bool: ...
    def registered(self, name: str) -> bool: ...
    def remove(self, name: str) -> bool: ...


_SCHEDULERS: dict[System, _Scheduler] = {"windows": windows, "systemd": systemd, "launchd": launchd, "cron": cron}


def system_here() -> System:
    """Return the scheduler of this machine; cron on Linux without a running systemd."""
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
    """Describe the job, and with `install` register it; registering the same job again changes nothing.

    If it replaces an earlier one of its name, the first note says so. `options` are those of the command `backup`.
    Raises ConfigurationError, ScheduleFailed or StoreError.
    """
    system = system or system_here()
    job, scheduler = job_for(settings, every, at, kind=kind, weekday=weekday, options=options), _SCHEDULERS[system]
    files, notes = scheduler.files(job), scheduler.notes(job)
    if install:
        if system != system_here() and system != "cron":
            raise ScheduleFailed(f"This machine has no {system}.", f"Leave out --system to use {system_here()}.")
        require_runnable(job)
        with _files_of(system):
            replaced = scheduler.install(job)
        if replaced:
            notes.insert(0, REPLACED)
    elsewhere = [] if system == system_here() else ["The paths in it are those of this machine."]
    return ScheduleReport(
        system=system,
        name=job.name,
        action="installed" if install else "printed",
        files=files,
        commands=[] if install else scheduler.commands(job.name),
        notes=[*notes, *elsewhere],
    )


def unschedule(name: str, *, system: System | None = None) -> ScheduleReport:
    """Remove the job of this name (see `job_name`). Raises ConfigurationError or ScheduleFailed."""
    require_job_name(name)
    system = system or system_here()
    with _files_of(system):
        removed = _SCHEDULERS[system].remove(name)
    return ScheduleReport(system=system, name=name, action="removed" if removed else "nothing to remove")


def registered(name: str) -> bool:
    """Tell whether this machine's scheduler has a job of this name. Raises ScheduleFailed."""
    return _SCHEDULERS[system_here()].registered(name)


@contextmanager
def _files_of(system: System) -> Generator[None]:
    """Turn an OSError of the scheduler's files and directories into ScheduleFailed."""
    try:
        yield
    except OSError as error:
        where = f" of {error.filename}" if error.filename else ""
        raise ScheduleFailed(
            f"The files of {system} can't be changed{where}: {error.strerror or error}.",
            "Fix that, then run it again: it does the rest.",
        ) from error
