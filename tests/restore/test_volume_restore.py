"""Restores of a whole volume: the same content comes back, and whatever goes wrong nothing is lost."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import (
    ArgumentsInvalid,
    BackupMissing,
    BackupNotValid,
    BackupToolError,
    Cancelled,
    ConfirmationStale,
    ContainerMissing,
    ForeignRefused,
    OtherDatabaseRefused,
    PreflightFailed,
    RestoreFailed,
    RestoreInterrupted,
    SmallerRefused,
    VolumeUnsupported,
)
from scarlet_backup_mcp.hosts.docker.container import DockerHost
from scarlet_backup_mcp.hosts.docker.helper import LABEL as HELPER_LABEL
from scarlet_backup_mcp.hosts.docker.helper import first_present
from scarlet_backup_mcp.models.results import Backup, DependentReport
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.gate import gate
from scarlet_backup_mcp.procedures.listing import list_backups
from scarlet_backup_mcp.procedures.own_names import ASIDE, VOLUME_UNDO
from scarlet_backup_mcp.procedures.recovery import journal as journals
from scarlet_backup_mcp.procedures.recovery import volume_exchange
from scarlet_backup_mcp.procedures.recovery.helper_container import HELPERS
from scarlet_backup_mcp.procedures.recovery.journal import StoppedContainer
from scarlet_backup_mcp.procedures.restore import service as restoring
from scarlet_backup_mcp.procedures.restore import volume_preflight
from scarlet_backup_mcp.procedures.restore.sql_plan import RestoreOptions
from scarlet_backup_mcp.procedures.sandbox.lifecycle import owner_of
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.store.audit import read
from scarlet_backup_mcp.store.names import JOURNAL

from ..conftest import IMAGE, PROJECT_ROOT
from ..helpers.containers import docker, run_docker, run_docker_quietly
from ..helpers.faces import User, agent, environment_of
from ..helpers.restore import Watch, started_at
from ..helpers.sampling import sampled
from ..helpers.volume import DESTROYED, LABEL, PGDATA, Rig, a_rig, a_stack, a_volume

PG17, PG18 = "pgvector/pgvector:pg17", "pgvector/pgvector:pg18"
ABOVE = "/var/lib/postgresql"


@pytest.fixture(scope="module")
def scarlets(require_docker: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, Backup]]:
    """Scarlet's Compose project, and a backup of it."""
    with a_stack(tmp_path_factory.mktemp("volume") / "scarlet") as rig:
        yield rig, rig.take()


@pytest.fixture
def scarlet(scarlets: tuple[Rig, Backup]) -> tuple[Rig, Backup]:
    """The same, running on contents that differ from what was saved, with whatever undo point there is."""
    rig, saved = scarlets
    assert rig.stack is not None
    rig.settle()  # another test may have failed
    rig.stack.bring_up()
    rig.make_live()
    return rig, saved


@pytest.fixture(scope="module")
def seventeen(require_docker: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, Backup]]:
    """A plain, unhealthy container with PostgreSQL 17 in a subdirectory of an anonymous volume, and a backup of it."""
    unhealthy = ("--health-cmd", "false", "--health-interval", "300ms", "--health-retries", "1")
    inside = ("-e", f"PGDATA={PGDATA}/inner")
    with a_rig(tmp_path_factory.mktemp("seventeen"), *inside, *unhealthy, image=PG17) as rig:
        yield rig, rig.take()


def undo_of(rig: Rig) -> str | None:
    """The name of the undo point that there is."""
    return next((VOLUME_UNDO + name.removeprefix(ASIDE) for name in rig.aside()), None)


def remove(rig: Rig, made: Backup) -> None:
    """A backup that is of no use to other tests."""
    for path in rig.directory.glob(f"{made.name}*"):
        path.unlink()


def users(rig: Rig) -> list[str]:
    """Names of the containers that have the volume."""
    return run_docker("ps", "-a", "--filter", f"volume={rig.volume()}", "--format", "{{.Names}}").split()


def helper_owner(rig: Rig) -> str:
    """What is in the labels of this directory's helpers."""
    with BackupContext(rig.settings) as context:
        return owner_of(context.directory.path / HELPERS)


# -- the same content ------------------------------------------------------------------------------------------------


