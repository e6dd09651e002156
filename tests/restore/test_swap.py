"""What goes live is what was compared; and who is in the way of a swap is named."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import DiskFull, PreflightFailed, RestoreFailed, RestoreInterrupted, ServerUnreachable
from scarlet_backup_mcp.models.results import Restore
from scarlet_backup_mcp.postgres.server import databases
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.listing import list_backups
from scarlet_backup_mcp.procedures.recovery import journal as journals
from scarlet_backup_mcp.procedures.restore.options import RestoreOptions
from scarlet_backup_mcp.procedures.restore.service import restore
from scarlet_backup_mcp.progress import Progress

from ..helpers.backup_faults import Box, a_box, fill, tmpfs
from ..helpers.restore import Mind, Watch

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs containers and a tmpfs")

SERVER = ("postgres", "-c", "fsync=off", "-c", "autovacuum=off", "-c", "max_prepared_transactions=2")
ANALYSING = "analysing the tables"
"""The stage after the comparison, the last before the swap."""


@pytest.fixture(scope="module")
def saved(require_docker: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Box, Mind]]:
    """A database with a role that is no superuser, and a backup of it, in a container of its own."""
    with a_box({}, *SERVER) as box:
        box.bring_up()
        box.psql("CREATE ROLE plain LOGIN; GRANT pg_write_all_data TO plain;", "postgres")
        mind = Mind(box.name, f"mind_{secrets.token_hex(4)}", tmp_path_factory.mktemp("saved") / "backups")
        mind.make(f"ALTER DATABASE {mind.name} CONNECTION LIMIT 40;")
        with mind.context() as context:
            made = backup(context, Progress())
        yield box, replace(mind, saved=made.name)


@pytest.fixture
def mind(saved: tuple[Box, Mind]) -> Mind:
    """That database, changed since."""
    saved[1].make_changed()
    return saved[1]


@pytest.fixture
def box(saved: tuple[Box, Mind]) -> Box:
    return saved[0]


def put_back(mind: Mind, progress: Progress | None = None) -> Restore:
    with mind.context() as context:
        return restore(
            context, progress or Progress(), mind.saved, RestoreOptions(drill="never", stop_dependents=False)
        )


def staging(mind: Mind) -> str:
    (name,) = (name for name in mind.databases() if name.startswith(f"{mind.name}_restore_"))
    return name


def said_by(box: Box, mind: Mind, role: str, statement: str) -> Callable[[Progress], None]:
    """An act that has a client try that in the staging database; what it is told is kept in `said_by.answers`."""

    def act(_: Progress) -> None:
        psql = ["docker", "exec", box.name, "psql", "-X", "-U", role, "-d", staging(mind), "-c", statement]
        done = subprocess.run(psql, capture_output=True, text=True, timeout=60, check=False)
        ANSWERS.append(done.stdout + done.stderr)

    return act


ANSWERS: list[str] = []


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("stage", "role", "answer"),
    [
        ("loading", "plain", "too many connections"),
        ("putting back", "plain", "too many connections"),
        ("comparing", "postgres", "not currently accepting connections"),
        (ANALYSING, "plain", "too many connections"),
    ],
)
def test_nobody_comes_into_the_staging_database(box: Box, mind: Mind, stage: str, role: str, answer: str) -> None:
    ANSWERS.clear()
    done = put_back(mind, Watch(stage, said_by(box, mind, role, "DELETE FROM letta.notes")))
    assert done.restored
    assert len(ANSWERS) == 1
    assert answer in ANSWERS[0]
    assert mind.psql("SELECT was, (SELECT count(*) FROM notes) FROM marker") == "saved|300"
    limits = "SELECT datallowconn, datconnlimit FROM pg_database WHERE datname = current_database()"
    assert mind.psql(limits) == "t|40"


def test_a_superuser_who_is_in_there_before_the_comparison_is_ended(box: Box, mind: Mind) -> None:
    clients: list[subprocess.Popen[bytes]] = []

    def come_in(_: Progress) -> None:
        command = "sleep 0.2; echo 'SELECT 1;'; sleep 20; echo 'DELETE FROM letta.notes;'"
        psql = f"({command}) | psql -X -U postgres -d {staging(mind)}"
        clients.append(subprocess.Popen(["docker", "exec", box.name, "bash", "-c", psql], stdout=subprocess.PIPE))
        assert clients[0].stdout is not None
        clients[0].stdout.readline()

    put_back(mind, Watch("putting back", come_in))
    clients[0].kill()
    clients[0].communicate()
    assert mind.psql("SELECT count(*) FROM notes") == "300"


@contextmanager
def prepared(box: Box, mind: Mind) -> Generator[None]:
    box.psql("BEGIN; INSERT INTO letta.marker VALUES ('x'); PREPARE TRANSACTION 'left-open'", mind.name)
    try:
        yield
    finally:
        for name in mind.databases():
            if box.psql("SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()", name) != "0":
                box.psql("ROLLBACK PREPARED 'left-open'", name)


@pytest.mark.long
def test_a_prepared_transaction_is_named(box: Box, mind: Mind) -> None:
    with prepared(box, mind), pytest.raises(PreflightFailed) as refused:
        put_back(mind)
    before = mind.fingerprint()
    with ExitStack() as left, pytest.raises(RestoreFailed) as failed:
        put_back(mind, Watch(ANALYSING, lambda _: left.enter_context(prepared(box, mind))))
    for caught in (refused, failed):
        assert "prepared transaction left-open of postgres since 20" in caught.value.message
    assert "PREPARED" in failed.value.remedy
    assert mind.fingerprint() == before


def test_who_blocks_a_swap_is_named(box: Box, mind: Mind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "SWAP_LOCK_SECONDS", 3)
    with (
        box.holding(
            f"SET application_name = 'blocker'; ALTER DATABASE {mind.name} CONNECTION LIMIT 50;", "postgres"
        ) as it,
        pytest.raises(RestoreFailed) as failed,
    ):
        put_back(mind)
    assert f"client backend {it.pid} of postgres (blocker) in postgres since 20" in failed.value.message
    assert list(mind.databases()) == [mind.name]


def test_a_full_backup_directory_is_told_before_anything_is_loaded(mind: Mind, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "backups", 8 << 20) as directory:
        full = replace(mind, directory=directory)
        for path in mind.directory.glob(f"{mind.saved}*"):
            (directory / path.name).write_bytes(path.read_bytes())
        with full.context() as context:
            context.directory.prepare()
        seen = Watch()
        filler = fill(directory, leaving=1)
        with pytest.raises(DiskFull) as caught:
            put_back(full, seen)
        assert "restore.journal.json" in caught.value.message
        assert not seen.reached("creating")
        filler.unlink()
        assert put_back(full, Watch("loading", lambda _: fill(directory, leaving=0))).restored
        assert not [path.name for path in directory.iterdir() if "journal" in path.name]


def test_a_restore_that_can_not_be_settled_keeps_both_databases(
    box: Box, mind: Mind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is away for the very moments of the swap and of the settling: no real one can be made to be."""

    def away(*_: object) -> None:
        raise ServerUnreachable("The server does not answer.")

    before = mind.around().databases
    with monkeypatch.context() as patched:
        patched.setattr(databases, "swap", away)
        patched.setattr(journals, "settle", away)
        with pytest.raises(RestoreInterrupted, match="Both databases exist"):
            put_back(mind)
    assert len(mind.databases()) == len(before) + 1
    assert mind.journal.exists()
    with mind.context() as context:
        assert any("rolled back" in warning for warning in backup(context, Progress(), verify="full").warnings)
    assert mind.databases() == before
    assert put_back(mind).restored


def test_an_undo_point_with_a_mark_of_ours_stays_one(box: Box, mind: Mind) -> None:
    """As the database has that somebody has finished a restore with by hand."""
    box.psql(f"COMMENT ON DATABASE {mind.name} IS 'scarlet-backup-mcp: scratch of a restore of x.sql'", "postgres")
    undo = put_back(mind).undo_point
    with mind.context() as context:
        backup(context, Progress(), verify="full")
        assert undo in [point.name for point in list_backups(context).undo_points or []]
        assert restore(context, Progress(), undo or "", RestoreOptions(stop_dependents=False)).restored
