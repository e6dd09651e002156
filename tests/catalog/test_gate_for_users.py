"""The gate as users meet it: over MCP and on the command line."""

from __future__ import annotations

import time
from pathlib import Path

from scarlet_backup_mcp.models.results import Backup, Gate
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.progress import Progress, State
from scarlet_backup_mcp.settings import Settings
from scarlet_backup_mcp.store.audit import AUDIT

from ..conftest import LocalDatabase
from ..helpers.command_line import CommandLine
from ..helpers.faces import (
    ERAS,
    Agent,
    agent,
    execute,
    local_settings,
)
from ..helpers.keeping import NOWHERE, SETTLED, command_line_of
from ..helpers.store import shelf


class Writes(Progress):
    """Somebody writes while the dump is being taken."""

    def __init__(self, database: LocalDatabase) -> None:
        super().__init__()
        self._database, self._stages = database, set[str]()

    def show(self, state: State) -> None:
        if state.stage == "dumping" and state.stage not in self._stages:
            self._stages.add(state.stage)
            execute(self._database, "UPDATE letta.agents SET name = name")
            time.sleep(SETTLED)


async def gate_over(it: Agent) -> Gate:
    contents = (await it.client.read_resource("scarlet://gate")).contents
    assert [found.mime_type for found in contents] == ["application/json"]
    return Gate.model_validate_json(getattr(contents[0], "text", ""))


async def same_everywhere(settings: Settings, command_line: CommandLine, *, opened: bool) -> Gate:
    """What `gate`, the resource and `db_integrity` say, which is one thing."""
    told = command_line.answer(Gate, 0 if opened else 1, "gate")
    for era in ERAS:
        async with agent(settings, era) as it:
            found, looked = await gate_over(it), await it.call("db_integrity")
            assert looked["safe_to_proceed"] == looked["gate"]["safe_to_proceed"]
            for other in (found, Gate.model_validate(looked["gate"])):
                assert (
                    (other.safe_to_proceed, other.backup)
                    == (told.safe_to_proceed, told.backup)
                    == (
                        opened,
                        told.backup,
                    )
                )
                assert len(other.reasons) == len(told.reasons)
    return told


async def test_gate_says_the_same_to_everyone_and_shuts_on_a_write(database: LocalDatabase, tmp_path: Path) -> None:
    settings = local_settings(database, tmp_path / "backups")
    call = command_line_of(settings, tmp_path)
    assert "There is no backup" in (await same_everywhere(settings, call, opened=False)).reasons[0]
    made = call.answer(Backup, 0, "backup")
    assert (await same_everywhere(settings, call, opened=True)).backup == made.name
    said = call.run("gate")
    assert (said.returncode, said.stdout.splitlines()[0]) == (0, "PROC-003 may go ahead.")
    execute(database, "DELETE FROM letta.messages WHERE sequence_id > 20")
    time.sleep(SETTLED)
    assert "deleted since" in (await same_everywhere(settings, call, opened=False)).reasons[0]
    said = call.run("gate", "--quiet")
    assert (said.returncode, said.stdout.splitlines()[0]) == (1, "PROC-003 must NOT go ahead.")
    wrong = call.run("gate", "--gate-minutes", "0")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert call.run("gate", "--dsn", NOWHERE + database.name).returncode == 1
    assert not (tmp_path / "backups" / AUDIT).read_bytes().count(b'"gate"')


async def test_backup_is_not_safe_when_something_was_written_meanwhile(database: LocalDatabase, tmp_path: Path) -> None:
    here = shelf(database, tmp_path / "backups")
    call = command_line_of(here.settings, tmp_path)
    with BackupContext(here.settings) as context:
        made = backup(context, Writes(database))
    assert (made.safe_to_proceed, made.shrunk) == (False, False)
    assert "since" in made.reasons[-1]
    assert here.state(made.name) == "good"
    assert call.run("gate").returncode == 1
    assert call.answer(Backup, 0, "backup").safe_to_proceed
    assert call.run("gate").returncode == 0


def test_gate_is_shut_where_the_server_does_not_count_what_is_written(database: LocalDatabase, tmp_path: Path) -> None:
    call = command_line_of(local_settings(database, tmp_path / "backups"), tmp_path)
    execute(database, f"ALTER DATABASE {database.name} SET track_counts = no")
    assert call.answer(Backup, 0, "backup").safe_to_proceed, "nothing at all was written on the server since"
    execute(database, "DELETE FROM letta.messages WHERE sequence_id > 20")
    time.sleep(SETTLED)
    assert "track_counts" in call.answer(Gate, 1, "gate").reasons[0]


async def test_gate_that_wants_proof_opens_on_a_drill_only(database: LocalDatabase, tmp_path: Path) -> None:
    settings = local_settings(database, tmp_path / "backups").model_copy(update={"gate_level": "proved"})
    call = command_line_of(settings, tmp_path)
    unproved = call.answer(Backup, 1, "backup", "--verify=full")
    assert any("No restore drill has proved" in reason for reason in unproved.reasons)
    async with agent(settings, "2026-07-28") as it:
        proved = await it.call("backup", verify="drill")
        assert (proved["safe_to_proceed"], proved["proved"]) == (True, True)
        found = await gate_over(it)
        assert (found.safe_to_proceed, found.backup) == (True, proved["name"])
        assert "a restore drill" in found.reasons[0]
    assert call.run("gate").returncode == 0
