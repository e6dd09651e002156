"""The audit log as users meet it: every call that changed something is in it."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.types import Implementation

from scarlet_backup_mcp import __version__
from scarlet_backup_mcp.models.audit import AuditEntry
from scarlet_backup_mcp.models.results import Backup, ErrorReport, Kept, Listing
from scarlet_backup_mcp.server.tools import create_server
from scarlet_backup_mcp.settings import Settings
from scarlet_backup_mcp.store.audit import AUDIT, AUDIT_LOCK
from scarlet_backup_mcp.store.lock import LOCK, writer_lock
from scarlet_backup_mcp.store.names import KEEP, PARTIAL

from ..conftest import LocalDatabase
from ..helpers.command_line import posix_only, terminal
from ..helpers.faces import (
    ERAS,
    Agent,
    User,
    local_settings,
    locked,
    unfinished,
)
from ..helpers.keeping import Full, each_era, log_of, nowhere, secret_of, told_in


@asynccontextmanager
async def introduced(settings: Settings, era: str, user: User) -> AsyncGenerator[Agent]:
    """A client with a name of its own."""
    who = Implementation(name="some-ide", version="7.1")
    async with Client(create_server(settings), mode=ERAS[era], elicitation_callback=user, client_info=who) as client:
        yield Agent(client, (await client.list_tools()).tools)


@pytest.mark.sample(1)
@each_era
async def test_every_call_over_mcp_that_changed_or_tried_is_in_the_log(
    local_database: LocalDatabase, tmp_path: Path, era: str
) -> None:
    settings, user = local_settings(local_database, tmp_path / "backups"), User()
    directory, secret = tmp_path / "backups", secret_of(settings)
    async with introduced(settings, era, user) as it:
        refused = await it.fail("backup", label=f"before {secret}")
        assert "holds the database's password" in refused["message"]
        made = await it.call("backup", label="before", keep=True)
        nothing_changes: list[tuple[str, dict[str, Any]]] = [
            ("list_backups", {"log": 5}),
            ("db_integrity", {}),
            ("verify_backup", {"level": "quick"}),
            ("restore", {"backup": "latest", "dry_run": True}),
            ("prune_backups", {}),
            ("backup", {"labl": "misspelt"}),
        ]
        for quiet in nothing_changes:
            await it.client.call_tool(*quiet)
        assert told_in(log_of(directory)) == [("backup", "configuration_invalid"), ("backup", "ok")]
        await it.call("verify_backup")
        user.action = "decline"
        await it.fail("restore", backup="latest")
        user.action = "accept"
        restored = await it.call("restore", backup="latest")
        user.action = "decline"
        await it.fail("prune_backups", dry_run=False, include_undo=True)
        await it.fail("restore", backup="no_such_backup.sql")
        await it.fail("verify_backup", backup="no_such_backup.sql")
        await it.fail("prune_backups", dry_run=False, confirmation="prune 0123")
        await it.call("prune_backups", dry_run=False)
        with locked(local_database), anyio.move_on_after(0.7):
            await it.client.call_tool("backup", {"label": "never"})
        shown = (await it.call("list_backups", log=3))["log"]
    entries = log_of(directory)
    assert told_in(entries) == [
        ("backup", "configuration_invalid"),
        ("backup", "ok"),
        ("verify_backup", "ok"),
        ("restore", "confirmation_needed"),
        ("restore", "ok"),
        ("prune_backups", "confirmation_needed"),
        ("restore", "backup_missing"),
        ("verify_backup", "backup_missing"),
        ("prune_backups", "confirmation_stale"),
        ("prune_backups", "ok"),
        ("backup", "cancelled"),
    ]
    assert {(entry.client.name, entry.client.version) for entry in entries} == {("mcp: some-ide", "7.1")}
    assert [AuditEntry.model_validate(entry) for entry in shown] == entries[:-4:-1]
    _, taken, _, declined, done, *_ = entries
    assert taken.arguments["keep"] is True
    assert taken.after == {"backup": made["name"], "sha256": made["sha256"]}
    assert declined.arguments["backup"] == "latest"
    assert (declined.before, declined.after) == ({}, {})
    assert done.before == {"source": made["name"], "sha256": made["sha256"]}
    assert done.after == {"undo_point": restored["undo_point"]}
    assert entries[-1].arguments["label"] == "never"
    assert secret not in (directory / AUDIT).read_text()
    assert unfinished(directory) == []


def test_every_command_that_changed_or_tried_is_in_the_log(full: Full) -> None:
    call, directory, secret = full.command_line, full.shelf.directory, secret_of(full.settings)
    for quiet in (("list", "--log", "5"), ("gate",), ("integrity",), ("prune", "--dry-run")):
        call.run(*quiet)
    for quiet in (("verify", "--level", "quick"), ("restore", full.names[0], "--dry-run")):
        call.run(*quiet)
    assert log_of(directory) == []
    steps: list[tuple[tuple[str, ...], int, str, str]] = [
        (("verify", full.names[1]), 0, "verify_backup", "ok"),
        (("keep", full.names[4]), 0, "keep", "ok"),
        (("restore", full.names[0]), 2, "restore", "confirmation_needed"),
        (("prune",), 2, "prune_backups", "confirmation_needed"),
        (("prune", "--yes"), 0, "prune_backups", "ok"),
        (("repair", full.names[0]), 2, "repair", ""),
        (("backup", "--label", "x", "--dsn", nowhere(full.settings)), 2, "backup", "server_unreachable"),
    ]
    for arguments, code, _, _ in steps:
        done = call.run(*arguments)
        assert done.returncode == code, (arguments, done.stderr)
        assert secret not in done.stdout + done.stderr
    entries = log_of(directory)
    for entry, (arguments, _, tool, outcome) in zip(entries, steps, strict=True):
        assert (entry.tool, entry.client.name, entry.client.version) == (tool, "cli", __version__), arguments
        assert (entry.code or entry.outcome) == (outcome or entry.code), arguments
    assert sorted(entries[4].before) == full.names[3:1:-1]
    assert secret not in (directory / AUDIT).read_text()
    shown = call.run("list", "--log", "2").stdout
    assert "backup by cli: server_unreachable" in shown
    assert "repair by cli: " in shown
    assert "prune_backups by" not in shown


@posix_only
def test_terminal_shows_slots_marks_and_the_log(full: Full) -> None:
    assert full.command_line.run("keep", full.names[4]).returncode == 0
    with terminal(full.command_line, "list", "--log", "5") as screen:
        assert screen.end() == 0
        rows = {name: line for line in screen.text.splitlines() for name in full.names if name in line}
        assert "last 2" in rows[full.names[0]]
        assert "keep" in rows[full.names[4]]
        assert f"keep ({full.names[4]}) by cli: ok" in screen.text


def test_what_lies_beside_backups_is_none_and_survives_the_next_ones(full: Full) -> None:
    call, directory = full.command_line, full.shelf.directory
    call.answer(Kept, 0, "keep", full.names[0])
    with writer_lock(directory, "test"):
        assert call.answer(ErrorReport, 2, "backup").code == "busy"
        seen = call.answer(Listing, 0, "list")
    assert [item.name for item in seen.backups] == full.names
    stale = directory / f"letta_backup_20260101_000000.sql{PARTIAL}"
    stale.write_bytes(b"--")
    old = time.time() - 9 * 24 * 3600
    beside = [AUDIT, AUDIT_LOCK, LOCK, full.names[0] + KEEP]
    for name in beside:
        os.utime(directory / name, (old, old))
    before = (directory / AUDIT).read_bytes()
    call.answer(Backup, 0, "backup", "--prune")
    assert not stale.exists(), "it was swept"
    assert [name for name in beside if not (directory / name).exists()] == []
    assert (directory / AUDIT).read_bytes().startswith(before)
    listed = call.answer(Listing, 0, "list")
    assert (listed.total_backups, {item.state for item in listed.backups}) == (2, {"good"})
