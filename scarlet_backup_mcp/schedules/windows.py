"""Windows Task Scheduler: a task as XML for schtasks.

The elements are those of [MS-TSCH] 2.5 ("XML Task Definition Language"). Not tried on Windows.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from ..errors import ConfigurationError
from .job import LONGEST_RUN_HOURS, ScheduledJob, require_success
from .report import JobFile

NAMESPACE = "http://schemas.microsoft.com/windows/2004/02/mit/task"
FIRST_DAY = "2026-01-01"
"""Only its time of day matters; it is in the past, so that the task is active at once."""
NOT_FOUND = 0x80070002
"""Exit code with /HRESULT if there is no such task. Without /HRESULT it is always 1, and the message is translated."""


def files(job: ScheduledJob) -> list[JobFile]:
    """Return the task, whose file has to be UTF-16, as its declaration says."""
    for argument in job.argv:
        if re.search(r"%[A-Za-z_][^%]*%|\$\(", argument):
            raise ConfigurationError(
                f"Task Scheduler would expand a part of {argument!r} as a variable.",
                "Use a path or value without %…% and $(…).",
            )
    return [JobFile(path=f"{job.name}.xml", text=_task(job))]


def commands(name: str) -> list[str]:
    """Return the command that registers the file by hand."""
    return [f"schtasks /Create /TN {name} /XML {name}.xml /F"]


def notes(job: ScheduledJob) -> list[str]:
    """Return what the user should know about this task."""
    notes = [
        "A missed run is made up for as soon as the machine is on and you are logged in (StartWhenAvailable).",
        "Like Docker Desktop, it runs while you are logged in; also on battery, and without a window.",
        f'Save {job.name}.xml as UTF-16 (Notepad\'s "UTF-16 LE") if you register it by hand.',
    ]
    if job.environment:
        names = ", ".join(job.environment)
        notes.append(f"A task only sees your account's variables: set {names} there, too (setx).")
    return notes


def install(job: ScheduledJob) -> bool:
    """Register the task; tell whether it replaced one of that name. Raises ScheduleFailed."""
    there = registered(job.name)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / f"{job.name}.xml"
        path.write_bytes(files(job)[0].text.encode("utf-16"))
        require_success([_schtasks(), "/Create", "/TN", job.name, "/XML", str(path), "/F"])
    return there


def registered(name: str) -> bool:
    """Tell whether there is a task of that name. Raises ScheduleFailed."""
    return require_success([_schtasks(), "/Query", "/TN", name, "/HRESULT"], or_codes=[NOT_FOUND])


def remove(name: str) -> bool:
    """Delete the task; False if there is none. Raises ScheduleFailed."""
    there = registered(name)
    if there:
        require_success([_schtasks(), "/Delete", "/TN", name, "/F"])
    return there


def _task(job: ScheduledJob) -> str:
    task = ElementTree.Element("Task", version="1.2", xmlns=NAMESPACE)
    _add(task, "RegistrationInfo", {"Description": job.description})
    trigger = _add(_add(task, "Triggers"), "CalendarTrigger", {"StartBoundary": f"{FIRST_DAY}T{job.at:%H:%M}:00"})
    if job.weekday is None:
        _add(trigger, "ScheduleByDay", {"DaysInterval": "1"})
    else:
        weekly = _add(trigger, "ScheduleByWeek", {"WeeksInterval": "1"})
        _add(weekly, "DaysOfWeek", {job.weekday.capitalize(): ""})
    principal = _add(
        _add(task, "Principals"), "Principal", {"LogonType": "InteractiveToken", "RunLevel": "LeastPrivilege"}
    )
    principal.set("id", "Author")
    settings = {
        "MultipleInstancesPolicy": "IgnoreNew",
        "DisallowStartIfOnBatteries": "false",
        "StopIfGoingOnBatteries": "false",
        "StartWhenAvailable": "true",
        "ExecutionTimeLimit": f"PT{LONGEST_RUN_HOURS}H",
    }
    _add(task, "Settings", settings)
    actions = _add(task, "Actions")
    actions.set("Context", "Author")
    _add(actions, "Exec", {"Command": job.argv[0], "Arguments": subprocess.list2cmdline(job.argv[1:])})
    ElementTree.indent(task)
    return '<?xml version="1.0" encoding="UTF-16"?>\n' + ElementTree.tostring(task, encoding="unicode") + "\n"


def _add(parent: ElementTree.Element, name: str, texts: dict[str, str] | None = None) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, name)
    for grandchild, text in (texts or {}).items():
        ElementTree.SubElement(child, grandchild).text = text or None
    return child


def _schtasks() -> str:
    return os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "schtasks.exe")
