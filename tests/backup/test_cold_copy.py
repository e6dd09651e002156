"""Cold copies: the files of servers that do not run, in every layout, and what refuses or throws one away."""

from __future__ import annotations

import gzip
import secrets
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from scarlet_backup_mcp import summaries
from scarlet_backup_mcp.errors import (
    Cancelled,
    ContainerNotRunning,
    ContainerPaused,
    DiskFull,
    DumpFailed,
    RestoreInterrupted,
    ServerUnreachable,
    VolumeUnsupported,
)
from scarlet_backup_mcp.hosts.docker.helper import LABEL as LABEL_OF_HELPERS
from scarlet_backup_mcp.models.manifest import VolumeManifest
from scarlet_backup_mcp.models.results import Backup
from scarlet_backup_mcp.postgres.cluster import controldata
from scarlet_backup_mcp.postgres.cluster.controldata import ControlDataDamaged
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.catalog import records
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.prune import prune
from scarlet_backup_mcp.procedures.recovery import journal
from scarlet_backup_mcp.procedures.recovery.helper_container import HELPERS
from scarlet_backup_mcp.procedures.sandbox.lifecycle import owner_of
from scarlet_backup_mcp.progress import Progress, State
from scarlet_backup_mcp.settings import Settings, load_settings
from scarlet_backup_mcp.store.names import JOURNAL

from ..conftest import IMAGE, MEMORY, require_image
from ..helpers.backup_faults import Box, tmpfs
from ..helpers.containers import docker, run_docker, run_docker_quietly
from ..helpers.store import Shelf, waiting_journal
from ..helpers.volume import LABEL, PGDATA, TRUSTED

COPYING = "copying the files"
OTHER_IMAGE = "pgvector/pgvector:pg17"
STALE = """set -e; cd "$PGDATA"; ASIDE=pgsql_tmp_before_restore_20260101_000000
mkdir -p $ASIDE base/pgsql_tmp lost+found
echo x | tee $ASIDE/PG_VERSION base/pgsql_tmp/pgsql_tmp1.0 lost+found/x backup_manifest
chown -R --reference=PG_VERSION $ASIDE base/pgsql_tmp lost+found backup_manifest"""
"""What must not be copied: what a restore has set aside, temporary files, what it was restored from."""


def take(settings: Settings, progress: Progress | None = None) -> Backup:
    with BackupContext(settings) as context:
        return backup(context, progress or Progress(), kind="volume", label="prima")


def manifest(settings: Settings, name: str) -> VolumeManifest:
    with BackupContext(settings) as context:
        found = context.directory.volume_manifest(name)
    assert found is not None
    return found


def left(directory: Path) -> list[str]:
    """What is in a backup directory beside its own files."""
    return sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))


def helpers(directory: Path) -> list[str]:
    """The helper containers of a backup directory."""
    owned = f"label={LABEL_OF_HELPERS}={owner_of(directory / HELPERS)}"
    return run_docker("ps", "-a", "--filter", owned, "--format", "{{.Names}}").split()


class WhileItCopies(Progress):
    """Calls `act` once, in the backup's own thread, when the copy begins."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._act: Callable[[], object] | None = act

    def show(self, state: State) -> None:
        if self._act is not None and state.stage == COPYING:
            act, self._act = self._act, None
            act()


@contextmanager
def a_container(
    *options: str, image: str = IMAGE, command: tuple[str, ...] = (), start: bool = False
) -> Generator[str]:
    """A container of the test's own; removed with its anonymous volumes whatever happens."""
    name = f"cold-{secrets.token_hex(4)}"
    how = ("run", "-d") if start else ("create",)
    try:
        run_docker(*how, "--pull", "never", "--name", name, *LABEL, *options, image, *command)
        yield name
    finally:
        run_docker_quietly("rm", "-fv", name)


def settings_of(container: str, directory: Path) -> Settings:
    return load_settings(dir=directory, container=container)


# Servers that have ended


