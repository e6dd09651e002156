"""Retention, the gate, the audit log and scheduled runs as users meet them: an agent over MCP, a person or a scheduler
on the command line."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any, get_args

import anyio
import psycopg
import pytest
from click.testing import CliRunner
from mcp import Client
from mcp.types import CallToolResult, Implementation, InputRequiredResult
from psycopg import sql

from scarlet_backup_mcp import __version__
from scarlet_backup_mcp.cli.commands import main
from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.models.audit import AuditEntry
from scarlet_backup_mcp.models.results import Backup, ErrorReport, Gate, Integrity, Kept, Listing, Prune
from scarlet_backup_mcp.postgres.server.dsn import environment_of
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.sandbox import lifecycle
from scarlet_backup_mcp.progress import Progress, State
from scarlet_backup_mcp.schedules import ScheduleReport, System, job_name
from scarlet_backup_mcp.server.tools import create_server
from scarlet_backup_mcp.settings import Settings
from scarlet_backup_mcp.store import lock
from scarlet_backup_mcp.store.audit import AUDIT, AUDIT_LOCK, read
from scarlet_backup_mcp.store.lock import LOCK, writer_lock
from scarlet_backup_mcp.store.names import KEEP, PARTIAL, REMOVED

from ..cli.test_commands import CommandLine, posix_only, terminal
from ..conftest import LocalDatabase
from ..helpers.faces import (
    ERAS,
    Agent,
    User,
    agent,
    content_of,
    execute,
    local_backends,
    local_settings,
    locked,
    sealed_yes,
    text_of,
    unfinished,
    until,
)
from ..helpers.store import Made, Shelf, shelf, small_database

SETTLED = 0.3
"""A session reports its statistics when it ends."""
FEW = {"keep_last": 2, "keep_daily": 0, "keep_weekly": 0, "keep_monthly": 0}
NOWHERE = "postgresql://postgres@127.0.0.1:1/"
"""Nobody listens there."""

JOB = "scarlet-backup-daily"

each_era = pytest.mark.parametrize("era", ERAS)


@dataclass(frozen=True)
class Full:
    """A directory with five good backups, newest first, of which the rules keep two."""

    shelf: Shelf
    names: list[str]
    command_line: CommandLine

    @property
    def settings(self) -> Settings:
        return self.shelf.settings

    def there(self) -> list[str]:
        return sorted((path.name for path in self.shelf.directory.glob("*.sql")), reverse=True)

    def everything(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.shelf.directory.iterdir()}


@pytest.fixture
def full(made: Made, tmp_path: Path) -> Full:
    here = made.shelf.copy(tmp_path / "backups")
    here = Shelf(here.settings.model_copy(update=FEW))
    return Full(here, [put(here, made, days) for days in range(5)], command_line_of(here.settings, tmp_path))


def put(here: Shelf, made: Made, days: float, **changes: Any) -> str:
    """A good backup that was taken so many days ago; its name."""
    at = datetime.now(UTC) - timedelta(days=days)
    name = f"letta_backup_{at.astimezone():%Y%m%d_%H%M%S}.sql"
    for path in (made.shelf.file(made.plain), made.shelf.manifest(made.plain), made.shelf.outcome(made.plain)):
        shutil.copy2(path, here.directory / path.name.replace(made.plain, name))
    here.edit_manifest(name, name=name, created_at=at.isoformat(), **changes)
    return name


class Quick(CommandLine):
    """In this process: most of a command's second is its start."""

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        done = CliRunner().invoke(main, arguments, env=self.environment | environment)
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def command_line_of(settings: Settings, tmp_path: Path) -> CommandLine:
    return Quick(settings, tmp_path)


@pytest.fixture
def database(embedded: EmbeddedServer) -> Generator[LocalDatabase]:
    """A small one that nobody else writes to."""
    with small_database(embedded) as made:
        time.sleep(SETTLED)
        yield made


def log_of(directory: Path) -> list[AuditEntry]:
    """Every call in it that has ended, in that order; each line is one."""
    path = directory / AUDIT
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [entry for entry in map(AuditEntry.model_validate_json, lines) if entry.outcome != "begun"]


def told_in(entries: list[AuditEntry]) -> list[tuple[str, str | None]]:
    return [(entry.tool, entry.code or entry.outcome) for entry in entries]


