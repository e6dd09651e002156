"""Old backups made with PowerShell, end to end: told, verified, drilled, restored and repaired, and never changed."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import textwrap
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import zstandard
from psycopg import sql

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.errors import (
    ArgumentsInvalid,
    BackupMissing,
    BackupNotValid,
    BackupToolError,
    Cancelled,
    CodePageNeeded,
    DiskFull,
    ForeignRefused,
)
from scarlet_backup_mcp.models.common import CodePage, Level
from scarlet_backup_mcp.models.results import Repaired, Restore
from scarlet_backup_mcp.models.verification import Check, Verification
from scarlet_backup_mcp.postgres.dump.contents import Contents, compare
from scarlet_backup_mcp.postgres.dump.digests import BlockDigests
from scarlet_backup_mcp.postgres.dump.script import ScriptReader, read_script
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.repair import repair
from scarlet_backup_mcp.procedures.restore.service import dry_run, restore
from scarlet_backup_mcp.procedures.restore.sql_plan import RestoreOptions
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.store.encodings import Container

from ..conftest import LocalDatabase, load
from ..helpers.backup_faults import files, fill, tmpfs
from ..helpers.faces import User, agent, content_of, environment_of, error_of, text_of
from ..helpers.powershell import CODECS, mangle, through_terminal
from ..helpers.restore import Watch
from ..helpers.store import Shelf, execute, shelf, small_database

OLD = "letta_backup_20250102_030405.sql"
COPY = "letta_backup_repaired_20250102_030405.sql"
WORDS: dict[Container, str] = {
    "utf-16le": "UTF-16",
    "utf-16be": "UTF-16 (big-endian)",
    "utf-8-bom": "UTF-8 with a byte order mark",
    "crlf": "lines that end in CRLF",
}
LIMIT = 150 << 20
"""Bytes that a call may have in memory, whatever the size of the file."""
KINDS: list[tuple[Container, CodePage, str]] = [
    *(("utf-16le", page, "") for page in (437, 850, 852, 1252, 65001)),
    ("utf-16le", 850, ".zst"),
    ("utf-16be", 858, ""),
    ("utf-8-bom", 1250, ""),
    ("utf-8-bom", 850, ".zst"),
    ("crlf", 850, ""),
    ("crlf", 65001, ".zst"),
]


# -- the databases and the files -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Origin:
    """A database that was dumped before PowerShell had the dump."""

    database: LocalDatabase
    dump: bytes = field(repr=False)

    def saying(self, word: str) -> bytes:
        """The dump of a database in which that is Scarlet's name, and everything else is ASCII."""
        return self.dump.decode().encode("ascii", "ignore").replace(b"Scarlet", word.encode())


@dataclass(frozen=True)
class Place:
    """A live database that has moved on since the dump, and a directory for its backups."""

    origin: Origin
    database: LocalDatabase
    shelf: Shelf

    def put(self, content: bytes, name: str = OLD) -> Path:
        """A file in the backup directory; a name in .zst is compressed."""
        path = self.shelf.file(name)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_bytes(zstandard.compress(content) if name.endswith(".zst") else content)
        return path

    def verify(self, name: str = OLD, level: Level = "full", code_page: CodePage | None = None) -> Verification:
        with BackupContext(self.shelf.settings) as context:
            return verify(context, Progress(), name, level, code_page=code_page)

    def repair(self, name: str = OLD, code_page: CodePage | None = None, progress: Progress | None = None) -> Repaired:
        with BackupContext(self.shelf.settings) as context:
            return repair(context, progress or Progress(), name, code_page=code_page)

    def restore(self, name: str = OLD, **options: Any) -> Restore:
        with BackupContext(self.shelf.settings) as context:
            return restore(context, Progress(), name, RestoreOptions(**options))

    def dry_run(self, name: str = OLD, **options: Any) -> Restore:
        with BackupContext(self.shelf.settings) as context:
            return dry_run(context, Progress(), name, RestoreOptions(**options))

    def differences(self, dump: bytes) -> list[str]:
        """What is not the same in the live database as in the dumped one: rows of tables, and definitions."""
        before = Contents()
        read_script([dump], before)
        after = Contents(before)
        read_script([pg_dump(self.database)], after)
        comparison = compare(before, after)
        assert comparison.complete
        assert comparison.rows_compared <= rows_of(dump)
        return [found.what for found in (*comparison.differences, *comparison.rewritten)]

    def fails(self, error: type[BackupToolError], **options: Any) -> BackupToolError:
        """A restore and its dry run that are refused and leave the live database alone; the error."""
        before = pg_dump(self.database)
        for call in (self.dry_run, self.restore):
            with pytest.raises(BackupToolError) as caught:
                call(**options)
            assert type(caught.value) is error, caught.value.message
        assert without_key(pg_dump(self.database)) == without_key(before)
        return caught.value


