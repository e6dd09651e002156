"""Names as people write them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import BackupMissing, NameRefused
from scarlet_backup_mcp.procedures.catalog import by_name
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.settings import load_settings

FIRST, SECOND = "letta_backup_20261122_033000.sql", "letta_backup_20261129_033000.sql"
UNDO = ("letta_before_restore_20261130_101112", "postgres_volume_before_restore_20261130_101112")


@pytest.fixture
def context(tmp_path: Path) -> BackupContext:
    for name in (FIRST, SECOND, "both.sql", "both.sql.zst", "Old.DUMP", "x.sql.dump"):
        (tmp_path / name).write_bytes(b"--\n-- PostgreSQL database dump\n--\n")
    return BackupContext(load_settings(dir=tmp_path, via="local", dsn="postgresql://nobody@127.0.0.1:1/letta"))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (FIRST, FIRST),
        (FIRST.removesuffix(".sql"), FIRST),
        (SECOND.upper(), SECOND),
        ("both.sql", "both.sql"),
        ("BOTH.SQL.ZST", "both.sql.zst"),
        ("old", "Old.DUMP"),
        ("latest", "latest"),
        ("Latest", "latest"),
        *((name, name) for name in UNDO),
    ],
)
def test_the_one_backup_of_that_name_is_meant(context: BackupContext, typed: str, meant: str) -> None:
    assert by_name.full_name(context, typed) == meant


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [
        ("both", "both.sql, both.sql.zst,"),  # two of them
        ("x.sql", "x.sql.dump,"),  # it has an ending
        ("x.sql.gz", "x.sql.dump,"),
        ("letta_backup_20261122", FIRST),
        ("letta_backup_20261122_033001.sql", FIRST),
        ("BOTH.DUMP", ""),
    ],
)
def test_anything_else_is_an_error_with_the_nearest_name(context: BackupContext, typed: str, nearest: str) -> None:
    with pytest.raises(BackupMissing) as error:
        by_name.full_name(context, typed)
    assert f"The nearest: {nearest}" in error.value.message


def test_what_lies_there_under_that_name_is_no_other_backup(context: BackupContext) -> None:
    """A link named like a backup in other case is refused, not passed over."""
    os.symlink(context.directory.path / FIRST, context.directory.path / FIRST.upper())
    with pytest.raises(NameRefused, match="regular file"):
        by_name.find(context, FIRST.upper())
    with pytest.raises(NameRefused):
        by_name.find(context, f"../{context.directory.path.name}/{FIRST}")


@pytest.mark.parametrize("typed", ["latst", "x.sql"])
def test_no_name_is_there_in_an_empty_directory(tmp_path: Path, typed: str) -> None:
    empty = BackupContext(load_settings(dir=tmp_path, via="local", dsn="postgresql://nobody@127.0.0.1:1/letta"))
    with pytest.raises(BackupMissing, match=f"There is no backup {typed} in {tmp_path}"):
        by_name.find(empty, typed)


def test_backup_with_an_ending_is_found_without_its_server(
    context: BackupContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BackupContext, "database", property(lambda _: pytest.fail("the server would be asked")))
    assert by_name.find(context, FIRST).name.name == FIRST
