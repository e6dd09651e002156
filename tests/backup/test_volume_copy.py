"""Backups of the whole volume: taken of servers at work, verified, brought back by the documented commands."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from scarlet_backup_mcp import summaries
from scarlet_backup_mcp.cli.demo.embedded import SETTINGS, EmbeddedServer, copy_programs, wheel_bin_dir
from scarlet_backup_mcp.errors import (
    ArgumentsInvalid,
    BackupMissing,
    Cancelled,
    ContainerLost,
    ContainerNotRunning,
    DumpFailed,
    HostError,
    PermissionDenied,
    VolumeUnsupported,
)
from scarlet_backup_mcp.models.common import Compression, Level
from scarlet_backup_mcp.models.results import Backup
from scarlet_backup_mcp.models.verification import Check, Verification
from scarlet_backup_mcp.postgres.cluster.local import LocalCluster
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.restore.service import dry_run
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress, State
from scarlet_backup_mcp.settings import Settings
from scarlet_backup_mcp.store import gzip
from scarlet_backup_mcp.store.audit import AUDIT

from ..conftest import MEMORY, PROJECT_ROOT, LocalDatabase, docker, run_docker
from ..helpers.backup_faults import Box, a_box
from ..helpers.faces import agent, environment_of, until
from ..helpers.restore import Watch
from ..helpers.store import Shelf, execute, shelf, small_database

BY_HAND = PROJECT_ROOT / "docs" / "choosing.md"
SMALL_WAL = ("max_wal_size=32MB", "min_wal_size=32MB", "fsync=off", "synchronous_commit=off", "autovacuum=off")
SLOTS = "SELECT slot_name, temporary, active, restart_lsn IS NOT NULL FROM pg_replication_slots"
SENDERS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'"
BALANCES = """SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches),
                     (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT sum(delta) FROM pgbench_history)"""
"""pgbench's own invariant: four sums that are equal after any whole number of its transactions."""
COPYING = "copying the cluster"


def take(settings: Settings, progress: Progress | None = None, compression: Compression | None = None) -> Backup:
    with BackupContext(settings) as context:
        return backup(context, progress or Progress(), kind="volume", compression=compression)


def failed(report: Verification) -> set[str]:
    return {check.check for check in report.checks if check.ok is False}


def check(report: Verification, name: str) -> Check:
    return next(found for found in report.checks if found.check == name)


def left(directory: Path) -> list[str]:
    """What is in a backup directory beside its own files."""
    return sorted(path.name for path in directory.iterdir() if not path.name.startswith(".") and path.name != AUDIT)


class WhileItCopies(Progress):
    """Calls `act` once, in the backup's own thread, when some of the copy has come. Keeps the stages."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self.stages: list[str] = []
        self._act: Callable[[], object] | None = act

    def show(self, state: State) -> None:
        if not state.done:
            self.stages.append(state.stage)
        if self._act is not None and state.stage == COPYING and state.done:
            act, self._act = self._act, None
            act()


# A server in a container, at work


@pytest.fixture(scope="module")
def busy(require_docker: None) -> Iterator[Box]:
    """A server with checksums that throws WAL away as soon as it can; Scarlet's memory and a database for pgbench."""
    options = [word for setting in SMALL_WAL for word in ("-c", setting)]
    with a_box({"POSTGRES_INITDB_ARGS": "--data-checksums"}, "postgres", *options) as box:
        box.wait_until_ready()
        box.psql(MEMORY.read_text(encoding="utf-8"))
        box.psql("CREATE DATABASE bench", "postgres")
        box.sh("pgbench -q -i -s 5 -U postgres bench 2>/dev/null")
        yield box


@contextmanager
def write_load(box: Box) -> Generator[None]:
    """pgbench, until the shell's input ends."""
    # Waited for: an orphan that dies of a signal is inherited by process 1, the server, which takes it for one of its
    # own that has crashed, and starts anew (seen on 15.20).
    script = "pgbench -n -c 4 -R 200 -T 120 -U postgres bench & cat; kill $!; wait"
    command = ["docker", "exec", "-i", box.name, "sh", "-c", script]
    with subprocess.Popen(command, stdin=-1, stdout=-3, stderr=-3) as process:
        assert process.stdin is not None
        try:
            yield
        finally:
            process.stdin.close()
            process.wait(10)


