"""`restore` on a real server in a container: it brings everything back, or it leaves everything alone."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from scarlet_backup_mcp.errors import (
    BackupMissing,
    BackupNotValid,
    BackupToolError,
    Busy,
    Cancelled,
    ConfirmationStale,
    ContainerLost,
    ForeignRefused,
    OtherDatabaseRefused,
    PreflightFailed,
    RestoreFailed,
    RestoreInterrupted,
    ServerUnreachable,
    StoreError,
)
from scarlet_backup_mcp.models.common import Compression
from scarlet_backup_mcp.models.results import Backup, Restore
from scarlet_backup_mcp.postgres.server import databases
from scarlet_backup_mcp.postgres.server.session import Session
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.recovery import journal as journals
from scarlet_backup_mcp.procedures.restore.service import Confirmed, dry_run, restore
from scarlet_backup_mcp.procedures.restore.sql_plan import RestoreOptions
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import load_settings

from ..conftest import IMAGE, PROJECT_ROOT, Stack
from ..helpers.containers import run_docker, run_docker_quietly, wait_for_server
from ..helpers.restore import Mind, Watch, listing, started_at
from ..helpers.sampling import sampled

IMPOSSIBLE = b"ALTER TABLE letta.agents ADD CONSTRAINT impossible CHECK ((id < 0));\n"
TRAILER = b"--\n-- PostgreSQL database dump complete\n--\n"
UNAVAILABLE = 5
"""Seconds: what a swap takes at most on a busy machine (0.2 s on a quiet one)."""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills with SIGKILL")


# -- the databases ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mind]:
    """A small database on Scarlet's server, backed up once for all tests of this file."""
    directory = tmp_path_factory.mktemp("saved") / "backups"
    mind = Mind(stack.container, f"mind_{secrets.token_hex(4)}", directory)
    mind.make()
    made = take(mind)
    yield replace(mind, saved=made.name, saved_fingerprint=mind.fingerprint())
    stack.bring_up()
    mind.drop()


@pytest.fixture
def mind(stack: Stack, saved: Mind, tmp_path: Path) -> Mind:
    """That database, made anew and changed since its backup, with a copy of the backup for this test alone."""
    fresh = replace(saved, directory=tmp_path / "backups")
    shutil.copytree(saved.directory, fresh.directory)
    try:
        fresh.make_changed()
    except AssertionError:  # a test that failed has left the server stopped
        stack.bring_up()
        fresh.make_changed()
    return fresh


@pytest.fixture(scope="module")
def other(saved: Mind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mind]:
    """A database of the same name on a small server of its own, which belongs to no Compose project."""
    arguments = ("-c", "max_prepared_transactions=2", "-c", "wal_level=logical", "-c", "max_wal_size=64MB")
    with SmallServer(*arguments) as container:
        yield replace(saved, container=container, directory=tmp_path_factory.mktemp("other"))


