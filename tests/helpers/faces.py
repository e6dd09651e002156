"""The two faces as their users meet them: a server as a subprocess, a client, and what is seen of their work."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

import psycopg
import pytest
from mcp import Client
from mcp.client import ClientRequestContext
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.types import (
    CallToolResult,
    ElicitRequestParams,
    ElicitResult,
    InputRequiredResult,
    TextContent,
    Tool,
)
from pydantic import SecretStr

from scarlet_backup_mcp.server.tools import create_server
from scarlet_backup_mcp.settings import PREFIX, Settings, load_settings

from ..conftest import PROJECT_ROOT, LocalDatabase, Stack
from .containers import run_docker

jsonschema: Any = importlib.import_module("jsonschema")  # comes with mcp, and has no types

ERAS = {"2025-11-25": "legacy", "2026-07-28": "auto"}
"""What `mcp.Client` calls the way to each protocol version."""
TAG = "scarlet-backup-mcp"
"""What the names of our backends in pg_stat_activity begin with."""
LOCK = "BEGIN; LOCK TABLE letta.messages IN ACCESS EXCLUSIVE MODE"
"""pg_dump waits for this table, for 30 s at most: so long a backup is under way."""


def local_settings(database: LocalDatabase, directory: Path) -> Settings:
    """For the embedded server."""
    return load_settings(dir=directory, via="local", dsn=database.dsn, bin_dir=database.bin_dir)


def docker_settings(stack: Stack, directory: Path | None = None) -> Settings:
    """For the container; without a directory the one that Compose's label tells."""
    return load_settings(dir=directory, container=stack.container, project=stack.project)


def environment_of(settings: Settings) -> dict[str, str]:
    """What a subprocess gets: settings as variables, and where the package is."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("SCARLET_")}
    for name, value in settings:
        if value is not None and value != Settings.model_fields[name].default:
            text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            variables[PREFIX + name.upper()] = text
    return variables | {"PYTHONPATH": str(PROJECT_ROOT)}


def until(holds: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for something, and fail when it does not come."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"Not within {seconds} s: {what}"
        time.sleep(0.02)


def unfinished(directory: Path) -> list[str]:
    """Whatever a backup under way or a restore's swap has lying in the directory, which no ended one leaves."""
    ends = (".partial", ".tmp", "journal.json", "holder.json")
    return sorted(item.name for item in directory.glob("*") if item.name.endswith(ends))


# A client


