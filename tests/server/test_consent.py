"""Restores over MCP ask the user first, in both protocol eras."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest
from mcp.types import CallToolResult, ElicitResult, InputRequiredResult
from psycopg import sql

from scarlet_backup_mcp.models.manifest import Manifest
from scarlet_backup_mcp.settings import Settings
from scarlet_backup_mcp.store import manifests

from ..conftest import MEMORY, LocalDatabase, load
from ..helpers.faces import (
    AGENTS,
    User,
    agent,
    content_of,
    directory_of,
    each_era,
    error_of,
    execute,
    files,
    live_oid,
    sealed_yes,
    undo_points,
)
from ..helpers.store import Shelf

ROWS = 554
"""In memory.sql."""


@each_era
async def test_question_tells_what_would_be_done(local_database: LocalDatabase, local: Settings, era: str) -> None:
    user = User()
    async with agent(local, era, user) as it:
        made = await it.call("backup")
        execute(local_database, "DELETE FROM letta.block_history; TRUNCATE letta.agents CASCADE")
        restored = await it.call("restore", backup="latest")
    [question] = user.questions
    time_of_it = made["created_at"][:19].replace("T", " ")
    for fact in (
        made["name"],
        time_of_it,
        f"What comes: {ROWS} rows",
        f"{AGENTS} of them in agents",
        local_database.name,
        "0 of them",
    ):
        assert fact in question, fact
    assert restored["source"] == made["name"]
    assert restored["integrity_rows"] == AGENTS


@each_era
async def test_a_host_that_declines_by_itself_is_told_how_to_go_on(local: Settings, era: str) -> None:
    """Some hosts say that they can ask, and decline without showing anything."""
    async with agent(local, era, User("decline")) as it:
        name = (await it.call("backup"))["name"]
        declined = await it.fail("restore", backup="latest", accept_smaller=True, stop_dependents=False)
        assert "declined by itself" in declined["message"]
        assert "Restore the backup" in declined["remedy"]
        repeated = {"accept_smaller": True, "stop_dependents": False}
        confirmed = {"backup": name, "confirmation": f"restore {name}"}
        assert declined["next_call"] == {"tool": "restore", "arguments": repeated | confirmed}
        assert (await it.call("restore", **declined["next_call"]["arguments"]))["restored"]


async def test_a_users_no_stays_a_no(local_database: LocalDatabase, local: Settings) -> None:
    user = User("decline", meanwhile=lambda: time.sleep(1.1))
    async with agent(local, "2025-11-25", user) as it:
        name = (await it.call("backup"))["name"]
        before = live_oid(local_database)
        refused = await it.fail("restore", backup=name)
        assert (refused["code"], refused["next_call"]) == ("confirmation_needed", None)
        assert "confirmation" not in refused["remedy"]
        for written in (name, name.removesuffix(".sql"), name.upper()):
            typed = await it.fail("restore", backup=written, confirmation=f"restore {written}")
            assert "The user said no to this less than ten minutes ago" in typed["message"], written
        assert live_oid(local_database) == before
        user.action, user.meanwhile = "accept", lambda: None
        assert (await it.call("restore", backup=name))["restored"]


@each_era
@pytest.mark.parametrize("content", [{}, None, {"confirm": "perhaps"}])
async def test_an_answer_that_is_none_is_asked_for_again(local: Settings, era: str, content: Any) -> None:
    async with agent(local, era, User("accept", content)) as it:
        await it.call("backup")
        refused = await it.fail("restore", backup="latest")
        assert (refused["code"], refused["next_call"]["arguments"]) == ("confirmation_needed", {"backup": "latest"})
        closed = User("cancel")
    async with agent(local, era, closed) as it:
        refused = await it.fail("restore", backup="latest")
        assert "closed without an answer" in refused["message"]
        assert refused["next_call"]["arguments"] == {"backup": "latest"}


async def test_with_that_setting_the_user_is_asked_in_the_conversation(local: Settings) -> None:
    user = User()
    async with agent(local.model_copy(update={"ask": "conversation"}), "2025-11-25", user) as it:
        name = (await it.call("backup"))["name"]
        needed = await it.fail("restore", backup="latest")
        assert needed["next_call"]["arguments"]["confirmation"] == f"restore {name}"
    assert user.questions == []


async def test_question_compares_what_comes_with_what_it_replaces(
    local_database: LocalDatabase, local: Settings
) -> None:
    user = User("decline")
    async with agent(local, "2025-11-25", user) as it:
        made = await it.call("backup")
        execute(local_database, "CREATE TABLE letta.more AS SELECT generate_series(1, 100) AS id")
        await it.fail("restore", backup="latest")
        rehearsed = await it.call("restore", backup="latest", dry_run=True)
        execute(local_database, "DROP TABLE letta.more; DELETE FROM letta.messages")
        await it.fail("restore", backup="latest")
    more, less = user.questions
    moment = f"{made['created_at'][:10]} {made['created_at'][11:19]} UTC"
    assert re.search(
        rf"PostgreSQL 18\.\d+\? What comes: {ROWS} rows in {made['total_tables']} tables, {AGENTS} of them "
        rf"in agents, \d+\.\d MB; it holds what was written until {moment}\. ",
        more,
    )
    assert re.search(
        rf"What it replaces: {ROWS + 100} rows in {made['total_tables'] + 1} tables, {AGENTS} of them in "
        r"agents, \d+\.\d MB; writes after that backup: ",
        more,
    )
    caution = "CAUTION: the live database has 100 more rows, 1 more table than what comes!"
    assert caution in more
    assert caution in rehearsed["comparison"]
    assert "What it replaces: " in less
    assert "CAUTION" not in less


async def test_question_about_a_missing_database_promises_nothing(
    local_database: LocalDatabase, local: Settings
) -> None:
    user = User()
    async with agent(local, "2025-11-25", user) as it:
        await it.call("backup")
        with psycopg.connect(local_database.server.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(local_database.name)))
        restored = await it.call("restore", backup="latest")
    [question] = user.questions
    assert "does not exist now" in question
    assert "undo point" not in question
    assert (restored["undo_point"], restored["integrity_rows"]) == (None, AGENTS)


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("action", "content"),
    [("decline", None), ("cancel", None), ("accept", {"confirm": False}), ("accept", {}), ("accept", None)],
)
@each_era
async def test_restore_is_not_done_unless_agreed(
    local_database: LocalDatabase, local: Settings, era: str, action: Any, content: Any
) -> None:
    user = User(action, content)
    async with agent(local, era, user) as it:
        await it.call("backup")
        before = live_oid(local_database)
        result = await it.client.call_tool("restore", {"backup": "latest"})
        assert result.is_error
        assert error_of(result)["code"] == "confirmation_needed"
    assert len(user.questions) == 1
    assert live_oid(local_database) == before


@each_era
async def test_client_that_can_not_ask_gives_the_phrase(
    local_database: LocalDatabase, local: Settings, era: str
) -> None:
    async with agent(local, era) as it:
        name = (await it.call("backup"))["name"]
        before = live_oid(local_database)
        needed = await it.fail("restore", backup="latest")
        assert needed["code"] == "confirmation_needed"
        phrase = f"restore {name}"
        assert needed["next_call"] == {"tool": "restore", "arguments": {"backup": name, "confirmation": phrase}}
        assert phrase in needed["remedy"]
        assert f"{ROWS} rows" in needed["remedy"], "what a user who is asked is told"
        for unknown, code in [
            ("nope.sql", "backup_missing"),
            ("../../etc/passwd", "name_refused"),
            (f"{local_database.name}_before_restore_20200101_000000", "backup_missing"),
        ]:
            assert (await it.fail("restore", backup=unknown))["code"] == code
        for backup, wrong in [
            ("latest", "restore latest"),
            ("latest", phrase),
            (name, "restore latest"),
            (name, "yes"),
            (name, ""),
            (name, phrase.upper()),
            (name, phrase + " "),
            (name, name),
        ]:
            refused = await it.fail("restore", backup=backup, confirmation=wrong)
            assert refused["code"] == "confirmation_needed", (backup, wrong)
            assert refused["next_call"]["arguments"] == {"backup": name, "confirmation": phrase}, (backup, wrong)
        assert live_oid(local_database) == before
        assert (await it.call("restore", backup=name, confirmation=phrase))["restored"]
        assert live_oid(local_database) != before


async def test_phrase_names_the_file_that_latest_means_to_the_restore(local: Settings) -> None:
    """The newest one is of another cluster."""
    async with agent(local, "2026-07-28") as it:
        name, newer = [(await it.call("backup"))["name"] for _ in range(2)]
        Shelf(local).edit_manifest(newer, identity={"system_identifier": "1"})
        assert (await it.call("restore", backup="latest", dry_run=True))["source"] == name
        for given in ({}, {"confirmation": "restore latest"}):
            needed = await it.fail("restore", backup="latest", **given)
            assert needed["next_call"]["arguments"] == {"backup": name, "confirmation": f"restore {name}"}


async def test_phrase_for_another_file_is_refused(local_database: LocalDatabase, local: Settings) -> None:
    async with agent(local, "2026-07-28") as it:
        first, second = [(await it.call("backup"))["name"] for _ in range(2)]
        before = live_oid(local_database)
        refused = await it.fail("restore", backup=first, confirmation=f"restore {second}")
        assert refused["code"] == "confirmation_needed"
    assert live_oid(local_database) == before


@pytest.mark.sample(1)
@each_era
async def test_each_restore_asks_anew(local_database: LocalDatabase, local: Settings, era: str) -> None:
    user = User()
    async with agent(local, era, user) as it:
        await it.call("backup")
        await it.call("restore", backup="latest")
        user.action = "decline"
        assert (await it.fail("restore", backup="latest"))["code"] == "confirmation_needed"
    assert len(user.questions) == 2
    assert len(undo_points(local_database)) == 1


async def test_sealed_answer_is_good_once(local_database: LocalDatabase, local: Settings) -> None:
    """In 2026-07-28 the answer travels with the client's second request, which can be sent again."""
    arguments = {"backup": "latest"}
    async with agent(local, "2026-07-28", User()) as it:
        await it.call("backup")
        answer = await sealed_yes(it, "restore", arguments)
        done = await answer()
        assert isinstance(done, CallToolResult)
        assert content_of(done)["restored"]
        restored = live_oid(local_database)
        again = await answer()
        assert isinstance(again, InputRequiredResult) or again.is_error
    assert live_oid(local_database) == restored
    assert len(undo_points(local_database)) == 1