@dataclass(frozen=True)
class Ended:
    """A container whose server has run. `cleanly`: it was stopped, not killed."""

    box: Box
    cleanly: bool
    data_directory: str
    mounted_at: str
    volume: bool
    identity: str
    """System identifier and version, as the server told them."""
    dump: list[bytes]
    directory: Path
    backup: Backup

    @property
    def shelf(self) -> Shelf:
        return Shelf(self.box.settings(self.directory))


def plain_dump(box: Box) -> list[bytes]:
    """A dump of `letta` without the lines that differ every time, or after a crash: sequences then go on up to 32
    numbers later (sequence.c)."""
    found = docker(("exec", box.name, "pg_dump", "-h", "127.0.0.1", "-U", "postgres", "letta"), "", None)
    assert found.returncode == 0, found.stderr
    return [line for line in found.stdout.splitlines() if b"restrict" not in line and b"setval" not in line]


@pytest.fixture(scope="module")
def ended(require_docker: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Ended]]:
    """One server in each layout, ended, with a cold copy of it. They are made at the same time."""
    volume = f"cold-test-{secrets.token_hex(4)}"
    bind = tmp_path_factory.mktemp("bind")
    bind.chmod(0o700)
    shutil.chown(bind, 33, 33)
    above = "/var/lib/postgresql"
    layouts = {
        "anonymous": ((), PGDATA, PGDATA, False),
        "above": (("-v", f"{volume}:{above}", "-e", f"PGDATA={above}/15/docker"), f"{above}/15/docker", above, True),
        "bind": (
            ("-v", f"{bind}:{PGDATA}", "--user", "33:33", "--tmpfs", "/var/run/postgresql:mode=777"),
            PGDATA,
            PGDATA,
            True,
        ),
    }
    run_docker("volume", "create", *LABEL, volume)
    try:
        with ExitStack() as held:
            boxes = {
                name: Box(held.enter_context(a_container(*TRUSTED, *layout[0], start=True)), "x")
                for name, layout in layouts.items()
            }
            yield {name: an_end(boxes[name], *layouts[name][1:], tmp_path_factory.mktemp(name)) for name in layouts}
    finally:
        run_docker_quietly("volume", "rm", volume)


def an_end(box: Box, data_directory: str, mounted_at: str, cleanly: bool, directory: Path) -> Ended:
    box.wait_until_ready()
    box.psql(MEMORY.read_text(encoding="utf-8"))
    query = "SELECT system_identifier, current_setting('server_version_num') FROM pg_control_system()"
    identity, dump = box.psql(query), plain_dump(box)
    run_docker("exec", "-u", "0", box.name, "sh", "-c", STALE)
    run_docker(*(("stop", "-t", "20") if cleanly else ("kill",)), box.name)
    made = take(box.settings(directory))
    return Ended(box, cleanly, data_directory, mounted_at, mounted_at != PGDATA, identity, dump, directory, made)


@pytest.fixture(params=["anonymous", "above", "bind"])
def layout(request: pytest.FixtureRequest, ended: dict[str, Ended]) -> Ended:
    return ended[request.param]


@pytest.fixture
def killed(ended: dict[str, Ended]) -> Ended:
    """The one whose server was killed, with its container ended again after the test."""
    return ended["anonymous"]


def test_cold_copy_says_that_it_is_one(layout: Ended) -> None:
    made, kept = layout.backup, manifest(layout.shelf.settings, layout.backup.name)
    assert (made.kind, made.cold, made.label, made.shrunk) == ("volume", True, "prima", False)
    assert (made.rows, made.integrity_rows, made.tables, made.databases) == (None, None, [], [])
    assert (made.safe_to_proceed, made.steps[0].ok) == (False, False)
    assert "nobody counted its rows" in " ".join(made.reasons)
    assert kept.cold
    assert (kept.rows, kept.quiet, kept.backup_manifest_sha256, kept.start_lsn) == (None, None, None, None)
    assert kept.identity is not None
    assert f"{kept.identity.system_identifier}|{kept.identity.server_version_num}" == layout.identity
    assert kept.identity.database_oid is None
    assert kept.site is not None
    assert (kept.site.data_directory, kept.site.mounted_at) == (layout.data_directory, layout.mounted_at)
    assert kept.wal
    assert ("as after a crash" in " ".join(made.warnings)) != layout.cleanly
    assert not helpers(layout.directory)


