"""The MCP server as a subprocess: the whole job, what is on its pipes, and how it ends."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest
from mcp.shared.exceptions import MCPError

from scarlet_backup_mcp.settings import PREFIX, Settings, load_settings

from ..conftest import LocalDatabase, Stack
from ..helpers.containers import run_docker
from ..helpers.faces import (
    ERAS,
    Agent,
    RawServer,
    User,
    agent_over_stdio,
    client_programs,
    command_lines,
    command_lines_here,
    docker_backends,
    docker_settings,
    environment_of,
    error_of,
    local_settings,
    locked,
    locked_in,
    unfinished,
    until,
)

AGENTS = 2
ROWS = 554
"""In memory.sql."""
LOSS = "TRUNCATE letta.agents CASCADE"
"""What PROC-003 comes to when it goes wrong."""
TABLES = ("agents", "block", "block_history", "blocks_agents", "messages", "archival_passages")
FINGERPRINT = " UNION ALL ".join(
    f"SELECT '{table} ' || md5(string_agg(md5(t::text), '' ORDER BY md5(t::text))) FROM letta.{table} t"
    for table in TABLES
)
"""Every row of the tables, whatever their order."""
FILLER = """
CREATE TABLE letta.filler AS SELECT repeat(md5(i::text), 400) AS text FROM generate_series(1, 6000) AS i;
"""
"""Some 75 MB of dump: long enough to meet it on its way."""
END_SECONDS = 10.0
"""A server that is told to end has 2 s for it; the rest is this machine's."""
FROZEN_SECONDS = 3

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="signals")
each_era = pytest.mark.parametrize("era", ERAS)


# -- the whole job ---------------------------------------------------------------------------------------------------


async def main_job(it: Agent, lose: Callable[[], object], fingerprint: Callable[[], object]) -> dict[str, Any]:
    """What the tools are for, in the order in which an agent calls them; gives the restore's report."""
    before = fingerprint()
    assert sorted(it.tools) == ["backup", "db_integrity", "list_backups", "prune_backups", "restore", "verify_backup"]
    assert (await it.call("db_integrity"))["agents"] == AGENTS
    made = await it.call("backup", label="before PROC-003")
    assert (made["safe_to_proceed"], made["shrunk"], made["rows"]) == (True, False, ROWS)
    assert {table["name"]: table["rows"] for table in made["tables"]}["agents"] == AGENTS
    assert Path(made["path"]).stat().st_size == made["bytes"]
    verified = await it.call("verify_backup", backup=made["name"])
    assert (verified["valid"], verified["level"], verified["sha256"]) == (True, "full", made["sha256"])
    listed = (await it.call("list_backups"))["backups"]
    assert [(each["name"], each["state"], each["label"]) for each in listed] == [
        (made["name"], "good", "before PROC-003")
    ]

    lose()
    assert fingerprint() != before
    lost = await it.call("db_integrity")
    assert (lost["healthy"], lost["agents"]) == (False, 0)
    assert [f["code"] for f in lost["findings"] if f["severity"] == "error"] == ["integrity_table_empty"]

    restored = await it.call("restore", backup=made["name"])
    assert (restored["restored"], restored["source"], restored["rows_compared"]) == (True, made["name"], ROWS)
    assert (restored["integrity_rows_before"], restored["integrity_rows"]) == (0, AGENTS)
    found = await it.call("db_integrity")
    assert (found["healthy"], found["agents"]) == (True, AGENTS)
    assert fingerprint() == before
    points = (await it.call("list_backups"))["undo_points"]
    assert [point["name"] for point in points] == [restored["undo_point"]]
    return restored


@pytest.mark.sample(1)
@each_era
async def test_main_job_in_a_container(scarlet: Stack, tmp_path: Path, era: str) -> None:
    """Without any directory in the settings: Compose's label tells it."""
    directory = scarlet.directory / "backups"
    for old in directory.glob("*"):
        old.unlink()
    user = User()

    async with agent_over_stdio(environment_of(docker_settings(scarlet)), tmp_path, era, user) as it:
        restored = await main_job(it, lambda: scarlet.psql(LOSS), lambda: scarlet.psql(FINGERPRINT))
        assert (await it.call("list_backups"))["directory"] == str(directory)
    assert [(each["name"], each["action"]) for each in restored["dependents"]] == [(scarlet.dependent, "restarted")]
    assert scarlet.state(scarlet.dependent) == "running"
    assert len(user.questions) == 1
    assert scarlet.container in user.questions[0]
    assert said_and_written(tmp_path) == ("", ["stderr.log"])