def pg_dump(database: LocalDatabase, *options: str) -> bytes:
    command = [str(database.bin_dir / "pg_dump"), *options, "-d", database.dsn]
    return subprocess.run(command, capture_output=True, check=True).stdout


def without_key(dump: bytes) -> bytes:
    """A dump less what pg_dump makes anew each time."""
    return re.sub(rb"\\(un)?restrict \w+", b"", dump)


def rows_of(script: bytes) -> int:
    """Rows of the tables that are whole in a script or in its beginning."""
    digests = BlockDigests()
    ScriptReader(digests).feed(script)
    return sum(block.rows for block in digests.blocks)


def check_of(report: Verification, name: str) -> Check:
    return next(check for check in report.checks if check.check == name)


@pytest.fixture(scope="module")
def origin(embedded: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    """Loaded from its own dump, so that the server has spelt every definition in its own way already."""
    script = tmp_path_factory.mktemp("origin") / "small.sql"
    with small_database(embedded) as small:
        script.write_bytes(pg_dump(small))
    name = f"origin_{secrets.token_hex(4)}"
    with psycopg.connect(embedded.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        try:
            database = LocalDatabase(embedded, name, embedded.dsn(name))
            execute(database, "DROP SCHEMA public")
            load(database, script)
            yield Origin(database, pg_dump(database))
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def moved_on(origin: Origin) -> Generator[LocalDatabase]:
    """That database as it is some time after it was dumped. Dropped afterwards, with what restores set aside."""
    server, name = origin.database.server, f"live_{secrets.token_hex(4)}"
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        live, template = sql.Identifier(name), sql.Identifier(origin.database.name)
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(live, template))
        try:
            connection.execute(sql.SQL('ALTER DATABASE {} SET search_path TO letta, "$user", public').format(live))
            database = LocalDatabase(server, name, server.dsn(name))
            execute(database, "DELETE FROM messages WHERE sequence_id > 9; UPDATE agents SET name = 'now'")
            yield database
        finally:
            found = connection.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [name])
            for (made,) in found.fetchall():
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(made)))


@pytest.fixture(scope="module")
def untouched(origin: Origin) -> Iterator[LocalDatabase]:
    """The live database of tests that leave it alone."""
    with moved_on(origin) as database:
        yield database


@pytest.fixture
def place(origin: Origin, untouched: LocalDatabase, tmp_path: Path) -> Place:
    """An empty directory for backups."""
    return Place(origin, untouched, shelf(untouched, tmp_path / "backups"))


@pytest.fixture
def live(origin: Origin, place: Place) -> Iterator[Place]:
    """The same with a live database that the test may change."""
    with moved_on(origin) as database:
        yield replace(place, database=database, shelf=shelf(database, place.shelf.directory))


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


@pytest.mark.parametrize(("container", "page"), [("utf-16le", 850), ("utf-8-bom", 1252), ("crlf", 65001)])
def test_a_restore_goes_through_a_drill_and_brings_the_dumped_database_back(
    live: Place, container: Container, page: CodePage
) -> None:
    path = live.put(mangle(live.origin.dump, page, container))
    stored = path.read_bytes()
    assert "accept_foreign" in live.fails(ForeignRefused).remedy
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
    done = live.restore(name, accept_foreign=True, drill=False)
    assert (done.drill, done.source_proved_at) == (None, None)
    assert live.differences(live.origin.dump) == []
    assert files(live.shelf.directory) == {name}


