"""The command that serves MCP, and the one that lists its settings."""

from __future__ import annotations

from typing import Any

import click

from ..errors import ConfigurationError
from ..settings import load_settings
from .command import Command, is_setting
from .common_options import serving_options, settings_options


@click.command(cls=Command)
@serving_options
@settings_options
def serve(**common: Any) -> None:
    """Serve MCP over stdio, for an agent or an inspector."""
    from ..server.stdio import serve as serve_stdio

    try:
        settings = load_settings(**{name.removeprefix("setting_"): value for name, value in common.items()})
    except ConfigurationError as error:
        settings = error
    serve_stdio(settings)


@click.command("settings", cls=Command)
@click.pass_context
def settings_(ctx: click.Context) -> None:
    """List the settings that every command takes."""
    formatter = ctx.make_formatter()
    options = filter(is_setting, serve.get_params(ctx))
    formatter.write_dl([record for it in options if (record := it.get_help_record(ctx)) is not None])
    click.echo(formatter.getvalue(), nl=False)
