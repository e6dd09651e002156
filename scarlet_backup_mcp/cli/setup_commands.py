"""The commands that set this tool up on a machine, or show it: `doctor`, `init` and `demo`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..clients.known import KEYS, clients
from ..errors import BackupToolError, ClientFileError
from ..limits import within
from ..progress import Progress
from ..redaction import printable, printable_json
from ..settings import Settings
from .command import Command
from .common_options import output_options, serving_options, settings_options
from .runner import BAD, ask, errors, settings_of
from .setting_names import as_used

if TYPE_CHECKING:
    from ..clients.change import Change
    from ..models.setup import SetupCheck

_workspace = click.option(
    "--workspace",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    help="Directory of the project whose clients are meant. [default: the current one]",
)


@click.command("doctor", cls=Command)
@click.option("--fix", is_flag=True, help="Make the backup directory and close it to other users; nothing else.")
@_workspace
@output_options
@settings_options
def doctor_(fix: bool, workspace: Path, as_json: bool, quiet: bool, **common: Any) -> None:
    """Look at all that a backup needs here, and say what to do. Exit code 1: something fails."""
    from ..procedures.context import BackupContext
    from ..procedures.doctor import doctor
    from .bar import PipedProgress
    from .rendering import print_lines

    with errors(as_json), BackupContext(settings_of(common)) as context, PipedProgress(quiet) as progress:
        report = doctor(context, progress, workspace.resolve(), fix=fix)
    if as_json:
        click.echo(printable_json(report.model_dump_json(indent=1)))
    else:
        print_lines("\n".join(map(_line, report.checks)))
    sys.exit(0 if report.good else BAD)


@click.command("init", cls=Command)
@click.option("--client", "keys", type=click.Choice(KEYS), multiple=True, help="[default: those found here]")
@_workspace
@click.option("--remove", is_flag=True, help="Take the entry out again.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@serving_options
@settings_options
def init_(keys: tuple[str, ...], workspace: Path, remove: bool, yes: bool, **common: Any) -> None:
    """Add this server to the MCP clients of this machine, with the settings given here, after showing the changes."""
    from ..clients.change import propose, propose_removal
    from ..clients.entry import entry_for

    with errors(as_json=False):
        settings = settings_of(common)
        found = [
            client
            for client in clients(workspace.resolve(), os.environ)
            if client.key in keys or (not keys and (client.there or remove))
        ]
        if not remove:
            _show_server(settings)
        changes: list[Change] = []
        for client in found:
            if remove:
                changes.append(propose_removal(client))
            else:
                entry = entry_for(settings, os.environ, shared=client.for_project, typed=client.typed)
                changes.append(propose(client, entry))
        wanted = [change for change in changes if change.action not in ("none", "by hand")]
        by_hand = [change for change in changes if change.action == "by hand"]
        for change in changes:
            _show(change, quiet=remove and not keys)
        if not found:
            click.echo(f"No MCP client was found here. Name one with --client: {', '.join(KEYS)}.")
        elif not wanted and not by_hand:
            click.echo("There is nothing to change.")
        if wanted:
            if not yes:
                ask(Progress(), lambda: None, "Make these changes?")
            failed = [change for change in wanted if not _make(change)]
            if len(failed) < len(wanted):
                click.echo("Restart the clients, or reload their MCP servers, so that they see it.")
            by_hand += failed
    sys.exit(BAD if by_hand or not found else 0)


@click.command(cls=Command)
def demo() -> None:
    """Show backup, loss and restore on an embedded PostgreSQL, through the MCP server. Needs no Docker."""
    with errors(as_json=False):
        from .demo.show import show

        sys.exit(0 if show() else BAD)


def _show_server(settings: Settings) -> None:
    """Say which server these settings lead to, or why to none: a client would find it out only later."""
    from ..procedures.context import ENGINE_SECONDS, BackupContext
    from .rendering import print_on_stderr

    with BackupContext(settings) as context:
        try:
            if settings.via == "docker":
                within(ENGINE_SECONDS, lambda: context.container_info)
            click.echo(printable(f"With these settings: {context.about}."))
        except BackupToolError as error:
            print_on_stderr(as_used(f"With these settings no server is found yet: {error.message} {error.remedy}"))


def _line(check: SetupCheck) -> str:
    head = f"{check.status}{' (fixed)' if check.fixed else ''}: {check.check}: {check.message}"
    return f"{head} {check.remedy}".rstrip()


def _show(change: Change, *, quiet: bool) -> None:
    head = f"{change.client.title}: {change.path}"
    if change.action == "none":
        if not quiet:
            click.echo(printable(f"{head}: unchanged, {change.why}."))
    elif change.action == "by hand":
        click.echo(printable(f"{head}: not touched, because {change.why}. By hand:\n\n{change.snippet}"))
    elif change.after is None:
        click.echo(printable(f"{head}: the file goes, because nothing else is in it."))
    else:
        click.echo(f"{printable(head)}:\n{change.diff}")


def _make(change: Change) -> bool:
    """Make a change and say so, or why it failed."""
    from ..clients.change import apply
    from .rendering import print_on_stderr

    title = change.client.title
    try:
        kept = apply(change)
    except ClientFileError as error:
        print_on_stderr(as_used(f"{title}: {error.message} {error.remedy}"))
        return False
    done = {"add": "added to", "update": "updated in", "remove": "taken out of"}[change.action]
    copy = f" The file as it was: {kept}" if kept else ""
    click.echo(printable(f"{title}: {done} {change.path}.{copy}"))
    return True
