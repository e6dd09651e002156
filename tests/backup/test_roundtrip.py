"""What a backup brings back: dump, destroy, restore, dump again, and both dumps hold the same.

The oracle is a plain `pg_dump`, read here: the rows of every table as a multiset, every other statement as it is
written, and what a plain dump leaves out (schemas, the database's own properties). It is asked before the database is
dropped and after it was restored.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.models.common import Compression
from scarlet_backup_mcp.postgres.server.quoting import identifier
from scarlet_backup_mcp.postgres.server.session import OWN_SEARCH_PATH
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.settings import Settings, load_settings

from ..conftest import Stack
from ..helpers.roundtrip import (
    NASTY,
    ROLES,
    TEMPLATE,
    Fresh,
    Place,
    bring_back,
    check,
    drop,
    embedded_place,
    properties_of,
    query,
    round_trip,
    take,
)
from ..helpers.sampling import sampled

PROBES = (
    'SELECT * FROM nasty."on materialised"',
    "SELECT count(*), md5(string_agg(code, ',' ORDER BY id)) FROM nasty.materialised",
    'SELECT md5(string_agg(v::text, chr(10) ORDER BY "the id")) FROM nasty."view; one" AS v',
    "SELECT md5(nasty.looks_like_a_dump(1))",
    'SELECT nasty.atomic(1), nasty."longest of"(m::text) FROM nasty.typed',
    "SELECT loid, md5(lo_get(loid)) FROM generate_series(900001, 900003) AS loid",
    "SELECT id FROM nasty.vectors ORDER BY (v OPERATOR(extensions.<->) '[1,0,1,0,1,0,1,0]') + 0 LIMIT 5",
    "SELECT md5(string_agg(b, '' ORDER BY id)) FROM nasty.bytes",
    "SELECT n, f8, f4 FROM nasty.numbers ORDER BY i8",
)
"""What the nasty database answers to, before and after."""

REWRITTEN = ("nasty.normalised", "nasty.late_child")
"""What differs after the first reload, by pg_dump and the server: CHECK (x IN (…)) on a varchar and a view over it get
other casts, and a table that inherited after it was made gets its parent's columns first."""


def answers(settings: Settings) -> list[str]:
    with BackupContext(settings) as context, context.server.session(context.database, OWN_SEARCH_PATH) as session:
        return [session.execute(probe) for probe in PROBES]


def docker_place(stack: Stack) -> Place:
    def settings(database: str, directory: Path, integrity_table: str = "agents") -> Settings:
        return load_settings(
            container=stack.container,
            project=stack.project,
            dir=directory,
            database=database,
            integrity_table=integrity_table,
        )

    return Place(stack.psql, settings)


