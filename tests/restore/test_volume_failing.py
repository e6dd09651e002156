"""Restores of a whole volume that fail: what was there is there again."""

from __future__ import annotations

import secrets
import shutil
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import (
    BackupToolError,
    Cancelled,
    ConfirmationStale,
    PreflightFailed,
    RestoreFailed,
)
from scarlet_backup_mcp.hosts.docker.container import DockerHost
from scarlet_backup_mcp.models.results import Backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.own_names import ASIDE, VOLUME_UNDO
from scarlet_backup_mcp.procedures.recovery import volume_exchange
from scarlet_backup_mcp.procedures.restore import volume_preflight
from scarlet_backup_mcp.progress import Progress

from ..conftest import IMAGE
from ..helpers.containers import run_docker, run_docker_quietly
from ..helpers.restore import Watch, started_at
from ..helpers.volume import (
    LABEL,
    PGDATA,
    Rig,
    a_rig,
    a_volume,
    change_a_byte,
    remove,
    undo_of,
    users,
)


@pytest.mark.long
def test_contents_on_which_no_server_starts_are_taken_out_again(changed_volume: tuple[Rig, Backup]) -> None:
    rig, _ = changed_volume
    undo = undo_of(rig)
    rig.sh('cp -p "$PGDATA/postgresql.conf" /tmp && echo "nonsense nonsense" >> "$PGDATA/postgresql.conf"')
    broken = rig.take()
    rig.sh('cp -p /tmp/postgresql.conf "$PGDATA/postgresql.conf"')
    with pytest.raises(RestoreFailed, match="does not start") as caught:
        rig.restore(broken.name)
    assert "nonsense" in caught.value.message
    assert caught.value.message.endswith("The volume's contents are as before.")
    assert rig.was() == "live"
    rig.assert_tidy(undo)
    remove(rig, broken)


def test_file_that_changes_after_it_was_verified_is_not_put_in_place(
    changed_volume: tuple[Rig, Backup],
) -> None:
    rig, saved = changed_volume
    undo, began = undo_of(rig), started_at(rig.container)
    file = rig.directory / saved.name
    with pytest.raises(ConfirmationStale, match=r"changed after it was verified.*contents are as before"):
        rig.restore(saved.name, Watch("unpacking", lambda _: change_a_byte(file)))
    change_a_byte(file)
    assert (rig.was(), started_at(rig.container)) == ("live", began)
    rig.assert_tidy(undo)


@pytest.mark.sample(1)
@pytest.mark.parametrize("stage", ["unpacking", "starting the server"])
def test_cancelled_restore_leaves_all_as_it_was(stage: str, changed_volume: tuple[Rig, Backup]) -> None:
    rig, saved = changed_volume
    undo = undo_of(rig)
    watch = Watch(stage, Progress.cancel)
    with pytest.raises(Cancelled):
        rig.restore(saved.name, watch)
    assert watch.reached("starting the server") == (stage == "starting the server")
    assert rig.was() == "live"
    rig.assert_tidy(undo)


@pytest.mark.long
def test_helper_that_is_removed_meanwhile_is_replaced_to_put_all_back(changed_volume: tuple[Rig, Backup]) -> None:
    rig, saved = changed_volume
    undo = undo_of(rig)

    def remove_helper(_: Progress) -> None:
        run_docker("rm", "-f", *(name for name in users(rig) if name != rig.container))

    with pytest.raises(BackupToolError, match="contents are as before"):
        rig.restore(saved.name, Watch("exchanging", remove_helper))
    assert rig.was() == "live"
    rig.assert_tidy(undo)


def test_server_that_somebody_starts_in_the_middle_keeps_its_contents(
    changed_volume: tuple[Rig, Backup], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `docker compose up` would; the moment is a few milliseconds long."""
    rig, saved = changed_volume
    undo, stop, stopped = undo_of(rig), volume_exchange.stop, list[str]()

    def stop_and_start(context: BackupContext, container_id: str) -> None:
        stop(context, container_id)
        if not stopped:
            run_docker("start", container_id)
        stopped.append(container_id)

    monkeypatch.setattr(volume_exchange, "stop", stop_and_start)
    with pytest.raises(RestoreFailed, match=r"Somebody started.*contents are as before"):
        rig.restore(saved.name)
    assert len(stopped) == 2
    assert rig.was() == "live"
    rig.assert_tidy(undo)


@pytest.mark.long
def test_server_that_somebody_starts_while_it_is_stopped_is_told_as_such(
    changed_volume: tuple[Rig, Backup], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `docker compose up` would; the moment is a few milliseconds long."""
    rig, _ = changed_volume
    stop = DockerHost.stop_container

    def stop_and_start(self: DockerHost, container_id: str, seconds: int) -> None:
        stop(self, container_id, seconds)
        run_docker("start", container_id)

    monkeypatch.setattr(DockerHost, "stop_container", stop_and_start)
    with BackupContext(rig.settings) as context, pytest.raises(RestoreFailed, match="Somebody started"):
        volume_exchange.stop(context, rig.container)
    rig.wait()


@pytest.mark.long
def test_contents_on_which_somebody_starts_another_server_stay(changed_volume: tuple[Rig, Backup]) -> None:
    rig, saved = changed_volume
    undo, other = undo_of(rig), f"vr-{secrets.token_hex(4)}"

    def start_another(_: Progress) -> None:
        volume = ("-v", f"{rig.volume()}:/elsewhere")
        run_docker(
            "run", "-d", "--pull", "never", "--name", other, *LABEL, "--entrypoint", "sleep", *volume, IMAGE, "60"
        )

    try:
        with pytest.raises(PreflightFailed, match=rf"mounted: {other}.*contents are as before"):
            rig.restore(saved.name, Watch("stopping the server", start_another))
    finally:
        run_docker_quietly("rm", "-fv", other)
    assert rig.was() == "live"
    rig.assert_tidy(undo)


@pytest.mark.long
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

        with pytest.raises(BackupToolError, match=r"contents are as before.*Not everything could be started again"):
            rig.restore(saved.name, Watch("starting the server", take_its_port))
        assert not rig.journal.exists()
        assert rig.take().cold
        held.close()
        run_docker("start", rig.container)
        rig.wait()
        assert rig.was() == "live"
        rig.assert_tidy(None)


def test_too_small_a_disk_is_refused_and_a_full_one_gives_all_back(
    changed_volume: tuple[Rig, Backup], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, saved = changed_volume
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
        assert f"{VOLUME_UNDO}20260101_000000 is on that disk" in refused.value.remedy
        assert "prune --include-undo" in refused.value.remedy
        box.sh(f'rmdir "$PGDATA/{undo}"')
        monkeypatch.setattr(volume_preflight, "ROOM", 0)
        monkeypatch.setattr(volume_preflight, "SPARE_BYTES", 0)
        box.sh('dd if=/dev/zero of="$PGDATA/pgsql_tmp_filler" bs=1M count=30 2>/dev/null')
        with pytest.raises(
            RestoreFailed, match=r"No space left.*; at least [\d,]+ lines more; .*contents are as before"
        ):
            box.restore(saved.name, accept_other_database=True)
        box.sh('rm "$PGDATA/pgsql_tmp_filler"')
        assert (box.content(), started_at(box.container)) == (before, began)
        box.assert_tidy(None)
