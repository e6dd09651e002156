"""`scarlet-backup-mcp demo`: a small Scarlet memory is backed up, lost and restored, through the real MCP server.

Everything happens on a throw-away PostgreSQL from a wheel, in temporary directories that are gone afterwards.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

import anyio
from mcp import Client
from mcp.client import ClientRequestContext
from mcp.client.stdio import StdioServerParameters
from mcp.types import CallToolResult, ElicitRequestParams, ElicitResult, TextContent
from rich.console import Console

from ...errors import HostError
from ...settings import PREFIX
from .. import screen
from .embedded import EmbeddedServer

DATABASE = "letta"
MEMORY = Path(__file__).with_name("memory.sql")
# What PROC-003 comes to when it goes wrong: the agents are gone, and with them all that hangs on them.
LOSS = "TRUNCATE letta.agents CASCADE"


def show() -> bool:
    """Run the whole demo; whether everything came back as it was."""
    console = screen.console()
    with tempfile.TemporaryDirectory(prefix="scarlet-backups-") as directory:
        console.print("Starting a throw-away PostgreSQL and filling a small Scarlet memory…")
        with EmbeddedServer() as server:
            _psql(server, "postgres", f"CREATE DATABASE {DATABASE}")
            _psql(server, DATABASE, MEMORY.read_text(encoding="utf-8"))
            whole = anyio.run(_tell, console, server, Path(directory))
    verdict = "Every row is back." if whole else "Something did NOT come back: please report this."
    console.print(f"\n[bold]{verdict}[/bold] This demo's server, database and backups have been removed.")
    return whole


async def _tell(console: Console, server: EmbeddedServer, directory: Path) -> bool:
    environment = {
        f"{PREFIX}VIA": "local",
        f"{PREFIX}DSN": server.dsn(DATABASE),
        f"{PREFIX}BIN_DIR": str(server.bin_dir),
        f"{PREFIX}DIR": str(directory),
    }
    others = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "scarlet_backup_mcp", "serve"], env={**others, **environment}
    )

    async def agree(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        console.print(f"[yellow]The server asks the user:[/yellow] {params.message}", markup=True)
        console.print("[yellow]The user answers:[/yellow] yes")
        return ElicitResult(action="accept", content={"confirm": True})

    async with Client(command, elicitation_callback=agree) as client:

        async def call(tool: str, **arguments: Any) -> dict[str, Any]:
            console.print(f"\n[bold cyan]{tool}[/bold cyan] {json.dumps(arguments)}")
            return _content(console, tool, await client.call_tool(tool, arguments))

        before = _digest(server)
        backup = await call("backup", label="before PROC-003")
        await call("verify_backup", backup=backup["name"])
        await call("list_backups")
        console.print(f"\n[bold red]PROC-003 goes wrong:[/bold red] {LOSS}")
        _psql(server, DATABASE, LOSS)
        lost = await call("db_integrity")
        await call("restore", backup=backup["name"])
        found = await call("db_integrity")
        await call("list_backups")
    return lost["agents"] == 0 and found["agents"] == backup["integrity_rows"] and _digest(server) == before


def _content(console: Console, tool: str, result: CallToolResult) -> dict[str, Any]:
    for block in result.content:
        if isinstance(block, TextContent):
            console.print(block.text, markup=False)
    if result.is_error or result.structured_content is None:
        raise HostError(f"The demo's {tool} failed, as shown above.")
    return cast("dict[str, Any]", result.structured_content)


def _digest(server: EmbeddedServer) -> str:
    """One value for all rows of the tables that hold the memory, in any order."""
    tables = ("agents", "block", "blocks_agents", "messages", "archival_passages")
    sums = " || ' ' || ".join(
        f"(SELECT count(*) || ':' || coalesce(sum(hashtextextended(t::text, 0)), 0) FROM letta.{table} t)"
        for table in tables
    )
    return _psql(server, DATABASE, f"SELECT {sums}")


def _psql(server: EmbeddedServer, database: str, statements: str) -> str:
    name = "psql.exe" if os.name == "nt" else "psql"
    environment = {
        **os.environ,
        "PGPASSWORD": server.password,
        "PGCLIENTENCODING": "UTF8",
        "PGOPTIONS": "-c client_min_messages=warning",
    }
    address = ["-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", "-d", database]
    done = subprocess.run(
        [str(server.bin_dir / name), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *address, "-f", "-"],
        input=statements.encode(),
        capture_output=True,
        env=environment,
        check=False,
    )
    if done.returncode != 0:
        raise HostError(f"The demo's database could not be prepared: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode().strip()