@pytest.mark.sample(1)
@each_era
async def test_two_questions_that_are_open_at_once_allow_one_restore(
    local_database: LocalDatabase, local: Settings, era: str
) -> None:
    """Both are answered with yes, but after the first restore the second would replace what nobody was asked about."""
    asked, first_is_done = anyio.Event(), anyio.Event()
    restored = 0
    order: list[str] = []

    async def answer(context: Any, params: Any) -> ElicitResult:
        order.append(params.message)
        if len(order) == 1:
            asked.set()
            await first_is_done.wait()
        return ElicitResult(action="accept", content={"confirm": True})

    late: list[CallToolResult] = []

    async with agent(local, era, answer) as it:  # pyright: ignore[reportArgumentType]
        await it.call("backup")

        async def restore_late() -> None:
            late.append(await it.client.call_tool("restore", {"backup": "latest"}))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(restore_late)
            with anyio.fail_after(10):
                await asked.wait()
                assert (await it.call("restore", backup="latest"))["restored"]
            restored = live_oid(local_database)
            first_is_done.set()
        stale_or_asked_again = len(order) > 2 or late[0].is_error
        assert stale_or_asked_again, "the late answer restored without a new question"
    if len(order) == 2:
        assert live_oid(local_database) == restored


@each_era
async def test_question_is_of_now_though_an_earlier_one_stayed_open(
    local_database: LocalDatabase, local: Settings, era: str
) -> None:
    asked: list[str] = []
    open_question = anyio.Event()

    async def answer(context: Any, params: Any) -> ElicitResult:
        asked.append(params.message)
        if len(asked) == 1:
            open_question.set()
            await anyio.sleep_forever()
        return await User("decline")(context, params)

    async with agent(local, era, answer) as it:  # pyright: ignore[reportArgumentType]
        await it.call("backup")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(it.client.call_tool, "restore", {"backup": "latest"})
            with anyio.fail_after(20):
                await open_question.wait()
            tasks.cancel_scope.cancel()
        execute(local_database, "TRUNCATE letta.agents CASCADE")
        await it.fail("restore", backup="latest")
    before, now = asked
    assert re.search(f"it replaces: .* {AGENTS} of them in agents", before)
    assert re.search("it replaces: .* 0 of them in agents", now)