def test_cold_copy_is_verified_and_listed(layout: Ended) -> None:
    report = layout.shelf.verify(layout.backup.name)
    assert report.valid, report.checks
    assert {"sha256", "content"} <= {check.check for check in report.checks}
    listed = layout.shelf.listed(layout.backup.name)
    assert (listed.state, listed.detail[:4], listed.rows) == ("good", "cold", None)
    with BackupContext(layout.shelf.settings) as context:
        assert records.last_full(context, ("sql", "volume")) is None
    assert "is valid" in summaries.describe(report)


def test_what_is_not_the_clusters_is_left_out(layout: Ended) -> None:
    with tarfile.open(layout.shelf.file(layout.backup.name)) as tar:
        members = {member.name.removeprefix("./"): member for member in tar}
    assert {"PG_VERSION", "global/pg_control", "pg_notify", "pg_wal/archive_status"} <= members.keys()
    stale = ("pgsql_tmp", "lost+found", "postmaster.", "backup_manifest", ".s.PGSQL")
    assert [name for name in members if any(part.startswith(stale) for part in name.split("/"))] == []
    assert (members["PG_VERSION"].uid == 33) == (layout.data_directory == layout.mounted_at and layout.cleanly)


def test_server_started_on_a_cold_copy_of_a_killed_one_has_every_row(killed: Ended) -> None:
    with a_container("-e", "POSTGRES_HOST_AUTH_METHOD=trust") as name:
        archive = killed.shelf.file(killed.backup.name)
        copy = ("docker", "cp", "-a", "-", f"{name}:{PGDATA}")
        subprocess.run(copy, input=gzip.decompress(archive.read_bytes()), check=True, capture_output=True, timeout=60)
        run_docker("start", name)
        box = Box(name, "x")
        box.wait_until_ready()
        assert plain_dump(box) == killed.dump
        assert len(killed.dump) > 500


def test_damage_to_a_cold_copy_is_seen(killed: Ended, tmp_path: Path) -> None:
    here = killed.shelf.copy(tmp_path / "backups", killed.backup.name)
    data = here.file(killed.backup.name).read_bytes()
    middle = len(data) // 2
    for wrong in (data[:middle], data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]):
        here.file(killed.backup.name).write_bytes(wrong)
        report = here.verify(killed.backup.name)
        assert {check.check for check in report.checks if check.ok is False} >= {"sha256"}
        assert here.listed(killed.backup.name).detail.startswith("cold")


# Not while somebody writes


def test_volume_in_use_by_another_container_is_refused(killed: Ended, tmp_path: Path) -> None:
    also = ("--volumes-from", killed.box.name, "--entrypoint", "sleep")
    with a_container(*also, command=("60",), start=True) as other, pytest.raises(VolumeUnsupported, match=other):
        take(killed.box.settings(tmp_path))
    assert left(tmp_path) == []


def thrown_away(ended: Ended, directory: Path, act: Callable[[], object]) -> str:
    with pytest.raises(DumpFailed) as failed:
        take(ended.box.settings(directory), WhileItCopies(act))
    assert left(directory) == []
    assert not helpers(directory)
    return failed.value.message


def test_copy_is_thrown_away_when_the_container_was_started_meanwhile(killed: Ended, tmp_path: Path) -> None:
    name = killed.box.name
    try:
        message = thrown_away(killed, tmp_path, lambda: run_docker("start", name))
    finally:
        run_docker("kill", name)
    assert "thrown away" in message or "tar" in message


