"""Everything that is done with a backup, on each kind of engine and over each way to one."""

from __future__ import annotations

import pytest

from scarlet_backup_mcp.hosts.docker.helper import LABEL as HELPER
from scarlet_backup_mcp.hosts.docker.sandbox import LABEL as SANDBOX
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.integrity import db_integrity
from scarlet_backup_mcp.procedures.listing import list_backups
from scarlet_backup_mcp.procedures.prune import prune
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import load_settings

from ..helpers.containers import run_docker
from ..helpers.engines import Reached
from ..helpers.volume import DESTROYED, PGDATA, a_rig, a_volume, undo_of

pytestmark = pytest.mark.long


def test_the_whole_loop(engine: Reached, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("engine") / "backups"
    with a_volume() as volume, a_rig(directory, *(options := ("--network", "none", "-v", f"{volume}:{PGDATA}"))) as rig:
        as_saved = rig.content()
        of_database = rig.call(backup, verify="drill").name
        of_volume = rig.take().name
        assert rig.call(verify, of_database).proved
        assert rig.call(verify, of_volume, "drill").proved

        rig.make_live()
        undo = rig.restore(of_database).undo_point
        assert rig.was() == "saved"
        assert undo is not None
        rig.restore(undo)
        assert rig.was() == "live"

        rig.psql(DESTROYED, "postgres")
        destroyed = rig.content()
        rig.restore(of_volume)
        rig.wait()
        assert rig.content() == as_saved
        rig.restore(undo_of(rig) or "")
        rig.wait()
        assert rig.content() == destroyed
        rig.restore(of_volume)

        rig.wait()
        run_docker("stop", "-t", "60", rig.container)
        cold = rig.take()
        assert cold.name != of_volume
        run_docker("start", rig.container)
        rig.wait()
        rig.make_live()
        rig.restore(cold.name)
        rig.wait()
        assert rig.content() == as_saved

        assert rig.call(db_integrity).healthy
        with BackupContext(rig.settings) as context:
            listed = list_backups(context)
        assert {item.name for item in listed.backups} == {of_database, of_volume, cold.name}
        run_docker("rm", "-f", rig.container)
        rig.restore(cold.name)
        rig.create(*options, start=True)
        rig.wait()
        assert rig.content() == as_saved
        older = rig.call(backup).name
        rig.call(backup)
        kept_few = load_settings(dir=directory, container=rig.container, keep_last=1, keep_daily=0, keep_weekly=0)
        with BackupContext(kept_few.model_copy(update={"keep_monthly": 0})) as context:
            removed = prune(context, Progress(), dry_run=False, include_undo=True)
        assert older in {item.name for item in removed.items if item.action == "removed"}
        for label in (HELPER, SANDBOX):
            assert run_docker("ps", "-aq", "--filter", f"label={label}") == ""