@pytest.fixture(scope="module", params=["embedded", pytest.param("docker", marks=pytest.mark.docker)])
def nasty(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Each server with the nasty database as a template; its roles are dropped afterwards."""
    server = request.getfixturevalue("embedded" if request.param == "embedded" else "stack")
    place = embedded_place(server) if isinstance(server, EmbeddedServer) else docker_place(server)
    try:
        place.run("".join(f"CREATE ROLE {identifier(role)};" for role in ROLES), "postgres")
        place.create(TEMPLATE)
        place.run(NASTY.read_text(encoding="utf-8"), TEMPLATE)
        yield place
    finally:
        place.remove(TEMPLATE)
        place.run("".join(f"DROP ROLE IF EXISTS {identifier(role)};" for role in ROLES), "postgres")


# A nasty database


@pytest.mark.parametrize("compression", sampled(["none", "zstd"], "none"))
def test_a_nasty_database_comes_back_whole(nasty: Place, compression: Compression, tmp_path: Path) -> None:
    name = 'nasty "база" a=b'
    settings = nasty.settings(name, tmp_path / "backups")
    nasty.remove(name)
    try:
        nasty.create(name, f"TEMPLATE {TEMPLATE}")
        nasty.run(properties_of(name), "postgres")
        before = answers(settings)
        assert all(before)
        first, restored = round_trip(settings, compression, rewritten=REWRITTEN)
        assert answers(settings) == before
        assert (first.integrity_rows, restored.integrity_rows) == (3, 3)
        assert first.safe_to_proceed
    finally:
        nasty.remove(name)


# Schemas


@pytest.mark.parametrize(
    "statements",
    [
        "DROP SCHEMA public",
        "ALTER SCHEMA public OWNER TO postgres;\nREVOKE ALL ON SCHEMA public FROM PUBLIC",
        "COMMENT ON SCHEMA public IS NULL",
        "DROP SCHEMA public;\nCREATE SCHEMA public;\nGRANT ALL ON SCHEMA public TO PUBLIC",
    ],
    ids=["dropped", "no rights", "no comment", "made again"],
)
def test_schema_public_comes_back_as_it_was(fresh: Fresh, statements: str) -> None:
    settings = fresh(statements="CREATE SCHEMA letta;\nCREATE TABLE letta.agents AS SELECT 1 AS id;\n" + statements)
    query(settings, f"ALTER DATABASE {identifier(settings.database)} SET search_path TO letta")
    round_trip(settings)


def test_an_empty_database_comes_back_empty(fresh: Fresh) -> None:
    first, _ = round_trip(fresh())
    assert (first.rows, first.integrity_rows, first.safe_to_proceed) == (0, None, False)


# Event triggers that write


def test_a_log_of_ddl_comes_back_with_the_rows_it_had(fresh: Fresh) -> None:
    """Refreshing a materialised view is the last thing a dump does, after the event triggers are there."""
    settings = fresh(
        statements="""CREATE TABLE agents AS SELECT 1 AS id;
CREATE TABLE ddl_log (tag text);
CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM agents;
CREATE FUNCTION log_ddl() RETURNS event_trigger LANGUAGE plpgsql AS
    $$BEGIN INSERT INTO public.ddl_log VALUES (tg_tag); END$$;
CREATE EVENT TRIGGER logging ON ddl_command_end EXECUTE FUNCTION log_ddl()"""
    )
    query(settings, "COMMENT ON TABLE agents IS 'one row in the log'")
    round_trip(settings)


def test_a_log_of_logins_comes_back(fresh: Fresh) -> None:
    """Its rows in the backup are those of the snapshot; whoever connects adds one."""
    settings = fresh(
        statements="""CREATE TABLE agents AS SELECT 1 AS id;
CREATE TABLE logins (name text);
CREATE FUNCTION log_login() RETURNS event_trigger LANGUAGE plpgsql AS
    $$BEGIN INSERT INTO public.logins VALUES (session_user); END$$;
CREATE EVENT TRIGGER logging ON login EXECUTE FUNCTION log_login();
ALTER EVENT TRIGGER logging ENABLE ALWAYS"""
    )
    taken = take(settings)
    assert check(settings, taken.name).valid
    drop(settings)
    assert bring_back(settings, taken.name).integrity_rows == 1


# What is told


def test_a_backup_that_could_not_be_restored_is_not_safe_to_proceed_on(fresh: Fresh) -> None:
    """psql puts its own variable's value into `:"PORT"`, which PostgreSQL writes for a column in an array's slice."""
    settings = fresh(
        statements="""CREATE TABLE agents AS SELECT 2 AS "PORT", ARRAY[1, 2, 3] AS numbers;
CREATE VIEW sliced AS SELECT numbers[1: "PORT"] FROM agents"""
    )
    taken = take(settings)
    assert (taken.safe_to_proceed, check(settings, taken.name).valid) in ((False, False), (True, True))


def test_a_function_with_a_parameter_called_begin_comes_back(fresh: Fresh) -> None:
    """psql counts the words BEGIN and END outside parentheses only."""
    settings = fresh(statements="CREATE TABLE agents AS SELECT 1 AS id")
    query(settings, "CREATE FUNCTION next_day(begin date) RETURNS date LANGUAGE sql BEGIN ATOMIC SELECT begin + 1; END")
    round_trip(settings)


def test_a_database_whose_sessions_begin_as_another_role_comes_back(fresh: Fresh, embedded: EmbeddedServer) -> None:
    settings = fresh(statements="CREATE TABLE agents AS SELECT 1 AS id")
    role = identifier(f"nasty weak {secrets.token_hex(4)}")
    with psycopg.connect(embedded.dsn(), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role}".encode())
        try:
            connection.execute(f"ALTER DATABASE {identifier(settings.database)} SET role TO {role}".encode())
            round_trip(settings)
        finally:
            connection.execute(f"DROP ROLE {role}".encode())
