"""Which MCP clients there are, and where each keeps its servers.

Sources: the clients' own documentation on MCP servers, as of late 2026. None of them was run here.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class McpClient:
    """A client, with the file that gets our entry."""

    key: str
    title: str
    path: Path
    table: str
    """Name of the object or table that holds the servers."""
    there: bool
    """Whether the client, or something that it left, is on this machine."""
    form: Literal["json", "toml"] = "json"
    for_project: bool = False
    """Whether the file belongs to a project, and may be shared with others."""
    typed: bool = False
    """Whether its entries say that they use stdio."""
    also: tuple[tuple[Path, tuple[str, ...]], ...] = ()
    """Other files that it reads, each with the way to its servers. They are only looked at."""


def clients(
    project: Path, environment: Mapping[str, str], home: Path | None = None, platform: str = sys.platform
) -> list[McpClient]:
    """List the clients that are known, installed or not, with their files for a project in that directory."""
    home = home or Path.home()
    settings = _settings_directory(home, environment, platform)
    codex = Path(environment.get("CODEX_HOME") or home / ".codex")
    desktop, code = settings / "Claude", settings / "Code" / "User"
    in_project = project != home

    def there(program: str, *traces: Path) -> bool:
        found = shutil.which(program, path=environment.get("PATH", "")) if program else None
        return found is not None or any(trace.exists() for trace in traces)

    cursor_project = project / ".cursor"
    return [
        McpClient(
            "claude-code",
            "Claude Code",
            project / ".mcp.json",
            "mcpServers",
            in_project and there("claude", home / ".claude", home / ".claude.json", project / ".mcp.json"),
            for_project=True,
            also=(
                (home / ".claude.json", ("mcpServers",)),
                (home / ".claude.json", ("projects", str(project), "mcpServers")),
            ),
        ),
        McpClient(
            "vscode",
            "VS Code",
            project / ".vscode" / "mcp.json",
            "servers",
            in_project and there("code", code, project / ".vscode"),
            for_project=True,
            typed=True,
            also=((code / "mcp.json", ("servers",)), (project / ".mcp.json", ("mcpServers",))),
        ),
        McpClient(
            "cursor",
            "Cursor",
            (cursor_project if in_project and cursor_project.is_dir() else home / ".cursor") / "mcp.json",
            "mcpServers",
            there("cursor", home / ".cursor", cursor_project),
            for_project=in_project and cursor_project.is_dir(),
            also=((home / ".cursor" / "mcp.json", ("mcpServers",)),),
        ),
        McpClient(
            "claude-desktop",
            "Claude Desktop",
            desktop / "claude_desktop_config.json",
            "mcpServers",
            there("", desktop),
        ),
        McpClient(
            "codex",
            "Codex",
            codex / "config.toml",
            "mcp_servers",
            there("codex", codex),
            form="toml",
            also=((project / ".codex" / "config.toml", ("mcp_servers",)),),
        ),
        McpClient(
            "gemini",
            "Gemini CLI",
            home / ".gemini" / "settings.json",
            "mcpServers",
            there("gemini", home / ".gemini"),
            also=((project / ".gemini" / "settings.json", ("mcpServers",)),),
        ),
    ]


KEYS = ("claude-code", "vscode", "cursor", "claude-desktop", "codex", "gemini")


def _settings_directory(home: Path, environment: Mapping[str, str], platform: str) -> Path:
    """Return where desktop programs keep their settings."""
    if platform == "win32":
        return Path(environment.get("APPDATA") or home / "AppData" / "Roaming")
    if platform == "darwin":
        return home / "Library" / "Application Support"
    return Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