def test_copy_is_thrown_away_when_a_server_came_and_went_meanwhile(ended: dict[str, Ended], tmp_path: Path) -> None:
    stopped = ended["above"]
    pg_ctl = f"pg_ctl -D {stopped.data_directory} -w -o '-c unix_socket_directories='"
    serve = f"{pg_ctl} start && {pg_ctl} stop"
    command = ("run", "--rm", "--pull", "never", *LABEL, "--volumes-from", stopped.box.name, "-u", "postgres")
    message = thrown_away(stopped, tmp_path, lambda: run_docker(*command, "--entrypoint", "sh", IMAGE, "-c", serve))
    assert "control file" in message


def test_cancelled_cold_copy_leaves_nothing(killed: Ended, tmp_path: Path) -> None:
    progress = WhileItCopies(lambda: progress.cancel())
    with pytest.raises(Cancelled):
        take(killed.box.settings(tmp_path), progress)
    assert left(tmp_path) == []
    assert not helpers(tmp_path)


def test_helper_that_is_lost_is_no_server_to_start_or_stop(killed: Ended, tmp_path: Path) -> None:
    progress = WhileItCopies(lambda: run_docker("rm", "-f", *helpers(tmp_path)))
    with pytest.raises(DumpFailed) as lost:
        take(killed.box.settings(tmp_path), progress)
    assert "docker compose" not in lost.value.remedy
    assert left(tmp_path) == []


