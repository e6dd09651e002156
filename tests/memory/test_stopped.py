"""What a killed call left stopped is started by the next one, and forgotten only once it runs or is gone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import EngineUnreachable, RestoreInterrupted
from scarlet_backup_mcp.procedures.call_notes import CallNotes
from scarlet_backup_mcp.procedures.recovery.journal import StoppedContainer
from scarlet_backup_mcp.procedures.recovery.stopped import StoppedJournal, settle_stopped, waiting
from scarlet_backup_mcp.store.names import STOPPED

from ..conftest import IMAGE
from ..helpers.containers import run_docker
from ..helpers.memory import Project, project


@pytest.fixture
def made(require_docker: None) -> Iterator[Project]:
    with project() as made:
        made.add("postgres", IMAGE, command=("sleep", "600"))
        yield made


def test_it_is_tried_until_it_runs_or_is_gone(made: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    container = run_docker("inspect", "-f", "{{.Id}}", made.add("letta", IMAGE, command=("sleep", "600"))).strip()
    stopped = [StoppedContainer(id=container, name=made.container("letta")), StoppedContainer(id="0" * 64, name="gone")]
    journal = StoppedJournal(containers=stopped, started_at=datetime(2026, 1, 1, tzinfo=UTC))
    (tmp_path / STOPPED).write_text(journal.model_dump_json(), encoding="utf-8")
    run_docker("stop", "-t", "0", container)
    with made.context(tmp_path) as context:
        assert made.container("letta") in (waiting(context) or "")
        with monkeypatch.context() as patch:
            patch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
            with pytest.raises(EngineUnreachable):
                settle_stopped(context, CallNotes())
        assert (tmp_path / STOPPED).exists()

        notes = CallNotes()
        settle_stopped(context, notes)
        assert run_docker("inspect", "-f", "{{.State.Status}}", container).strip() == "running"
        assert f"{made.container('letta')} restarted" in notes.settled[0]
        assert "gone start failed" in notes.settled[0]
        assert waiting(context) is None

        settle_stopped(context, notes)
        assert len(notes.settled) == 1
        (tmp_path / STOPPED).write_text("{", encoding="utf-8")
        with pytest.raises(RestoreInterrupted, match="can't be read"):
            settle_stopped(context, notes)
