"""After a loss every answer leads to the newest full backup, and none asks for a backup of what is left."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.errors import NextCall
from scarlet_backup_mcp.models.common import Model
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.gate import gate
from scarlet_backup_mcp.procedures.integrity import db_integrity
from scarlet_backup_mcp.procedures.loss import loss
from scarlet_backup_mcp.procedures.writers import how_to_stop
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import load_settings
from scarlet_backup_mcp.summaries import describe

from ..conftest import LocalDatabase, Stack
from ..helpers.faces import until
from ..helpers.store import Shelf, execute, shelf, small_database

ASKS = re.compile(r"(take|make|call) (a |an? new |one |the )?(`?backup|now|again)", re.IGNORECASE)
"""Asks for a backup."""


@pytest.fixture
def database(embedded: EmbeddedServer) -> Iterator[LocalDatabase]:
    with small_database(embedded) as made:
        yield made


def assert_leads_to(full: str, result: Model) -> None:
    text = describe(result) + result.model_dump_json()
    assert not ASKS.search(text), text
    assert f"restore {full}, the newest full backup" in text


@pytest.mark.parametrize("how", ["TRUNCATE letta.agents CASCADE", "DROP TABLE letta.agents CASCADE"])
def test_after_a_loss_every_answer_leads_to_the_newest_full_backup(
    database: LocalDatabase, tmp_path: Path, how: str
) -> None:
    here = shelf(database, tmp_path / "backups", gate_minutes=1)
    full = here.back_up().name
    here.edit_manifest(full, created_at="2026-01-01T00:00:00Z")
    execute(database, how)
    restore = NextCall(tool="restore", arguments={"backup": full})
    with BackupContext(here.settings) as context:
        found = db_integrity(context, Progress())
        assert_leads_to(full, found)
        assert found.findings[0].next_call == restore
        assert {finding.remedy for finding in found.findings if finding.code == "backup_old"} == {""}
        assert_leads_to(full, gate(context))
    after = here.back_up()
    assert (after.shrunk, after.good, after.next_call) == (True, False, restore)
    assert_leads_to(full, after)
    assert_leads_to(full, here.listing())


def test_a_name_that_no_backup_has_counted_is_no_loss(database: LocalDatabase, tmp_path: Path) -> None:
    here = shelf(database, tmp_path / "backups")
    here.back_up()
    other = Shelf(here.settings.model_copy(update={"integrity_table": "agent"}))
    for of in (here, other):
        with BackupContext(of.settings) as context:
            assert loss(context) is None


def test_what_holds_a_session_is_named(database: LocalDatabase, tmp_path: Path) -> None:
    here = shelf(database, tmp_path / "backups")
    with BackupContext(here.settings) as context, context.server.session(context.database) as session:
        assert how_to_stop(context, session) == "Stop what writes to it: no other program is connected now"
        with psycopg.connect(database.dsn, application_name="scribe"):
            assert re.search(r": end the sessions of scribe \(role \w+, from 127", how_to_stop(context, session))


def test_a_container_that_holds_a_session_is_stopped_by_its_own_name(scarlet: Stack, tmp_path: Path) -> None:
    settings = load_settings(dir=tmp_path / "backups", container=scarlet.container)
    with BackupContext(settings) as context, context.server.session(context.database) as session:
        until(lambda: "`docker compose stop letta-server`" in how_to_stop(context, session), 20, "the client's session")
