"""Encrypted connections: what is asked of a server that has TLS, which the embedded one has not.

The server here answers as PostgreSQL does (seen on 15.20, 17.12 and 18.6), and keeps what it was sent.
"""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from scarlet_backup_mcp.errors import (
    BackupToolError,
    CertificateUntrusted,
    EncryptionRequired,
    NotAdmitted,
    PasswordNeeded,
    PasswordRejected,
)
from scarlet_backup_mcp.hosts import Exit
from scarlet_backup_mcp.hosts.local import LocalHost
from scarlet_backup_mcp.postgres.server.connection_failures import why
from scarlet_backup_mcp.postgres.server.session import Server

PASSWORD = "only for the right server"
CLEAR_TEXT = b"R" + struct.pack("!ii", 8, 3)
TURNED_AWAY = b"SFATALE\0VFATAL\0C28000\0Mnessuna voce\0RClientAuthentication\0\0"
REJECTED = b"SFATALE\0VFATAL\0C28P01\0Mautenticazione fallita\0Rauth_failed\0\0"


class TlsServer:
    """Asks for a password over TLS and rejects it; without TLS it turns away."""

    def __init__(self, certificate: Path, *, turns_away: bool) -> None:
        self.received = b""
        self._turns_away = turns_away
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                try:
                    self._answer(connection)
                except OSError:  # the client did not like the certificate, for example
                    continue

    def _answer(self, connection: socket.socket) -> None:
        first = connection.recv(1000)
        if first[4:8] != struct.pack("!i", 80877103):
            self._refuse(connection, TURNED_AWAY)
            return
        connection.sendall(b"S")
        with self._context.wrap_socket(connection, server_side=True) as encrypted:
            self.received += encrypted.recv(1000)
            if self._turns_away:
                self._refuse(encrypted, TURNED_AWAY)
                return
            encrypted.sendall(CLEAR_TEXT)
            self.received += encrypted.recv(1000)
            self._refuse(encrypted, REJECTED)

    def _refuse(self, connection: socket.socket, fields: bytes) -> None:
        connection.sendall(b"E" + struct.pack("!i", len(fields) + 4) + fields)


def certificate(file: Path, *names: x509.GeneralName) -> Path:
    """Write a certificate that signs itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(
        subject, subject, key.public_key(), x509.random_serial_number(), now - day, now + day
    )
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    made = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    no_password = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no_password)
    file.write_bytes(made + secret)
    return file


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    return certificate(tmp_path_factory.mktemp("tls") / "own.pem", address)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("tls") / "other.pem", x509.DNSName("elsewhere"))


@pytest.fixture
def server(own: Path) -> Iterator[TlsServer]:
    running = TlsServer(own, turns_away=False)
    yield running
    running.close()


def refusal(running: TlsServer, **variables: str) -> BackupToolError:
    environment = {"PGHOST": "127.0.0.1", "PGPORT": str(running.port), **variables}
    asked = Server(LocalHost(None, {}), "scarlet", environment, "test")
    return why(asked.host, asked.environment("letta"), Exit(2, "psql: FATALE:  non si può"))


def test_the_password_goes_to_a_server_that_verifies(server: TlsServer, own: Path) -> None:
    for mode in ("prefer", "require", "verify-ca", "verify-full"):
        found = refusal(server, PGSSLMODE=mode, PGSSLROOTCERT=str(own), PGPASSWORD=PASSWORD)
        assert type(found) is PasswordRejected, mode
        assert PASSWORD.encode() in server.received
        assert PASSWORD not in str(found)


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_the_password_goes_to_no_other(server: TlsServer, other: Path, mode: str) -> None:
    found = refusal(server, PGSSLMODE=mode, PGSSLROOTCERT=str(other), PGPASSWORD=PASSWORD)
    assert type(found) is CertificateUntrusted
    assert server.received == b""


def test_a_certificate_of_another_name(other: Path) -> None:
    running = TlsServer(other, turns_away=False)
    try:
        given = {"PGSSLROOTCERT": str(other), "PGPASSWORD": PASSWORD}
        assert type(refusal(running, PGSSLMODE="verify-full", **given)) is CertificateUntrusted
        assert running.received == b""
        assert type(refusal(running, PGSSLMODE="verify-ca", **given)) is PasswordRejected
    finally:
        running.close()


def test_a_server_that_lets_in_with_encryption_only(server: TlsServer, own: Path) -> None:
    found = refusal(server, PGSSLMODE="disable", PGPASSWORD=PASSWORD)
    assert type(found) is EncryptionRequired
    assert PASSWORD.encode() not in server.received  # nothing has verified the server
    assert type(refusal(server)) is PasswordNeeded


def test_a_server_that_lets_in_nobody(own: Path) -> None:
    running = TlsServer(own, turns_away=True)
    try:
        for mode, how in (("disable", "without"), ("require", "with")):
            found = refusal(running, PGSSLMODE=mode, PGPASSWORD=PASSWORD)
            assert type(found) is NotAdmitted
            assert f"{how} encryption" in found.message
    finally:
        running.close()
