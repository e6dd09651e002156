"""The list of tools is light, and arguments are read as hosts really send them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

import pytest

from scarlet_backup_mcp.settings import Settings

from ..conftest import LocalDatabase
from ..helpers.faces import agent, locked

MODERN = "2026-07-28"
BYTES, BYTES_OF_INPUTS = 12_000, 9_000
"""Of the list of tools as compact JSON, in all and without output schemas: what an agent pays in each conversation."""


def schemas(node: object) -> Iterator[dict[str, Any]]:
    """Every schema in one."""
    if isinstance(node, dict):
        found = cast(dict[str, Any], node)
        yield found
        for value in found.values():
            yield from schemas(value)
    elif isinstance(node, list):
        for value in cast(list[object], node):
            yield from schemas(value)


async def test_the_list_of_tools_is_light(idle: Settings) -> None:
    async with agent(idle, MODERN) as it:
        tools = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in it.tools.values()]
    inputs = [{name: value for name, value in tool.items() if name != "outputSchema"} for tool in tools]

    def size(listed: object) -> int:
        return len(json.dumps(listed, separators=(",", ":"), ensure_ascii=False).encode())

    assert size(tools) <= BYTES
    assert size(inputs) <= BYTES_OF_INPUTS


async def test_schemas_are_what_every_host_takes(idle: Settings) -> None:
    async with agent(idle, MODERN) as it:
        for name, tool in it.tools.items():
            assert (tool.description or "").split() == (tool.description or "").split(" "), name
            for schema in [*schemas(tool.input_schema), *schemas(tool.output_schema)]:
                assert all(isinstance(value, str) for value in schema.get("enum", [])), name
                assert "title" not in schema or isinstance(schema["title"], dict), name
            for parameter, schema in tool.input_schema["properties"].items():
                assert schema.keys().isdisjoint({"anyOf", "oneOf"}), (name, parameter)
                assert schema.get("default", "") is not None, (name, parameter)
                assert len(schema.get("enum", ["one", "two"])) > 1, "a choice of one is none"


async def test_arguments_are_read_for_what_they_mean(local: Settings) -> None:
    async with agent(local, MODERN) as it:
        made = await it.call("backup", label=7, compression="null", keep="true", wait_seconds="50", job="", verify=None)
        assert made["compression"] == "none"
        listed = (await it.call("list_backups", limit="1"))["backups"][0]
        assert (listed["label"], listed["keep"]) == ("7", True)
        rehearsed = await it.call("restore", backup="latest", dry_run="true", confirmation="", drill=None)
        assert (rehearsed["dry_run"], rehearsed["source"]) == (True, made["name"])


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("backup", {"kind": "sqlite"}, "kind is 'sqlite', but has to be sql or volume"),
    ("list_backups", {"limit": "many"}, "limit is 'many', but has to be a whole number from 1 to 1000"),
    ("backup", {"label": "x" * 81}, "but has to be text of at most 80 characters"),
    ("restore", {"backup": "latest", "drill": "maybe"}, "has to be auto, always or never"),
    ("restore", {"backup": "latest", "accept_foreign": "maybe"}, "has to be true or false"),
    ("verify_backup", {"code_page": 1}, "code_page is 1, but has to be 437, 850, 852, 858, 1250, 1252 or 65001"),
    ("restore", {"backup": "latest", "dryrun": True}, "there is no parameter dryrun (the nearest is dry_run"),
]


@pytest.mark.parametrize(("tool", "arguments", "words"), WRONG, ids=[words for _, _, words in WRONG])
async def test_what_stays_wrong_is_refused_with_what_is_allowed(
    idle: Settings, tool: str, arguments: dict[str, Any], words: str
) -> None:
    async with agent(idle, MODERN) as it:
        error = await it.fail(tool, **arguments)
    assert error["code"] == "arguments_invalid"
    assert words in error["message"]


async def test_code_pages_are_text_in_and_out(idle: Settings) -> None:
    async with agent(idle, MODERN) as it:
        for given in ("850", 850):
            error = await it.fail("verify_backup", backup="there_is_none.sql", code_page=given)
            assert error["code"] == "backup_missing"
        assert it.tools["restore"].input_schema["properties"]["code_page"]["enum"][1] == "850"


async def test_a_job_alone_is_enough_and_with_other_arguments_refused(
    local_database: LocalDatabase, local: Settings
) -> None:
    async with agent(local, MODERN) as it:
        made = await it.call("backup")
        with locked(local_database):
            running = await it.call("backup", label="long", wait_seconds=0.3)
            other = await it.fail("backup", label="other", job=running["job"])
            assert (other["code"], other["next_call"]) == ("arguments_invalid", running["next_call"])
        assert (await it.call("backup", **running["next_call"]["arguments"]))["label"] == "long"
        for arguments in ({}, {"dry_run": True}, {"confirmation": "restore x.sql"}):
            missing = await it.fail("restore", **arguments)
            assert (missing["code"], "backup is missing" in missing["message"]) == ("arguments_invalid", True)
        assert made["name"] != running["job"]