@pytest.mark.sample(1)
@each_era
async def test_dry_run_asks_nobody_and_changes_nothing(
    local_database: LocalDatabase, local: Settings, era: str
) -> None:
    user = User()
    async with agent(local, era, user) as it:
        await it.call("backup")
        before = (live_oid(local_database), files(directory_of(local)))
        told = await it.call("restore", backup="latest", dry_run=True)
        assert (live_oid(local_database), files(directory_of(local))) == before
    assert (told["restored"], told["dry_run"], told["rows_compared"]) == (False, True, ROWS)
    assert user.questions == []
    assert undo_points(local_database) == []


@pytest.mark.sample(1)
@each_era
async def test_what_can_not_be_restored_is_not_asked_about(local: Settings, era: str) -> None:
    user = User()
    async with agent(local, era, user) as it:
        made = await it.call("backup")
        directory = directory_of(local)
        shutil.copy(made["path"], directory / "foreign.sql")
        damaged = directory / "damaged.sql"
        damaged.write_bytes(Path(made["path"]).read_bytes()[:-100])
        rewrite_manifest(directory, made["name"], "damaged.sql")
        codes = {
            "letta_backup_20200101_000000.sql": "backup_missing",
            "foreign.sql": "foreign_refused",
            "damaged.sql": "backup_not_valid",
        }
        assert {name: (await it.fail("restore", backup=name))["code"] for name in codes} == codes
    assert user.questions == []


