"""What `verify` says of a real backup, whole and harmed in every way a file can be."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import zstandard
from pydantic import SecretStr

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.errors import BackupMissing, Cancelled, NameRefused, NewerVersion, NextCall
from scarlet_backup_mcp.models.verification import StoredVerification, Verification
from scarlet_backup_mcp.postgres.dump.refusals import RULES_VERSION
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress

from ..helpers.store import Made, Shelf, made_backups

SEED = 20260201
COPY_BLOCK = re.compile(rb"^COPY (\w+\.\w+) [^\n]*\n(?:.*?\n)??\\\.\n", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def dump(made: Made) -> bytes:
    return made.shelf.file(made.plain).read_bytes()


@pytest.fixture
def here(made: Made, tmp_path: Path) -> Shelf:
    """A directory of the test's own with both backups."""
    return made.shelf.copy(tmp_path / "backups", made.plain, made.zstd)


def failed(report: Verification) -> set[str]:
    return {check.check for check in report.checks if check.ok is False}


def harm(file: Path, content: bytes) -> None:
    """Change a file's content behind its outcome's back: the times stay as they were."""
    before = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def proves_damaged(shelf: Shelf, name: str, *telling: str) -> Verification:
    """A full verification has to see it, to say by which check, and the listing has to know it from then on."""
    report = shelf.verify(name)
    assert not report.valid
    assert failed(report) >= {"sha256", *telling}, failed(report)
    assert report.remedy
    assert shelf.state(name) == "damaged"
    return report


# Whole


@pytest.mark.parametrize("compression", ["plain", "zstd"])
def test_unharmed_backup_is_valid(made: Made, here: Shelf, compression: str) -> None:
    name = getattr(made, compression)
    for level in ("quick", "full"):
        report = here.verify(name, level)
        assert (report.valid, report.foreign, report.repairable, report.proved) == (True, False, None, None)
        assert failed(report) == set()
        assert report.remedy is None
        assert [(step.step, step.ok) for step in report.steps] == [("Verifica Finale", True)]
    manifest = json.loads(here.manifest(name).read_bytes())
    assert (report.rows, report.sha256, report.bytes) == (manifest["rows"], manifest["sha256"], manifest["bytes"])
    assert report.tables == len(manifest["tables"]) == 9


def checked(report: Verification) -> set[str]:
    return {check.check for check in report.checks}


def test_content_that_was_checked_while_it_was_written_is_not_parsed_again(made: Made, here: Shelf) -> None:
    for name in (made.plain, made.zstd):
        report = here.verify(name)
        assert (report.valid, report.rows is not None, here.state(name)) == (True, True, "good")
        assert {"sha256", "content"} <= checked(report)
        assert not checked(report) & {"structure", "statements", "tables"}


@pytest.mark.parametrize("rules", [None, RULES_VERSION - 1, RULES_VERSION + 1])
def test_content_that_other_rules_let_pass_is_parsed(made: Made, here: Shelf, rules: int | None) -> None:
    for name in (made.plain, made.zstd):
        here.edit_manifest(name, rules=rules)
        report = here.verify(name)
        assert report.valid
        assert checked(report) >= {"sha256", "structure", "statements", "tables"}


def test_changed_content_is_parsed_to_say_what_differs(made: Made, here: Shelf) -> None:
    here.file(made.plain).write_bytes(
        here.file(made.plain).read_bytes().replace(b"\nCREATE TABLE", b"\nALTER SYSTEM", 1)
    )
    assert failed(here.verify(made.plain)) >= {"sha256", "statements", "rest_of_script"}


def test_both_compressions_hold_the_same_database(made: Made, here: Shelf) -> None:
    plain, packed = (json.loads(here.manifest(name).read_bytes()) for name in (made.plain, made.zstd))
    same = ("tables", "rows", "rest_sha256", "script_bytes", "properties", "schemas", "integrity_rows")
    assert [plain[key] for key in same] == [packed[key] for key in same]
    unpacked = zstandard.ZstdDecompressor().stream_reader(here.file(made.zstd).read_bytes()).read()
    plain_lines, lines = here.file(made.plain).read_bytes().split(b"\n"), unpacked.split(b"\n")
    assert [a for a, b in zip(plain_lines, lines, strict=True) if a != b and b"restrict" not in a] == []


