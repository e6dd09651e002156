"""`completion`: what a shell needs to complete commands, options and the names of backups.

click writes the scripts for bash, zsh and fish, and answers them; PowerShell's is here.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import click
from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, get_completion_class

from ..errors import BackupToolError
from ..limits import within
from ..procedures.context import BackupContext
from .command import Command
from .next_command import PROGRAM
from .runner import settings_of

_VARIABLE = "_SCARLET_BACKUP_MCP_COMPLETE"
"""click's name for the variable by which a script asks for completions."""
_SECONDS = 2.0
"""How long somebody who pressed Tab waits for an engine to say where the backups are."""


class PowerShellComplete(ShellComplete):
    """Completion for Windows PowerShell 5.1 and PowerShell 7, with the protocol of click's own for fish."""

    name = "powershell"
    source_template = r"""
Register-ArgumentCompleter -Native -CommandName %(prog_name)s -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $env:COMP_WORDS = ($commandAst.CommandElements | ForEach-Object { $_.ToString() }) -join "`n"
    $env:COMP_CWORD = $wordToComplete
    $env:%(complete_var)s = "powershell_complete"
    try {
        %(prog_name)s | Where-Object { $_ } | ForEach-Object {
            $word, $help = $_ -split "`t", 2
            if (-not $help) { $help = $word }
            if ($word -match "\s") { $word = "'$word'" }
            [System.Management.Automation.CompletionResult]::new($word, $word, "ParameterValue", $help)
        }
    }
    finally {
        Remove-Item Env:COMP_WORDS, Env:COMP_CWORD, Env:%(complete_var)s -ErrorAction SilentlyContinue
    }
}
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one to complete, and that one."""
        words = os.environ["COMP_WORDS"].split("\n")[1:]
        incomplete = os.environ.get("COMP_CWORD", "")
        if incomplete and words and words[-1] == incomplete:
            words.pop()
        return words, incomplete

    def format_completion(self, item: CompletionItem) -> str:
        """Write a completion as the script reads it; nothing for a path, which PowerShell completes by itself."""
        return f"{item.value}\t{item.help or ''}" if item.type == "plain" else ""


add_completion_class(PowerShellComplete)


def backup_names(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a backup: newest first, then `latest`."""
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