@each_era
async def test_main_job_on_a_local_server(local_database: LocalDatabase, tmp_path: Path, era: str) -> None:
    settings = local_settings(local_database, tmp_path / "backups")
    work = tmp_path / "work"
    work.mkdir()

    def run(statement: str) -> object:
        with psycopg.connect(local_database.dsn, autocommit=True) as connection:
            answer = connection.execute(statement.encode())
            return answer.fetchall() if answer.description else None

    async with agent_over_stdio(environment_of(settings), work, era, User()) as it:
        restored = await main_job(it, lambda: run(LOSS), lambda: run(FINGERPRINT))
    assert restored["dependents"] == []
    assert said_and_written(work) == ("", ["stderr.log"])


def said_and_written(directory: Path) -> tuple[str, list[str]]:
    """What the server said on stderr, and what lies where it ran."""
    return (directory / "stderr.log").read_text(), sorted(item.name for item in directory.iterdir())


# -- what is on the pipes --------------------------------------------------------------------------------------------


def test_tools_are_listed_within_ten_seconds_of_the_start(tmp_path: Path) -> None:
    began = time.monotonic()
    with RawServer(environment_of(docker_settings_of_nobody()), tmp_path) as it:
        it.initialize()
        it.send("tools/list", {}, number=1)
        assert len(it.answer(1)["result"]["tools"]) == 6
        assert time.monotonic() - began < 10


def docker_settings_of_nobody() -> Settings:
    """For servers that are not asked for anything."""
    return load_settings(container="there-is-no-such-container")


def test_nothing_but_the_protocol_is_on_stdout(local_database: LocalDatabase, tmp_path: Path) -> None:
    settings = local_settings(local_database, tmp_path / "backups")
    with RawServer(environment_of(settings), tmp_path) as it:
        answer = it.initialize()
        assert answer["result"]["protocolVersion"] == "2025-11-25"
        it.call("backup", {}, number=1)
        assert not it.answer(1)["result"]["isError"]
        it.call("restore", {"backup": "there_is_none.sql"}, number=2)
        assert it.answer(2)["result"]["structuredContent"]["code"] in ("backup_missing", "confirmation_needed")
        it.call("backup", {"labl": "misspelt"}, number=3)
        assert it.answer(3)["result"]["isError"]
        it.call("no_such_tool", {}, number=4)
        it.answer(4)
        it.send("no/such/method", {}, number=5)
        assert "error" in it.answer(5)
        it.write(b"this is no message\n")
        it.send("ping", {}, number=6)
        assert it.answer(6)["result"] == {}
        it.end_input()
        assert it.end(END_SECONDS) == 0
        assert it.noise == []


WRONG = {
    "DIR": ("backups", "absolute"),
    "VIA": ("podman", "'docker' or 'local'"),
    "CONTAINER": ("a b", "letters, digits"),
    "PREFIX": ("../x", "letters, digits"),
    "DATABASE": ("template1", "not a template"),
    "USER": ("u" * 64, "63 bytes"),
    "INTEGRITY_TABLE": ("a\nb", "no control characters"),
}


async def test_wrong_settings_are_the_answer_of_every_call(tmp_path: Path) -> None:
    """Each with its variable, its value and what is allowed; of a server that ends hosts only say that it is closed."""
    environment = environment_of(docker_settings_of_nobody())
    environment |= {PREFIX + name: value for name, (value, _) in WRONG.items()}
    async with agent_over_stdio(environment, tmp_path, "2026-07-28") as it:
        assert len(it.tools) == 6
        for tool, arguments in (("list_backups", {}), ("backup", {}), ("restore", {"backup": "latest"})):
            error = await it.fail(tool, **arguments)
            assert error["code"] == "configuration_invalid"
            for name, (value, allowed) in WRONG.items():
                assert f"{PREFIX}{name}={value!r}" in error["message"], name
                assert allowed in error["message"], name
    said = (tmp_path / "stderr.log").read_text()
    assert "configuration_invalid" in said
    assert "Traceback" not in said


