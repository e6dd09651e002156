"""What every call does about the journal of a restore that was cut off."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from scarlet_backup_mcp.errors import (
    RestoreInterrupted,
)
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.recovery import journal as journals
from scarlet_backup_mcp.procedures.restore.service import dry_run, restore
from scarlet_backup_mcp.progress import Progress

from ..helpers.containers import run_docker, wait_for_server
from ..helpers.restore import Mind, listing, put_back, take

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills with SIGKILL")


def leave_a_journal(mind: Mind, **fields: Any) -> None:
    """As a restore leaves it that was killed just before its swap."""
    incoming = f"{mind.name}_restore_20260101_000000"
    system = f"CREATE DATABASE {incoming} TEMPLATE {mind.name};\nSELECT system_identifier FROM pg_control_system()"
    system_identifier = mind.psql(system, "postgres")
    found = mind.databases()
    journal = journals.Journal(
        source=mind.saved,
        source_kind="backup",
        container=mind.container,
        database=mind.name,
        live_oid=int(found[mind.name]),
        incoming=incoming,
        incoming_oid=int(found[incoming]),
        undo=f"{mind.name}_before_restore_20260101_000000",
        system_identifier=system_identifier,
        dependents=[],
        started_at=datetime.now(UTC),
    )
    journals.write(mind.directory, journal.model_copy(update=fields))


def test_journal_is_told_of_while_the_server_is_down_and_settled_when_it_is_up(mind: Mind) -> None:
    live = mind.fingerprint()
    leave_a_journal(mind)
    run_docker("stop", mind.container)
    try:
        calls: list[Callable[[BackupContext], object]] = [
            lambda context: dry_run(context, Progress(), mind.saved),
            lambda context: restore(context, Progress(), mind.saved),
            lambda context: backup(context, Progress()),
        ]
        for call in calls:
            with mind.context() as context, pytest.raises(RestoreInterrupted) as raised:
                call(context)
            assert raised.value.remedy
    finally:
        run_docker("start", mind.container)
        wait_for_server(mind.container)
    assert "rolled back" in " ".join(take(mind).warnings)
    assert list(mind.databases()) == [mind.name]
    assert mind.fingerprint() == live
    assert not mind.journal.exists()


def test_dry_run_leaves_a_journal_alone_and_says_so(mind: Mind) -> None:
    leave_a_journal(mind)
    around, files = mind.around(), listing(mind.directory)
    with mind.context() as context, pytest.raises(RestoreInterrupted):
        dry_run(context, Progress(), mind.saved)
    assert (mind.around(), listing(mind.directory)) == (around, files)


def test_unreadable_journal_stops_every_writer_with_what_to_do(mind: Mind) -> None:
    mind.journal.write_text('{"journal_version": 1, "source"', encoding="ascii")
    around = mind.around()
    for call in (lambda: put_back(mind, mind.saved), lambda: take(mind)):
        with pytest.raises(RestoreInterrupted) as raised:
            call()
        assert "restore.journal.json" in raised.value.message
        assert "remove that file" in raised.value.remedy
    assert mind.around() == around
    assert mind.journal.exists()


@pytest.mark.long
def test_journal_that_matches_no_database_stops_every_writer_with_what_to_do(mind: Mind) -> None:
    leave_a_journal(mind, live_oid=4_000_000_001, incoming_oid=4_000_000_002)
    around = mind.around()
    with pytest.raises(RestoreInterrupted) as raised:
        put_back(mind, mind.saved)
    assert "rename" in raised.value.remedy
    assert mind.around() == around


@pytest.mark.long
def test_container_that_has_another_name_now_is_known_by_its_databases(mind: Mind) -> None:
    leave_a_journal(mind, container="its-name-before")
    assert "rolled back" in " ".join(take(mind).warnings)
    assert list(mind.databases()) == [mind.name]
    assert not mind.journal.exists()


def test_journal_of_another_container_stays_though_that_is_a_copy_of_this_one(mind: Mind) -> None:
    leave_a_journal(mind, container="another", incoming_oid=4_000_000_002)
    around = mind.around()
    with pytest.raises(RestoreInterrupted, match="in another was interrupted, and shares") as raised:
        put_back(mind, mind.saved)
    assert str(mind.journal) in raised.value.remedy
    assert mind.around() == around
    assert mind.journal.exists()


@pytest.mark.long
def test_journal_of_a_cluster_that_is_gone_is_put_away(mind: Mind) -> None:
    leave_a_journal(mind, system_identifier="1")
    around = mind.around()
    assert "The cluster has changed since" in " ".join(take(mind).warnings)
    assert mind.around() == around
    assert not mind.journal.exists()
