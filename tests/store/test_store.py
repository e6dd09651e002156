"""The backup directory: names, writing, the directory itself, its lock, reading, encodings."""

from __future__ import annotations

import hashlib
import io
import os
import random
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import time
import unicodedata
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from scarlet_backup_mcp.errors import (
    BackupMissing,
    BackupToolError,
    Busy,
    DirectoryNotWritable,
    DiskFull,
    NameRefused,
    StoreError,
)
from scarlet_backup_mcp.models.common import Compression, Verdict
from scarlet_backup_mcp.store import names
from scarlet_backup_mcp.store.directory import BackupDirectory
from scarlet_backup_mcp.store.encodings import recognise
from scarlet_backup_mcp.store.lock import HOLDER, LOCK, writer_lock
from scarlet_backup_mcp.store.reading import CompressionDamaged, Compressor, FileReader, decompress
from scarlet_backup_mcp.store.removal import Swept
from scarlet_backup_mcp.store.writing import PartialFile, write_atomically

from ..conftest import PROJECT_ROOT
from ..helpers.store import Made

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files.")
NAME = "letta_backup_20260201_093000.sql"
FILE_NAME_BYTES = 255
"""The longest name on every usual file system, in bytes; Windows counts UTF-16 units, which are never more."""
LONGEST_COMPANION = f".{names.MANIFEST}.tmp"


# Names

DEVICES = ["CON", "nul", "Aux", "PRN", "COM1", "lpt9", "COM\u00b9", "CONIN$"]
PIECES = [*DEVICES, "..", ".", "/", "\\", "C:", ":stream", " ", "-", "\0", "\n", "\x1b[31m", "\x7f", "\u009b", "letta"]
NAMES = st.builds(
    "".join,
    st.tuples(
        st.lists(st.sampled_from(PIECES) | st.text(max_size=90), max_size=4).map("".join),
        st.sampled_from(["", ".sql", ".sql.zst", ".SQL", ".sql ", ".sql.", ".sql:x", ".tar.gz"]),
    ),
)


@settings(max_examples=600, deadline=None, database=None)
@given(name=NAMES)
@example(name="COM\u00b9.sql")
@example(name="CON .sql")
@example(name="a\x9b31m.sql")
@example(name="\ud800.sql")
@example(name="漢" * 80 + ".sql")
def test_accepted_name_is_a_plain_base_name_everywhere(name: str) -> None:
    if names.parse(name) is None:
        return
    assert PurePosixPath(name).name == name
    assert PureWindowsPath(name).name == name
    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
    assert not name.startswith((".", "-"))
    assert not name.endswith((".", " "))
    assert not is_device(name)
    assert len((name + LONGEST_COMPANION).encode()) <= FILE_NAME_BYTES


def is_device(name: str) -> bool:
    """As Windows has it ("Naming Files, Paths, and Namespaces"), and Python's ntpath.isreserved from 3.13 on."""
    stem = name.partition(".")[0].rstrip(" ").upper()
    numbered = {f"{device}{digit}" for device in ("COM", "LPT") for digit in "123456789\u00b9\u00b2\u00b3"}
    return stem in {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | numbered


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".sql",
        "letta",
        "letta.txt",
        "letta.sql.gpg",
        "../letta.sql",
        "..\\letta.sql",
        "/etc/letta.sql",
        "backups/letta.sql",
        "C:\\letta.sql",
        "C:letta.sql",
        "\\\\server\\share\\letta.sql",
        "letta.sql:stream.sql",
        "letta\n.sql",
        "letta\0.sql",
        "letta\x1b[2J.sql",
        ".hidden.sql",
        "-rf.sql",
        "letta.sql ",
        "letta.sql.",
        "con.sql",
        "NUL.sql",
        "lpt1.anything.sql",
        "letta*.sql",
        "letta?.sql",
        'letta".sql',
        "letta|x.sql",
        "l" * 300 + ".sql",
        NAME + names.PARTIAL,
        NAME + names.MANIFEST,
        "postgres_volume_/x.tar.gz",
    ],
)
def test_name_is_refused(name: str) -> None:
    assert names.parse(name) is None
    with pytest.raises(NameRefused) as refused:
        names.require(name)
    assert "list_backups" in refused.value.remedy


