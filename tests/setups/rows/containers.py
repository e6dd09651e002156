"""Versions, mounts and hardened containers."""

from __future__ import annotations

from ..table import SQL, VOLUME, Server, Setup

ROWS = [
    Setup(
        name="named-volume",
        setup="Data in a named volume",
        server=Server(options=["-v", "{volume}:/var/lib/postgresql/data"], in_memory=False),
        works=[*SQL, *VOLUME],
    ),
]