@dataclass
class User:
    """Answers the server's questions, and remembers them. `meanwhile` is what happens while one is open."""

    action: Literal["accept", "decline", "cancel"] = "accept"
    content: dict[str, str | int | float | bool | list[str] | None] | None = field(
        default_factory=lambda: {"confirm": True}
    )
    meanwhile: Callable[[], object] = lambda: None
    questions: list[str] = field(default_factory=list[str])

    async def __call__(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        self.questions.append(params.message)
        self.meanwhile()
        return ElicitResult(action=self.action, content=self.content if self.action == "accept" else None)


class Agent:
    """A connected client that looks at what it gets."""

    def __init__(self, client: Client, tools: Sequence[Tool]) -> None:
        self.client = client
        self.tools = {tool.name: tool for tool in tools}

    async def call(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """A call that succeeds: its structured content, which the tool's output schema allows."""
        result = await self.client.call_tool(tool, arguments)
        assert not result.is_error, text_of(result)
        self.check(tool, result)
        return content_of(result)

    async def fail(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """A call that fails: its error, which has code, message and remedy, also in its text."""
        return error_of(await self.client.call_tool(tool, arguments))

    def check(self, tool: str, result: CallToolResult) -> None:
        """The structured content is as the output schema says."""
        schema = self.tools[tool].output_schema
        assert schema is not None
        jsonschema.Draft202012Validator(schema).validate(content_of(result))


async def sealed_yes(
    it: Agent, tool: str, arguments: dict[str, Any]
) -> Callable[[], Awaitable[CallToolResult | InputRequiredResult]]:
    """Call a tool that asks, in 2026-07-28, and say yes by hand: what it gives sends the answer, as often as wished."""
    session = it.client.session
    asked = await session.call_tool(tool, arguments, allow_input_required=True)
    assert isinstance(asked, InputRequiredResult)
    yes = ElicitResult(action="accept", content={"confirm": True})
    answers: Any = dict.fromkeys(asked.input_requests or {}, yes)
    state = asked.request_state
    return lambda: session.call_tool(
        tool, arguments, input_responses=answers, request_state=state, allow_input_required=True
    )


def content_of(result: CallToolResult) -> dict[str, Any]:
    """The structured content."""
    assert result.structured_content is not None, text_of(result)
    return result.structured_content


def text_of(result: CallToolResult) -> str:
    """What a client without structured content reads."""
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


def error_of(result: CallToolResult) -> dict[str, Any]:
    """The error that a failed call brings."""
    assert result.is_error, text_of(result)
    error = content_of(result)
    assert sorted(error) == ["code", "message", "next_call", "remedy"]
    words = [error[name] for name in ("code", "message", "remedy")]
    assert all(isinstance(value, str) and value and value in text_of(result) for value in words)
    assert error["next_call"] is None or f"Next: {error['next_call']['tool']}(" in text_of(result)
    return error


@asynccontextmanager
async def agent(settings: Settings, era: str, user: User | None = None) -> AsyncGenerator[Agent]:
    """Connected in memory; without a user the client has no elicitation."""
    async with Client(create_server(settings), mode=ERAS[era], elicitation_callback=user) as client:
        yield Agent(client, (await client.list_tools()).tools)


@asynccontextmanager
async def agent_over_stdio(
    environment: dict[str, str], directory: Path, era: str, user: User | None = None
) -> AsyncGenerator[Agent]:
    """Connected to a subprocess, whose stderr goes to `stderr.log` in the directory it runs in."""
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "scarlet_backup_mcp"], env=environment, cwd=directory
    )
    with (directory / "stderr.log").open("a") as log:
        transport = stdio_client(command, errlog=log)
        async with Client(transport, mode=ERAS[era], elicitation_callback=user) as client:
            assert client.protocol_version == era
            yield Agent(client, (await client.list_tools()).tools)


def command_lines_here() -> list[str]:
    """Of every process on this machine, where /proc tells them."""
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            found.append(path.read_text(errors="replace").replace("\0", " "))
    return found


# The embedded server


def ask(database: LocalDatabase, query: str, *values: object) -> list[Any]:
    """The first column of a query's rows, in the server's maintenance database."""
    with psycopg.connect(database.server.dsn(), autocommit=True) as connection:
        return [row[0] for row in connection.execute(query.encode(), values)]


def execute(database: LocalDatabase, statement: str) -> None:
    """Run a statement in the database."""
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute(statement.encode())


def live_oid(database: LocalDatabase) -> int:
    """Of the database that has the name now: a restore changes it."""
    return ask(database, "SELECT oid::bigint FROM pg_database WHERE datname = %s", database.name)[0]


def undo_points(database: LocalDatabase) -> list[str]:
    """Databases that restores set aside, oldest first."""
    prefix = f"{database.name}_before_restore_"
    return ask(database, "SELECT datname FROM pg_database WHERE starts_with(datname, %s) ORDER BY 1", prefix)


def local_backends(database: LocalDatabase) -> list[str]:
    """Our connections to the embedded server, by their last statement."""
    return ask(database, "SELECT query FROM pg_stat_activity WHERE starts_with(application_name, %s)", TAG)


@contextmanager
def locked(database: LocalDatabase) -> Generator[None]:
    """A table is locked, so that a backup goes on until the end of the block."""
    with psycopg.connect(database.dsn) as connection:
        connection.execute(LOCK.encode())
        yield
        connection.rollback()


# The container


def docker_backends(stack: Stack) -> list[str]:
    """Our connections to the server in the container."""
    query = f"SELECT pid || ' ' || application_name FROM pg_stat_activity WHERE application_name LIKE '{TAG}%'"
    return stack.psql(query, "postgres").splitlines()


def command_lines(container: str) -> list[str]:
    """Of every process in a container, with its arguments."""
    script = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null; echo; done"
    return [line.strip() for line in run_docker("exec", container, "sh", "-c", script).splitlines() if line.strip()]


def client_programs(stack: Stack) -> list[str]:
    """pg_dump and psql processes in the container, but for `locked_in`'s."""
    lines = command_lines(stack.container)
    return [line for line in lines if re.search(r"(^|/)(psql|pg_dump) ", line) and "holder=1" not in line]


@contextmanager
def locked_in(stack: Stack) -> Generator[None]:
    """As `locked`, in the container."""
    psql = ["psql", "-X", "-q", "-v", "holder=1", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "letta"]
    command = ["docker", "exec", "-i", stack.container, *psql]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            holder.stdin.write(f"{LOCK};\n\\echo locked\n".encode())
            holder.stdin.flush()
            assert holder.stdout.readline() == b"locked\n"
            yield
        finally:
            holder.stdin.close()


# The server as a subprocess


class RawServer:
    """A server process, spoken to by hand in the protocol of 2025-11-25, so that every byte of its stdout is seen."""

    def __init__(self, environment: dict[str, str], directory: Path, *arguments: str) -> None:
        self.log = directory / "stderr.log"
        self.noise: list[bytes] = []
        """Lines on stdout that are no JSON-RPC message."""
        self._messages: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "scarlet_backup_mcp", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=directory,
                env=environment,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def initialize(self) -> dict[str, Any]:
        """The handshake; gives the server's answer."""
        client = {"name": "by-hand", "version": "0"}
        parameters = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
        self.send("initialize", parameters, number=0)
        answer = self.answer(0)
        self.send("notifications/initialized", {})
        return answer

    def send(self, method: str, parameters: dict[str, Any], number: int | None = None) -> None:
        """A request, or without a number a notification."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": parameters}
        self.write(json.dumps(message if number is None else message | {"id": number}).encode() + b"\n")

    def call(self, tool: str, arguments: dict[str, Any], number: int) -> None:
        """A tool call that wants progress; its answer is fetched by `answer`."""
        parameters = {"name": tool, "arguments": arguments, "_meta": {"progressToken": number}}
        self.send("tools/call", parameters, number)

    def write(self, line: bytes) -> None:
        """Any bytes to its stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def end_input(self) -> None:
        """As a client that goes away."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def answer(self, number: int, seconds: float = 30) -> dict[str, Any]:
        """The response to a request, once it is there."""
        return self.wait_for(lambda message: message.get("id") == number and "method" not in message, seconds)

    def progress(self, words: str, seconds: float = 30) -> dict[str, Any]:
        """The first progress notification whose message holds these words."""
        return self.wait_for(lambda message: words in str(message.get("params", {}).get("message", "")), seconds)

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool], seconds: float) -> dict[str, Any]:
        """The first message that is wanted, seen already or still to come."""
        with self._changed:
            there = self._changed.wait_for(lambda: any(map(wanted, self._messages)), seconds)
            assert there, f"Not within {seconds} s; so far: {self._messages[-5:]}; {self.log.read_text()[-2000:]}"
            return next(filter(wanted, self._messages))

    def end(self, seconds: float) -> int:
        """The exit code, once all of stdout was read."""
        code = self.process.wait(seconds)
        self._reader.join(5)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(5)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def _read(self) -> None:
        stdout: IO[bytes] | None = self.process.stdout
        assert stdout is not None
        for line in stdout:
            message = as_message(line)
            with self._changed:
                if message is None:
                    self.noise.append(line)
                else:
                    self._messages.append(message)
                self._changed.notify_all()


def as_message(line: bytes) -> dict[str, Any] | None:
    """A line as a JSON-RPC message; None when it is none."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("jsonrpc") == "2.0" else None  # pyright: ignore[reportUnknownVariableType,reportUnknownMemberType]


AGENTS = 2

each_era = pytest.mark.parametrize("era", ERAS)


def directory_of(settings: Settings) -> Path:
    assert settings.dir is not None
    return settings.dir


def files(directory: Path) -> dict[str, bytes]:
    return {item.name: item.read_bytes() for item in directory.iterdir()}
