"""Old backups made with PowerShell, end to end: told, verified, drilled, restored and repaired, and never changed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap

import psycopg
import pytest
from psycopg import sql

from scarlet_backup_mcp.errors import (
    ArgumentsInvalid,
    BackupNotValid,
    CodePageNeeded,
    ForeignRefused,
    again,
)
from scarlet_backup_mcp.models.common import CodePage, Level
from scarlet_backup_mcp.store.encodings import Container

from ..helpers.backup_faults import files
from ..helpers.faces import environment_of
from ..helpers.powershell import mangle, through_terminal
from ..helpers.reencoded import COPY, KINDS, OLD, WORDS, Place, check_of, rows_of

LIMIT = 150 << 20
"""Bytes that a call may have in memory, whatever the size of the file."""


# -- whole files: told, proved, restored -----------------------------------------------------------------------------


@pytest.mark.parametrize(("container", "page", "suffix"), KINDS)
def test_it_is_told_what_happened_to_a_file_and_that_it_can_be_undone(
    place: Place, container: Container, page: CodePage, suffix: str
) -> None:
    content = mangle(place.origin.dump, page, container)
    path = place.put(content, OLD + suffix)
    stored = path.read_bytes()

    quick, full = place.verify(path.name, "quick"), place.verify(path.name)

    for report in (quick, full):
        assert (report.valid, report.foreign, report.shrunk, report.code_pages) == (False, True, None, [])
        assert [check.check for check in report.checks if check.ok is False] == ["manifest"]
        assert WORDS[container] in check_of(report, "encoding").found
    assert (quick.repairable, full.repairable) == (None, True)
    assert "level full" in (quick.remedy or "")
    assert all(word in (full.remedy or "") for word in ("in full", "restore", "repair"))
    encoding = check_of(full, "encoding")
    assert encoding.ok is True
    assert WORDS[container] in encoding.detail
    assert re.search("is unchanged" if page == 65001 else rf"code page .*\b{page}\b", encoding.detail)
    assert full.rows == rows_of(place.origin.dump)
    assert path.read_bytes() == stored
    assert files(path.parent) == {path.name}


@pytest.mark.parametrize("suffix", ["", ".zst"])
@pytest.mark.parametrize("container", WORDS)
def test_a_listing_says_what_wrote_a_file(place: Place, container: Container, suffix: str) -> None:
    path = place.put(mangle(place.origin.dump, 850, container), OLD + suffix)
    listed = place.shelf.listed(path.name)
    assert (listed.state, listed.proved_at, listed.verified) == ("foreign", None, None)
    assert WORDS[container] in listed.detail


def test_what_went_through_a_terminal_is_told(place: Place) -> None:
    place.put(through_terminal(place.origin.dump))
    report = place.verify()
    assert report.repairable is True
    assert "a terminal" in check_of(report, "encoding").detail


@pytest.mark.parametrize("name", [OLD, f"{OLD}.zst"])
def test_a_drill_proves_a_file_and_the_date_is_kept(place: Place, name: str) -> None:
    path = place.put(mangle(place.origin.dump, 850, "utf-16le"), name)
    stored = path.read_bytes()
    report = place.verify(name, "drill")
    assert (report.proved, report.valid, report.foreign, report.repairable) == (True, False, True, True)
    assert report.drill is not None
    assert (report.drill.differences, report.drill.rows_compared) == ([], rows_of(place.origin.dump))
    listed = place.shelf.listed(name)
    assert (listed.state, listed.proved_at) == ("foreign", report.proved_at)
    assert place.verify(name).proved is True, "reading it again forgets nothing"
    assert path.read_bytes() == stored


@pytest.mark.sample(1)
@pytest.mark.parametrize(("container", "page"), [("utf-16le", 850), ("utf-8-bom", 1252), ("crlf", 65001)])
def test_a_restore_goes_through_a_drill_and_brings_the_dumped_database_back(
    live: Place, container: Container, page: CodePage
) -> None:
    path = live.put(mangle(live.origin.dump, page, container))
    stored = path.read_bytes()
    assert live.fails(ForeignRefused).next_call == again(accept_foreign=True)
    assert live.differences(live.origin.dump)

    done = live.restore(accept_foreign=True)

    assert done.restored
    assert done.drill is not None
    assert done.drill.proved is True
    assert done.source_proved_at is not None
    assert done.integrity_rows == 2, "found by the live database's search_path"
    assert live.shelf.listed(OLD).proved_at == done.source_proved_at
    assert live.differences(live.origin.dump) == []
    assert path.read_bytes() == stored


@pytest.mark.parametrize("name", [OLD, f"{OLD}.zst"])
def test_a_restore_without_a_drill_brings_the_same_back(live: Place, name: str) -> None:
    live.put(mangle(live.origin.dump, 437, "utf-16le"), name)
    done = live.restore(name, accept_foreign=True, drill="never")
    assert (done.drill, done.source_proved_at) == (None, None)
    assert live.differences(live.origin.dump) == []
    assert files(live.shelf.directory) == {name}


def test_a_lost_database_is_brought_back_from_a_file(live: Place) -> None:
    live.put(mangle(live.origin.dump, 850, "utf-16le"))
    with psycopg.connect(live.database.server.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(live.database.name)))
    done = live.restore(accept_foreign=True, drill="never")
    assert (done.undo_point, done.integrity_rows) == (None, 2)
    assert any('search_path was set to "letta"' in warning for warning in done.warnings)
    assert live.differences(live.origin.dump) == []


def test_a_dry_run_writes_nothing(place: Place) -> None:
    path = place.put(mangle(place.origin.dump, 850, "utf-16le"))
    told = place.dry_run(accept_foreign=True)
    assert told.rows_compared == rows_of(place.origin.dump)
    assert {item.name for item in path.parent.iterdir()} == {OLD}


# -- the code page can't be told -------------------------------------------------------------------------------------


def test_little_evidence_is_a_choice_and_nothing_is_done_before_it_is_made(place: Place) -> None:
    place.put(mangle(place.origin.saying("perché"), 850, "utf-16le"))
    report = place.verify()
    choices = {tuple(choice.code_pages): choice.samples for choice in report.code_pages}
    assert choices == {(850, 858): ["perché"], (65001,): ["perch├®"]}
    assert check_of(report, "encoding").ok is False
    assert "code page" in (report.remedy or "")
    errors = [place.fails(CodePageNeeded, accept_foreign=True)]
    with pytest.raises(CodePageNeeded) as caught:
        place.repair()
    for error in [*errors, caught.value]:
        assert all(choice in error.message for choice in ("code page 850: perché", "code page 65001: perch├®"))
        assert "code page" in error.remedy
    assert files(place.shelf.directory) == {OLD}


def test_two_single_byte_pages_are_a_choice(place: Place) -> None:
    """`Ã©` is what page 1252 makes of `é`; and the bytes that it is in page 850 are UTF-8, too."""
    place.put(mangle(place.origin.saying("é"), 1252, "utf-16le"))
    choices = {tuple(choice.code_pages): choice.samples for choice in place.verify().code_pages}
    assert choices == {(850, 858): ["Ǹ"], (1252,): ["é"], (65001,): ["Ã©"]}
    error = place.fails(CodePageNeeded, accept_foreign=True)
    assert all(words in error.message for words in ("code page 850: Ǹ", "code page 1252: é", "code page 65001: Ã©"))


def test_with_its_code_page_named_a_file_is_recoverable(place: Place) -> None:
    place.put(mangle(place.origin.saying("perché"), 850, "utf-16le"))
    report = place.verify(code_page=850)
    assert check_of(report, "encoding").ok is True
    assert report.repairable is True
    assert "code page" not in (report.remedy or "")
    assert [check.check for check in report.checks if check.ok is False] == ["manifest"]


def test_a_restore_and_a_repair_take_the_named_page(live: Place) -> None:
    dump = live.origin.saying("perché")
    live.put(mangle(dump, 850, "utf-16le"))
    done = live.repair(code_page=850)
    assert done.code_page == 850
    assert live.shelf.file(COPY).read_bytes() == dump
    live.restore(accept_foreign=True, code_page=850)
    assert live.differences(dump) == []
    live.restore(accept_foreign=True, code_page=65001, drill="never")
    assert live.differences(live.origin.saying("perch├®")) == [], "what the caller has named is what is done"


@pytest.mark.parametrize("word", ["perché", "però è così, più città, virtù, caffè, già, là"])
def test_a_page_that_does_not_fit_is_refused_and_not_called_damage(place: Place, word: str) -> None:
    place.put(mangle(place.origin.saying(word), 850, "utf-16le"))
    report = place.verify(code_page=1250)
    error = place.fails(BackupNotValid, accept_foreign=True, code_page=1250)
    with pytest.raises(BackupNotValid) as caught:
        place.repair(code_page=1250)
    assert "code page 1250" in check_of(report, "structure").detail
    assert all("code page 1250" in found.message for found in (error, caught.value))
    for remedy in (report.remedy or "", error.remedy, caught.value.remedy):
        assert "code page" in remedy
        assert "damaged" not in remedy
    assert check_of(report, "encoding").ok is False
    assert files(place.shelf.directory) == {OLD}


def test_what_is_told_is_true_of_the_page_that_was_named(place: Place) -> None:
    """The database may have held mojibake: then 65001 is right, and what was done is not what page 850 would do."""
    place.put(mangle(place.origin.dump, 850, "utf-16le"))
    report = place.verify(code_page=65001)
    done = place.repair(code_page=65001)
    assert place.shelf.file(COPY).read_bytes() != place.origin.dump
    assert all("was read with code page 850" not in told for told in (check_of(report, "encoding").detail, done.found))


def test_a_drill_with_one_page_proves_nothing_of_another(live: Place) -> None:
    live.put(mangle(live.origin.saying("perché"), 850, "utf-16le"))
    assert live.verify(OLD, "drill", code_page=850).proved is True
    assert live.verify(code_page=65001).proved is None
    assert live.verify(code_page=850).proved is True
    done = live.restore(accept_foreign=True, code_page=65001, drill="never")
    assert done.source_proved_at is None


@pytest.mark.parametrize("level", ["quick", "full", "drill"])
def test_a_file_that_was_not_re_encoded_has_no_code_page(place: Place, level: Level) -> None:
    place.put(place.origin.dump)
    with pytest.raises(ArgumentsInvalid) as caught:
        place.verify(OLD, level, code_page=850)
    assert "code page" in caught.value.message + caught.value.remedy


def test_neither_a_plain_file_nor_an_undo_point_is_restored_with_a_code_page(live: Place) -> None:
    live.put(live.origin.dump)
    assert live.fails(ArgumentsInvalid, accept_foreign=True, code_page=850).next_call == again(code_page=None)
    undo = live.restore(accept_foreign=True, drill="never").undo_point
    assert undo is not None
    with pytest.raises(ArgumentsInvalid):
        live.restore(undo, code_page=850)


# -- memory ----------------------------------------------------------------------------------------------------------


MEASURED = """
    import sys
    from scarlet_backup_mcp.cli.commands import main
    try:
        main(sys.argv[1:])
    finally:
        print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")), file=sys.stderr)
