"""A client's file is never lost or damaged: what can't be edited safely is left as it is, to the byte."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from scarlet_backup_mcp.clients.change import Change, apply, propose, propose_removal, servers_of
from scarlet_backup_mcp.clients.entry import NAME
from scarlet_backup_mcp.clients.known import McpClient, clients
from scarlet_backup_mcp.errors import ClientFileError

ENTRY: dict[str, Any] = {"command": "/opt/x/scarlet-backup-mcp", "args": ["serve"]}
TOKEN = "sk-1234567890"
OTHERS = '{"mcpServers": {\n  "gh": {"command": "npx", "env": {"API_KEY": "' + TOKEN + '"}}\n}}\n'


@pytest.fixture
def client(tmp_path: Path) -> McpClient:
    return McpClient("cursor", "Cursor", tmp_path / ".cursor" / "mcp.json", "mcpServers", there=True)


@pytest.fixture
def codex(tmp_path: Path) -> McpClient:
    return McpClient("codex", "Codex", tmp_path / "config.toml", "mcp_servers", there=True, form="toml")


def write(client: McpClient, data: bytes | str) -> Path:
    client.path.parent.mkdir(exist_ok=True)
    client.path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return client.path


def copies(path: Path) -> list[bytes]:
    return [item.read_bytes() for item in sorted(path.parent.glob("*.bak"))]


def nothing_else(path: Path) -> bool:
    """Whether no temporary file lies beside it."""
    return all(item == path or item.suffix == ".bak" for item in path.parent.iterdir())


def add(client: McpClient) -> Change:
    change = propose(client, ENTRY)
    apply(change)
    return change


def test_a_new_file(client: McpClient) -> None:
    change = add(client)
    assert (change.action, change.before) == ("add", None)
    assert json.loads(client.path.read_bytes()) == {"mcpServers": {NAME: ENTRY}}
    assert copies(client.path) == []
    assert nothing_else(client.path)
    if os.name == "posix":
        assert stat.S_IMODE(client.path.stat().st_mode) == 0o600


def test_a_new_file_goes_when_it_is_undone(client: McpClient) -> None:
    add(client)
    written = client.path.read_bytes()
    assert apply(propose_removal(client)) is not None
    assert not client.path.exists()
    assert copies(client.path) == [written]


@pytest.mark.parametrize(
    "data",
    [
        OTHERS,
        OTHERS.replace("\n", "\r\n"),
        "\ufeff" + OTHERS,
        "// mine\n" + OTHERS.replace("}}}", "}},}"),
        '{\n  "theme": "dark", // best\n  "mcpServers": {\n    "a": {"command": "a"}, // note\n  },\n}',
    ],
    ids=["plain", "crlf", "bom", "comment", "trailing commas"],
)
def test_the_rest_stays_and_undoing_gives_the_file_back(client: McpClient, data: str) -> None:
    path = write(client, data)
    path.chmod(0o640)
    change = add(client)
    assert change.action == "add"
    after = path.read_bytes()
    assert after != data.encode()
    assert servers_of(path, "json", ("mcpServers",))[NAME] == ENTRY
    assert (b'"gh": {"command": "npx", "env": {"API_KEY": "sk-1234567890"}}' in after) == ("gh" in data)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert copies(path) == [data.encode()]
    assert stat.S_IMODE(next(path.parent.glob("*.bak")).stat().st_mode) == 0o640
    apply(propose_removal(client))
    assert path.read_bytes() == data.encode()
    assert nothing_else(path)


def test_the_diff_shows_our_lines_and_no_secret_of_others(client: McpClient) -> None:
    write(client, OTHERS)
    diff = propose(client, ENTRY).diff
    assert '+  "scarlet-backup": {' in diff
    assert str(client.path) in diff
    assert TOKEN not in diff


def test_again_changes_nothing(client: McpClient) -> None:
    write(client, OTHERS)
    add(client)
    again = propose(client, ENTRY)
    assert (again.action, again.after) == ("none", None)


def test_an_entry_that_is_there_keeps_its_other_fields(client: McpClient) -> None:
    own: dict[str, Any] = {"command": "old", "args": [], "timeout": 9, "env": {"A": "b"}}
    write(client, json.dumps({"mcpServers": {NAME: own, "z": {"command": "z"}}}))
    change = propose(client, {**ENTRY, "env": {"C": "d"}})
    assert change.action == "update"
    apply(change)
    found = json.loads(client.path.read_bytes())["mcpServers"]
    assert found == {NAME: {**own, **ENTRY, "env": {"A": "b", "C": "d"}}, "z": {"command": "z"}}


@pytest.mark.parametrize(
    "entry",
    [
        {"command": "scarlet-backup-mcp"},
        {"command": "C:\\x\\scarlet-backup-mcp.exe", "args": ["serve"]},
        {"command": "uvx", "args": ["scarlet-backup-mcp", "serve"]},
        {"command": "python3", "args": ["-m", "scarlet_backup_mcp"]},
    ],
)
def test_this_server_under_another_name_is_left_alone(client: McpClient, entry: dict[str, Any]) -> None:
    write(client, json.dumps({"mcpServers": {"memory": entry}}))
    change = propose(client, ENTRY)
    assert (change.action, change.why) == ("none", "it starts this server as 'memory'")


def test_another_server_whose_path_only_has_the_name_in_it_is_another_one(client: McpClient) -> None:
    write(client, json.dumps({"mcpServers": {"x": {"command": "/src/scarlet-backup-mcp/tools/other"}}}))
    assert propose(client, ENTRY).action == "add"


@pytest.mark.parametrize(
    "data",
    [
        b'{"mcpServers": {',
        b"[]",
        b'{"mcpServers": []}',
        b'{"mcpServers": {"scarlet-backup": "x"}}',
        b'{"mcpServers": {}, "mcpServers": {}}',
        '{"mcpServers": {}}'.encode("utf-16"),
        b'{"a": "\xff"}',
        b'{"a": NaN}',
    ],
)
def test_what_is_not_understood_is_left_for_the_user_with_what_to_add(client: McpClient, data: bytes) -> None:
    path = write(client, data)
    change = propose(client, ENTRY)
    assert change.action == "by hand"
    assert change.why
    assert propose_removal(client).action in ("by hand", "none") or b'"x"' in data
    assert json.loads(propose(client, ENTRY).snippet) == {"mcpServers": {NAME: ENTRY}}
    assert path.read_bytes() == data
    assert nothing_else(path)


@pytest.mark.skipif(sys.platform == "win32", reason="links and modes of POSIX")
def test_a_link_stays_and_its_target_is_edited(client: McpClient, tmp_path: Path) -> None:
    target = tmp_path / "dotfiles" / "mcp.json"
    target.parent.mkdir()
    target.write_text(OTHERS)
    client.path.parent.mkdir()
    client.path.symlink_to(target)
    change = add(client)
    assert change.path == target
    assert client.path.is_symlink()
    assert NAME in target.read_text()
    assert copies(target) == [OTHERS.encode()]


@pytest.mark.skipif(sys.platform == "win32", reason="links and modes of POSIX")
@pytest.mark.parametrize("how", ["read-only", "hard link", "directory", "loop"])
def test_files_that_an_exchange_would_damage_are_left_alone(client: McpClient, tmp_path: Path, how: str) -> None:
    path = write(client, OTHERS)
    if how == "read-only":
        path.chmod(0o444)
    elif how == "hard link":
        os.link(path, tmp_path / "other")
    else:
        path.unlink()
        path.mkdir() if how == "directory" else path.symlink_to(path)
    change = propose(client, ENTRY)
    assert change.action == "by hand"
    assert change.snippet
    if path.is_file():
        assert path.read_text() == OTHERS


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "chown"), reason="owners of POSIX")
def test_the_owner_stays(client: McpClient) -> None:
    """As under sudo; somebody else than root owns every file here anyway."""
    path = write(client, OTHERS)
    if os.getuid() == 0:
        os.chown(path, 12, 34)
    owner = (path.stat().st_uid, path.stat().st_gid)
    add(client)
    assert (path.stat().st_uid, path.stat().st_gid) == owner
    kept = next(path.parent.glob("*.bak")).stat()
    assert (kept.st_uid, kept.st_gid) == owner


def test_a_file_that_has_changed_since_is_left_alone(client: McpClient) -> None:
    path = write(client, OTHERS)
    change = propose(client, ENTRY)
    path.write_text("{}")
    with pytest.raises(ClientFileError, match="has changed since"):
        apply(change)
    assert path.read_text() == "{}"
    assert nothing_else(path)


def test_a_disk_that_fails_leaves_the_file(client: McpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rename that fails at the last moment; only a broken disk does that."""
    path = write(client, OTHERS)
    change = propose(client, ENTRY)

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ClientFileError, match="Input/output error"):
        apply(change)
    assert path.read_text() == OTHERS
    assert nothing_else(path)


