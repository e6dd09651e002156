"""Backups of the whole volume: taken of servers at work, verified, brought back by the documented commands."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from scarlet_backup_mcp.cli.demo.embedded import SETTINGS, EmbeddedServer, copy_programs, wheel_bin_dir
from scarlet_backup_mcp.errors import (
    BackupToolError,
    ContainerLost,
    ContainerNotRunning,
    DumpFailed,
    PermissionDenied,
    ServerUnreachable,
    VolumeUnsupported,
)
from scarlet_backup_mcp.models.results import Backup
from scarlet_backup_mcp.postgres.cluster.local import LocalCluster
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import Settings, load_settings

from ..conftest import MEMORY, PROJECT_ROOT, LocalDatabase
from ..helpers.backup_faults import Box, a_box
from ..helpers.containers import docker, run_docker
from ..helpers.faces import until
from ..helpers.restore import Watch
from ..helpers.store import execute, shelf
from ..helpers.volume_copy import (
    BALANCES,
    COPYING,
    LOSE_THE_SLOT,
    SLOTS,
    Kept,
    WhileItCopies,
    ask,
    failed,
    left,
    take,
    write_load,
)

BY_HAND = PROJECT_ROOT / "docs" / "choosing.md"
SMALL_WAL = ("max_wal_size=32MB", "min_wal_size=32MB", "fsync=off", "synchronous_commit=off", "autovacuum=off")


# A server in a container, at work


@pytest.fixture(scope="module")
def busy(require_docker: None) -> Iterator[Box]:
    """A server with checksums that throws WAL away as soon as it can; Scarlet's memory and a database for pgbench."""
    options = [word for setting in SMALL_WAL for word in ("-c", setting)]
    with a_box({"POSTGRES_INITDB_ARGS": "--data-checksums --no-sync"}, "postgres", *options) as box:
        box.wait_until_ready()
        box.psql(MEMORY.read_text(encoding="utf-8"))
        box.psql("CREATE DATABASE bench", "postgres")
        box.sh("pgbench -q -i -s 5 -U postgres bench 2>/dev/null")
        yield box


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


@pytest.mark.long
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


@pytest.mark.parametrize(
    ("done", "error"), [(-1, ContainerNotRunning), (0, (ContainerNotRunning, ContainerLost, ServerUnreachable))]
)
def test_container_that_stops_while_it_is_copied_can_be_copied_stopped(
    done: int, error: type[BackupToolError] | tuple[type[BackupToolError], ...], busy: Box, tmp_path: Path
) -> None:
    """As one whose server crashes again and again: what is seen of that first, the engine and the kernel decide."""

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
            take(load_settings(**{**there, "database": "postgres"}))
