"""Restore drills of whole volumes: what comes up is proved, what is wrong is told apart from what can't be told."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import re
import secrets
import shutil
import tarfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scarlet_backup_mcp import summaries
from scarlet_backup_mcp.errors import ArgumentsInvalid, Cancelled, DrillFailed, DrillImpossible
from scarlet_backup_mcp.hosts.docker.sandbox import HOME, LABEL
from scarlet_backup_mcp.models.manifest import CopiedTable, VolumeManifest
from scarlet_backup_mcp.models.results import Backup, Restore
from scarlet_backup_mcp.models.verification import Drill, Verification
from scarlet_backup_mcp.postgres.cluster import recovery
from scarlet_backup_mcp.postgres.cluster.controldata import ControlDataDamaged
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.drill.volume_checks import RecoveredRows, of_databases, of_integrity, of_rows
from scarlet_backup_mcp.procedures.sandbox.lifecycle import DRILLS, owner_of
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import Settings, load_settings
from scarlet_backup_mcp.store import gzip
from scarlet_backup_mcp.store.directory import BackupDirectory

from ..conftest import MEMORY, require_image
from ..helpers.backup_faults import Box
from ..helpers.containers import QUICK, run_docker, run_docker_quietly
from ..helpers.drill import bring_back, drill, listed, take
from ..helpers.restore import Watch
from ..helpers.volume_copy import BALANCES, a_segment, a_table, check, flipped, packed, write_load

LABELLED = ("--label", "scarlet-backup-mcp.test=1")
IMAGE = "pgvector/pgvector:pg{}"
OLD_RUNNING = "postgres_volume_20260101_010101.tar.gz"
OLD_STOPPED = "postgres_volume_20260202_020202.tar.gz"
HOSTILE = """
ALTER SYSTEM SET listen_addresses = '192.0.2.1';
ALTER SYSTEM SET port = 1;
ALTER SYSTEM SET ssl = on;
ALTER SYSTEM SET ssl_cert_file = '/nowhere.crt';
ALTER SYSTEM SET archive_mode = on;
ALTER SYSTEM SET archive_command = 'false';
ALTER SYSTEM SET primary_conninfo = 'host=192.0.2.1';
ALTER SYSTEM SET logging_collector = on;
ALTER SYSTEM SET log_directory = '/nowhere';
ALTER SYSTEM SET recovery_target = 'immediate';
ALTER SYSTEM SET max_prepared_transactions = 0;
"""
"""For the next start, which then fails; the one that runs has not read it."""
SPOIL = """
cd "$1" && echo "include 'nowhere.conf'" >> postgresql.conf && echo 'local all all reject' > pg_hba.conf &&
touch standby.signal && chown postgres standby.signal
"""
SETTINGS = """SELECT string_agg(setting, ' ' ORDER BY name) FROM pg_settings
WHERE name IN ('archive_mode', 'listen_addresses', 'max_worker_processes', 'primary_conninfo', 'ssl')"""
AMCHECK = "checking tables and indexes with amcheck"


@contextmanager
def a_server(version: int, arguments: str = "") -> Generator[Box]:
    """A server of that version with Scarlet's memory, a database for pgbench, and a prepared transaction."""
    image = IMAGE.format(version)
    require_image(image)
    box = Box(f"volume-drill-{secrets.token_hex(4)}", secrets.token_urlsafe(18))
    given = {"POSTGRES_PASSWORD": box.password, "POSTGRES_DB": "letta", **QUICK}
    given["POSTGRES_INITDB_ARGS"] += f" {arguments}"
    words = [word for name, value in given.items() for word in ("-e", f"{name}={value}")]
    settings = ("max_prepared_transactions=5", "wal_level=logical", "fsync=off", "autovacuum=off")
    command = ["postgres", *(word for setting in settings for word in ("-c", setting))]
    try:
        run_docker("run", "-d", "--pull", "never", "--name", box.name, *LABELLED, *words, image, *command)
        box.wait_until_ready()
        box.psql(MEMORY.read_text(encoding="utf-8"))
        box.psql("CREATE DATABASE bench", "postgres")
        box.sh("pgbench -q -i -s 1 -U postgres bench 2>/dev/null")
        box.psql("BEGIN; INSERT INTO pgbench_history VALUES (0); PREPARE TRANSACTION 'waiting';", "bench")
        yield box
    finally:
        run_docker_quietly("rm", "-fv", box.name)


