"""The MCP server in memory, in both protocol eras, on the embedded PostgreSQL."""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest
from mcp.shared.exceptions import MCPError
from mcp.types import CallToolResult, ElicitResult, InputRequiredResult, TextContent
from psycopg import sql

from scarlet_backup_mcp.errors import InternalError
from scarlet_backup_mcp.models.common import Model
from scarlet_backup_mcp.models.manifest import Manifest
from scarlet_backup_mcp.models.results import Backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.server import tools
from scarlet_backup_mcp.settings import Settings, load_settings
from scarlet_backup_mcp.store import manifests

from ..conftest import MEMORY, LocalDatabase, load
from ..helpers.faces import (
    ERAS,
    Agent,
    User,
    agent,
    command_lines_here,
    content_of,
    error_of,
    execute,
    jsonschema,
    live_oid,
    local_backends,
    local_settings,
    locked,
    sealed_yes,
    text_of,
    undo_points,
    unfinished,
)
from ..helpers.store import Shelf

AGENTS = 2
ROWS = 554
"""In memory.sql."""
TOOLS = ["backup", "db_integrity", "list_backups", "prune_backups", "restore", "verify_backup"]

each_era = pytest.mark.parametrize("era", ERAS)


@pytest.fixture
def idle(tmp_path: Path) -> Settings:
    """For tests that come to no database."""
    return load_settings(dir=tmp_path / "backups", via="local", dsn="postgresql://postgres@127.0.0.1:1/letta")


@pytest.fixture
def local(local_database: LocalDatabase, tmp_path: Path) -> Settings:
    return local_settings(local_database, tmp_path / "backups")


def directory_of(settings: Settings) -> Path:
    assert settings.dir is not None
    return settings.dir


# -- what is offered -------------------------------------------------------------------------------------------------


@each_era
async def test_tools_say_what_they_do_and_change(idle: Settings, era: str) -> None:
    async with agent(idle, era) as it:
        assert sorted(it.tools) == TOOLS
        for tool in it.tools.values():
            assert tool.title, tool.name
            assert len(tool.description or "") > 100, tool.name
        hints = {name: tool.annotations for name, tool in it.tools.items()}
        told = {name: (hint.read_only_hint, hint.destructive_hint) for name, hint in hints.items() if hint}
    assert told == {
        "backup": (False, False),
        "verify_backup": (False, False),
        "list_backups": (True, False),
        "restore": (False, True),
        "db_integrity": (True, False),
        "prune_backups": (False, True),
    }
    assert {name for name, hint in hints.items() if hint and hint.idempotent_hint} == {"list_backups", "db_integrity"}


@each_era
async def test_every_parameter_is_described_and_nothing_else_is_taken(idle: Settings, era: str) -> None:
    async with agent(idle, era) as it:
        for tool in it.tools.values():
            jsonschema.Draft202012Validator.check_schema(tool.input_schema)
            assert tool.input_schema["additionalProperties"] is False, tool.name
            for name, parameter in tool.input_schema["properties"].items():
                assert parameter.get("description"), f"{tool.name}: {name}"
                assert is_bounded(parameter), f"{tool.name}: {name}"
        for tool in ("restore", "prune_backups"):
            assert "answer" not in it.tools[tool].input_schema["properties"]
        assert all("required" not in tool.input_schema for tool in it.tools.values()), "a job alone is enough"


def is_bounded(schema: dict[str, Any]) -> bool:
    """Whether only so much can be said: a choice, a flag, a limited number or a limited text."""
    if "anyOf" in schema:
        return all(is_bounded(each) for each in schema["anyOf"])
    kind = schema.get("type")
    return (
        "enum" in schema
        or "const" in schema
        or kind in ("boolean", "null")
        or (kind == "string" and "maxLength" in schema)
        or (kind in ("integer", "number") and "minimum" in schema and "maximum" in schema)
    )


@each_era
async def test_output_schemas_are_objects(idle: Settings, era: str) -> None:
    async with agent(idle, era) as it:
        for tool in it.tools.values():
            assert tool.output_schema is not None, tool.name
            jsonschema.Draft202012Validator.check_schema(tool.output_schema)
            assert tool.output_schema["type"] == "object", tool.name


