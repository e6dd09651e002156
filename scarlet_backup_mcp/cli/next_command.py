"""A call that would help, as a command line that can be pasted."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
from click.core import ParameterSource

from ..errors import NextCall
from ..redaction import HIDDEN

if TYPE_CHECKING:
    from .commands import Commands

COMMANDS = {"list_backups": "list", "verify_backup": "verify", "prune_backups": "prune", "db_integrity": "integrity"}
"""The commands whose names are not those of their tools."""
PROGRAM, MODULE = "scarlet-backup-mcp", "scarlet_backup_mcp"
_OF_ONE_RUN = ("as_json", "quiet", "scheduled")


def given() -> dict[str, Any]:
    """The arguments that were written on the present command line, but for its settings."""
    return {name: value for name, value in written().items() if not name.startswith("setting_")}


def command_line(call: NextCall) -> str:
    """Write the call as a command, with the settings of the present command line. Secrets are left out."""
    group = cast("Commands", click.get_current_context().find_root().command)
    name = COMMANDS.get(call.tool, call.tool)
    settings = {name: value for name, value in written().items() if name.startswith("setting_")}
    if "setting_dsn" in settings:
        settings["setting_dsn"] = HIDDEN
    words = [*program(), name, *_spelled(group.load(name), {**call.arguments, **settings})]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def program() -> list[str]:
    """Return the words that start this program as it was started: as a module, by its path, or by its name if that is
    the one on PATH."""
    words = sys.orig_argv
    for number, pair in enumerate(pairwise(words)):
        if pair == ("-m", MODULE):
            return words[: number + 2]
    typed, found = sys.argv[0], shutil.which(PROGRAM)
    if Path(typed).stem != PROGRAM or (found is not None and _whole(found) == _whole(typed)):
        return [PROGRAM]
    return [typed]


def _whole(path: str) -> Path:
    """On Windows a program's path has an ending, and pip's start scripts leave it out."""
    return Path(os.path.abspath(path)).with_suffix("")


def _spelled(command: click.Command, arguments: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for parameter in command.params:
        value = arguments.get(parameter.name or "")
        if value is None:
            continue
        if isinstance(parameter, click.Argument):
            words.insert(0, str(value))
        elif isinstance(parameter, click.Option) and parameter.is_flag and isinstance(value, bool):
            words += parameter.opts[:1] if value else parameter.secondary_opts[:1]
        else:
            words += [parameter.opts[0], str(value)]
    return words


def written() -> dict[str, Any]:
    """What stands on the command line itself: not defaults, and not what the environment says."""
    context = click.get_current_context(silent=True)
    if context is None:
        return {}
    return {
        name: value
        for name, value in context.params.items()
        if name not in _OF_ONE_RUN and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
