"""Restores of a whole volume: the same content comes back, and whatever goes wrong nothing is lost."""

from __future__ import annotations

import secrets
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import (
    ArgumentsInvalid,
    BackupMissing,
    BackupNotValid,
    ContainerMissing,
    ForeignRefused,
    OtherDatabaseRefused,
    PreflightFailed,
    RestoreInterrupted,
    SmallerRefused,
)
from scarlet_backup_mcp.hosts.docker.helper import LABEL as HELPER_LABEL
from scarlet_backup_mcp.hosts.docker.helper import first_present
from scarlet_backup_mcp.models.results import Backup
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.gate import gate
from scarlet_backup_mcp.procedures.own_names import VOLUME_UNDO
from scarlet_backup_mcp.procedures.recovery.helper_container import HELPERS
from scarlet_backup_mcp.procedures.restore import service as restoring
from scarlet_backup_mcp.procedures.restore.options import RestoreOptions
from scarlet_backup_mcp.procedures.sandbox.lifecycle import owner_of
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.store.names import JOURNAL

from ..conftest import IMAGE
from ..helpers.containers import run_docker, run_docker_quietly
from ..helpers.faces import User, agent
from ..helpers.restore import Watch, started_at
from ..helpers.volume import (
    ABOVE,
    DESTROYED,
    LABEL,
    PGDATA,
    Rig,
    a_rig,
    a_volume,
    change_a_byte,
    command,
    compose,
    remove,
    undo_of,
)

PG17, PG18 = "pgvector/pgvector:pg17", "pgvector/pgvector:pg18"


@pytest.fixture(scope="module")
def seventeen(require_docker: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, Backup]]:
    """A plain, unhealthy container with PostgreSQL 17 in a subdirectory of an anonymous volume, and a backup of it."""
    unhealthy = ("--health-cmd", "false", "--health-interval", "1s", "--health-retries", "1")
    inside = ("-e", f"PGDATA={PGDATA}/inner")
    with a_rig(tmp_path_factory.mktemp("seventeen"), *inside, *unhealthy, image=PG17) as rig:
        yield rig, rig.take()


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


def test_destroyed_cluster_comes_back_and_each_step_can_be_undone(saved_volume: tuple[Rig, Backup]) -> None:
    rig, saved = saved_volume
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


@pytest.mark.long
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


@pytest.mark.sample(1)
@pytest.mark.parametrize("layout", [a_directory_of_another_account, a_volume_above_an_anonymous_one])
def test_container_that_has_never_run_gets_the_contents_and_is_started(
    layout: Callable[[ExitStack, Path], list[str]], saved_volume: tuple[Rig, Backup], tmp_path: Path
) -> None:
    rig, saved = saved_volume
    with ExitStack() as stack:
        box = stack.enter_context(a_rig(rig.directory, *layout(stack, tmp_path), start=False))
        done = box.restore(saved.name, accept_other_database=True)
        assert (done.integrity_rows, done.undo_point) == (2, None)
        assert box.was() == "saved"
        owner = "1000" if layout is a_directory_of_another_account else "999"
        assert box.sh('find "$PGDATA" -exec stat -c %u {} + | sort -u') == owner
        box.assert_tidy(None)


@pytest.mark.long
def test_recreated_container_is_settled_and_another_ones_journal_is_left(
    changed_volume: tuple[Rig, Backup], seventeen: tuple[Rig, Backup]
) -> None:
    rig, saved = changed_volume
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
    assert " ".join(made.warnings).count(f"into {rig.container} was interrupted") == 1
    assert rig.journal.read_text() == journal
    remove(rig, made)
    remove(rig, seventeen[1])
    rig.stack.compose("rm", "--stop", "--force", "postgres", "letta-server")
    rig.stack.compose("create", "--pull", "never")
    assert f"{rig.stack.dependent}: restarted" in rig.settle()
    assert rig.was() == "live"
    rig.assert_tidy(undo)


