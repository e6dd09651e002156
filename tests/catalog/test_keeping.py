"""Retention, the gate, the audit log and scheduled runs as users meet them: an agent over MCP, a person or a scheduler
on the command line."""

from __future__ import annotations

import json
import re
from typing import Any

import psycopg
import pytest
from mcp.types import CallToolResult, InputRequiredResult

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.models.results import Backup, ErrorReport, Kept, Listing, Prune
from scarlet_backup_mcp.store.names import KEEP, REMOVED

from ..helpers.command_line import posix_only, terminal
from ..helpers.faces import (
    User,
    agent,
    content_of,
    sealed_yes,
    text_of,
)
from ..helpers.keeping import Full, each_era, log_of, put, told_in
from ..helpers.store import Made

# -- removing backups over MCP ---------------------------------------------------------------------------------------


@pytest.mark.sample(1)
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


@pytest.mark.sample(4)
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
        assert needed["next_call"] == {"tool": "prune_backups", "arguments": {"dry_run": True}}
        words = (await it.call("prune_backups"))["confirmation"]
        for wrong in ("prune", "yes", words.upper(), words + " "):
            assert (await it.fail("prune_backups", dry_run=False, confirmation=wrong))["code"] == "confirmation_stale"
        assert full.there() == full.names
        another = put(full.shelf, made, 9)
        assert (await it.fail("prune_backups", dry_run=False, confirmation=words))["code"] == "confirmation_stale"
        assert full.there() == [*full.names, another]
        words = (await it.call("prune_backups"))["confirmation"]
        assert (await it.call("prune_backups", dry_run=False, confirmation=words))["removed"] == 4
        assert full.there() == full.names[:2]
        assert (await it.fail("prune_backups", dry_run=False, confirmation=words))["code"] == "confirmation_stale"


@pytest.mark.sample(1)
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


@pytest.mark.sample(1)
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


@pytest.mark.sample(1)
@each_era
async def test_backup_that_is_marked_over_mcp_stays(made: Made, full: Full, era: str) -> None:
    async with agent(full.settings, era, User()) as it:
        kept = (await it.call("backup", keep=True))["name"]
        plain = [put(full.shelf, made, -seconds / 86400) for seconds in (2, 3, 4)]
        listed = {item["name"]: item.get("keep", False) for item in (await it.call("list_backups"))["backups"]}
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
def test_prune_on_a_terminal_shows_what_goes_and_asks_yes_or_no(full: Full) -> None:
    for typed, code in (("\r", 2), ("no\r", 2), ("\x03", 130), ("y\r", 0)):
        with terminal(full.command_line, "prune") as screen:
            screen.read_until("[y/N]: ")
            asked = screen.text
            going = [re.search(rf"{name} .* would be removed ", asked) is not None for name in full.names]
            assert going == [False, False, True, True, True]
            assert "dry_run" not in asked
            assert "confirmation" not in asked
            assert full.there() == full.names
            screen.type(typed)
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
