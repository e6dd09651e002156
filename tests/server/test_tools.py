"""The MCP server in memory, in both protocol eras, on the embedded PostgreSQL."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.shared.exceptions import MCPError
from mcp.types import TextContent

from scarlet_backup_mcp.errors import InternalError
from scarlet_backup_mcp.models.manifest import Manifest
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.settings import Settings, load_settings

from ..conftest import LocalDatabase
from ..helpers.faces import (
    AGENTS,
    User,
    agent,
    command_lines_here,
    content_of,
    directory_of,
    each_era,
    error_of,
    files,
    jsonschema,
    live_oid,
    locked,
    text_of,
    unfinished,
)

TOOLS = ["backup", "db_integrity", "list_backups", "prune_backups", "restore", "verify_backup"]


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
        assert "scarlet://backups/{name}/manifest" in [template.uri_template for template in templates]
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


@pytest.mark.sample(8)
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
        assert any("ndo points" in warning for warning in listing["warnings"])
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
    assert any("password_rejected" in text for text in said)
    assert [text for text in said if password in text] == []
    assert [name for name, data in files(directory_of(local)).items() if password.encode() in data] == []
