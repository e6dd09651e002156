"""`completion`: what a shell needs to complete commands, options and the names of backups.

click writes the scripts for bash, zsh and fish, and answers them; PowerShell's is in `powershell`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from ..errors import BackupToolError
from ..limits import within
from .command import Command
from .next_command import PROGRAM
from .runner import settings_of

_VARIABLE = "_SCARLET_BACKUP_MCP_COMPLETE"
"""click's name for the variable by which a script asks for completions."""
_SECONDS = 2.0
"""How long somebody who pressed Tab waits for an engine to say where the backups are."""


def backup_names(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a backup: newest first, then `latest`."""
    from ..procedures.context import BackupContext

    options: dict[str, Any] = {name: value for name, value in ctx.params.items() if name.startswith("setting_")}

    def names() -> list[str]:
        with BackupContext(settings_of(options)) as context:
            found = [entry.name for entry in context.directory.entries()]
        return [of.name for of in sorted(found, key=lambda of: (str(of.stamp or ""), of.name), reverse=True)]

    there: list[str] = []
    with suppress(BackupToolError):
        there = within(_SECONDS, names) or []
    return [CompletionItem(name) for name in (*there, "latest") if name.startswith(incomplete)]


@click.command("completion", cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish", "powershell"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete commands, options and backups' names.

    \b
    bash, in ~/.bashrc:      eval "$(scarlet-backup-mcp completion bash)"
    zsh, in ~/.zshrc:        eval "$(scarlet-backup-mcp completion zsh)"
    fish:                    scarlet-backup-mcp completion fish > ~/.config/fish/completions/scarlet-backup-mcp.fish
    PowerShell, in $PROFILE: scarlet-backup-mcp completion powershell | Out-String | Invoke-Expression
    """
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(ctx.find_root().command, {}, PROGRAM, _VARIABLE).source().strip())