def destroy_restore_and_undo(rig: Rig, saved: Backup) -> None:
    """content → destroy → restore → the same → undo → destroyed → undo of the undo → the same."""
    before = rig.content()
    rig.psql(DESTROYED, "postgres")
    destroyed = rig.content()
    assert destroyed != before
    done = rig.restore(saved.name)
    assert (done.restored, done.kind, done.integrity_rows) == (True, "volume", 2)
    assert rig.content() == before
    rig.assert_tidy(done.undo_point)
    assert done.undo_point is not None
    undone = rig.restore(done.undo_point)
    assert rig.content() == destroyed
    assert any("no database letta" in warning for warning in undone.warnings)
    rig.assert_tidy(undone.undo_point)
    assert undone.undo_point is not None
    again = rig.restore(undone.undo_point)
    assert rig.content() == before
    rig.assert_tidy(again.undo_point)


def test_destroyed_cluster_comes_back_and_each_step_can_be_undone(scarlets: tuple[Rig, Backup]) -> None:
    rig, saved = scarlets
    destroy_restore_and_undo(rig, saved)
    # Base backups and the server leave what was set aside alone.
    digest = 'cd "$PGDATA"/pgsql_tmp_before* && find . -type f | sort | xargs sha256sum | sha256sum'
    aside = rig.sh(digest)
    later = rig.take()
    with tarfile.open(rig.directory / later.name) as archive:
        assert [name for name in archive.getnames() if "pgsql_tmp" in name] == []
    run_docker("kill", rig.container)
    run_docker("start", rig.container)
    rig.wait()
    assert rig.sh(digest) == aside
    remove(rig, later)


@pytest.mark.long
def test_17_in_a_subdirectory_of_an_anonymous_volume(seventeen: tuple[Rig, Backup]) -> None:
    destroy_restore_and_undo(*seventeen)


def test_server_that_answers_but_is_unhealthy_is_told_of(seventeen: tuple[Rig, Backup]) -> None:
    rig, saved = seventeen
    done = rig.restore(saved.name)
    assert any("is unhealthy, though its server answers" in warning for warning in done.warnings)


@pytest.mark.long
def test_18_in_a_directory_of_its_volume(require_docker: None, tmp_path: Path) -> None:
    with a_volume() as volume, a_rig(tmp_path, "-v", f"{volume}:{ABOVE}", image=PG18) as rig:
        destroy_restore_and_undo(rig, rig.take())


def a_directory_of_another_account(stack: ExitStack, directory: Path) -> list[str]:
    (directory / "data").mkdir()
    accounts = directory / "passwd"
    accounts.write_text("root:x:0:0::/root:/bin/sh\nsomebody:x:1000:1000::/:/bin/sh\n")
    mounts = ["-v", f"{directory / 'data'}:{PGDATA}", "-v", f"{accounts}:/etc/passwd:ro"]
    return [*mounts, "-u", "1000", "--tmpfs", "/var/run/postgresql:uid=1000"]


def a_volume_above_an_anonymous_one(stack: ExitStack, directory: Path) -> list[str]:
    return ["-v", f"{stack.enter_context(a_volume())}:{ABOVE}"]


@pytest.mark.parametrize("layout", [a_directory_of_another_account, a_volume_above_an_anonymous_one])
def test_container_that_has_never_run_gets_the_contents_and_is_started(
    layout: Callable[[ExitStack, Path], list[str]], scarlets: tuple[Rig, Backup], tmp_path: Path
) -> None:
    rig, saved = scarlets
    with ExitStack() as stack:
        box = stack.enter_context(a_rig(rig.directory, *layout(stack, tmp_path), start=False))
        done = box.restore(saved.name, accept_other_database=True)
        assert (done.integrity_rows, done.undo_point) == (2, None)
        assert box.was() == "saved"
        owner = "1000" if layout is a_directory_of_another_account else "999"
        assert box.sh('find "$PGDATA" -exec stat -c %u {} + | sort -u') == owner
        box.assert_tidy(None)


# -- killed ----------------------------------------------------------------------------------------------------------

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


@pytest.fixture
def undoable(scarlet: tuple[Rig, Backup]) -> tuple[Rig, str]:
    """With an undo point: its restore goes the same way, but for the unpacking."""
    rig, saved = scarlet
    undo = undo_of(rig) or rig.restore(saved.name).undo_point
    assert undo is not None
    rig.psql(f"UPDATE marker SET was = '{secrets.token_hex(4)}'")
    return rig, undo


@pytest.mark.parametrize("moment", sampled(UNPACKING, "while it is unpacked"))
def test_restore_killed_before_the_exchange_leaves_nothing(moment: str, scarlet: tuple[Rig, Backup]) -> None:
    rig, saved = scarlet
    undo, began = undo_of(rig), started_at(rig.container)
    rig.killed(moment, saved.name)
    rig.settle()
    assert (rig.was(), started_at(rig.container)) == ("live", began)
    rig.assert_tidy(undo)


