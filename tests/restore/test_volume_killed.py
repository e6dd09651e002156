"""Restores of a whole volume that are killed: the next call finishes them or takes them back."""

from __future__ import annotations

import json
import re
import secrets
from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import (
    BackupMissing,
    RestoreInterrupted,
    VolumeUnsupported,
)
from scarlet_backup_mcp.models.results import Backup
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.listing import list_backups
from scarlet_backup_mcp.procedures.recovery.journal import StoppedContainer
from scarlet_backup_mcp.procedures.restore import service as restoring
from scarlet_backup_mcp.store.audit import read

from ..helpers.containers import run_docker
from ..helpers.faces import User, agent
from ..helpers.restore import started_at
from ..helpers.sampling import sampled
from ..helpers.volume import (
    ABOVE,
    LABEL,
    PGDATA,
    Rig,
    a_rig,
    a_volume,
    command,
    remove,
    start,
    undo_of,
    users,
)

UNPACKING = ("after the journal is written", "while it is unpacked", "after it is unpacked")
EXCHANGING = (
    "after a dependent is stopped",
    "when the mark is set",
    "when PG_VERSION is out",
    "among the renames",
    "when the old contents are set aside",
    "when all but PG_VERSION is in",
)
EXCHANGED = ("when all is in", "after the start", "when the server is checked", "before the journal is removed")


@pytest.mark.parametrize("moment", sampled(UNPACKING, "while it is unpacked"))
def test_restore_killed_before_the_exchange_leaves_nothing(moment: str, changed_volume: tuple[Rig, Backup]) -> None:
    rig, saved = changed_volume
    undo, began = undo_of(rig), started_at(rig.container)
    rig.killed(moment, saved.name)
    rig.settle()
    assert (rig.was(), started_at(rig.container)) == ("live", began)
    rig.assert_tidy(undo)


@pytest.mark.parametrize("moment", sampled(EXCHANGING, "among the renames"))
def test_restore_killed_in_the_exchange_is_rolled_back(moment: str, undoable_volume: tuple[Rig, str]) -> None:
    rig, undo = undoable_volume
    before = rig.was()
    rig.killed(moment, undo)
    rig.settle()
    assert rig.was() == before
    rig.assert_tidy(undo)


@pytest.mark.long
def test_restore_killed_before_its_journal_leaves_a_helper_that_hinders_nobody(
    changed_volume: tuple[Rig, Backup],
) -> None:
    rig, saved = changed_volume
    rig.killed("before the journal is written", saved.name)
    assert rig.was() == "live"
    assert len(users(rig)) == 2
    rig.call(restoring.propose, saved.name)
    done = rig.restore(saved.name)
    assert rig.was() == "saved"
    rig.assert_tidy(done.undo_point)


@pytest.mark.parametrize("moment", sampled(EXCHANGED, "after the start"))
def test_restore_killed_when_all_is_in_place_is_finished(moment: str, undoable_volume: tuple[Rig, str]) -> None:
    """Somebody may have started the server and written to it since."""
    rig, source = undoable_volume
    before = rig.was()
    rig.killed(moment, source)
    run_docker("start", rig.container)
    rig.wait()
    assert rig.was() != before
    rig.psql("UPDATE marker SET was = 'written since'")
    rig.settle()
    with pytest.raises(BackupMissing, match="no undo point"):  # it was used up
        rig.call(restoring.propose, source)
    assert rig.was() == "written since"
    undo = undo_of(rig)
    assert undo not in (None, source)
    rig.assert_tidy(undo)


SETTLING = (
    "when all but PG_VERSION is in",
    "when it is decided",
    "when PG_VERSION is out again",
    "when the new contents are out again",
    "when the old contents are to be moved",
    "when all but PG_VERSION is in",
    "when all is in",
    "when what was unpacked is removed",
    "after the start",
    "before the journal is removed",
)


@pytest.mark.long
@pytest.mark.parametrize("moments", [SETTLING[:3:2], SETTLING], ids=["two", "all"])
def test_settling_can_be_killed_at_each_step(undoable_volume: tuple[Rig, str], moments: tuple[str, ...]) -> None:
    rig, undo = undoable_volume
    before = rig.was()
    for moment in moments:
        rig.killed(moment, undo)
        assert rig.journal.exists(), moment
    done = rig.restore(undo)
    assert any("rolled back" in warning for warning in done.warnings)
    assert rig.was() != before
    assert done.undo_point is not None
    rig.restore(done.undo_point)
    assert rig.was() == before
    rig.assert_tidy(undo_of(rig))


@pytest.mark.long
def test_sql_backup_first_settles_what_was_cut_off(changed_volume: tuple[Rig, Backup]) -> None:
    rig, saved = changed_volume
    undo = undo_of(rig)
    rig.killed("when the old contents are set aside", saved.name)
    with BackupContext(rig.settings) as context:
        assert any("interrupted" in warning for warning in list_backups(context).warnings)
    with pytest.raises(RestoreInterrupted, match="interrupted"):
        rig.call(restoring.dry_run, saved.name)
    made = rig.call(backup)
    assert any("rolled back" in warning for warning in made.warnings)
    assert rig.was() == "live"
    rig.assert_tidy(undo)
    remove(rig, made)


def test_dependent_that_was_removed_meanwhile_is_told_as_such(changed_volume: tuple[Rig, Backup]) -> None:
    gone = StoppedContainer(id=secrets.token_hex(32), name="vr-there-is-none")
    (report,) = start(changed_volume[0], gone)
    assert (report.name, report.action) == (gone.name, "start failed")
    assert report.detail.startswith("It was removed in the meantime")


