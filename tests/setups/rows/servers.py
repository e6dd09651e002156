"""Settings of servers, databases and roles."""

from __future__ import annotations

from ..table import SQL, VOLUME, Refusal, Server, Setup

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
        name="no-postgres-database",
        setup="`DROP DATABASE postgres`",
        server=Server(environment={"POSTGRES_USER": "letta"}, in_memory=False),
        sql="ALTER DATABASE postgres RENAME TO dropped;",
        works=[*SQL, *VOLUME],
    ),
    Setup(
        name="no-template1-either",
        setup="Neither `postgres` nor `template1`",
        server=Server(environment={"POSTGRES_USER": "letta"}, in_memory=False),
        sql="ALTER DATABASE postgres RENAME TO dropped; ALTER DATABASE template1 RENAME TO gone;",
        works=[*SQL, *VOLUME],
    ),
    Setup(
        name="synchronous-standby-gone",
        setup="`synchronous_standby_names` without a standby",
        server=Server(command=("-c", "synchronous_standby_names=gone")),
    ),
    Setup(
        name="long-name",
        setup="A database's name of 63 bytes",
        server=USUAL,
        database="memoria_" + "è" * 27 + "m",
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
