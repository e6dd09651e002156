"""Client programs of another version than the server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import WrongPrograms
from scarlet_backup_mcp.models.common import Kind
from scarlet_backup_mcp.postgres.server import programs

from ..conftest import LocalDatabase
from ..helpers.drill import take
from ..helpers.faces import local_settings


@pytest.mark.parametrize(
    ("program", "server", "writes", "copies"),
    [
        ("15.20", 150020, True, True),
        ("15.21 (Debian 15.21-1)", 150020, True, True),
        ("15.18", 150020, False, True),
        ("14.30", 150020, False, False),
        ("18.6", 150020, False, True),
        ("19beta1", 190000, True, True),
    ],
)
def test_versions_that_fit(program: str, server: int, writes: bool, copies: bool) -> None:
    assert programs.writes_for(program, server) is writes
    assert programs.copies(program, server) is copies


def with_version(bin_dir: Path, directory: Path, version: str) -> Path:
    """The server's own programs under another version: no older ones of its major version can be had."""
    directory.mkdir()
    for program in bin_dir.iterdir():
        (directory / program.name).symlink_to(program)
    for name in ("pg_dump", "pg_basebackup"):
        (directory / name).unlink()
        (directory / name).write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{name} (PostgreSQL) {version}"\n')
        (directory / name).chmod(0o755)
    return directory


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
@pytest.mark.parametrize(
    ("kind", "version", "program"),
    [("sql", "18.0", "pg_dump"), ("sql", "19.1", "pg_dump"), ("volume", "17.9", "pg_basebackup")],
)
def test_other_programs_than_the_server_s_are_named_before_anything_is_dumped(
    local_database: LocalDatabase, tmp_path: Path, kind: Kind, version: str, program: str
) -> None:
    settings = local_settings(local_database, tmp_path / "backups")
    settings = settings.model_copy(update={"bin_dir": with_version(local_database.bin_dir, tmp_path / "bin", version)})
    with pytest.raises(WrongPrograms) as refused:
        take(settings, kind=kind)
    assert f"The {program} in {tmp_path / 'bin'} is {version}, and the server, which is 18." in refused.value.message
    assert "SCARLET_BACKUP_BIN_DIR" in refused.value.remedy
    assert f"{local_database.bin_dir} for example" in refused.value.remedy
    assert list((tmp_path / "backups").glob("*.partial")) == []
