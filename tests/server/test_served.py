"""What the server offers: its tools by the settings, its capabilities, and its answers about what there is not."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

from scarlet_backup_mcp.errors import ConfigurationError
from scarlet_backup_mcp.server import tools
from scarlet_backup_mcp.server.tools import create_server
from scarlet_backup_mcp.settings import TOOLS, Settings, load_settings

from ..helpers.faces import ERAS, RawServer, agent, each_era, environment_of

READING = {"verify_backup", "list_backups", "db_integrity"}

# -- which tools -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "served"),
    [
        ({}, set(TOOLS)),
        ({"read_only": True}, READING),
        ({"tools": "backup, db_integrity,"}, {"backup", "db_integrity"}),
        ({"exclude_tools": "restore,prune_backups"}, set(TOOLS) - {"restore", "prune_backups"}),
        ({"tools": "backup,restore,list_backups", "exclude_tools": "restore", "read_only": True}, {"list_backups"}),
    ],
)
@each_era
async def test_tools_are_those_of_the_settings(
    idle: Settings, era: str, settings: dict[str, Any], served: set[str]
) -> None:
    async with agent(idle.model_copy(update=settings), era) as it:
        assert set(it.tools) == served
        for name in set(TOOLS) - served:
            with pytest.raises(MCPError) as error:
                await it.client.call_tool(name, {})
            assert error.value.code == -32602
        prompts = [prompt.name for prompt in (await it.client.list_prompts()).prompts]
        assert prompts == (["prepare_for_proc_003"] if "backup" in served else [])


def test_unknown_tool_in_the_settings_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"SCARLET_BACKUP_TOOLS=.*no tool 'restores'; the nearest: restore, "):
        load_settings(tools="backup,restores")
    with pytest.raises(ConfigurationError, match=r"SCARLET_BACKUP_EXCLUDE_TOOLS=.*no tool 'prune'"):
        load_settings(exclude_tools="prune")


async def test_settings_that_leave_no_tool_are_every_calls_answer(idle: Settings) -> None:
    settings = idle.model_copy(update={"tools": "backup", "read_only": True})
    async with agent(settings, "2026-07-28") as it:
        error = await it.fail("backup")
    assert error["code"] == "configuration_invalid"
    assert "SCARLET_BACKUP_READ_ONLY" in error["message"]


@each_era
async def test_no_call_of_a_tool_that_is_not_served_is_suggested(idle: Settings, era: str) -> None:
    errors: list[dict[str, Any]] = []
    for chosen in (None, "verify_backup,db_integrity"):
        async with agent(idle.model_copy(update={"tools": chosen}), era) as it:
            errors.append(await it.fail("verify_backup", backup="letta_backup_20200101_000000.sql"))
    assert errors[0]["next_call"]["tool"] == "list_backups"
    assert errors[1] == errors[0] | {"next_call": None}


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["--read-only"], {}),
        (["--exclude-tools", "backup,restore,prune_backups"], {}),
        (["--tools", ",".join(READING)], {}),
        ([], {"SCARLET_BACKUP_READ_ONLY": "true"}),
        ([], {"SCARLET_BACKUP_TOOLS": ",".join(READING)}),
    ],
)
def test_tools_are_chosen_on_the_command_line_or_in_the_environment(
    idle: Settings, tmp_path: Path, arguments: list[str], variables: dict[str, str]
) -> None:
    with RawServer(environment_of(idle) | variables, tmp_path, "serve", *arguments) as it:
        answer = it.initialize()["result"]
        it.send("tools/list", {}, number=1)
        assert {tool["name"] for tool in it.answer(1)["result"]["tools"]} == READING
    assert "Served here: verify_backup, list_backups, db_integrity." in answer["instructions"]


# -- what is declared ------------------------------------------------------------------------------------------------


@each_era
async def test_only_what_there_is_is_declared(idle: Settings, era: str) -> None:
    """Nothing is ever sent about changes, so nobody is invited to listen for them."""
    async with Client(create_server(idle), mode=ERAS[era]) as client:
        declared = client.server_capabilities.model_dump(exclude_none=True)
    assert set(declared) == {"tools", "resources", "prompts"}
    assert not any(value for part in declared.values() for value in part.values()), declared


@each_era
async def test_icon_is_a_small_picture_of_the_server_alone(idle: Settings, era: str) -> None:
    async with Client(create_server(idle), mode=ERAS[era]) as client:
        assert client.server_info is not None
        icons = client.server_info.icons or []
        listed = (await client.list_tools()).tools
    assert [icon.mime_type for icon in icons] == ["image/svg+xml"]
    kind, data = icons[0].src.split(",")
    assert kind == "data:image/svg+xml;base64"
    assert ElementTree.fromstring(base64.b64decode(data)).tag.endswith("svg")
    assert len(icons[0].src) < 1000
    assert not any(tool.icons for tool in listed)


def test_list_of_tools_needs_no_procedure(idle: Settings, tmp_path: Path) -> None:
    """A host waits for it: what reads backups, or talks to servers, is imported by the calls that do."""
    code = (
        "import sys; from scarlet_backup_mcp.server import stdio; from scarlet_backup_mcp.settings import load_settings"
    )
    code += (
        "\nstdio.create_server(load_settings())\nprint(*(name for name in sys.modules if name.startswith('scarlet')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment_of(idle), cwd=tmp_path, capture_output=True, check=True
    )
    rooms = {name.split(".")[1] for name in done.stdout.decode().split() if "." in name}
    assert rooms & {"server", "models", "postgres", "hosts", "store", "schedules"} == {"server", "models"}


# -- what there is not -----------------------------------------------------------------------------------------------


@dataclass
class Unknown:
    ask: Callable[[Client], Awaitable[object]]
    codes: dict[str, int]
    words: str


INVALID = dict.fromkeys(ERAS, -32602)
NOT_FOUND = {"2025-11-25": -32002, "2026-07-28": -32602}
UNKNOWN = {
    "tool": Unknown(
        lambda it: it.call_tool("backups", {}), INVALID, "There is no tool 'backups'. The nearest: backup,"
    ),
    "prompt": Unknown(
        lambda it: it.get_prompt("proc_003"),
        INVALID,
        "There is no prompt 'proc_003'. The nearest: prepare_for_proc_003.",
    ),
    "resource": Unknown(
        lambda it: it.read_resource("scarlet://gates"),
        NOT_FOUND,
        "There is no resource 'scarlet://gates'. The nearest:",
    ),
    "other scheme": Unknown(lambda it: it.read_resource("file:///etc/passwd"), NOT_FOUND, "There is no resource"),
    "backup": Unknown(
        lambda it: it.read_resource("scarlet://backups/letta_backup_20200101_000000.sql/manifest"),
        NOT_FOUND,
        "letta_backup_20200101_000000.sql",
    ),
    "way out": Unknown(
        lambda it: it.read_resource("scarlet://backups/..%2F..%2Fetc/manifest"), NOT_FOUND, "There is no resource"
    ),
}


@pytest.mark.parametrize("what", UNKNOWN)
@each_era
async def test_unknown_names_are_answered_as_the_version_wants(
    idle: Settings, era: str, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    unknown = UNKNOWN[what]
    async with Client(create_server(idle), mode=ERAS[era]) as client:
        with pytest.raises(MCPError) as error:
            await unknown.ask(client)
    assert error.value.code == unknown.codes[era]
    assert unknown.words in error.value.message
    assert "Traceback" not in caplog.text


@each_era
async def test_resource_that_cant_be_read_now_says_why(idle: Settings, era: str) -> None:
    wrong = ConfigurationError("SCARLET_BACKUP_DIR='x' is not absolute.")
    async with Client(create_server(wrong), mode=ERAS[era]) as client:
        with pytest.raises(MCPError) as error:
            await client.read_resource("scarlet://gate")
    assert error.value.code == -32603
    assert "SCARLET_BACKUP_DIR='x' is not absolute." in error.value.message


@each_era
async def test_crash_of_a_tool_is_an_error_like_any_other(
    idle: Settings, era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the SDK's bare sentence, which no agent can act on."""

    async def crash(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(tools, "long_call", crash)
    async with agent(idle, era) as it:
        error = await it.fail("backup")
    assert (error["code"], error["message"]) == ("internal_error", "backup failed unexpectedly (RuntimeError).")
