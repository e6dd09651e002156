"""How long this program's starts take, beside those of programs that do nothing with the same packages."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

EMPTY = "from mcp.server.mcpserver import MCPServer; MCPServer('empty').run()"
CLIENT = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "benchmark", "version": "0"}}
MESSAGES: list[dict[str, Any]] = [
    {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": CLIENT},
    {"jsonrpc": "2.0", "method": "notifications/initialized", "params": {}},
    {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}},
]
EMPTY_SERVER, EMPTY_COMMAND = "an empty MCP server, to its list of tools", "a Python program that imports click"


def to_list_of_tools(*arguments: str) -> float:
    """Time a server from its start to its answer to tools/list."""
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"".join(json.dumps(message).encode() + b"\n" for message in MESSAGES))
        process.stdin.flush()
        while json.loads(process.stdout.readline()).get("id") != 1:
            pass
        took = time.perf_counter() - began
        process.stdin.close()
    return took


def to_the_end(*arguments: str) -> float:
    """Time a program."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


STARTS: dict[str, tuple[str | None, Callable[[], float]]] = {
    EMPTY_SERVER: (None, lambda: to_list_of_tools("-c", EMPTY)),
    "this server, to its list of tools": (EMPTY_SERVER, lambda: to_list_of_tools("-m", "scarlet_backup_mcp", "serve")),
    EMPTY_COMMAND: (None, lambda: to_the_end("-c", "import click")),
    "`--help`": (EMPTY_COMMAND, lambda: to_the_end("-m", "scarlet_backup_mcp", "--help")),
    "`backup --help`": (EMPTY_COMMAND, lambda: to_the_end("-m", "scarlet_backup_mcp", "backup", "--help")),
}
"""Each start with the one that it is compared with."""
