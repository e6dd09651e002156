"""What names mean is the same after a load, or it is told: a check that refused a row before refuses it after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from subprocess import CalledProcessError

import pytest

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.errors import RestoreFailed
from scarlet_backup_mcp.settings import Settings

from ..helpers.drill import Databases, bring_back, drill, take, wrong

CITEXT = """
CREATE TABLE agents (id int PRIMARY KEY, name text); INSERT INTO agents VALUES (1, 'Scarlet'), (2, 'nota');
CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext;
SET search_path TO public, ext;
CREATE TABLE words (n citext, k citext, kind varchar CHECK (kind IN ('a', 'b')),
    CONSTRAINT distinct_words CHECK (n IS DISTINCT FROM k),
    CONSTRAINT never_a CHECK (nullif(n, 'a'::citext) IS NOT NULL),
    CONSTRAINT by_case CHECK (CASE k WHEN 'secret' THEN false ELSE true END));
INSERT INTO words VALUES ('x', 'y', 'a'), ('X', 'z', 'b');
CREATE VIEW pairs AS SELECT a.k AS one, b.k AS other FROM words a JOIN words b USING (n);
ALTER TABLE words ENABLE ROW LEVEL SECURITY;
CREATE POLICY seen ON words USING (n IS DISTINCT FROM k);
"""
PATH = 'ALTER DATABASE :"DBNAME" SET search_path TO public, ext;'
REFUSED = ("('q', 'Q', 'a')", "('A', 'k', 'a')", "('q', 'SECRET', 'a')", "('q', 'k', 'c')")
TAKEN = "('q', 'k', 'a')"


@pytest.fixture(scope="module")
def databases(embedded: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    made = Databases(embedded, tmp_path_factory.mktemp("names"))
    yield made
    made.drop()


def behaviour(databases: Databases, settings: Settings) -> list[str]:
    """Which rows the table takes, and how many pairs the view finds."""
    found = [databases.psql("SELECT count(*) FROM public.pairs", settings.database)]
    for row in (*REFUSED, TAKEN):
        with suppress(CalledProcessError, AssertionError):
            databases.psql(f"BEGIN; INSERT INTO public.words VALUES {row}; ROLLBACK", settings.database)
            found.append(row)
    return found


def test_names_of_another_schema_mean_what_they_did(databases: Databases) -> None:
    settings = databases.make(PATH + CITEXT)
    take(settings)
    before = behaviour(databases, settings)
    assert before == ["4", TAKEN]
    found = drill(settings)
    assert found.drill is not None
    assert (wrong(found), found.drill.verdict, found.drill.search_path) == ({}, "proved", "database")
    assert [item.what for item in found.drill.normalised] == ["TABLE public.words"]
    databases.psql("DROP TABLE public.words CASCADE", settings.database)
    assert bring_back(settings, "latest").warnings == []
    assert behaviour(databases, settings) == before


def test_a_restore_without_a_drill_finds_the_way_too(databases: Databases) -> None:
    settings = databases.make(PATH + CITEXT)
    take(settings)
    before = behaviour(databases, settings)
    databases.psql("DROP TABLE public.words CASCADE", settings.database)
    assert bring_back(settings, "latest").warnings == []
    assert behaviour(databases, settings) == before


def test_where_no_path_brings_the_meaning_back_it_differs(databases: Databases) -> None:
    settings = databases.make(CITEXT)
    name = take(settings).name
    with pytest.raises(RestoreFailed, match="changed their meaning"):
        bring_back(settings, name)
    found = drill(settings).drill
    assert found is not None
    assert (found.proved, found.verdict) == (False, "differs")
    assert "SET search_path" in found.detail
    told = {item.what: item for item in found.differences}
    for what in (
        "meaning of table constraint distinct_words on public.words",
        "meaning of table constraint by_case on public.words",
        'meaning of rule "_RETURN" on public.pairs',
        "meaning of policy seen on public.words",
    ):
        assert told[what].backup == "operator ext.=(ext.citext,ext.citext)", told.keys()
        assert told[what].restored == "only PostgreSQL's own objects"
    restored = bring_back(settings, name, drill="never")
    assert sum("another meaning" in warning for warning in restored.warnings) >= 4


def test_where_the_path_does_not_load_it_comes_back_as_it_loads(databases: Databases) -> None:
    """A check does not bear that path: the meaning is lost, and told, but not the data."""
    settings = databases.make(
        PATH
        + CITEXT
        + """CREATE FUNCTION calm() RETURNS boolean LANGUAGE sql AS 'SELECT true';
        CREATE TABLE fussy (v text CHECK (calm())); INSERT INTO fussy VALUES ('V');
        CREATE OR REPLACE FUNCTION calm() RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN
            IF current_setting('search_path') LIKE '%ext%' THEN RAISE EXCEPTION 'no'; END IF;
            RETURN true;
        END $$;"""
    )
    name = take(settings).name
    found = drill(settings).drill
    assert found is not None
    assert (found.verdict, found.search_path, found.rows_compared) == ("differs", "empty", 5)
    assert all(item.what.startswith(("meaning of ", "TABLE ", "POLICY ")) for item in found.differences)
    bring_back(settings, name, drill="never")
    assert databases.psql("SELECT v FROM public.fussy", settings.database) == "V"