class SmallServer:
    """A context manager: a container with PostgreSQL whose data lie in 300 MB of memory, gone when it stops."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self._name = f"restore-test-{secrets.token_hex(4)}"

    def __enter__(self) -> str:
        settings = ("-e", "POSTGRES_PASSWORD=none", "--tmpfs", "/var/lib/postgresql/data:size=300m")
        label = ("--label", "scarlet-backup-mcp.test=1")
        run_docker("run", "-d", "--pull", "never", "--name", self._name, *label, *settings, IMAGE, *self._arguments)
        try:
            wait_for_server(self._name)
        except BaseException:
            self.__exit__()
            raise
        return self._name

    def __exit__(self, *_: object) -> None:
        run_docker_quietly("rm", "-f", "-v", self._name)


# -- calls -----------------------------------------------------------------------------------------------------------


def take(mind: Mind, **options: Any) -> Backup:
    with mind.context() as context:
        return backup(context, Progress(), **options)


def put_back(
    mind: Mind,
    source: str,
    progress: Progress | None = None,
    *,
    confirmed: Confirmed | None = None,
    stop_dependents: bool = False,
    drill: bool | None = None,
    **consents: bool,
) -> Restore:
    """Leaves the dependents alone unless it is told otherwise: stopping them takes its time."""
    with mind.context() as context:
        wished = replace(RestoreOptions(stop_dependents=stop_dependents, drill=drill), **consents)
        return restore(context, progress or Progress(), source, wished, confirmed=confirmed)


def refusal(
    mind: Mind,
    kind: type[BackupToolError],
    source: str,
    *,
    accept_foreign: bool = False,
    accept_other_database: bool = False,
) -> BackupToolError:
    """Both a dry run and a restore refuse, for the same reason, before anything is made, and change nothing."""
    around, files = mind.around(), listing(mind.directory)
    watch = Watch()
    with mind.context() as context, pytest.raises(kind) as dry:
        dry_run(
            context,
            watch,
            source,
            RestoreOptions(accept_foreign=accept_foreign, accept_other_database=accept_other_database),
        )
    assert listing(mind.directory) == files
    with pytest.raises(kind) as real:
        put_back(mind, source, watch, accept_foreign=accept_foreign, accept_other_database=accept_other_database)
    assert mind.around() == around
    assert not watch.reached("making")
    assert (dry.type, str(dry.value)) == (kind, str(real.value))
    return real.value


def foreign(mind: Mind, before_the_trailer: bytes) -> str:
    """A file without a manifest: the backup with something more at its end."""
    script = (mind.directory / mind.saved).read_bytes()
    assert script.count(TRAILER) == 1
    name = "from_elsewhere_20260101_000000.sql"
    (mind.directory / name).write_bytes(script.replace(TRAILER, before_the_trailer + TRAILER))
    return name


# -- Scarlet's memory after its loss ---------------------------------------------------------------------------------

LOSSES = {
    "emptied": "TRUNCATE organizations CASCADE; TRUNCATE agents, messages, block CASCADE;",
    "tables dropped": "DROP TABLE blocks_agents, block, block_history, messages, archival_passages, agents CASCADE;",
    "database dropped": "\\connect postgres\nDROP DATABASE letta WITH (FORCE);",
}


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
    assert "drop_oldest_undo=true" in error.remedy

    with pytest.raises(RestoreFailed):
        put_back(mind, foreign(mind, IMPOSSIBLE), drop_oldest_undo=True, accept_foreign=True, drill=False)
    assert mind.undo_points() == [oldest, newer]

    done = put_back(mind, mind.saved, drop_oldest_undo=True)
    assert mind.undo_points() == [newer, done.undo_point]


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


# -- clients and dependents ------------------------------------------------------------------------------------------

_CLIENTS = """
for client in 1 2 3 4 5 6 7 8; do
    for _ in $(seq 2000); do
        [ -e {stop} ] && break
        psql -X -At -U postgres -d {name} -c \
            "SELECT '$client ' || current_database() || ' ' || was FROM marker, pg_sleep(0.05)" 2>/dev/null
    done &
