"""Names of backups: what they say, and which are accepted."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from scarlet_backup_mcp.errors import (
    BackupMissing,
    NameRefused,
    NextCall,
)
from scarlet_backup_mcp.models.common import Compression
from scarlet_backup_mcp.store import names
from scarlet_backup_mcp.store.directory import BackupDirectory

from ..helpers.store_files import NAME

FILE_NAME_BYTES = 255
"""The longest name on every usual file system, in bytes; Windows counts UTF-16 units, which are never more."""
LONGEST_COMPANION = f".{names.MANIFEST}.tmp"


DEVICES = ["CON", "nul", "Aux", "PRN", "COM1", "lpt9", "COM\u00b9", "CONIN$"]
PIECES = [*DEVICES, "..", ".", "/", "\\", "C:", ":stream", " ", "-", "\0", "\n", "\x1b[31m", "\x7f", "\u009b", "letta"]
NAMES = st.builds(
    "".join,
    st.tuples(
        st.lists(st.sampled_from(PIECES) | st.text(max_size=90), max_size=4).map("".join),
        st.sampled_from(["", ".sql", ".sql.zst", ".SQL", ".sql ", ".sql.", ".sql:x", ".tar.gz"]),
    ),
)


@settings(max_examples=600, deadline=None, database=None)
@given(name=NAMES)
@example(name="COM\u00b9.sql")
@example(name="CON .sql")
@example(name="a\x9b31m.sql")
@example(name="\ud800.sql")
@example(name="漢" * 80 + ".sql")
def test_accepted_name_is_a_plain_base_name_everywhere(name: str) -> None:
    if names.parse(name) is None:
        return
    assert PurePosixPath(name).name == name
    assert PureWindowsPath(name).name == name
    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
    assert not name.startswith((".", "-"))
    assert not name.endswith((".", " "))
    assert not is_device(name)
    assert len((name + LONGEST_COMPANION).encode()) <= FILE_NAME_BYTES


def is_device(name: str) -> bool:
    """As Windows has it ("Naming Files, Paths, and Namespaces"), and Python's ntpath.isreserved from 3.13 on."""
    stem = name.partition(".")[0].rstrip(" ").upper()
    numbered = {f"{device}{digit}" for device in ("COM", "LPT") for digit in "123456789\u00b9\u00b2\u00b3"}
    return stem in {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | numbered


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".sql",
        "letta",
        "letta.txt",
        "letta.sql.gpg",
        "../letta.sql",
        "..\\letta.sql",
        "/etc/letta.sql",
        "backups/letta.sql",
        "C:\\letta.sql",
        "C:letta.sql",
        "\\\\server\\share\\letta.sql",
        "letta.sql:stream.sql",
        "letta\n.sql",
        "letta\0.sql",
        "letta\x1b[2J.sql",
        ".hidden.sql",
        "-rf.sql",
        "letta.sql ",
        "letta.sql.",
        "con.sql",
        "NUL.sql",
        "lpt1.anything.sql",
        "letta*.sql",
        "letta?.sql",
        'letta".sql',
        "letta|x.sql",
        "l" * 300 + ".sql",
        NAME + names.PARTIAL,
        NAME + names.MANIFEST,
        "postgres_volume_/x.tar.gz",
    ],
)
def test_name_is_refused(name: str) -> None:
    assert names.parse(name) is None
    with pytest.raises(NameRefused) as refused:
        names.require(name)
    assert refused.value.next_call == NextCall(tool="list_backups")


@pytest.mark.parametrize(
    ("name", "kind", "compression", "stamp"),
    [
        (NAME, "sql", "none", datetime(2026, 2, 1, 9, 30)),
        (NAME + ".zst", "sql", "zstd", datetime(2026, 2, 1, 9, 30)),
        ("prima della migrazione.sql", "sql", "none", None),
        ("città_20261399_999999.sql", "sql", "none", None),
        ("postgres_volume_20260201_093000.tar.gz", "volume", "gzip", datetime(2026, 2, 1, 9, 30)),
        ("postgres_volume_vecchio.tar.zst", "volume", "zstd", None),
        ("console.sql", "sql", "none", None),
    ],
)
def test_name_is_taken_apart(name: str, kind: str, compression: str, stamp: datetime | None) -> None:
    found = names.require(name)
    assert (found.name, found.kind, found.compression, found.stamp) == (name, kind, compression, stamp)


@settings(max_examples=200, deadline=None, database=None)
@given(
    prefix=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}", fullmatch=True),
    moment=st.datetimes(datetime(2000, 1, 1), datetime(2999, 1, 1)),
    compression=st.sampled_from(["none", "zstd"]),
)
def test_new_name_reads_back(prefix: str, moment: datetime, compression: Compression) -> None:
    found = names.require(names.new_name(prefix, moment, compression))
    assert (found.kind, found.compression) == ("sql", compression)
    assert found.stamp == moment.replace(microsecond=0)


@settings(max_examples=300, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=NAMES)
@example(name="😀" * 150 + ".sql")
@example(name="\ud800.sql")
def test_whatever_name_is_asked_for_is_refused_or_missing(tmp_path: Path, name: str) -> None:
    with pytest.raises((NameRefused, BackupMissing)):
        BackupDirectory(tmp_path).find(name)