@pytest.mark.parametrize("moment", sampled(EXCHANGING, "among the renames", "when all but PG_VERSION is in"))
def test_restore_killed_in_the_exchange_is_rolled_back(moment: str, undoable: tuple[Rig, str]) -> None:
    rig, undo = undoable
    before = rig.was()
    rig.killed(moment, undo)
    rig.settle()
    assert rig.was() == before
    rig.assert_tidy(undo)


def test_restore_killed_before_its_journal_leaves_a_helper_that_hinders_nobody(scarlet: tuple[Rig, Backup]) -> None:
    rig, saved = scarlet
    rig.killed("before the journal is written", saved.name)
    assert rig.was() == "live"
    assert len(users(rig)) == 2
    rig.call(restoring.propose, saved.name)
    done = rig.restore(saved.name)
    assert rig.was() == "saved"
    rig.assert_tidy(done.undo_point)


@pytest.mark.parametrize("moment", sampled(EXCHANGED, "after the start"))
def test_restore_killed_when_all_is_in_place_is_finished(moment: str, undoable: tuple[Rig, str]) -> None:
    """Somebody may have started the server and written to it since."""
    rig, source = undoable
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


@pytest.mark.parametrize("moments", sampled([SETTLING[:3:2], SETTLING], SETTLING[:3:2]), ids=["two", "all"])
def test_settling_can_be_killed_at_each_step(undoable: tuple[Rig, str], moments: tuple[str, ...]) -> None:
    rig, undo = undoable
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


def test_sql_backup_first_settles_what_was_cut_off(scarlet: tuple[Rig, Backup]) -> None:
    rig, saved = scarlet
    undo = undo_of(rig)
    rig.killed("when the old contents are set aside", saved.name)
    with BackupContext(rig.settings) as context:
        assert any("cut off" in warning for warning in list_backups(context).warnings)
    with pytest.raises(RestoreInterrupted, match="cut off"):
        rig.call(restoring.dry_run, saved.name)
    made = rig.call(backup)
    assert any("rolled back" in warning for warning in made.warnings)
    assert rig.was() == "live"
    rig.assert_tidy(undo)
    remove(rig, made)


def test_recreated_container_is_settled_and_another_ones_journal_is_left(
    scarlet: tuple[Rig, Backup], seventeen: tuple[Rig, Backup]
) -> None:
    rig, saved = scarlet
    assert rig.stack is not None
    undo = undo_of(rig)
    rig.killed("when the old contents are set aside", saved.name)
    journal = rig.journal.read_text()
    other = Rig(seventeen[0].container, rig.directory)
    shutil.copy(seventeen[0].directory / seventeen[1].name, rig.directory)
    shutil.copy(seventeen[0].directory / f"{seventeen[1].name}.manifest.json", rig.directory)
    with pytest.raises(RestoreInterrupted, match=rig.container) as refused:
        other.restore(seventeen[1].name)
    assert JOURNAL not in refused.value.remedy, "nobody is told to remove what alone tells the way back"
    with BackupContext(other.settings) as context:
        assert rig.container in " ".join(gate(context).reasons)
    assert rig.journal.read_text() == journal
    made = other.call(backup)
    assert " ".join(made.warnings).count(f"into {rig.container} was cut off") == 1
    assert rig.journal.read_text() == journal
    remove(rig, made)
    remove(rig, seventeen[1])
    rig.stack.compose("rm", "--stop", "--force", "postgres", "letta-server")
    rig.stack.compose("create", "--pull", "never")
    assert f"{rig.stack.dependent}: restarted" in rig.settle()
    assert rig.was() == "live"
    rig.assert_tidy(undo)


def test_dependent_that_was_removed_meanwhile_is_told_as_such(scarlet: tuple[Rig, Backup]) -> None:
    gone = StoppedContainer(id=secrets.token_hex(32), name="vr-there-is-none")
    (report,) = start(scarlet[0], gone)
    assert (report.name, report.action) == (gone.name, "start failed")
    assert report.detail.startswith("It was removed meanwhile")


def test_dependent_that_was_made_anew_and_runs_is_left_alone(scarlet: tuple[Rig, Backup]) -> None:
    rig, _ = scarlet
    assert rig.stack is not None
    began = started_at(rig.stack.dependent)
    (report,) = start(rig, StoppedContainer(id=secrets.token_hex(32), name=rig.stack.dependent))
    assert (report.action, report.detail) == ("left running", "")
    assert started_at(rig.stack.dependent) == began