async def test_local_server_without_its_address_says_what_is_missing(tmp_path: Path) -> None:
    environment = environment_of(docker_settings_of_nobody()) | {f"{PREFIX}VIA": "local"}
    async with agent_over_stdio(environment, tmp_path, "2025-11-25") as it:
        assert "SCARLET_BACKUP_DSN" in (await it.fail("db_integrity"))["message"]


# -- giving up, and ending -------------------------------------------------------------------------------------------


def streaming(stack: Stack, directory: Path) -> None:
    """Wait until a dump is on its way."""
    until(lambda: any(part.stat().st_size > 1_000_000 for part in directory.glob("*.partial")), 30, "a dump")
    assert client_programs(stack)


def assert_nothing_is_left(stack: Stack, directory: Path) -> None:
    """Neither here nor there: a backend may see a second later that its client has gone."""
    assert unfinished(directory) == []
    assert list(directory.glob("*.sql*")) == []
    assert client_programs(stack) == []
    until(lambda: not docker_backends(stack), 10, "no backend of ours")


@contextmanager
def held(stack: Stack, directory: Path, how: str) -> Generator[Callable[[], None]]:
    """A backup that begins in this block goes on; gives what waits until it is under way."""
    if how == "locked":
        with locked_in(stack):
            yield lambda: until(lambda: docker_backends(stack), 30, "a backend")
    else:
        stack.psql(FILLER)
        yield lambda: streaming(stack, directory)


@pytest.mark.sample(1)
@each_era
async def test_backup_that_is_given_up_leaves_nothing_in_the_container(
    scarlet: Stack, tmp_path: Path, era: str
) -> None:
    directory = tmp_path / "backups"
    async with agent_over_stdio(environment_of(docker_settings(scarlet, directory)), tmp_path, era) as it:

        async def nothing_is_left() -> None:
            with anyio.fail_after(10):
                while (await it.call("list_backups"))["jobs"]:
                    await anyio.sleep(0.05)
            assert_nothing_is_left(scarlet, directory)

        with held(scarlet, directory, "streaming") as wait:
            async with anyio.create_task_group() as tasks:

                async def call() -> None:
                    await it.client.call_tool("backup", {})

                tasks.start_soon(call)
                await anyio.to_thread.run_sync(wait)
                tasks.cancel_scope.cancel()
            await nothing_is_left()
        with pytest.raises(MCPError):
            await it.client.call_tool("backup", {}, read_timeout_seconds=0.5)
        await nothing_is_left()


Ending = Callable[[RawServer], None]


def end_of_input(it: RawServer) -> None:
    it.end_input()


def sigterm(it: RawServer) -> None:
    it.process.send_signal(signal.SIGTERM)


def sigint(it: RawServer) -> None:
    it.process.send_signal(signal.SIGINT)


@pytest.mark.sample(1)
@posix_only
@pytest.mark.parametrize(
    ("how", "end", "code"),
    [
        ("streaming", end_of_input, 0),
        ("streaming", sigterm, 143),
        ("locked", sigint, 130),
        ("locked", end_of_input, 0),
    ],
)
def test_server_that_ends_during_a_backup_leaves_nothing(
    scarlet: Stack, tmp_path: Path, how: str, end: Ending, code: int
) -> None:
    directory = tmp_path / "backups"
    with RawServer(environment_of(docker_settings(scarlet, directory)), tmp_path) as it:
        it.initialize()
        with held(scarlet, directory, how) as wait:
            it.call("backup", {}, number=1)
            wait()
            end(it)
            assert it.end(END_SECONDS) == code
            assert_nothing_is_left(scarlet, directory)
        assert it.noise == []
        assert "Traceback" not in it.log.read_text()


@posix_only
@pytest.mark.parametrize(("end", "code"), [(end_of_input, 0), (sigterm, 143), (sigint, 130)])
def test_server_without_work_ends_at_once(tmp_path: Path, end: Ending, code: int) -> None:
    with RawServer(environment_of(docker_settings_of_nobody()), tmp_path) as it:
        it.initialize()
        end(it)
        assert it.end(END_SECONDS) == code
        assert it.noise == []
        assert it.log.read_text() == ""


