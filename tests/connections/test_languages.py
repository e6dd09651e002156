"""A server that speaks another language, as in an image whose LANG is Italian: no decision rests on its words."""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import DatabaseMissing, PasswordRejected, RoleMissing
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.integrity import db_integrity
from scarlet_backup_mcp.procedures.restore.service import restore
from scarlet_backup_mcp.progress import Progress

from ..helpers.backup_faults import Box
from ..helpers.containers import docker, run_docker
from ..hosts.test_named_server import server_in

TRANSLATIONS = {
    "FATAL": "FATALE",
    "ERROR": "ERRORE",
    'database "%s" does not exist': 'il database "%s" non c\'è',
    'role "%s" does not exist': 'il ruolo "%s" non c\'è',
    'relation "%s" does not exist': 'la relazione "%s" non c\'è',
    'password authentication failed for user "%s"': 'password sbagliata per "%s"',
}
"""Debian's and the official images lack PostgreSQL's own translations."""


def catalogue(translations: Mapping[str, str]) -> bytes:
    """A message catalogue in gettext's binary format ("The Format of GNU MO Files" in its manual)."""
    pairs = sorted({"": "Content-Type: text/plain; charset=UTF-8\n", **translations}.items())
    texts = [[text.encode() for text in column] for column in zip(*pairs, strict=True)]
    tables, strings, at = b"", b"", 28 + 16 * len(pairs)
    for column in texts:
        for text in column:
            tables += struct.pack("<II", len(text), at + len(strings))
            strings += text + b"\0"
    return struct.pack("<7I", 0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, at) + tables + strings


@pytest.fixture(scope="module")
def italian(require_docker: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    file = tmp_path_factory.mktemp("italian") / "postgres-15.mo"
    file.write_bytes(catalogue(TRANSLATIONS))
    with server_in(agents=3) as box:
        messages = "/usr/share/locale/it/LC_MESSAGES"
        box.sh(f"localedef -i it_IT -f UTF-8 it_IT.UTF-8 && mkdir -p {messages}")
        run_docker("cp", str(file), f"{box.name}:{messages}/{file.name}")
        run_docker("restart", box.name)  # a running process does not see a new locale
        box.wait_until_ready()
        box.psql("ALTER SYSTEM SET lc_messages = 'it_IT.UTF-8'")
        run_docker("restart", box.name)
        box.wait_until_ready()
        shown = docker(("exec", box.name, "psql", "-U", "postgres", "-d", "nessuno")).stderr.decode()
        assert "FATALE" in shown
        assert "non c'è" in shown
        yield box


@pytest.mark.long
def test_what_is_missing_is_told_as_such(italian: Box, tmp_path: Path) -> None:
    for given, error, code in (
        ({"database": "nessuno"}, DatabaseMissing, "database_missing"),
        ({"user": "nessuno"}, RoleMissing, "role_missing"),
    ):
        with BackupContext(italian.settings(tmp_path, **given)) as context:
            with pytest.raises(error):
                context.server.session(context.database)
            with pytest.raises(error):
                backup(context, Progress())
            assert code in {finding.code for finding in db_integrity(context, Progress()).findings}
    address = run_docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", italian.name).strip()
    given = {"socket": address, "password": secrets.token_hex(8)}
    with BackupContext(italian.settings(tmp_path, **given)) as context, pytest.raises(PasswordRejected):
        context.server.session(context.database)


@pytest.mark.long
def test_a_lost_database_comes_back(italian: Box, tmp_path: Path) -> None:
    with BackupContext(italian.settings(tmp_path)) as context:
        made = backup(context, Progress(), verify="full")
        assert made.good
    italian.psql("DROP DATABASE letta", "postgres")
    with BackupContext(italian.settings(tmp_path)) as context:
        assert restore(context, Progress(), made.name).integrity_rows == 3