def test_a_lost_database_is_brought_back_from_a_file(live: Place) -> None:
    live.put(mangle(live.origin.dump, 850, "utf-16le"))
    with psycopg.connect(live.database.server.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(live.database.name)))
    done = live.restore(accept_foreign=True, drill=False)
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
    assert "code_page" in (report.remedy or "")
    errors = [place.fails(CodePageNeeded, accept_foreign=True)]
    with pytest.raises(CodePageNeeded) as caught:
        place.repair()
    for error in [*errors, caught.value]:
        assert all(choice in error.message for choice in ("code_page=850: perché", "code_page=65001: perch├®"))
        assert "code_page" in error.remedy
    assert files(place.shelf.directory) == {OLD}


def test_two_single_byte_pages_are_a_choice(place: Place) -> None:
    """`Ã©` is what page 1252 makes of `é`; and the bytes that it is in page 850 are UTF-8, too."""
    place.put(mangle(place.origin.saying("é"), 1252, "utf-16le"))
    choices = {tuple(choice.code_pages): choice.samples for choice in place.verify().code_pages}
    assert choices == {(850, 858): ["Ǹ"], (1252,): ["é"], (65001,): ["Ã©"]}
    error = place.fails(CodePageNeeded, accept_foreign=True)
    assert all(words in error.message for words in ("code_page=850: Ǹ", "code_page=1252: é", "code_page=65001: Ã©"))


def test_with_its_code_page_named_a_file_is_recoverable(place: Place) -> None:
    place.put(mangle(place.origin.saying("perché"), 850, "utf-16le"))
    report = place.verify(code_page=850)
    assert check_of(report, "encoding").ok is True
    assert report.repairable is True
    assert "code_page" not in (report.remedy or "")
    assert [check.check for check in report.checks if check.ok is False] == ["manifest"]


def test_a_restore_and_a_repair_take_the_named_page(live: Place) -> None:
    dump = live.origin.saying("perché")
    live.put(mangle(dump, 850, "utf-16le"))
    done = live.repair(code_page=850)
    assert done.code_page == 850
    assert live.shelf.file(COPY).read_bytes() == dump
    live.restore(accept_foreign=True, code_page=850)
    assert live.differences(dump) == []
    live.restore(accept_foreign=True, code_page=65001, drill=False)
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
        assert "code_page" in remedy
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
    done = live.restore(accept_foreign=True, code_page=65001, drill=False)
    assert done.source_proved_at is None


@pytest.mark.parametrize("level", ["quick", "full", "drill"])
def test_a_file_that_was_not_re_encoded_has_no_code_page(place: Place, level: Level) -> None:
    place.put(place.origin.dump)
    with pytest.raises(ArgumentsInvalid) as caught:
        place.verify(OLD, level, code_page=850)
    assert "code_page" in caught.value.message + caught.value.remedy


def test_neither_a_plain_file_nor_an_undo_point_is_restored_with_a_code_page(live: Place) -> None:
    live.put(live.origin.dump)
    assert "code_page" in live.fails(ArgumentsInvalid, accept_foreign=True, code_page=850).remedy
    undo = live.restore(accept_foreign=True, drill=False).undo_point
    assert undo is not None
    with pytest.raises(ArgumentsInvalid):
        live.restore(undo, code_page=850)


# -- what can't be had back ------------------------------------------------------------------------------------------


def cut_in_a_row(dump: bytes) -> int:
    """A place in a row of the messages, some tables after the first."""
    return dump.index(b"\n", dump.index(b"COPY letta.messages") + 400) + 40


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
        assert "code_page" not in remedy
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
    live.restore(accept_foreign=True, code_page=65001, drill=False)
    assert live.differences(dump) == []


