"""Settings of servers, databases and roles."""

from __future__ import annotations

from ..table import SQL, VOLUME, Refusal, Server, Setup, Verb

USUAL = Server()
"""For all that is SQL and settings of the tool."""
NEWER = Server(image="pgvector/pgvector:pg17")
UNPROVED: tuple[Verb, ...] = ("backup", "verify", "restore")
"""For what makes no difference to a drill, which takes longest."""

FIVE_TIME_OUTS = """
ALTER SYSTEM SET statement_timeout = '100ms';
ALTER SYSTEM SET lock_timeout = '100ms';
ALTER SYSTEM SET idle_in_transaction_session_timeout = '500ms';
ALTER SYSTEM SET transaction_timeout = '1s';
ALTER SYSTEM SET idle_session_timeout = '3s';
SELECT pg_reload_conf();
"""

PROGRAMS = "/usr/lib/postgresql/15/bin"

ROWS = [
    Setup(
        name="usual",
        setup="PostgreSQL 15 with a password in `POSTGRES_PASSWORD`, data in memory",
        server=USUAL,
        found=["container {container}", "PostgreSQL 15", "agents: 2"],
        works=[*SQL, "volume backup", "volume drill"],
        refused={
            "volume restore": Refusal("preflight_failed", "is on no volume: it would be lost with the container."),
        },
    ),
    Setup(
        name="time-outs",
        setup="Five time-outs of 0.1 to 3 s: `statement_timeout`, `lock_timeout`, "
        "`idle_in_transaction_session_timeout`, `transaction_timeout`, `idle_session_timeout`",
        server=NEWER,
        sql=FIVE_TIME_OUTS,
    ),
    Setup(
        name="read-only",
        setup="`default_transaction_read_only = on` for the server and the role",
        server=USUAL,
        sql="""ALTER ROLE postgres SET default_transaction_read_only = on;
            ALTER SYSTEM SET default_transaction_read_only = on;
            SELECT pg_reload_conf();""",
        works=UNPROVED,
    ),
    Setup(
        name="serializable",
        setup="`default_transaction_isolation = serializable`, deferrable",
        server=USUAL,
        sql="""ALTER SYSTEM SET default_transaction_isolation = serializable;
            ALTER SYSTEM SET default_transaction_deferrable = on;
            SELECT pg_reload_conf();""",
        works=UNPROVED,
    ),
    Setup(
        name="preloaded",
        setup="Libraries that are preloaded, with their extension: `pg_stat_statements`, `auto_explain`",
        server=Server(command=["-c", "shared_preload_libraries=pg_stat_statements,auto_explain"]),
        sql="CREATE EXTENSION pg_stat_statements;",
    ),
    Setup(
        name="set-role",
        setup="`ALTER ROLE … SET role`: sessions begin as a role without rights",
        server=USUAL,
        sql="""CREATE ROLE app NOLOGIN;
            ALTER ROLE postgres SET role = app;
            ALTER ROLE postgres IN DATABASE letta SET role = app;""",
        works=UNPROVED,
    ),
    Setup(
        name="icu",
        setup="Locale provider ICU, `it-IT`",
        server=USUAL,
        create="TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'it-IT'",
    ),
    Setup(
        name="builtin",
        setup="Locale provider builtin, `C.UTF-8` (from 17 on)",
        server=NEWER,
        create="TEMPLATE template0 LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'",
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
        works=UNPROVED,
        sample=True,
    ),
    Setup(
        name="sql-ascii",
        setup="Encoding SQL_ASCII, with bytes that are no UTF-8",
        server=USUAL,
        create="TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'",
        sql=r"INSERT INTO agents VALUES (3, E'caf\xE9 \xFF\x80');",
    ),
    Setup(
        name="collation-mismatch",
        setup="A collation version other than the system's, as after an upgrade of the image",
        server=USUAL,
        sql="UPDATE pg_database SET datcollversion = '2.0' WHERE datname = current_database();",
        works=UNPROVED,
    ),
    Setup(
        name="owned",
        setup="A database owned by an ordinary role, with nothing for PUBLIC",
        server=USUAL,
        sql="""CREATE ROLE scarlet LOGIN;
            ALTER DATABASE letta OWNER TO scarlet;
            ALTER TABLE agents OWNER TO scarlet;
            ALTER TABLE notes OWNER TO scarlet;
            REVOKE ALL ON DATABASE letta FROM PUBLIC;
            ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
            ALTER TABLE notes FORCE ROW LEVEL SECURITY;""",
    ),
    Setup(
        name="few-connections",
        setup="`max_connections = 8`, of which 3 are reserved",
        server=Server(command=["-c", "max_connections=8", "-c", "max_wal_senders=2"]),
        works=[*UNPROVED, "volume backup"],
    ),
    Setup(
        name="wal-minimal",
        setup="`wal_level = minimal`",
        server=Server(command=["-c", "wal_level=minimal", "-c", "max_wal_senders=0"]),
        works=UNPROVED,
        refused={"volume backup": Refusal("volume_unsupported", "wal_level")},
    ),
    Setup(
        name="tablespace",
        setup="Tables in a tablespace",
        server=Server(options=["--tmpfs", "/space:uid=999,mode=700"]),
        sql="""CREATE TABLESPACE space LOCATION '/space';
            ALTER TABLE notes SET TABLESPACE space;""",
        works=UNPROVED,
        refused={"volume backup": Refusal("volume_unsupported", "tablespace")},
    ),
    Setup(
        name="difficult-name",
        setup="A database named with quotes, blanks and é",
        server=USUAL,
        database='Scarlet\'s "mind" é',
        works=UNPROVED,
    ),
]
