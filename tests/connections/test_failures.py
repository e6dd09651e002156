"""Why a server lets nobody in: each cause has its own code, and no word of a message decides it."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.errors import (
    BackupToolError,
    DatabaseMissing,
    EncryptionUnsupported,
    NotAdmitted,
    PasswordNeeded,
    PasswordRejected,
    PermissionDenied,
    RoleMissing,
    RootCertificateMissing,
    ServerError,
    ServerUnreachable,
    ServerUnsupported,
    TooManyConnections,
)
from scarlet_backup_mcp.hosts import Exit
from scarlet_backup_mcp.hosts.local import LocalHost
from scarlet_backup_mcp.postgres.server.connection_failures import why
from scarlet_backup_mcp.postgres.server.session import Server

PASSWORD = "pä$s'w\"ör d"
HBA = """
local all all scram-sha-256
host closed all 127.0.0.1/32 reject
host all postgres 127.0.0.1/32 scram-sha-256
host all md5er 127.0.0.1/32 md5
host all plain 127.0.0.1/32 password
host all scram,nologin,guest,single 127.0.0.1/32 scram-sha-256
host all trusted,nobody 127.0.0.1/32 trust
"""
SAYS_NOTHING = Exit(2, "psql: FATALE:  non si può")
"""What psql shows, in a language that nobody reads."""


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """A server with a role for every way to authenticate."""
    with EmbeddedServer() as running:
        with psycopg.connect(running.dsn(), autocommit=True) as connection:
            for encryption, role in (
                ("md5", "md5er"),
                *(("scram-sha-256", name) for name in ("plain", "scram", "guest")),
            ):
                connection.execute(sql.SQL("SET password_encryption = {}").format(encryption))
                create = sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}")
                connection.execute(create.format(sql.Identifier(role), PASSWORD))
            connection.execute("ALTER ROLE guest NOSUPERUSER")
            connection.execute(sql.SQL("CREATE ROLE nologin PASSWORD {}").format(PASSWORD))
            connection.execute(sql.SQL("CREATE ROLE single LOGIN CONNECTION LIMIT 0 PASSWORD {}").format(PASSWORD))
            connection.execute("CREATE ROLE trusted LOGIN SUPERUSER")
            for name in ("closed", "private", "shut"):
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            connection.execute("REVOKE CONNECT ON DATABASE private FROM PUBLIC")
            connection.execute("ALTER DATABASE shut ALLOW_CONNECTIONS false")
            (running.data / "pg_hba.conf").write_text(HBA)
            connection.execute("SELECT pg_reload_conf()")
        _until_reloaded(running)
        yield running


def _until_reloaded(running: EmbeddedServer) -> None:
    while True:
        try:
            psycopg.connect(running.dsn(), user="trusted", password="").close()
        except psycopg.OperationalError:
            continue
        return


def refusal(running: EmbeddedServer, user: str, database: str = "postgres", **variables: str) -> BackupToolError:
    """Connect as the tool does; return the error, which shows no password."""
    environment = {"PGHOST": "127.0.0.1", "PGPORT": str(running.port), **variables}
    connected = Server(LocalHost(running.bin_dir, {}), user, environment, "test")
    with pytest.raises(BackupToolError) as refused:
        connected.session(database).close()
    blind = why(connected.host, connected.environment(database), SAYS_NOTHING)
    assert type(blind) is type(refused.value)
    for shown in (str(refused.value), refused.value.remedy, str(blind)):
        assert PASSWORD not in shown
    return refused.value


@pytest.mark.parametrize("user", ["md5er", "plain", "scram"])
def test_every_kind_of_password_is_understood(server: EmbeddedServer, user: str) -> None:
    assert type(refusal(server, user, PGPASSWORD=f"not {PASSWORD}")) is PasswordRejected
    assert type(refusal(server, user)) is PasswordNeeded
    found = refusal(server, user, "no such database", PGPASSWORD=PASSWORD)  # so the password was right
    assert type(found) is DatabaseMissing


@pytest.mark.parametrize(
    ("user", "database", "error", "words"),
    [
        ("nobody", "postgres", RoleMissing, "'nobody' does not exist on the server, or may not log in"),
        ("nologin", "postgres", RoleMissing, "'nologin'"),
        ("scram", "closed", NotAdmitted, "'scram' connect to the database \"closed\" from this machine without"),
        ("stranger", "postgres", NotAdmitted, "'stranger'"),
        ("guest", "private", PermissionDenied, 'may not connect to the database "private"'),
        ("scram", "shut", ServerError, "accepts no connections"),
        ("single", "postgres", TooManyConnections, ""),
    ],
)
def test_each_cause_has_its_own_sentence(
    server: EmbeddedServer, user: str, database: str, error: type[BackupToolError], words: str
) -> None:
    found = refusal(server, user, database, PGPASSWORD=PASSWORD)
    assert type(found) is error
    assert words in found.message


def test_an_unknown_setting_tells_an_old_server(server: EmbeddedServer) -> None:
    connected = Server(LocalHost(server.bin_dir, server.environment), "trusted", server.environment, "test")
    with pytest.raises(ServerUnsupported):
        connected.session("postgres", {"no_such_setting": "1"}).close()


def test_encryption_that_is_not_there(server: EmbeddedServer) -> None:
    host = LocalHost(server.bin_dir, {})
    connected = Server(host, "scram", {**server.environment, "PGPASSWORD": PASSWORD, "PGSSLMODE": "require"}, "test")
    assert type(why(host, connected.environment("postgres"), SAYS_NOTHING)) is EncryptionUnsupported


def test_a_root_certificate_that_is_missing(server: EmbeddedServer, tmp_path: Path) -> None:
    host = LocalHost(server.bin_dir, {})
    variables = {**server.environment, "PGSSLMODE": "verify-full", "PGSSLROOTCERT": str(tmp_path / "root.crt")}
    found = why(host, Server(host, "scram", variables, "test").environment("postgres"), SAYS_NOTHING)
    assert type(found) is RootCertificateMissing
    assert str(tmp_path / "root.crt") in found.message


def test_nobody_there(server: EmbeddedServer, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = Server(LocalHost(server.bin_dir, {}), "scram", {"PGHOST": str(tmp_path)}, "test")
        with pytest.raises(ServerUnreachable):
            gone.session("postgres").close()
        closed = {"PGHOST": "127.0.0.1", "PGPORT": str(free.getsockname()[1])}
        with pytest.raises(ServerUnreachable):
            Server(gone.host, "scram", closed, "test").session("postgres").close()


def test_what_is_no_postgresql(server: EmbeddedServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        closed = {"PGHOST": "127.0.0.1", "PGPORT": str(listening.getsockname()[1]), "PGSSLMODE": "disable"}

        def answer() -> None:
            for _ in range(2):
                connection, _ = listening.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(ServerUnreachable):
            Server(LocalHost(server.bin_dir, {}), "scram", closed, "test").session("postgres").close()


# The password file


@pytest.fixture
def password_file(tmp_path: Path, server: EmbeddedServer) -> Path:
    file = tmp_path / "pass:words"
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", r"\:")
    lines = ("# a comment", "too:short", "otherhost:*:*:scram:wrong", f"127.0.0.1:{server.port}:*:scram:{escaped}")
    file.write_text("\n".join([*lines, f"*:*:*:scram:{secrets.token_hex(4)}"]))
    file.chmod(0o600)
    return file


def test_a_password_file_is_read_as_libpq_reads_it(server: EmbeddedServer, password_file: Path) -> None:
    found = refusal(server, "scram", "no such database", PGPASSFILE=str(password_file))
    assert type(found) is DatabaseMissing
    password_file.write_text("*:*:*:scram:wrong")
    assert type(refusal(server, "scram", PGPASSFILE=str(password_file))) is PasswordRejected


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_a_password_file_that_others_may_read(server: EmbeddedServer, password_file: Path) -> None:
    password_file.chmod(0o644)
    found = refusal(server, "scram", PGPASSFILE=str(password_file))
    assert type(found) is PasswordNeeded
    assert f"chmod 600 {password_file}" in found.remedy