# -- repair ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("container", "page", "suffix"), KINDS)
def test_a_repaired_copy_is_the_dump_byte_for_byte(
    place: Place, container: Container, page: CodePage, suffix: str
) -> None:
    path = place.put(mangle(place.origin.dump, page, container), OLD + suffix)
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    done = place.repair(path.name)
    assert (done.name, done.repaired_from, done.rows) == (COPY + suffix, path.name, rows_of(place.origin.dump))
    content = place.shelf.file(done.name).read_bytes()
    if suffix:
        content = zstandard.ZstdDecompressor().stream_reader(content).read()
    assert content == place.origin.dump
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    beside = {f"{done.name}.manifest.json", f"{done.name}.verified.json"}
    assert files(path.parent) == {path.name, done.name, *beside}


def test_a_repaired_copy_is_good_but_counts_for_nothing(live: Place) -> None:
    live.put(mangle(live.origin.dump, 850, "utf-16le"))
    live.repair()
    listed = live.shelf.listed(COPY)
    assert (listed.state, listed.repaired_from, listed.database) == ("good", OLD, None)
    assert (listed.integrity_rows, listed.shrunk) == (2, False)
    assert listed.created_at == datetime(2025, 1, 2, 3, 4, 5).astimezone()
    report = live.verify(COPY)
    assert (report.valid, report.foreign, report.repairable, report.remedy) == (True, True, None, None)
    listing = live.shelf.listing()
    assert (listing.newest_good, listing.newest_good_age_seconds) == (None, None)
    for for_restore in (False, True):
        with pytest.raises(BackupMissing):
            live.shelf.latest(for_restore=for_restore)
    with pytest.raises(ForeignRefused) as caught:
        live.restore(COPY)
    assert "repaired copy" in caught.value.message
    execute(live.database, "SET search_path TO letta; DELETE FROM messages; DELETE FROM archival_passages")
    taken = live.shelf.back_up()
    assert (taken.shrunk, live.shelf.latest()) == (False, taken.name), "it was measured against nothing"


def test_a_repaired_copy_is_proved_and_restored_like_any_foreign_file(live: Place) -> None:
    live.put(mangle(live.origin.dump, 1252, "utf-8-bom"))
    live.repair()
    report = live.verify(COPY, "drill")
    assert (report.proved, report.valid, report.foreign) == (True, True, True)
    assert live.shelf.listed(COPY).proved_at == report.proved_at
    done = live.restore(COPY, accept_foreign=True, drill=False)
    assert done.source_proved_at == report.proved_at
    assert live.differences(live.origin.dump) == []


def test_any_flipped_bit_of_a_repaired_copy_is_found(place: Place) -> None:
    place.put(mangle(place.origin.dump, 850, "utf-16le"))
    place.repair()
    copy = place.shelf.file(COPY)
    for at in (0, cut_in_a_row(place.origin.dump), len(place.origin.dump) - 1):
        harmed = bytearray(place.origin.dump)
        harmed[at] ^= 1
        copy.write_bytes(harmed)
        report = place.verify(COPY)
        assert not report.valid
        assert check_of(report, "sha256").ok is False
        assert place.shelf.state(COPY) == "damaged"


def test_a_second_repair_is_refused_and_leaves_the_first(place: Place) -> None:
    place.put(mangle(place.origin.dump, 850, "utf-16le"))
    place.repair()
    before = {path: path.read_bytes() for path in place.shelf.directory.glob("*.sql*")}
    with pytest.raises(BackupNotValid) as caught:
        place.repair()
    assert f"{COPY} already exists" in caught.value.message
    assert {path: path.read_bytes() for path in place.shelf.directory.glob("*.sql*")} == before


@pytest.mark.parametrize(
    "name",
    ["letta old.sql", "backup_20251399_999999.sql", "è" * 90 + ".sql", "b" * 196 + ".sql"],
    ids=["words", "no such time", "long and not ASCII", "as long as can be"],
)
def test_a_copy_of_a_file_whose_name_has_no_time_has_that_of_the_file(place: Place, name: str) -> None:
    path = place.put(mangle(place.origin.dump, 850, "utf-16le"), name)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    done = place.repair(name)
    assert done.name.endswith(f"_repaired_{datetime.fromtimestamp(1_700_000_000):%Y%m%d_%H%M%S}.sql")
    assert place.verify(done.name).valid
    assert place.shelf.listed(done.name).repaired_from == name


