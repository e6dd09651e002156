"""What a load computes anew is compared with what it was, and what differs is named."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.gate import gate
from scarlet_backup_mcp.settings import Settings

from ..helpers.drill import Databases, bring_back, drill, take

MEMORY = "CREATE TABLE agents (id int PRIMARY KEY, name text); INSERT INTO agents VALUES (1, 'Scarlet'), (2, 'nota');"
DIARY = """
CREATE FUNCTION mood(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN upper($1); END $$;
CREATE TABLE diary (id int PRIMARY KEY, word text, loud text GENERATED ALWAYS AS (mood(word)) STORED,
                    twice text GENERATED ALWAYS AS (word || word) STORED,
                    half int GENERATED ALWAYS AS (id / 2) VIRTUAL);
INSERT INTO diary (id, word) SELECT n, 'w' || n FROM generate_series(1, 300) AS n;
CREATE INDEX ON diary (mood(word)) WHERE mood(word) <> '';
CREATE TABLE keyless (word text, "Size of it" int GENERATED ALWAYS AS (length(word)) STORED);
INSERT INTO keyless VALUES ('a'), ('a'), (NULL), ('bbb');
CREATE TABLE parts (id int, n int GENERATED ALWAYS AS (id + 1) STORED) PARTITION BY RANGE (id);
CREATE TABLE part_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE part_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
INSERT INTO parts VALUES (1), (11), (12);
CREATE MATERIALIZED VIEW kept AS SELECT word, count(*) AS n FROM keyless GROUP BY word;
CREATE UNIQUE INDEX ON kept (word);
CREATE MATERIALIZED VIEW never AS SELECT 1 AS n WITH NO DATA;
"""


@pytest.fixture(scope="module")
def databases(embedded: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    made = Databases(embedded, tmp_path_factory.mktemp("meaning"))
    yield made
    made.drop()


@pytest.fixture(scope="module")
def replaced(databases: Databases) -> Settings:
    """A database whose function has been replaced, with a view that is stale, and a backup of it."""
    settings = databases.make(MEMORY + DIARY)
    databases.psql(
        """CREATE OR REPLACE FUNCTION mood(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
               BEGIN RETURN CASE WHEN length($1) = 2 THEN 'short' ELSE upper($1) END; END $$;
           UPDATE keyless SET word = 'cccc' WHERE word = 'bbb';""",
        settings.database,
    )
    take(settings)
    return settings


def test_what_differs_is_named_with_table_column_and_keys(replaced: Settings) -> None:
    found = drill(replaced).drill
    assert found is not None
    diary, kept = found.except_recomputed
    assert found.proved is True
    assert "computes anew" in found.detail
    assert diary == "public.diary, column loud: other values, e.g. where (id) is (5), (4), (2)"
    assert kept.startswith("materialised view public.kept, column word: other values, e.g. where the row is ")
    assert "(cccc,1)" in kept
    assert "refreshed" in kept


def test_the_gate_stays_open_and_says_it(replaced: Settings) -> None:
    drill(replaced)
    with BackupContext(replaced) as context:
        verdict = gate(context)
    assert verdict.safe_to_proceed, verdict.reasons
    assert "public.diary, column loud" in " ".join(verdict.reasons)


def test_a_restore_says_it_and_does_not_refuse(replaced: Settings, databases: Databases) -> None:
    restored = bring_back(replaced, "latest", drill=False)
    told = [warning for warning in restored.warnings if "omputed anew" in warning]
    assert ["public.diary, column loud" in told[0], "public.kept" in told[1]] == [True, True]
    assert databases.psql("SELECT loud FROM diary WHERE id = 5", replaced.database) == "short"


def test_what_comes_back_as_it_was_is_silent_and_the_gate_stays_open(databases: Databases) -> None:
    settings = databases.make(MEMORY + DIARY, gate_level="unproved")
    taken = take(settings)
    with BackupContext(settings) as context:
        verdict, manifest = gate(context), context.directory.manifest(taken.name)
    assert verdict.safe_to_proceed, verdict.reasons
    assert manifest is not None
    computed = {(one.name, one.rows): one for one in manifest.recomputed or []}
    assert computed.keys() == {("diary", 300), ("keyless", 4), ("parts", 3), ("kept", 3)}
    assert list(computed["diary", 300].digests) == ["loud", "twice"]
    assert not any(one.keys for one in computed.values())
    found = drill(settings).drill
    assert found is not None
    assert (found.proved, found.except_recomputed, found.detail) == (True, [], "")


def test_users_code_runs_as_the_owner_and_can_not_get_out(databases: Databases) -> None:
    role = databases.make_role()
    settings = databases.make(
        f"""{MEMORY}
        CREATE SCHEMA app AUTHORIZATION {role};
        SET SESSION AUTHORIZATION {role};
        CREATE FUNCTION app.attempt() RETURNS boolean LANGUAGE plpgsql AS $$
        DECLARE statement text; done text := '';
        BEGIN
            IF current_setting('track_counts')::bool THEN RETURN true; END IF;
            FOREACH statement IN ARRAY ARRAY[
                'RESET ROLE', 'SET ROLE NONE', 'SET LOCAL ROLE NONE', 'RESET SESSION AUTHORIZATION',
                $q$SELECT set_config('role', 'none', false)$q$, 'SET TRANSACTION READ WRITE',
                'CREATE TEMP TABLE mine (n int)', 'CREATE TABLE app.mine (n int)',
                $q$COPY (SELECT 1) TO PROGRAM 'true'$q$
            ] LOOP
                BEGIN EXECUTE statement; done := done || statement || '; ';
                EXCEPTION WHEN OTHERS THEN NULL; END;
            END LOOP;
            RAISE EXCEPTION 'done as %: %', current_user, done;
        END $$;
        CREATE FUNCTION app.quiet() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN app.attempt(); END $$;
        CREATE TABLE app.diary (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);
        INSERT INTO app.diary VALUES (1);
        CREATE INDEX ON app.diary (id) WHERE app.quiet();"""
    )
    taken = take(settings)
    with BackupContext(settings) as context:
        manifest = context.directory.manifest(taken.name)
    (found,) = (manifest and manifest.recomputed) or []
    assert "done as drill " in found.why_not
    assert found.why_not.endswith(": (SQLSTATE P0001)")
    report = drill(settings).drill
    assert report is not None
    assert report.proved is True
    assert report.except_recomputed[0].startswith("app.diary: not compared, since The server said: done as drill ")
