"""A drill and a restore take the same steps, and bring back what belongs to a database as a whole."""

from __future__ import annotations

import secrets

from scarlet_backup_mcp.models.verification import Check, Drill
from scarlet_backup_mcp.procedures.loading import load_checks
from scarlet_backup_mcp.procedures.own_names import MARK

from ..helpers.drill import Databases, bring_back, drill, take
from ..helpers.restore import Watch

AGENTS = "CREATE TABLE agents (id int PRIMARY KEY); INSERT INTO agents VALUES (1), (2);"
STEPS = ("creating", "analysing", "dumping what was restored")


def test_a_drill_and_a_restore_take_the_same_steps(databases: Databases) -> None:
    settings = databases.make(AGENTS)
    name = take(settings).name
    drilled, restored = Watch(), Watch()
    assert drill(settings, name, drilled).proved
    bring_back(settings, name, restored)
    for watch in (drilled, restored):
        found = [stage for stage in watch.stages if stage.startswith(STEPS)]
        assert [stage.partition(" ")[0] for stage in found] == ["creating", "analysing", "dumping"]


def test_a_template_in_a_tablespace_comes_back_as_one_and_gives_way(databases: Databases) -> None:
    settings = databases.make(AGENTS)
    name, tablespace = settings.database, f"room_{secrets.token_hex(4)}"
    query = """SELECT string_agg(concat(datistemplate, ' ', spcname), ', ') FROM pg_database d
               JOIN pg_tablespace t ON t.oid = dattablespace WHERE starts_with(datname, '{}')"""
    databases.psql(
        f"SET allow_in_place_tablespaces = on; CREATE TABLESPACE {tablespace} LOCATION '';"
        f"ALTER DATABASE {name} SET TABLESPACE {tablespace}; ALTER DATABASE {name} IS_TEMPLATE true;",
        "postgres",
    )
    try:
        taken = take(settings).name
        assert drill(settings, taken).proved
        for _ in range(3):
            assert bring_back(settings, taken, drop_oldest_undo=True).warnings == []
        assert databases.psql(query.format(name), "postgres") == ", ".join([f"t {tablespace}"] * 3)
    finally:
        for found in databases.beside(settings):
            databases.psql(f"ALTER DATABASE {found} IS_TEMPLATE false", "postgres")
            databases.psql(f"DROP DATABASE {found}", "postgres")
        databases.psql(f"DROP TABLESPACE {tablespace}", "postgres")


def test_what_a_sandbox_can_not_give_the_database_leaves_it_open() -> None:
    report = Drill(proved=None, where="there", server_version="15.20", duration_seconds=0)
    checks = [Check(check=load_checks.ROWS, ok=True), Check(check=load_checks.OBJECTS, ok=True)]
    load_checks.conclude(report, [*checks, Check(check=load_checks.SETTINGS, ok=True)], [])
    assert (report.proved, report.verdict) == (True, "proved")
    load_checks.conclude(report, [*checks, Check(check=load_checks.SETTINGS, ok=None, detail="no locale it_IT")], [])
    assert (report.proved, report.verdict, report.detail) == (None, "unknown", "drill_settings: no locale it_IT")


def test_a_role_that_a_killed_restore_left_is_dropped_by_the_next_call(databases: Databases) -> None:
    settings = databases.make(AGENTS)
    role = f"scarlet_load_{secrets.token_hex(4)}"
    databases.psql(f"CREATE ROLE {role} LOGIN; COMMENT ON ROLE {role} IS '{MARK}loads old.sql'", "postgres")
    take(settings)
    assert databases.psql(f"SELECT count(*) FROM pg_roles WHERE rolname = '{role}'", "postgres") == "0"