def start(rig: Rig, stopped: StoppedContainer) -> list[DependentReport]:
    with BackupContext(rig.settings) as context:
        return journals.start(context, [stopped])


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
        assert "is kept" in " ".join(rig.settle())
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

        assert re.search("is another one.*DOCKER_CONTEXT", refused(engine="another"))
        assert "another one" not in refused(engine=None)
        assert "may lie somewhere else still" in refused(removable=False)
        run_docker("volume", "create", *LABEL, volume)
        assert "is another one" in refused(engine="another")
        assert "docker compose create" in refused(image_id=f"sha256:{secrets.token_hex(32)}")
        assert re.search("none of pgsql_tmp_outgoing_.* is in it", refused())
        run_docker("volume", "rm", volume)
        rig.journal.write_text(written)
        assert "nothing to settle" in " ".join(rig.settle())
        assert not rig.journal.exists()


@pytest.mark.anyio
async def test_what_was_settled_is_told_also_by_a_call_of_which_nothing_comes(scarlet: tuple[Rig, Backup]) -> None:
    rig, saved = scarlet
    undo = undo_of(rig)
    rig.killed("when PG_VERSION is out", saved.name)
    user = User()
    async with agent(rig.settings, "2025-11-25", user) as it:
        waits = await it.fail("restore", backup=saved.name)
        assert waits["code"] == "restore_interrupted"
        assert "call `backup`" in waits["message"]
    assert user.questions == []
    done = command(rig, "restore", saved.name)
    assert done.returncode == 2
    assert "it is rolled back now" in done.stderr
    assert "confirmation_needed" in done.stderr
    (last,) = read(rig.directory, 1).entries
    assert (last.tool, last.code) == ("restore", "confirmation_needed")
    assert "it is rolled back now" in last.message
    assert rig.was() == "live"
    rig.assert_tidy(undo)


# -- failing ---------------------------------------------------------------------------------------------------------


def test_contents_on_which_no_server_starts_are_taken_out_again(scarlet: tuple[Rig, Backup]) -> None:
    rig, _ = scarlet
    undo = undo_of(rig)
    rig.sh('cp -p "$PGDATA/postgresql.conf" /tmp && echo "nonsense nonsense" >> "$PGDATA/postgresql.conf"')
    broken = rig.take()
    rig.sh('cp -p /tmp/postgresql.conf "$PGDATA/postgresql.conf"')
    with pytest.raises(RestoreFailed, match="does not come up") as caught:
        rig.restore(broken.name)
    assert "nonsense" in caught.value.message
    assert caught.value.message.endswith("The volume's contents are as they were before.")
    assert rig.was() == "live"
    rig.assert_tidy(undo)
    remove(rig, broken)


def change_a_byte(file: Path) -> None:
    """Near its end. Called twice it is as it was."""
    with file.open("r+b") as opened:
        opened.seek(-2000, 2)
        byte = opened.read(1)[0]
        opened.seek(-2000, 2)
        opened.write(bytes([byte ^ 1]))


def test_file_that_changes_after_it_was_verified_is_not_put_in_place(
    scarlet: tuple[Rig, Backup],
) -> None:
    rig, saved = scarlet
    undo, began = undo_of(rig), started_at(rig.container)
    file = rig.directory / saved.name
    with pytest.raises(ConfirmationStale, match=r"changed after it was verified.*as they were before"):
        rig.restore(saved.name, Watch("unpacking", lambda _: change_a_byte(file)))
    change_a_byte(file)
    assert (rig.was(), started_at(rig.container)) == ("live", began)
    rig.assert_tidy(undo)


@pytest.mark.parametrize("stage", ["unpacking", "starting the server"])
def test_cancelled_restore_leaves_all_as_it_was(stage: str, scarlet: tuple[Rig, Backup]) -> None:
    rig, saved = scarlet
    undo = undo_of(rig)
    watch = Watch(stage, Progress.cancel)
    with pytest.raises(Cancelled):
        rig.restore(saved.name, watch)
    assert watch.reached("starting the server") == (stage == "starting the server")
    assert rig.was() == "live"
    rig.assert_tidy(undo)


def test_helper_that_is_removed_meanwhile_is_replaced_to_put_all_back(scarlet: tuple[Rig, Backup]) -> None:
    rig, saved = scarlet
    undo = undo_of(rig)

    def remove_helper(_: Progress) -> None:
        run_docker("rm", "-f", *(name for name in users(rig) if name != rig.container))

    with pytest.raises(BackupToolError, match="as they were before"):
        rig.restore(saved.name, Watch("exchanging", remove_helper))
    assert rig.was() == "live"
    rig.assert_tidy(undo)