def make_hostile(box: Box) -> None:
    """Nothing can start with its configuration any more."""
    box.psql(HOSTILE)
    box.sh(f"set -- $(psql -XAtU postgres -c 'SHOW data_directory') && {SPOIL}")


class Copies:
    """What drills of a backup directory have under way."""

    def __init__(self, settings: Settings) -> None:
        assert settings.dir is not None
        self._filter = f"label={LABEL}={owner_of(settings.dir / DRILLS)}"

    def psql(self, query: str, database: str) -> str:
        """A query in the one that is there."""
        (name,) = run_docker("ps", "--filter", self._filter, "--format", "{{.Names}}").split()
        return run_docker(
            "exec", name, "psql", "-XAt", "-h", HOME, "-U", "postgres", "-d", database, "-c", query
        ).strip()

    @property
    def left(self) -> list[str]:
        """Containers and volumes."""
        containers = run_docker("ps", "-a", "--filter", self._filter, "--format", "{{.Names}}").split()
        return containers + run_docker("volume", "ls", "--filter", self._filter, "--format", "{{.Name}}").split()


def told(report: Backup | Restore | Verification) -> Drill:
    assert report.drill is not None
    return report.drill


# Backups of a server at work


def look_into(settings: Settings, *queries: str) -> tuple[Watch, list[str]]:
    """A progress that asks the copy's database of pgbench, and the answers."""
    found: list[str] = []
    return Watch(AMCHECK, lambda _: found.extend(Copies(settings).psql(query, "bench") for query in queries)), found


KEPT_FROM_STARTING = "its own configuration keeps a server from starting"


def assert_proved(report: Verification, version: int) -> None:
    drilled = told(report)
    assert (report.valid, report.proved, drilled.proved, drilled.sound) == (True, True, True, True), report
    assert (drilled.rows_compared, drilled.server_version.partition(".")[0]) == (554, str(version))
    assert check(report, "pg_verifybackup").ok
    assert check(report, "drill_amcheck").found.startswith("bench: 4 tables, 3 btree indexes; letta: ")
    assert check(report, "drill_integrity").found == "2 rows"
    assert "1 prepared transactions" in " ".join(drilled.warnings)
    assert "the same data came back. Compared: 554 rows and " in summaries.describe(report)


def assert_kept_from_starting(report: Backup | Verification) -> None:
    """By its own configuration, so that no restore of it can be promised."""
    assert KEPT_FROM_STARTING in told(report).detail
    assert 'could not open configuration file "nowhere.conf"' in " ".join(told(report).warnings)
    assert (told(report).restore_seconds, "should take about" in summaries.describe(report)) == (None, False)


@pytest.mark.long
@pytest.mark.parametrize(("version", "arguments"), [(17, "--wal-segsize=64"), (18, "")], ids=["17", "18"])
def test_backup_under_write_load_is_proved_whatever_the_servers_configuration(
    require_docker: None, tmp_path: Path, version: int, arguments: str
) -> None:
    with a_server(version, arguments) as box:
        make_hostile(box)
        settings = box.settings(tmp_path)
        with write_load(box):
            made = take(settings, kind="volume")
        watch, found = look_into(settings, BALANCES, SETTINGS, "SELECT gid FROM pg_prepared_xacts")
        report = drill(settings, made.name, watch)
    assert_proved(report, version)
    assert_kept_from_starting(report)
    assert len(set(found[0].split("|"))) == 1
    assert found[1:] == ["off  0  off", "waiting"]
    assert Copies(settings).left == []


# Archives of all kinds, of one server that then is killed


@dataclasses.dataclass(frozen=True)
class Kept:
    """Only to be copied from."""

    settings: Settings
    busy: str
    quiet: str

    def copy(self, directory: Path, name: str, *, manifest: bool = True) -> Settings:
        """A backup directory with that one backup."""
        assert self.settings.dir is not None
        directory.mkdir(mode=0o700)
        for end in ("", ".manifest.json") if manifest else ("",):
            shutil.copy(self.settings.dir / (name + end), directory)
        return self.settings.model_copy(update={"dir": directory})


def tar_as_proc_004(box: Box, path: Path) -> None:
    """Its own command, whose archive has all members under data/. Of a server at work its exit code may be 1."""
    options = ("--rm", "--pull", "never", "--network", "none", *LABELLED, "--volumes-from", box.name)
    script = "cd /var/lib/postgresql && tar cf /made/made.tar data; chmod a+r /made/made.tar"
    mount = ("-v", f"{path.parent}:/made", "--entrypoint", "sh")
    run_docker("run", *options, *mount, IMAGE.format(15), "-c", script)
    made = path.parent / "made.tar"
    path.write_bytes(packed(made.read_bytes()))
    made.unlink()


