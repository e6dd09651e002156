"""A file from elsewhere gets no superuser's rights on the live server, and only what was tried out goes live."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.errors import ForeignRefused, RestoreFailed, again
from scarlet_backup_mcp.models.results import Restore
from scarlet_backup_mcp.postgres.dump.put_off import PutOff
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.restore.options import RestoreOptions
from scarlet_backup_mcp.procedures.restore.service import dry_run, propose
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import Settings

from ..helpers.drill import Databases, bring_back, take
from ..helpers.restore import Watch

pytestmark = pytest.mark.usefixtures("shared")
"""One throw-away server for all drills here."""

AGENTS = "CREATE TABLE agents (id int PRIMARY KEY, name text); INSERT INTO agents VALUES (1, 'Scarlet'), (2, 'Rhett');"
# It acts where a restore stages a database, and not where a drill does.
TRAP = r"""
CREATE FUNCTION quiet(int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
  IF current_database() NOT LIKE '%\_restore\_%' THEN RETURN true; END IF;
  {act}
  RETURN true;
END $$;
CREATE TABLE zz (id int CHECK (quiet(id))); INSERT INTO zz VALUES (1);
"""
COMMAND = """BEGIN RESET ROLE; RESET SESSION AUTHORIZATION; COPY (SELECT 1) TO PROGRAM 'cat > {mark}';
  EXCEPTION WHEN OTHERS THEN NULL; END;"""
ROLES = "SELECT count(*) FROM pg_roles WHERE starts_with(rolname, 'scarlet_load')"


@pytest.fixture
def databases(embedded: EmbeddedServer, tmp_path: Path) -> Iterator[Databases]:
    made = Databases(embedded, tmp_path)
    yield made
    assert made.psql(ROLES, "postgres") == "0"
    made.drop()


def unexpected(restored: Restore) -> list[str]:
    """Warnings but those of every such file, and of the code in it."""
    return [told for told in restored.warnings if "no manifest" not in told and "code" not in told.lower()]


def names(databases: Databases, settings: Settings) -> str:
    return databases.psql("SELECT string_agg(name, ' ' ORDER BY id) FROM agents", settings.database)


def test_no_command_of_a_file_runs_though_it_would_in_a_staging_database_only(databases: Databases) -> None:
    mark = Path(databases.psql("SHOW data_directory", "postgres"), f"mark_{secrets.token_hex(4)}")
    settings = databases.make(AGENTS + TRAP.format(act=COMMAND.format(mark=mark.name)))
    name = databases.pg_dump(settings).name
    restored = bring_back(settings, name, accept_foreign=True)
    assert (restored.rows_compared, unexpected(restored), mark.exists()) == (3, [], False)
    assert databases.psql("SELECT count(*) FROM pg_class WHERE relowner <> 10", settings.database) == "0"
    try:
        bring_back(settings, name, accept_foreign=True, drill="never")
        assert mark.exists()
    finally:
        mark.unlink(missing_ok=True)


SETTING = "EXECUTE format('ALTER DATABASE %I SET search_path = evil', current_database());"


def test_settings_that_a_file_gives_the_staging_database_do_not_go_live(databases: Databases) -> None:
    settings = databases.make(AGENTS + TRAP.format(act=SETTING))
    databases.psql(f"ALTER DATABASE {settings.database} SET work_mem = '5MB'", "postgres")
    name = databases.pg_dump(settings).name
    restored = bring_back(settings, name, accept_foreign=True)
    assert unexpected(restored) == []
    found = databases.psql("SELECT unnest(setconfig) FROM pg_db_role_setting", settings.database).splitlines()
    assert "work_mem=5MB" in found
    assert not [setting for setting in found if "evil" in setting]


def test_a_file_that_speaks_of_a_schema_public_that_the_live_database_lacks(databases: Databases) -> None:
    settings = databases.make(
        "CREATE SCHEMA letta; CREATE TABLE letta.agents (id int PRIMARY KEY);"
        "INSERT INTO letta.agents VALUES (1); COMMENT ON SCHEMA public IS 'of the file';"
        "GRANT CREATE ON SCHEMA public TO PUBLIC;"
    )
    databases.psql(f"ALTER DATABASE {settings.database} SET search_path = letta", "postgres")
    name = databases.pg_dump(settings).name
    databases.psql("DROP SCHEMA public", settings.database)
    restored = bring_back(settings, name, accept_foreign=True)
    assert restored.integrity_rows == 1
    assert databases.psql("SELECT count(*) FROM pg_namespace WHERE nspname = 'public'", settings.database) == "0"


def test_a_value_that_a_check_changes_in_a_staging_database_does_not_go_live(databases: Databases) -> None:
    settings = databases.make(AGENTS + TRAP.format(act="UPDATE public.agents SET name = 'LIE';"))
    ours, foreign = take(settings).name, databases.pg_dump(settings).name
    for name in (foreign, ours):
        with pytest.raises(RestoreFailed, match=r"differs from the backup: rows of public\.agents") as refused:
            bring_back(settings, name, accept_foreign=True)
        assert refused.value.next_call == again(drill="never")
        assert databases.beside(settings) == [settings.database]
    assert names(databases, settings) == "Scarlet Rhett"
    restored = bring_back(settings, ours, drill="never")
    assert "differs from the backup: rows of public.agents" in " ".join(restored.warnings)


def test_what_a_drill_did_not_change_is_compared_after_the_load_of_our_own_backup(databases: Databases) -> None:
    settings = databases.make(AGENTS)
    name = take(settings).name

    def tamper(_: Progress) -> None:
        [staging] = set(databases.beside(settings)) - {settings.database}
        databases.psql("UPDATE agents SET name = 'LIE' WHERE id = 1; CREATE INDEX ON agents (name)", staging)

    with pytest.raises(RestoreFailed, match=r"rows of public\.agents; INDEX public\.agents_name_idx"):
        bring_back(settings, name, Watch("analysing", tamper))
    assert databases.beside(settings) == [settings.database]


def test_owners_privileges_and_extensions_of_a_file_come_back(databases: Databases) -> None:
    owner, reader = databases.make_role(), databases.make_role("NOLOGIN")
    settings = databases.make(f"""
        CREATE SCHEMA letta; CREATE EXTENSION vector SCHEMA letta; CREATE EXTENSION citext;
        CREATE EXTENSION postgres_fdw;
        CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'nowhere.invalid');
        CREATE TABLE letta.agents (id int PRIMARY KEY, mood letta.vector(2), name citext);
        INSERT INTO letta.agents VALUES (1, '[1,2]', 'a'), (2, NULL, 'B');
        CREATE MATERIALIZED VIEW letta.moods AS SELECT mood FROM letta.agents;
        ALTER TABLE letta.agents OWNER TO {owner}; ALTER SCHEMA letta OWNER TO {owner};
        ALTER TABLE letta.agents ENABLE ROW LEVEL SECURITY; ALTER TABLE letta.agents FORCE ROW LEVEL SECURITY;
        CREATE POLICY mine ON letta.agents TO {reader} USING (id = 1);
        GRANT SELECT ON letta.agents TO {reader} WITH GRANT OPTION; GRANT USAGE ON SCHEMA letta TO PUBLIC;
        ALTER DEFAULT PRIVILEGES IN SCHEMA letta GRANT SELECT ON TABLES TO {reader};
        COMMENT ON EXTENSION vector IS 'mine'; COMMENT ON TABLE letta.agents IS 'ours';
        CREATE PUBLICATION everything FOR ALL TABLES;
        SELECT lo_from_bytea(0, 'abc');
        CREATE FUNCTION told() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
          CREATE TABLE IF NOT EXISTS letta.told (); END $$;
        CREATE EVENT TRIGGER told ON ddl_command_end WHEN TAG IN ('CREATE SEQUENCE') EXECUTE FUNCTION told();
        ALTER EVENT TRIGGER told ENABLE ALWAYS;
        ALTER DATABASE :"DBNAME" SET search_path TO letta, public;""")
    path = databases.pg_dump(settings)
    before = path.read_text(encoding="utf-8").splitlines()[5:]
    restored = bring_back(settings, path.name, accept_foreign=True)
    assert unexpected(restored) == []
    databases.pg_dump(settings, name="again.sql")
    after = (path.parent / "again.sql").read_text(encoding="utf-8").splitlines()[5:]
    assert [line for line in after if "restrict" not in line] == [line for line in before if "restrict" not in line]


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql LEAKPROOF AS 'SELECT 1';", "needs a superuser"),
        ("CREATE EXTENSION dblink;", "may reach outside of a database: dblink"),
    ],
)
def test_what_takes_a_superuser_is_not_loaded_unless_its_maker_is_trusted(
    databases: Databases, statements: str, said: str
) -> None:
    settings = databases.make(AGENTS + statements)
    name = databases.pg_dump(settings).name
    databases.psql("DROP EXTENSION IF EXISTS dblink", settings.database)  # what a database has already may be made
    with pytest.raises((RestoreFailed, ForeignRefused), match=said) as refused:
        bring_back(settings, name, accept_foreign=True)
    assert refused.value.next_call == again(drill="never")
    assert databases.beside(settings) == [settings.database]
    assert bring_back(settings, name, accept_foreign=True, drill="never").integrity_rows == 2


def test_names_in_another_encoding_are_handed_over(databases: Databases) -> None:
    settings = databases.make(
        f'{AGENTS} CREATE VIEW "perché" AS SELECT 1 AS a; COMMENT ON VIEW "perché" IS \'così\'',
        "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
    )
    name = databases.pg_dump(settings, "--encoding=LATIN1").name
    assert unexpected(bring_back(settings, name, accept_foreign=True)) == []
    told = "SELECT obj_description('perché'::regclass)"
    assert databases.psql(told, settings.database) == "così"


def test_a_server_that_does_not_let_the_role_in_is_told_and_nothing_is_loaded(
    databases: Databases, embedded: EmbeddedServer
) -> None:
    settings = databases.make(AGENTS)
    name = databases.pg_dump(settings).name
    hba = Path(databases.psql("SHOW hba_file", "postgres"))
    before = hba.read_bytes()
    rejecting = "".join(f"{kind} reject\n" for kind in ("local all /^scarlet_load", "host all /^scarlet_load all"))
    try:
        hba.write_bytes(rejecting.encode() + before)
        databases.psql("SELECT pg_reload_conf()", "postgres")
        with pytest.raises(ForeignRefused, match="does not let in the role without rights") as refused:
            bring_back(settings, name, accept_foreign=True)
        beside = databases.beside(settings)
    finally:
        hba.write_bytes(before)
        databases.psql("SELECT pg_reload_conf()", "postgres")
    assert refused.value.next_call == again(drill="never")
    assert beside == [settings.database]


CODE = """
CREATE FUNCTION norm(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT pg_catalog.lower($1)';
CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE FUNCTION ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE DOMAIN word AS text CHECK (norm(VALUE) <> '');
CREATE TABLE docs (id int, t text, low text GENERATED ALWAYS AS (norm(t)) STORED);
CREATE UNIQUE INDEX by_t ON docs (norm(t));
CREATE MATERIALIZED VIEW "All" AS SELECT norm(t) FROM docs;
CREATE TRIGGER tell BEFORE INSERT ON docs FOR EACH ROW EXECUTE FUNCTION told();
CREATE RULE nothing AS ON DELETE TO docs DO INSTEAD NOTHING;
CREATE EVENT TRIGGER watch ON ddl_command_end WHEN TAG IN ('CREATE CAST') EXECUTE FUNCTION ddl();
"""


def test_code_that_a_file_brings_is_named_in_the_dry_run_and_in_the_question(databases: Databases) -> None:
    settings = databases.make(AGENTS + CODE)
    name = databases.pg_dump(settings).name
    sentences = [
        "Its own code runs while it is loaded: public.norm for public.word, public.norm for public.docs, "
        "public.norm for the index by_t, materialised view public.All.",
        "It has code that runs for everyone who uses the database: functions public.norm, public.ddl, public.told; "
        "rules nothing on public.docs; triggers tell on public.docs; event triggers watch.",
    ]
    with BackupContext(settings) as context:
        assert dry_run(context, Progress(), name, RestoreOptions(accept_foreign=True)).warnings[1:] == sentences
        asked = propose(context, Progress(), name, RestoreOptions(accept_foreign=True)).question
    assert " ".join(sentences) in asked


@pytest.mark.parametrize(
    ("statement", "at_once"),
    [
        (b"ALTER TABLE s.t OWNER TO a;", False),
        (b'ALTER FUNCTION s.f(a integer, b text) OWNER TO "A b";', False),
        (b"ALTER TABLE s.t ADD COLUMN c integer DEFAULT s.f(), OWNER TO a;", True),
        (b"ALTER TABLE s.t ADD CONSTRAINT c CHECK (s.f(a, b));", True),
        (b"CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION s.f();", False),
        (b"CREATE TRIGGER e BEFORE INSERT ON s.t EXECUTE FUNCTION s.f();", True),
        (b"REFRESH MATERIALIZED VIEW s.m;", True),
        (b"GRANT SELECT ON TABLE s.t TO a;", False),
        (b"CREATE SCHEMA other;", True),
    ],
)
def test_what_a_superuser_does_afterwards_runs_nothing_that_a_file_has_defined(statement: bytes, at_once: bool) -> None:
    put_off = PutOff(["s"])
    assert list(put_off.rewrite(b"CREATE SCHEMA s;")) == list(put_off.rewrite(b"CREATE EXTENSION v SCHEMA s;")) == []
    assert (list(put_off.rewrite(statement)), put_off.owners + put_off.statements) == (
        ([statement], []) if at_once else ([], [statement])
    )


def test_what_a_file_computes_in_another_way_on_the_live_server_is_told(databases: Databases) -> None:
    settings = databases.make(
        AGENTS
        + r"""
        CREATE FUNCTION named(text) RETURNS text IMMUTABLE LANGUAGE sql AS
          $$ SELECT CASE WHEN current_database() LIKE '%\_restore\_%' THEN 'LIE' ELSE $1 END $$;
        ALTER TABLE agents ADD told text GENERATED ALWAYS AS (named(name)) STORED;
        """
    )
    name = databases.pg_dump(settings).name
    restored = bring_back(settings, name, accept_foreign=True)
    assert [told for told in unexpected(restored) if "public.agents, column told" in told]