@pytest.mark.parametrize(
    ("name", "kind", "compression", "stamp"),
    [
        (NAME, "sql", "none", datetime(2026, 2, 1, 9, 30)),
        (NAME + ".zst", "sql", "zstd", datetime(2026, 2, 1, 9, 30)),
        ("prima della migrazione.sql", "sql", "none", None),
        ("città_20261399_999999.sql", "sql", "none", None),
        ("postgres_volume_20260201_093000.tar.gz", "volume", "gzip", datetime(2026, 2, 1, 9, 30)),
        ("postgres_volume_vecchio.tar.zst", "volume", "zstd", None),
        ("console.sql", "sql", "none", None),
    ],
)
def test_name_is_taken_apart(name: str, kind: str, compression: str, stamp: datetime | None) -> None:
    found = names.require(name)
    assert (found.name, found.kind, found.compression, found.stamp) == (name, kind, compression, stamp)


@settings(max_examples=200, deadline=None, database=None)
@given(
    prefix=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}", fullmatch=True),
    moment=st.datetimes(datetime(2000, 1, 1), datetime(2999, 1, 1)),
    compression=st.sampled_from(["none", "zstd"]),
)
def test_new_name_reads_back(prefix: str, moment: datetime, compression: Compression) -> None:
    found = names.require(names.new_name(prefix, moment, compression))
    assert (found.kind, found.compression) == ("sql", compression)
    assert found.stamp == moment.replace(microsecond=0)


@settings(max_examples=300, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=NAMES)
@example(name="😀" * 150 + ".sql")
@example(name="\ud800.sql")
def test_whatever_name_is_asked_for_is_refused_or_missing(tmp_path: Path, name: str) -> None:
    with pytest.raises((NameRefused, BackupMissing)):
        BackupDirectory(tmp_path).find(name)


# Writing


def test_partial_file_has_its_final_name_only_after_publish(tmp_path: Path) -> None:
    final = tmp_path / NAME
    partial = PartialFile(final)
    assert partial.path.name == NAME + ".partial"
    for piece in (b"one", b"", b"two"):
        partial.write(piece)
        assert not final.exists()
    partial.finish()
    assert not final.exists()
    partial.publish()
    assert final.read_bytes() == b"onetwo"
    assert not partial.path.exists()
    assert (partial.bytes, partial.sha256) == (6, hashlib.sha256(b"onetwo").hexdigest())
    partial.discard()
    assert final.read_bytes() == b"onetwo"


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_discarded_partial_file_leaves_nothing(tmp_path: Path, steps: int) -> None:
    partial = PartialFile(tmp_path / NAME)
    if steps > 0:
        partial.write(b"data")
    if steps > 1:
        partial.finish()
    partial.discard()
    assert list(tmp_path.iterdir()) == []


def test_second_partial_file_of_a_name_is_refused(tmp_path: Path) -> None:
    first = PartialFile(tmp_path / NAME)
    first.write(b"first")
    with pytest.raises(StoreError):
        PartialFile(tmp_path / NAME)
    first.finish()
    first.publish()
    assert (tmp_path / NAME).read_bytes() == b"first"


def test_publish_never_replaces_a_file(tmp_path: Path) -> None:
    partial = PartialFile(tmp_path / NAME)
    partial.write(b"new")
    partial.finish()
    (tmp_path / NAME).write_bytes(b"old")
    with pytest.raises(StoreError, match="left alone"):
        partial.publish()
    partial.discard()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


@POSIX
def test_partial_file_does_not_follow_a_link(tmp_path: Path) -> None:
    victim, directory = tmp_path / "victim", tmp_path / "backups"
    directory.mkdir()
    victim.write_bytes(b"mine")
    for target in (victim, tmp_path / "not there yet"):
        link = directory / f"{NAME}.partial"
        link.symlink_to(target)
        with pytest.raises(StoreError):
            PartialFile(directory / NAME)
        link.unlink()
    assert victim.read_bytes() == b"mine"
    assert not (tmp_path / "not there yet").exists()