"""


def put_large(place: Place, size: int) -> int:
    """A file of some `size` bytes in UTF-16: a dump with many rows like those of the messages. Gives its rows."""
    dump = place.origin.dump
    begin = dump.index(b"\n", dump.index(b"COPY letta.messages")) + 1
    row_end = dump.index(b"\n", begin) + 1
    rows = mangle(dump[begin:row_end] * 500, 850, "utf-16le", mark=False)
    with place.put(mangle(dump[:begin], 850, "utf-16le")).open("ab") as file:
        for _ in range(times := size // len(rows)):
            file.write(rows)
        file.write(mangle(dump[begin:], 850, "utf-16le", mark=False))
    return times * 500 + rows_of(dump)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="The peak that /proc tells is of this program only.")
def test_a_large_file_is_verified_and_repaired_in_little_memory(place: Place) -> None:
    rows = put_large(place, 100 << 20)
    for command, code in (("verify", 1), ("repair", 0)):
        ended = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(MEASURED), command, OLD, "--json"],
            env=environment_of(place.shelf.settings),
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert ended.returncode == code, ended.stderr
        assert json.loads(ended.stdout)["rows"] == rows
        peak = re.search(r"VmHWM:\s+(\d+) kB", ended.stderr)
        assert peak is not None
        assert int(peak[1]) << 10 < LIMIT, f"{command}: {peak[1]} kB"
