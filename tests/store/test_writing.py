"""Files become backups whole or not at all."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scarlet_backup_mcp.errors import (
    DiskFull,
    StoreError,
)
from scarlet_backup_mcp.models.common import Verdict
from scarlet_backup_mcp.store.directory import BackupDirectory
from scarlet_backup_mcp.store.removal import Swept
from scarlet_backup_mcp.store.writing import PartialFile, write_atomically

from ..helpers.store_files import NAME, POSIX, child, next_line


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


def wait_for(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)
