"""Copies of old backups made with PowerShell, repaired by an agent or a person."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from datetime import datetime
from pathlib import Path

import pytest
import zstandard

from scarlet_backup_mcp.errors import (
    BackupMissing,
    BackupNotValid,
    Cancelled,
    DiskFull,
    ForeignRefused,
)
from scarlet_backup_mcp.models.common import CodePage
from scarlet_backup_mcp.models.results import Repaired, Restore
from scarlet_backup_mcp.store.encodings import Container

from ..helpers.backup_faults import files, fill, tmpfs
from ..helpers.faces import User, agent, content_of, environment_of, error_of, text_of
from ..helpers.powershell import mangle
from ..helpers.reencoded import COPY, KINDS, OLD, Place, check_of, cut_in_a_row, rows_of
from ..helpers.restore import Watch
from ..helpers.store import execute, shelf

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
    done = live.restore(COPY, accept_foreign=True, drill="never")
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
            {"code_pages": ["850", "858"], "samples": ["perché"]},
            {"code_pages": ["65001"], "samples": ["perch├®"]},
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
        assert done["source_proved_at"].startswith((await it.call("list_backups"))["backups"][0]["proved_at"])
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


@pytest.mark.long
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
        assert "the code page whose sample words are right" in shown
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
    flags = ("--yes", "--accept-foreign", "--drill", "never", "--code-page", "850", "--json")
    restored = command_line(live, "restore", OLD, *flags)
    assert restored.returncode == 0, restored.stderr
    assert Restore.model_validate_json(restored.stdout).restored
    assert live.differences(dump) == []


def test_the_command_line_says_what_a_plain_file_has_no_use_for_as_an_option(place: Place) -> None:
    place.put(place.origin.dump)
    ended = command_line(place, "verify", OLD, "--code-page", "850")
    assert ended.returncode == 2
    assert "it has no code page" in ended.stderr
    assert f" -m scarlet_backup_mcp verify {OLD}\n" in ended.stderr
    assert command_line(place, "verify", OLD, "--code-page", "1251").returncode == 2
