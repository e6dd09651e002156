"""Advice to run a Compose command, in the names of the container that was found."""

from __future__ import annotations

import re

from ..hosts import ContainerInfo

COMPOSE = "`docker compose "
_ADVICE = re.compile(COMPOSE + r"([a-z]+(?: -d)?) postgres\b([^`]*)`( in Scarlet's directory)?")
_WITHOUT_COMPOSE = {"up -d": "start", "logs": "logs", "unpause": "unpause", "stop": "stop", "exec": "exec"}
"""Compose's commands, and Docker's for a container that Compose did not make."""


def in_names_of(info: ContainerInfo | None, advice: str) -> str:
    """Return `advice` about Scarlet's service `postgres` for the service, or the lone container, of `info`."""
    if info is None or info.container is None or info.service == "postgres":
        return advice

    def named(found: re.Match[str]) -> str:
        command, rest, where = found[1], found[2], found[3] or ""
        if info.service:
            where = f" in {info.working_dir}" if where and info.working_dir else where
            return f"`docker compose {command} {info.service}{rest}`{where}"
        if command in _WITHOUT_COMPOSE:
            return f"`docker {_WITHOUT_COMPOSE[command]} {info.container}{rest}`"
        return found[0]

    return _ADVICE.sub(named, advice)