done
wait
"""


def test_clients_that_reconnect_in_a_loop_neither_stop_the_swap_nor_see_a_wrong_database(mind: Mind) -> None:
    stop = f"/tmp/stop-{secrets.token_hex(6)}"
    clients = subprocess.Popen(
        ["docker", "exec", mind.container, "bash", "-c", _CLIENTS.format(stop=stop, name=mind.name)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        done = put_back(mind, mind.saved)
        time.sleep(0.5)
    finally:
        run_docker("exec", mind.container, "touch", stop)
        said, _ = clients.communicate(timeout=60)
    assert done.unavailable_seconds is not None
    assert done.unavailable_seconds < UNAVAILABLE
    seen: dict[str, list[str]] = {}
    for line in said.splitlines():
        client, database, was = line.split()
        assert database == mind.name
        seen.setdefault(client, []).append(was)
    assert len(seen) == 8
    for answers in seen.values():
        assert {answers[0], answers[-1]} == {"live", "saved"}
        assert answers == sorted(answers), "no client saw the old database after the new one"


def test_stopped_dependent_stays_stopped(mind: Mind, stack: Stack) -> None:
    run_docker("stop", stack.dependent)
    try:
        done = put_back(mind, mind.set_aside("aside"), stop_dependents=True)
        assert [(d.name, d.action) for d in done.dependents] == [(stack.dependent, "left stopped")]
        assert stack.state(stack.dependent) == "exited"
    finally:
        run_docker("start", stack.dependent)


def before_the_swap(monkeypatch: pytest.MonkeyPatch, act: Callable[[str], object]) -> None:
    """Dependents are stopped then, and nothing is swapped yet: no stage tells of that moment. `act` is called with the
    name that the live database is about to get."""
    swap = databases.swap

    def act_and_swap(renaming: Session, ending: Session, database: str, incoming: str, undo: str) -> float:
        act(undo)
        return swap(renaming, ending, database, incoming, undo)

    monkeypatch.setattr(databases, "swap", act_and_swap)


@pytest.fixture
def lost_dependent(stack: Stack) -> Iterator[str]:
    """For a test that removes it."""
    yield stack.dependent
    stack.bring_up()


def test_dependent_that_can_not_be_started_again_is_reported(
    mind: Mind, lost_dependent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_the_swap(monkeypatch, lambda _: run_docker("rm", "-f", lost_dependent))
    done = put_back(mind, mind.set_aside("aside"), stop_dependents=True)
    assert [(d.name, d.action) for d in done.dependents] == [(lost_dependent, "start failed")]
    assert lost_dependent in " ".join(done.warnings)
    assert mind.psql("SELECT was FROM letta.marker") == "aside"
    assert not mind.journal.exists()


def test_failed_swap_tells_of_a_dependent_that_can_not_be_started_again(
    mind: Mind, lost_dependent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = mind.set_aside("aside")

    def remove_it_and_occupy_the_name(undo: str) -> None:
        run_docker("rm", "-f", lost_dependent)
        mind.psql(f"CREATE DATABASE {undo}", "postgres")

    before_the_swap(monkeypatch, remove_it_and_occupy_the_name)
    with pytest.raises(RestoreFailed, match="could not be swapped") as raised:
        put_back(mind, point, stop_dependents=True)
    assert mind.psql("SELECT was FROM letta.marker") == "live"
    assert lost_dependent in str(raised.value)


def test_failed_swap_leaves_the_live_database_and_starts_dependents_again(
    mind: Mind, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name that the live database should get is taken by someone else in between."""
    around, was_started = mind.around(), started_at(stack.dependent)
    taken: list[str] = []

    def occupy_the_name(undo: str) -> None:
        taken.append(undo)
        mind.psql(f"CREATE DATABASE {undo}", "postgres")

    before_the_swap(monkeypatch, occupy_the_name)
    with pytest.raises(RestoreFailed, match=r"could not be swapped: .* already exists"):
        put_back(mind, mind.saved, stop_dependents=True)
    mind.psql(f"DROP DATABASE {taken[0]}", "postgres")
    assert mind.around() == around
    assert stack.state(stack.dependent) == "running"
    assert started_at(stack.dependent) != was_started
    assert not mind.journal.exists()


def test_undo_point_that_goes_away_in_between_is_a_failure_told_as_one(mind: Mind) -> None:
    around, point = mind.around(), mind.set_aside("aside")
    watch = Watch("swapping", lambda _: mind.psql(f"DROP DATABASE {point}", "postgres"))
    with pytest.raises(RestoreFailed, match=point):
        put_back(mind, point, watch)
    assert mind.around() == around
    assert not mind.journal.exists()


_BLOCKER = """
SET application_name = 'a copy being made';
BEGIN;
ALTER DATABASE {name} CONNECTION LIMIT 50;
\\! touch {ready}
SELECT pg_sleep(30) FROM pg_database WHERE datname = 'postgres';
"""


