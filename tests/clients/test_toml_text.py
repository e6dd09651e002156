"""One table of a TOML file is edited; every other byte stays."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from scarlet_backup_mcp.clients.json_text import NotUnderstood
from scarlet_backup_mcp.clients.toml_text import put, take_out

ENTRY: dict[str, Any] = {"command": 'C:\\tools\\"x".exe', "args": ["serve"], "env": {"SCARLET_BACKUP_DIR": "/b"}}

TEXTS = {
    "settings": '# mine\nmodel = "x" # best\n\n[profiles.a]\nn = 1\n',
    "servers": (
        '[mcp_servers.other]\ncommand = "npx"\nargs = [\n  "-y",\n  "[x]",\n]\n\n[mcp_servers.other.env]\nKEY = "v"\n'
    ),
    "crlf": '[a]\r\nb = "c"\r\n',
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_adding_and_taking_out_leaves_every_byte(text: str) -> None:
    added = put(text, "mcp_servers", "scarlet-backup", ENTRY)
    assert added.startswith(text)
    expected = tomllib.loads(text)
    expected.setdefault("mcp_servers", {})["scarlet-backup"] = ENTRY
    assert tomllib.loads(added) == expected
    assert ("\n" in added.replace("\r\n", "")) == ("\n" in text.replace("\r\n", ""))
    assert take_out(added, "mcp_servers", "scarlet-backup") == text


def test_an_empty_file() -> None:
    added = put("", "mcp_servers", "scarlet-backup", ENTRY)
    assert tomllib.loads(added) == {"mcp_servers": {"scarlet-backup": ENTRY}}
    assert take_out(added, "mcp_servers", "scarlet-backup") == ""


def test_updating_changes_our_fields_only() -> None:
    text = (
        '[mcp_servers.scarlet-backup] # ours\n# note\ncommand = "old"\nargs = ["serve"]\nenabled = true\n'
        '\n# of the next one\n[mcp_servers.other]\ncommand = "npx"\n'
    )
    entry = {"command": "new", "args": ["serve"], "enabled": True, "env": {"A": "b"}}
    assert put(text, "mcp_servers", "scarlet-backup", entry) == text.replace('"old"', '"new"').replace(
        "# ours\n", '# ours\nenv = { "A" = "b" }\n'
    )


def test_taking_out_takes_tables_below_and_leaves_comments_of_the_next_one() -> None:
    rest = '[a]\nb = 1\n{}\n# of the next one\n[mcp_servers.other]\ncommand = "npx"\n'
    ours = '\n[ mcp_servers . "scarlet-backup" ]\ncommand = "x"\nargs = [\n "serve",\n]\n'
    ours += '[mcp_servers.scarlet-backup.env]\nA = "b"\n'
    assert take_out(rest.format(ours), "mcp_servers", "scarlet-backup") == rest.format("")


@pytest.mark.parametrize("text", ["a = ", "[a]\n[a]\n", '{"json": 1}'])
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(NotUnderstood, match="is not valid TOML"):
        put(text, "mcp_servers", "scarlet-backup", ENTRY)


def test_an_inline_table_is_refused() -> None:
    with pytest.raises(NotUnderstood, match="in a form that is not edited"):
        take_out('mcp_servers = { "scarlet-backup" = { command = "x" } }\n', "mcp_servers", "scarlet-backup")