# -- removing backups over MCP ---------------------------------------------------------------------------------------


@each_era
async def test_dry_run_is_the_default_asks_nobody_and_changes_nothing(full: Full, era: str) -> None:
    user, before = User(), full.everything()
    async with agent(full.settings, era, user) as it:
        result = await it.client.call_tool("prune_backups", {})
        it.check("prune_backups", result)
        told = content_of(result)
        assert (told["dry_run"], told["removed"], told["kept"]) == (True, 3, 2)
        assert told["confirmation"] in text_of(result), "not every client shows the data"
        assert [item["name"] for item in told["items"] if item["action"] == "would be removed"] == full.names[2:]
        assert await it.call("prune_backups", dry_run=True, confirmation=told["confirmation"])
    assert user.questions == []
    assert full.everything() == before


@each_era
async def test_question_has_the_exact_list_and_a_yes_removes_exactly_that(full: Full, era: str) -> None:
    user, before = User(), full.everything()
    async with agent(full.settings, era, user) as it:
        user.meanwhile = lambda: assert_equal(full.everything(), before)
        done = await it.call("prune_backups", dry_run=False)
        assert (done["dry_run"], done["removed"], done["confirmation"]) == (False, 3, None)
        assert (await it.call("prune_backups", dry_run=False))["removed"] == 0, "nothing is left to be asked about"
    [question] = user.questions
    assert [name in question for name in full.names] == [False, False, True, True, True]
    assert str(full.shelf.directory) in question
    assert f"{done['bytes_freed']:,} bytes" in question
    assert full.there() == full.names[:2]
    assert [path for path in full.shelf.directory.iterdir() if any(name in path.name for name in full.names[2:])] == []


def assert_equal(one: object, other: object) -> None:
    assert one == other


@pytest.mark.parametrize(
    ("action", "content"), [("decline", None), ("cancel", None), ("accept", {"confirm": False}), ("accept", None)]
)
@each_era
async def test_without_a_yes_nothing_is_removed(full: Full, era: str, action: Any, content: Any) -> None:
    user = User(action, content)
    async with agent(full.settings, era, user) as it:
        result = await it.client.call_tool("prune_backups", {"dry_run": False})
        assert result.is_error
        if content or action != "accept":  # an answer without content is the protocol's business
            assert content_of(result)["code"] == "confirmation_needed"
            it.check("prune_backups", result)
    assert len(user.questions) == 1
    assert full.there() == full.names


@each_era
async def test_yes_is_stale_when_the_list_is_another_one_by_then(made: Made, full: Full, era: str) -> None:
    """A mark that is set, and a new backup, while the question is open."""
    user = User(meanwhile=lambda: (full.shelf.directory / (full.names[3] + KEEP)).touch())
    async with agent(full.settings, era, user) as it:
        assert (await it.fail("prune_backups", dry_run=False))["code"] == "confirmation_stale"
        assert full.there() == full.names
        user.meanwhile = lambda: put(full.shelf, made, -2 / 86400)
        assert (await it.fail("prune_backups", dry_run=False))["code"] == "confirmation_stale"
        assert full.there()[1:] == full.names


@each_era
async def test_yes_is_for_one_call_and_that_list(made: Made, full: Full, era: str) -> None:
    user = User()
    async with agent(full.settings, era, user) as it:
        await it.call("prune_backups", dry_run=False)
        old = put(full.shelf, made, 9)
        user.action = "decline"
        assert (await it.fail("prune_backups", dry_run=False))["code"] == "confirmation_needed"
    assert len(user.questions) == 2
    assert old in full.there()


async def test_sealed_yes_is_good_once(full: Full) -> None:
    """In 2026-07-28 the answer travels with the client's second request, which can be sent again, here when the very
    files that it was given for have been put back."""
    arguments, before = {"dry_run": False}, full.everything()
    async with agent(full.settings, "2026-07-28", User()) as it:
        answer = await sealed_yes(it, "prune_backups", arguments)
        done = await answer()
        assert isinstance(done, CallToolResult)
        assert content_of(done)["removed"] == 3
        for name in before.keys() - full.everything().keys():
            (full.shelf.directory / name).write_bytes(before[name])
        for name in full.names:
            assert full.shelf.verify(name).valid
        again = await answer()
        assert isinstance(again, InputRequiredResult) or again.is_error
    assert full.there() == full.names


