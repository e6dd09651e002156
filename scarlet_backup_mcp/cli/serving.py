"""The command that serves MCP. It imports no other command, since their procedures take long and hosts wait for it."""

from __future__ import annotations

from typing import Any

import click

from ..errors import ConfigurationError
from ..settings import load_settings
from .command import Command
from .common_options import serving_options, settings_options


@click.command(cls=Command)
@serving_options
@settings_options
def serve(**common: Any) -> None:
    """Serve MCP over stdio, for an agent or an inspector."""
    from ..server.stdio import serve as serve_stdio  # takes most of a second to import: not for the other commands

    try:
        settings = load_settings(**{name.removeprefix("setting_"): value for name, value in common.items()})
    except ConfigurationError as error:
        settings = error
    serve_stdio(settings)
