"""Forty dumps that others might send, each with one statement that would act on the server: all are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scarlet_backup_mcp import summaries
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import load_settings

NAME, SECRET, ESCAPE = "sent.sql", "sk-hidden", "\x1b]0;owned\x07"
DUMP = """--
-- PostgreSQL database dump
--

-- Dumped from database version 15.20
-- Dumped by pg_dump version 15.20

SET statement_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);

CREATE TABLE public.agents (
    id integer NOT NULL
);

{}

COPY public.agents (id) FROM stdin;
1
\\.

--
-- PostgreSQL database dump complete
--

"""
HOSTILE = [
    # programs and files of the server
    f"COPY public.agents FROM PROGRAM 'curl {SECRET}';",
    "COPY public.agents TO PROGRAM 'sh';",
    "copy(select 1)to program 'sh';",
    "COPY public.agents FROM '/etc/passwd';",
    "COPY /* x */ public.agents FROM U&'\\002Fetc';",
    "SELECT pg_read_file('/etc/passwd');",
    "SELECT pg_catalog.lo_import('/etc/passwd');",
    "SELECT pg_catalog.lo_export(1, '/tmp/x');",
    "SELECT pg_catalog.setval('s', pg_catalog.pg_reload_conf()::int);",
    "LOAD 'evil';",
    # rights and roles
    f"CREATE ROLE evil SUPERUSER PASSWORD '{SECRET}';",
    f"CREATE USER mapping SUPERUSER PASSWORD '{SECRET}';",
    "ALTER USER mapping SUPERUSER;",
    "ALTER ROLE postgres RENAME TO other;",
    "CREATE GROUP g USER postgres;",
    "GRANT postgres TO evil;",
    "GRANT pg_execute_server_program TO PUBLIC;",
    "REVOKE CONNECT ON DATABASE letta FROM PUBLIC;",
    "DROP OWNED BY postgres;",
    "REASSIGN OWNED BY postgres TO evil;",
    "SET ROLE evil;",
    "SET SESSION AUTHORIZATION evil; CREATE TABLE public.x (i integer);",
    # the server and its other databases
    "ALTER SYSTEM SET archive_command = 'sh';",
    "ALTER DATABASE letta SET session_preload_libraries = 'evil';",
    "DROP DATABASE other;",
    "CREATE TABLESPACE t LOCATION '/tmp';",
    f"\\connect postgresql://evil:{SECRET}@192.0.2.1/letta",
    "CHECKPOINT;",
    "VACUUM;",
    "NOTIFY evil;",
    # psql's own
    f"\\! curl {SECRET}",
    "\\copy public.agents from program 'sh'",
    "\\i /etc/passwd",
    "\\o |sh",
    "SELECT 1 \\g |sh",
    "SELECT 1; \\! sh",
    # code that runs at once
    "DO $$ BEGIN PERFORM 1; END $$;",
    "CALL public.p();",
    "EXECUTE evil;",
    "INSERT INTO public.agents VALUES (pg_sleep(1)::text::int);",
    "INSERT INTO public.agents VALUES (1) RETURNING pg_read_file('x');",
    "INSERT INTO pg_catalog.pg_authid VALUES (1);",
    "UPDATE pg_catalog.pg_authid SET rolsuper = true;",
    "WITH x AS (DELETE FROM public.agents RETURNING 1) SELECT 1;",
    # how the rest is read
    "SET standard_conforming_strings = off;",
    "SET client_encoding = 'SJIS';",
    "BEGIN;",
    "COMMIT;",
    f'DROP ROLE "{ESCAPE}";',
    f"\\{ESCAPE}",
]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackupContext]:
    settings = load_settings(
        dir=tmp_path_factory.mktemp("dumps"), via="local", dsn="postgresql://127.0.0.1:1/letta", database="letta"
    )
    with BackupContext(settings) as one:
        yield one


def send(context: BackupContext, more: str) -> Path:
    path = context.directory.path / NAME
    path.write_text(DUMP.replace("{}", more), encoding="utf-8")
    return path


def test_the_dump_itself_is_none_of_them(context: BackupContext) -> None:
    send(context, "")
    checks = {check.check: check.ok for check in verify(context, Progress(), NAME, "full").checks}
    assert {name for name, ok in checks.items() if ok is False} == {"manifest"}
    assert checks["statements"] is True
    assert len(HOSTILE) >= 40


@pytest.mark.parametrize("statement", HOSTILE)
def test_a_dump_with_it_is_refused_and_shown_without_secrets_and_escapes(
    context: BackupContext, statement: str
) -> None:
    send(context, statement)
    found = verify(context, Progress(), NAME, "full")
    refused = [check for check in found.checks if check.check in ("statements", "structure") and check.ok is False]
    assert len(refused) == 1, found.checks
    assert "line 17" in f"{refused[0].found} {refused[0].detail}"
    for shown in (summaries.describe(found), found.model_dump_json()):
        assert SECRET not in shown
        assert "\x1b" not in shown
        assert "\\u001b" not in shown
