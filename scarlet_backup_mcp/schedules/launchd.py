"""launchd: a property list in the user's LaunchAgents (launchd.plist(5), launchctl(1))."""

from __future__ import annotations

import os
import plistlib
import time
from pathlib import Path

from platformdirs import user_log_path

from ..store.writing import write_atomically
from .job import ScheduledJob, ScheduleFailed, require_success, run_program
from .report import JobFile

WEEKDAYS = {"sunday": 0, "monday": 1, "tuesday": 2, "wednesday": 3, "thursday": 4, "friday": 5, "saturday": 6}
TRIES = 5
"""`bootout` returns before the old job is gone."""
NOT_LOADED = (3, 113)
"""Exit codes of `bootout` for a job that does not exist: "No such process", on older systems "Could not find specified
service". Others, such as 5 or 36 ("Operation now in progress"), do not mean that it is gone."""


def path_of(name: str) -> Path:
    """Return the path of the job's property list."""
    return Path.home() / "Library" / "LaunchAgents" / f"{name}.plist"


def files(job: ScheduledJob) -> list[JobFile]:
    """Return the job's property list."""
    when = {"Hour": job.at.hour, "Minute": job.at.minute}
    log = str(_log(job.name))
    content: dict[str, object] = {
        "Label": job.name,
        "ProgramArguments": list(job.argv),
        "StartCalendarInterval": {**when, "Weekday": WEEKDAYS[job.weekday]} if job.weekday else when,
        "StandardOutPath": log,
        "StandardErrorPath": log,
        "Umask": 0o077,
    }
    if job.environment:
        content["EnvironmentVariables"] = dict(job.environment)
    return [JobFile(path=str(path_of(job.name)), text=plistlib.dumps(content, sort_keys=False).decode())]


def commands(name: str) -> list[str]:
    """Return the commands that register the file by hand."""
    return [f"mkdir -p '{_log(name).parent}'", f"launchctl bootstrap gui/$(id -u) '{path_of(name)}'"]


def notes(job: ScheduledJob) -> list[str]:
    """Return what the user should know about launchd jobs."""
    return [
        "A run missed while the Mac slept is made up for when it wakes; one missed while it was off is not.",
        "It runs while you are logged in, even in the background.",
        f"The output of a run is in {_log(job.name)}.",
    ]


def install(job: ScheduledJob) -> bool:
    """Write the file and load it; tell whether it replaced another one. Raises ScheduleFailed or StoreError."""
    path, content = path_of(job.name), files(job)[0].text.encode()
    before = path.read_bytes() if path.exists() else None
    _log(job.name).parent.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_atomically(path, content)
        run_program(["launchctl", "bootout", f"{_domain()}/{job.name}"])
        require_success(["launchctl", "enable", f"{_domain()}/{job.name}"])
        _bootstrap(path)
    except BaseException:
        path.unlink(missing_ok=True)
        if before is not None:
            write_atomically(path, before)
            run_program(["launchctl", "bootstrap", _domain(), str(path)])
        raise
    return before not in (None, content)


def registered(name: str) -> bool:
    """Tell whether there is a property list of that name."""
    return path_of(name).exists()


def remove(name: str) -> bool:
    """Unload the job and remove its file; False if there is none. Raises ScheduleFailed, with the file in place, if it
    may still be loaded."""
    unloaded = require_success(["launchctl", "bootout", f"{_domain()}/{name}"], or_codes=NOT_LOADED)
    there = path_of(name).exists()
    path_of(name).unlink(missing_ok=True)
    return there or unloaded


def _bootstrap(path: Path) -> None:
    for left in reversed(range(TRIES)):
        try:
            require_success(["launchctl", "bootstrap", _domain(), str(path)])
            return
        except ScheduleFailed:
            if not left:
                raise
            time.sleep(1)


def _domain() -> str:
    return f"gui/{os.getuid()}"


def _log(name: str) -> Path:
    return user_log_path("scarlet-backup-mcp", appauthor=False) / f"{name}.log"