def wear_out_wal(box: Box) -> None:
    """Fill files of WAL and have the server throw away all that it does not need itself."""
    box.sh("for n in 1 2 3 4; do psql -q -U postgres -c 'SELECT pg_switch_wal()' -c CHECKPOINT; sleep 0.1; done")


@pytest.fixture(scope="module")
def under_load(busy: Box, tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Backup, list[str]]:
    """A backup that was taken while the server wrote, and the replication slots that were there meanwhile."""
    settings = busy.settings(tmp_path_factory.mktemp("busy"))
    slots: list[str] = []

    def while_it_copies() -> None:
        slots.extend(busy.psql(SLOTS).splitlines())
        wear_out_wal(busy)

    with write_load(busy):
        made = take(settings, WhileItCopies(while_it_copies))
    return settings, made, slots


def test_copy_under_write_load_is_whole(under_load: tuple[Settings, Backup, list[str]], busy: Box) -> None:
    settings, made, slots = under_load
    assert re.fullmatch(r"postgres_volume_\d{8}_\d{6}\.tar\.gz", made.name)
    assert (made.kind, made.rows, made.integrity_rows) == ("volume", 554, 2)
    assert made.safe_to_proceed, made.reasons
    assert made.databases == ["bench", "letta", "postgres", "template0", "template1"]
    with BackupContext(settings) as context:
        report = verify(context, Progress(), made.name)
    assert report.valid, failed(report)
    assert [slot.split("|")[1:] for slot in slots] == [["t", "t", "t"]], "one temporary slot that keeps WAL"
    assert busy.psql(SLOTS) == ""
    assert busy.at_work() == []


LOSE_THE_SLOT = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE temporary"


def test_copy_that_loses_its_slot_fails_when_wal_is_thrown_away(busy: Box, tmp_path: Path) -> None:
    """The slot goes with its session."""

    def lose_it() -> None:
        assert busy.psql(LOSE_THE_SLOT) == "t"
        wear_out_wal(busy)

    with write_load(busy), pytest.raises(DumpFailed, match=r"has already been removed|broke the copy off"):
        take(busy.settings(tmp_path), WhileItCopies(lose_it))
    assert left(tmp_path) == []