@POSIX
def test_atomic_write_follows_no_link(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "x.json"
    victim.write_bytes(b"mine")
    (tmp_path / ".x.json.tmp").symlink_to(victim)
    path.symlink_to(victim)
    write_atomically(path, b"ours")
    assert (victim.read_bytes(), path.read_bytes()) == (b"mine", b"ours")
    assert not path.is_symlink()


def test_atomic_write_that_can_not_be_begun_is_an_error_of_the_store(tmp_path: Path) -> None:
    """As on a file system that is mounted read-only."""
    (tmp_path / ".x.json.tmp").mkdir()
    with pytest.raises(StoreError, match=r"x\.json"):
        write_atomically(tmp_path / "x.json", b"{}")


@POSIX
def test_files_are_for_their_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        partial = PartialFile(tmp_path / NAME)
        modes = [partial.path.stat().st_mode]
        partial.finish()
        partial.publish()
        write_atomically(tmp_path / "x.json", b"{}")
        BackupDirectory(tmp_path / "backups").prepare()
    finally:
        os.umask(before)
    modes += [(tmp_path / NAME).stat().st_mode, (tmp_path / "x.json").stat().st_mode]
    assert [mode & 0o777 for mode in modes] == [0o600, 0o600, 0o600]
    assert (tmp_path / "backups").stat().st_mode & 0o777 == 0o700


def test_killed_writer_leaves_a_partial_file_and_no_final_name(tmp_path: Path) -> None:
    with child(
        """
        from scarlet_backup_mcp.store.writing import PartialFile
        partial = PartialFile(Path(sys.argv[1]))
        while True:
            partial.write(b"x" * 100_000)
            print("wrote", flush=True)
        """,
        tmp_path / NAME,
    ) as process:
        for _ in range(3):
            assert next_line(process) == "wrote"
        process.kill()
    assert [path.name for path in tmp_path.iterdir()] == [NAME + ".partial"]
    assert BackupDirectory(tmp_path).sweep() == Swept([NAME + ".partial"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verdict", ["proved", "sound"])
def test_drill_that_could_not_tell_takes_nothing_back(tmp_path: Path, verdict: Verdict) -> None:
    (tmp_path / NAME).write_bytes(b"x")
    here = BackupDirectory(tmp_path)
    entry, proved = here.find(NAME), True if verdict == "proved" else None

    def kept(**found: Any) -> tuple[object, ...]:
        here.store_verification(entry, sha256="0" * 64, failed=[], **found)
        outcome = here.verification(entry)
        assert outcome is not None
        return outcome.proved, outcome.verdict, outcome.search_path

    first = kept(proved=proved, verdict=verdict, search_path="database")
    assert first == kept(verdict="unknown") == kept() == (proved, verdict, "database")
    assert kept(proved=False, verdict="will_not_load") == (False, "will_not_load", None)


def test_search_path_with_which_a_sample_has_loaded_is_kept(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"x")
    here = BackupDirectory(tmp_path)
    entry = here.find(NAME)
    here.store_verification(entry, sha256="0" * 64, failed=[], search_path="database")
    here.store_verification(entry, sha256="0" * 64, failed=[])
    outcome = here.verification(entry)
    assert outcome is not None
    assert (outcome.verdict, outcome.search_path) == (None, "database")


def test_atomic_write_is_whole_whenever_its_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    contents = {letter.encode() * size for letter, size in (("A", 400_000), ("B", 300_001))}
    seen: set[bytes] = set()
    for _ in range(6):
        with child(
            """
            from scarlet_backup_mcp.store.writing import write_atomically
            print("ready", flush=True)
            while True:
                for letter, size in ((b"A", 400_000), (b"B", 300_001)):
                    write_atomically(Path(sys.argv[1]), letter * size)
            """,
            path,
        ) as process:
            assert next_line(process) == "ready"
            wait_for(path.exists)
            time.sleep(random.uniform(0, 0.05))
            process.kill()
        seen.add(path.read_bytes())
        write_atomically(tmp_path / "after.json", b"still possible")
    assert seen <= contents


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = sys.platform == "linux" and mount("-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk))
    if not mounted:
        pytest.skip("Only root on Linux may mount the small file system that this needs.")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def mount(*arguments: str) -> bool:
    return shutil.which("mount") is not None and subprocess.run(["mount", *arguments], check=False).returncode == 0


def test_full_disk_is_told_and_nothing_is_left(small_disk: Path) -> None:
    partial = PartialFile(small_disk / NAME)
    partial.write(os.urandom(100_000))
    with pytest.raises(DiskFull, match=NAME):
        partial.write(os.urandom(1_000_000))
    partial.discard()
    assert list(small_disk.iterdir()) == []


def test_full_disk_leaves_the_old_content_of_an_atomic_write(small_disk: Path) -> None:
    path = small_disk / "x.json"
    write_atomically(path, b"old")
    with pytest.raises(DiskFull):
        write_atomically(path, os.urandom(1_000_000))
    assert path.read_bytes() == b"old"
    assert [item.name for item in small_disk.iterdir()] == ["x.json"]


# The directory


def test_directory_that_is_not_there_is_empty(tmp_path: Path) -> None:
    directory = BackupDirectory(tmp_path / "none")
    assert (list(directory.entries()), list(directory.partials()), directory.warnings()) == ([], [], [])
    with pytest.raises(BackupMissing):
        directory.find(NAME)
    assert not directory.path.exists()


def test_prepared_directory_is_kept_out_of_git(tmp_path: Path) -> None:
    directory = BackupDirectory(tmp_path / "a" / "backups")
    directory.prepare()
    assert (directory.path / ".gitignore").read_text() == "*\n"
    (directory.path / ".gitignore").write_text("# mine\n")
    directory.prepare()
    assert (directory.path / ".gitignore").read_text() == "# mine\n"


@POSIX
def test_unusable_directory_is_a_clear_error(tmp_path: Path) -> None:
    file, dangling = tmp_path / "file", tmp_path / "dangling"
    file.write_bytes(b"")
    dangling.symlink_to(tmp_path / "nowhere")
    for path in (file, file / "below", dangling, Path("/dev/null/backups")):
        with pytest.raises(DirectoryNotWritable, match=str(path)):
            BackupDirectory(path).prepare()


@POSIX
def test_reading_a_directory_that_is_none_is_a_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(StoreError, match=str(file)):
        list(BackupDirectory(file).entries())
    with pytest.raises(StoreError):
        BackupDirectory(file).find(NAME)


@POSIX
def test_only_regular_files_are_backups(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.txt").write_bytes(b"secret")
    directory = tmp_path / "backups"
    directory.mkdir()
    (directory / NAME).write_bytes(b"real")
    (directory / "link.sql").symlink_to(tmp_path / "elsewhere.txt")
    (directory / "dangling.sql").symlink_to(tmp_path / "nowhere")
    (directory / "folder.sql").mkdir()
    os.mkfifo(directory / "pipe.sql")
    os.mkfifo(directory / "pipe.sql.partial")
    (directory / "notes.txt").write_bytes(b"")
    store = BackupDirectory(directory)
    assert [entry.name.name for entry in store.entries()] == [NAME]
    assert list(store.partials()) == []
    for name in ("link.sql", "dangling.sql", "folder.sql", "pipe.sql"):
        with pytest.raises(NameRefused, match="regular file"):
            store.find(name)


@pytest.mark.parametrize("place", ["OneDrive - Famiglia", "Dropbox", "Google Drive", "My Drive"])
def test_directory_in_a_cloud_folder_is_a_warning(tmp_path: Path, place: str) -> None:
    directory = BackupDirectory(tmp_path / place / "backups")
    directory.prepare()
    assert any("clear text" in warning for warning in directory.warnings())


@POSIX
def test_directory_that_others_may_look_into_is_a_warning(tmp_path: Path) -> None:
    directory = BackupDirectory(tmp_path / "backups")
    directory.prepare()
    assert directory.warnings() == []
    directory.path.chmod(0o755)
    assert any("chmod 700" in warning for warning in directory.warnings())


def test_new_names_do_not_collide(tmp_path: Path) -> None:
    directory = BackupDirectory(tmp_path)
    taken: list[str] = []
    for ending in (".partial", "", ".zst"):
        name = directory.new_name("letta_backup", "none")
        (tmp_path / (name + ending)).write_bytes(b"")
        taken.append(name)
    assert len(set(taken)) == 3


def test_sweep_removes_what_a_killed_backup_left(tmp_path: Path) -> None:
    partial = tmp_path / (NAME + names.PARTIAL)
    for path in (partial, tmp_path / (NAME + names.MANIFEST)):
        path.write_bytes(b"")
    for companion in (names.MANIFEST, names.VERIFIED):
        temporary = tmp_path / f".{NAME}{companion}.tmp"
        temporary.write_bytes(b"")
        make_old(temporary)
    assert BackupDirectory(tmp_path).sweep() == Swept([partial.name])
    assert list(tmp_path.iterdir()) == []


def test_sweep_leaves_what_a_verification_is_writing(tmp_path: Path) -> None:
    """It takes no lock."""
    (tmp_path / f".{NAME}{names.VERIFIED}.tmp").write_bytes(b"")
    assert BackupDirectory(tmp_path).sweep() == Swept()
    assert len(list(tmp_path.iterdir())) == 1


def test_sweep_leaves_a_finished_backup_and_its_manifest(tmp_path: Path) -> None:
    kept = {NAME, NAME + names.MANIFEST, NAME + names.VERIFIED}
    for name in (*kept, NAME + names.PARTIAL):
        (tmp_path / name).write_bytes(b"")
    BackupDirectory(tmp_path).sweep()
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_sweep_passes_over_what_cannot_be_removed(tmp_path: Path) -> None:
    """A directory lies where the manifest would."""
    stuck, other = f"{NAME}{names.PARTIAL}", f"letta_backup_20260202_093000.sql{names.PARTIAL}"
    unnamed = names.unnamed(f"{NAME}.zst")
    for name in (stuck, other, unnamed):
        (tmp_path / name).write_bytes(b"")
    for name in (NAME, f"{NAME}.zst"):
        (tmp_path / (name + names.MANIFEST)).mkdir()
    swept = BackupDirectory(tmp_path).sweep()
    assert (swept.removed, [warning.split()[0].strip(",") for warning in swept.warnings[:1]]) == ([other], [stuck])
    assert f"What is left of {NAME}.zst" in swept.warnings[1]
    for name in (NAME, f"{NAME}.zst"):
        (tmp_path / (name + names.MANIFEST)).rmdir()
    assert sorted(BackupDirectory(tmp_path).sweep().removed) == [stuck, f"{NAME}.zst"]
    assert list(tmp_path.iterdir()) == []


def test_sweep_leaves_unfinished_dumps_of_other_programs(tmp_path: Path) -> None:
    stamp = "20260201_093000"
    ours = {
        f"scarlet_{stamp}.sql",
        f"scarlet_{stamp}.sql.zst",
        f"postgres_volume_{stamp}.tar.gz",
        f"old dump_repaired_{stamp}.sql",
    }
    others = {
        f"shop_{stamp}.sql",
        f"scarlet_dev_{stamp}.sql",
        f"x{stamp}.sql",
        f"postgres_volume_of_shop_{stamp}.tar.gz",
    }
    for name in ours | others:
        (tmp_path / (name + names.PARTIAL)).write_bytes(b"")
    directory = BackupDirectory(tmp_path, "scarlet")
    assert {path.name for path in directory.partials()} == {name + names.PARTIAL for name in ours}
    assert set(directory.sweep().removed) == {name + names.PARTIAL for name in ours}
    assert {path.name for path in tmp_path.iterdir()} == {name + names.PARTIAL for name in others}


def test_sweep_removes_what_was_begun_under_an_earlier_prefix(tmp_path: Path) -> None:
    stamp = "20260201_093000"
    begun = f"scarlet_{stamp}.sql.zst{names.PARTIAL}"
    for name in (begun, f"shop_{stamp}.sql{names.PARTIAL}", f"shop_{stamp}.sql"):
        (tmp_path / name).write_bytes(b"")
    directory = BackupDirectory(tmp_path, "letta_backup")
    assert directory.sweep() == Swept()
    (tmp_path / f"scarlet_20260101_000000.sql{names.MANIFEST}").write_bytes(b"{}")
    assert directory.sweep() == Swept([begun])


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "notes.txt.partial",
        "dump.sql.partial",
        "other.sql.manifest.json",
        ".scarlet-backup.lock",
        ".gitignore",
        f".syncthing.{NAME}.tmp",
        ".of-an-editor.tmp",
        ".of-an-editor.json.tmp",
    ],
)
def test_sweep_leaves_a_file_that_is_not_ours(tmp_path: Path, name: str) -> None:
    """Syncthing, for one, keeps what it is still receiving as `.syncthing.<name>.tmp`."""
    (tmp_path / name).write_bytes(b"a stranger's")
    make_old(tmp_path / name)
    assert BackupDirectory(tmp_path).sweep() == Swept()
    assert (tmp_path / name).read_bytes() == b"a stranger's"


def make_old(path: Path) -> None:
    """Two days."""
    moment = time.time() - 172_800
    os.utime(path, (moment, moment))


# The lock

HOLD = """
from scarlet_backup_mcp.store.lock import writer_lock
with writer_lock(Path(sys.argv[1]), "restore"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_second_process_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    with child(HOLD, tmp_path) as process:
        assert next_line(process) == "held"
        told = f"holds the lock of {re.escape(str(tmp_path))}: a restore of process {process.pid} since 20"
        with pytest.raises(Busy, match=told), writer_lock(tmp_path, "backup"):
            pass
        end_input(process)
        assert process.wait(10) == 0
    with writer_lock(tmp_path, "backup"):
        assert (tmp_path / HOLDER).exists()
    assert not (tmp_path / HOLDER).exists()


def test_lock_is_free_when_its_holder_is_killed(tmp_path: Path) -> None:
    with child(HOLD, tmp_path) as process:
        assert next_line(process) == "held"
        process.kill()
        process.wait(10)
    with writer_lock(tmp_path, "backup"):
        assert f'"pid": {os.getpid()}' in (tmp_path / HOLDER).read_text()


def test_lock_holds_between_threads_of_one_process(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def attempt() -> None:
        try:
            with writer_lock(tmp_path, "backup"):
                pass
        except BackupToolError as error:
            errors.append(error)

    with writer_lock(tmp_path, "restore"):
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join(10)
    assert [type(error) for error in errors] == [Busy]


def test_directories_are_locked_independently(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    with child(HOLD, one) as process:
        assert next_line(process) == "held"
        with writer_lock(two, "backup"), pytest.raises(Busy), writer_lock(one, "backup"):
            pass


def test_lock_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), writer_lock(tmp_path, "backup"):
        raise KeyError
    with writer_lock(tmp_path, "backup"):
        pass


def test_lock_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()
    with pytest.raises(StoreError), writer_lock(tmp_path, "backup"):
        pass


# Reading


def test_file_reader_counts_and_digests_what_it_read(tmp_path: Path) -> None:
    data = os.urandom(2_500_000)
    (tmp_path / NAME).write_bytes(data)
    seen: list[int] = []
    reader = FileReader(tmp_path / NAME, seen.append)
    assert b"".join(reader) == data
    assert (reader.bytes, reader.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert seen == sorted(seen)
    assert seen[-1] == len(data)


def test_file_that_cannot_be_read_is_a_clear_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(StoreError, match="can't be read"):
            list(FileReader(path))


def compressed(data: bytes) -> bytes:
    compressor = Compressor("zstd")
    return compressor.compress(data) + compressor.finish()


def plain(pieces: Iterable[bytes]) -> bytes:
    return b"".join(decompress(iter(pieces), "zstd"))


@settings(max_examples=60, deadline=None, database=None)
@given(frames=st.lists(st.binary(max_size=3000), min_size=1, max_size=4), cut=st.integers(1, 5000))
def test_frames_one_after_another_are_one_text(frames: list[bytes], cut: int) -> None:
    stream = b"".join(compressed(frame) for frame in frames)
    assert plain(stream[at : at + cut] for at in range(0, len(stream), cut)) == b"".join(frames)


def test_stream_cut_at_any_byte_is_seen() -> None:
    stream = compressed(b"COPY public.agents FROM stdin;\n" * 40 + os.urandom(200))
    for end in range(len(stream)):
        with pytest.raises(CompressionDamaged):
            plain([stream[:end]])
    assert len(plain([stream])) == 40 * 31 + 200


def test_stream_of_several_frames_is_whole_only_at_their_ends() -> None:
    """zstd itself can't tell that a whole frame is missing: size, digest and trailer of the script do."""
    frames = [compressed(bytes([65 + n]) * 100) for n in range(3)]
    ends = {len(b"".join(frames[:count])): count for count in (1, 2, 3)}
    stream = b"".join(frames)
    for end in range(1, len(stream) + 1):
        if end in ends:
            assert len(plain([stream[:end]])) == 100 * ends[end]
        else:
            with pytest.raises(CompressionDamaged):
                plain([stream[:end]])


def test_any_flipped_bit_of_a_stream_is_seen() -> None:
    text = os.urandom(120)
    stream = compressed(text)
    for bit in range(8 * len(stream)):
        harmed = bytearray(stream)
        harmed[bit // 8] ^= 1 << bit % 8
        try:
            assert plain([bytes(harmed)]) == text, f"bit {bit} changed the text unseen"
        except CompressionDamaged:
            continue


def test_garbage_after_a_stream_is_seen() -> None:
    for garbage in (b"\0", b"x", b"\n", b"-- more"):
        with pytest.raises(CompressionDamaged):
            plain([compressed(b"text"), garbage])


def test_all_of_a_damaged_stream_is_read_for_its_digest(tmp_path: Path) -> None:
    data = b"no zstd at all" * 300_000
    (tmp_path / NAME).write_bytes(data)
    reader = FileReader(tmp_path / NAME)
    with pytest.raises(CompressionDamaged):
        list(decompress(iter(reader), "zstd"))
    assert reader.sha256 == hashlib.sha256(data).hexdigest()


def test_stream_that_wants_too_much_memory_is_refused() -> None:
    """Magic number, descriptor, a window of 2 GiB, an empty last block (RFC 8878, section 3.1.1)."""
    with pytest.raises(CompressionDamaged):
        plain([b"\x28\xb5\x2f\xfd" + b"\x00" + b"\xa8" + b"\x01\x00\x00"])


def test_zstd_reads_what_is_written_here(tmp_path: Path) -> None:
    text = b"".join(b"row %d\n" % number for number in range(200_000))
    compressor = Compressor("zstd")
    stream = b"".join(compressor.compress(text[at : at + 70_000]) for at in range(0, len(text), 70_000))
    stream += compressor.finish()
    assert len(stream) < len(text) / 2
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(stream)) as reader:
        assert reader.read() == text
    program = shutil.which("zstd")
    if program is not None:
        (tmp_path / "x.sql.zst").write_bytes(stream)
        done = subprocess.run([program, "-dc", str(tmp_path / "x.sql.zst")], capture_output=True, check=True)
        assert done.stdout == text


@pytest.mark.skipif(sys.platform != "linux", reason="The peak of this very program is told by /proc only.")
def test_decompression_bomb_is_read_with_little_memory(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.sql.zst"
    with bomb.open("wb") as file, zstandard.ZstdCompressor(write_checksum=True).stream_writer(file) as writer:
        for _ in range(1024):
            writer.write(bytes(1 << 20))
    with child(
        """
        from scarlet_backup_mcp.store.reading import FileReader, decompress
        total = sum(len(piece) for piece in decompress(iter(FileReader(Path(sys.argv[1]))), "zstd"))
        peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
        print(total, int(peak.split()[1]) // 1000, flush=True)
        """,
        bomb,
    ) as process:
        total, megabytes = map(int, next_line(process).split())
    assert total == 1 << 30
    assert megabytes < 250


# Encodings


def test_plain_dump_is_recognised(made: Made) -> None:
    assert recognise(made.shelf.file(made.plain).read_bytes()[:4096]) == "plain"
    assert recognise(b"") == "plain"


def test_big_endian_file_is_recognised() -> None:
    assert recognise(b"\xfe\xff" + "-- PostgreSQL".encode("utf-16-be")) == "utf-16be"


@pytest.mark.parametrize("head", [b"--\r", b"-- a \r b\n", b"--\n\r\n", b"\xff", b"\xef\xbb", b"\r"])
def test_stray_bytes_are_no_encoding(head: bytes) -> None:
    assert recognise(head) == "plain"


# Processes


@contextmanager
def child(code: str, *arguments: Path) -> Generator[subprocess.Popen[str]]:
    """A Python process; gone when the block ends."""
    script = "import sys\nfrom pathlib import Path\n" + textwrap.dedent(code)
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end_input(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()


def wait_for(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)
