"""Old backups made with PowerShell of which something is lost: it is told what, and nothing is guessed."""

from __future__ import annotations

import re

import pytest

from scarlet_backup_mcp.errors import (
    BackupNotValid,
    BackupToolError,
    CodePageNeeded,
)
from scarlet_backup_mcp.models.common import CodePage
from scarlet_backup_mcp.models.verification import Verification
from scarlet_backup_mcp.store.encodings import Container

from ..helpers.backup_faults import files
from ..helpers.powershell import CODECS, mangle
from ..helpers.reencoded import OLD, WORDS, Place, check_of, cut_in_a_row, pg_dump, rows_of


def proves_lost(place: Place, *words: str) -> tuple[Verification, BackupToolError, BackupToolError]:
    """Nothing of it is restored or repaired, it is told why, and no remedy promises that a code page would help."""
    report = place.verify()
    assert (report.valid, report.repairable) == (False, False)
    told = " ".join(f"{check.found} {check.detail}" for check in report.checks if check.check != "manifest")
    assert all(word in told for word in words), told
    refused = place.fails(BackupNotValid, accept_foreign=True)
    with pytest.raises(BackupToolError) as caught:
        place.repair()
    assert type(caught.value) is BackupNotValid, caught.value.message
    for remedy in (report.remedy or "", refused.remedy, caught.value.remedy):
        assert remedy
        assert "code page" not in remedy
        assert "in full" not in remedy
    assert report.code_pages == []
    assert files(place.shelf.directory) == {OLD}
    return report, refused, caught.value


@pytest.mark.parametrize("container", ["utf-16le", "crlf"])
def test_an_archive_is_lost(place: Place, container: Container) -> None:
    place.put(mangle(pg_dump(place.origin.database, "-Fc"), 850, container))
    _, _, unrepaired = proves_lost(place, "archive (pg_dump -Fc)", "can't be recovered")
    assert "archive" in unrepaired.message


def test_nothing_in_a_message_is_obeyed_by_a_terminal(place: Place) -> None:
    place.put(mangle(pg_dump(place.origin.database, "-Fc"), 850, "utf-16le"))
    told = [place.fails(BackupNotValid, accept_foreign=True).message]
    for report in (place.verify(OLD, "quick"), place.verify()):
        told += [words for check in report.checks for words in (check.found, check.detail)]
    assert [words for words in told if not words.isprintable()] == []


def test_that_there_is_no_manifest_is_no_reason_against_a_repair(place: Place) -> None:
    place.put(mangle(place.origin.dump, 850, "utf-16le")[:-2000])
    with pytest.raises(BackupNotValid) as caught:
        place.repair()
    assert "manifest" not in caught.value.message


@pytest.mark.parametrize("where", ["within a UTF-16 unit", "within a line", "at the end of a line"])
@pytest.mark.parametrize("page", [850, 65001])
def test_a_file_that_was_cut_off_is_told_with_what_is_whole_before(place: Place, page: CodePage, where: str) -> None:
    dump = place.origin.dump
    at = cut_in_a_row(dump) if where != "at the end of a line" else dump.rindex(b"\n", 0, cut_in_a_row(dump)) + 1
    file = mangle(dump[:at], page, "utf-16le")
    ends = {"within a UTF-16 unit": file[:-5], "within a line": file[:-4], "at the end of a line": file}
    place.put(ends[where])
    words = {"within a UTF-16 unit": "within a character", "within a line": "the last line has no end"}
    assert 0 < rows_of(dump[:at]) < rows_of(dump)
    proves_lost(place, words.get(where, "the script ends inside the COPY data"), f"have {rows_of(dump[:at])} rows")


def test_a_file_without_the_trailer_is_told(place: Place) -> None:
    dump = place.origin.dump
    place.put(mangle(dump[: dump.rindex(b"--\n-- PostgreSQL database dump complete")], 850, "utf-16le"))
    report, refused, _ = proves_lost(place)
    assert {check.check for check in report.checks if check.ok is False} == {"manifest", "trailer"}
    assert report.rows == rows_of(dump)
    assert "trailer" in refused.message