# Codex


def test_toml(codex: McpClient) -> None:
    data = '# mine\nmodel = "x"\n\n[mcp_servers.gh]\ncommand = "npx" # note\n'
    write(codex, data)
    assert add(codex).action == "add"
    assert codex.path.read_text().startswith(data)
    assert servers_of(codex.path, "toml", ("mcp_servers",))[NAME] == ENTRY
    apply(propose_removal(codex))
    assert codex.path.read_text() == data


@pytest.mark.parametrize(
    "data",
    [
        "a =",
        'mcp_servers = { gh = { command = "x" } }\n',
        'mcp_servers = "x"\n',
        '[mcp_servers.scarlet-backup]\ncommand = """\nold\n"""\n',
        'a = """\n[mcp_servers.scarlet-backup]\ncommand = 1\n"""\n[mcp_servers."scarlet-backup" ]\ncommand = "old"\n',
        '[mcp_servers]\nscarlet-backup.command = "old"\n',
    ],
)
def test_toml_that_can_not_be_edited_safely_is_left_alone(codex: McpClient, data: str) -> None:
    write(codex, data)
    change = propose(codex, ENTRY)
    assert change.action == "by hand"
    assert "[mcp_servers.scarlet-backup]" in change.snippet
    assert codex.path.read_text() == data


