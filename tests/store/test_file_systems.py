"""Backup directories on FAT, exFAT and NTFS, on file systems without locks, and behind links that lead nowhere."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import Busy, DirectoryNotWritable, FileTooLarge, LocksUnsupported
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.doctor import doctor
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.store import file_system, writing
from scarlet_backup_mcp.store.directory import BackupDirectory
from scarlet_backup_mcp.store.lock import in_use, writer_lock

from ..conftest import LocalDatabase
from ..helpers.file_systems import Kind, Mounted
from ..helpers.file_systems import file_system as mounted_file_system
from ..helpers.store import shelf

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="mounts, modes and links of POSIX")


@pytest.fixture
def mounted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mounted]:
    kind: Kind = request.param
    with mounted_file_system(kind, tmp_path) as found:
        yield found


@pytest.mark.long
@pytest.mark.parametrize("mounted", ["fat", "exfat", "ntfs"], indirect=True)
def test_backup_and_verification_last(mounted: Mounted, local_database: LocalDatabase) -> None:
    here = shelf(local_database, mounted.path / "backups")
    first = here.back_up()
    assert here.listed(first.name).state == "good"
    mounted.remount()
    assert here.listed(first.name).state == "good"
    second = here.back_up("zstd")
    assert here.verify(first.name).valid
    mounted.remount()
    assert [here.listed(name).state for name in (first.name, second.name)] == ["good", "good"]
    warnings = " ".join(here.listing().warnings)
    assert "chmod" not in warnings
    assert ("keeps no access rights" in warnings) == (mounted.kind != "fat")
    with BackupContext(here.settings) as context:
        report = doctor(context, Progress(), mounted.path, fix=True, environment={})
    assert not any(check.fixed for check in report.checks)
    assert not any("--fix" in check.remedy for check in report.checks if check.check == "directory")


@pytest.mark.long
@pytest.mark.parametrize("mounted", ["fat", "exfat", "ntfs"], indirect=True)
def test_what_is_tried_on_real_ones(mounted: Mounted) -> None:
    assert file_system.keeps_modes(mounted.path) is (mounted.kind == "fat")  # this one is mounted for its owner
    assert (file_system.name_of(mounted.path) in file_system.FAT) == (mounted.kind == "fat")
    assert list(mounted.path.glob(".scarlet*")) == []


def test_what_is_tried_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert file_system.keeps_modes(tmp_path) is True
    assert file_system.name_of(tmp_path)
    assert file_system.keeps_modes(tmp_path / "none") is None
    monkeypatch.setattr(file_system, "MOUNTS", tmp_path / "none")
    assert file_system.called(tmp_path) == f"the file system of {tmp_path}"


@pytest.mark.parametrize("step", file_system.STEPS)
def test_times_that_were_rounded(step: int) -> None:
    noted = 1_796_057_362_123_456_789
    down = noted - noted % step
    assert file_system.same_time(noted, noted)
    assert file_system.same_time(noted, down)
    assert file_system.same_time(noted, down + step)
    assert not file_system.same_time(noted, noted + 1)
    assert not file_system.same_time(noted, down + 2 * file_system.STEPS[-1])
    assert not file_system.same_time(noted, noted - noted % file_system.STEPS[-1] - step)


def unable(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.ENOTSUP])
def test_a_lock_needs_no_chmod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """FUSE answers ENOSYS where its program has no chmod, as on FAT; EPERM is what Linux's own FAT says of some."""

    def refuse(*_: object) -> None:
        raise unable(number)

    for name in ("chmod", "fchmod"):
        monkeypatch.setattr(os, name, refuse)
    (tmp_path / "x.sql").touch()
    with writer_lock(tmp_path, "backup"), in_use(tmp_path / "x.sql"):
        assert (tmp_path / ".scarlet-backup.lock").stat().st_mode & 0o777 == 0o600
        with pytest.raises(Busy), writer_lock(tmp_path, "backup"):
            pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_no_lock_where_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A mock, since no file system that this machine can mount refuses flock: ENOLCK is NFS's without its lock service
    (flock(2)), ENOSYS Lustre's without `-o flock`."""
    import fcntl

    def refuse(*_: object) -> None:
        raise unable(number)

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / "x.sql").touch()
    for taken in (writer_lock(tmp_path, "backup"), in_use(tmp_path / "x.sql")):
        with pytest.raises(LocksUnsupported) as raised, taken:
            pytest.fail("locked without a lock")
        assert "can't lock files" in raised.value.message
        assert str(tmp_path) in raised.value.message
        assert "write access" not in raised.value.remedy


def test_a_lock_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / ".scarlet-backup.lock").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DirectoryNotWritable, match="is a link, which is never followed"), writer_lock(tmp_path, "x"):
        pytest.fail("followed")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("below", ["", "backups"])
def test_a_link_that_leads_nowhere(tmp_path: Path, below: str) -> None:
    link = tmp_path / "usb"
    link.symlink_to("/media/nobody/USB")
    directory = BackupDirectory(link / below)
    assert directory.absence() == f"{link} is a link to /media/nobody/USB, which is not there."
    with pytest.raises(DirectoryNotWritable, match="which is not there") as raised:
        directory.prepare()
    assert "Mount" in raised.value.remedy


def test_absence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert BackupDirectory(tmp_path).absence() == ""
    assert BackupDirectory(tmp_path / "none").absence().endswith("does not exist yet.")
    assert BackupDirectory(tmp_path / "file").absence().endswith("is not a directory.")


def test_a_file_that_gets_too_large(tmp_path: Path) -> None:
    """By this process's own limit, which has the same errno as FAT's 4 GiB (generic_write_checks in Linux)."""
    import resource
    import signal

    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with writing.PartialFile(tmp_path / "x.sql") as partial:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
            with pytest.raises(FileTooLarge, match="can't grow any more") as raised:
                partial.write(bytes(2 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "zstd" in raised.value.remedy


@pytest.mark.skipif(sys.platform != "linux", reason="macOS refuses such names")
def test_a_name_that_is_not_utf_8_is_a_warning(tmp_path: Path) -> None:
    """A browser on an old Windows share may write one; no result could show it."""
    tmp_path.chmod(0o700)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/perch\xe9.sql")).touch()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/perch\xe9.txt")).touch()
    directory = BackupDirectory(tmp_path)
    assert list(directory.entries()) == []
    [warning] = directory.warnings()
    assert "perch\\udce9.sql" in warning
    assert "not UTF-8" in warning
