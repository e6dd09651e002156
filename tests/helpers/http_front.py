"""The MCP server over HTTP, which the conformance package speaks: for tests alone. `python -m … PORT DIRECTORY`."""

from __future__ import annotations

import sys

from scarlet_backup_mcp.server.tools import create_server
from scarlet_backup_mcp.settings import load_settings


def main(port: str, directory: str) -> None:
    settings = load_settings(dir=directory, via="local", dsn="postgresql://postgres@127.0.0.1:1/letta")
    create_server(settings).run("streamable-http", host="127.0.0.1", port=int(port))


if __name__ == "__main__":
    main(*sys.argv[1:])