def rewrite_manifest(directory: Path, source: str, name: str) -> None:
    """Give `name` the manifest of another backup."""
    manifest = manifests.unseal((directory / f"{source}.manifest.json").read_bytes(), Manifest)
    renamed = manifest.model_copy(update={"name": name})
    (directory / f"{name}.manifest.json").write_bytes(manifests.seal(renamed))


@each_era
async def test_answer_is_stale_when_the_file_was_replaced(
    local_database: LocalDatabase, local: Settings, era: str
) -> None:
    directory = directory_of(local)
    user = User()
    async with agent(local, era, user) as it:
        asked_about = await it.call("backup")
        execute(local_database, "DELETE FROM letta.block_history")
        other = await it.call("backup")

        def replace() -> None:
            shutil.copy(other["path"], asked_about["path"])
            rewrite_manifest(directory, other["name"], asked_about["name"])

        user.meanwhile = replace
        before = live_oid(local_database)
        assert (await it.fail("restore", backup=asked_about["name"]))["code"] == "confirmation_stale"
    assert live_oid(local_database) == before


@pytest.mark.sample(1)
@each_era
async def test_answer_is_stale_when_the_database_was_recreated(
    local_database: LocalDatabase, local: Settings, era: str
) -> None:
    def recreate() -> None:
        name = sql.Identifier(local_database.name)
        with psycopg.connect(local_database.server.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
            connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        load(local_database, MEMORY)

    user = User()
    async with agent(local, era, user) as it:
        await it.call("backup")
        user.meanwhile = recreate
        assert (await it.fail("restore", backup="latest"))["code"] == "confirmation_stale"
        assert undo_points(local_database) == []
        user.meanwhile = lambda: None
        assert (await it.call("restore", backup="latest"))["restored"]
    assert len(user.questions) == 2


async def test_latest_is_what_was_asked_about(local_database: LocalDatabase, local: Settings) -> None:
    """A backup that is taken while the question is open does not become what is restored."""
    user = User()
    async with agent(local, "2026-07-28", user) as it, agent(local, "2026-07-28") as someone:
        asked_about = await it.call("backup")
        names: list[str] = []

        async def answer(context: Any, params: Any) -> ElicitResult:
            names.append((await someone.call("backup"))["name"])
            return await user(context, params)

        async with agent(local, "2026-07-28", answer) as asking:  # pyright: ignore[reportArgumentType]
            restored = await asking.call("restore", backup="latest")
    assert restored["source"] == asked_about["name"] != names[0]
