"""The scheduled job: described, or registered and removed with a line in the audit log like any call."""

from __future__ import annotations

from ...models.audit import Client
from ...models.common import BackupLevel, Compression, Kind
from ...schedules import Every, ScheduleReport, System, Weekday, job_name, schedule, unschedule
from ...settings import Settings
from ..context import BackupContext
from . import calls


def schedule_backups(
    settings: Settings,
    client: Client,
    *,
    every: Every,
    at: str,
    weekday: Weekday | None,
    kind: Kind,
    compression: Compression | None,
    verify: BackupLevel,
    prune: bool,
    system: System | None,
    install: bool = False,
    remove: bool = False,
    job: str | None = None,
) -> ScheduleReport:
    """Describe the job that makes backups with these options of `backup`, of the container and database that are found
    now; `install` registers it, `remove` takes out the one of these settings or named `job`. Raises what `schedules`
    raises."""
    name, day = job or job_name(settings, every, kind), weekday or "sunday"
    options = [f"--verify={verify}", *([f"--compression={compression}"] if compression else [])]
    options += ["--prune"] if prune else []

    def work(context: BackupContext) -> ScheduleReport:
        if remove:
            return unschedule(name, system=system)
        found = [f"--{setting}={value}" for setting, value in context.found.items()]
        own = [*options, *found]
        made = schedule(settings, every, at, kind=kind, weekday=day, options=own, system=system, install=install)
        if found:
            made.notes.append(f"The job names what was found, so that it means no other server: {' '.join(found)}.")
        return made

    arguments: dict[str, object] = {"job": name, "remove": remove, "system": system}
    if not remove:
        arguments |= {"every": every, "at": at, "weekday": day if every == "weekly" else None, "kind": kind}
        arguments |= {"compression": compression, "verify": verify, "prune": prune}
    with BackupContext(settings) as context:
        if not (install or remove):
            return work(context)
        return calls.call(context, "schedule", arguments, client, lambda _: work(context))
