"""The face for people and schedulers: every command by its name. A command is imported when it is used."""

from __future__ import annotations

import sys
from importlib import import_module

import click
from click.shell_completion import add_completion_class

from .. import __version__
from .powershell import PowerShellComplete

SERVES = """\
This is an MCP server: a client like Claude Code starts it and talks to it.
At a terminal, type for example
  scarlet-backup-mcp list            which backups there are
  scarlet-backup-mcp backup          make one
  scarlet-backup-mcp restore latest  bring back the newest one, after a question
  scarlet-backup-mcp --help          all commands"""
IMPOSSIBLE = 2


_COMMANDS = {
    "backup": ("procedure_commands.backup", "Take a backup (PROC-004 steps 1 to 4)."),
    "verify": ("procedure_commands.verify_", "Check a backup (PROC-004 step 4)."),
    "repair": ("procedure_commands.repair_", "Write a clean copy of a backup that PowerShell re-encoded."),
    "list": ("procedure_commands.list_", "Show the backups and undo points there are, newest first."),
    "restore": ("procedure_commands.restore", "Bring the database, or the whole volume, back from a backup."),
    "prune": ("procedure_commands.prune_", "Remove the backups that retention no longer keeps."),
    "keep": ("procedure_commands.keep_", "Mark BACKUP so that retention never removes it."),
    "gate": ("procedure_commands.gate_", "Whether PROC-003 may go ahead now, for use in scripts."),
    "integrity": ("procedure_commands.integrity_", "Check container, server and database (PROC-004 step 5)."),
    "schedule": ("schedule_command.schedule_", "Print or register a scheduled job that makes backups."),
    "serve": ("serving.serve", "Serve MCP over stdio, for an agent or an inspector."),
    "doctor": ("setup_commands.doctor_", "Look at all that a backup needs here, and say what to do."),
    "init": ("setup_commands.init_", "Add this server to the MCP clients of this machine."),
    "settings": ("serving.settings_", "List the settings that every command takes."),
    "completion": ("completion.completion", "Print the script that makes a shell complete commands and names."),
    "demo": ("setup_commands.demo", "Show backup, loss and restore on an embedded PostgreSQL."),
}
"""Where each command is, and what help and completion say about it."""


class Commands(click.Group):
    """The group of all commands. Help and completion need no more of them than their names and a line of help."""

    def load(self, name: str) -> click.Command:
        """Import a command."""
        module, _, function = _COMMANDS[name][0].partition(".")
        command: click.Command = getattr(import_module(f".{module}", __package__), function)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the words name, and import it."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else self.load(name), rest


add_completion_class(PowerShellComplete)


@click.group(cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="scarlet-backup-mcp")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Back up, verify and restore Scarlet's PostgreSQL memory. Without a command: serve MCP over stdio."""
    if ctx.invoked_subcommand == "serve":
        return
    if ctx.invoked_subcommand is not None:
        from ..logs import log_to_stderr

        log_to_stderr("%(levelname)s %(name)s: %(message)s")
    elif sys.stdin.isatty():
        click.echo(SERVES, err=True)
        ctx.exit(IMPOSSIBLE)
    else:
        from .serving import serve

        ctx.invoke(serve)


for _name, (_, _help) in _COMMANDS.items():
    main.add_command(click.Command(_name, short_help=_help))