# -- refused ---------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[list[str], str]] = {
    "in the container itself": (["-e", "PGDATA=/pgdata"], "is on no volume"),
    "in memory": (["--tmpfs", PGDATA], "is on no volume"),
    "a mount inside": (["-v", f"{PGDATA}/pg_wal"], f"{PGDATA}/pg_wal is mounted inside it"),
    "read-only": (["-v", f"nowhere:{PGDATA}:ro"], "it is mounted read-only"),
    "removed when it stops": (["--rm"], "started with --rm"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_container_whose_contents_cannot_be_exchanged_is_refused(
    what: str, saved_volume: tuple[Rig, Backup], tmp_path: Path
) -> None:
    rig, saved = saved_volume
    options, words = REFUSED[what]
    with (
        a_volume() as volume,
        a_rig(rig.directory, *(o.replace("nowhere", volume) for o in options), start=False) as box,
    ):
        with pytest.raises(PreflightFailed, match=words):
            box.restore(saved.name, accept_other_database=True)
        assert box.state() == "created"


def test_volume_that_another_container_uses_is_refused_until_that_has_ended(changed_volume: tuple[Rig, Backup]) -> None:
    rig, saved = changed_volume
    undo, began = undo_of(rig), started_at(rig.container)
    sleeper = ("run", "-d", "--rm", *LABEL, "--volumes-from", rig.container, "--entrypoint", "sleep", IMAGE, "100")
    other = run_docker(*sleeper).strip()
    try:
        with pytest.raises(PreflightFailed, match="Other running containers have the same volume"):
            rig.restore(saved.name)
    finally:
        run_docker("rm", "-f", other)
    assert (rig.was(), started_at(rig.container)) == ("live", began)
    rig.assert_tidy(undo)


def test_paused_container_is_refused(changed_volume: tuple[Rig, Backup]) -> None:
    rig, saved = changed_volume
    run_docker("pause", rig.container)
    try:
        with pytest.raises(PreflightFailed, match="is paused"):
            rig.restore(saved.name)
    finally:
        run_docker("unpause", rig.container)
    assert rig.was() == "live"


def test_sources_that_do_not_fit_are_refused(changed_volume: tuple[Rig, Backup], seventeen: tuple[Rig, Backup]) -> None:
    rig, saved = changed_volume
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
        rig.restore(foreign.name, accept_foreign=True, drill="never")
    foreign.unlink()
    (rig.directory / f"{of_17.name}.manifest.json").write_text("{}")
    with pytest.raises(BackupNotValid, match=r"is damaged: The manifest of .*: it is not what was written\. \("):
        rig.restore(of_17.name)
    remove(rig, of_17)
    assert (rig.was(), started_at(rig.container)) == ("live", began)
    rig.assert_tidy(undo)


# -- other sources and places ----------------------------------------------------------------------------------------


def test_proc_004s_own_archive_is_restored_when_that_is_accepted(changed_volume: tuple[Rig, Backup]) -> None:
    rig, _ = changed_volume
    rig.psql("UPDATE marker SET was = 'saved'; CHECKPOINT")
    name = "postgres_volume_20250101_000000.tar.gz"
    mounts = ("-v", f"{rig.volume()}:/data", "-v", f"{rig.directory}:/backup")
    # PROC-004's command, but for the image, which is one that is here.
    run_docker("run", "--rm", *LABEL, *mounts, "--entrypoint", "tar", IMAGE, "czf", f"/backup/{name}", "/data")
    rig.make_live()
    with pytest.raises(ForeignRefused, match="no manifest"):
        rig.restore(name)
    done = rig.restore(name, accept_foreign=True, drill="never")
    assert any("may have torn data" in warning for warning in done.warnings)
    assert rig.was() == "saved"
    rig.assert_tidy(done.undo_point)
    assert rig.sh('ls "$PGDATA" | grep -c postmaster') == "2"
    (rig.directory / name).unlink()


@pytest.mark.long
def test_stopped_container_gets_its_contents_and_is_started(changed_volume: tuple[Rig, Backup]) -> None:
    rig, _ = changed_volume
    run_docker("stop", rig.container)
    cold = rig.take()
    proposal = rig.call(restoring.propose, cold.name)
    assert "unknown, the server does not answer" in proposal.question
    assert "cold copy" in proposal.question
    done = rig.restore(cold.name)
    assert rig.was() == "live"
    rig.assert_tidy(done.undo_point)
    remove(rig, cold)


def test_shrunk_backup_says_so_before_it_is_restored(changed_volume: tuple[Rig, Backup]) -> None:
    rig, _ = changed_volume
    rig.psql("CREATE TABLE kept AS TABLE agents; DELETE FROM agents; CREATE UNLOGGED TABLE passing AS SELECT 1 AS n")
    shrunk = rig.take()
    question = rig.call(restoring.propose, shrunk.name).question
    assert "had shrunk" in question
    assert "Unlogged tables are empty in it: public.passing." in question
    rig.psql("INSERT INTO agents SELECT * FROM kept; DROP TABLE kept, passing")
    remove(rig, shrunk)


def test_archive_that_brings_less_needs_a_word_of_its_own(changed_volume: tuple[Rig, Backup]) -> None:
    rig, saved = changed_volume
    rig.psql("INSERT INTO agents SELECT n, 'new' FROM generate_series(10, 1009) AS n")
    for call in (restoring.propose, restoring.dry_run, restoring.restore):
        with pytest.raises(SmallerRefused, match=r"contains 3 rows in .* replace 1,003 rows"):
            rig.call(call, saved.name)
    question = rig.call(restoring.propose, saved.name, RestoreOptions(accept_smaller=True)).question
    assert "less than half of what it replaces" in question
    for source in (saved.name, f"{VOLUME_UNDO}20200101_000000"):
        with pytest.raises(ArgumentsInvalid, match="no constraint is checked"):
            rig.restore(source, accept_violations=True)
    rig.psql("DELETE FROM agents WHERE id > 9")
    assert rig.was() == "live"


def test_fresh_machine(changed_volume: tuple[Rig, Backup]) -> None:
    """Neither container nor volume; then a volume alone."""
    rig, saved = changed_volume
    rig.restore(saved.name)
    before, volume = rig.content(), rig.volume()
    compose(rig, "down", "--volumes", "--timeout", "1")
    would = rig.call(restoring.dry_run, saved.name)
    assert would.undo_point is None
    assert run_docker("volume", "ls", "-q", "--filter", f"name={volume}") == "", "a dry run makes no volume"
    done = rig.restore(saved.name)
    assert (done.restored, done.undo_point, done.unavailable_seconds) == (True, None, None)
    assert any("no server has been started" in warning for warning in done.warnings)
    again = rig.restore(saved.name)
    assert again.undo_point is not None
    said = compose(rig, "up", "-d", "--pull", "never")
    assert "warn" not in said.lower()
    rig.wait()
    assert rig.content() == before
    rig.assert_tidy(again.undo_point)


@pytest.mark.long
def test_image_is_found_by_its_name_where_its_id_is_gone(require_docker: None) -> None:
    """As after another pull of the same tag."""
    gone = f"sha256:{secrets.token_hex(32)}"
    assert first_present(gone, IMAGE) == IMAGE
    assert first_present(gone, None, f"{gone[7:20]}:no-such-tag") is None


def test_without_a_container_only_a_backup_of_this_one_tells_the_volume(
    saved_volume: tuple[Rig, Backup], seventeen: tuple[Rig, Backup]
) -> None:
    rig, saved = saved_volume
    nobody = Rig("vr-there-is-none", rig.directory)
    with pytest.raises(ContainerMissing, match="the backup is of"):
        nobody.restore(saved.name, accept_other_database=True)
    with pytest.raises(ContainerMissing):
        nobody.restore(f"{VOLUME_UNDO}20260101_000000")


# -- the dry run and the faces ---------------------------------------------------------------------------------------


def test_dry_run_changes_nothing_and_ends_nobodys_helper(changed_volume: tuple[Rig, Backup]) -> None:
    rig, saved = changed_volume
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


@pytest.mark.long
def test_two_restores_into_one_volume_do_not_meet(undoable_volume: tuple[Rig, str], tmp_path: Path) -> None:
    """From two backup directories, which have no lock in common."""
    rig, undo = undoable_volume
    second, refused = Rig(rig.container, tmp_path, rig.stack), list[str]()

    def restore_too(_: Progress) -> None:
        with pytest.raises(PreflightFailed, match="Other running containers have the same volume") as caught:
            second.restore(undo)
        refused.append(caught.value.message)

    done = rig.restore(undo, Watch("stopping the server", restore_too))
    assert len(refused) == 1
    rig.assert_tidy(done.undo_point)


@pytest.mark.long
@pytest.mark.anyio
async def test_agent_is_asked_and_a_stale_answer_is_refused(changed_volume: tuple[Rig, Backup]) -> None:
    rig, saved = changed_volume
    assert rig.stack is not None
    user = User()
    async with agent(rig.settings, "2026-07-28", user) as it:
        done = await it.call("restore", backup=saved.name, wait_seconds=0)
        assert (done["restored"], done["kind"]) == (True, "volume")
        assert "Restore the volume backup" in user.questions[0]
        assert "every current database (letta, other, postgres, template0, template1) is replaced" in user.questions[0]
        listed = await it.call("list_backups")
        assert [point["name"] for point in listed["undo_points"]] == [done["undo_point"]]
        rig.make_live()
        user.meanwhile = lambda: compose(rig, "up", "-d", "--force-recreate", "--pull", "never", "postgres")
        assert (await it.fail("restore", backup=saved.name, wait_seconds=0))["code"] == "confirmation_stale"
        rig.wait()
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


@pytest.mark.long
def test_command_line(changed_volume: tuple[Rig, Backup]) -> None:
    rig, saved = changed_volume
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
