"""Options that commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import click

from ..models.common import CodePage
from ..settings import PREFIX, SECRET, SERVING, Settings

MOST_LISTED = 1000
"""How many backups a list shows at most."""
F = TypeVar("F", bound=Callable[..., Any])


def settings_options(command: F) -> F:
    """Add an option for each setting."""
    for name in reversed(Settings.model_fields):
        if name not in (*SERVING, *SECRET):
            command = _option(name)(command)
    return command


def serving_options(command: F) -> F:
    """Add the options of the MCP server alone."""
    for name in reversed(SERVING):
        command = _option(name)(command)
    return command


def _option(name: str) -> Callable[[F], F]:
    field = Settings.model_fields[name]
    default = "" if field.default in (None, "", False) else f"; default: {_spelled(field.default)}"
    flag: dict[str, Any] = {"is_flag": True, "default": None} if name == "read_only" else {}
    return click.option(
        f"--{name.replace('_', '-')}",
        f"setting_{name}",
        type=None if flag else _type_of(field.annotation),
        help=f"{field.description} [{PREFIX}{name.upper()}{default}]",
        **flag,
    )


def _type_of(annotation: Any) -> Any:
    """Return how the command line reads a setting. What is allowed is for `Settings` to say."""
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation))
    for kind, read in ((bool, click.BOOL), (int, click.INT), (Path, click.Path())):
        if annotation is kind or kind in get_args(annotation):
            return read
    return click.STRING


def _spelled(default: object) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


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