@each_era
async def test_client_that_can_not_ask_needs_the_words_of_the_dry_run(made: Made, full: Full, era: str) -> None:
    async with agent(full.settings, era) as it:
        needed = await it.fail("prune_backups", dry_run=False)
        assert needed["code"] == "confirmation_needed"
        assert "dry_run=true" in needed["remedy"]
        words = (await it.call("prune_backups"))["confirmation"]
        for wrong in ("", "prune", "yes", words.upper(), words + " "):
            assert (await it.fail("prune_backups", dry_run=False, confirmation=wrong))["code"] == "confirmation_stale"
        assert full.there() == full.names
        another = put(full.shelf, made, 9)
        assert (await it.fail("prune_backups", dry_run=False, confirmation=words))["code"] == "confirmation_stale"
        assert full.there() == [*full.names, another]
        words = (await it.call("prune_backups"))["confirmation"]
        assert (await it.call("prune_backups", dry_run=False, confirmation=words))["removed"] == 4
        assert full.there() == full.names[:2]
        assert (await it.fail("prune_backups", dry_run=False, confirmation=words))["code"] == "confirmation_stale"


@each_era
async def test_nothing_to_remove_is_no_question(full: Full, era: str) -> None:
    roomy = full.settings.model_copy(update={"keep_last": 9})
    user = User()
    for client in (user, None):
        async with agent(roomy, era, client) as it:
            done = await it.call("prune_backups", dry_run=False)
            assert (done["dry_run"], done["removed"], done["kept"]) == (False, 0, 5)
            assert (await it.call("prune_backups"))["confirmation"] is None
    assert user.questions == []
    assert full.there() == full.names


