"""Ports, sockets, passwords, and what is in their way."""

from __future__ import annotations

from ..table import Local, Setup

LOCAL = Local()

ROWS = [
    Setup(
        name="loopback",
        setup="A server without Docker, over TCP with a password in the URI",
        server=LOCAL,
        found=["server 127.0.0.1:"],
        sample=True,
    ),
]
