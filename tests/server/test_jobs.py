"""Long calls over MCP: jobs, progress, and calls that are given up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import anyio
import pytest
from mcp.shared.exceptions import MCPError

from scarlet_backup_mcp.models.common import Model
from scarlet_backup_mcp.models.results import Backup
from scarlet_backup_mcp.procedures.backup import service
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import Settings

from ..conftest import LocalDatabase
from ..helpers.faces import (
    Agent,
    User,
    agent,
    content_of,
    directory_of,
    each_era,
    local_backends,
    locked,
    text_of,
    undo_points,
    unfinished,
    until,
)

# -- long calls ------------------------------------------------------------------------------------------------------


@each_era
async def test_long_call_goes_on_as_a_job(local_database: LocalDatabase, local: Settings, era: str) -> None:
    async with agent(local, era) as it:
        with locked(local_database):
            running = await it.call("backup", wait_seconds=0.3, label="long")
            assert running["status"] == "running"
            job = running["job"]
            assert running["next_call"]["arguments"] == {"job": job}
            listing = await it.call("list_backups")
            assert [(each["job"], each["tool"]) for each in listing["jobs"]] == [(job, "backup")]
            assert [each["name"] for each in listing["backups"] if each["state"] != "partial"] == []
            again = await it.call("backup", wait_seconds=0.1, job=job)
            assert (again["status"], again["job"]) == ("running", job)
            assert again["elapsed_seconds"] > running["elapsed_seconds"]
        made = await it.call("backup", job=job)
        assert (made["status"], made["label"]) == ("done", "long")
        assert await it.call("backup", job=job) == made, "the result of an ended job"
        listing = await it.call("list_backups")
        assert listing["jobs"] == []
        assert [each["name"] for each in listing["backups"]] == [made["name"]]


async def test_job_that_fails_tells_it_each_time(local_database: LocalDatabase, local: Settings) -> None:
    async with agent(local, "2025-11-25") as it:
        with locked(local_database):
            job = (await it.call("backup", wait_seconds=0.1))["job"]
            directory = directory_of(local)
            await anyio.to_thread.run_sync(until, lambda: unfinished(directory), 30, "the dump's file")
            directory.rename(directory.with_name("gone"))
        errors = [await it.fail("backup", job=job) for _ in range(2)]
    assert errors[0] == errors[1]


async def test_job_is_known_to_its_tool_only(local_database: LocalDatabase, local: Settings) -> None:
    async with agent(local, "2026-07-28") as it, agent(local, "2026-07-28") as other:
        with locked(local_database):
            job = (await it.call("backup", wait_seconds=0.1))["job"]
            assert (await it.fail("verify_backup", job=job))["code"] == "job_unknown"
            assert (await it.fail("restore", backup="latest", job=job))["code"] == "job_unknown"
            assert (await it.fail("backup", job="backup-00000000"))["code"] == "job_unknown"
            assert (await other.fail("backup", job=job))["code"] == "job_unknown"
        assert (await it.call("backup", job=job))["status"] == "done"


@pytest.mark.sample(1)
@each_era
async def test_restore_can_be_a_job(local_database: LocalDatabase, local: Settings, era: str) -> None:
    user = User()
    async with agent(local, era, user) as it:
        await it.call("backup")
        running = await it.call("restore", backup="latest", wait_seconds=0.05)
        assert running["status"] == "running"
        done = await it.call("restore", backup="latest", job=running["job"])
        assert done["restored"]
        assert await it.call("restore", backup="latest", job=running["job"]) == done
    assert len(user.questions) == 1
    assert undo_points(local_database) == [done["undo_point"]]


def leave(seconds: float) -> Callable[[Agent], Any]:
    async def call(it: Agent) -> None:
        with anyio.move_on_after(seconds) as scope:
            await it.client.call_tool("backup", {})
        assert scope.cancelled_caught

    return call


async def time_out(it: Agent) -> None:
    with pytest.raises(MCPError):
        await it.client.call_tool("backup", {}, read_timeout_seconds=0.5)


@pytest.mark.sample(2)
@pytest.mark.parametrize("stop", [leave(0.5), time_out], ids=["cancelled", "timed out"])
@each_era
async def test_call_that_is_given_up_leaves_nothing(
    local_database: LocalDatabase, local: Settings, era: str, stop: Callable[[Agent], Any]
) -> None:
    async with agent(local, era) as it:
        with locked(local_database):
            await stop(it)
            with anyio.fail_after(10):
                while (await it.call("list_backups"))["jobs"] or local_backends(local_database):
                    await anyio.sleep(0.05)
            assert unfinished(directory_of(local)) == []
        assert (await it.call("list_backups"))["backups"] == []
        assert (await it.call("backup"))["safe_to_proceed"]


async def test_waiting_again_and_giving_up_cancels_the_job(local_database: LocalDatabase, local: Settings) -> None:
    async with agent(local, "2025-11-25") as it:
        with locked(local_database):
            job = (await it.call("backup", wait_seconds=0.1))["job"]
            with anyio.move_on_after(0.3):
                await it.client.call_tool("backup", {"job": job})
            with anyio.fail_after(10):
                while (await it.call("list_backups"))["jobs"]:
                    await anyio.sleep(0.05)
        assert (await it.fail("backup", job=job))["code"] == "cancelled"
    assert unfinished(directory_of(local)) == []


# -- progress --------------------------------------------------------------------------------------------------------

Told = list[tuple[float, float, str]]


async def progress_of(it: Agent, tool: str, arguments: dict[str, Any], status: str = "done") -> Told:
    """Moment, number and message of every progress notification of a call that ends with this status."""
    told: Told = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        assert total == 100
        told.append((time.monotonic(), progress, message or ""))

    result = await it.client.call_tool(tool, arguments, progress_callback=note)
    assert not result.is_error, text_of(result)
    assert content_of(result).get("status", "done") == status
    return told


def assert_orderly(told: Told) -> None:
    """The number always grows, to 100, and no second brings more than five notifications."""
    numbers = [number for _, number, _ in told]
    assert numbers == sorted(set(numbers)), told
    assert numbers[-1] == 100, told
    assert all(later - earlier > 0.9 for (earlier, *_), (later, *_) in zip(told, told[5:], strict=False)), told


@each_era
async def test_progress_grows(local: Settings, era: str) -> None:
    async with agent(local, era, User()) as it:
        calls: Iterable[tuple[str, dict[str, Any]]] = [
            ("backup", {}),
            ("restore", {"backup": "latest"}),
            ("verify_backup", {}),
        ]
        for tool, arguments in calls:
            told = await progress_of(it, tool, arguments)
            assert told[0][1] == 0, tool
            assert all(message for *_, message in told), tool
            assert_orderly(told)


@each_era
async def test_progress_goes_on_where_the_job_is(local_database: LocalDatabase, local: Settings, era: str) -> None:
    """Of a call that goes on waiting: neither from 0 again, nor with a bar that stands at its end."""
    async with agent(local, era) as it:
        with locked(local_database):
            first = await progress_of(it, "backup", {"wait_seconds": 1.2}, "running")
            job = (await it.call("list_backups"))["jobs"][0]["job"]
            second = await progress_of(it, "backup", {"wait_seconds": 0.5, "job": job}, "running")
        third = await progress_of(it, "backup", {"job": job})
    assert 0 == first[0][1] < first[-1][1] <= second[0][1] < second[-1][1] + 1 < 100
    assert second[-1][1] <= third[0][1] < third[-1][1] == 100


@pytest.mark.sample(1)
@each_era
async def test_progress_grows_whatever_a_procedure_reports(
    idle: Settings, era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real procedures do each of this, but only with tables of certain sizes, and not in this short a time."""

    def work(context: BackupContext, progress: Progress, **options: Any) -> Model:
        progress.stage("much", 1e6)
        for count in range(100_000):
            progress.report(count)
        progress.stage("more than was expected", 100)
        for table in ("one", "two", "three"):
            progress.report(200, table)
            time.sleep(0.3)
        progress.stage("nobody knows how much")
        for table in ("one", "two", "three"):
            progress.report(0, table)
            time.sleep(0.3)
        return example_backup()

    monkeypatch.setattr(service, "backup", work)
    async with agent(idle, era) as it:
        told = await progress_of(it, "backup", {})
    assert len(told) > 2
    assert_orderly(told)


def example_backup() -> Backup:
    return Backup.model_validate(
        {
            "name": "x.sql",
            "path": "/x.sql",
            "kind": "sql",
            "created_at": "2026-01-01T00:00:00Z",
            "bytes": 1,
            "sha256": "0",
            "compression": "none",
            "label": None,
            "database": "letta",
            "server": "database letta, container abiogenesis-postgres",
            "tables": [],
            "total_tables": 0,
            "rows": 0,
            "integrity_rows": 0,
            "steps": [],
            "good": False,
            "safe_to_proceed": False,
            "reasons": [],
            "shrunk": False,
            "warnings": [],
            "duration_seconds": 0,
        }
    )
