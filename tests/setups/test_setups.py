"""Every row of the table: what is said to work does, what is refused is refused in these words, on a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from scarlet_backup_mcp.errors import BackupToolError
from scarlet_backup_mcp.models.common import Kind, Model
from scarlet_backup_mcp.models.results import Finding
from scarlet_backup_mcp.models.verification import Verification
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.integrity import db_integrity
from scarlet_backup_mcp.procedures.restore.service import restore
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import Settings, load_settings
from scarlet_backup_mcp.summaries import describe

from .rows import ALL
from .running import Running, Servers
from .table import Local, Refusal, Setup, Verb

R = TypeVar("R", bound=Model)
LOOPBACK = "postgresql://{user}:{password}@127.0.0.1:{port}/{database}"


def parameters(rows: Iterable[Setup]) -> list[object]:
    """Rows of one server after each other."""
    servers = [row.server for row in rows]
    rows = sorted(rows, key=lambda row: servers.index(row.server))
    return [pytest.param(row, id=row.name, marks=[] if row.sample else [pytest.mark.long]) for row in rows]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    started = Servers(tmp_path_factory.mktemp("servers"))
    yield started
    started.close()


@pytest.mark.parametrize("setup", parameters([row for row in ALL if not isinstance(row.server, Local)]))
def test_set_up_in_a_container(
    setup: Setup, require_docker: None, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk(setup, servers(setup.server), tmp_path, monkeypatch)


@pytest.mark.parametrize("setup", parameters([row for row in ALL if isinstance(row.server, Local)]))
def test_set_up_of_a_local_server(
    setup: Setup, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk(setup, servers(setup.server), tmp_path, monkeypatch)


def walk(setup: Setup, running: Running, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepare the server and take the steps."""
    running.prepare(setup)
    for name, value in setup.environment.items():
        monkeypatch.setenv(name, value.format(**running.known, database=setup.database))
    if setup.around is None:
        Walk(setup, running, settings_of(setup, running, directory)).go()
    else:
        with setup.around(directory) as more:
            Walk(setup, running, settings_of(setup, running, directory, **more)).go()


def settings_of(setup: Setup, running: Running, directory: Path, **more: str) -> Settings:
    """The tool's settings, as a user would give them."""
    given: dict[str, str] = {"dir": str(directory / "backups"), **more}
    if setup.database != "letta" and setup.named:
        given["database"] = setup.database
    if isinstance(setup.server, Local):
        given |= {"via": "local", "bin_dir": "{bin_dir}", "dsn": LOOPBACK}
    elif setup.named:
        given["container"] = "{container}"
    known = {**running.known, "database": setup.database}
    return load_settings(**{name: value.format(**known) for name, value in {**given, **setup.settings}.items()})


class Unproved(BackupToolError):
    """A drill that did not prove a backup: its verdict as a code, and why."""

    def __init__(self, report: Verification) -> None:
        super().__init__(report.drill.detail if report.drill else "There was no drill.")
        self.code = report.verdict or "unknown"


class Walk:
    """The steps of one row, each with a target of its own as each call has."""

    def __init__(self, setup: Setup, running: Running, settings: Settings) -> None:
        self._setup, self._running, self._settings = setup, running, settings
        self._answers: list[str] = []
        self._sql = self._volume = "latest"
        self._before = running.rows(setup.database)

    def go(self) -> None:
        """Take each step that works or is refused, in the usual order; compare what was found at the end."""
        steps: dict[Verb, Callable[[], None]] = {
            "integrity": self._integrity,
            "backup": self._back_up,
            "verify": self._verify,
            "drill": lambda: self._prove(self._sql),
            "restore": lambda: self._bring_back(self._sql),
            "volume backup": self._back_up_the_volume,
            "volume drill": lambda: self._prove(self._volume),
            "volume restore": lambda: self._bring_back(self._volume),
        }
        setup, running = self._setup, self._running
        for verb, step in steps.items():
            if (refusal := setup.refused.get(verb)) is not None:
                self._refused(verb, step, refusal)
            elif verb in setup.works or verb == "integrity":
                if verb in ("restore", "volume restore"):
                    running.sql(setup.spoil, setup.database)
                    assert running.rows(setup.database) != self._before
                step()
        assert running.rows(setup.database) == self._before
        answers = "\n".join(self._answers)
        for phrase in setup.found:
            assert phrase.format(container=running.container) in answers

    def _refused(self, verb: Verb, step: Callable[[], None], refusal: Refusal) -> None:
        said: Finding | BackupToolError
        if verb == "integrity":
            [said] = [finding for finding in self._findings() if finding.code == refusal.code]
        else:
            with pytest.raises(BackupToolError) as raised:
                step()
            said = raised.value
        assert said.code == refusal.code, str(said)
        assert refusal.message in said.message
        assert refusal.remedy in said.remedy

    def _call(self, function: Callable[..., R], *arguments: object, **options: object) -> R:
        with BackupContext(self._settings) as context:
            answer = function(context, Progress(), *arguments, **options)
        self._answers.append(" ".join(describe(answer).split()))
        return answer

    def _findings(self) -> list[Finding]:
        return self._call(db_integrity).findings

    def _integrity(self) -> None:
        assert [finding for finding in self._findings() if finding.severity == "error"] == []

    def _back_up(self) -> None:
        self._sql = self._backup("sql")

    def _back_up_the_volume(self) -> None:
        self._volume = self._backup("volume")

    def _backup(self, kind: Kind) -> str:
        made = self._call(backup, kind=kind, verify="full")
        assert made.good, made.reasons
        return made.name

    def _verify(self) -> None:
        report = self._call(verify, self._sql, level="full")
        assert report.valid, report.checks

    def _prove(self, name: str) -> None:
        report = self._call(verify, name, level="drill")
        if not report.proved:
            raise Unproved(report)

    def _bring_back(self, name: str) -> None:
        self._call(restore, name)
