"""Values that depend on settings come back as they were, from a server with a locale and a time zone of its own."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from scarlet_backup_mcp.models.verification import Drill
from scarlet_backup_mcp.settings import Settings, load_settings

from ..conftest import IMAGE
from ..helpers.containers import QUICKLY, psql_in, run_docker, run_docker_quietly, wait_for_server
from ..helpers.drill import bring_back, drill, take

ITALIAN = "it_IT.utf8"
OPTIONS = ("-e", "POSTGRES_PASSWORD=x", *QUICKLY, "-e", "TZ=Europe/Rome", "--label", "scarlet-backup-mcp.test=1")
SET = f"""
CREATE DATABASE letta; \\c letta
ALTER DATABASE letta SET lc_monetary = '{ITALIAN}'; ALTER DATABASE letta SET lc_time = '{ITALIAN}';
ALTER DATABASE letta SET default_text_search_config = 'pg_catalog.italian';
ALTER DATABASE letta SET my.setting = 'mine'; \\c letta
"""
FILL = """
CREATE TABLE agents (id int PRIMARY KEY); INSERT INTO agents VALUES (1);
CREATE FUNCTION day(timestamptz) RETURNS date LANGUAGE sql IMMUTABLE AS 'SELECT $1::date';
CREATE FUNCTION mine(int) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT current_setting('my.setting') || $1 $$;
CREATE TABLE events (id int PRIMARY KEY, at timestamptz, price money,
    day date GENERATED ALWAYS AS (day(at)) STORED, mine text GENERATED ALWAYS AS (mine(id)) STORED);
INSERT INTO events (id, at, price)
    SELECT n, '2026-01-01 00:30+01'::timestamptz + n * interval '13 hours', n * 1234.56 FROM generate_series(1, 50) n;
CREATE INDEX ON events (day(at)); CREATE INDEX ON events (mine(id));
CREATE MATERIALIZED VIEW shown AS SELECT id, at::text AS at, price::text AS price, to_char(at, 'TMMonth') AS month,
    to_tsvector('le case delle streghe') AS words, current_setting('my.setting') AS setting FROM events;
"""
DIGESTS = """
SELECT 'events', md5(string_agg(e::text, '|' ORDER BY id)) FROM events e;
SELECT 'shown', md5(string_agg(s::text, '|' ORDER BY id)) FROM shown s;
SET enable_seqscan = off; SELECT string_agg(id::text, ',' ORDER BY id) FROM events WHERE day(at) = '2026-01-02';
SET enable_seqscan = on; SET enable_indexscan = off; SET enable_bitmapscan = off;
SELECT string_agg(id::text, ',' ORDER BY id) FROM events WHERE day(at) = '2026-01-02';
"""


def psql(container: str, statements: str, database: str = "letta") -> str:
    return psql_in(container, statements, database).strip()


@pytest.fixture(scope="module")
def italian(require_docker: None) -> Iterator[str]:
    """A container with a locale that its image lacks."""
    name = f"scarlet-test-meaning-{secrets.token_hex(4)}"
    run_docker("run", "-d", "--pull", "never", "--name", name, *OPTIONS, IMAGE, "-c", "fsync=off")
    try:
        wait_for_server(name)
        run_docker("exec", name, "localedef", "-i", "it_IT", "-f", "UTF-8", ITALIAN)
        run_docker("restart", name)  # a running server does not see it
        wait_for_server(name)
        psql(name, SET + FILL, "postgres")
        yield name
    finally:
        run_docker_quietly("rm", "-fv", name)


@pytest.fixture(scope="module")
def with_its_image(italian: str) -> Iterator[str]:
    """The same, from an image that has the locale."""
    name = f"{italian}-image"
    run_docker("commit", italian, name)
    try:
        run_docker("run", "-d", "--pull", "never", "--name", name, *OPTIONS, name, "-c", "fsync=off")
        wait_for_server(name)
        psql(name, SET + FILL, "postgres")
        yield name
    finally:
        run_docker_quietly("rm", "-fv", name)
        run_docker_quietly("rmi", name)


def settings_of(container: str, directory: Path) -> Settings:
    directory.chmod(0o700)
    return load_settings(dir=directory, container=container, database="letta")


def drilled(settings: Settings) -> Drill:
    found = drill(settings).drill
    assert found is not None
    return found


@pytest.mark.long
def test_all_of_it_is_proved_and_comes_back(with_its_image: str, tmp_path: Path) -> None:
    settings = settings_of(with_its_image, tmp_path)
    before = psql(with_its_image, DIGESTS)
    assert before.splitlines()[-1] == before.splitlines()[-2]
    take(settings)
    found = drilled(settings)
    assert (found.verdict, found.detail, found.except_recomputed, found.warnings) == ("proved", "", [], [])
    psql(with_its_image, "DROP TABLE events CASCADE")
    assert bring_back(settings, "latest").warnings == []
    assert psql(with_its_image, DIGESTS) == before


@pytest.mark.long
def test_a_locale_that_the_image_lacks_is_said_and_no_fault_of_the_file(italian: str, tmp_path: Path) -> None:
    settings = settings_of(italian, tmp_path)
    before = psql(italian, DIGESTS)
    name = take(settings).name
    found = drilled(settings)
    assert (found.verdict, found.proved) == ("unknown", None)
    assert "lc_monetary" in found.detail
    psql(italian, "DROP TABLE events CASCADE")
    assert bring_back(settings, name).warnings == []
    assert psql(italian, DIGESTS) == before