@pytest.fixture
def undo_point(made: Made, embedded: EmbeddedServer) -> Iterator[str]:
    """A database such as a restore leaves behind."""
    with BackupContext(made.shelf.settings) as context:
        name = f"{context.database}_before_restore_20260101_000000"
    with psycopg.connect(embedded.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield name
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@each_era
async def test_undo_points_go_only_when_asked_for_and_named_in_the_question(
    full: Full, embedded: EmbeddedServer, undo_point: str, era: str
) -> None:
    user = User()
    async with agent(full.settings, era, user) as it:
        without = await it.call("prune_backups", dry_run=False)
        assert undo_point not in json.dumps(without) + user.questions[0]
        done = await it.call("prune_backups", dry_run=False, include_undo=True)
        assert [item["name"] for item in done["items"] if item["action"] == "removed"] == [undo_point]
        assert (done["bytes_freed"], done["undo_bytes_freed"] > 0) == (0, True)
    assert undo_point in user.questions[1]
    assert "undo point" in user.questions[1]
    with psycopg.connect(embedded.dsn()) as connection:
        found = connection.execute("SELECT count(*) FROM pg_database WHERE datname = %s", [undo_point]).fetchone()
    assert found == (0,)
    assert full.there() == full.names[:2]


# -- marks -----------------------------------------------------------------------------------------------------------


@each_era
async def test_backup_that_is_marked_over_mcp_stays(made: Made, full: Full, era: str) -> None:
    async with agent(full.settings, era, User()) as it:
        kept = (await it.call("backup", keep=True))["name"]
        plain = [put(full.shelf, made, -seconds / 86400) for seconds in (2, 3, 4)]
        listed = {item["name"]: item["keep"] for item in (await it.call("list_backups"))["backups"]}
        assert [listed[name] for name in (kept, *plain)] == [True, False, False, False]
        done = await it.call("prune_backups", dry_run=False)
        reasons = {item["name"]: item["reason"] for item in done["items"] if item["action"] == "kept"}
        assert sorted(reasons) == sorted([kept, *plain[1:]])
        assert "marked" in reasons[kept]
    assert full.there() == sorted([kept, *plain[1:]], reverse=True)


def test_marks_on_the_command_line(full: Full) -> None:
    call = full.command_line
    made = call.answer(Backup, 0, "backup", "--keep")
    assert call.answer(Kept, 0, "keep", full.names[4]).keep
    assert {item.name for item in call.answer(Listing, 0, "list").backups if item.keep} == {made.name, full.names[4]}
    assert "; keep" in next(line for line in call.run("list").stdout.splitlines() if full.names[4] in line)
    assert call.answer(Prune, 0, "prune", "--yes").removed == 3
    assert full.there() == [made.name, full.names[0], full.names[4]]
    assert call.answer(Kept, 0, "keep", full.names[4], "--off").keep is False
    assert not call.answer(Kept, 0, "keep", full.names[4], "--off").keep, "once more is no error"
    assert call.answer(Prune, 0, "prune", "--yes").removed == 1
    assert full.there() == [made.name, full.names[0]]
    assert call.answer(ErrorReport, 2, "keep", full.names[4]).code == "backup_missing"
    assert call.answer(ErrorReport, 2, "keep", "../x.sql").code == "name_refused"


# -- removing backups on the command line ----------------------------------------------------------------------------


def test_prune_through_a_pipe_needs_a_word(full: Full) -> None:
    call, before = full.command_line, full.everything()
    assert call.answer(Prune, 0, "prune", "--dry-run").removed == 3
    assert call.answer(Prune, 0, "prune", "--dry-run", "--yes").dry_run, "the more careful word counts"
    assert full.everything() == before
    refused = call.run("prune")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--yes" in refused.stderr
    assert full.there() == full.names
    done = call.answer(Prune, 0, "prune", "--yes")
    assert (done.dry_run, done.removed) == (False, 3)
    assert full.there() == full.names[:2]
    assert call.run("prune").returncode == 0, "with nothing to remove there is nothing to ask"


@posix_only
def test_prune_on_a_terminal_asks_for_words_that_only_this_list_has(full: Full) -> None:
    for typed, code in (("yes", 2), ("\x03", 130), (None, 0)):
        with terminal(full.command_line, "prune") as screen:
            screen.read_until("to go on")
            asked = screen.text
            assert [name in asked for name in full.names] == [False, False, True, True, True]
            assert "dry_run" not in asked
            assert full.there() == full.names
            screen.type(typed if typed == "\x03" else f"{typed or asked.split(chr(39))[-2]}\n")
            assert screen.end() == code, screen.text
    assert full.there() == full.names[:2]


def test_what_could_not_be_removed_is_a_bad_result(full: Full) -> None:
    """A directory stands in the way of its removal."""
    (full.shelf.directory / f".{full.names[3]}{REMOVED}").mkdir()
    done = full.command_line.answer(Prune, 1, "prune", "--yes")
    assert [item.action for item in done.items] == ["kept", "kept", "removed", "not removed", "removed"]
    assert full.there() == [*full.names[:2], full.names[3]]


def test_backup_with_prune_tells_both_and_is_bad_when_not_all_went(full: Full) -> None:
    call = full.command_line
    blocked = full.shelf.directory / f".{full.names[3]}{REMOVED}"
    blocked.mkdir()
    made = call.answer(Backup, 1, "backup", "--prune")
    assert (made.safe_to_proceed, made.pruned is not None) == (True, True)
    assert full.names[3] in (made.not_pruned or "")
    assert full.there() == [made.name, full.names[0], full.names[3]]
    blocked.rmdir()
    second = call.run("backup", "--prune", "--quiet")
    assert second.returncode == 0, second.stderr
    assert "2 of 4 were removed" in second.stdout
    assert [name in second.stdout for name in (full.names[0], full.names[3])] == [True, True]
    assert full.there()[1:] == [made.name]
    assert told_in(log_of(full.shelf.directory)) == [
        ("prune_backups", "bad"),
        ("backup", "bad"),
        ("prune_backups", "ok"),
        ("backup", "ok"),
    ]


# -- the gate --------------------------------------------------------------------------------------------------------


class Writes(Progress):
    """Somebody writes while the dump is being taken."""

    def __init__(self, database: LocalDatabase) -> None:
        super().__init__()
        self._database, self._stages = database, set[str]()

    def show(self, state: State) -> None:
        if state.stage == "dumping" and state.stage not in self._stages:
            self._stages.add(state.stage)
            execute(self._database, "UPDATE letta.agents SET name = name")
            time.sleep(SETTLED)


async def gate_over(it: Agent) -> Gate:
    contents = (await it.client.read_resource("scarlet://gate")).contents
    assert [found.mime_type for found in contents] == ["application/json"]
    return Gate.model_validate_json(getattr(contents[0], "text", ""))


async def same_everywhere(settings: Settings, command_line: CommandLine, *, opened: bool) -> Gate:
    """What `gate`, the resource and `db_integrity` say, which is one thing."""
    told = command_line.answer(Gate, 0 if opened else 1, "gate")
    for era in ERAS:
        async with agent(settings, era) as it:
            found, looked = await gate_over(it), await it.call("db_integrity")
            assert looked["safe_to_proceed"] == looked["gate"]["safe_to_proceed"]
            for other in (found, Gate.model_validate(looked["gate"])):
                assert (
                    (other.safe_to_proceed, other.backup)
                    == (told.safe_to_proceed, told.backup)
                    == (
                        opened,
                        told.backup,
                    )
                )
                assert len(other.reasons) == len(told.reasons)
    return told


async def test_gate_says_the_same_to_everyone_and_shuts_on_a_write(database: LocalDatabase, tmp_path: Path) -> None:
    settings = local_settings(database, tmp_path / "backups")
    call = command_line_of(settings, tmp_path)
    assert "There is no backup" in (await same_everywhere(settings, call, opened=False)).reasons[0]
    made = call.answer(Backup, 0, "backup")
    assert (await same_everywhere(settings, call, opened=True)).backup == made.name
    said = call.run("gate")
    assert (said.returncode, said.stdout.splitlines()[0]) == (0, "PROC-003 may go ahead.")
    execute(database, "DELETE FROM letta.messages WHERE sequence_id > 20")
    time.sleep(SETTLED)
    assert "deleted since" in (await same_everywhere(settings, call, opened=False)).reasons[0]
    said = call.run("gate", "--quiet")
    assert (said.returncode, said.stdout.splitlines()[0]) == (1, "PROC-003 must NOT go ahead.")
    wrong = call.run("gate", "--gate-minutes", "0")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert call.run("gate", "--dsn", NOWHERE + database.name).returncode == 1
    assert not (tmp_path / "backups" / AUDIT).read_bytes().count(b'"gate"')


async def test_backup_is_not_safe_when_something_was_written_meanwhile(database: LocalDatabase, tmp_path: Path) -> None:
    here = shelf(database, tmp_path / "backups")
    call = command_line_of(here.settings, tmp_path)
    with BackupContext(here.settings) as context:
        made = backup(context, Writes(database))
    assert (made.safe_to_proceed, made.shrunk) == (False, False)
    assert "since" in made.reasons[-1]
    assert here.state(made.name) == "good"
    assert call.run("gate").returncode == 1
    assert call.answer(Backup, 0, "backup").safe_to_proceed
    assert call.run("gate").returncode == 0


def test_gate_is_shut_where_the_server_does_not_count_what_is_written(database: LocalDatabase, tmp_path: Path) -> None:
    call = command_line_of(local_settings(database, tmp_path / "backups"), tmp_path)
    execute(database, f"ALTER DATABASE {database.name} SET track_counts = no")
    assert call.answer(Backup, 0, "backup").safe_to_proceed, "nothing at all was written on the server since"
    execute(database, "DELETE FROM letta.messages WHERE sequence_id > 20")
    time.sleep(SETTLED)
    assert "track_counts" in call.answer(Gate, 1, "gate").reasons[0]


async def test_gate_that_wants_proof_opens_on_a_drill_only(database: LocalDatabase, tmp_path: Path) -> None:
    settings = local_settings(database, tmp_path / "backups").model_copy(update={"gate_level": "proved"})
    call = command_line_of(settings, tmp_path)
    unproved = call.answer(Backup, 1, "backup", "--verify=full")
    assert any("No restore drill has proved" in reason for reason in unproved.reasons)
    async with agent(settings, "2026-07-28") as it:
        proved = await it.call("backup", verify="drill")
        assert (proved["safe_to_proceed"], proved["proved"]) == (True, True)
        found = await gate_over(it)
        assert (found.safe_to_proceed, found.backup) == (True, proved["name"])
        assert "a restore drill" in found.reasons[0]
    assert call.run("gate").returncode == 0


# -- the audit log ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def introduced(settings: Settings, era: str, user: User) -> AsyncGenerator[Agent]:
    """A client with a name of its own."""
    who = Implementation(name="some-ide", version="7.1")
    async with Client(create_server(settings), mode=ERAS[era], elicitation_callback=user, client_info=who) as client:
        yield Agent(client, (await client.list_tools()).tools)


def secret_of(settings: Settings) -> str:
    """The embedded server's password, which its DSN holds."""
    assert settings.dsn is not None
    secret = environment_of(settings.dsn.get_secret_value())["PGPASSWORD"]
    assert len(secret) > 5
    return secret


def nowhere(settings: Settings) -> str:
    """A DSN with that password, of a server that is not there."""
    return NOWHERE.replace("@", f":{secret_of(settings)}@")


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


# -- schedules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", get_args(System))
def test_schedule_prints_a_job_that_backs_up_and_prunes(full: Full, system: str) -> None:
    options = ("--system", system, "--weekly", "--at", "04:05", "--dsn", NOWHERE)
    told = full.command_line.answer(ScheduleReport, 0, "schedule", *options)
    assert (told.system, told.action) == (system, "printed")
    text = "\n".join(file.text for file in told.files)
    for word in ("--scheduled", told.name, "--prune", "--verify=auto", "--keep-last=2", str(full.shelf.directory)):
        assert word in text, word
    assert told.commands


def test_schedule_refuses_a_password_without_showing_it(full: Full) -> None:
    call, secret = full.command_line, secret_of(full.settings)
    for arguments in (("schedule",), ("schedule", "--json"), ("schedule", "--install", "--system", "cron")):
        done = call.run(*arguments)
        assert done.returncode == 2
        assert "password" in done.stderr
        assert secret not in done.stdout + done.stderr
    assert call.run("schedule", "--at", "25:00").returncode == 2
    [entry] = log_of(full.shelf.directory)  # printing changes nothing
    assert (entry.tool, entry.code) == ("schedule", "configuration_invalid")
    assert entry.arguments == {
        "job": job_name(full.settings, "daily"),
        "remove": False,
        "system": "cron",
        "every": "daily",
        "at": "03:30",
        "weekday": None,
        "kind": "sql",
        "compression": None,
        "verify": "auto",
        "prune": True,
    }


@dataclass(frozen=True)
class Scheduled:
    """A job of a scheduler's, whose alarms are kept in a file."""

    settings: Settings
    command_line: CommandLine
    heard: Path

    def run(self, code: int, *arguments: str) -> list[dict[str, Any]]:
        """The alarms of one run with that exit code."""
        done = self.command_line.run("backup", "--scheduled", JOB, "--quiet", *arguments)
        assert done.returncode == code, (done.stdout, done.stderr)
        found = [json.loads(line) for line in self.heard.read_text().splitlines()] if self.heard.exists() else []
        self.heard.unlink(missing_ok=True)
        return found

    def seen(self) -> tuple[Listing, list[str]]:
        """What `list` tells, and the codes of what `integrity` finds."""
        look = Quick(self.settings, self.command_line.directory)
        listing = Listing.model_validate_json(look.run("list", "--json").stdout)
        looked = Integrity.model_validate_json(look.run("integrity", "--json").stdout)
        return listing, [finding.code for finding in looked.findings]


@pytest.fixture
def scheduled(database: LocalDatabase, tmp_path: Path) -> Scheduled:
    return with_alarm(local_settings(database, tmp_path / "backups"), tmp_path)


def with_alarm(settings: Settings, tmp_path: Path) -> Scheduled:
    """What the command of SCARLET_BACKUP_ON_FAILURE finds on its stdin goes to a file."""
    script, heard = tmp_path / "alarm.py", tmp_path / "heard"
    script.write_text("import sys\nwith open(sys.argv[1], 'ab') as file:\n    file.write(sys.stdin.buffer.read())\n")
    command = shlex.join([sys.executable, str(script), str(heard)])
    settings = settings.model_copy(update={"on_failure": command, "keep_last": 1})
    return Scheduled(settings, CommandLine(settings, tmp_path), heard)


def test_very_first_scheduled_run_that_fails_is_seen_everywhere_until_one_succeeds(scheduled: Scheduled) -> None:
    scheduled.command_line.environment["DOCKER_HOST"] = "tcp://127.0.0.1:1"
    for code, arguments in (
        ("engine_unreachable", ("--via", "docker")),
        ("server_unreachable", ("--dsn", nowhere(scheduled.settings))),
    ):
        [told] = scheduled.run(2, *arguments)
        assert (told["schema"], told["tool"], told["outcome"], told["code"]) == (1, "backup", "error", code)
        assert told["directory"] == str(scheduled.settings.dir)
        assert told["message"]
        assert told["remedy"]
        assert secret_of(scheduled.settings) not in json.dumps(told)
        assert scheduled.settings.dir is not None
        assert told_in(log_of(scheduled.settings.dir))[-1:] == [("backup", code)]
    listing, findings = scheduled.seen()
    [failed] = listing.scheduled
    assert (failed.job, failed.code, failed.client.name) == (JOB, "server_unreachable", "schedule")
    assert any("scheduled run" in warning for warning in listing.warnings)
    assert "scheduled_backup_failed" in findings
    assert scheduled.run(0, "--prune") == []
    listing, findings = scheduled.seen()
    assert [(run.tool, run.outcome) for run in listing.scheduled] == [("backup", "ok")]
    assert not any("scheduled run" in warning for warning in listing.warnings)
    assert "scheduled_backup_failed" not in findings


def test_scheduled_run_with_a_bad_result_sounds_the_alarm(scheduled: Scheduled, database: LocalDatabase) -> None:
    assert scheduled.run(0) == []
    execute(database, "TRUNCATE letta.agents CASCADE")
    time.sleep(SETTLED)
    [told] = scheduled.run(1, "--prune")
    assert (told["outcome"], told["code"]) == ("bad", None)
    assert "shrunk" in told["message"]
    listing, findings = scheduled.seen()
    assert any("has shrunk" in warning for warning in listing.warnings)
    assert "scheduled_backup_failed" in findings
    assert [item.shrunk for item in listing.backups] == [True, False], "the last full one was not pruned"


def test_scheduled_run_whose_pruning_fails_is_a_failed_one(scheduled: Scheduled) -> None:
    assert scheduled.run(0) == []
    directory = scheduled.settings.dir
    assert directory is not None
    [first] = [path.name for path in directory.glob("*.sql")]
    (directory / f".{first}{REMOVED}").mkdir()
    [told] = scheduled.run(1, "--prune")
    assert told["outcome"] == "bad"
    assert first in told["message"]
    listing, findings = scheduled.seen()
    assert (listing.total_backups, [run.outcome for run in listing.scheduled]) == (2, ["bad"])
    assert "scheduled_backup_failed" in findings


def test_scheduled_run_waits_for_another_call(scheduled: Scheduled) -> None:
    assert scheduled.settings.dir is not None
    scheduled.settings.dir.mkdir()
    with ThreadPoolExecutor() as pool:
        with writer_lock(scheduled.settings.dir, "test"):
            run = pool.submit(scheduled.run, 0)
            until(lambda: told_begun(scheduled.settings), 20, "the beginning of the run")
            time.sleep(1)
            assert not run.done()
        assert run.result(60) == []


def test_scheduled_run_waits_before_its_drill_and_before_its_pruning(
    scheduled: Scheduled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind another job that is caught up at the same time, which drills, and then makes room."""
    monkeypatch.setattr(lifecycle, "SWEEP_SECONDS", 0)
    monkeypatch.setattr(lock, "PAUSE_SECONDS", 0.2)
    there = scheduled.settings.dir
    assert there is not None
    (there / lifecycle.DRILLS).mkdir(parents=True)
    drills = Event()

    def be_in_the_way() -> None:
        with ExitStack() as held:
            with writer_lock(there / lifecycle.DRILLS, "test"):
                drills.set()
                until(lambda: list(there.glob("*.sql")), 20, "a backup")
                lock.patiently(Progress(), lambda: held.enter_context(writer_lock(there, "test")), 20)
                time.sleep(1)
                assert [entry.tool for entry in read(there, 5).entries] == ["backup"]
            until(lambda: read(there, 1).entries[0].tool == "prune_backups", 60, "the beginning of pruning")
            time.sleep(0.5)

    with ThreadPoolExecutor() as pool:
        other = pool.submit(be_in_the_way)
        assert drills.wait(20)
        quick = Scheduled(scheduled.settings, command_line_of(scheduled.settings, tmp_path), scheduled.heard)
        assert quick.run(0, "--verify=drill", "--prune") == []
        other.result(60)
    assert told_in(log_of(there)) == [("prune_backups", "ok"), ("backup", "ok")]


def told_begun(settings: Settings) -> bool:
    assert settings.dir is not None
    return any(entry.outcome == "begun" for entry in read(settings.dir, 5).entries)


def test_killed_scheduled_run_is_told_until_the_next_good_one(scheduled: Scheduled, database: LocalDatabase) -> None:
    assert scheduled.run(0) == []
    command = [sys.executable, "-m", "scarlet_backup_mcp", "backup", "--scheduled", JOB]
    with locked(database):
        environment = scheduled.command_line.environment
        with subprocess.Popen(command, env=environment, cwd=scheduled.command_line.directory) as process:
            until(lambda: local_backends(database), 20, "a backend of the run's")
            process.kill()
        listing, findings = scheduled.seen()
    assert [(run.tool, run.outcome) for run in listing.scheduled] == [("backup", "begun"), ("backup", "ok")]
    assert any("still running, was killed" in warning for warning in listing.warnings)
    assert "scheduled_backup_unended" in findings
    assert scheduled.run(0) == []
    listing, findings = scheduled.seen()
    assert [run.outcome for run in listing.scheduled] == ["ok"]
    assert not [code for code in findings if code.startswith("scheduled_backup")]


@pytest.mark.parametrize(
    "wrong",
    [("--keep-last", "0"), ("--database", "another_than_the_dsn_names"), ("--dir", "relative")],
    ids=lambda words: words[0],
)
def test_scheduled_run_with_wrong_settings_sounds_the_alarm(full: Full, tmp_path: Path, wrong: tuple[str, str]) -> None:
    scheduled = with_alarm(full.settings, tmp_path)
    [told] = scheduled.run(2, *wrong)
    assert (told["outcome"], told["code"]) == ("error", "configuration_invalid")
    assert secret_of(scheduled.settings) not in json.dumps(told)


@pytest.mark.parametrize(
    "wrong", [("--kindd=sql",), ("--verify=deep",), ("one", "more"), ("--keep-last",)], ids=lambda words: words[0]
)
def test_scheduled_run_with_a_wrong_command_line_sounds_the_alarm(
    full: Full, tmp_path: Path, wrong: tuple[str, ...]
) -> None:
    record = with_alarm(full.settings, tmp_path)
    command = f"--on-failure={record.settings.on_failure}"
    assert command_line_of(full.settings, tmp_path).run("backup", *wrong, command).returncode == 2
    scheduled = Scheduled(full.settings, command_line_of(full.settings, tmp_path), record.heard)
    [told] = scheduled.run(2, command, *wrong) if wrong == ("--keep-last",) else scheduled.run(2, *wrong, command)
    assert (told["outcome"], told["code"]) == ("error", "configuration_invalid")
    assert JOB in told["message"]
    assert wrong[0].partition("=")[0] in told["message"]


def test_failed_job_is_told_until_it_is_taken_out_by_its_name(
    full: Full, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    scheduled = Scheduled(full.settings, command_line_of(full.settings, tmp_path), tmp_path / "heard")
    scheduled.run(2, "--dsn", nowhere(full.settings))
    [finding] = [warning for warning in scheduled.seen()[0].warnings if "failed: " in warning]
    out = ("schedule", "--remove", "--job", JOB)
    assert " ".join(out) in finding
    command_line = scheduled.command_line
    assert command_line.answer(ScheduleReport, 0, *out, "--system", "systemd").action == "nothing to remove"
    listing, findings = scheduled.seen()
    assert listing.scheduled == []
    assert not [code for code in findings if code.startswith("scheduled_backup")]
    assert command_line.run("schedule", "--remove", "--job", "cron").returncode == 2
    assert command_line.run("schedule", "--install", "--job", JOB).returncode == 2
    assert command_line.run("schedule", "--install", "--remove").returncode == 2
    assert command_line.run("schedule", "--daily", "--weekday", "monday").returncode == 2


async def test_failed_scheduled_run_is_told_to_an_agent(scheduled: Scheduled) -> None:
    scheduled.run(2, "--dsn", NOWHERE)
    async with agent(scheduled.settings, "2026-07-28") as it:
        listing = await it.call("list_backups", log=1)
        assert listing["scheduled"][0]["code"] == listing["log"][0]["code"] == "server_unreachable"
        looked = await it.client.call_tool("db_integrity", {})
        assert "scheduled run" in text_of(looked)