@pytest.fixture(scope="module")
def kept(require_docker: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    directory = tmp_path_factory.mktemp("kept")
    with a_server(15, "--data-checksums") as box:
        settings = box.settings(directory)
        with write_load(box):
            busy = take(settings, kind="volume").name
        box.psql("ROLLBACK PREPARED 'waiting'", "bench")
        box.psql("CREATE UNLOGGED TABLE letta.cache AS SELECT generate_series(1, 7) AS n")
        quiet = take(settings, kind="volume").name
        box.psql("DROP TABLE letta.cache")
        tar_as_proc_004(box, directory / OLD_RUNNING)
        run_docker("stop", box.name)
        tar_as_proc_004(box, directory / OLD_STOPPED)
        run_docker("start", box.name)
        box.wait_until_ready()
        box.psql("SELECT pg_create_physical_replication_slot('standby', true)", "bench")
        box.psql("SELECT pg_create_logical_replication_slot('subscriber', 'test_decoding')", "bench")
        box.sh("pgbench -n -T 1 -c 2 -U postgres bench 2>/dev/null")
        make_hostile(box)
        run_docker("kill", box.name)
        yield Kept(settings, busy, quiet)


@pytest.mark.long
def test_backup_under_write_load_is_proved_while_its_server_is_down(kept: Kept, tmp_path: Path) -> None:
    settings = kept.copy(tmp_path / "b", kept.busy)
    watch, found = look_into(settings, BALANCES)
    report = drill(settings, kept.busy, watch)
    assert_proved(report, 15)
    assert (told(report).detail, told(report).restore_seconds is None) == ("", False)
    assert len(set(found[0].split("|"))) == 1
    assert any("preloads no libraries" in warning for warning in told(report).warnings)
    item = listed(settings, kept.busy)
    assert (item.state, item.proved_at, item.verified) == ("good", report.proved_at, "drill")


def holding(kept: Kept, directory: Path, rows: int) -> None:
    """Lay another backup into that directory, by its manifest one of so many rows, one of them an agent."""
    settings = kept.copy(directory.parent / "full", kept.quiet)
    assert settings.dir is not None
    for path in settings.dir.iterdir():
        path.rename(directory / path.name)
    path = directory / f"{kept.quiet}.manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rows": rows, "integrity_rows": 1}))


@pytest.mark.long
def test_cold_copy_of_a_killed_server_comes_up_with_its_slots_and_without_its_configuration_and_is_not_proved(
    kept: Kept, tmp_path: Path
) -> None:
    (tmp_path / "b").mkdir()
    holding(kept, tmp_path / "b", 555)
    settings = kept.settings.model_copy(update={"dir": tmp_path / "b"})
    slots = "SELECT string_agg(slot_name, ' ' ORDER BY 1) FROM pg_replication_slots"
    watch, found = look_into(settings, BALANCES, SETTINGS, slots)
    made = take(settings, watch, kind="volume", verify="drill")
    assert len(set(found[0].split("|"))) == 1
    assert found[1:] == ["off  0  off", "standby subscriber"]
    assert (made.cold, made.proved, made.good, told(made).sound) == (True, None, False, True), made
    assert "all of it could be read, 554 rows of letta; nobody counted what should be in it" in told(made).detail
    assert f"A restore drill found nothing wrong with it: {told(made).detail}." in made.reasons
    assert (told(made).rows_compared, "Nothing was compared" in summaries.describe(made)) == (0, True)
    assert told(made).warnings[-1] == (
        f"The last full backup, {kept.quiet}, has 555 rows (1 in agents); 554 (2) were read here."
    )
    assert_kept_from_starting(made)
    item = listed(settings, made.name)
    assert (item.state, item.proved_at) == ("good", None)


def test_unlogged_rows_are_in_no_copy_and_that_is_told(kept: Kept, tmp_path: Path) -> None:
    settings = kept.copy(tmp_path / "b", kept.quiet)
    report = drill(settings, kept.quiet)
    assert (report.valid, told(report).proved) == (True, True)
    assert any("come back empty" in warning and "letta.cache" in warning for warning in told(report).warnings)


