"""What a restore loads is read once: checked while it is loaded, and never read again for its definitions alone."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import BackupNotValid, RestoreFailed
from scarlet_backup_mcp.postgres.dump import filters
from scarlet_backup_mcp.postgres.dump.contents import Contents, compare
from scarlet_backup_mcp.postgres.dump.script import read_script
from scarlet_backup_mcp.procedures.loading.file_script import FileScript
from scarlet_backup_mcp.procedures.reading.sql import examine
from scarlet_backup_mcp.procedures.verify import sql as verify
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.store.directory import Entry
from scarlet_backup_mcp.store.names import parse

from ..helpers.drill import Databases, bring_back, take

SCRIPT = b"""--
-- PostgreSQL database dump
--

\\restrict Abc1

SET lock_timeout = 0;
CREATE TABLE public.t (a int);
COPY public.t (a) FROM stdin;
1
2
\\.
CREATE INDEX i ON public.t USING btree (a);
"""
TRAILER = b"""
--
-- PostgreSQL database dump complete
--

\\unrestrict Abc1

"""
KEPT = SCRIPT.replace(b"\\restrict Abc1\n", b"") + TRAILER.replace(b"\\unrestrict Abc1\n", b"")


def script(directory: Path, content: bytes, *, unread: bool) -> FileScript:
    path = directory / "letta_backup_20260101_000000.sql"
    path.write_bytes(content)
    name, status = parse(path.name), path.stat()
    assert name is not None
    contents = Contents()
    examined = examine(path, "none", Progress(), contents)
    assert examined.sha256 == hashlib.sha256(content).hexdigest()
    entry = Entry(name, path, status.st_size, status.st_mtime_ns)
    return FileScript(entry, examined, None if unread else contents, Progress())


@pytest.mark.parametrize("unread", [True, False])
def test_contents_are_known_after_the_load_and_definitions_without_the_file(tmp_path: Path, unread: bool) -> None:
    found = script(tmp_path, SCRIPT + TRAILER, unread=unread)
    assert b"".join(found()) == KEPT
    expected = Contents()
    read_script([SCRIPT + TRAILER], expected)
    assert compare(expected, found.contents).equal
    assert found.contents.rows == expected.rows
    (tmp_path / "letta_backup_20260101_000000.sql").unlink()
    assert b"".join(found(rows=False)) == KEPT.replace(b"1\n2\n", b"")


def test_contents_of_the_last_attempt_are_those_of_the_script(tmp_path: Path) -> None:
    found = script(tmp_path, SCRIPT + TRAILER, unread=True)
    begun = found.apart(b"")
    next(iter(begun))
    assert [piece for piece in found.apart(b"") if isinstance(piece, list)] != []
    assert found.contents.rows["public", "t"].rows == 2


def test_large_definitions_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "LARGEST", 20)
    found = script(tmp_path, SCRIPT + TRAILER, unread=True)
    assert b"".join(found()) == KEPT
    assert b"".join(found(rows=False)) == KEPT.replace(b"1\n2\n", b"")
    assert found.contents.rows["public", "t"].rows == 2
    (tmp_path / "letta_backup_20260101_000000.sql").unlink()
    with pytest.raises(FileNotFoundError):
        list(found(rows=False))


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (b"ALTER SYSTEM SET fsync = off;\n", "line 14 changes the server's configuration: ALTER SYSTEM SET fsync"),
        (b"\\! id\n", r"line 14 is a command to psql: \\!"),
        (b"SELECT 1;\r\n", "carriage return"),
    ],
)
def test_what_must_not_be_loaded_is_refused_before_any_of_it_is(tmp_path: Path, statement: bytes, message: str) -> None:
    found = script(tmp_path, SCRIPT + statement, unread=True)
    for read in (found, lambda: found.apart(b"")):
        given: list[bytes] = []
        with pytest.raises(BackupNotValid, match=message):
            given.extend(piece for piece in read() if isinstance(piece, bytes))
        assert not any(statement[:8] in piece for piece in given)


def test_a_file_that_changed_is_not_loaded(tmp_path: Path) -> None:
    found = script(tmp_path, SCRIPT + TRAILER, unread=True)
    path = tmp_path / "letta_backup_20260101_000000.sql"
    begun = found()
    next(begun)
    with path.open("ab") as file:
        file.write(b"\n")
    with pytest.raises(RestoreFailed, match="changed after it was verified"):
        list(found())


def test_a_restore_examines_its_file_while_it_loads_it(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = databases.make("CREATE TABLE agents (id int PRIMARY KEY); INSERT INTO agents VALUES (1), (2);")
    name = take(settings).name

    def unexpected(*_: object, **__: object) -> None:
        pytest.fail("The file was examined before it was loaded.")

    monkeypatch.setattr(verify, "full", unexpected)
    done = bring_back(settings, name)
    assert done.restored
    assert done.rows_compared == 2
    assert done.steps[0].title == "Verify the backup in full"
