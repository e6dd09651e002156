"""What a load computes anew is compared with what it was, and what differs is named."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.errors import ServerUnreachable
from scarlet_backup_mcp.models.manifest import Recomputed
from scarlet_backup_mcp.postgres.server import recomputed as looks
from scarlet_backup_mcp.postgres.server.catalogue import server_facts
from scarlet_backup_mcp.postgres.server.recomputed import recomputed, unlike
from scarlet_backup_mcp.procedures.backup import snapshot_reading
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.gate import gate
from scarlet_backup_mcp.procedures.loading.computed_anew import unlike_the_backup
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import Settings

from ..helpers.drill import Databases, bring_back, drill, take
from ..helpers.restore import Watch

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


SLOW = """
CREATE FUNCTION slow() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN true; END $$;
CREATE TABLE a (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);
CREATE INDEX ON a (id) WHERE slow();
CREATE OR REPLACE FUNCTION slow() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
    LOOP
        BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN {} THEN NULL; END;
    END LOOP;
END $$;
CREATE TABLE b (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);
"""


def look(settings: Settings, seconds: float = 60, user: str = "") -> list[Recomputed]:
    with BackupContext(settings) as context:
        server = context.server.logged_in_as(user, "secret") if user else context.server
        with server.session(settings.database) as session:
            facts = server_facts(session)
        return recomputed(server, settings.database, facts, Progress(), seconds)


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
    assert "recomputes" in found.detail
    assert diary == "public.diary, column loud: different values, e.g. where (id) is (5), (4), (2)"
    assert kept.startswith("materialised view public.kept, column word: different values, in 1 of 3 rows compared")
    assert "cccc" not in kept
    assert "refreshed" in kept


def test_the_gate_stays_open_and_says_it(replaced: Settings) -> None:
    drill(replaced)
    with BackupContext(replaced) as context:
        verdict = gate(context)
    assert verdict.safe_to_proceed, verdict.reasons
    assert "public.diary, column loud" in " ".join(verdict.reasons)


def test_a_restore_says_it_and_does_not_refuse(replaced: Settings, databases: Databases) -> None:
    restored = bring_back(replaced, "latest", drill="never")
    told = [warning for warning in restored.warnings if "ecomputed by the load" in warning]
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
    assert report.except_recomputed[0].startswith("app.diary: not compared, because The server said: done as drill ")


def test_words_that_psql_counts_can_be_names_and_a_view_can_have_many_columns(databases: Databases) -> None:
    settings = databases.make(
        """CREATE SCHEMA begin;
        CREATE TABLE begin.begin (begin int, "end" int, "case" int GENERATED ALWAYS AS (begin * 2) STORED,
                                  PRIMARY KEY (begin, "end"));
        INSERT INTO begin.begin VALUES (1, 2);
        CREATE TABLE "case" ("END" int PRIMARY KEY, twice int GENERATED ALWAYS AS ("END" * 2) STORED);
        SELECT format('CREATE MATERIALIZED VIEW wide AS SELECT %s', string_agg(format('%s AS c%s', n, n), ', '))
        FROM generate_series(1, 1000) AS n \\gexec"""
    )
    found = look(settings)
    assert [(one.schema_, one.name, one.rows, one.why_not) for one in found] == [
        ("begin", "begin", 1, ""),
        ("public", "case", 0, ""),
        ("public", "wide", 1, ""),
    ]
    assert [len(one.digests) for one in found] == [1, 1, 1001]
    assert list(found[0].keys.values()) == ["(1,2)"]


def test_without_a_primary_key_no_value_is_shown(databases: Databases) -> None:
    settings = databases.make(
        """CREATE FUNCTION hint(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN left($1, 2); END $$;
        CREATE TABLE tokens (token text, hint text GENERATED ALWAYS AS (hint(token)) STORED);
        INSERT INTO tokens VALUES ('sk-1'), ('sk-2'), ('pk-3'), ('pk-3');
        CREATE MATERIALIZED VIEW kept AS SELECT token FROM tokens;"""
    )
    before = look(settings)
    databases.psql(
        """CREATE OR REPLACE FUNCTION hint(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
               BEGIN RETURN left($1, CASE WHEN $1 ~ '^sk' THEN 3 ELSE 2 END); END $$;
           UPDATE tokens SET token = token;
           UPDATE tokens SET token = 'sk-9' WHERE token = 'sk-2';
           REFRESH MATERIALIZED VIEW kept;
           UPDATE tokens SET token = 'sk-2' WHERE token = 'sk-9';""",
        settings.database,
    )
    after = look(settings)
    assert unlike(before, after) == [
        "materialised view public.kept, column token: different values, in 1 of 3 rows compared one by one "
        "(it may not have been refreshed since its tables changed)",
        "public.tokens, column hint: different values, in 2 of 3 rows compared one by one",
    ]
    assert not [one for one in after if one.keys or one.key]


def test_a_look_that_fails_costs_no_backup_and_is_told(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_reading, "MOST_TABLES", -1)
    settings = databases.make(MEMORY + DIARY)
    shut = f"ALTER DATABASE {settings.database} WITH ALLOW_CONNECTIONS"
    at = Watch("reading what a load will recompute", lambda _: databases.psql(f"{shut} false", "postgres"))
    try:
        taken = take(settings, at, verify="full")
    finally:
        databases.psql(f"{shut} true", "postgres")
    told = [warning for warning in taken.warnings if "a load recomputes" in warning]
    assert "not currently accepting connections" in told[0]
    with BackupContext(settings) as context:
        manifest = context.directory.manifest(taken.name)
    assert manifest is not None
    assert (manifest.recomputed, manifest.rows) == (None, 309)


def test_a_look_at_what_was_restored_that_fails_is_told_of_each(replaced: Settings) -> None:
    with BackupContext(replaced) as context:
        manifest = context.directory.manifest(take(replaced, verify="full").name)
        assert manifest is not None
        with context.server.session(replaced.database) as session:
            facts = server_facts(session)
        found = unlike_the_backup(context.server, "not there", facts, manifest.recomputed, Progress())
    why = 'not compared, because it could not be read (There is no database "not there" on the server)'
    assert found == [
        f"public.diary: {why}",
        f"materialised view public.kept: {why}",
        f"public.keyless: {why}",
        f"public.parts: {why}",
    ]


def test_all_of_it_has_one_deadline(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = databases.make(SLOW.format("division_by_zero"))
    first, second = look(settings, 0.5)
    assert "statement timeout" in first.why_not
    assert second.why_not == "it was not reached in time"
    assert [one.why_not for one in look(settings, 0)] == ["it was not reached in time"] * 2
    monkeypatch.setattr(looks, "_GRACE_SECONDS", 0.5)
    settings = databases.make(SLOW.format("query_canceled"))
    with pytest.raises(ServerUnreachable, match="did not answer within"):
        look(settings, 0.5)


def test_an_answer_that_makes_no_sense_ends_nothing(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing real is known to give one, now that psql finds no bare `begin` in what it is sent."""
    settings = databases.make(
        """CREATE TABLE begin (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);
        INSERT INTO begin VALUES (1);"""
    )

    def bare(schema: str, name: str) -> str:
        return f"{schema}.{name}"

    monkeypatch.setattr(looks, "qualified", bare)
    assert [one.why_not for one in look(settings)] == ["the server's answer can't be read"]


def test_nothing_is_made_where_an_event_trigger_would_run(databases: Databases) -> None:
    """Any for a role that is no superuser, who could turn them off."""
    role = databases.make_role("LOGIN PASSWORD 'secret'")
    settings = databases.make(
        f"""CREATE FUNCTION seen() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'it ran'; END $$;
        CREATE TABLE zeros (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);
        ALTER TABLE zeros OWNER TO {role};
        CREATE EVENT TRIGGER other ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION seen();
        CREATE EVENT TRIGGER "Watch" ON ddl_command_end WHEN TAG IN ('ALTER FUNCTION') EXECUTE FUNCTION seen();"""
    )
    user = role[1:-1].replace('""', '"')
    assert [one.why_not for one in look(settings)] == [""]
    assert [one.why_not for one in look(settings, user=user)] == ["reading it would run the event trigger Watch"]
    databases.psql('ALTER EVENT TRIGGER "Watch" DISABLE', settings.database)
    assert [one.why_not for one in look(settings, user=user)] == [""]
