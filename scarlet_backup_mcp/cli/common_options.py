"""Options that commands share, and the command that a scheduler runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args, get_origin

import click

from ..errors import ConfigurationError
from ..models.common import CodePage
from ..settings import PREFIX, SERVING, Settings
from .runner import Call

F = TypeVar("F", bound=Callable[..., Any])


def settings_options(command: F) -> F:
    """Add an option for each setting."""
    for name, field in reversed(Settings.model_fields.items()):
        if name in SERVING:
            continue
        choice = click.Choice(get_args(field.annotation)) if get_origin(field.annotation) is Literal else str
        help_text = f"{field.description} [{PREFIX}{name.upper()}]"
        command = click.option(f"--{name.replace('_', '-')}", f"setting_{name}", type=choice, help=help_text)(command)
    return command


def serving_options(command: F) -> F:
    """Add the options of the MCP server alone."""
    for name in reversed(SERVING):
        help_text = f"{Settings.model_fields[name].description} [{PREFIX}{name.upper()}]"
        flag: dict[str, Any] = {"is_flag": True, "default": None} if name == "read_only" else {}
        command = click.option(f"--{name.replace('_', '-')}", f"setting_{name}", help=help_text, **flag)(command)
    return command


def output_options(command: F) -> F:
    """Add --json and --quiet."""

    command = click.option("--json", "as_json", is_flag=True, help="The whole result as JSON on stdout.")(command)
    return click.option("--quiet", is_flag=True, help="No progress on stderr.")(command)


def code_page_option(command: F) -> F:
    """Add --code-page."""

    def number(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
        return None if value is None else int(value)

    return click.option(
        "--code-page",
        type=click.Choice([str(page) for page in get_args(CodePage)]),
        callback=number,
        help="For a PowerShell-made file whose code page is ambiguous: the one whose sample words are right.",
    )(command)


class Schedulable(click.Command):
    """A command whose wrong command line sounds the alarm if a scheduler started it: nobody reads its usage there."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Make the context as `click.Command` does, and sound the alarm if a scheduled command line is wrong."""
        given = list(args)
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            extra |= {"resilient_parsing": True, "ignore_unknown_options": True, "allow_extra_args": True}
            found = super().make_context(info_name, given, parent, **extra).params
            if found.get("scheduled"):
                wrong = ConfigurationError(
                    f"The command line of the job {found['scheduled']} is wrong: {error.format_message()}",
                    "`scarlet-backup-mcp schedule --install` writes it again.",
                )
                Call("backup", scheduled=True).sound(wrong, found)
            raise