def test_archive_of_a_running_server_is_never_proved(kept: Kept, tmp_path: Path) -> None:
    settings = kept.copy(tmp_path / "b", OLD_RUNNING, manifest=False)
    report = drill(settings, OLD_RUNNING)
    assert (report.valid, report.proved, told(report).proved, told(report).sound) == (False, None, None, False)
    assert "may be torn" in told(report).detail
    assert check(report, "drill_dump").ok
    assert "take a new backup" in (report.remedy or "")


@pytest.mark.long
def test_archive_of_a_stopped_server_comes_up_unproved_and_can_be_restored(kept: Kept, tmp_path: Path) -> None:
    settings, name = kept.copy(tmp_path / "b", OLD_STOPPED, manifest=False), f"volume-drill-{secrets.token_hex(4)}"
    path = tmp_path / "b" / OLD_STOPPED
    change(path, lambda files: None, more={"data/pgsql_tmp_before_restore_20260101_000000/PG_VERSION": b"15\n"})
    with tarfile.open(path) as tar:
        files = sum(member.isfile() for member in tar)
    holding(kept, tmp_path / "b", 554)
    run_docker("create", "--pull", "never", "--name", name, *LABELLED, IMAGE.format(15))
    try:
        settings = settings.model_copy(update={"container": name})
        done = bring_back(settings, OLD_STOPPED, accept_foreign=True, drill="always")
    finally:
        run_docker("rm", "-fv", name)
    drilled = told(done)
    assert (drilled.proved, drilled.sound, drilled.rows_compared) == (None, True, 0)
    assert drilled.detail.startswith("a server started on it and all of it could be read, 554 rows of letta;")
    assert [warning for warning in drilled.warnings if "last full" in warning] == []
    assert (done.restored, done.integrity_rows) == (True, 2)
    assert f"A drill did not prove it: {drilled.detail}." in done.warnings
    assert done.files_compared == files - len(["postmaster.opts", "what an earlier restore had set aside"])
    item = listed(settings, OLD_STOPPED)
    assert (item.state, item.proved_at) == ("foreign", None)


Files = dict[str, bytes]


def change(path: Path, how: Callable[[Files], object], *, seal: bool = False, more: Files | None = None) -> None:
    """Change the files of an archive; `seal`: and the server's list of them, as if it had always been so. With `more`
    besides."""
    with tarfile.open(path) as tar:
        members = list(tar)
        files = {member.name: tar.extractfile(member).read() for member in members if member.isfile()}  # type: ignore[union-attr]
    before = dict(files)
    how(files)
    if seal:
        files["backup_manifest"] = resealed(files, before)
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for member in members:
            if member.isfile() and member.name not in files:
                continue
            data = files.get(member.name, b"")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, data in (more or {}).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    path.write_bytes(packed(made.getvalue()))


def resealed(files: Files, before: Files) -> bytes:
    lines: list[bytes] = []
    for line in before["backup_manifest"].splitlines(keepends=True)[:-1]:
        named = re.search(rb'"Path": "([^"]*)"', line)
        name = named[1].decode() if named else ""
        if name and name not in files:
            continue
        if name and files[name] != before[name]:
            digest = hashlib.sha256(files[name]).hexdigest().encode()
            line = re.sub(rb'("Checksum": ")[0-9a-f]+', rb"\g<1>" + digest, line)
        lines.append(line)
    body = b"".join(lines)
    return body + f'"Manifest-Checksum": "{hashlib.sha256(body).hexdigest()}"}}\n'.encode()


def flip_a_page(files: Files) -> None:
    name = the_accounts(files)
    files[name] = flipped(files[name], 81920 + 4000)


def remove_a_table(files: Files) -> None:
    del files[the_accounts(files)]


def break_wal(files: Files) -> None:
    files[a_segment(files)] = flipped(files[a_segment(files)], 100)


