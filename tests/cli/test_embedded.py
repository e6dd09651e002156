from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from scarlet_backup_mcp.cli.demo import embedded as module
from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.errors import ProgramMissing
from scarlet_backup_mcp.postgres.cluster import local as local_cluster

from ..conftest import MEMORY, LocalDatabase, load

ROWS = {
    "organizations": 1,
    "agents": 2,
    "block": 12,
    "block_history": 24,
    "blocks_agents": 12,
    "identities": 2,
    "sandbox_configs": 1,
    "messages": 300,
    "archival_passages": 200,
}


def test_server_wants_its_password(embedded: EmbeddedServer) -> None:
    with psycopg.connect(embedded.dsn()) as connection:
        assert connection.execute("SELECT current_user, inet_server_addr()::text").fetchone() == (
            "postgres",
            "127.0.0.1/32",
        )
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(embedded.dsn().replace(embedded.password, "wrong"))


def test_server_listens_on_loopback_only(embedded: EmbeddedServer) -> None:
    with psycopg.connect(embedded.dsn()) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)
        assert connection.execute("SHOW unix_socket_directories").fetchone() == ("",)


def test_password_is_in_no_representation(embedded: EmbeddedServer, local_database: LocalDatabase) -> None:
    assert embedded.password not in repr(embedded)
    assert embedded.password not in repr(local_database)


def test_dsn_takes_any_database_name(embedded: EmbeddedServer) -> None:
    name = "a b/c?d%41"
    with psycopg.connect(embedded.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            with psycopg.connect(embedded.dsn(name)) as other:
                assert other.info.dbname == name
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_memory_has_its_rows(local_database: LocalDatabase) -> None:
    with psycopg.connect(local_database.dsn) as connection:
        for table, rows in ROWS.items():
            count = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
            assert connection.execute(count).fetchone() == (rows,), table
        assert connection.execute("SELECT count(*) FROM archival_passages WHERE embedding IS NULL").fetchone() == (10,)
        assert connection.execute("SELECT vector_dims(embedding) FROM archival_passages LIMIT 1").fetchone() == (4096,)


def test_memory_leaves_the_database_as_letta_does(local_database: LocalDatabase) -> None:
    with psycopg.connect(local_database.dsn) as connection:
        assert connection.execute("SHOW search_path").fetchone() == ('letta, "$user", public',)
        assert connection.execute("SELECT to_regnamespace('public'), to_regnamespace('letta')::text").fetchone() == (
            None,
            "letta",
        )
        assert connection.execute(
            "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'vector'"
        ).fetchone() == ("letta",)


def test_memory_holds_what_gets_lost(local_database: LocalDatabase) -> None:
    awkward = ["\x01", "\x1a", "\x7f", "\u0085", "\u2028", "\r\n", "\t", "\\", "\\.\n", "🧠", "𝔘"]
    with psycopg.connect(local_database.dsn) as connection:
        for table in ("messages", "archival_passages"):
            rows = connection.execute(sql.SQL("SELECT text FROM {}").format(sql.Identifier(table)))
            texts = "".join(text or "" for (text,) in rows)
            assert [it for it in awkward if it not in texts] == [], table
        assert connection.execute("SELECT count(*) > 0 FROM messages WHERE text IS NULL").fetchone() == (True,)
        assert connection.execute("SELECT count(*) > 0 FROM messages WHERE text = ''").fetchone() == (True,)


def test_memory_json_can_not_become_jsonb(local_database: LocalDatabase) -> None:
    with psycopg.connect(local_database.dsn) as connection, pytest.raises(psycopg.errors.UntranslatableCharacter):
        connection.execute("SELECT content::jsonb FROM messages")


def test_memory_is_the_same_each_time(embedded: EmbeddedServer, local_database: LocalDatabase) -> None:
    name = f"{local_database.name}_again"
    with psycopg.connect(embedded.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    again = LocalDatabase(embedded, name, embedded.dsn(name))
    load(again, MEMORY)
    assert dump(local_database) == dump(again)


def test_nothing_is_left_after_stop() -> None:
    server = EmbeddedServer().start()
    directory, port = server.directory, server.port
    assert directory is not None
    assert directory.is_dir()
    server.stop()
    assert not directory.exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    server.stop()


def test_nothing_is_left_after_an_exception() -> None:
    directories: list[Path] = []

    def fail_halfway() -> None:
        with EmbeddedServer() as server:
            assert server.directory is not None
            directories.append(server.directory)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert not directories[0].exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows can't send Ctrl-C to one process only")
def test_nothing_is_left_after_ctrl_c() -> None:
    script = (
        "import signal, time\n"
        "from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it\n"
        "with EmbeddedServer() as server:\n"
        "    print(server.directory, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        directory = Path(process.stdout.readline().strip())
        assert directory.is_dir()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) != 0
    assert not directory.exists()


def test_taken_port_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """`free_port` is made to name a taken port once: the race with another program can't be had on demand."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [taken.getsockname()[1], local_cluster.free_port()]
        monkeypatch.setattr(local_cluster, "free_port", lambda: ports.pop(0))
        with EmbeddedServer() as server:
            assert ports == []
            psycopg.connect(server.dsn()).close()


def test_missing_wheel_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The import system is made not to find the wheel, which these tests themselves need installed."""

    def find_nothing(name: str) -> None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", find_nothing)
    server = EmbeddedServer()
    with pytest.raises(ProgramMissing, match=r"scarlet-backup-mcp\[demo\]"):
        server.start()
    assert server.directory is None


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root has another account run the server")
def test_root_with_programs_out_of_the_accounts_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    package = module.copy_programs(module.wheel_bin_dir(), private).parents[1]
    (package / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(package.parent), *sys.path])
    with EmbeddedServer() as server:
        assert server.directory is not None
        assert server.bin_dir.is_relative_to(server.directory)
        psycopg.connect(server.dsn()).close()


def dump(database: LocalDatabase) -> bytes:
    pg_dump = [str(database.bin_dir / "pg_dump"), "--restrict-key=same", "-d", database.dsn]
    return subprocess.run(pg_dump, capture_output=True, check=True).stdout