def test_cold_copy_needs_room(killed: Ended, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", 1 << 20) as directory:
        with pytest.raises(DiskFull, match="these files"):
            take(killed.box.settings(directory))
        assert left(directory) == []


def test_helper_that_a_killed_call_left_is_in_nobodys_way(killed: Ended, tmp_path: Path) -> None:
    settings = killed.box.settings(tmp_path)
    (tmp_path / HELPERS).mkdir()
    mark = ("--label", f"{LABEL_OF_HELPERS}={owner_of(tmp_path / HELPERS)}")
    also = ("--volumes-from", killed.box.name, "--entrypoint", "sleep", *mark)
    with a_container(*also, command=("60",), start=True):
        assert take(settings).cold
        assert not helpers(tmp_path)


def test_removal_of_an_undo_point_that_was_cut_off_is_finished_by_the_next_one(killed: Ended, tmp_path: Path) -> None:
    box, dropped = killed.box, f"{killed.data_directory}/pgsql_tmp_dropped_20260101_000000"
    run_docker("start", box.name)
    try:
        box.wait_until_ready()
        run_docker("exec", box.name, "mkdir", "-p", f"{dropped}/base")
        with BackupContext(box.settings(tmp_path)) as context:
            assert prune(context, Progress(), dry_run=False).warnings == []
            [told] = prune(context, Progress(), dry_run=False, include_undo=True).warnings
        assert "Removed " in told
        assert run_docker("exec", box.name, "sh", "-c", f"ls -d {dropped} || echo gone").strip() == "gone"
    finally:
        run_docker("kill", box.name)


def test_sql_needs_a_server_and_a_journal_comes_first(killed: Ended, tmp_path: Path) -> None:
    with BackupContext(killed.box.settings(tmp_path)) as context, pytest.raises(ContainerNotRunning):
        backup(context, Progress(), kind="sql")
    journal.write(tmp_path, waiting_journal("letta_backup_20260101_000000.sql", killed.box.name))
    with pytest.raises(RestoreInterrupted, match="letta_backup_20260101_000000"):
        take(killed.box.settings(tmp_path))
    assert left(tmp_path) == [JOURNAL]


# What can't be copied so


def test_server_that_does_not_answer_has_to_be_stopped_first(require_docker: None, tmp_path: Path) -> None:
    with a_container("--entrypoint", "sleep", command=("60",), start=True) as name:
        with pytest.raises(ServerUnreachable) as silent:
            take(settings_of(name, tmp_path))
        run_docker("pause", name)
        with pytest.raises(ContainerPaused) as paused:
            take(settings_of(name, tmp_path))
        run_docker("unpause", name)
    for refused in (silent, paused):
        assert "docker compose stop postgres" in refused.value.remedy
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "There is no cluster of PostgreSQL"),
        (("-e", "PGDATA=/srv/pg"), "in the container itself"),
        (("--mount", f"type=tmpfs,destination={PGDATA}"), "is in memory"),
        (("-v", f"{PGDATA}/pg_wal"), f"{PGDATA}/pg_wal"),
    ],
    ids=["empty", "no volume", "memory", "mount inside"],
)
def test_what_is_no_whole_data_directory_is_refused(
    require_docker: None, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    with a_container(*options) as name, pytest.raises(VolumeUnsupported, match=words):
        take(settings_of(name, tmp_path))
    assert left(tmp_path) == []


def test_links_in_the_data_directory_are_refused(killed: Ended, tmp_path: Path) -> None:
    at = (
        "run",
        "--rm",
        "--pull",
        "never",
        *LABEL,
        "--volumes-from",
        killed.box.name,
        "--entrypoint",
        "sh",
        IMAGE,
        "-c",
    )
    run_docker(*at, f"ln -s /elsewhere {PGDATA}/pg_tblspc/16400")
    try:
        with pytest.raises(VolumeUnsupported, match="pg_tblspc/16400"):
            take(killed.box.settings(tmp_path))
    finally:
        run_docker(*at, f"rm {PGDATA}/pg_tblspc/16400")
    assert left(tmp_path) == []


def test_cluster_that_can_not_be_told_is_refused_with_a_way_to_keep_it(require_docker: None, tmp_path: Path) -> None:
    files = tmp_path / "files"
    (files / "global").mkdir(parents=True)
    (files / "PG_VERSION").write_text("15\n")
    (files / "global" / "pg_control").write_bytes(b"cut off")
    with a_container() as name:
        run_docker("cp", f"{files}/.", f"{name}:{PGDATA}")
        with pytest.raises(VolumeUnsupported, match="pg_controldata") as refused:
            take(settings_of(name, tmp_path / "backups"))
    assert "docker cp" in refused.value.remedy
    assert left(tmp_path / "backups") == []


def test_image_of_another_version_is_told(killed: Ended, tmp_path: Path) -> None:
    """Why the server does not start, most likely."""
    require_image(OTHER_IMAGE)
    with a_container("--volumes-from", killed.box.name, image=OTHER_IMAGE) as name:
        made = take(settings_of(name, tmp_path))
        kept = manifest(settings_of(name, tmp_path), made.name)
    assert "files are of PostgreSQL 15" in " ".join(made.warnings)
    assert kept.identity is not None
    assert (kept.identity.server_version, kept.identity.server_version_num) == ("15", 150000)
    assert kept.identity.system_identifier == killed.identity.partition("|")[0]


# pg_controldata


@pytest.mark.parametrize("text", ["", "Database system identifier: x\nDatabase cluster state: shut down\n"])
def test_what_is_not_of_pg_controldata_is_told(text: str) -> None:
    with pytest.raises(ControlDataDamaged):
        controldata.parse(text)


@pytest.mark.parametrize(
    ("pg_version", "program", "version"),
    [
        ("15\n", "postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n", ("15.20 (Debian 15.20-0+deb12u1)", 150020)),
        ("18\n", "postgres (PostgreSQL) 18beta1\n", ("18beta1", 180000)),
        ("15\n", "postgres (PostgreSQL) 17.6\n", ("15", 150000)),
        ("15\n", "", ("15", 150000)),
    ],
)
def test_version_is_that_of_the_files(pg_version: str, program: str, version: tuple[str, int]) -> None:
    assert controldata.version_of(pg_version, program) == version


@pytest.mark.parametrize("pg_version", ["", "fifteen", "\0\0"])
def test_damaged_version_is_told(pg_version: str) -> None:
    with pytest.raises(ControlDataDamaged):
        controldata.version_of(pg_version, "postgres (PostgreSQL) 15.20")