@pytest.mark.long
def test_dependent_that_was_made_anew_and_runs_is_left_alone(changed_volume: tuple[Rig, Backup]) -> None:
    rig, _ = changed_volume
    assert rig.stack is not None
    began = started_at(rig.stack.dependent)
    (report,) = start(rig, StoppedContainer(id=secrets.token_hex(32), name=rig.stack.dependent))
    assert (report.action, report.detail) == ("left running", "")
    assert started_at(rig.stack.dependent) == began


@pytest.mark.long
def test_contents_of_a_directory_wait_for_a_container_that_has_it_mounted_again_whatever_its_name(
    require_docker: None, tmp_path: Path
) -> None:
    one, two = (["-v", f"{tmp_path / name}:{PGDATA}"] for name in ("one", "two"))
    with a_rig(tmp_path / "backups", *one) as rig:
        saved = rig.take()
        rig.make_live()
        rig.killed("among the renames", saved.name)
        run_docker("rm", "-f", rig.container)
        with pytest.raises(RestoreInterrupted, match="does not have") as caught:
            rig.take()
        assert f"{tmp_path / 'one'} mounted again" in caught.value.remedy
        rig.create(*two)
        with pytest.raises(RestoreInterrupted, match="does not have"):
            rig.take()
        with a_rig(tmp_path / "backups", *one, start=False) as renamed:
            journal = rig.journal.rename(tmp_path / "journal")
            with pytest.raises(VolumeUnsupported, match="pgsql_tmp_outgoing_"):
                renamed.take()
            journal.rename(rig.journal)
            renamed.settle()
            renamed.wait()
            assert renamed.was() == "live"


@pytest.mark.long
def test_contents_come_back_wherever_they_are_mounted_and_the_journal_goes_without_them_only_if_they_are_gone(
    require_docker: None, tmp_path: Path
) -> None:
    """Another engine, one without a name, a volume that lies elsewhere, and an image that is gone are played by what
    the journal says."""
    with a_volume() as volume, a_rig(tmp_path, "-v", f"{volume}:{PGDATA}") as rig:
        saved = rig.take()
        rig.make_live()
        rig.sh('mkdir "$PGDATA/pgsql_tmp_exchange_20260101_000000"')  # of a call that was killed at its very end
        rig.killed("among the renames", saved.name)
        written = rig.journal.read_text()
        run_docker("rm", "-f", *users(rig))
        rig.create("-v", f"{volume}:{ABOVE}", "-e", f"PGDATA={ABOVE}")
        assert "are kept" in " ".join(rig.settle())
        run_docker("start", rig.container)
        rig.wait()
        rig.sh('rm -r "$PGDATA"/pgsql_tmp_incoming_*')
        rig.assert_tidy(None)
        assert rig.was() == "live"
        run_docker("rm", "-f", rig.container)
        run_docker("volume", "rm", volume)

        def refused(**fields: object) -> str:
            changed = json.dumps(json.loads(written) | fields)
            rig.journal.write_text(changed)
            with pytest.raises(RestoreInterrupted) as caught:
                rig.settle()
            assert rig.journal.read_text() == changed
            assert str(rig.journal) in caught.value.remedy or "image_id" in fields
            return f"{caught.value.message} {caught.value.remedy}"

        assert re.search("is not the Docker engine that had .*DOCKER_CONTEXT", refused(engine="another"))
        assert "not the Docker engine" not in refused(engine=None)
        assert "may still exist elsewhere" in refused(removable=False)
        run_docker("volume", "create", *LABEL, volume)
        assert "not the Docker engine" in refused(engine="another")
        assert "docker compose create" in refused(image_id=f"sha256:{secrets.token_hex(32)}")
        assert re.search("none of pgsql_tmp_outgoing_.* is in it", refused())
        run_docker("volume", "rm", volume)
        rig.journal.write_text(written)
        assert "nothing to settle" in " ".join(rig.settle())
        assert not rig.journal.exists()


@pytest.mark.long
@pytest.mark.anyio
@pytest.mark.parametrize("face", ["terminal", "dialog", "typed"])
async def test_what_was_settled_is_told_also_by_a_call_of_which_nothing_comes(
    changed_volume: tuple[Rig, Backup], face: str
) -> None:
    rig, saved = changed_volume
    undo = undo_of(rig)

    def settlings() -> int:
        entries = [entry for entry in read(rig.directory, 100).entries if "it is rolled back now" in entry.message]
        assert {entry.tool for entry in entries} <= {"restore"}
        return len(entries)

    before = settlings()
    rig.killed("when PG_VERSION is out", saved.name)
    if face == "terminal":
        done = command(rig, "restore", saved.name)
        assert done.returncode == 2
        assert "it is rolled back now" in done.stderr
        assert "confirmation_needed" in done.stderr
    else:
        user = User("decline") if face == "dialog" else None
        async with agent(rig.settings, "2025-11-25", user) as it:
            refused = await it.fail("restore", backup=saved.name)
        asked = user.questions[0] if user else refused["remedy"]
        assert re.search("it is rolled back now.* Restore the volume backup ", asked)
        assert refused["code"] == "confirmation_needed"
    assert settlings() == before + 1
    assert rig.was() == "live"
    rig.assert_tidy(undo)
