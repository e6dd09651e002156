"""`schedule`: a job of the system's scheduler that makes backups."""

from __future__ import annotations

from typing import Any, get_args

import click

from ..models.common import BackupLevel, Compression, Kind
from ..schedules import Every, System, Weekday, lines
from .command import Command
from .common_options import settings_options
from .next_command import written
from .runner import Call, errors, settings_of

_OPTIONS = {"every": "--daily and --weekly", "kind": "--kind"}


@click.command("schedule", cls=Command)
@click.option("--daily", "every", flag_value="daily", default="daily", help="One run a day. [default]")
@click.option("--weekly", "every", flag_value="weekly", help="One run a week.")
@click.option("--at", default="03:30", show_default=True, help="HH:MM, local time.")
@click.option("--weekday", type=click.Choice(get_args(Weekday)), help="With --weekly. [default: sunday]")
@click.option("--system", type=click.Choice(get_args(System)), help="[default: this machine's]")
@click.option("--install", is_flag=True, help="Register the job, in place of an earlier one.")
@click.option("--remove", is_flag=True, help="Take the job out.")
@click.option("--job", help="With --remove: the job of this name, whatever settings it was made with.")
@click.option("--kind", type=click.Choice(get_args(Kind)), default="sql", show_default=True)
@click.option("--compression", type=click.Choice(get_args(Compression)))
@click.option("--verify", type=click.Choice(get_args(BackupLevel)), default="auto", show_default=True)
@click.option("--prune/--no-prune", default=True, show_default=True, help="Retention after each run.")
@click.option("--json", "as_json", is_flag=True, help="The whole result as JSON on stdout.")
@settings_options
def schedule_(
    every: Every,
    at: str,
    weekday: Weekday | None,
    system: System | None,
    install: bool,
    remove: bool,
    job: str | None,
    kind: Kind,
    compression: Compression | None,
    verify: BackupLevel,
    prune: bool,
    as_json: bool,
    **common: Any,
) -> None:
    """Print a job of the system's scheduler that takes backups, or register it."""
    from ..procedures.audit.scheduling import schedule_backups
    from ..store.names import SUFFIXES

    if job is not None and not remove:
        raise click.UsageError("--job requires --remove.")
    if install and remove:
        raise click.UsageError("--install and --remove can't be combined.")
    if weekday is not None and every != "weekly":
        raise click.UsageError("--weekday requires --weekly.")
    if job is not None and (named := [name for name in ("every", "kind") if name in written()]):
        raise click.UsageError(f"--job names the job; leave out {' and '.join(_OPTIONS[name] for name in named)}.")
    if compression is not None and (kind, compression) not in SUFFIXES:
        raise click.UsageError(f"A backup of kind {kind} can't have compression {compression}.")
    with errors(as_json):
        report = schedule_backups(
            settings_of(common),
            Call("schedule").client,
            every=every,
            at=at,
            weekday=weekday,
            kind=kind,
            compression=compression,
            verify=verify,
            prune=prune,
            system=system,
            install=install,
            remove=remove,
            job=job,
        )
        click.echo(report.model_dump_json(indent=1) if as_json else "\n".join(lines(report)))
