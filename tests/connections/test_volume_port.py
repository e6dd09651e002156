"""A volume whose configuration says another port or socket than the server has now."""

from __future__ import annotations

from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import PreflightFailed
from scarlet_backup_mcp.postgres.cluster.configuration import effective
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.restore.service import dry_run, restore
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import load_settings

from ..helpers.containers import run_docker
from ..helpers.restore import started_at
from ..helpers.volume import Rig, a_rig

READY = "until grep -q ready /var/lib/postgresql/data/postmaster.pid; do sleep 0.1; done"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"postgresql.conf": "port = 5433\nPort 5434 # now\n#port = 1"}, {"port": "5434"}),
        ({"postgresql.conf": "port=1", "postgresql.auto.conf": "port = '5435'"}, {"port": "5435"}),
        (
            {
                "postgresql.conf": "port=1\ninclude_dir = 'conf.d'\nlisten_addresses = ''\nwork_mem = 1",
                "conf.d/a.conf": "port=2",
                "conf.d/b.conf": "port=3\ninclude '../more'",
                "conf.d/c": "port=4",
                "more": "unix_socket_directories = '/a, \"/b\"'\ninclude conf.d/b.conf",
            },
            {"port": "3", "listen_addresses": "", "unix_socket_directories": '/a, "/b"'},
        ),
        ({"other.conf": "port=1"}, {}),
    ],
)
def test_the_last_line_counts_and_includes_are_read(files: dict[str, str], expected: dict[str, str]) -> None:
    read = {name: text.encode() for name, text in files.items()}
    assert effective(read, read, ("port", "listen_addresses", "unix_socket_directories")) == expected


def restart(rig: Rig) -> None:
    run_docker("restart", rig.container)
    rig.sh(f"timeout 30 sh -c '{READY}'")


def configure(rig: Rig, port: int, statement: str) -> None:
    rig.sh(f'psql -U postgres -p {port} -c "{statement}"')
    restart(rig)


@pytest.mark.long
def test_a_server_is_waited_for_where_its_configuration_says(require_docker: None, tmp_path: Path) -> None:
    with a_rig(tmp_path) as rig:
        configure(rig, 5432, "ALTER SYSTEM SET port = 5433")
        saved = rig.take().name
        configure(rig, 5433, "ALTER SYSTEM RESET port")
        began = started_at(rig.container)
        [warning] = [text for text in rig.call(dry_run, saved).warnings if "5433" in text]
        assert "will listen on port 5433" in warning
        assert "instead of 5432" in warning
        given = load_settings(dir=tmp_path, container=rig.container, prefix="letta", port=5432)
        with BackupContext(given) as context, pytest.raises(PreflightFailed, match="SCARLET_BACKUP_PORT is 5432"):
            restore(context, Progress(), saved)
        assert started_at(rig.container) == began
        done = rig.restore(saved)
        assert done.restored
        assert rig.sh('sed -n 4p "$PGDATA/postmaster.pid"') == "5433"
        assert done.undo_point is not None
        undone = rig.restore(done.undo_point)
        assert [text for text in undone.warnings if "port 5432" in text and "instead of 5433" in text]
        assert rig.sh("psql -U postgres -At -c 'SELECT 1'") == "1"


@pytest.mark.long
def test_a_server_that_would_listen_nowhere_is_not_exchanged(require_docker: None, tmp_path: Path) -> None:
    with a_rig(tmp_path) as rig:
        nowhere = ("unix_socket_directories", "listen_addresses")
        file = rig.sh('cat "$PGDATA/postgresql.auto.conf"')
        rig.sh("".join(f"""echo "{name} = ''" >> "$PGDATA/postgresql.auto.conf"; """ for name in nowhere))
        saved = rig.take().name
        rig.sh(f"""printf '%s\\n' '{file.replace("'", "")}' > "$PGDATA/postgresql.auto.conf" """)
        began = started_at(rig.container)
        with pytest.raises(PreflightFailed, match="listen nowhere"):
            rig.restore(saved)
        assert started_at(rig.container) == began
