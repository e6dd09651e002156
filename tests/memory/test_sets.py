"""A set of PostgreSQL, Redis and a store of files: made, verified, listed, kept and removed together."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
import zstandard

from scarlet_backup_mcp.errors import ArgumentsInvalid, BackupMissing, NameRefused, StoreNotStopped, StoreRefused
from scarlet_backup_mcp.models.results import Backup
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.integrity import db_integrity
from scarlet_backup_mcp.procedures.listing import list_backups
from scarlet_backup_mcp.procedures.prune import keep, prune
from scarlet_backup_mcp.procedures.restore import service as restores
from scarlet_backup_mcp.procedures.restore.options import RestoreOptions
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.summaries import describe

from ..conftest import IMAGE, PROJECT_ROOT, require_image
from ..helpers.containers import psql_in, run_docker
from ..helpers.memory import REDIS, Project, project
from ..helpers.memory_killer import MOMENTS

WRITER = """
trap 'stop=yes' INT TERM
n=0
while [ -z "$stop" ]; do
  n=$((n + 1))
  psql -qX -h database -U postgres -d letta -c "INSERT INTO written VALUES ($n)" &&
    echo "$n" > /files/number.new && mv /files/number.new /files/number
  sleep 0.05 & wait $!
done
"""


@pytest.fixture(scope="module")
def memory(require_docker: None) -> Iterator[Project]:
    require_image(REDIS)
    with project() as made:
        made.add_database()
        psql_in(
            made.container("postgres"), "CREATE TABLE agents AS SELECT 1 AS id; CREATE TABLE written (n int)", "letta"
        )
        made.add("redis", REDIS, "-v", f"{made.volume('redis')}:/data")
        made.add("files", IMAGE, "-v", f"{made.volume('files')}:/files", "--init", command=("sleep", "3600"))
        address = run_docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", made.container("postgres")).strip()
        made.add(
            "writer",
            IMAGE,
            *("-v", f"{made.volume('files')}:/files", "--add-host", f"database:{address}"),
            command=("bash", "-c", WRITER),
            after="postgres:service_started:false",
        )
        fill(made)
        yield made


def fill(made: Project) -> None:
    """Put into the stores what is hard to copy."""
    redis, files = made.container("redis"), made.container("files")
    run_docker("exec", redis, "redis-cli", "SET", "scarlet", "awake")
    run_docker("exec", redis, "redis-cli", "CONFIG", "SET", "save", "")
    script = """
    cd /files && mkdir -p deep/er && echo one > deep/er/one && ln -f deep/er/one two && ln -sf two three
    truncate -s 5M sparse && printf end >> sparse && chown 1234:99 deep && chmod 750 deep && touch -d 2001-02-03 two
    printf x > 'na me \n ü'
    """
    run_docker("exec", files, "sh", "-c", script)


def started(made: Project, service: str) -> str:
    return run_docker("inspect", "-f", "{{.State.StartedAt}}", made.container(service))


def states(made: Project) -> dict[str, str]:
    services = ("redis", "files", "writer")
    return {name: run_docker("inspect", "-f", "{{.State.Status}}", made.container(name)).strip() for name in services}


def unpacked(path: Path) -> tarfile.TarFile:
    with path.open("rb") as file:
        return tarfile.open(fileobj=io.BytesIO(zstandard.ZstdDecompressor().stream_reader(file).read()))


@pytest.fixture(scope="module")
def taken(memory: Project, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Backup]:
    directory = tmp_path_factory.mktemp("sets")
    with memory.context(directory, stores="files") as context:
        return directory, backup(context, Progress(), scope="memory")


def test_a_set_holds_one_moment(memory: Project, taken: tuple[Path, Backup]) -> None:
    directory, made = taken
    of_set = made.memory
    assert of_set is not None
    assert of_set.name == made.name.replace("letta_backup", "memory").replace(".sql", ".json")
    assert {member.service: member.saved for member in of_set.stores} == {"files": False, "redis": True}
    assert all(member.stopped_seconds for member in of_set.stores)
    assert of_set.stopped == [memory.container("writer")]
    assert of_set.paused_seconds
    assert states(memory) == dict.fromkeys(("redis", "files", "writer"), "running")
    assert not (directory / "memory.journal.json").exists()

    files = unpacked(directory / f"files_volume_{of_set.name[7:-5]}.tar.zst")
    number = files.extractfile("./number")
    assert number is not None
    dumped = (directory / made.name).read_text(encoding="utf-8")
    rows = dumped.partition("COPY public.written (n) FROM stdin;\n")[2].partition("\\.")[0].split()
    assert int(number.read()) == max(map(int, rows))

    deep, two, three = files.getmember("./deep"), files.getmember("./two"), files.getmember("./three")
    assert (deep.uid, deep.gid, deep.mode) == (1234, 99, 0o750)
    one = files.getmember("./deep/er/one")
    assert {two.islnk(), one.islnk()} == {True, False}
    assert datetime.fromtimestamp(two.mtime).year == 2001
    assert (three.issym(), three.linkname) == (True, "two")
    sparse = files.extractfile("./sparse")
    assert sparse is not None
    assert sparse.read() == bytes(5 << 20) + b"end"
    redis = unpacked(directory / f"redis_volume_{of_set.name[7:-5]}.tar.zst").extractfile("./dump.rdb")
    assert redis is not None
    assert b"awake" in redis.read()
    assert f"Set {of_set.name}, with" in describe(made)


def test_it_is_listed_and_covers_its_stores(memory: Project, taken: tuple[Path, Backup]) -> None:
    directory, made = taken
    with memory.context(directory, stores="files") as context:
        listing, looked = list_backups(context), db_integrity(context, Progress())
    [listed] = listing.sets
    assert (listed.backup, listed.stores, listed.fault) == (made.name, ["files", "redis"], "")
    assert [item.name for item in listing.backups] == [made.name]
    assert {store.in_set for store in listing.stores} == {listed.name}
    assert "other stores" not in describe(listing)
    assert "store_not_backed_up" not in {finding.code for finding in looked.findings}


def test_verification(memory: Project, taken: tuple[Path, Backup]) -> None:
    directory, made = taken
    assert made.memory is not None
    name, redis = made.memory.name, directory / made.memory.stores[1].name
    with memory.context(directory) as context:
        quick, full = verify(context, Progress(), name, "quick"), verify(context, Progress(), name, "full")
        assert (quick.valid, full.valid) == (True, True), full.checks
        with pytest.raises(ArgumentsInvalid):
            verify(context, Progress(), name, "drill")
        with pytest.raises(NameRefused, match="nothing restores"):
            restores.dry_run(context, Progress(), name, RestoreOptions())
        with pytest.raises(BackupMissing):
            verify(context, Progress(), "memory_20010101_000000.json", "quick")

        intact = redis.read_bytes()
        redis.write_bytes(intact[:-9] + b"\0" + intact[-8:])
        assert verify(context, Progress(), name, "quick").valid
        assert not verify(context, Progress(), name, "full").valid
        redis.write_bytes(intact[:-1])
        assert not verify(context, Progress(), name, "quick").valid
        assert redis.name in describe(list_backups(context))
        redis.rename(redis.with_suffix(".away"))
        assert not verify(context, Progress(), name, "full").valid
        redis.with_suffix(".away").rename(redis)
        redis.write_bytes(intact)
        assert verify(context, Progress(), name, "full").valid


def test_members_are_kept_and_removed_together(memory: Project, taken: tuple[Path, Backup]) -> None:
    directory, made = taken
    assert made.memory is not None
    with memory.context(directory, stores="files", keep_last=1, keep_daily=0, keep_weekly=0, keep_monthly=0) as context:
        assert keep(context, made.memory.name, on=True).name == made.name
        later = backup(context, Progress(), scope="memory")
        assert prune(context, Progress(), dry_run=False).removed == 0
        keep(context, made.memory.name, on=False)
        would = prune(context, Progress())
        [going] = [item for item in would.items if item.action == "would be removed"]
        assert going.name == made.name
        assert made.memory.name in going.reason
        assert going.bytes == made.bytes + sum(member.bytes for member in made.memory.stores)
        assert prune(context, Progress(), dry_run=False).removed == 1
        assert later.memory is not None
        left = {later.name, later.memory.name, *(member.name for member in later.memory.stores)}
        assert {path.name for path in directory.iterdir() if path.suffix in (".sql", ".zst")} | {
            path.name for path in directory.glob("memory_*")
        } == left
        assert verify(context, Progress(), later.memory.name, "full").valid


def test_what_can_not_be_stopped_is_refused_before_anything_is_done(memory: Project, tmp_path: Path) -> None:
    since = started(memory, "writer")
    cache = memory.add("cache", REDIS)
    try:
        with memory.context(tmp_path) as context, pytest.raises(StoreRefused, match="without a name"):
            backup(context, Progress(), scope="memory")
    finally:
        run_docker("rm", "-f", "-v", cache)
    gone = memory.add("gone", REDIS, "--rm", "-v", f"{memory.volume('gone')}:/data")
    try:
        with memory.context(tmp_path) as context, pytest.raises(StoreRefused, match="AutoRemove"):
            backup(context, Progress(), scope="memory")
        with memory.context(tmp_path, stores="lost") as context, pytest.raises(StoreRefused, match="lost"):
            backup(context, Progress(), scope="memory")
    finally:
        run_docker("rm", "-f", gone)
    assert list(tmp_path.glob("*.sql")) == []
    assert started(memory, "writer") == since


@pytest.mark.long
def test_without_a_pause_only_the_stores_are_stopped(memory: Project, tmp_path: Path) -> None:
    since = started(memory, "writer"), started(memory, "redis")
    with memory.context(tmp_path, pause=False, scope="memory") as context:
        made = backup(context, Progress()).memory
    assert made is not None
    assert (made.paused, made.stopped, [member.service for member in made.stores]) == (False, [], ["redis"])
    assert (started(memory, "writer"), started(memory, "redis") == since[1]) == (since[0], False)


@pytest.mark.long
def test_one_that_is_killed_while_it_stops_makes_no_set(memory: Project, tmp_path: Path) -> None:
    script = "trap 'exit 137' INT; while true; do sleep 0.1 & wait $!; done"
    memory.add("killed", IMAGE, command=("bash", "-c", script), after="redis:service_started:false")
    try:
        with memory.context(tmp_path) as context, pytest.raises(StoreNotStopped, match="137"):
            backup(context, Progress(), scope="memory")
        assert run_docker("inspect", "-f", "{{.State.Status}}", memory.container("killed")).strip() == "running"
    finally:
        run_docker("rm", "-f", memory.container("killed"))
    assert list(tmp_path.glob("*.sql")) == []
    assert not (tmp_path / "memory.journal.json").exists()


@pytest.mark.sample(1)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_backup_is_settled_by_the_next(memory: Project, tmp_path: Path, moment: str) -> None:
    with memory.context(tmp_path, stores="files") as context:
        settings = context.settings.model_dump(mode="json", exclude_unset=True)
        command = [
            sys.executable,
            "-m",
            "tests.helpers.memory_killer",
            json.dumps({"moment": moment, "settings": settings}),
        ]
        done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == -9, done.stderr
        journal = (tmp_path / "memory.journal.json").exists()
        assert journal == (moment != "before the set has its name")
        assert ("stopped for a backup" in describe(list_backups(context))) == journal
        assert list_backups(context).sets == []

        made = backup(context, Progress(), scope="memory")
        assert made.memory is not None
        assert any("interrupted" in warning for warning in made.warnings) == journal
        assert states(memory) == dict.fromkeys(("redis", "files", "writer"), "running")
        assert not (tmp_path / "memory.journal.json").exists()
        assert list(tmp_path.glob("*.partial*")) == []
        assert verify(context, Progress(), made.memory.name, "quick").valid
        assert ("No set names" in describe(list_backups(context))) == (not journal)