@pytest.mark.parametrize("whole", [True, False])
def test_what_was_not_re_encoded_is_refused_and_only_called_usable_if_it_is(place: Place, whole: bool) -> None:
    place.put(place.origin.dump if whole else place.origin.dump[:5000])
    with pytest.raises(BackupNotValid) as caught:
        place.repair()
    assert "nothing to repair" in caught.value.message
    assert whole or "Use it" not in caught.value.remedy
    assert files(place.shelf.directory) == {OLD}


@pytest.mark.parametrize("stage", ["finding out", "reading", "writing", f"reading {COPY}"])
def test_a_cancelled_repair_leaves_nothing(place: Place, stage: str) -> None:
    place.put(mangle(place.origin.dump, 850, "utf-16le"))
    watch = Watch(stage, lambda progress: progress.cancel())
    with pytest.raises(Cancelled):
        place.repair(progress=watch)
    assert watch.reached(stage)
    assert files(place.shelf.directory) == {OLD}


KILLED = """
    import json, os, signal, sys
    from pathlib import Path
    from scarlet_backup_mcp.procedures.repair import repair
    from scarlet_backup_mcp.procedures.context import BackupContext
    from scarlet_backup_mcp.progress import Progress
    from scarlet_backup_mcp.settings import load_settings
    from scarlet_backup_mcp.store.writing import PartialFile

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(PartialFile, sys.argv[2], die)
    with BackupContext(load_settings()) as context:
        repair(context, Progress(), sys.argv[1])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills with SIGKILL")
@pytest.mark.parametrize("step", ["finish", "publish"])
def test_a_killed_repair_leaves_nothing_that_looks_like_a_backup(place: Place, step: str) -> None:
    """It dies when the copy is written, or when its manifest lies there and it has its name not yet."""
    path = place.put(mangle(place.origin.dump, 850, "utf-16le"))
    command = [sys.executable, "-c", textwrap.dedent(KILLED), OLD, step]
    ended = subprocess.run(command, env=environment_of(place.shelf.settings), capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert f"{COPY}.partial" in files(path.parent)
    states = {item.name: item.state for item in place.shelf.listing().backups}
    assert states == {OLD: "foreign", f"{COPY}.partial": "partial"}
    place.repair()
    assert place.shelf.file(COPY).read_bytes() == place.origin.dump
    assert f"{COPY}.partial" not in files(path.parent)


@pytest.mark.skipif(sys.platform == "win32", reason="mounts a tmpfs")
def test_a_full_disk_leaves_a_good_copy_or_nothing(place: Place, tmp_path: Path) -> None:
    """With each number of free pages the copy, its manifest, or what is kept of its verification, fits or doesn't."""
    outcomes: set[str] = set()
    pages = -(-len(place.origin.dump) // os.sysconf("SC_PAGESIZE"))
    with tmpfs(tmp_path / "small", 2 << 20) as small:
        here = Place(place.origin, place.database, shelf(place.database, small))
        here.put(mangle(place.origin.dump, 850, "utf-16le"))
        for free in (0, *range(pages - 2, pages + 6)):
            before = files(small)
            watch = Watch("writing", lambda _, leaving=free: fill(small, leaving))
            try:
                here.repair(progress=watch)
                outcomes.add("good")
                assert here.verify(COPY).valid, f"{free} pages"
            except DiskFull:
                outcomes.add("disk_full")
                assert files(small) - before == {"filler"}, f"{free} pages"
            for name in files(small) - {OLD}:
                (small / name).unlink()
    assert outcomes == {"disk_full", "good"}


# -- the faces -------------------------------------------------------------------------------------------------------


async def test_an_agent_is_shown_the_choices_and_names_one(live: Place) -> None:
    dump = live.origin.saying("perché")
    live.put(mangle(dump, 850, "utf-16le"))
    async with agent(live.shelf.settings, "2026-07-28", User()) as it:
        assert "code_page" in it.tools["verify_backup"].input_schema["properties"]
        asked = await it.client.call_tool("verify_backup", {"backup": OLD})
        it.check("verify_backup", asked)
        found = content_of(asked)
        assert found["code_pages"] == [
            {"code_pages": [850, 858], "samples": ["perché"]},
            {"code_pages": [65001], "samples": ["perch├®"]},
        ]
        assert all(words in text_of(asked) for words in ("as code page 850: perché", "as code page 65001: perch├®"))
        assert found["remedy"] in text_of(asked)

        told = await it.call("verify_backup", backup=OLD, code_page=850)
        assert (told["foreign"], told["valid"], told["rows"]) == (True, False, rows_of(dump))
        error = await it.fail("restore", backup=OLD, accept_foreign=True, wait_seconds=0)
        assert error["code"] == "code_page_needed"
        assert "perch├®" in error["message"]
        wrong = await it.client.call_tool("verify_backup", {"backup": OLD, "code_page": 1251})
        assert error_of(wrong)["code"] == "arguments_invalid"
        done = await it.call("restore", backup=OLD, accept_foreign=True, code_page=850, wait_seconds=0)
        assert done["drill"]["proved"] is True
        assert (await it.call("list_backups"))["backups"][0]["proved_at"] == done["source_proved_at"]
    assert live.differences(dump) == []


def command_line(place: Place, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scarlet_backup_mcp", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        env=environment_of(place.shelf.settings) | {"PYTHONIOENCODING": "utf-8"},
        timeout=60,
        check=False,
    )


def test_a_person_is_shown_the_choices_as_options(place: Place) -> None:
    place.put(mangle(place.origin.saying("perché"), 850, "utf-16le"))
    looked = command_line(place, "verify", OLD)
    refused = [
        command_line(place, "repair", OLD),
        command_line(place, "restore", OLD, "--yes", "--accept-foreign"),
    ]
    assert looked.returncode == 1
    assert [ended.returncode for ended in refused] == [2, 2]
    for shown in (looked.stdout, *(ended.stderr for ended in refused)):
        assert "perché" in shown
        assert "perch├®" in shown
        assert "--code-page the page" in shown, "one space, as it is typed"
        assert "code_page=" not in shown
    assert all("(code_page_needed)" in ended.stderr for ended in refused)
    assert all("Traceback" not in ended.stderr for ended in refused)


def test_a_person_repairs_verifies_and_restores(live: Place) -> None:
    dump = live.origin.saying("perché")
    live.put(mangle(dump, 850, "utf-16le"))
    assert command_line(live, "verify", OLD, "--code-page", "850").returncode == 1, "foreign is not valid"
    repaired = command_line(live, "repair", OLD, "--code-page", "850", "--json")
    assert repaired.returncode == 0, repaired.stderr
    found = Repaired.model_validate_json(repaired.stdout)
    assert (found.name, found.code_page, found.bytes) == (COPY, 850, len(dump))
    assert json.loads(repaired.stdout) == found.model_dump(mode="json", by_alias=True)
    verified = command_line(live, "verify", COPY)
    assert verified.returncode == 0, verified.stderr
    again = command_line(live, "repair", OLD, "--code-page", "850", "--json")
    assert again.returncode == 2
    assert json.loads(again.stdout)["code"] == "backup_not_valid"
    flags = ("--yes", "--accept-foreign", "--no-drill", "--code-page", "850", "--json")
    restored = command_line(live, "restore", OLD, *flags)
    assert restored.returncode == 0, restored.stderr
    assert Restore.model_validate_json(restored.stdout).restored
    assert live.differences(dump) == []


def test_the_command_line_says_what_a_plain_file_has_no_use_for_as_an_option(place: Place) -> None:
    place.put(place.origin.dump)
    ended = command_line(place, "verify", OLD, "--code-page", "850")
    assert ended.returncode == 2
    assert "--code-page" in ended.stderr
    assert "code_page." not in ended.stderr
    assert command_line(place, "verify", OLD, "--code-page", "1251").returncode == 2


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