def test_swap_that_someone_blocks_gives_up_and_names_them(mind: Mind, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a shorter time-out than the 15 s that users have."""
    monkeypatch.setattr(databases, "SWAP_LOCK_SECONDS", 1)
    point = mind.set_aside("aside")
    around, ready = mind.around(), f"/tmp/ready-{secrets.token_hex(6)}"
    psql = ["docker", "exec", "-i", mind.container, "psql", "-X", "-q", "-U", "postgres", "-d", "postgres"]
    blocker = subprocess.Popen(psql, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        assert blocker.stdin is not None
        blocker.stdin.write(_BLOCKER.format(name=mind.name, ready=ready).encode())
        blocker.stdin.flush()
        while not run_docker_quietly("exec", mind.container, "ls", ready):
            assert blocker.poll() is None
        with pytest.raises(RestoreFailed, match="could not be swapped") as raised:
            put_back(mind, point)
    finally:
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'a copy being made'"
        mind.psql(ended, "postgres")
        blocker.communicate(timeout=30)
    assert mind.around() == around
    assert not mind.journal.exists()
    assert "a copy being made" in raised.value.message


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


# -- refused files ---------------------------------------------------------------------------------------------------


def test_file_with_one_flipped_bit_is_refused(mind: Mind) -> None:
    path = mind.directory / mind.saved
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "sha256" in refusal(mind, BackupNotValid, mind.saved).message


def test_cut_file_is_refused(mind: Mind) -> None:
    path = mind.directory / mind.saved
    os.truncate(path, path.stat().st_size - 1000)
    refusal(mind, BackupNotValid, mind.saved)


def test_foreign_file_is_restored_only_on_word_and_keeps_the_live_settings(mind: Mind) -> None:
    name = foreign(mind, b"")
    assert "accept_foreign=true" in refusal(mind, ForeignRefused, name).remedy
    comment = f"COMMENT ON DATABASE {mind.name} IS 'live'; ALTER DATABASE {mind.name} CONNECTION LIMIT 5;"
    mind.psql(comment + f"ALTER DATABASE {mind.name} SET timezone TO 'Asia/Tokyo';")
    properties = mind.content().properties
    done = put_back(mind, name, accept_foreign=True)
    assert any("no manifest" in warning for warning in done.warnings)
    assert mind.psql("SELECT was FROM marker") == "saved"
    assert mind.content().properties == properties


def test_foreign_file_into_a_missing_database_is_of_use_to_its_clients(mind: Mind) -> None:
    """Without its search_path Letta would find no table, and the restore would look like a success."""
    name = foreign(mind, b"")
    mind.psql(f"DROP DATABASE {mind.name} WITH (FORCE)", "postgres")
    done = put_back(mind, name, accept_foreign=True, drill=False)
    assert mind.fingerprint() == mind.saved_fingerprint
    assert str(done.integrity_rows) == mind.psql("SELECT count(*) FROM agents")
    assert "search_path was set" in " ".join(done.warnings)


def test_foreign_file_does_not_bring_back_a_schema_that_was_dropped(mind: Mind) -> None:
    schemas = mind.content().schemas
    assert "public" not in schemas
    put_back(mind, foreign(mind, b""), accept_foreign=True, drill=False)
    assert mind.content().schemas == schemas


def test_cut_foreign_file_is_refused(mind: Mind) -> None:
    name = foreign(mind, b"")
    path = mind.directory / name
    os.truncate(path, path.stat().st_size // 2)
    assert "trailer" in refusal(mind, BackupNotValid, name, accept_foreign=True).message


def test_foreign_file_that_does_more_than_a_dump_is_refused_with_each_line(mind: Mind) -> None:
    lines = [
        b"CREATE DATABASE more;",
        b"\\! touch /tmp/x",
        b"\\connect postgres",
        b"ALTER SYSTEM SET work_mem = '1GB';",
        b"COPY letta.notes FROM PROGRAM 'touch /tmp/x';",
    ]
    name = foreign(mind, b"\n".join(lines) + b"\n")
    script = (mind.directory / name).read_bytes()
    message = refusal(mind, BackupNotValid, name, accept_foreign=True).message
    for line in lines:
        number = script[: script.index(line)].count(b"\n") + 1
        assert re.search(rf"\bline {number}\b", message)


def test_load_that_fails_half_way_leaves_the_live_database_alone(mind: Mind) -> None:
    around = mind.around()
    with pytest.raises(RestoreFailed, match="impossible") as raised:
        put_back(mind, foreign(mind, IMPOSSIBLE), accept_foreign=True, drill=False)
    assert "live database is as it was" in str(raised.value)
    assert mind.around() == around
    assert not mind.journal.exists()


def test_file_that_changes_between_verification_and_load_is_not_swapped_in(mind: Mind) -> None:
    path = mind.directory / mind.saved

    def forge(_: Progress) -> None:
        path.write_bytes(path.read_bytes().replace("Scarlet 🌹".encode(), "Violet! 🌹".encode()))

    around = mind.around()
    with pytest.raises(RestoreFailed, match="changed after it was verified"):
        put_back(mind, mind.saved, Watch("making", forge))
    assert mind.around() == around


def test_latest_never_means_a_shrunk_backup_and_the_refusal_names_the_full_one(mind: Mind) -> None:
    mind.psql("TRUNCATE agents")
    shrunk = take(mind)
    assert shrunk.shrunk
    error = refusal(mind, BackupMissing, "latest")
    assert mind.saved in error.message
    assert mind.saved in error.remedy
    with mind.context() as context:
        told = dry_run(context, Progress(), shrunk.name)
    assert any("shrunk" in warning for warning in told.warnings)


def test_stale_confirmation_is_refused(mind: Mind) -> None:
    sha256 = json.loads((mind.directory / f"{mind.saved}.manifest.json").read_bytes())["sha256"]
    oid = int(mind.databases()[mind.name])
    around = mind.around()
    for stale in (Confirmed("0" * 64, oid), Confirmed(sha256, oid + 1), Confirmed(sha256, None)):
        with pytest.raises(ConfirmationStale):
            put_back(mind, mind.saved, confirmed=stale)
        assert mind.around() == around


# -- other servers ---------------------------------------------------------------------------------------------------


def test_backup_of_another_container_is_refused_unless_it_is_meant(other: Mind, mind: Mind) -> None:
    there = replace(other, directory=mind.directory)
    there.make_changed()
    error = refusal(there, OtherDatabaseRefused, mind.saved)
    assert mind.container in error.message
    assert "accept_other_database=true" in error.remedy
    with pytest.raises(BackupMissing):
        put_back(there, "latest")
    done = put_back(there, mind.saved, accept_other_database=True)
    assert any("another cluster" in warning for warning in done.warnings)
    assert there.fingerprint() == mind.saved_fingerprint


@pytest.mark.parametrize(
    ("make", "unmake"),
    [
        ("BEGIN; DELETE FROM notes; PREPARE TRANSACTION 'half-done';", "ROLLBACK PREPARED 'half-done';"),
        (
            "SELECT pg_create_logical_replication_slot('reader', 'pgoutput');",
            "SELECT pg_drop_replication_slot('reader');",
        ),
        (
            "CREATE SUBSCRIPTION reader CONNECTION 'dbname=x' PUBLICATION y WITH (connect = false);",
            "ALTER SUBSCRIPTION reader SET (slot_name = NONE); DROP SUBSCRIPTION reader;",
        ),
    ],
    ids=["prepared transaction", "replication slot", "subscription"],
)
def test_what_a_swap_would_break_is_refused(
    other: Mind, mind: Mind, make: str, unmake: str, request: pytest.FixtureRequest
) -> None:
    there = replace(other, directory=mind.directory)
    there.make()
    there.psql(make)
    try:
        error = refusal(there, PreflightFailed, mind.saved, accept_other_database=True)
    finally:
        there.psql(unmake)
    assert request.node.callspec.id in error.message


def test_fresh_volume_without_room_is_refused_and_restored_with_a_warning_once_there_is(saved: Mind) -> None:
    """The container is the same, its data are gone with the memory they lay in: another cluster, and no database."""
    with SmallServer() as container:
        mind = replace(saved, container=container, directory=saved.directory.parent / container)
        mind.make()
        take(mind)
        fingerprint = mind.fingerprint()
        run_docker("restart", "-t", "0", container)
        wait_for_server(container)
        assert mind.databases() == {}
        with pytest.raises(PreflightFailed, match="bytes free"):
            put_back(mind, "latest")
        assert mind.databases() == {}
        mind.psql("ALTER SYSTEM SET max_wal_size = '64MB'", "postgres")
        mind.psql("SELECT pg_reload_conf()", "postgres")
        done = put_back(mind, "latest")
        assert any("another cluster" in warning for warning in done.warnings)
        assert done.undo_point is None
        assert list(mind.databases()) == [mind.name]
        assert mind.fingerprint() == fingerprint


def test_name_that_leaves_no_room_for_an_undo_points_is_refused(mind: Mind) -> None:
    settings = load_settings(dir=mind.directory, container=mind.container, database="è" + "m" * 31)
    name = foreign(mind, b"")
    for call in (dry_run, restore):
        with type(mind.context())(settings) as context, pytest.raises(PreflightFailed, match="too long"):
            call(context, Progress(), name, RestoreOptions(accept_foreign=True))


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


# -- cancelled -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "title",
    sampled(
        [
            "looking at the container",
            "looking at the source",
            "reading",
            "making",
            "loading",
            "comparing",
            "analysing",
            "putting back",
        ],
        "reading",
        "loading",
        "analysing",
    ),
)
def test_cancelled_restore_leaves_nothing_behind(mind: Mind, title: str) -> None:
    around = mind.around()
    watch = Watch(title, Progress.cancel)
    with pytest.raises(Cancelled):
        put_back(mind, mind.saved, watch, stop_dependents=True)
    assert watch.reached(title)
    assert not watch.reached("swapping")
    assert mind.around() == around
    assert not mind.journal.exists()


def test_cancellation_in_the_middle_of_the_load_leaves_nothing_behind(mind: Mind) -> None:
    around = mind.around()
    with pytest.raises(Cancelled):
        put_back(mind, mind.saved, Watch("loading", Progress.cancel, done=1 << 20))
    assert mind.around() == around
    ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'scarlet-backup-mcp%'"
    deadline = time.monotonic() + 10
    while mind.psql(ours, "postgres") != "0":
        assert time.monotonic() < deadline, "no backend of ours outlives the call"


def test_cancellation_during_the_swap_waits_until_it_is_done(mind: Mind, stack: Stack) -> None:
    watch = Watch("swapping", Progress.cancel)
    done = put_back(mind, mind.saved, watch, stop_dependents=True)
    assert watch.reached("swapping")
    assert mind.fingerprint() == mind.saved_fingerprint
    assert mind.undo_points() == [done.undo_point]
    assert [(d.name, d.action) for d in done.dependents] == [(stack.dependent, "restarted")]
    assert not mind.journal.exists()


# -- killed ----------------------------------------------------------------------------------------------------------

NOT_SWAPPED = [
    "when the new database is not marked yet",
    "before the load",
    "in the middle of the load",
    "after owner and settings are put back",
    "after the journal is written",
    "after a dependent is stopped",
    "between the renames and their COMMIT",
]
SWAPPED = ["after the swap", "before the journal is removed"]


def kill_a_restore(mind: Mind, moment: str, source: str) -> None:
    """A restore in a process of its own, killed at that moment."""
    settings = {"dir": str(mind.directory), "container": mind.container, "database": mind.name}
    order = json.dumps({"moment": moment, "backup": source, "settings": settings})
    command = [sys.executable, "-m", "tests.helpers.restore_killer", order]
    killed = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr


@pytest.mark.parametrize(
    "moment", sampled(NOT_SWAPPED, "in the middle of the load", "between the renames and their COMMIT")
)
def test_restore_killed_before_the_swap_is_rolled_back_by_the_next_call(mind: Mind, stack: Stack, moment: str) -> None:
    around = mind.around()
    kill_a_restore(mind, moment, mind.saved)
    assert mind.databases()[mind.name] == around.databases[mind.name]
    journal = mind.journal.exists()
    told = " ".join(take(mind).warnings)
    assert mind.around() == around
    assert not mind.journal.exists()
    assert stack.state(stack.dependent) == "running"
    assert ("rolled back" in told) is journal


@pytest.mark.parametrize("moment", sampled(SWAPPED, "after the swap"))
def test_restore_killed_after_the_swap_is_finished_by_the_next_call(mind: Mind, stack: Stack, moment: str) -> None:
    oid, live = mind.databases()[mind.name], mind.fingerprint()
    kill_a_restore(mind, moment, mind.saved)
    assert mind.journal.exists()
    told = " ".join(take(mind).warnings)
    assert mind.fingerprint() == mind.saved_fingerprint
    (undo,) = mind.undo_points()
    assert (mind.databases()[undo], mind.fingerprint(undo)) == (oid, live)
    assert sorted(mind.databases()) == [mind.name, undo]
    assert not mind.journal.exists()
    assert stack.state(stack.dependent) == "running"
    assert "finished" in told


def test_journal_that_can_not_be_removed_spoils_no_restore(
    mind: Mind, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Played here: on Windows another program that has the file open keeps it."""

    def refuse(path: Path) -> None:
        raise StoreError(f"{path} can't be removed: it is in use.")

    with monkeypatch.context() as patched:
        patched.setattr(journals, "delete", refuse)
        done = put_back(mind, mind.saved)
    assert done.restored
    assert any("can't be removed: it is in use. The next `backup`" in warning for warning in done.warnings)
    assert mind.fingerprint() == mind.saved_fingerprint
    assert mind.journal.exists()
    assert "it is finished now" in " ".join(take(mind).warnings)
    assert mind.fingerprint() == mind.saved_fingerprint
    assert not mind.journal.exists()
    assert stack.state(stack.dependent) == "running"


def test_next_restore_settles_a_killed_one_first(mind: Mind, stack: Stack) -> None:
    live = mind.fingerprint()
    kill_a_restore(mind, "after the swap", mind.set_aside("aside"))
    (undo,) = mind.undo_points()
    done = put_back(mind, undo)
    assert "finished" in done.warnings[0]
    assert mind.fingerprint() == live
    assert stack.state(stack.dependent) == "running"
    assert not mind.journal.exists()


def test_undo_point_survives_an_undo_that_is_killed(mind: Mind, stack: Stack) -> None:
    point = mind.set_aside("aside")
    around = mind.around()
    kill_a_restore(mind, "between the renames and their COMMIT", point)
    take(mind)
    assert mind.around() == around
    assert mind.psql("SELECT was FROM letta.marker", point) == "aside"
    assert stack.state(stack.dependent) == "running"


# -- the journal -----------------------------------------------------------------------------------------------------


def leave_a_journal(mind: Mind, **fields: Any) -> None:
    """As a restore leaves it that was killed just before its swap."""
    incoming = f"{mind.name}_restore_20260101_000000"
    system = f"CREATE DATABASE {incoming} TEMPLATE {mind.name};\nSELECT system_identifier FROM pg_control_system()"
    system_identifier = mind.psql(system, "postgres")
    found = mind.databases()
    journal = journals.Journal(
        source=mind.saved,
        source_kind="backup",
        container=mind.container,
        database=mind.name,
        live_oid=int(found[mind.name]),
        incoming=incoming,
        incoming_oid=int(found[incoming]),
        undo=f"{mind.name}_before_restore_20260101_000000",
        system_identifier=system_identifier,
        dependents=[],
        started_at=datetime.now(UTC),
    )
    journals.write(mind.directory, journal.model_copy(update=fields))


def test_journal_is_told_of_while_the_server_is_down_and_settled_when_it_is_up(mind: Mind) -> None:
    live = mind.fingerprint()
    leave_a_journal(mind)
    run_docker("stop", mind.container)
    try:
        calls: list[Callable[[BackupContext], object]] = [
            lambda context: dry_run(context, Progress(), mind.saved),
            lambda context: restore(context, Progress(), mind.saved),
            lambda context: backup(context, Progress()),
        ]
        for call in calls:
            with mind.context() as context, pytest.raises(RestoreInterrupted) as raised:
                call(context)
            assert raised.value.remedy
    finally:
        run_docker("start", mind.container)
        wait_for_server(mind.container)
    assert "rolled back" in " ".join(take(mind).warnings)
    assert list(mind.databases()) == [mind.name]
    assert mind.fingerprint() == live
    assert not mind.journal.exists()


def test_dry_run_leaves_a_journal_alone_and_says_so(mind: Mind) -> None:
    leave_a_journal(mind)
    around, files = mind.around(), listing(mind.directory)
    with mind.context() as context, pytest.raises(RestoreInterrupted):
        dry_run(context, Progress(), mind.saved)
    assert (mind.around(), listing(mind.directory)) == (around, files)


def test_unreadable_journal_stops_every_writer_with_what_to_do(mind: Mind) -> None:
    mind.journal.write_text('{"journal_version": 1, "source"', encoding="ascii")
    around = mind.around()
    for call in (lambda: put_back(mind, mind.saved), lambda: take(mind)):
        with pytest.raises(RestoreInterrupted) as raised:
            call()
        assert "restore.journal.json" in raised.value.message
        assert "remove that file" in raised.value.remedy
    assert mind.around() == around
    assert mind.journal.exists()


def test_journal_that_matches_no_database_stops_every_writer_with_what_to_do(mind: Mind) -> None:
    leave_a_journal(mind, live_oid=4_000_000_001, incoming_oid=4_000_000_002)
    around = mind.around()
    with pytest.raises(RestoreInterrupted) as raised:
        put_back(mind, mind.saved)
    assert "rename" in raised.value.remedy
    assert mind.around() == around


def test_container_that_has_another_name_now_is_known_by_its_databases(mind: Mind) -> None:
    leave_a_journal(mind, container="its-name-before")
    assert "rolled back" in " ".join(take(mind).warnings)
    assert list(mind.databases()) == [mind.name]
    assert not mind.journal.exists()


def test_journal_of_another_container_stays_though_that_is_a_copy_of_this_one(mind: Mind) -> None:
    leave_a_journal(mind, container="another", incoming_oid=4_000_000_002)
    around = mind.around()
    with pytest.raises(RestoreInterrupted, match="in another was cut off, and shares") as raised:
        put_back(mind, mind.saved)
    assert str(mind.journal) in raised.value.remedy
    assert mind.around() == around
    assert mind.journal.exists()


def test_journal_of_a_cluster_that_is_gone_is_put_away(mind: Mind) -> None:
    leave_a_journal(mind, system_identifier="1")
    around = mind.around()
    assert "no longer this one" in " ".join(take(mind).warnings)
    assert mind.around() == around
    assert not mind.journal.exists()


# -- the server goes away --------------------------------------------------------------------------------------------


def start_again(mind: Mind) -> None:
    run_docker("start", mind.container)
    wait_for_server(mind.container)


def test_server_killed_during_the_load_leaves_the_live_database_whole(mind: Mind) -> None:
    around = mind.around()
    watch = Watch("loading", lambda _: run_docker("kill", mind.container), done=1 << 20)
    with pytest.raises((ContainerLost, ServerUnreachable)):
        put_back(mind, mind.saved, watch)
    start_again(mind)
    take(mind)
    assert mind.around() == around


@pytest.mark.parametrize("committed", [False, True])
def test_server_killed_in_the_swap_is_whole_on_either_side(
    mind: Mind, stack: Stack, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """The kill is real; only its moment, between two statements of the swap, needs a hand on them."""
    execute, renames = Session.execute, list[str]()

    def killing(self: Session, statement: str, timeout: float | None = None) -> str:
        answer = execute(self, statement, timeout)
        renames.extend([statement] if "RENAME TO" in statement or (statement == "COMMIT" and renames) else [])
        if len(renames) == (3 if committed else 2):
            renames.clear()
            run_docker("kill", mind.container)
        return answer

    point = mind.set_aside("aside")
    around = mind.around()
    with monkeypatch.context() as patch:
        patch.setattr(Session, "execute", killing)
        with pytest.raises(RestoreInterrupted) as raised:
            put_back(mind, point, stop_dependents=True)
    assert "docker compose up -d postgres" in raised.value.remedy
    assert mind.journal.exists()
    start_again(mind)
    told = " ".join(take(mind).warnings)
    assert not mind.journal.exists()
    assert stack.state(stack.dependent) == "running"
    if committed:
        assert "finished" in told
        (undo,) = mind.undo_points()
        assert (mind.databases()[mind.name], mind.databases()[undo]) == (
            around.databases[point],
            around.databases[mind.name],
        )
        assert mind.fingerprint(undo) == around.fingerprint
        assert mind.psql("SELECT was FROM letta.marker") == "aside"
    else:
        assert "rolled back" in told
        assert mind.around() == around
        assert mind.psql("SELECT was FROM letta.marker", point) == "aside"


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