@pytest.mark.sample(1)
@posix_only
@pytest.mark.parametrize(("end", "code"), [(end_of_input, 0), (sigterm, 143)])
def test_server_that_ends_around_the_swap_finishes_it_first(
    scarlet: Stack, tmp_path: Path, end: Ending, code: int
) -> None:
    """The service that depends on the database is frozen for a while, so that it can't be stopped."""
    directory = tmp_path / "backups"
    before = scarlet.psql(FINGERPRINT)
    with RawServer(environment_of(docker_settings(scarlet, directory)), tmp_path) as it:
        it.initialize()
        it.call("backup", {}, number=1)
        name = it.answer(1)["result"]["structuredContent"]["name"]
        scarlet.psql(LOSS)
        run_docker("kill", "--signal", "STOP", scarlet.dependent)
        try:
            it.call("restore", {"backup": name, "confirmation": f"restore {name}"}, number=2)
            it.progress("swapping")
            until(lambda: "restore.journal.json" in unfinished(directory), 20, "the journal")
            end(it)
            time.sleep(FROZEN_SECONDS)
            assert it.process.poll() is None, "it does not leave a swap half done"
        finally:
            run_docker("kill", "--signal", "CONT", scarlet.dependent)
        assert it.end(15) == code
    assert unfinished(directory) == []
    assert scarlet.psql(FINGERPRINT) == before
    assert scarlet.state(scarlet.dependent) == "running"
    names = scarlet.psql("SELECT datname FROM pg_database WHERE datname LIKE 'letta%' ORDER BY 1", "postgres").split()
    assert names[0] == "letta"
    assert [other[:21] for other in names[1:]] == ["letta_before_restore_"]
    assert client_programs(scarlet) == []


# -- two servers -----------------------------------------------------------------------------------------------------


@pytest.mark.long
async def test_second_server_is_busy(local_database: LocalDatabase, tmp_path: Path) -> None:
    environment = environment_of(local_settings(local_database, tmp_path / "backups"))
    async with (
        agent_over_stdio(environment, tmp_path, "2025-11-25") as first,
        agent_over_stdio(environment, tmp_path, "2026-07-28", User()) as second,
    ):
        made = await first.call("backup")
        with locked(local_database):
            job = (await first.call("backup", wait_seconds=2))["job"]
            for tool, arguments in [("backup", {}), ("restore", {"backup": made["name"]})]:
                error = error_of(await second.client.call_tool(tool, arguments))
                assert error["code"] == "busy", tool
            assert (await second.fail("backup", job=job))["code"] == "job_unknown"
        done = await first.call("backup", job=job)
        names = [each["name"] for each in (await second.call("list_backups"))["backups"]]
        assert names == [done["name"], made["name"]]
        assert (await second.call("backup"))["safe_to_proceed"]


# -- secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.long
async def test_password_is_seen_nowhere(scarlet: Stack, tmp_path: Path) -> None:
    """Not in a result, the log, a kept file, or the arguments of any process while a backup and a restore run."""
    directory = tmp_path / "backups"
    seen: list[str] = []
    async with agent_over_stdio(
        environment_of(docker_settings(scarlet, directory)), tmp_path, "2025-11-25", User()
    ) as it:
        with locked_in(scarlet):
            running = await it.call("backup", wait_seconds=0.5)
            until(lambda: client_programs(scarlet), 10, "a program of ours")
            seen += command_lines(scarlet.container)
            seen += command_lines_here()
        seen.append(json.dumps(await it.call("backup", job=running["job"])))
        for tool, arguments in [
            ("verify_backup", {}),
            ("list_backups", {}),
            ("db_integrity", {}),
            ("restore", {"backup": "latest"}),
            ("restore", {"backup": "there_is_none.sql"}),
        ]:
            seen.append((await it.client.call_tool(tool, arguments)).model_dump_json())
    seen.append((tmp_path / "stderr.log").read_text())
    seen += [item.read_text(errors="replace") for item in directory.iterdir()]
    assert any("psql" in text for text in seen)
    assert [text[:200] for text in seen if scarlet.password in text] == []
