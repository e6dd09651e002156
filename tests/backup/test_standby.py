"""A standby: it can be backed up, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.errors import DrillFailed, PreflightFailed, VolumeUnsupported
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.gate import ON_A_STANDBY, gate
from scarlet_backup_mcp.procedures.integrity import db_integrity
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import Settings, load_settings

from ..conftest import LocalDatabase
from ..helpers.drill import bring_back, drill, take
from ..helpers.faces import local_settings
from ..helpers.hosts import eventually


class Standby(EmbeddedServer):
    """A hot standby of another embedded server."""

    def __init__(self, primary: EmbeddedServer) -> None:
        super().__init__()
        self.password = primary.password
        self._primary = primary

    def _initialise(self) -> None:
        self._run("pg_basebackup", "-D", str(self.data), "-d", self._primary.dsn(), "-R", "-X", "stream", "-c", "fast")
        self._configure({"port": "0"})


@pytest.fixture(scope="module")
def standby(embedded: EmbeddedServer) -> Iterator[Standby]:
    with Standby(embedded) as server:
        yield server


@pytest.fixture
def settings(local_database: LocalDatabase, standby: Standby, tmp_path: Path) -> Settings:
    """Of a database that the standby has received, with commits that the primary has not written to its disk yet."""
    with psycopg.connect(local_database.server.dsn(), autocommit=True) as primary:
        written = primary.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
    assert written is not None
    with psycopg.connect(standby.dsn(), autocommit=True) as receiving:
        received = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
        assert eventually(lambda: receiving.execute(received, written).fetchone() == (True,), 60)
    return load_settings(via="local", dsn=standby.dsn(local_database.name), bin_dir=standby.bin_dir, dir=tmp_path)


def test_backup_of_a_standby_is_proved_and_its_gate_asks_for_the_primary(
    local_database: LocalDatabase, settings: Settings
) -> None:
    made = take(settings, verify="drill")
    assert (made.proved, made.safe_to_proceed, made.rows) == (True, False, 554)
    assert any("The server is a standby" in warning for warning in made.warnings)
    with BackupContext(settings) as context:
        assert gate(context).reasons == [ON_A_STANDBY]
        assert [finding.code for finding in db_integrity(context, Progress()).findings] == ["server_is_standby"]
    on_primary = local_settings(local_database, Path(made.path).parent)
    with BackupContext(on_primary) as context:
        verdict = gate(context)
    assert not verdict.safe_to_proceed
    assert "was a standby when the backup was made" in verdict.reasons[0]


def test_what_writes_to_a_standby_is_refused_with_a_way_out(settings: Settings) -> None:
    name = take(settings).name
    with pytest.raises(PreflightFailed, match="is a standby") as refused:
        bring_back(settings, name)
    assert "on its primary" in refused.value.remedy
    with pytest.raises(VolumeUnsupported, match="is a standby") as copied:
        take(settings, kind="volume")
    assert "Copy its primary" in copied.value.remedy
    with pytest.raises(DrillFailed, match="is a standby") as drilled:
        drill(settings, on_live_server=True)
    assert "on its primary" in drilled.value.remedy
