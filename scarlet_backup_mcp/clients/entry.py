"""Our server's entry: the command that starts it, and the settings it needs; and how to recognise one."""

from __future__ import annotations

import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import SecretStr

from ..errors import ConfigurationError
from ..schedules.job import IN_A_FILE, PACKAGE, carried, is_in_cache, secret_setting
from ..settings import PREFIX, Settings

NAME = "scarlet-backup"
"""The name of our entry."""
PROGRAM = "scarlet-backup-mcp"
_OURS = re.compile(r"(^|[/\\])scarlet[-_]backup[-_]mcp(\.exe|[\[=@<>~ ].*)?$", re.IGNORECASE)


def entry_for(settings: Settings, environment: Mapping[str, str], *, shared: bool, typed: bool) -> dict[str, Any]:
    """Describe our server to a client, with the settings that were given.

    A `shared` file gets the bare command if PATH leads to this installation. Any other one gets its absolute path and
    the variables that lead to Docker's engine: a desktop program may have neither. Raises ConfigurationError for a
    password, and for an installation in a cache.
    """
    command, args = _command(environment, bare=shared)
    given = settings.model_fields_set - {"on_failure"}  # which is for schedules
    values: dict[str, object] = {PREFIX + name.upper(): getattr(settings, name) for name in given}
    plain = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in values.items()
    }
    if named := secret_setting(settings):
        raise ConfigurationError(
            f"{PREFIX}{named} holds a password, which would stand in clear text in a client's configuration.",
            f"{IN_A_FILE}, then try again.",
        )
    env = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in plain.items()}
    env |= {} if shared else carried(settings, environment)
    entry: dict[str, Any] = {"type": "stdio"} if typed else {}
    entry |= {"command": command, "args": args}
    return {**entry, "env": dict(sorted(env.items()))} if env else entry


def merged(existing: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Update an entry: its other fields, and its other variables, stay."""
    both = {**existing, **wanted}
    if "env" in existing and "env" in wanted and isinstance(existing["env"], dict):
        both["env"] = {**cast(dict[str, Any], existing["env"]), **wanted["env"]}
    return both


def is_ours(entry: object) -> bool:
    """Tell whether an entry starts this server, by its command and arguments."""
    if not isinstance(entry, dict):
        return False
    fields = cast(dict[str, Any], entry)
    args = fields.get("args")
    words = [fields.get("command"), *(cast(list[Any], args) if isinstance(args, list) else [])]
    return any(isinstance(word, str) and _OURS.search(word) is not None for word in words)


def missing_command(entry: Mapping[str, Any], environment: Mapping[str, str]) -> str | None:
    """Return an entry's command if it is not on this machine. One with a variable in it is not looked for."""
    command = entry.get("command")
    if not isinstance(command, str) or "$" in command:
        return None
    return None if shutil.which(os.path.expanduser(command), path=environment.get("PATH", "")) else command


def _command(environment: Mapping[str, str], *, bare: bool) -> tuple[str, list[str]]:
    suffix = ".exe" if os.name == "nt" else ""
    script = Path(sysconfig.get_path("scripts")) / f"{PROGRAM}{suffix}"
    if is_in_cache(script):
        raise ConfigurationError(
            f"{script} is in a cache. Once that is emptied, the client could no longer start it.",
            "Install it permanently (uv tool, pipx or a virtual environment), then try again from there.",
        )
    found = shutil.which(PROGRAM, path=environment.get("PATH", ""))
    if script.is_file():
        on_path = found is not None and os.path.samefile(found, script)
        return PROGRAM if bare and on_path else str(script), ["serve"]
    return os.path.abspath(sys.executable), ["-P", "-m", PACKAGE, "serve"]