def commands(section: str, of: int) -> list[str]:
    """The lines of a section's code block."""
    text = BY_HAND.read_text(encoding="utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"```\n(.*?)```", text, re.DOTALL)[of].splitlines()


def run_by_hand(block: int, box: Box, made: str, directory: Path) -> str:
    """A block of commands on a container of the test's, with PWD above a copy of the backup; what they print."""
    said = ""
    for line in commands("Bring a whole volume back by hand", block):
        line = re.sub(r"postgres_volume_\d+_\d+\.tar\.gz", made, line).replace("${PWD}", str(directory))
        words = [box.name if word == "abiogenesis-postgres" else word for word in shlex.split(line)]
        if words[:2] == ["docker", "compose"]:
            assert "postgres" in words
            said += run_docker(words[2], box.name)
        else:
            said += run_docker("run", "--pull", "never", "--label", "scarlet-backup-mcp.test=1", *words[2:])
    box.wait_until_ready()
    return said


def test_documented_commands_bring_the_whole_cluster_back_and_the_old_one_after_it(
    under_load: tuple[Settings, Backup, list[str]], busy: Box, tmp_path: Path
) -> None:
    settings, made, _ = under_load
    assert settings.dir is not None
    backups = tmp_path / "backups"
    backups.mkdir()
    shutil.copy(settings.dir / made.name, backups)
    with a_box({"POSTGRES_DB": "mine"}) as other:
        other.wait_until_ready()
        identity = "SELECT system_identifier FROM pg_control_system()"
        own = other.psql(identity, "postgres")
        assert "backup successfully verified" in run_by_hand(0, other, made.name, tmp_path)
        sums = other.psql(BALANCES, "bench").split("|")
        assert len(set(sums)) == 1
        assert sums[0]
        dump = ("exec", "-u", "postgres")
        programs = ("pg_dump", "-U", "postgres", "letta")
        dumps = [docker((*dump, box.name, *programs)).stdout.splitlines() for box in (busy, other)]
        plain = [[line for line in text if b"restrict" not in line] for text in dumps]
        assert len(plain[0]) > 500
        assert plain[0] == plain[1]
        assert other.psql(identity, "postgres") == busy.psql(identity, "postgres") != own
        assert "2\n" in other.psql("SET search_path = letta; SELECT count(*) FROM agents;") + "\n"
        again = docker(("exec", other.name, "sh", "-c", "pg_basebackup -U postgres -D - -Ft -X fetch -c fast | tar t"))
        assert b"PG_VERSION" in again.stdout
        assert b"before_restore" not in again.stdout
        run_by_hand(1, other, made.name, tmp_path)
        assert other.psql(identity, "postgres") == own
        assert other.psql("SELECT count(*) FROM pg_database WHERE datname = 'mine'", "postgres") == "1"


def test_killed_backup_leaves_no_slot_and_no_program(busy: Box, tmp_path: Path) -> None:
    """As by the operating system: nothing of ours gets to clean up. The next backup removes the partial file."""
    process = busy.cli(tmp_path, "backup", "--kind", "volume", "--quiet")
    until(lambda: any(path.stat().st_size for path in tmp_path.glob("*.partial")), 30, "a copy under way")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    (partial,) = left(tmp_path)
    assert partial.endswith(".tar.gz.partial")
    until(lambda: busy.psql(SLOTS) == "", 10, "the slot gone")
    made = take(busy.settings(tmp_path))
    assert left(tmp_path) == [made.name, f"{made.name}.manifest.json", f"{made.name}.verified.json"]
    busy.assert_idle()


def test_server_that_lets_nobody_copy_it_is_told(busy: Box, tmp_path: Path) -> None:
    hba = "/var/lib/postgresql/data/pg_hba.conf"
    busy.sh(f"cp -p {hba} /tmp/hba && sed -i '/replication/d' {hba}")
    busy.psql("SELECT pg_reload_conf()")
    try:
        with pytest.raises(PermissionDenied, match="replication") as refused:
            take(busy.settings(tmp_path))
        assert "pg_hba.conf" in refused.value.remedy
        assert left(tmp_path) == []
    finally:
        busy.sh(f"cp -p /tmp/hba {hba}")
        busy.psql("SELECT pg_reload_conf()")


def test_damaged_page_is_told_and_nothing_is_kept(busy: Box, tmp_path: Path) -> None:
    # Frozen, so that a look at the table does not have the server write its own, whole copy of the page again.
    busy.psql("CREATE TABLE harmed AS SELECT repeat('x', 100) FROM generate_series(1, 1000);")
    busy.psql("VACUUM (FREEZE) harmed;\nCHECKPOINT;")
    try:
        path = busy.psql("SELECT pg_relation_filepath('harmed')")
        busy.sh(f"printf harm | dd of=/var/lib/postgresql/data/{path} bs=1 seek=12000 conv=notrunc status=none")
        with pytest.raises(DumpFailed, match="Pages of the database are damaged"):
            take(busy.settings(tmp_path))
        assert left(tmp_path) == []
    finally:
        busy.psql("DROP TABLE harmed")


@pytest.mark.parametrize(("done", "error"), [(-1, ContainerNotRunning), (0, ContainerLost)])
def test_container_that_stops_while_it_is_copied_can_be_copied_stopped(
    done: int, error: type[HostError], busy: Box, tmp_path: Path
) -> None:
    """As one whose server crashes again and again: the moment tells what is seen of that."""

    def kill() -> None:
        run_docker("kill", busy.name)
        run_docker("wait", busy.name)

    killing = threading.Thread(target=kill)

    def crash(_: Progress) -> None:
        killing.start()
        if done < 0:  # later the engine would wait for output that nobody reads
            killing.join()

    try:
        with pytest.raises(error) as lost:
            take(busy.settings(tmp_path), Watch(COPYING, crash, done))
        assert lost.value.remedy.count("docker compose stop postgres") == 1
        assert left(tmp_path) == []
    finally:
        killing.join()
        busy.bring_up()


def test_standby_is_refused(busy: Box, tmp_path: Path) -> None:
    """A copy of it would come up as a standby of nothing."""
    signal_file = "/var/lib/postgresql/data/standby.signal"
    busy.sh(f"touch {signal_file}")
    try:
        run_docker("restart", busy.name)
        busy.wait_until_ready()
        with pytest.raises(VolumeUnsupported, match="standby"):
            take(busy.settings(tmp_path))
        assert left(tmp_path) == []
    finally:
        busy.sh(f"rm -f {signal_file}")
        run_docker("restart", busy.name)
        busy.wait_until_ready()


# A local server


@dataclass(frozen=True)
class Kept:
    """A local server's volume backup, only to be copied from; and where it was taken."""

    database: LocalDatabase
    here: Shelf
    name: str


@pytest.fixture(scope="module")
def kept(embedded: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    with small_database(embedded) as database:
        here = shelf(database, tmp_path_factory.mktemp("kept"))
        yield Kept(database, here, take(here.settings).name)


def ask(server: EmbeddedServer, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def test_local_server_is_copied_and_verified_without_a_server(kept: Kept, tmp_path: Path) -> None:
    alone = kept.here.copy(tmp_path / "backups", kept.name)
    elsewhere = Shelf(alone.settings.model_copy(update={"bin_dir": tmp_path / "nowhere"}))
    quick, full = elsewhere.verify(kept.name, "quick"), elsewhere.verify(kept.name, "full")
    assert (quick.valid, full.valid, full.foreign, full.remedy) == (True, True, False, None)
    assert check(quick, "structure").found == "it begins with the file backup_label"
    assert (full.files or 0) > 900
    assert kept.here.state(kept.name) == "good"
    with tarfile.open(kept.here.file(kept.name)) as tar:
        names = {member.name for member in tar}
    assert {"PG_VERSION", "global/pg_control", "backup_label", "backup_manifest"} <= names
    assert "is valid" in summaries.describe(full)


def test_copy_that_loses_its_slot_is_whole_when_no_wal_is_missing(
    kept: Kept, embedded: EmbeddedServer, tmp_path: Path
) -> None:
    here = Shelf(kept.here.settings.model_copy(update={"dir": tmp_path}))
    made = take(here.settings, WhileItCopies(lambda: ask(embedded, LOSE_THE_SLOT)))
    assert here.verify(made.name).valid


def test_zstd_is_a_choice_and_none_is_not(kept: Kept, tmp_path: Path) -> None:
    here = Shelf(kept.here.settings.model_copy(update={"dir": tmp_path}))
    made = take(here.settings, compression="zstd")
    assert made.name.endswith(".tar.zst")
    assert here.verify(made.name).valid
    for kind, wrong in (("volume", "none"), ("sql", "gzip")):
        with BackupContext(here.settings) as context, pytest.raises(ArgumentsInvalid, match=wrong):
            backup(context, Progress(), kind=kind, compression=wrong)  # type: ignore[arg-type]


def test_latest_means_sql_and_listings_show_both(kept: Kept, tmp_path: Path) -> None:
    here = kept.here.copy(tmp_path / "backups", kept.name)
    with pytest.raises(BackupMissing, match="SQL"):
        here.verify("latest")
    assert "no good SQL backup" in " ".join(here.listing().warnings)
    plain = here.back_up().name
    newer = take(here.settings).name
    assert here.latest() == here.latest(for_restore=True) == plain
    assert {item.name: (item.kind, item.state, item.compression) for item in here.listing().backups} == {
        plain: ("sql", "good", "none"),
        kept.name: ("volume", "good", "gzip"),
        newer: ("volume", "good", "gzip"),
    }
    assert here.listing().newest_good == plain
    with BackupContext(here.settings) as context:
        assert any(newer in warning for warning in dry_run(context, Progress(), plain).warnings)


def test_drill_that_can_not_be_had_leaves_the_backup_unproved(kept: Kept, tmp_path: Path) -> None:
    here = kept.here.settings.model_copy(update={"dir": tmp_path})
    with BackupContext(here) as context:
        made = backup(context, Progress(), kind="volume", verify="drill")
    assert (made.proved, made.drill, made.safe_to_proceed) == (None, None, False)
    assert "needs Docker" in made.reasons[-1]
    assert Shelf(here).state(made.name) == "good"


def test_what_is_for_sql_only_is_refused(kept: Kept) -> None:
    with BackupContext(kept.here.settings) as context, pytest.raises(ArgumentsInvalid, match="code_page"):
        verify(context, Progress(), kept.name, code_page=850)


def test_rows_are_counted_again_only_where_something_was_written(kept: Kept, tmp_path: Path) -> None:
    here = kept.here.settings.model_copy(update={"dir": tmp_path})
    for statement in ("SELECT 1", "CREATE TABLE more AS SELECT 1; DROP TABLE more"):
        progress = WhileItCopies(lambda statement=statement: execute(kept.database, statement))
        made = take(here, progress)
        with BackupContext(here) as context:
            manifest = context.directory.volume_manifest(made.name)
        assert manifest is not None
        assert progress.stages.count("counting the rows of the database") == (1 if manifest.quiet else 2)
        assert [table.rows for table in manifest.tables] == [table.rows_after for table in manifest.tables]
        assert not (manifest.quiet and statement != "SELECT 1")


def test_unlogged_tables_count_as_the_empty_ones_they_come_back_as(kept: Kept, tmp_path: Path) -> None:
    here = kept.here.settings.model_copy(update={"dir": tmp_path})
    execute(kept.database, "CREATE UNLOGGED TABLE letta.scratch AS SELECT generate_series(1, 7) AS n")
    try:
        made = take(here)
        assert {table.name: table.rows for table in made.tables}["scratch"] == 0
        assert "letta.scratch" in " ".join(made.warnings)
        with BackupContext(here) as context:
            manifest = context.directory.volume_manifest(made.name)
        assert manifest is not None
        assert manifest.unlogged == ["letta.scratch"]
        assert (made.good, made.safe_to_proceed) == (True, False)
        assert "Unlogged tables are empty" in " ".join(made.reasons)
        execute(kept.database, "ALTER TABLE letta.scratch SET LOGGED")
        logged = take(here)
        assert logged.safe_to_proceed
        assert {table.name: table.rows for table in logged.tables}["scratch"] == 7
        assert (logged.rows, logged.warnings) == ((made.rows or 0) + 7, [])
    finally:
        execute(kept.database, "DROP TABLE letta.scratch")


def test_unlogged_integrity_table_is_empty_in_a_copy(kept: Kept, tmp_path: Path) -> None:
    execute(kept.database, "CREATE UNLOGGED TABLE letta.watched AS SELECT 1 AS n")
    try:
        made = take(kept.here.settings.model_copy(update={"dir": tmp_path, "integrity_table": "watched"}))
    finally:
        execute(kept.database, "DROP TABLE letta.watched")
    assert (made.integrity_rows, made.shrunk, made.safe_to_proceed) == (0, True, False)


def test_database_that_is_dropped_while_it_is_copied_is_not_promised(
    embedded: EmbeddedServer, kept: Kept, tmp_path: Path
) -> None:
    execute(kept.database, "CREATE DATABASE passing")
    drop = WhileItCopies(lambda: execute(kept.database, "DROP DATABASE passing"))
    made = take(kept.here.settings.model_copy(update={"dir": tmp_path}), drop)
    assert kept.database.name in made.databases
    assert "passing" not in made.databases


def test_emptied_database_is_shrunk(kept: Kept, embedded: EmbeddedServer, tmp_path: Path) -> None:
    with small_database(embedded) as database:
        here = shelf(database, tmp_path)
        full = here.back_up()
        execute(database, "SET search_path TO letta; TRUNCATE agents CASCADE")
        made = take(here.settings)
    assert (made.shrunk, made.safe_to_proceed, made.integrity_rows) == (True, False, 0)
    assert any(full.name in reason for reason in made.reasons)


def test_database_that_is_emptied_while_it_is_copied_is_shrunk(embedded: EmbeddedServer, tmp_path: Path) -> None:
    with small_database(embedded) as database:
        empty = "SET search_path TO letta; TRUNCATE agents CASCADE"
        made = take(shelf(database, tmp_path).settings, WhileItCopies(lambda: execute(database, empty)))
    assert (made.shrunk, made.safe_to_proceed, made.integrity_rows) == (True, False, 0)


def test_cancelled_copy_leaves_nothing(kept: Kept, embedded: EmbeddedServer, tmp_path: Path) -> None:
    progress = WhileItCopies(lambda: progress.cancel())
    with pytest.raises(Cancelled):
        take(kept.here.settings.model_copy(update={"dir": tmp_path}), progress)
    assert left(tmp_path) == []
    assert ask(embedded, SLOTS) == []
    until(lambda: ask(embedded, SENDERS) == [(0,)], 10, "the copy's backend gone")


async def test_agent_takes_lists_and_verifies_a_volume(kept: Kept, tmp_path: Path) -> None:
    async with agent(kept.here.settings.model_copy(update={"dir": tmp_path}), "2026-07-28") as it:
        made = await it.call("backup", kind="volume", label="prima", wait_seconds=0)
        assert made["kind"] == "volume"
        assert made["steps"][3]["step"] == "Alternativa: Backup Volume Completo"
        assert (await it.call("verify_backup", backup=made["name"]))["valid"] is True
        assert [item["name"] for item in (await it.call("list_backups"))["backups"]] == [made["name"]]
        assert (await it.fail("verify_backup", backup=made["name"], level="drill"))["code"] == "drill_impossible"
        assert (await it.fail("backup", kind="volume", compression="none"))["code"] == "arguments_invalid"


def test_command_line_takes_a_volume(kept: Kept, tmp_path: Path) -> None:
    settings = kept.here.settings.model_copy(update={"dir": tmp_path})
    command = [sys.executable, "-m", "scarlet_backup_mcp", "backup", "--kind", "volume", "--compression", "zstd"]
    done = subprocess.run(
        command, env=environment_of(settings), cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert f"rows in 9 tables of {kept.database.name}" in done.stdout
    assert len([name for name in left(tmp_path) if name.endswith(".tar.zst")]) == 1


# Servers that can't be copied


def test_role_that_may_not_copy_is_told(kept: Kept, embedded: EmbeddedServer, tmp_path: Path) -> None:
    execute(kept.database, "CREATE ROLE reader LOGIN PASSWORD 'x' IN ROLE pg_read_all_data, pg_monitor")
    try:
        dsn = re.sub(r"//[^@]*@", "//reader:x@", kept.database.dsn)
        with pytest.raises(PermissionDenied, match=r"reader.*REPLICATION") as refused:
            take(shelf(LocalDatabase(embedded, kept.database.name, dsn), tmp_path).settings)
        assert "ALTER ROLE" in refused.value.remedy
        assert left(tmp_path) == []
    finally:
        execute(kept.database, "DROP ROLE reader")


def test_tablespaces_are_refused(kept: Kept, tmp_path: Path) -> None:
    with psycopg.connect(kept.database.dsn, autocommit=True) as connection:
        connection.execute("SET allow_in_place_tablespaces = on")
        connection.execute("CREATE TABLESPACE elsewhere LOCATION ''")
    try:
        with pytest.raises(VolumeUnsupported, match="elsewhere"):
            take(kept.here.settings.model_copy(update={"dir": tmp_path}))
    finally:
        execute(kept.database, "DROP TABLESPACE elsewhere")


def test_taken_slots_are_told(kept: Kept, embedded: EmbeddedServer, tmp_path: Path) -> None:
    ask(embedded, "SELECT pg_create_physical_replication_slot('test_' || n) FROM generate_series(1, 10) n")
    try:
        with pytest.raises(VolumeUnsupported, match="no replication slot left") as refused:
            take(kept.here.settings.model_copy(update={"dir": tmp_path}))
        assert "pg_replication_slots" in refused.value.remedy
        assert left(tmp_path) == []
    finally:
        ask(embedded, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")


def test_server_without_replication_is_told(tmp_path: Path) -> None:
    settings = {**SETTINGS, "wal_level": "minimal", "max_wal_senders": "0"}
    with LocalCluster(wheel_bin_dir, settings=settings, copy_programs=copy_programs) as server:
        there = {"via": "local", "dsn": server.dsn("postgres"), "bin_dir": server.bin_dir, "dir": tmp_path}
        with pytest.raises(VolumeUnsupported, match="wal_level is minimal, max_wal_senders is 0"):
            take(Settings.model_validate({**there, "database": "postgres"}))


# Archives that are not what they were

Files = dict[str, bytes]


def rewrite(path: Path, change: Callable[[Files], object]) -> None:
    """Unpack an archive, change its files, pack it again."""
    with tarfile.open(path) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]
    change(files)
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    path.write_bytes(packed(made.getvalue()))


def packed(data: bytes) -> bytes:
    stream = gzip.compressor()
    return stream.compress(data) + stream.flush()


def a_table(files: Files) -> str:
    """The biggest file of a database."""
    return max((name for name in files if name.startswith("base/")), key=lambda name: len(files[name]))


def a_segment(files: Files) -> str:
    return next(name for name in files if re.fullmatch(r"pg_wal/[0-9A-F]{24}", name))


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def flip_a_page(files: Files) -> None:
    files[a_table(files)] = flipped(files[a_table(files)], 5000)


def remove_a_table(files: Files) -> None:
    del files[a_table(files)]


def remove_the_label(files: Files) -> None:
    del files["backup_label"]


def add_a_file(files: Files) -> None:
    files["recovery.signal"] = b""


def remove_wal(files: Files) -> None:
    del files[a_segment(files)]


def cut_wal(files: Files) -> None:
    files[a_segment(files)] = files[a_segment(files)][:-8192]


def edit_the_list(files: Files) -> None:
    files["backup_manifest"] = files["backup_manifest"].replace(b'"Size": 8192', b'"Size": 8193', 1)


def edit_the_list_and_seal_it(files: Files) -> None:
    """As someone would who removes a file and hides it from the server's list."""
    name = a_table(files)
    del files[name]
    lines = [line for line in files["backup_manifest"].splitlines(keepends=True) if f'"{name}"'.encode() not in line]
    body = b"".join(lines[:-1])
    seal = f'"Manifest-Checksum": "{hashlib.sha256(body).hexdigest()}"}}\n'.encode()
    files["backup_manifest"] = body + seal


def remove_the_list(files: Files) -> None:
    del files["backup_manifest"]


CHANGES: dict[Callable[[Files], None], set[str]] = {
    flip_a_page: {"files"},
    remove_a_table: {"files"},
    remove_the_label: {"files"},
    add_a_file: {"files"},
    remove_wal: {"wal", "wal_digests"},
    cut_wal: {"wal", "wal_digests"},
    edit_the_list: {"backup_manifest", "backup_manifest_sha256"},
    remove_the_list: {"backup_manifest", "backup_manifest_sha256"},
}
OURS_ONLY = {"wal_digests", "backup_manifest_sha256"}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_changed_archive_is_seen_with_and_without_our_manifest(
    kept: Kept, tmp_path: Path, change: Callable[[Files], None]
) -> None:
    here = kept.here.copy(tmp_path / "backups", kept.name)
    rewrite(here.file(kept.name), change)
    ours = failed(here.verify(kept.name))
    assert ours >= CHANGES[change] | {"bytes", "sha256"}
    assert here.state(kept.name) == "damaged"
    here.manifest(kept.name).unlink()
    foreign = here.verify(kept.name)
    assert failed(foreign) == CHANGES[change] - OURS_ONLY | {"manifest"}
    assert "NOT valid" in summaries.describe(foreign)


def test_name_that_is_no_text_is_told_as_text(kept: Kept, tmp_path: Path) -> None:
    here = kept.here.copy(tmp_path / "backups", kept.name)
    rewrite(here.file(kept.name), lambda files: files.update({"caf\udce9\nok": b"x"}))
    here.manifest(kept.name).unlink()
    report = here.verify(kept.name)
    assert check(report, "files").detail == "caf\\udce9\\nok is not listed"
    assert json.loads(report.model_dump_json())["valid"] is False


def test_resealed_list_is_seen_by_our_manifest_only(kept: Kept, tmp_path: Path) -> None:
    here = kept.here.copy(tmp_path / "backups", kept.name)
    rewrite(here.file(kept.name), edit_the_list_and_seal_it)
    assert "backup_manifest_sha256" in failed(here.verify(kept.name))
    here.manifest(kept.name).unlink()
    assert failed(here.verify(kept.name)) == {"manifest"}, "nothing else can tell"


def test_flipped_bit_or_cut_of_the_file_is_seen(kept: Kept, tmp_path: Path) -> None:
    data = kept.here.file(kept.name).read_bytes()
    here = kept.here.copy(tmp_path / "backups", kept.name)
    for at in (5, len(data) // 3, len(data) - 3):
        here.file(kept.name).write_bytes(flipped(data, at))
        assert "sha256" in failed(here.verify(kept.name)), at
    here.file(kept.name).write_bytes(data[: len(data) // 2])
    report = here.verify(kept.name)
    assert failed(report) >= {"compression", "structure", "bytes", "sha256"}
    assert "make a new backup" in (report.remedy or "")
    for level, wrong in (("quick", b"not gzip at all"), ("quick", b""), ("full", b"")):
        here.file(kept.name).write_bytes(wrong)
        assert "compression" in failed(here.verify(kept.name, level))  # type: ignore[arg-type]


def test_archive_cut_between_members_is_seen_without_our_manifest(kept: Kept, tmp_path: Path) -> None:
    """The gzip stream is whole here; `tar` itself says nothing of a missing end."""
    here = kept.here.copy(tmp_path / "backups", kept.name)
    plain = b"".join(gzip.decompress(iter([here.file(kept.name).read_bytes()])))
    here.file(kept.name).write_bytes(packed(plain[: len(plain) // 2 // 512 * 512]))
    here.manifest(kept.name).unlink()
    assert failed(here.verify(kept.name)) >= {"structure", "backup_manifest", "manifest"}


def test_base_backup_of_another_tool_is_whole_but_foreign(kept: Kept, tmp_path: Path) -> None:
    here = kept.here.copy(tmp_path / "backups", kept.name)
    here.manifest(kept.name).unlink()
    report = here.verify(kept.name)
    assert failed(report) == {"manifest"}
    assert (report.valid, report.foreign) == (False, True)
    assert "whole, without a manifest" in summaries.describe(report)


@pytest.mark.parametrize("running", [True, False])
def test_archive_of_proc_004_tells_whether_the_server_ran(
    kept: Kept, embedded: EmbeddedServer, tmp_path: Path, running: bool
) -> None:
    """As `tar czf … /data` makes it. Without postmaster.pid it looks as one of a stopped server."""
    name = "postgres_volume_20260201_093000.tar.gz"

    def wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return member if running or member.name != "data/postmaster.pid" else None

    with tarfile.open(tmp_path / name, "w:gz", compresslevel=1) as tar:
        for part in ("PG_VERSION", "global", "pg_wal", "base/1", "postmaster.pid"):
            tar.add(embedded.data / part, f"data/{part}", filter=wanted)
    here = Shelf(kept.here.settings.model_copy(update={"dir": tmp_path}))
    report = here.verify(name)
    assert failed(report) == ({"manifest", "consistent"} if running else {"manifest"})
    assert (report.valid, report.foreign) == (False, True)
    consistent = check(report, "consistent")
    assert ("torn" in consistent.detail) == running
    assert ("NOT valid" in summaries.describe(report)) == running
    assert here.listed(name).state == "foreign"
    assert json.loads(report.model_dump_json())["files"] == report.files
    levels: tuple[Level, ...] = ("quick", "full")
    assert not any(here.verify(name, level).valid for level in levels)