def the_accounts(files: Files) -> str:
    """The biggest table there is."""
    name = a_table(files)
    assert len(files[name]) > 10 << 20
    return name


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("how", "seal", "check_of", "words"),
    [
        (flip_a_page, True, "drill_dump", "invalid page in block 10"),
        (remove_a_table, True, "drill_dump", 'could not open file "base/'),
        (break_wal, False, "pg_verifybackup", "WAL"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_damage_that_no_reading_shows_is_found(
    kept: Kept, tmp_path: Path, how: Callable[[Files], object], seal: bool, check_of: str, words: str
) -> None:
    settings = kept.copy(tmp_path / "b", kept.quiet, manifest=False)
    assert settings.dir is not None
    change(settings.dir / kept.quiet, how, seal=seal)
    report = drill(settings, kept.quiet)
    assert (report.proved, told(report).proved, told(report).verdict) == (False, False, "damaged"), told(report)
    assert {item.check for item in report.checks if item.ok is False} == {"manifest", check_of}
    assert words in check(report, check_of).detail
    assert "NOT the same data came back" in summaries.describe(report)
    assert "Don't rely on it" in (report.remedy or "")
    assert "drill" in listed(settings, kept.quiet).detail
    with BackupContext(settings) as context:
        assert verify(context, Progress(), kept.quiet).proved is False, "a full reading does not make it good"
    assert Copies(settings).left == []


def test_archive_that_is_not_whole_is_not_tried_out(kept: Kept, tmp_path: Path) -> None:
    settings = kept.copy(tmp_path / "b", kept.quiet)
    assert settings.dir is not None
    plain = b"".join(gzip.decompress(iter([(settings.dir / kept.quiet).read_bytes()])))
    (settings.dir / kept.quiet).write_bytes(packed(plain[: len(plain) // 2]))
    report = drill(settings, kept.quiet)
    assert (report.valid, report.drill, check(report, "drill").ok) == (False, None, None)
    assert "not intact" in check(report, "drill").detail


def test_role_that_is_not_in_the_copy_leaves_it_open(kept: Kept, tmp_path: Path) -> None:
    settings = kept.copy(tmp_path / "b", kept.quiet).model_copy(update={"user": "somebody"})
    report = drill(settings, kept.quiet)
    assert (report.valid, told(report).proved) == (True, None)
    assert 'role "somebody" does not exist' in told(report).detail


def test_other_major_version_is_refused_with_the_way_on(kept: Kept, tmp_path: Path) -> None:
    image, name = IMAGE.format(17), f"volume-drill-{secrets.token_hex(4)}"
    require_image(image)
    settings = kept.copy(tmp_path / "b", kept.quiet).model_copy(update={"container": name})
    run_docker("create", "--pull", "never", "--name", name, *LABELLED, image)
    try:
        with pytest.raises(DrillImpossible, match=r"is from PostgreSQL 15, but .* has 17") as refused:
            drill(settings, kept.quiet)
    finally:
        run_docker("rm", "-fv", name)
    assert "SCARLET_BACKUP_CONTAINER" in refused.value.remedy
    item = listed(settings, kept.quiet)
    assert (item.proved_at, item.verified) == (None, "full")
    assert Copies(settings).left == []


def test_file_that_changes_after_it_was_read_tells_nothing(kept: Kept, tmp_path: Path) -> None:
    settings = kept.copy(tmp_path / "b", kept.quiet)
    assert settings.dir is not None
    path = settings.dir / kept.quiet

    def swap(_: Progress) -> None:
        path.write_bytes(path.read_bytes() + b"\0")

    with pytest.raises(DrillFailed, match="changed while it was drilled"):
        drill(settings, kept.quiet, Watch("unpacking", swap))
    assert Copies(settings).left == []


@pytest.mark.sample(1)
@pytest.mark.parametrize("stage", ["unpacking", "dumping bench"])
def test_cancelled_drill_leaves_nothing(kept: Kept, tmp_path: Path, stage: str) -> None:
    settings = kept.copy(tmp_path / "b", kept.quiet)
    with pytest.raises(Cancelled):
        drill(settings, kept.quiet, Watch(stage, lambda progress: progress.cancel(), done=0))
    assert Copies(settings).left == []
    assert listed(settings, kept.quiet).proved_at is None


def test_without_docker_the_way_on_is_told(tmp_path: Path) -> None:
    (tmp_path / OLD_STOPPED).touch()
    settings = load_settings(via="local", dsn="postgresql://nobody@127.0.0.1:1/letta", dir=tmp_path)
    with pytest.raises(DrillImpossible, match="needs Docker") as refused:
        drill(settings, OLD_STOPPED)
    assert "level full" in refused.value.remedy
    with pytest.raises(ArgumentsInvalid, match="on_live_server"):
        drill(settings, OLD_STOPPED, on_live_server=True)


# What is made of numbers of rows


@pytest.fixture(scope="module")
def manifest(kept: Kept) -> VolumeManifest:
    assert kept.settings.dir is not None
    found = BackupDirectory(kept.settings.dir).volume_manifest(kept.quiet)
    assert found is not None
    assert found.quiet
    return found


@pytest.mark.parametrize(
    ("before", "after", "quiet", "found", "ok"),
    [
        (3, 3, True, 3, True),
        (3, 3, True, 4, False),
        (3, 3, True, None, False),
        (3, 5, False, 4, True),
        (5, 3, False, 4, True),
        (3, 5, False, 6, None),
        (3, 5, False, 2, None),
        (3, 3, False, None, False),
        (3, None, False, None, True),
        (3, None, False, 3, True),
        (3, None, False, 2, None),
    ],
)
def test_rows_are_compared_as_far_as_they_are_known(
    manifest: VolumeManifest, before: int, after: int | None, quiet: bool, found: int | None, ok: bool | None
) -> None:
    table = CopiedTable(schema="s", name="t", rows=before, rows_after=after)
    copied = manifest.model_copy(update={"quiet": quiet, "tables": [table]})
    rows = {} if found is None else {("s", "t"): found}
    report = Drill(proved=None, where="", server_version="", duration_seconds=0)
    assert of_rows(copied, RecoveredRows(rows, frozenset(), []), report).ok is ok
    assert (report.differences == []) == (ok is True)


def test_what_was_not_there_and_what_a_dump_tells_otherwise_is_wrong(manifest: VolumeManifest) -> None:
    report = Drill(proved=None, where="", server_version="", duration_seconds=0)
    rows = {(table.schema_, table.name): table.rows for table in manifest.tables}
    assert of_rows(manifest, RecoveredRows(rows, frozenset(), []), report).ok
    more = of_rows(manifest, RecoveredRows({**rows, ("s", "new"): 1}, frozenset(), []), report)
    assert (more.ok, more.detail) == (False, "s.new did not exist")
    assert (
        of_rows(manifest, RecoveredRows(rows, frozenset(), ["s.t: 1 row in its dump, 2 counted"]), report).ok is False
    )
    assert of_rows(None, RecoveredRows(rows, frozenset(), []), report).ok is None


def test_missing_databases_are_wrong_unless_they_may_have_been_dropped(manifest: VolumeManifest) -> None:
    without_bench = [name for name in manifest.databases if name != "bench"]
    loud = manifest.model_copy(update={"quiet": False})
    assert of_databases(manifest, "letta", manifest.databases).ok
    assert of_databases(manifest, "letta", without_bench).ok is False
    assert of_databases(loud, "letta", without_bench).ok is None
    assert of_databases(loud, "bench", without_bench).ok is False
    assert of_databases(None, "letta", []).ok
    assert of_integrity(manifest, "agents", manifest.integrity_rows).ok
    assert of_integrity(manifest, "agents", None).ok is False
    assert of_integrity(loud, "agents", None).ok is None


# What a server says


@pytest.mark.parametrize(
    ("line", "damaged"),
    [
        ("XX001 ERROR:  invalid page in block 0 of relation base/5/16384", True),
        ("XX000 PANIC:  could not locate a valid checkpoint record", True),
        ("XX000 FATAL:  could not locate required checkpoint record", True),
        ("XX000 FATAL:  incorrect checksum in control file", True),
        ("55000 FATAL:  WAL ends before end of online backup", True),
        ('58P01 ERROR:  could not open file "base/5/16384": No such file or directory', True),
        ('58P01 DETAIL:  Could not open file "pg_xact/0000": No such file or directory.', True),
        ("XX000 ERROR:  cache lookup failed for relation 16384", True),
        ('58P01 FATAL:  could not access file "no_such_library": No such file or directory', False),
        ("XX000 FATAL:  database locale is incompatible with operating system", False),
        ("XX000 FATAL:  too many replication slots active before shutdown", False),
        ("XX000 FATAL:  database files are incompatible with server", False),
        ("53100 PANIC:  could not write to file: No space left on device", False),
        ("01000 WARNING:  page verification failed, calculated checksum 1 but expected 2", False),
        ("00000 LOG:  invalid record length at 0/3000028: wanted 24, got 0", False),
    ],
)
def test_only_what_is_the_datas_own_fault_is_damage(line: str, damaged: bool) -> None:
    assert bool(recovery.damage(f"00000 LOG:  starting\n{line}\n00000 LOG:  shut down\n")) is damaged


def test_control_data_with_a_wrong_checksum_or_without_a_number_are_damaged() -> None:
    for text in ("WARNING: Calculated CRC checksum does not match value stored in file.", "max_connections setting: x"):
        with pytest.raises(ControlDataDamaged):
            recovery.demands(text)
