"""Restore drills of files that `backup` did not make."""

from __future__ import annotations

import re

import pytest

from scarlet_backup_mcp.errors import (
    RestoreFailed,
)
from scarlet_backup_mcp.settings import Settings

from ..helpers.drill import (
    AGENTS,
    Databases,
    SandboxServers,
    before_the_end,
    bring_back,
    drill,
    listed,
    take,
    wrong,
)


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ("", 14),
        ("--no-owner", 14),
        ("--inserts", 14),
        ("--column-inserts --no-privileges", 14),
        ("--clean --if-exists", 14),
        ("--schema-only", 0),
        ("--encoding=LATIN1 --verbose", 14),
        # Other spellings of the same.
        ("--load-via-partition-root", 14),
        ("--quote-all-identifiers", 14),
        ("--use-set-session-authorization", 14),
    ],
)
def test_a_dump_made_with_any_options_is_proved(
    foreign: tuple[Databases, Settings], shared: SandboxServers, options: str, rows: int
) -> None:
    """The roles it names are made first: nothing else tells of them."""
    databases, settings = foreign
    name = databases.pg_dump(settings, *options.split()).name
    found = drill(settings, name)
    assert found.drill is not None
    assert wrong(found) == {}
    assert (found.valid, found.foreign, found.proved, found.drill.rows_compared) == (False, True, True, rows)
    item = listed(settings, name)
    assert (item.state, item.proved_at) == ("foreign", found.proved_at)


def test_a_dump_whose_rows_can_not_be_counted_is_not_proved_and_not_said_to_be_wrong(
    foreign: tuple[Databases, Settings], shared: SandboxServers
) -> None:
    databases, settings = foreign
    found = drill(settings, databases.pg_dump(settings, "--inserts", "--on-conflict-do-nothing").name)
    assert found.drill is not None
    assert (found.proved, found.drill.proved, found.drill.rows_compared) == (None, None, 0)
    assert "rows could not be compared of public.agents" in found.drill.detail


@pytest.mark.parametrize("option", ["--no-comments", "--disable-dollar-quoting"])
def test_definitions_in_a_form_that_can_not_be_compared_leave_it_open(
    foreign: tuple[Databases, Settings], shared: SandboxServers, option: str
) -> None:
    databases, settings = foreign
    found = drill(settings, databases.pg_dump(settings, option).name)
    assert found.drill is not None
    assert (found.drill.proved, found.drill.rows_compared, wrong(found)) == (None, 14, {})
    assert found.drill.detail.startswith("drill_objects: ")


def test_a_dump_of_a_whole_database_is_drilled_without_what_makes_the_database(
    foreign: tuple[Databases, Settings], shared: SandboxServers
) -> None:
    databases, settings = foreign
    found = drill(settings, databases.pg_dump(settings, "--create").name)
    assert (found.proved, [check.check for check in found.checks if check.ok is False]) == (True, ["manifest"])


@pytest.mark.parametrize(
    ("more", "proved", "named"),
    [
        ("ALTER TABLE public.moods ADD CONSTRAINT impossible CHECK ((mood IS NULL));", False, "drill_load"),
        ("CREATE TABLE public.gone ();\n\nDROP TABLE public.gone;", False, "drill_objects"),
        ("INSERT INTO public.agents VALUES (4);", None, "drill_rows: only the number of rows could be compared of"),
    ],
)
def test_a_file_that_does_not_bring_back_what_it_says_is_not_proved(
    foreign: tuple[Databases, Settings], shared: SandboxServers, more: str, proved: bool | None, named: str
) -> None:
    """Nobody knows how such a file was made, so another form of what it holds is not said to be wrong."""
    databases, settings = foreign
    found = drill(settings, databases.foreign(settings, lambda script: before_the_end(script, more)))
    assert found.drill is not None
    assert (found.proved, found.drill.proved) == (proved, proved)
    if proved is None:
        assert (found.drill.detail.startswith(named), wrong(found)) == (True, {})
    else:
        assert list(wrong(found)) == [named]
    assert listed(settings, "old.sql").state == "foreign"