# Where the clients' files are


@pytest.mark.parametrize(
    ("platform", "environment", "desktop"),
    [
        ("linux", {}, ".config/Claude"),
        ("linux", {"XDG_CONFIG_HOME": "{}/conf"}, "conf/Claude"),
        ("darwin", {}, "Library/Application Support/Claude"),
        ("win32", {"APPDATA": "{}/AppData/Roaming"}, "AppData/Roaming/Claude"),
    ],
)
def test_places(tmp_path: Path, platform: str, environment: dict[str, str], desktop: str) -> None:
    environment = {name: value.format(tmp_path) for name, value in environment.items()}
    project = tmp_path / "project"
    found = {client.key: client for client in clients(project, environment, tmp_path, platform)}
    assert {key: client.path.relative_to(tmp_path).as_posix() for key, client in found.items()} == {
        "claude-code": "project/.mcp.json",
        "vscode": "project/.vscode/mcp.json",
        "cursor": ".cursor/mcp.json",
        "claude-desktop": f"{desktop}/claude_desktop_config.json",
        "codex": ".codex/config.toml",
        "gemini": ".gemini/settings.json",
    }
    assert not any(client.there for client in found.values())
    (project / ".cursor").mkdir(parents=True)
    (tmp_path / desktop).mkdir(parents=True)
    there = {client.key: client.path for client in clients(project, environment, tmp_path, platform) if client.there}
    assert there["cursor"] == project / ".cursor" / "mcp.json"
    assert there.keys() == {"cursor", "claude-desktop"}


def test_in_the_home_directory_there_is_no_project(tmp_path: Path) -> None:
    for name in (".claude", ".vscode", ".cursor"):
        (tmp_path / name).mkdir()
    assert [client.key for client in clients(tmp_path, {}, tmp_path, "linux") if client.there] == ["cursor"]
