"""Settings of servers, databases and roles."""

from __future__ import annotations

from ..table import SQL, VOLUME, Refusal, Server, Setup

USUAL = Server()
"""For all that is SQL and settings of the tool."""

PROGRAMS = "/usr/lib/postgresql/15/bin"

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
        name="other-programs",
        setup="A `PATH` that finds the programs of another version before the server's own",
        server=Server(
            files={"/opt/old/pg_dump": "#!/bin/sh\necho 'pg_dump (PostgreSQL) 15.2'\n"},
            environment={"PATH": "/opt/old:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:" + PROGRAMS},
        ),
        works=[],
        refused={
            "backup": Refusal(
                "wrong_programs",
                "The pg_dump that the container's PATH finds first is 15.2",
                "Let the container's PATH begin with the server's own programs",
            )
        },
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
