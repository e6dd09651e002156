"""Archives of a volume that are not what they were: each harm is seen."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from scarlet_backup_mcp import summaries
from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.models.common import Level
from scarlet_backup_mcp.procedures.reading.archive_checks import RULES_VERSION
from scarlet_backup_mcp.store import gzip

from ..helpers.store import Shelf
from ..helpers.volume_copy import Files, Kept, a_segment, a_table, check, failed, flipped, packed


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


def test_content_is_read_through_unless_the_same_rules_let_it_pass(kept: Kept, tmp_path: Path) -> None:
    here = kept.here.copy(tmp_path / "backups", kept.name)
    unchanged = here.verify(kept.name)
    assert (here.state(kept.name), check(unchanged, "content").ok) == ("good", True)
    for rules in (None, RULES_VERSION + 1):
        here.edit_manifest(kept.name, rules=rules)
        report = here.verify(kept.name)
        assert check(report, "structure").ok
        assert "content" not in {item.check for item in report.checks}
        assert check(report, "configuration") == check(unchanged, "configuration")
        same = ("valid", "rows", "files", "sha256", "warnings", "remedy")
        assert [getattr(report, name) for name in same] == [getattr(unchanged, name) for name in same]


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
    assert "take a new backup" in (report.remedy or "")
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
    assert "intact, without a manifest" in summaries.describe(report)


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
