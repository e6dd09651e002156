"""Databases whose dump can't be loaded as it stands, or only under their own settings: they come back all the same, or
it is said what would make them.

Each is a small database of its own, most on the embedded server, and drills take place in one throw-away server.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from scarlet_backup_mcp import summaries
from scarlet_backup_mcp.errors import (
    ArgumentsInvalid,
    BackupMissing,
    ConstraintViolated,
    RestoreFailed,
    WillNotLoad,
    again,
)
from scarlet_backup_mcp.hosts import Host
from scarlet_backup_mcp.models.common import Verdict
from scarlet_backup_mcp.models.verification import StoredVerification, Verification
from scarlet_backup_mcp.postgres.server import programs
from scarlet_backup_mcp.procedures.catalog import records
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.drill import sql as drills
from scarlet_backup_mcp.procedures.gate import gate
from scarlet_backup_mcp.procedures.loading import attempts, source_settings
from scarlet_backup_mcp.procedures.restore.options import RestoreOptions
from scarlet_backup_mcp.procedures.restore.service import propose
from scarlet_backup_mcp.procedures.sandbox.lifecycle import SandboxServer, sandbox_server
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import Settings, load_settings
from scarlet_backup_mcp.store.names import VERIFIED

from ..conftest import IMAGE
from ..helpers.containers import QUICKLY, psql_in, run_docker, wait_for_server
from ..helpers.drill import Databases, SandboxServers, bring_back, drill, listed, nobody_knows, share, take, wrong

AGENTS = "CREATE TABLE agents (id int PRIMARY KEY); INSERT INTO agents VALUES (1), (2);"
NORM = "CREATE FUNCTION norm(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)';"


class Server(Protocol):
    """Where databases are made."""

    def psql(self, statements: str, database: str) -> str:
        """Run SQL; the unaligned rows."""
        ...


@dataclass(frozen=True)
class Box:
    """PostgreSQL 15 in a container of its own, in Rome's time."""

    container: str
    directory: Path

    def make(self, statements: str) -> Settings:
        """Settings for a new database, with a backup directory of its own."""
        name = f"kind_{secrets.token_hex(3)}"
        self.psql(f"CREATE DATABASE {name}", "postgres")
        self.psql(statements, name)
        directory = self.directory / name
        directory.mkdir(mode=0o700)
        return load_settings(dir=directory, container=self.container, database=name)

    def psql(self, statements: str, database: str) -> str:
        """Run SQL; the unaligned rows."""
        return psql_in(self.container, statements, database).strip()


