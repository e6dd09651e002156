"""The backup directory: names, writing, the directory itself, its lock, reading, encodings."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import (
    BackupMissing,
    BackupToolError,
    Busy,
    DirectoryNotWritable,
    NameRefused,
    StoreError,
)
from scarlet_backup_mcp.store import names
from scarlet_backup_mcp.store.directory import BackupDirectory
from scarlet_backup_mcp.store.lock import HOLDER, LOCK, writer_lock
from scarlet_backup_mcp.store.removal import Swept

from ..helpers.store_files import NAME, POSIX, child, next_line

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


def end_input(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