@pytest.mark.parametrize("length", [5000, -9])
def test_a_compressed_file_that_was_cut_off_is_told_to_be_that(live: Place, length: int) -> None:
    name = f"{OLD}.zst"
    path = live.put(mangle(live.origin.dump * 2, 850, "utf-16le"), name)
    path.write_bytes(path.read_bytes()[:length])
    report = live.verify(name)
    told = " ".join(check.detail for check in report.checks if check.ok is False)
    assert "the zstd stream is cut off" in told
    assert "not plain bytes" not in told
    with pytest.raises(BackupNotValid):
        live.restore(name, accept_foreign=True)
    with pytest.raises(BackupNotValid) as caught:
        live.repair(name)
    assert "Use it" not in caught.value.remedy
    assert files(path.parent) == {name}


@pytest.mark.parametrize("appended", [b"-- appended by hand\n", b"SELECT 1;\r\n"])
def test_plain_bytes_after_utf16_are_told_with_what_is_whole_before(place: Place, appended: bytes) -> None:
    place.put(mangle(place.origin.dump, 850, "utf-16le") + appended)
    proves_lost(place, f"have {rows_of(place.origin.dump)} rows")


def test_a_second_dump_after_the_first_is_told(place: Place) -> None:
    once = mangle(place.origin.dump, 850, "utf-16le")
    place.put(once + once.removeprefix(b"\xff\xfe"))
    report = place.verify()
    assert check_of(report, "contents").ok is None
    for refuse in (lambda: place.restore(accept_foreign=True), place.repair):
        with pytest.raises(BackupNotValid, match="contains the same tables twice"):
            refuse()


@pytest.mark.parametrize("container", WORDS)
def test_a_carriage_return_within_a_line_is_told_with_its_line(place: Place, container: Container) -> None:
    at = cut_in_a_row(place.origin.dump)
    whole, codec = mangle(place.origin.dump, 850, container), CODECS.get(container, "utf-8")
    middle = len(mangle(place.origin.dump[:at], 850, container)) - len("\r\n".encode(codec))
    place.put(whole[:middle] + "\r".encode(codec) + whole[middle:])
    line = place.origin.dump.count(b"\n", 0, at) + 1
    rows = rows_of(place.origin.dump[:at])
    proves_lost(place, f"line {line}: a carriage return within a line", f"have {rows} rows")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\xff\xfe\r\0\n\0", b"\r\n"])
def test_a_file_of_a_mark_or_a_line_end_only_is_no_backup(place: Place, content: bytes) -> None:
    place.put(content)
    proves_lost(place)


def test_replaced_looking_question_marks_are_told_and_not_called_had_back_in_full(place: Place) -> None:
    place.put(mangle(place.origin.dump.decode().encode("ascii", "replace"), 850, "utf-16le"))
    report = place.verify()
    assert re.search(r"\d+ question marks may stand for lost characters: .*Perch\?", str(report.checks))
    assert "in full" not in (report.remedy or "")
    made = place.repair()
    listed = place.shelf.listed(made.name)
    for told in (listed.detail, " ".join(place.verify(made.name).warnings)):
        assert "may stand for lost characters" in told


def test_replacement_characters_are_left_to_the_caller(live: Place) -> None:
    dump = live.origin.dump.replace(b"Scarlet", "Scar\ufffdlet".encode())
    live.put(mangle(dump, 65001, "utf-16le"))
    report = live.verify()
    assert [choice.code_pages for choice in report.code_pages] == [[65001]]
    assert "replacement characters (U+FFFD)" in check_of(report, "encoding").detail
    assert "65001" in live.fails(CodePageNeeded, accept_foreign=True).message
    live.restore(accept_foreign=True, code_page=65001, drill="never")
    assert live.differences(dump) == []