@pytest.mark.parametrize("tool", TOOLS)
async def test_errors_hold_to_the_output_schema(idle: Settings, tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients made with the TypeScript SDK check structured content of errors, too, and show nothing of one that the
    schema does not allow. No real fault makes every tool fail."""
    make_all_fail(monkeypatch, InternalError("It failed."))
    async with agent(idle, "2026-07-28", User()) as it:
        result = await it.client.call_tool(tool, {"backup": "latest"} if tool == "restore" else {})
        error_of(result)
        it.check(tool, result)


OUT_OF_BOUNDS: list[tuple[str, dict[str, Any]]] = [
    ("backup", {"label": "x" * 81}),
    ("backup", {"compression": "gzip"}),
    ("backup", {"wait_seconds": -1}),
    ("backup", {"wait_seconds": 3601}),
    ("backup", {"job": "x" * 81}),
    ("verify_backup", {"backup": "x" * 201}),
    ("verify_backup", {"level": "deep"}),
    ("list_backups", {"limit": 0}),
    ("list_backups", {"limit": 1001}),
    ("list_backups", {"limit": "many"}),
    ("restore", {}),
    ("restore", {"backup": ""}),
    ("restore", {"backup": "latest", "confirmation": "x" * 221}),
    ("db_integrity", {"level": "deep"}),
    ("prune_backups", {"dry_run": False, "confirmation": "x" * 81}),
    ("prune_backups", {"dry_run": False, "include_undos": True}),
    ("list_backups", {"log": 1001}),
    ("backup", {"labl": "x"}),
    ("verify_backup", {"levle": "quick"}),
    ("list_backups", {"n": 1}),
    ("db_integrity", {"verbose": True}),
]


@each_era
async def test_arguments_out_of_bounds_are_refused_before_anything_begins(idle: Settings, era: str) -> None:
    user = User()
    async with agent(idle, era, user) as it:
        for tool, arguments in OUT_OF_BOUNDS:
            result = await it.client.call_tool(tool, arguments)
            assert result.is_error, (tool, arguments)
            assert [*arguments, "backup"][len(arguments) - 1] in text_of(result), (tool, arguments)
    assert user.questions == []
    assert not directory_of(idle).exists()


@each_era
async def test_misspelt_dry_run_is_no_restore(local_database: LocalDatabase, local: Settings, era: str) -> None:
    user = User()
    async with agent(local, era, user) as it:
        await it.call("backup")
        before = live_oid(local_database)
        result = await it.client.call_tool("restore", {"backup": "latest", "dryrun": True})
        assert result.is_error
        assert "dryrun" in text_of(result)
    assert user.questions == []
    assert live_oid(local_database) == before


@each_era
async def test_every_result_is_valid_data_and_has_words(local: Settings, era: str) -> None:
    calls: list[tuple[str, dict[str, Any]]] = [
        ("backup", {"label": "è un'etichetta 🧠"}),
        ("backup", {"compression": "zstd"}),
        ("verify_backup", {}),
        ("verify_backup", {"level": "quick"}),
        ("list_backups", {"limit": 1}),
        ("restore", {"backup": "latest", "dry_run": True}),
        ("restore", {"backup": "latest"}),
        ("db_integrity", {}),
    ]
    async with agent(local, era, User()) as it:
        for tool, arguments in calls:
            result = await it.client.call_tool(tool, arguments)
            assert not result.is_error, text_of(result)
            it.check(tool, result)
            assert text_of(result).strip(), tool
            assert content_of(result)["steps"], tool


@each_era
async def test_manifest_is_a_resource(local: Settings, era: str) -> None:
    async with agent(local, era) as it:
        made = await it.call("backup", label="for a manifest")
        templates = (await it.client.list_resource_templates()).resource_templates
        assert [template.uri_template for template in templates] == ["scarlet://backups/{name}/manifest"]
        found = (await it.client.read_resource(f"scarlet://backups/{made['name']}/manifest")).contents[0]
        assert found.mime_type == "application/json"
        manifest = Manifest.model_validate_json(getattr(found, "text", ""))
        assert (manifest.name, manifest.sha256, manifest.label) == (made["name"], made["sha256"], "for a manifest")


@each_era
async def test_prompt_prepares_proc_003(idle: Settings, era: str) -> None:
    async with agent(idle, era) as it:
        prompts = (await it.client.list_prompts()).prompts
        assert [(prompt.name, prompt.title) for prompt in prompts] == [("prepare_for_proc_003", "Prepare for PROC-003")]
        prompt = await it.client.get_prompt("prepare_for_proc_003")
        words = "".join(m.content.text for m in prompt.messages if isinstance(m.content, TextContent))
    assert all(word in words for word in ("db_integrity", "backup", "safe_to_proceed"))


# -- names -----------------------------------------------------------------------------------------------------------

STRANGE_NAMES = [
    "../x.sql",
    "../../etc/passwd",
    "/etc/passwd",
    "/etc/passwd.sql",
    "C:\\x.sql",
    "..\\x.sql",
    "x\0.sql",
    "x\n.sql",
    "CON.sql",
    "nul.sql",
    "x.sql ",
    ".hidden.sql",
    "-rf.sql",
    "backups/x.sql",
    "x.sql:stream",
    "letta'; DROP DATABASE letta; --",
    "*.sql",
    "latest ",
    "there_is_none.sql",
    "a_link.sql",
    "a_dangling_link.sql",
    "a_directory.sql",
    "a_fifo.sql",
    "letta_before_restore_20200101_000000",
]


@pytest.fixture
def strange_files(local: Settings, tmp_path: Path) -> None:
    """Things in the backup directory that have a backup's name and are none."""
    directory = directory_of(local)
    directory.mkdir(mode=0o700)
    outside = tmp_path / "outside.sql"
    outside.write_text("-- PostgreSQL database dump\nSELECT 'outside';\n")
    (directory / "a_link.sql").symlink_to(outside)
    (directory / "a_dangling_link.sql").symlink_to(tmp_path / "nothing.sql")
    (directory / "a_directory.sql").mkdir()
    os.mkfifo(directory / "a_fifo.sql")


@pytest.mark.usefixtures("strange_files")
@each_era
async def test_strange_names_are_refused(local_database: LocalDatabase, local: Settings, era: str) -> None:
    user = User()
    before = live_oid(local_database)
    async with agent(local, era, user) as it:
        for name in STRANGE_NAMES:
            with anyio.fail_after(10):
                for tool in ("verify_backup", "restore"):
                    extra = {"accept_foreign": True} if tool == "restore" else {}
                    error = await it.fail(tool, backup=name, **extra)
                    assert error["code"] in ("name_refused", "backup_missing"), (tool, name, error)
        assert (await it.call("list_backups"))["backups"] == []
    assert user.questions == []
    assert live_oid(local_database) == before


@pytest.mark.usefixtures("strange_files")
@each_era
async def test_manifest_of_a_strange_name_is_not_found(local: Settings, tmp_path: Path, era: str) -> None:
    (tmp_path / "x.sql.manifest.json").write_text('{"secret": "outside"}')
    async with agent(local, era) as it:
        for name in [
            "..%2Fx.sql",
            "%2Fetc%2Fpasswd",
            "x%00.sql",
            "a_link.sql",
            "a_fifo.sql",
            "there_is_none.sql",
            "..",
        ]:
            with anyio.fail_after(10), pytest.raises(MCPError) as refused:
                await it.client.read_resource(f"scarlet://backups/{name}/manifest")
            assert "outside" not in str(refused.value)


# -- asking the user -------------------------------------------------------------------------------------------------


@each_era
async def test_question_tells_what_would_be_done(local_database: LocalDatabase, local: Settings, era: str) -> None:
    user = User()
    async with agent(local, era, user) as it:
        made = await it.call("backup")
        execute(local_database, "DELETE FROM letta.block_history; TRUNCATE letta.agents CASCADE")
        restored = await it.call("restore", backup="latest")
    [question] = user.questions
    time_of_it = made["created_at"][:19].replace("T", " ")
    for fact in (made["name"], time_of_it, f"{ROWS} rows", f"{AGENTS} in agents", local_database.name, "holds 0"):
        assert fact in question, fact
    assert restored["source"] == made["name"]
    assert restored["integrity_rows"] == AGENTS


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
        if content or action != "accept":  # an answer without content is the protocol's business
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
    assert f"holds {AGENTS} in agents" in before
    assert "holds 0 in agents" in now


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


def files(directory: Path) -> dict[str, bytes]:
    return {item.name: item.read_bytes() for item in directory.iterdir()}


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


# -- long calls ------------------------------------------------------------------------------------------------------


@each_era
async def test_long_call_goes_on_as_a_job(local_database: LocalDatabase, local: Settings, era: str) -> None:
    async with agent(local, era) as it:
        with locked(local_database):
            running = await it.call("backup", wait_seconds=0.3, label="long")
            assert running["status"] == "running"
            job = running["job"]
            assert running["next_call"]["arguments"] == {"job": job}
            listing = await it.call("list_backups")
            assert [(each["job"], each["tool"]) for each in listing["jobs"]] == [(job, "backup")]
            assert [each["name"] for each in listing["backups"] if each["state"] != "partial"] == []
            again = await it.call("backup", wait_seconds=0.1, job=job)
            assert (again["status"], again["job"]) == ("running", job)
            assert again["elapsed_seconds"] > running["elapsed_seconds"]
        made = await it.call("backup", job=job)
        assert (made["status"], made["label"]) == ("done", "long")
        assert await it.call("backup", job=job) == made, "the result of an ended job"
        listing = await it.call("list_backups")
        assert listing["jobs"] == []
        assert [each["name"] for each in listing["backups"]] == [made["name"]]


async def test_job_that_fails_tells_it_each_time(local_database: LocalDatabase, local: Settings) -> None:
    async with agent(local, "2025-11-25") as it:
        with locked(local_database):
            job = (await it.call("backup", wait_seconds=0.1))["job"]
            shutil.rmtree(directory_of(local))
        errors = [await it.fail("backup", job=job) for _ in range(2)]
    assert errors[0] == errors[1]


async def test_job_is_known_to_its_tool_only(local_database: LocalDatabase, local: Settings) -> None:
    async with agent(local, "2026-07-28") as it, agent(local, "2026-07-28") as other:
        with locked(local_database):
            job = (await it.call("backup", wait_seconds=0.1))["job"]
            assert (await it.fail("verify_backup", job=job))["code"] == "job_unknown"
            assert (await it.fail("restore", backup="latest", job=job))["code"] == "job_unknown"
            assert (await it.fail("backup", job="backup-00000000"))["code"] == "job_unknown"
            assert (await other.fail("backup", job=job))["code"] == "job_unknown"
        assert (await it.call("backup", job=job))["status"] == "done"


@each_era
async def test_restore_can_be_a_job(local_database: LocalDatabase, local: Settings, era: str) -> None:
    user = User()
    async with agent(local, era, user) as it:
        await it.call("backup")
        running = await it.call("restore", backup="latest", wait_seconds=0.05)
        assert running["status"] == "running"
        done = await it.call("restore", backup="latest", job=running["job"])
        assert done["restored"]
        assert await it.call("restore", backup="latest", job=running["job"]) == done
    assert len(user.questions) == 1
    assert undo_points(local_database) == [done["undo_point"]]


def leave(seconds: float) -> Callable[[Agent], Any]:
    async def call(it: Agent) -> None:
        with anyio.move_on_after(seconds) as scope:
            await it.client.call_tool("backup", {})
        assert scope.cancelled_caught

    return call


async def time_out(it: Agent) -> None:
    with pytest.raises(MCPError):
        await it.client.call_tool("backup", {}, read_timeout_seconds=0.5)


@pytest.mark.parametrize("stop", [leave(0.5), time_out], ids=["cancelled", "timed out"])
@each_era
async def test_call_that_is_given_up_leaves_nothing(
    local_database: LocalDatabase, local: Settings, era: str, stop: Callable[[Agent], Any]
) -> None:
    async with agent(local, era) as it:
        with locked(local_database):
            await stop(it)
            with anyio.fail_after(10):
                while (await it.call("list_backups"))["jobs"] or local_backends(local_database):
                    await anyio.sleep(0.05)
            assert unfinished(directory_of(local)) == []
        assert (await it.call("list_backups"))["backups"] == []
        assert (await it.call("backup"))["safe_to_proceed"]


async def test_waiting_again_and_giving_up_cancels_the_job(local_database: LocalDatabase, local: Settings) -> None:
    async with agent(local, "2025-11-25") as it:
        with locked(local_database):
            job = (await it.call("backup", wait_seconds=0.1))["job"]
            with anyio.move_on_after(0.3):
                await it.client.call_tool("backup", {"job": job})
            with anyio.fail_after(10):
                while (await it.call("list_backups"))["jobs"]:
                    await anyio.sleep(0.05)
        assert (await it.fail("backup", job=job))["code"] == "cancelled"
    assert unfinished(directory_of(local)) == []


# -- progress --------------------------------------------------------------------------------------------------------

Told = list[tuple[float, float, str]]


async def progress_of(it: Agent, tool: str, arguments: dict[str, Any]) -> Told:
    """Moment, number and message of every progress notification of a call."""
    told: Told = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        told.append((time.monotonic(), progress, message or ""))

    result = await it.client.call_tool(tool, arguments, progress_callback=note)
    assert not result.is_error, text_of(result)
    return told


def assert_orderly(told: Told) -> None:
    """The number always grows, and no second brings more than five notifications."""
    numbers = [number for _, number, _ in told]
    assert numbers == sorted(set(numbers)), told
    assert all(later - earlier > 0.9 for (earlier, *_), (later, *_) in zip(told, told[5:], strict=False)), told


@each_era
async def test_progress_grows(local: Settings, era: str) -> None:
    async with agent(local, era, User()) as it:
        calls: Iterable[tuple[str, dict[str, Any]]] = [
            ("backup", {}),
            ("restore", {"backup": "latest"}),
            ("verify_backup", {}),
        ]
        for tool, arguments in calls:
            told = await progress_of(it, tool, arguments)
            assert told, tool
            assert all(message for *_, message in told), tool
            assert_orderly(told)


@each_era
async def test_progress_grows_whatever_a_procedure_reports(
    idle: Settings, era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real procedures do each of this, but only with tables of certain sizes, and not in this short a time."""

    def work(context: BackupContext, progress: Progress, **options: Any) -> Model:
        progress.stage("much", 1e6)
        for count in range(100_000):
            progress.report(count)
        progress.stage("more than was expected", 100)
        for table in ("one", "two", "three"):
            progress.report(200, table)
            time.sleep(0.3)
        progress.stage("nobody knows how much")
        for table in ("one", "two", "three"):
            progress.report(0, table)
            time.sleep(0.3)
        return example_backup()

    monkeypatch.setattr(tools.backups, "backup", work)
    async with agent(idle, era) as it:
        told = await progress_of(it, "backup", {})
    assert len(told) > 2
    assert_orderly(told)


def example_backup() -> Backup:
    return Backup.model_validate(
        {
            "name": "x.sql",
            "path": "/x.sql",
            "kind": "sql",
            "created_at": "2026-01-01T00:00:00Z",
            "bytes": 1,
            "sha256": "0",
            "compression": "none",
            "label": None,
            "database": "letta",
            "server": "database letta, container abiogenesis-postgres",
            "tables": [],
            "rows": 0,
            "integrity_rows": 0,
            "steps": [],
            "good": False,
            "safe_to_proceed": False,
            "reasons": [],
            "shrunk": False,
            "warnings": [],
            "duration_seconds": 0,
        }
    )


# -- faults ----------------------------------------------------------------------------------------------------------

UNFORESEEN: list[tuple[str, dict[str, Any], User | None]] = [
    ("backup", {}, None),
    ("verify_backup", {}, None),
    ("list_backups", {}, None),
    ("db_integrity", {}, None),
    ("restore", {"backup": "latest", "dry_run": True}, None),
    ("restore", {"backup": "latest"}, User()),
    ("restore", {"backup": "latest"}, None),
    ("restore", {"backup": "x.sql", "confirmation": "restore y.sql"}, None),
    ("restore", {"backup": "x.sql", "confirmation": "restore x.sql"}, None),
]


def make_all_fail(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """What every procedure begins with raises."""

    def fail(self: BackupContext, settings: Settings) -> None:
        raise error

    monkeypatch.setattr(BackupContext, "__init__", fail)


@pytest.mark.parametrize(("tool", "arguments", "user"), UNFORESEEN)
@each_era
async def test_unforeseen_exception_becomes_an_error_with_a_code(
    idle: Settings,
    era: str,
    tool: str,
    arguments: dict[str, Any],
    user: User | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No real fault raises what nobody foresaw."""
    make_all_fail(monkeypatch, ZeroDivisionError("the-words-of-the-exception"))
    async with agent(idle, era, user) as it:
        with caplog.at_level(logging.ERROR):
            error = await it.fail(tool, **arguments)
        assert error["code"] == "internal_error"
        assert "the-words-of-the-exception" not in str(error)
        assert "Traceback" in caplog.text
        assert "ZeroDivisionError: the-words-of-the-exception" in caplog.text
        monkeypatch.undo()
        assert (await it.call("list_backups"))["backups"] == [], "the server goes on"


@each_era
async def test_unforeseen_exception_in_the_manifest_is_a_clean_error(
    idle: Settings, era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No real fault raises what nobody foresaw."""
    make_all_fail(monkeypatch, ZeroDivisionError("the-words-of-the-exception"))
    async with agent(idle, era) as it:
        with pytest.raises(MCPError) as failed:
            await it.client.read_resource("scarlet://backups/x.sql/manifest")
    assert "the-words-of-the-exception" not in str(failed.value)


@each_era
async def test_server_without_a_database_still_lists_and_tells_what_is_wrong(idle: Settings, era: str) -> None:
    async with agent(idle, era, User()) as it:
        listing = await it.call("list_backups")
        assert (listing["undo_points"], listing["backups"]) == (None, [])
        assert any("undo points" in warning for warning in listing["warnings"])
        looked = await it.call("db_integrity")
        assert (looked["healthy"], looked["agents"]) == (False, None)
        codes = {finding["code"]: finding["remedy"] for finding in looked["findings"]}
        assert codes["server_unreachable"]
        assert (await it.fail("backup"))["code"] == "server_unreachable"
        assert (await it.fail("restore", backup="latest"))["code"] in ("server_unreachable", "backup_missing")
    assert unfinished(directory_of(idle)) == []


async def test_calls_at_once_do_not_hinder_each_other(local_database: LocalDatabase, local: Settings) -> None:
    """While a backup is under way, another is busy, and everything that only reads is answered."""
    async with agent(local, "2025-11-25") as it:
        first = await it.call("backup")
        with locked(local_database), anyio.fail_after(10):
            job = (await it.call("backup", wait_seconds=0.1))["job"]
            busy = await it.fail("backup")
            assert busy["code"] == "busy"
            assert re.search(r"backup of process \d+", busy["message"])
            assert (await it.call("verify_backup"))["valid"]
            assert (await it.call("list_backups"))["backups"][-1]["name"] == first["name"]
        done = await it.call("backup", job=job)
        assert done["safe_to_proceed"], done["reasons"]


async def test_db_integrity_answers_while_a_table_is_locked(local_database: LocalDatabase, local: Settings) -> None:
    """A migration that hangs is when it is called."""
    async with agent(local, "2026-07-28") as it:
        with locked(local_database), anyio.fail_after(20):
            assert (await it.call("db_integrity"))["agents"] == AGENTS


async def test_password_is_seen_nowhere(local_database: LocalDatabase, local: Settings) -> None:
    password = local_database.server.password
    said: list[str] = []
    async with agent(local, "2026-07-28") as it:
        with locked(local_database):
            job = (await it.call("backup", wait_seconds=0.5))["job"]
            said += command_lines_here()
        await it.call("backup", job=job)
    wrong = local.dsn.get_secret_value().replace(password, f"{password}-wrong") if local.dsn else ""
    refusing = load_settings(dir=local.dir, via="local", dsn=wrong, bin_dir=local.bin_dir)
    for settings in (local, refusing):
        async with agent(settings, "2026-07-28", User()) as it:
            for tool in ("backup", "verify_backup", "list_backups", "restore", "db_integrity"):
                result = await it.client.call_tool(tool, {"backup": "latest"} if tool == "restore" else {})
                said.append(result.model_dump_json())
    assert any("permission_denied" in text for text in said)
    assert [text for text in said if password in text] == []
    assert [name for name, data in files(directory_of(local)).items() if password.encode() in data] == []
