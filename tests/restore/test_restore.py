"""`restore` on a real server in a container: it brings everything back, or it leaves everything alone."""

from __future__ import annotations

import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import (
    BackupMissing,
    Busy,
    PreflightFailed,
    RestoreFailed,
    again,
)
from scarlet_backup_mcp.models.common import Compression
from scarlet_backup_mcp.procedures.restore.options import Confirmed
from scarlet_backup_mcp.procedures.restore.service import dry_run
from scarlet_backup_mcp.progress import Progress

from ..conftest import Stack
from ..helpers.restore import (
    IMPOSSIBLE,
    UNAVAILABLE,
    Mind,
    Watch,
    foreign,
    listing,
    put_back,
    refusal,
    started_at,
    take,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills with SIGKILL")

# -- Scarlet's memory after its loss ---------------------------------------------------------------------------------

LOSSES = {
    "emptied": "TRUNCATE organizations CASCADE; TRUNCATE agents, messages, block CASCADE;",
    "tables dropped": "DROP TABLE blocks_agents, block, block_history, messages, archival_passages, agents CASCADE;",
    "database dropped": "\\connect postgres\nDROP DATABASE letta WITH (FORCE);",
}


@pytest.mark.sample(1)
@pytest.mark.parametrize(("loss", "compression"), list(zip(LOSSES, ("none", "zstd", "none"), strict=True)))
def test_scarlets_memory_comes_back_whole(scarlet: Stack, tmp_path: Path, loss: str, compression: Compression) -> None:
    letta = Mind(scarlet.container, "letta", tmp_path / "backups")
    before = letta.content()
    was_started = started_at(scarlet.dependent)
    made = take(letta, compression=compression)

    scarlet.psql(LOSSES[loss])
    there = "letta" in letta.databases()
    assert not there or letta.content().rows != before.rows
    done = put_back(letta, "latest", stop_dependents=True)

    assert letta.content() == before
    # As a client finds it that connects plainly, with the settings of the database itself.
    assert letta.psql("SHOW search_path") == 'letta, "$user", public'
    assert letta.psql("SELECT count(*) FROM agents") == "2"
    assert (done.restored, done.dry_run, done.source, done.source_kind) == (True, False, made.name, "backup")
    assert (done.source_created_at, done.database) == (made.created_at, "letta")
    assert done.undo_point in (letta.undo_points() if there else [None])
    assert (done.rows_compared, done.integrity_rows) == (made.rows, 2)
    assert done.integrity_rows_before == {"emptied": 0}.get(loss)
    assert done.unavailable_seconds is not None
    assert 0 < done.unavailable_seconds < UNAVAILABLE
    assert [(d.name, d.action) for d in done.dependents] == [(scarlet.dependent, "restarted")]
    assert scarlet.state(scarlet.dependent) == "running"
    assert started_at(scarlet.dependent) != was_started
    assert all(step.ok and step.step == "Restore" for step in done.steps)
    titles = " / ".join(step.title for step in done.steps)
    assert re.search("Verify.*Load.*Compare.*settings.*count.*Swap.*Start", titles)
    assert done.warnings == []
    assert not letta.journal.exists()


# -- undo ------------------------------------------------------------------------------------------------------------


def test_undo_and_its_undo_bring_back_exactly_what_was_there(mind: Mind, stack: Stack) -> None:
    live, was_started = mind.content(), started_at(stack.dependent)
    restored = put_back(mind, mind.saved, stop_dependents=False)
    assert [(d.name, d.action) for d in restored.dependents] == [(stack.dependent, "left running")]
    saved = mind.content()
    assert saved.rows != live.rows
    assert restored.undo_point is not None

    confirmed = Confirmed(None, int(mind.databases()[mind.name]))
    undone = put_back(mind, restored.undo_point, confirmed=confirmed)
    assert mind.content() == live
    assert (undone.source_kind, undone.source) == ("undo_point", restored.undo_point)
    assert mind.undo_points() == [undone.undo_point]
    assert undone.unavailable_seconds is not None
    assert undone.unavailable_seconds < 1
    assert undone.duration_seconds < UNAVAILABLE

    assert undone.undo_point is not None
    put_back(mind, undone.undo_point)
    assert mind.content() == saved
    assert started_at(stack.dependent) == was_started


@pytest.mark.long
def test_undo_need_not_wait_for_another_second(mind: Mind) -> None:
    """The name of an undo point holds its second, and an undo takes less than one."""
    point: str | None = mind.set_aside("aside")
    for _ in range(3):
        assert point is not None
        point = put_back(mind, point).undo_point
    assert mind.undo_points() == [point]
    assert mind.psql("SELECT was FROM letta.marker") == "aside"


def test_oldest_undo_point_is_dropped_only_on_word_and_after_success(mind: Mind) -> None:
    oldest, newer = mind.set_aside("old", "20250101_000000"), mind.set_aside("newer")
    error = refusal(mind, PreflightFailed, mind.saved)
    assert oldest in error.message
    assert error.next_call == again(drop_oldest_undo=True)

    with pytest.raises(RestoreFailed):
        put_back(mind, foreign(mind, IMPOSSIBLE), drop_oldest_undo=True, accept_foreign=True, drill="never")
    assert mind.undo_points() == [oldest, newer]

    done = put_back(mind, mind.saved, drop_oldest_undo=True)
    assert mind.undo_points() == [newer, done.undo_point]


@pytest.mark.long
def test_no_undo_point_is_dropped_when_none_is_added(mind: Mind) -> None:
    points = [mind.set_aside("old", "20250101_000000"), mind.set_aside("newer")]
    mind.psql(f"DROP DATABASE {mind.name}", "postgres")
    done = put_back(mind, mind.saved, drop_oldest_undo=True)
    assert done.undo_point is None
    assert mind.undo_points() == points


def test_unknown_undo_point_is_refused_with_those_there_are(mind: Mind) -> None:
    there = mind.set_aside("aside")
    error = refusal(mind, BackupMissing, there.replace("2026", "2020"))
    assert there in error.remedy


# -- what a dump leaves out ------------------------------------------------------------------------------------------


@pytest.fixture
def roles(stack: Stack, saved: Mind) -> Iterator[list[str]]:
    """Three roles of the test's own."""
    names = [f"{kind}_{secrets.token_hex(4)}" for kind in ("owner", "writer", "reader")]
    stack.psql("".join(f"CREATE ROLE {name};" for name in names), "postgres")
    yield names
    saved.drop()
    stack.psql("".join(f"DROP ROLE {name};" for name in names), "postgres")


_PROPERTIES = """
CREATE SCHEMA "Estensioni, varie";
CREATE EXTENSION pg_trgm SCHEMA "Estensioni, varie";
ALTER DATABASE {name} SET search_path TO letta, "$user", "Estensioni, varie", public;
ALTER DATABASE {name} SET timezone TO 'Europe/Rome';
ALTER DATABASE {name} SET datestyle TO 'SQL, DMY';
ALTER DATABASE {name} SET temp_tablespaces TO pg_default;
ALTER DATABASE {name} SET default_transaction_read_only TO on;
ALTER DATABASE {name} SET letta.motto TO E'l''anima è "mia", \\\\ sempre';
ALTER ROLE {reader} IN DATABASE {name} SET search_path TO "Estensioni, varie", letta;
ALTER ROLE {reader} IN DATABASE {name} SET role TO {writer};
ALTER ROLE {writer} IN DATABASE {name} SET statement_timeout TO '1ms';
ALTER DATABASE {name} CONNECTION LIMIT 17;
COMMENT ON DATABASE {name} IS E'la "memoria" di Scarlet \\\\ d''oro 🌹';
ALTER TABLE letta.agents OWNER TO {owner};
ALTER DATABASE {name} OWNER TO {owner};
REVOKE ALL ON DATABASE {name} FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE {name} TO {writer} WITH GRANT OPTION;
GRANT CREATE ON DATABASE {name} TO {reader};
SET ROLE {writer};
GRANT CONNECT ON DATABASE {name} TO {reader};
"""


def test_owner_privileges_settings_comment_and_extensions_come_back(mind: Mind, roles: list[str]) -> None:
    owner, writer, reader = roles
    mind.psql(_PROPERTIES.format(name=mind.name, owner=owner, writer=writer, reader=reader))
    before = mind.content()
    assert before.schemas == ["Estensioni, varie", "letta"]
    made = take(mind)

    all_other = f"""ALTER DATABASE {mind.name} RESET ALL; ALTER ROLE {reader} IN DATABASE {mind.name} RESET ALL;
        ALTER DATABASE {mind.name} OWNER TO postgres; ALTER DATABASE {mind.name} CONNECTION LIMIT -1;
        GRANT ALL ON DATABASE {mind.name} TO PUBLIC; COMMENT ON DATABASE {mind.name} IS NULL;"""
    mind.psql(all_other, "postgres")
    confirmed = Confirmed(made.sha256, int(mind.databases()[mind.name]))
    done = put_back(mind, made.name, confirmed=confirmed)
    assert mind.content() == before
    assert done.warnings == []
    assert mind.psql("SHOW search_path; SHOW timezone").splitlines() == [
        'letta, "$user", "Estensioni, varie", public',
        "Europe/Rome",
    ]


def test_missing_role_is_refused_with_the_statement_that_creates_it(mind: Mind) -> None:
    role = f"Role {secrets.token_hex(4)}"
    mind.psql(f'CREATE ROLE "{role}" LOGIN CREATEDB; ALTER TABLE agents OWNER TO "{role}";')
    made = take(mind)
    mind.psql(f'ALTER TABLE agents OWNER TO postgres; DROP ROLE "{role}";')
    error = refusal(mind, PreflightFailed, made.name)
    assert role in error.message
    assert f'CREATE ROLE "{role}" LOGIN CREATEDB;' in error.remedy


# -- dry run ---------------------------------------------------------------------------------------------------------


def test_dry_run_tells_what_would_be_done_and_changes_nothing(mind: Mind, stack: Stack) -> None:
    around, files, was_started = mind.around(), listing(mind.directory), started_at(stack.dependent)
    with mind.context() as context:
        told = dry_run(context, Progress(), "latest")
    assert (told.restored, told.dry_run, told.source) == (False, True, mind.saved)
    assert (told.rows_compared, told.integrity_rows, told.integrity_rows_before) == (304, 3, 3)
    assert told.unavailable_seconds is None
    assert [(d.name, d.action) for d in told.dependents] == [(stack.dependent, "would be restarted")]
    assert {step.ok for step in told.steps} == {True, None}
    assert (mind.around(), listing(mind.directory), started_at(stack.dependent)) == (around, files, was_started)


# -- two at once -----------------------------------------------------------------------------------------------------


def test_second_restore_is_refused_from_the_same_directory_and_from_another(mind: Mind, tmp_path: Path) -> None:
    elsewhere = replace(mind, directory=tmp_path / "elsewhere")
    shutil.copytree(mind.directory, elsewhere.directory)
    refused: list[str] = []

    def try_both(_: Progress) -> None:
        for second in (mind, elsewhere):
            with pytest.raises(Busy) as raised:
                put_back(second, second.saved)
            refused.append(raised.value.code)

    done = put_back(mind, mind.saved, Watch("comparing", try_both))
    assert refused == ["busy", "busy"]
    assert mind.undo_points() == [done.undo_point]
    assert mind.fingerprint() == mind.saved_fingerprint