def test_server_that_somebody_starts_in_the_middle_keeps_its_contents(
    scarlet: tuple[Rig, Backup], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `docker compose up` would; the moment is a few milliseconds long."""
    rig, saved = scarlet
    undo, stop, stopped = undo_of(rig), volume_exchange.stop, list[str]()

    def stop_and_start(context: BackupContext, container_id: str) -> None:
        stop(context, container_id)
        if not stopped:
            run_docker("start", container_id)
        stopped.append(container_id)

    monkeypatch.setattr(volume_exchange, "stop", stop_and_start)
    with pytest.raises(RestoreFailed, match=r"Somebody else has started.*as they were before"):
        rig.restore(saved.name)
    assert len(stopped) == 2
    assert rig.was() == "live"
    rig.assert_tidy(undo)


def test_server_that_somebody_starts_while_it_is_stopped_is_told_as_such(
    scarlet: tuple[Rig, Backup], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `docker compose up` would; the moment is a few milliseconds long."""
    rig, _ = scarlet
    stop = DockerHost.stop_container

    def stop_and_start(self: DockerHost, container_id: str, seconds: int) -> None:
        stop(self, container_id, seconds)
        run_docker("start", container_id)

    monkeypatch.setattr(DockerHost, "stop_container", stop_and_start)
    with BackupContext(rig.settings) as context, pytest.raises(RestoreFailed, match="Somebody else has started"):
        volume_exchange.stop(context, rig.container)
    rig.wait()


def test_contents_on_which_somebody_starts_another_server_stay(scarlet: tuple[Rig, Backup]) -> None:
    rig, saved = scarlet
    undo, other = undo_of(rig), f"vr-{secrets.token_hex(4)}"

    def start_another(_: Progress) -> None:
        volume = ("-v", f"{rig.volume()}:/elsewhere")
        run_docker(
            "run", "-d", "--pull", "never", "--name", other, *LABEL, "--entrypoint", "sleep", *volume, IMAGE, "60"
        )

    try:
        with pytest.raises(PreflightFailed, match=rf"mounted: {other}.*as they were before"):
            rig.restore(saved.name, Watch("stopping the server", start_another))
    finally:
        run_docker_quietly("rm", "-fv", other)
    assert rig.was() == "live"
    rig.assert_tidy(undo)


def test_server_that_can_not_be_started_again_is_told_of_and_nothing_waits_for_it(
    require_docker: None, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with ExitStack() as held, a_rig(tmp_path, "-p", f"127.0.0.1:{port}:5432") as rig:
        saved = rig.take()
        rig.make_live()

        def take_its_port(_: Progress) -> None:
            held.enter_context(socket.create_server(("127.0.0.1", port)))

        with pytest.raises(BackupToolError, match=r"as they were before.*Not everything could be started again"):
            rig.restore(saved.name, Watch("starting the server", take_its_port))
        assert not rig.journal.exists()
        assert rig.take().cold
        held.close()
        run_docker("start", rig.container)
        rig.wait()
        assert rig.was() == "live"
        rig.assert_tidy(None)


def test_too_small_a_disk_is_refused_and_a_full_one_gives_all_back(
    scarlet: tuple[Rig, Backup], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, saved = scarlet
    small = ("--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=100m")
    with a_volume(*small) as volume, a_rig(tmp_path, "-v", f"{volume}:{PGDATA}") as box:
        for name in (saved.name, f"{saved.name}.manifest.json"):
            shutil.copy(rig.directory / name, tmp_path)
        before, began = box.content(), started_at(box.container)
        with pytest.raises(PreflightFailed, match="bytes free") as refused:
            box.restore(saved.name, accept_other_database=True)
        assert "undo point" not in refused.value.remedy
        undo = f"{ASIDE}20260101_000000"
        box.sh(f'mkdir "$PGDATA/{undo}"')
        with pytest.raises(PreflightFailed, match="bytes free") as refused:
            box.restore(saved.name, accept_other_database=True)
        assert f"{VOLUME_UNDO}20260101_000000 lies on that disk" in refused.value.remedy
        assert "prune --include-undo" in refused.value.remedy
        box.sh(f'rmdir "$PGDATA/{undo}"')
        monkeypatch.setattr(volume_preflight, "ROOM", 0)
        monkeypatch.setattr(volume_preflight, "SPARE_BYTES", 0)
        box.sh('dd if=/dev/zero of="$PGDATA/pgsql_tmp_filler" bs=1M count=30 2>/dev/null')
        with pytest.raises(RestoreFailed, match=r"No space left.*; at least [\d,]+ lines more; .*as they were before"):
            box.restore(saved.name, accept_other_database=True)
        box.sh('rm "$PGDATA/pgsql_tmp_filler"')
        assert (box.content(), started_at(box.container)) == (before, began)
        box.assert_tidy(None)


# -- refused ---------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[list[str], str]] = {
    "in the container itself": (["-e", "PGDATA=/pgdata"], "lies on no volume"),
    "in memory": (["--tmpfs", PGDATA], "lies on no volume"),
    "a mount inside": (["-v", f"{PGDATA}/pg_wal"], f"{PGDATA}/pg_wal is mounted inside it"),
    "read-only": (["-v", f"nowhere:{PGDATA}:ro"], "it is mounted read-only"),
    "removed when it stops": (["--rm"], "started with --rm"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_container_whose_contents_cannot_be_exchanged_is_refused(
    what: str, scarlets: tuple[Rig, Backup], tmp_path: Path
) -> None:
    rig, saved = scarlets
    options, words = REFUSED[what]
    with (
        a_volume() as volume,
        a_rig(rig.directory, *(o.replace("nowhere", volume) for o in options), start=False) as box,
    ):
        with pytest.raises(PreflightFailed, match=words):
            box.restore(saved.name, accept_other_database=True)
        assert box.state() == "created"


def test_volume_that_another_container_uses_is_refused_until_that_has_ended(scarlet: tuple[Rig, Backup]) -> None:
    rig, saved = scarlet
    undo, began = undo_of(rig), started_at(rig.container)
    sleeper = ("run", "-d", "--rm", *LABEL, "--volumes-from", rig.container, "--entrypoint", "sleep", IMAGE, "100")
    other = run_docker(*sleeper).strip()
    try:
        with pytest.raises(PreflightFailed, match="Other containers that run have the same volume"):
            rig.restore(saved.name)
    finally:
        run_docker("rm", "-f", other)
    assert (rig.was(), started_at(rig.container)) == ("live", began)
    rig.assert_tidy(undo)


def test_paused_container_is_refused(scarlet: tuple[Rig, Backup]) -> None:
    rig, saved = scarlet
    run_docker("pause", rig.container)
    try:
        with pytest.raises(PreflightFailed, match="is paused"):
            rig.restore(saved.name)
    finally:
        run_docker("unpause", rig.container)
    assert rig.was() == "live"


def test_sources_that_do_not_fit_are_refused(scarlet: tuple[Rig, Backup], seventeen: tuple[Rig, Backup]) -> None:
    rig, saved = scarlet
    box, of_17 = seventeen
    undo, began = undo_of(rig), started_at(rig.container)
    for name in (of_17.name, f"{of_17.name}.manifest.json"):
        shutil.copy(box.directory / name, rig.directory)
    with pytest.raises(OtherDatabaseRefused, match=box.container):
        rig.restore(of_17.name)
    with pytest.raises(PreflightFailed, match="of PostgreSQL 17; the container's image is of 15") as caught:
        rig.restore(of_17.name, accept_other_database=True)
    assert "pgvector/pgvector:pg17" in caught.value.remedy
    with pytest.raises(BackupMissing, match="no undo point"):
        rig.restore(f"{VOLUME_UNDO}20200101_000000")
    with pytest.raises(BackupMissing):
        rig.restore("latest")
    file = rig.directory / saved.name
    foreign = rig.directory / "postgres_volume_20260101_000000.tar.gz"
    change_a_byte(file)
    shutil.copy(file, foreign)
    with pytest.raises(BackupNotValid, match="sha256"):
        rig.restore(saved.name)
    change_a_byte(file)
    with pytest.raises(BackupNotValid, match=r"compression|structure|files"):
        rig.restore(foreign.name, accept_foreign=True, drill=False)
    foreign.unlink()
    (rig.directory / f"{of_17.name}.manifest.json").write_text("{}")
    with pytest.raises(BackupNotValid, match=r"is damaged: The manifest of .*: it is not what was written\. \("):
        rig.restore(of_17.name)
    remove(rig, of_17)
    assert (rig.was(), started_at(rig.container)) == ("live", began)
    rig.assert_tidy(undo)


# -- other sources and places ----------------------------------------------------------------------------------------


def test_proc_004s_own_archive_is_restored_when_that_is_accepted(scarlet: tuple[Rig, Backup]) -> None:
    rig, _ = scarlet
    rig.psql("UPDATE marker SET was = 'saved'; CHECKPOINT")
    name = "postgres_volume_20250101_000000.tar.gz"
    mounts = ("-v", f"{rig.volume()}:/data", "-v", f"{rig.directory}:/backup")
    # PROC-004's command, but for the image, which is one that is here.
    run_docker("run", "--rm", *LABEL, *mounts, "--entrypoint", "tar", IMAGE, "czf", f"/backup/{name}", "/data")
    rig.make_live()
    with pytest.raises(ForeignRefused, match="no manifest"):
        rig.restore(name)
    done = rig.restore(name, accept_foreign=True, drill=False)
    assert any("may be torn" in warning for warning in done.warnings)
    assert rig.was() == "saved"
    rig.assert_tidy(done.undo_point)
    assert rig.sh('ls "$PGDATA" | grep -c postmaster') == "2"
    (rig.directory / name).unlink()


def test_stopped_container_gets_its_contents_and_is_started(scarlet: tuple[Rig, Backup]) -> None:
    rig, _ = scarlet
    run_docker("stop", rig.container)
    cold = rig.take()
    proposal = rig.call(restoring.propose, cold.name)
    assert "the server could not be asked" in proposal.question
    assert "cold copy" in proposal.question
    done = rig.restore(cold.name)
    assert rig.was() == "live"
    rig.assert_tidy(done.undo_point)
    remove(rig, cold)


def test_shrunk_backup_says_so_before_it_is_restored(scarlet: tuple[Rig, Backup]) -> None:
    rig, _ = scarlet
    rig.psql("CREATE TABLE kept AS TABLE agents; DELETE FROM agents; CREATE UNLOGGED TABLE passing AS SELECT 1 AS n")
    shrunk = rig.take()
    question = rig.call(restoring.propose, shrunk.name).question
    assert "had shrunk" in question
    assert "Unlogged tables are empty in it: public.passing." in question
    rig.psql("INSERT INTO agents SELECT * FROM kept; DROP TABLE kept, passing")
    remove(rig, shrunk)


def test_archive_that_brings_less_needs_a_word_of_its_own(scarlet: tuple[Rig, Backup]) -> None:
    rig, saved = scarlet
    rig.psql("INSERT INTO agents SELECT n, 'new' FROM generate_series(10, 1009) AS n")
    for call in (restoring.propose, restoring.dry_run, restoring.restore):
        with pytest.raises(SmallerRefused, match=r"brings 3 rows, 2 of them in agents, and replaces 1,003 rows"):
            rig.call(call, saved.name)
    question = rig.call(restoring.propose, saved.name, RestoreOptions(accept_smaller=True)).question
    assert "less than half of what it replaces" in question
    for source in (saved.name, f"{VOLUME_UNDO}20200101_000000"):
        with pytest.raises(ArgumentsInvalid, match="no constraint is checked"):
            rig.restore(source, accept_violations=True)
    rig.psql("DELETE FROM agents WHERE id > 9")
    assert rig.was() == "live"


def compose(rig: Rig, *arguments: str) -> str:
    """`docker compose`, with what it says on stderr."""
    assert rig.stack is not None
    files = ("-f", str(rig.stack.directory / "compose.yaml"), "-f", str(rig.stack.directory / "override.yaml"))
    environment = {"SCARLET_CONTAINER": rig.container, "POSTGRES_PASSWORD": rig.stack.password}
    done = docker(("compose", "-p", rig.stack.project, *files, *arguments), env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr.decode()
    return done.stderr.decode()


def test_fresh_machine(scarlet: tuple[Rig, Backup]) -> None:
    """Neither container nor volume; then a volume alone."""
    rig, saved = scarlet
    rig.restore(saved.name)
    before, volume = rig.content(), rig.volume()
    compose(rig, "down", "--volumes", "--timeout", "1")
    would = rig.call(restoring.dry_run, saved.name)
    assert would.undo_point is None
    assert run_docker("volume", "ls", "-q", "--filter", f"name={volume}") == "", "a dry run makes no volume"
    done = rig.restore(saved.name)
    assert (done.restored, done.undo_point, done.unavailable_seconds) == (True, None, None)
    assert any("no server was seen to run" in warning for warning in done.warnings)
    again = rig.restore(saved.name)
    assert again.undo_point is not None
    said = compose(rig, "up", "-d", "--wait", "--pull", "never")
    assert "warn" not in said.lower()
    assert rig.content() == before
    rig.assert_tidy(again.undo_point)


def test_image_is_found_by_its_name_where_its_id_is_gone(require_docker: None) -> None:
    """As after another pull of the same tag."""
    gone = f"sha256:{secrets.token_hex(32)}"
    assert first_present(gone, IMAGE) == IMAGE
    assert first_present(gone, None, f"{gone[7:20]}:no-such-tag") is None


def test_without_a_container_only_a_backup_of_this_one_tells_the_volume(
    scarlets: tuple[Rig, Backup], seventeen: tuple[Rig, Backup]
) -> None:
    rig, saved = scarlets
    nobody = Rig("vr-there-is-none", rig.directory)
    with pytest.raises(ContainerMissing, match="the backup is of"):
        nobody.restore(saved.name, accept_other_database=True)
    with pytest.raises(ContainerMissing):
        nobody.restore(f"{VOLUME_UNDO}20260101_000000")


# -- the dry run and the faces ---------------------------------------------------------------------------------------


def test_dry_run_changes_nothing_and_ends_nobodys_helper(scarlet: tuple[Rig, Backup]) -> None:
    rig, saved = scarlet
    undo, began = undo_of(rig), started_at(rig.container)
    owner = helper_owner(rig)
    beside = run_docker(
        "run", "-d", "--rm", *LABEL, "--label", f"{HELPER_LABEL}={owner}", "--entrypoint", "sleep", IMAGE, "100"
    ).strip()
    try:
        would = rig.call(restoring.dry_run, saved.name)
        assert (would.restored, would.dry_run, would.undo_point) == (False, True, f"{VOLUME_UNDO}<time>")
        assert run_docker("inspect", "-f", "{{.State.Status}}", beside).strip() == "running"
    finally:
        run_docker_quietly("rm", "-f", beside)
    assert (rig.was(), started_at(rig.container)) == ("live", began)
    rig.assert_tidy(undo)


def test_two_restores_into_one_volume_do_not_meet(undoable: tuple[Rig, str], tmp_path: Path) -> None:
    """From two backup directories, which have no lock in common."""
    rig, undo = undoable
    second, refused = Rig(rig.container, tmp_path, rig.stack), list[str]()

    def restore_too(_: Progress) -> None:
        with pytest.raises(PreflightFailed, match="Other containers that run have the same volume") as caught:
            second.restore(undo)
        refused.append(caught.value.message)

    done = rig.restore(undo, Watch("stopping the server", restore_too))
    assert len(refused) == 1
    rig.assert_tidy(done.undo_point)


@pytest.mark.anyio
async def test_agent_is_asked_and_a_stale_answer_is_refused(scarlet: tuple[Rig, Backup]) -> None:
    rig, saved = scarlet
    assert rig.stack is not None
    user = User()
    async with agent(rig.settings, "2026-07-28", user) as it:
        done = await it.call("restore", backup=saved.name, wait_seconds=0)
        assert (done["restored"], done["kind"]) == (True, "volume")
        assert "Restore the volume backup" in user.questions[0]
        assert "every database that is there now (letta, other, postgres, template0, template1;" in user.questions[0]
        listed = await it.call("list_backups")
        assert [point["name"] for point in listed["undo_points"]] == [done["undo_point"]]
        rig.make_live()
        user.meanwhile = lambda: compose(rig, "up", "-d", "--wait", "--force-recreate", "--pull", "never", "postgres")
        assert (await it.fail("restore", backup=saved.name, wait_seconds=0))["code"] == "confirmation_stale"
        assert rig.was() == "live"
    async with agent(rig.settings, "2025-11-25") as it:
        needed = await it.fail("restore", backup=done["undo_point"])
        assert needed["code"] == "confirmation_needed"
        phrase = f"restore {done['undo_point']}"
        assert phrase in needed["remedy"]
        undone = await it.call("restore", backup=done["undo_point"], confirmation=phrase, wait_seconds=0)
        assert undone["source_kind"] == "undo_point"
    assert rig.was() == "live"
    rig.assert_tidy(undone["undo_point"])


def command(rig: Rig, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, with nobody to be asked."""
    return subprocess.run(
        [sys.executable, "-m", "scarlet_backup_mcp", *arguments],
        env=environment_of(rig.settings),
        cwd=PROJECT_ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_command_line(scarlet: tuple[Rig, Backup]) -> None:
    rig, saved = scarlet
    would = command(rig, "restore", saved.name, "--dry-run")
    assert would.returncode == 0, would.stderr
    assert rig.was() == "live"
    done = command(rig, "restore", saved.name, "--yes")
    assert done.returncode == 0, done.stderr
    assert "every database of the cluster" in done.stdout
    undo = undo_of(rig)
    assert undo is not None
    assert undo in done.stdout
    assert rig.was() == "saved"
    rig.assert_tidy(undo)
