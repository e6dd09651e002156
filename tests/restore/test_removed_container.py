"""A container that was removed, as by `docker compose down`, with its volume still there."""

from __future__ import annotations

from pathlib import Path

import pytest

from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.restore.service import restore
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import load_settings

from ..helpers.volume import a_stack, compose


@pytest.mark.long
def test_a_cold_copy_brings_its_volume_back(require_docker: None, tmp_path: Path) -> None:
    """With only the project named, whose container has another name than the default one."""
    with a_stack(tmp_path / "scarlet") as rig:
        assert rig.stack is not None
        settings, before = load_settings(dir=rig.directory, project=rig.stack.project), rig.content()
        compose(rig, "stop", "postgres")
        with BackupContext(settings) as context:
            cold = backup(context, Progress(), kind="volume")
        compose(rig, "start", "postgres")
        rig.wait()
        rig.make_live()
        compose(rig, "down")
        with BackupContext(settings) as context:
            done = restore(context, Progress(), cold.name)
        assert done.undo_point is not None
        compose(rig, "up", "-d", "--pull", "never")
        rig.wait()
        assert rig.content() == before
