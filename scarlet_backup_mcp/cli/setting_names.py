"""Settings in messages, named as the person at the terminal would set them."""

from __future__ import annotations

import os
import re

from ..settings import PREFIX, SECRET, Settings
from .next_command import written

_VARIABLE = re.compile(rf"\b{PREFIX}([A-Z_]+[A-Z])\b")
OPTIONS = {
    name.upper(): PREFIX + name.upper() if name in SECRET else f"--{name.replace('_', '-')}"
    for name in Settings.model_fields
}
"""The option of each setting, by the end of its variable; a secret stays a variable."""


def as_used(text: str) -> str:
    """Write options in place of variables, except for those that the environment sets and the command line does not. A
    text about a variable that is no setting is about the environment, and stays."""
    if any(found[1] not in OPTIONS for found in _VARIABLE.finditer(text)):
        return text
    return _VARIABLE.sub(lambda found: found[0] if _from_environment(found[1]) else OPTIONS[found[1]], text)


def _from_environment(name: str) -> bool:
    in_environment = any(variable.upper() == PREFIX + name and value for variable, value in os.environ.items())
    return in_environment and f"setting_{name.lower()}" not in written()