@pytest.fixture(scope="module")
def container(require_docker: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    name = f"scarlet-test-loading-{secrets.token_hex(4)}"
    environment = ("-e", "POSTGRES_PASSWORD=x", "-e", "TZ=Europe/Rome", *QUICKLY)
    run_docker("run", "-d", "--name", name, *environment, IMAGE, "-c", "fsync=off", "-c", "DateStyle=SQL, DMY")
    try:
        wait_for_server(name)
        yield Box(name, tmp_path_factory.mktemp("box"))
    finally:
        run_docker("rm", "-f", "-v", name)


@pytest.fixture(scope="module")
def beside(container: Box) -> Iterator[SandboxServer]:
    settings = load_settings(dir=container.directory, container=container.container)
    with BackupContext(settings) as context, sandbox_server(context, Progress()) as ready:
        yield ready


@pytest.fixture
def box(container: Box, beside: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> Box:
    """The container, with one throw-away container for all drills of its backups."""
    share(beside, monkeypatch)
    return container


def all_rows(server: Server, settings: Settings) -> str:
    """Every row of every table and materialised view, generated columns and all, as the database shows them."""
    relations = server.psql(
        "SELECT c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE relkind IN "
        "('r', 'm') AND n.nspname !~ '^pg_|^information' ORDER BY n.nspname, relname",
        settings.database,
    )
    asked = (f"SELECT '{name}', t::text FROM {name} AS t ORDER BY 2" for name in relations.splitlines())
    return server.psql(";".join(asked), settings.database)


def verdict(found: Verification) -> tuple[Verdict, str | None]:
    assert found.drill is not None
    return found.drill.verdict, found.drill.search_path


# -- what comes back -------------------------------------------------------------------------------------------------

UNQUALIFIED = {
    "a generated column": f"""{NORM}
        CREATE FUNCTION norm3(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN norm($1); END';
        CREATE TABLE docs (id int, t text, n text GENERATED ALWAYS AS (norm3(t)) STORED);
        INSERT INTO docs VALUES (1, 'A');""",
    "a check that looks into a table": """
        CREATE TABLE kinds (k text); INSERT INTO kinds VALUES ('a');
        CREATE FUNCTION known(text) RETURNS bool LANGUAGE sql STABLE AS 'SELECT $1 IN (SELECT k FROM kinds)';
        CREATE TABLE things (k text CHECK (known(k))); INSERT INTO things VALUES ('a');""",
    "a check that looks into a table whose rows come later": """
        CREATE TABLE tenants (k text); INSERT INTO tenants VALUES ('a');
        CREATE FUNCTION known(text) RETURNS bool LANGUAGE sql STABLE AS 'SELECT $1 IN (SELECT k FROM tenants)';
        CREATE TABLE aims (k text CHECK (known(k))); INSERT INTO aims VALUES ('a');""",
    "a trigger's operator in another schema": """
        CREATE SCHEMA ext; CREATE EXTENSION vector SCHEMA ext;
        ALTER DATABASE :"DBNAME" SET search_path TO "$user", public, ext; SET search_path TO public, ext;
        CREATE TABLE passages (id int, e ext.vector(3)); INSERT INTO passages VALUES (1, '[1,2,3]');
        CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
        CREATE TRIGGER changed BEFORE UPDATE ON passages FOR EACH ROW WHEN (new.e IS DISTINCT FROM old.e)
            EXECUTE FUNCTION seen();""",
}
SETTINGS = {
    "a check under the database's time zone": """
        ALTER DATABASE :"DBNAME" SET timezone TO 'Asia/Tokyo'; SET timezone TO 'Asia/Tokyo';
        CREATE TABLE events (at timestamptz, day date CHECK (day = at::date));
        INSERT INTO events VALUES ('2026-01-01 00:30 Asia/Tokyo', '2026-01-01');""",
    "a generated column, an index and a view under a time zone": """
        ALTER DATABASE :"DBNAME" SET timezone TO 'Europe/Rome'; SET timezone TO 'Europe/Rome';
        CREATE FUNCTION day(timestamptz) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1::date::text';
        CREATE TABLE events (at timestamptz, day text GENERATED ALWAYS AS (day(at)) STORED);
        INSERT INTO events VALUES ('2026-01-01 00:30 Europe/Rome'), ('0044-03-15 12:00 BC'), ('infinity');
        CREATE MATERIALIZED VIEW days AS SELECT at::text, day FROM events; CREATE INDEX ON events (day(at));""",
    "a custom variable": """
        ALTER DATABASE :"DBNAME" SET app.tenant TO '42 of \\ "us"'; SET app.tenant TO '42 of \\ "us"';
        CREATE TABLE theirs (tenant text CHECK (tenant = current_setting('app.tenant')));
        INSERT INTO theirs VALUES (current_setting('app.tenant'));""",
    "words and intervals": """
        ALTER DATABASE :"DBNAME" SET default_text_search_config TO 'pg_catalog.italian';
        ALTER DATABASE :"DBNAME" SET intervalstyle TO 'sql_standard';
        ALTER DATABASE :"DBNAME" SET array_nulls TO off; ALTER DATABASE :"DBNAME" SET bytea_output TO 'escape';
        SET default_text_search_config TO 'pg_catalog.italian'; SET bytea_output TO 'escape';
        SET intervalstyle TO 'sql_standard';
        CREATE TABLE notes (t text, i interval, a text[], raw bytea, at date);
        INSERT INTO notes VALUES
            ('le case delle streghe', '-1 days +02:03:04', ARRAY[NULL, 'NULL'], '\\x00ff', '2026-02-01'),
            ('', '1 mon -1 days', NULL, 'x', '0044-03-15 BC');
        CREATE MATERIALIZED VIEW words AS SELECT to_tsvector(t), i::text, raw::text FROM notes;""",
    "a text search configuration of its own": """
        CREATE TEXT SEARCH CONFIGURATION mine (COPY = pg_catalog.german);
        ALTER DATABASE :"DBNAME" SET default_text_search_config TO 'public.mine';
        SET default_text_search_config TO 'public.mine';
        CREATE TABLE notes AS SELECT 'die Häuser' AS t;
        CREATE MATERIALIZED VIEW words AS SELECT to_tsvector(t) FROM notes;""",
}
ON_15 = {
    "an extension's function": """
        CREATE EXTENSION cube; CREATE EXTENSION earthdistance;
        CREATE TABLE places (id int, lat float8, pos earth GENERATED ALWAYS AS (ll_to_earth(lat, 9)) STORED);
        INSERT INTO places VALUES (1, 45);""",
    "a materialised view": """
        CREATE FUNCTION total() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM agents';
        CREATE MATERIALIZED VIEW totals AS SELECT total() AS n;""",
    "a check under the server's time zone": """
        CREATE TABLE events (at timestamptz, day date CHECK (day = at::date));
        INSERT INTO events VALUES ('2026-01-01 00:30 Europe/Rome', '2026-01-01');""",
}
"""Those that only a server before 17 has, or whose settings are the server's own."""


def comes_back(server: Server, settings: Settings, path: str) -> None:
    """Backed up, proved, and restored in the way that was proved."""
    name = take(settings).name
    before = all_rows(server, settings)
    found = drill(settings, name)
    assert (wrong(found), verdict(found)) == ({}, ("proved", path))
    assert settings.dir is not None
    stored = StoredVerification.model_validate_json((settings.dir / f"{name}{VERIFIED}").read_bytes())
    assert (stored.verdict, stored.search_path) == ("proved", path)
    server.psql("TRUNCATE agents", settings.database)
    done = bring_back(settings, name)
    assert (done.warnings, all_rows(server, settings)) == ([], before)
    loaded = next(step.detail for step in done.steps if step.title.startswith("Load it"))
    assert ("own search_path" in loaded) == (path == "database")


@pytest.mark.parametrize("what", [*UNQUALIFIED, *SETTINGS])
def test_what_is_backed_up_is_proved_and_comes_back_as_it_was(
    databases: Databases, shared: SandboxServers, what: str
) -> None:
    settings = databases.make(AGENTS + {**UNQUALIFIED, **SETTINGS}[what])
    comes_back(databases, settings, "database" if what in UNQUALIFIED else "empty")


@pytest.mark.sample(1)
@pytest.mark.parametrize("what", ON_15)
def test_on_15_it_does_too(box: Box, what: str) -> None:
    comes_back(box, box.make(AGENTS + ON_15[what]), "empty" if "time zone" in what else "database")


INDEXED = f"""{NORM}
    CREATE FUNCTION norm2(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)';
    CREATE TABLE docs (id int PRIMARY KEY, t text); INSERT INTO docs VALUES (1, 'A'), (2, 'B');
    CREATE INDEX docs_t ON docs (norm2(t));
    CREATE OR REPLACE FUNCTION norm2(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT norm($1)';
"""


def test_an_index_over_a_function_loads_on_15_with_the_databases_path_but_is_not_proved(box: Box) -> None:
    settings = box.make(AGENTS + INDEXED)
    assert settings.dir is not None
    dumped = run_docker("exec", box.container, "pg_dump", "-U", "postgres", settings.database)
    (settings.dir / "old.sql").write_text(dumped, encoding="utf-8")
    found = drill(settings, "old.sql")
    assert (list(wrong(found)), verdict(found)) == (["drill_load"], ("will_not_load", None))
    assert 'ALTER FUNCTION public.norm2(text) SET search_path = "$user", public;' in wrong(found)["drill_load"]


def test_from_17_on_it_does_not_and_the_way_out_is_written_out(databases: Databases, shared: SandboxServers) -> None:
    found = drill(settings := databases.make(AGENTS + INDEXED), databases.pg_dump(settings).name)
    assert found.drill is not None
    assert verdict(found) == ("will_not_load", None)
    assert 'ALTER FUNCTION public.norm2(text) SET search_path = "$user", public;' in found.drill.detail


# -- what does not ---------------------------------------------------------------------------------------------------


def test_what_the_server_refuses_is_whole_and_the_way_out_is_written_out(
    databases: Databases, shared: SandboxServers
) -> None:
    """From 17 on a server sets a path of its own for a materialised view: the database's does not help."""
    counting = "RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM agents'"
    settings = databases.make(
        AGENTS
        + "CREATE FUNCTION total() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT 7::bigint';"
        + f"CREATE MATERIALIZED VIEW totals AS SELECT total(); CREATE OR REPLACE FUNCTION total() {counting};"
    )
    name = take(settings).name
    found = drill(settings, name)
    statement = 'ALTER FUNCTION public.total() SET search_path = "$user", public;'
    assert (verdict(found), found.proved, list(wrong(found))) == (("will_not_load", None), False, ["drill_load"])
    assert found.drill is not None
    assert statement in found.drill.detail
    assert found.remedy is not None
    assert statement in found.remedy
    text = summaries.describe(found)
    assert "is intact, but in a restore drill it could NOT be loaded as it is" in text
    assert "damage" not in text.lower()
    item = listed(settings, name)
    assert (item.state, statement.removesuffix(";") in item.detail) == ("will_not_load", True)
    with BackupContext(settings) as context:
        with pytest.raises(BackupMissing, match="could not be loaded in a restore drill") as no_other:
            records.latest(context, for_restore=True)
        assert (records.latest(context), name in no_other.value.remedy) == (name, True)
        assert statement in propose(context, Progress(), name, RestoreOptions()).question
        shut = gate(context)
    told = f"In a restore drill {name} could not be loaded: The file is intact, "
    assert [reason.startswith(told) for reason in shut.reasons] == [True]
    assert shut.reasons[0].endswith(
        f"{statement.removesuffix(';')}. Fix that in the live database, then take a new backup."
    )
    before = all_rows(databases, settings)
    for drilled in (None, True):
        with pytest.raises(WillNotLoad) as refused:
            bring_back(settings, name, drill=drilled)
        assert statement in str(refused.value)
    assert (databases.beside(settings), all_rows(databases, settings)) == ([settings.database], before)
    databases.psql(statement, settings.database)
    assert drill(settings, take(settings).name).proved


BROKEN = """
CREATE TABLE parents (id int PRIMARY KEY, n text);
CREATE TABLE children (id int PRIMARY KEY, p int CONSTRAINT c_p_fkey REFERENCES parents, secret text);
CREATE DOMAIN small AS int;
CREATE TABLE limits (id text PRIMARY KEY, v int, s small, CONSTRAINT kept CHECK (id <> ''));
COMMENT ON CONSTRAINT kept ON limits IS 'it is';
INSERT INTO parents VALUES (1, 'x');
SET session_replication_role = replica;
INSERT INTO children SELECT n, n, 'sk-hidden' FROM generate_series(1, 9) AS n;
INSERT INTO limits VALUES (repeat('long ', 30), 20, 200), ('b', 3, 3);
RESET session_replication_role;
ALTER TABLE limits ADD CONSTRAINT low CHECK (v < 10) NOT VALID;
COMMENT ON CONSTRAINT low ON limits IS 'or not';
ALTER DOMAIN small ADD CONSTRAINT tiny CHECK (VALUE < 100) NOT VALID;
UPDATE pg_constraint SET convalidated = true WHERE conname IN ('low', 'tiny');
"""
"""Data that break their constraints, as a bulk load, a change in the catalogue, or a corrupt index leave them."""
CORRUPT = """
UPDATE pg_index SET indisready = false, indisvalid = false WHERE indexrelid = 'parents_pkey'::regclass;
INSERT INTO parents VALUES (1, 'again');
UPDATE pg_index SET indisready = true, indisvalid = true WHERE indexrelid = 'parents_pkey'::regclass;
"""


def test_what_an_older_server_rejects_says_nothing_about_the_backup(
    databases: Databases, shared: SandboxServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No older release of this major version can be had: the sandbox's is only taken for one."""
    counting = "RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM agents'"
    settings = databases.make(
        AGENTS
        + "CREATE FUNCTION total() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT 7::bigint';"
        + f"CREATE MATERIALIZED VIEW totals AS SELECT total(); CREATE OR REPLACE FUNCTION total() {counting};"
    )

    def is_older(version: str, server_version_num: int) -> bool:
        return True

    name = take(settings).name
    monkeypatch.setattr(programs, "is_older", is_older)
    found = drill(settings, name)
    assert (verdict(found), found.proved) == (("unknown", None), None)
    assert found.drill is not None
    assert ". An older one, " in found.drill.detail


def test_rows_that_break_constraints_are_named_and_come_back_if_that_is_accepted(
    databases: Databases, shared: SandboxServers
) -> None:
    settings = databases.make(AGENTS + BROKEN)
    name = take(settings).name
    before = all_rows(databases, settings)
    with pytest.raises(ConstraintViolated) as failed:
        bring_back(settings, name)
    broken = "tiny of public.small, low of public.limits, c_p_fkey of public.children"
    assert f"The database had rows that violate {broken}; the backup is faithful." in failed.value.message
    assert failed.value.next_call == again(accept_violations=True)

    found = drill(settings, name)
    assert (verdict(found), found.proved, list(wrong(found))) == (
        ("constraint_violated", "empty"),
        False,
        ["drill_load"],
    )
    assert found.drill is not None
    told = {item.constraint: (item.table, item.kind, item.rows, item.keys) for item in found.drill.violations}
    assert told == {
        "c_p_fkey": ("public.children", "foreign key", 8, ["2", "3", "4", "5", "6"]),
        "low": ("public.limits", "check", 1, [("long " * 30)[:80]]),
        "tiny": ("public.small", "check", None, []),
    }
    assert found.drill.rows_compared == found.rows
    text = summaries.describe(found)
    assert "c_p_fkey of public.children: rows that violate it: 8, the first with the keys 2, 3, 4, 5, 6" in text
    assert "sk-hidden" not in found.model_dump_json()
    assert "damage" not in text.lower()
    item = listed(settings, name)
    assert (item.state, "the backup is faithful" in item.detail) == ("constraint_violated", True)

    with BackupContext(settings) as context:
        with pytest.raises(BackupMissing, match="rows that violate"):
            records.latest(context, for_restore=True)
        assert [
            reason.endswith("Fix those rows in the live database, then take a new backup.")
            for reason in gate(context).reasons
        ]
        read = verify(context, Progress(), name)
        assert (read.valid, read.verdict, read.drill) == (True, "constraint_violated", None)
        assert "is intact, but in a restore drill its rows violate constraints" in summaries.describe(read)
        with pytest.raises(ConstraintViolated):
            propose(context, Progress(), name, RestoreOptions())
        question = propose(context, Progress(), name, RestoreOptions(accept_violations=True)).question
    assert "NOT VALID" in question
    done = bring_back(settings, name, accept_violations=True)
    assert all_rows(databases, settings) == before
    assert sorted(warning.partition(":")[0] for warning in done.warnings) == [
        "Rows violate the check low of public.limits",
        "Rows violate the check tiny of public.small",
        "Rows violate the foreign key c_p_fkey of public.children",
    ]
    valid = "SELECT string_agg(conname, ',' ORDER BY conname) FROM pg_constraint WHERE NOT convalidated"
    assert databases.psql(valid, settings.database) == "c_p_fkey,low,tiny"
    assert done.undo_point is not None
    with pytest.raises(ArgumentsInvalid, match="no constraint is checked"):
        bring_back(settings, done.undo_point, accept_violations=True)
    described = "SELECT count(*) FROM pg_description WHERE classoid = 'pg_constraint'::regclass"
    assert databases.psql(described, settings.database) == "2"
    assert drill(settings, take(settings).name).proved
    assert done.undo_point is not None
    bring_back(settings, done.undo_point)
    assert databases.psql(valid, settings.database) == ""


def test_a_unique_index_that_rows_break_is_left_out_and_what_rests_on_it(
    databases: Databases, shared: SandboxServers
) -> None:
    settings = databases.make(
        AGENTS
        + "CREATE TABLE parents (id int PRIMARY KEY, n text); COMMENT ON INDEX parents_pkey IS 'x';"
        + "ALTER TABLE parents CLUSTER ON parents_pkey; INSERT INTO parents VALUES (1, 'x');"
        + "CREATE TABLE children (id int PRIMARY KEY, p int CONSTRAINT c_p_fkey REFERENCES parents);"
        + "INSERT INTO children VALUES (7, 1);"
        + CORRUPT
    )
    name = take(settings).name
    before = all_rows(databases, settings)
    found = drill(settings, name)
    assert found.drill is not None
    told = {item.constraint: (item.kind, item.rows, item.keys) for item in found.drill.violations}
    assert verdict(found)[0] == "constraint_violated"
    assert told == {"parents_pkey": ("unique index", 2, ["1"]), "c_p_fkey": ("foreign key", None, [])}
    done = bring_back(settings, name, accept_violations=True, drill="always")
    assert all_rows(databases, settings) == before
    left_out = [warning for warning in done.warnings if "was left out" in warning]
    assert len(left_out) == len(told)
    assert [warning.partition(":")[0] for warning in left_out if "Rows violate" in warning] == [
        "Rows violate the unique index parents_pkey of public.parents"
    ]
    assert any("c_p_fkey of public.children could not be created, because" in warning for warning in left_out)
    assert "c_p_fkey" not in wrong(found)["drill_load"]
    assert done.drill is not None
    assert done.drill.verdict == "constraint_violated"


def test_constraints_that_hold_come_back_as_they_were_where_violations_are_accepted(databases: Databases) -> None:
    settings = databases.make(
        AGENTS
        + """CREATE DOMAIN few AS int DEFAULT 3 CONSTRAINT lower CHECK (VALUE < 9) CONSTRAINT upper CHECK (VALUE > 0);
        COMMENT ON CONSTRAINT lower ON DOMAIN few IS 'x';
        CREATE TABLE only_checked (CONSTRAINT a CHECK (1 > 0), CONSTRAINT b CHECK (2 > 0));
        CREATE TABLE base (id int, v few, CONSTRAINT base_id CHECK (id > 0) NO INHERIT, CONSTRAINT v CHECK (v < 8));
        COMMENT ON CONSTRAINT base_id ON base IS 'y';
        CREATE TABLE heir (CONSTRAINT own CHECK (id <> 5), CONSTRAINT v CHECK (v < 8)) INHERITS (base);
        CREATE TABLE parts (id int CHECK (id < 100), k int CONSTRAINT "k, (odd" CHECK (k > 0)) PARTITION BY LIST (k);
        CREATE TABLE part_1 PARTITION OF parts FOR VALUES IN (1);
        CREATE UNIQUE INDEX parts_id ON parts (id, k); ALTER TABLE agents CLUSTER ON agents_pkey;
        CREATE TABLE refers (a int REFERENCES agents DEFERRABLE, p int, k int,
            FOREIGN KEY (p, k) REFERENCES parts (id, k));
        CREATE TABLE ranges (r int4range, EXCLUDE USING gist (r WITH &&)); COMMENT ON INDEX parts_id IS 'z';
        INSERT INTO base VALUES (1, 2); INSERT INTO heir VALUES (6, 7); INSERT INTO parts VALUES (1, 1);
        INSERT INTO refers VALUES (1, 1, 1); INSERT INTO ranges VALUES ('[1,2)');"""
    )
    name = take(settings).name
    dump = databases.pg_dump(settings, name="before.sql").read_text(encoding="utf-8")
    done = bring_back(settings, name, accept_violations=True)
    assert done.warnings == []
    after = databases.pg_dump(settings, name="after.sql").read_text(encoding="utf-8")
    assert [line for line in after.splitlines() if "restrict" not in line] == [
        line for line in dump.splitlines() if "restrict" not in line
    ]


# -- whose functions may run -----------------------------------------------------------------------------------------


def test_a_path_of_other_owners_is_used_only_as_a_drill_did(databases: Databases, shared: SandboxServers) -> None:
    role = databases.make_role()
    settings = databases.make(AGENTS + UNQUALIFIED["a generated column"] + f"ALTER SCHEMA public OWNER TO {role};")
    name = take(settings).name
    before = all_rows(databases, settings)
    with pytest.raises(WillNotLoad) as refused:
        bring_back(settings, name)
    assert "norm(text) does not exist" in refused.value.message
    assert "(42883, in the function norm3, at TABLE DATA public.docs)" in refused.value.message
    assert refused.value.next_call == again(drill="always")
    assert databases.beside(settings) == [settings.database]
    assert bring_back(settings, name, drill="always").rows_compared == 3
    assert all_rows(databases, settings) == before
    assert listed(settings, name).proved_at is not None


def test_a_function_that_wins_over_the_catalogues_is_a_difference(databases: Databases, shared: SandboxServers) -> None:
    settings = databases.make(
        AGENTS
        + UNQUALIFIED["a generated column"]
        + """CREATE SCHEMA zz; CREATE TABLE names (n varchar, CHECK (concat(n, 'x') <> ''));
        CREATE FUNCTION zz.concat(varchar, text) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'zz'$$;
        ALTER DATABASE :"DBNAME" SET search_path TO public, zz;"""
    )
    name = take(settings).name
    with pytest.raises(RestoreFailed, match=r"(?s)public\.names: .*zz\.concat"):
        bring_back(settings, name)
    found = drill(settings, name)
    assert verdict(found) == ("differs", "database")
    assert "TABLE public.names" in wrong(found)["drill_objects"]
    assert databases.beside(settings) == [settings.database]


def test_a_foreign_file_that_only_its_path_loads_is_not_proved_and_the_way_out_is_written_out(
    databases: Databases, shared: SandboxServers
) -> None:
    settings = databases.make(AGENTS + UNQUALIFIED["a generated column"])
    name = databases.pg_dump(settings).name
    found = drill(settings, name)
    assert (verdict(found), found.proved) == (("will_not_load", None), False)
    statement = 'ALTER FUNCTION public.norm3(text) SET search_path = "$user", public;'
    for told in (found.remedy, wrong(found)["drill_load"], listed(settings, name).detail):
        assert statement.removesuffix(";") in str(told)
    assert "accept_foreign" not in str(found.remedy)
    for drilled in (True, False):
        with pytest.raises(WillNotLoad, match="norm") as refused:
            bring_back(settings, name, accept_foreign=True, drill=drilled)
        assert statement in str(refused.value)
        assert refused.value.next_call is None
    assert databases.beside(settings) == [settings.database]
    databases.psql(statement, settings.database)
    name = databases.pg_dump(settings, name="again.sql").name
    assert (drill(settings, name).proved, bring_back(settings, name, accept_foreign=True).rows_compared) == (True, 3)


def test_a_foreign_files_money_is_dumped_as_the_load_has_read_it(
    databases: Databases, shared: SandboxServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No locale that spells money in another way is on every machine: what pg_dump is told is looked at."""
    told: list[str] = []
    output_of = drills.output_of

    def looking(host: Host, argv: list[str], watch: Any, **options: Any) -> Any:
        told.append(options["env"]["PGOPTIONS"])
        return output_of(host, argv, watch, **options)

    monkeypatch.setattr(drills, "output_of", looking)
    settings = databases.make(AGENTS + "ALTER DATABASE :\"DBNAME\" SET lc_monetary TO 'C';")
    bring_back(settings, databases.pg_dump(settings).name, accept_foreign=True)
    assert ["lc_monetary=C" in options for options in told] == [True]


# -- older manifests, and little memory ------------------------------------------------------------------------------


def test_an_older_manifest_tells_what_was_set_for_the_database(databases: Databases) -> None:
    settings = databases.make(
        AGENTS + SETTINGS["a custom variable"] + "ALTER DATABASE :\"DBNAME\" SET TimeZone TO 'Asia/Tokyo';"
    )
    with BackupContext(settings) as context:
        record = records.sql_record(context, context.directory.find(take(settings).name))
        assert record.manifest is not None
        assert record.manifest.effective is not None
        older = record.manifest.model_copy(update={"effective": None})
        found = source_settings.settings_of(context, older)
        assert found == record.manifest.effective
        assert (found["TimeZone"], found["app.tenant"]) == ("Asia/Tokyo", '42 of \\ "us"')
        databases.drop()
        databases.names.clear()
        assert source_settings.settings_of(context, record.manifest) == record.manifest.effective


@pytest.mark.long
@pytest.mark.parametrize("known", [True, False])
def test_an_index_is_built_where_there_is_little_memory_to_share(
    box: Box, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Docker gives a container 64 MB of shared memory; a parallel build of pgvector's asks for all of
    maintenance_work_mem there. Where nobody knows how much there is, it is built once more, with less."""
    if not known:
        monkeypatch.setattr(attempts, "capacity", nobody_knows)
    little = "with little memory for its indexes"
    settings = box.make(
        AGENTS
        + """CREATE EXTENSION vector; CREATE TABLE passages (v vector(3)) WITH (parallel_workers = 2);
        INSERT INTO passages SELECT ARRAY[sin(i), cos(i), i]::real[]::vector(3) FROM generate_series(1, 50) AS i;
        SET max_parallel_maintenance_workers TO 0; CREATE INDEX ON passages USING hnsw (v vector_cosine_ops);
        ALTER DATABASE :"DBNAME" SET maintenance_work_mem TO '900MB';"""
    )
    name = take(settings).name
    found = drill(settings, name)
    assert found.drill is not None
    assert found.drill.proved
    assert (little in next(c.detail for c in found.checks if c.check == "drill_load")) is not known
    done = bring_back(settings, name)
    assert (little in next(s.detail for s in done.steps if s.title.startswith("Load it"))) is not known
    assert box.psql("SHOW maintenance_work_mem", settings.database) == "900MB"
