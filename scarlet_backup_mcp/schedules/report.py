"""The result of `schedule`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..models.common import Model

System = Literal["windows", "systemd", "launchd", "cron"]


class JobFile(Model):
    """A scheduler's file, or lines of it."""

    path: str
    text: str


class ScheduleReport(Model):
    """The result of `schedule`."""

    system: System
    name: str
    action: Literal["printed", "installed", "removed", "nothing to remove"]
    files: list[JobFile] = Field(default=[])
    commands: list[str] = Field(default=[], description="Commands that register the files by hand.")
    notes: list[str] = Field(default=[])


def lines(report: ScheduleReport) -> list[str]:
    """Format a report for people."""
    head = f"{report.name} ({report.system}): {report.action}."
    shown = [] if report.action == "installed" else [f"--- {file.path} ---\n{file.text}" for file in report.files]
    by_hand = ["To register it by hand:", *report.commands] if report.commands else []
    return [head, *shown, *by_hand, *report.notes]
