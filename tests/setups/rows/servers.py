"""Settings of servers, databases and roles."""

from __future__ import annotations

from ..table import SQL, Refusal, Server, Setup

USUAL = Server()
"""For all that is SQL and settings of the tool."""

ROWS = [
    Setup(
        name="usual",
        setup="PostgreSQL 15 with a password in `POSTGRES_PASSWORD`, data in memory",
        server=USUAL,
        found=["container {container}", "PostgreSQL 15", "agents: 2"],
        works=[*SQL, "volume backup", "volume drill"],
        refused={
            "volume restore": Refusal("preflight_failed", "is on no volume: it would be lost with the container.")
        },
    ),
    Setup(
        name="latin1",
        setup="Encoding LATIN1",
        server=USUAL,
        create="TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'",
        works=["backup", "verify", "restore"],
        sample=True,
    ),
]