def test_latest_is_verified_without_its_name(made: Made, here: Shelf) -> None:
    assert here.verify("latest").name == made.zstd


def test_no_engine_and_no_server_is_needed(made: Made, here: Shelf) -> None:
    nowhere = {"dsn": SecretStr("postgresql://127.0.0.1:1/letta"), "bin_dir": Path("/none")}
    assert Shelf(here.settings.model_copy(update=nowhere)).verify(made.plain).valid


# Outcomes


def test_outcome_is_kept_and_bound_to_the_file(made: Made, here: Shelf) -> None:
    here.outcome(made.plain).unlink()
    assert here.state(made.plain) == "unverified"
    assert here.verify(made.plain).valid
    listed = here.listed(made.plain)
    assert (listed.state, listed.verified) == ("good", "full")
    stored = StoredVerification.model_validate_json(here.outcome(made.plain).read_bytes())
    status = here.file(made.plain).stat()
    assert (stored.bytes, stored.mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert (stored.level, stored.valid, stored.failed_checks) == ("full", True, [])
    assert stored.sha256 == hashlib.sha256(here.file(made.plain).read_bytes()).hexdigest()


def test_touched_file_is_unverified_until_it_is_verified_again(made: Made, here: Shelf) -> None:
    os.utime(here.file(made.plain))
    assert here.state(made.plain) == "unverified"
    assert here.verify(made.plain, "quick").valid
    assert here.state(made.plain) == "unverified"
    assert here.verify(made.plain).valid
    assert here.state(made.plain) == "good"


def test_damaged_outcome_counts_as_none(made: Made, here: Shelf) -> None:
    for content in (b"", b"{}", b"\xff\xfe", b'{"level": "full", "valid": true}'):
        here.outcome(made.plain).write_bytes(content)
        assert here.state(made.plain) == "unverified"
    assert here.verify(made.plain).valid
    assert here.state(made.plain) == "good"


def test_mended_file_is_good_again(made: Made, here: Shelf, dump: bytes) -> None:
    harm(here.file(made.plain), dump.replace(b"Scarlet", b"scarleT", 1))
    proves_damaged(here, made.plain, "tables")
    harm(here.file(made.plain), dump)
    assert here.verify(made.plain).valid
    assert here.state(made.plain) == "good"


def test_cancelled_verification_leaves_the_outcome_as_it_was(made: Made, here: Shelf) -> None:
    before = here.outcome(made.plain).read_bytes()
    progress = Progress()
    progress.cancel()
    with BackupContext(here.settings) as context, pytest.raises(Cancelled):
        verify(context, progress, made.plain)
    assert here.outcome(made.plain).read_bytes() == before
    assert not list(here.directory.glob(".*.tmp"))


# Harmed


def regions(dump: bytes) -> dict[str, tuple[int, int]]:
    """Where what of a dump lies."""
    block = next(found for found in COPY_BLOCK.finditer(dump) if found[1] == b"letta.messages")
    begin = dump.index(b"\n", block.start()) + 1
    statement = dump.index(b"CREATE TABLE letta.agents")
    trailer = dump.index(b"-- PostgreSQL database dump complete")
    return {
        "header": (0, 30),
        "restrict": (dump.index(b"\\restrict"), dump.index(b"\\restrict") + 30),
        "version": (dump.index(b"-- Dumped by"), dump.index(b"-- Dumped by") + 30),
        "statement": (statement, dump.index(b");", statement)),
        "copy": (block.start(), begin),
        "data": (begin, block.end() - 3),
        "end of data": (block.end() - 4, block.end()),
        "trailer": (trailer, len(dump)),
    }


REGIONS = ["header", "restrict", "version", "statement", "copy", "data", "end of data", "trailer"]


@pytest.mark.sample(3)
@pytest.mark.parametrize("region", REGIONS)
def test_any_flipped_bit_is_seen(made: Made, here: Shelf, dump: bytes, region: str) -> None:
    begin, end = regions(dump)[region]
    for at in random.Random(SEED).sample(range(begin, end), min(4, end - begin)):
        for bit in range(8):
            harmed = bytearray(dump)
            harmed[at] ^= 1 << bit
            harm(here.file(made.plain), bytes(harmed))
            proves_damaged(here, made.plain)


def test_any_flipped_bit_of_a_compressed_backup_is_seen(made: Made, here: Shelf) -> None:
    whole = here.file(made.zstd).read_bytes()
    places = [0, 1, 4, 5, len(whole) - 1, *random.Random(SEED).sample(range(len(whole)), 5)]
    for at in places:
        for bit in range(8):
            harmed = bytearray(whole)
            harmed[at] ^= 1 << bit
            harm(here.file(made.zstd), bytes(harmed))
            report = proves_damaged(here, made.zstd)
            assert {"compression", "structure", "tables", "rest_of_script", "sha256"} & failed(report)


def test_any_flipped_bit_of_a_manifest_is_seen(made: Made, here: Shelf) -> None:
    """A restore takes settings, owner and privileges from there."""
    whole = here.manifest(made.plain).read_bytes()
    places = [whole.index(b"search_path") + 3, whole.index(b"2026"), len(whole) - 9]
    unseen: list[bytes] = []
    for at in [*places, *random.Random(SEED).sample(range(len(whole) - 1), 15)]:
        for bit in range(8):
            harmed = bytearray(whole)
            harmed[at] ^= 1 << bit
            harm(here.manifest(made.plain), bytes(harmed))
            if here.verify(made.plain, "quick").valid:
                unseen.append(bytes(harmed[max(0, at - 12) : at + 12]))
    assert unseen == []


@pytest.mark.parametrize("before", [b'"value": "', b'"sha256": "', b'"rows": ', b'"created_at": "20'])
def test_damaged_manifest_is_known_to_the_listing_once_it_was_seen(made: Made, here: Shelf, before: bytes) -> None:
    whole = bytearray(here.manifest(made.plain).read_bytes())
    whole[whole.index(before) + len(before)] ^= 1
    harm(here.manifest(made.plain), bytes(whole))
    report = here.verify(made.plain)
    assert not report.valid
    assert "manifest" in failed(report)
    assert here.state(made.plain) == "damaged"
    assert here.latest() == made.zstd


def boundaries(dump: bytes) -> list[int]:
    """The ends of what a dump is made of, and a byte before and after."""
    ends = {0, 1, len(dump) - 1}
    for found in list(COPY_BLOCK.finditer(dump))[:3]:
        ends |= {found.start(), dump.index(b"\n", found.start()) + 1, found.end() - 3, found.end()}
    trailer = dump.index(b"-- PostgreSQL database dump complete")
    ends |= {
        dump.index(b";\n") + 2,
        dump.rindex(b";") + 1,
        trailer,
        trailer + 36,
        trailer + 37,
        dump.rindex(b"\\unrestrict"),
    }
    return sorted({end + by for end in ends for by in (-1, 0, 1) if 0 <= end + by < len(dump)})


def test_file_cut_off_anywhere_is_seen(made: Made, here: Shelf, dump: bytes) -> None:
    chosen = [*boundaries(dump), *random.Random(SEED).sample(range(len(dump)), 20)]
    complete = dump.index(b"-- PostgreSQL database dump complete") + len(b"-- PostgreSQL database dump complete")
    for end in chosen:
        here.file(made.plain).write_bytes(dump[:end])
        assert here.state(made.plain) == "damaged"
        report = proves_damaged(here, made.plain, "bytes", "script_bytes")
        if end < complete:
            assert failed(report) & {"trailer", "structure"}, end
        assert not here.verify(made.plain, "quick").valid


def test_compressed_file_cut_off_anywhere_is_seen(made: Made, here: Shelf) -> None:
    whole = here.file(made.zstd).read_bytes()
    for end in (0, 1, 4, 9, len(whole) // 2, len(whole) - 4, len(whole) - 1):
        here.file(made.zstd).write_bytes(whole[:end])
        proves_damaged(here, made.zstd, "bytes", "compression")


def with_blocks_swapped(dump: bytes) -> bytes:
    blocks = [found for found in COPY_BLOCK.finditer(dump) if len(found[0]) > 200]
    first, second = blocks[0], blocks[1]
    between = dump[first.end() : second.start()]
    return dump[: first.start()] + second[0] + between + first[0] + dump[second.end() :]


def rows_of(dump: bytes, table: bytes) -> list[bytes]:
    block = next(found[0] for found in COPY_BLOCK.finditer(dump) if found[1] == table)
    return block.split(b"\n")[1:-2]


@pytest.mark.parametrize("pad", [False, True])
def test_rows_that_changed_are_told_by_table(made: Made, here: Shelf, dump: bytes, pad: bool) -> None:
    """With `pad` the file keeps its length, so that only its content can tell."""
    rows = rows_of(dump, b"letta.block_history")
    changes = {
        "letta.block_history has 23 rows instead of 24": (rows[3] + b"\n", b""),
        "letta.block_history has 25 rows instead of 24": (rows[3] + b"\n", rows[3] + b"\n" + rows[3] + b"\n"),
        "letta.block_history has the right number of rows, but different data": (rows[3], rows[4]),
    }
    for told, (old, new) in changes.items():
        harmed = dump.replace(old, new, 1)
        assert harmed != dump
        if pad:
            harmed = harmed.replace(b"\n--\n-- Name", b"\n" * max(0, len(dump) - len(harmed)) + b"\n--\n-- Name", 1)
        harm(here.file(made.plain), harmed)
        report = proves_damaged(here, made.plain, "tables")
        detail = next(check.detail for check in report.checks if check.check == "tables")
        assert told in detail


def test_rows_in_another_order_are_seen(made: Made, here: Shelf, dump: bytes) -> None:
    rows = rows_of(dump, b"letta.block_history")
    both = b"\n".join(rows[3:5])
    harm(here.file(made.plain), dump.replace(both, b"\n".join(reversed(rows[3:5]))))
    proves_damaged(here, made.plain, "tables")


def test_swapped_blocks_are_seen(made: Made, here: Shelf, dump: bytes) -> None:
    swapped = with_blocks_swapped(dump)
    assert len(swapped) == len(dump)
    assert swapped != dump
    harm(here.file(made.plain), swapped)
    proves_damaged(here, made.plain, "rest_of_script")


@pytest.mark.parametrize(
    ("text", "check"),
    [
        (b"DROP TABLE letta.agents;\n", "structure"),
        (b"\\! id\n", "structure"),
        (b"-- nothing\n", "rest_of_script"),
        (b"\n", "rest_of_script"),
        (b"\0", "structure"),
    ],
)
def test_appended_text_is_seen(made: Made, here: Shelf, dump: bytes, text: bytes, check: str) -> None:
    harm(here.file(made.plain), dump + text)
    proves_damaged(here, made.plain, "bytes", check)


def test_inserted_statement_is_told_with_its_line(made: Made, here: Shelf, dump: bytes) -> None:
    at = dump.index(b"SET row_security")
    harm(here.file(made.plain), dump[:at] + b"COPY letta.agents TO PROGRAM 'id';\n" + dump[at:])
    report = proves_damaged(here, made.plain, "statements", "rest_of_script")
    detail = next(check.detail for check in report.checks if check.check == "statements")
    assert f"line {dump[:at].count(10) + 1} " in detail


def test_changed_statement_is_seen(made: Made, here: Shelf, dump: bytes) -> None:
    harm(
        here.file(made.plain), dump.replace(b"is_deleted boolean DEFAULT false", b"is_deleted boolean DEFAULT true ", 1)
    )
    proves_damaged(here, made.plain, "rest_of_script")


def test_content_of_another_backup_is_seen(made: Made, here: Shelf, embedded: EmbeddedServer, tmp_path: Path) -> None:
    """Both are whole; only the manifest knows which is which."""
    other = here.file(made.zstd).read_bytes()
    harm(here.file(made.plain), zstandard.ZstdDecompressor().stream_reader(other).read())
    report = proves_damaged(here, made.plain)
    assert failed(report) == {"sha256"}


def test_older_content_under_a_newer_name_is_seen(made: Made, embedded: EmbeddedServer, tmp_path: Path) -> None:
    with made_backups(embedded, tmp_path) as taken:
        newer = taken.shelf.file(taken.plain).read_bytes()
        assert newer != made.shelf.file(made.plain).read_bytes()
        shutil.copyfile(made.shelf.file(made.plain), taken.shelf.file(taken.plain))
        assert failed(taken.shelf.verify(taken.plain)) >= {"sha256"}
        assert taken.shelf.state(taken.plain) == "damaged"


def test_plain_file_under_a_compressed_name_is_seen(made: Made, here: Shelf, dump: bytes) -> None:
    harm(here.file(made.zstd), dump)
    proves_damaged(here, made.zstd, "compression")
    assert "header" in failed(here.verify(made.zstd, "quick"))


# Quick


def test_quick_look_sees_an_empty_file(made: Made, here: Shelf) -> None:
    for name in (made.plain, made.zstd):
        here.file(name).write_bytes(b"")
        report = here.verify(name, "quick")
        assert not report.valid
        assert failed(report) >= {"size", "bytes", "header"}


def test_quick_look_keeps_no_outcome(made: Made, here: Shelf, dump: bytes) -> None:
    before = here.outcome(made.plain).read_bytes()
    harm(here.file(made.plain), dump[:-1] + b"x")
    assert here.verify(made.plain, "quick").level == "quick"
    assert here.outcome(made.plain).read_bytes() == before


# Manifests


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"name": 1}', b"\xff\xfe{\0}\0", b"\0" * 100])
def test_damaged_manifest_is_damage_and_no_foreign_file(made: Made, here: Shelf, content: bytes) -> None:
    here.manifest(made.plain).write_bytes(content)
    for level in ("quick", "full"):
        report = here.verify(made.plain, level)
        assert not report.valid
        assert "manifest" in failed(report)
        assert "damaged" in next(check.detail for check in report.checks if check.check == "manifest")
    listed = here.listed(made.plain)
    assert (listed.state, listed.name) == ("damaged", made.plain)
    assert "damaged" in listed.detail


def test_manifest_of_a_newer_version_is_not_guessed_at(made: Made, here: Shelf) -> None:
    here.edit_manifest(made.plain, manifest_version=3)
    with pytest.raises(NewerVersion, match="newer version"):
        here.verify(made.plain)
    assert here.latest() == made.zstd


def test_manifest_with_an_unknown_field_is_read(made: Made, here: Shelf) -> None:
    here.edit_manifest(made.plain, tags=["before PROC-003"])
    assert here.verify(made.plain).valid


def test_renamed_backup_is_told(made: Made, here: Shelf) -> None:
    new = "letta_backup_20200101_000000.sql"
    for path in (here.file(made.plain), here.manifest(made.plain), here.outcome(made.plain)):
        path.rename(path.with_name(path.name.replace(made.plain, new)))
    report = here.verify(new)
    assert not report.valid
    assert made.plain in next(check.detail for check in report.checks if check.check == "manifest")
    assert here.state(new) == "damaged"
    with pytest.raises(BackupMissing):
        here.verify(made.plain)


def test_manifest_of_another_backup_does_not_pass(made: Made, here: Shelf) -> None:
    shutil.copyfile(here.manifest(made.zstd), here.manifest(made.plain))
    assert "manifest" in failed(here.verify(made.plain))


def test_time_in_the_future_is_told_and_is_no_damage(made: Made, here: Shelf) -> None:
    """A clock was wrong. The file is whole, and a restore of it must not be refused as one of a damaged file."""
    here.edit_manifest(made.plain, created_at=(datetime.now(UTC) + timedelta(days=2)).isoformat())
    report = here.verify(made.plain)
    assert not report.valid
    assert failed(report) == {"time"}
    assert here.state(made.plain) != "damaged"


def test_clocks_may_differ_a_little(made: Made, here: Shelf) -> None:
    here.edit_manifest(made.plain, created_at=(datetime.now(UTC) + timedelta(minutes=2)).isoformat())
    assert here.verify(made.plain).valid


# Without a manifest


def test_foreign_file_is_whole_but_never_valid(made: Made, here: Shelf) -> None:
    here.manifest(made.plain).unlink()
    here.outcome(made.plain).unlink()
    for level in ("quick", "full"):
        report = here.verify(made.plain, level)
        assert (report.valid, report.foreign, report.repairable) == (False, True, None)
        assert failed(report) == {"manifest"}
        assert report.remedy is not None
        assert {"quick": "Only its beginning and end", "full": "Its structure is intact"}[level] in report.remedy
    assert here.state(made.plain) == "foreign"
    assert not here.outcome(made.plain).exists()


def test_quick_takes_no_words_in_a_row_for_the_last_lines_and_shows_no_row(
    made: Made, here: Shelf, dump: bytes
) -> None:
    memory = b"-- PostgreSQL database dump complete\tsk-secret\n" * 3
    copy = dump.index(b"COPY ")
    cut = dump.index(b"\n", copy) + 1
    here.file("cut_20250101_000000.sql").write_bytes(dump[:cut] + memory)
    report = here.verify("cut_20250101_000000.sql", "quick")
    assert failed(report) == {"manifest", "trailer"}
    assert "sk-secret" not in report.model_dump_json()


def test_foreign_file_that_is_cut_off_is_told(made: Made, here: Shelf, dump: bytes) -> None:
    here.file("old.sql").write_bytes(dump[: len(dump) // 2])
    for level in ("quick", "full"):
        report = here.verify("old.sql", level)
        assert (report.valid, report.foreign) == (False, True)
        assert failed(report) & {"trailer", "structure"}
        assert report.remedy is not None
        assert "damaged" in report.remedy


@pytest.mark.parametrize(
    ("content", "checks"),
    [
        (b"", {"size", "header", "trailer"}),
        (b"\0" * 5000, {"header", "structure"}),
        (b"PGDMP\x01\x0f\x00" + bytes(range(256)) * 20, {"manifest"}),
        (b"SELECT 1;\n", {"header", "trailer"}),
        (b"-- PostgreSQL database dump\n", {"trailer"}),
        (b"pg_dump: error: connection to server failed\n", {"header", "trailer"}),
    ],
)
def test_what_is_no_dump_is_told(here: Shelf, content: bytes, checks: set[str]) -> None:
    here.file("other.sql").write_bytes(content)
    report = here.verify("other.sql")
    assert (report.valid, report.foreign) == (False, True)
    assert failed(report) >= {"manifest", *checks}
    assert not here.verify("other.sql", "quick").valid


@pytest.mark.parametrize("level", ["quick", "full"])
def test_what_is_no_zstd_stream_is_told(here: Shelf, level: str) -> None:
    for content in (b"", b"SELECT 1;", b"\x28\xb5\x2f\xfd"):
        here.file("other.sql.zst").write_bytes(content)
        report = here.verify("other.sql.zst", "full" if level == "full" else "quick")
        assert not report.valid
        assert failed(report) & {"compression", "header"}


# Names


@pytest.mark.parametrize("name", ["postgres_volume_x.tar.gz", "postgres_volume_20260201_093000.tar.gz"])
def test_archive_of_a_volume_that_is_none_is_answered_clearly(here: Shelf, name: str) -> None:
    here.file(name).write_bytes(b"\x1f\x8b")
    report = here.verify(name)
    assert not report.valid
    assert failed(report) >= {"manifest", "compression", "data_directory"}
    assert "take a new backup" in (report.remedy or "")
    assert here.listed(name).kind == "volume"
    assert here.latest() != name


@pytest.mark.parametrize("name", ["../x.sql", "/etc/passwd", "backups/x.sql", ""])
def test_name_that_is_none_is_refused(here: Shelf, name: str) -> None:
    with pytest.raises(NameRefused):
        here.verify(name)


def test_missing_backup_is_told(here: Shelf) -> None:
    with pytest.raises(BackupMissing) as missing:
        here.verify("letta_backup_19990101_000000.sql")
    assert missing.value.next_call == NextCall(tool="list_backups")


def test_latest_of_nothing_is_told(made: Made, tmp_path: Path) -> None:
    empty = made.shelf.copy(tmp_path / "empty")
    with pytest.raises(BackupMissing, match="no good SQL backup"):
        empty.verify("latest")


@pytest.mark.skipif(os.name == "nt", reason="Windows needs a right for links.")
def test_link_is_not_followed(made: Made, here: Shelf) -> None:
    here.file("link.sql").symlink_to(made.shelf.file(made.plain))
    with pytest.raises(NameRefused, match="regular file"):
        here.verify("link.sql")
