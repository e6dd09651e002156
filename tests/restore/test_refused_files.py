"""Files that `restore` refuses, and what it does with those that others made."""

from __future__ import annotations

import json
import os
import re
import sys

import pytest

from scarlet_backup_mcp.errors import (
    BackupMissing,
    BackupNotValid,
    ConfirmationStale,
    ForeignRefused,
    RestoreFailed,
    again,
)
from scarlet_backup_mcp.procedures.restore.options import Confirmed
from scarlet_backup_mcp.procedures.restore.service import dry_run
from scarlet_backup_mcp.progress import Progress

from ..helpers.restore import IMPOSSIBLE, Mind, Watch, foreign, put_back, refusal, take

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills with SIGKILL")


def test_file_with_one_flipped_bit_is_refused(mind: Mind) -> None:
    path = mind.directory / mind.saved
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "sha256" in refusal(mind, BackupNotValid, mind.saved).message


@pytest.mark.long
def test_cut_file_is_refused(mind: Mind) -> None:
    path = mind.directory / mind.saved
    os.truncate(path, path.stat().st_size - 1000)
    refusal(mind, BackupNotValid, mind.saved)


def test_foreign_file_is_restored_only_on_word_and_keeps_the_live_settings(mind: Mind) -> None:
    name = foreign(mind, b"")
    assert refusal(mind, ForeignRefused, name).next_call == again(accept_foreign=True)
    comment = f"COMMENT ON DATABASE {mind.name} IS 'live'; ALTER DATABASE {mind.name} CONNECTION LIMIT 5;"
    mind.psql(comment + f"ALTER DATABASE {mind.name} SET timezone TO 'Asia/Tokyo';")
    properties = mind.content().properties
    done = put_back(mind, name, accept_foreign=True)
    assert any("no manifest" in warning for warning in done.warnings)
    assert mind.psql("SELECT was FROM marker") == "saved"
    assert mind.content().properties == properties


def test_foreign_file_into_a_missing_database_is_of_use_to_its_clients(mind: Mind) -> None:
    """Without its search_path Letta would find no table, and the restore would look like a success."""
    name = foreign(mind, b"")
    mind.psql(f"DROP DATABASE {mind.name} WITH (FORCE)", "postgres")
    done = put_back(mind, name, accept_foreign=True, drill="never")
    assert mind.fingerprint() == mind.saved_fingerprint
    assert str(done.integrity_rows) == mind.psql("SELECT count(*) FROM agents")
    assert "search_path was set" in " ".join(done.warnings)


@pytest.mark.long
def test_foreign_file_does_not_bring_back_a_schema_that_was_dropped(mind: Mind) -> None:
    schemas = mind.content().schemas
    assert "public" not in schemas
    put_back(mind, foreign(mind, b""), accept_foreign=True, drill="never")
    assert mind.content().schemas == schemas


@pytest.mark.long
def test_cut_foreign_file_is_refused(mind: Mind) -> None:
    name = foreign(mind, b"")
    path = mind.directory / name
    os.truncate(path, path.stat().st_size // 2)
    assert "trailer" in refusal(mind, BackupNotValid, name, accept_foreign=True).message


def test_foreign_file_that_does_more_than_a_dump_is_refused_with_each_line(mind: Mind) -> None:
    lines = [
        b"CREATE DATABASE more;",
        b"\\! touch /tmp/x",
        b"\\connect postgres",
        b"ALTER SYSTEM SET work_mem = '1GB';",
        b"COPY letta.notes FROM PROGRAM 'touch /tmp/x';",
    ]
    name = foreign(mind, b"\n".join(lines) + b"\n")
    script = (mind.directory / name).read_bytes()
    message = refusal(mind, BackupNotValid, name, accept_foreign=True).message
    for line in lines:
        number = script[: script.index(line)].count(b"\n") + 1
        assert re.search(rf"\bline {number}\b", message)


def test_load_that_fails_half_way_leaves_the_live_database_alone(mind: Mind) -> None:
    around = mind.around()
    with pytest.raises(RestoreFailed, match="impossible") as raised:
        put_back(mind, foreign(mind, IMPOSSIBLE), accept_foreign=True, drill="never")
    assert "live database is unchanged" in str(raised.value)
    assert mind.around() == around
    assert not mind.journal.exists()


def test_file_that_changes_between_verification_and_load_is_not_swapped_in(mind: Mind) -> None:
    path = mind.directory / mind.saved

    def forge(_: Progress) -> None:
        path.write_bytes(path.read_bytes().replace("Scarlet 🌹".encode(), "Violet! 🌹".encode()))

    around = mind.around()
    with pytest.raises(RestoreFailed, match="changed after it was verified"):
        put_back(mind, mind.saved, Watch("creating a new database", forge))
    assert mind.around() == around


def test_latest_never_means_a_shrunk_backup_and_the_refusal_names_the_full_one(mind: Mind) -> None:
    mind.psql("TRUNCATE agents")
    shrunk = take(mind)
    assert shrunk.shrunk
    error = refusal(mind, BackupMissing, "latest")
    assert mind.saved in error.message
    assert mind.saved in error.remedy
    with mind.context() as context:
        told = dry_run(context, Progress(), shrunk.name)
    assert any("shrunk" in warning for warning in told.warnings)


def test_stale_confirmation_is_refused(mind: Mind) -> None:
    sha256 = json.loads((mind.directory / f"{mind.saved}.manifest.json").read_bytes())["sha256"]
    oid = int(mind.databases()[mind.name])
    around = mind.around()
    for stale in (Confirmed("0" * 64, oid), Confirmed(sha256, oid + 1), Confirmed(sha256, None)):
        with pytest.raises(ConfirmationStale):
            put_back(mind, mind.saved, confirmed=stale)
        assert mind.around() == around