SPELT = """
CREATE TABLE agents (id int, at timestamptz DEFAULT '2026-01-01 12:00+00', raw bytea);
INSERT INTO agents SELECT n, '2026-03-03 03:03+00', decode(lpad(n::text, 4, '0'), 'hex') FROM generate_series(1, 5) n;
ALTER DATABASE :"DBNAME" SET timezone TO 'Asia/Kathmandu'; ALTER DATABASE :"DBNAME" SET bytea_output TO 'escape';
"""


def test_a_file_dumped_with_the_databases_own_formats_is_proved(databases: Databases, shared: SandboxServers) -> None:
    """As `pg_dump > file` writes it, by settings that change how timestamps and bytea are spelt."""
    settings = databases.make(SPELT)
    name = databases.pg_dump(settings).name
    assert drill(settings, name).proved
    databases.psql('ALTER DATABASE :"DBNAME" RESET ALL', settings.database)
    found = drill(settings, name)
    assert found.drill is not None
    assert (found.drill.proved, wrong(found)) == (None, {})
    assert "another TimeZone or bytea_output: rows of public.agents" in found.drill.detail
    assert bring_back(settings, name, accept_foreign=True).integrity_rows == 5


def test_an_error_of_a_load_shows_no_value(databases: Databases, shared: SandboxServers) -> None:
    settings = databases.make(
        "CREATE TABLE agents (id int, key text UNIQUE); INSERT INTO agents VALUES (1, 'sk-hidden');"
    )
    name = databases.foreign(settings, lambda script: script.replace("1\tsk-hidden", "sk-hidden\tx\n1\tsk-hidden"))
    found = drill(settings, name)
    assert (found.proved, list(wrong(found))) == (False, ["drill_load"])
    assert "(22P02, COPY agents, line 1)" in found.model_dump_json()
    assert "sk-hidden" not in found.model_dump_json()
    with pytest.raises(RestoreFailed) as refused:
        bring_back(settings, name, accept_foreign=True, drill="never")
    assert "sk-hidden" not in str(refused.value)


@pytest.mark.parametrize(("version", "proved"), [("-- Dumped by pg_dump version 15.1", False), ("--", False)])
def test_bad_data_are_no_trouble_between_versions(
    databases: Databases, shared: SandboxServers, version: str, proved: bool
) -> None:
    settings = databases.make("CREATE TABLE agents (id int PRIMARY KEY); INSERT INTO agents VALUES (1), (2);")
    name = databases.foreign(
        settings, lambda script: re.sub(r"-- Dumped by .*", version, script.replace("\n1\n2\n", "\n1\n1\n"))
    )
    found = drill(settings, name)
    assert (found.proved, list(wrong(found))) == (proved, ["drill_load"])
    assert "23505" in found.model_dump_json()


def test_an_event_trigger_that_forbids_everything_keeps_nothing_from_being_proved(
    databases: Databases, shared: SandboxServers
) -> None:
    settings = databases.make(
        AGENTS + "CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$;"
        "CREATE EVENT TRIGGER forbids ON ddl_command_start WHEN TAG IN ('CREATE EXTENSION', 'CREATE SCHEMA')"
        " EXECUTE FUNCTION forbid(); ALTER EVENT TRIGGER forbids ENABLE ALWAYS;"
    )
    assert drill(settings, take(settings).name).proved


def test_an_outcome_that_can_not_be_kept_is_told_with_it(databases: Databases, shared: SandboxServers) -> None:
    settings = databases.make(AGENTS)
    name = databases.pg_dump(settings).name
    assert settings.dir is not None
    (settings.dir / f"{name}.verified.json").mkdir()
    found = drill(settings, name)
    assert found.drill is not None
    assert found.drill.proved
    assert "could not be stored" in " ".join(found.warnings)
