"""Find out why a client program could not connect, from what the protocol says and from the settings.

Nothing is decided by the words of a message: they are in the server's language.
"""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path

from ...errors import (
    BackupToolError,
    CertificateUntrusted,
    ContainerLost,
    DatabaseMissing,
    EncryptionRequired,
    EncryptionUnsupported,
    HostError,
    NotAdmitted,
    PasswordNeeded,
    PasswordRejected,
    PermissionDenied,
    ProgramMissing,
    RoleMissing,
    RootCertificateMissing,
    ServerError,
    ServerUnreachable,
    ServerUnsupported,
    TooManyConnections,
)
from ...hosts import Exit, Host, run
from ...hosts.streams import connect
from . import handshake, password_file
from .handshake import Answer
from .quoting import identifier, literal

BAD_CONNECTION = 2
"""psql's exit code without a connection ("Exit Status" in its manual page)."""
DEFAULT_SOCKETS = ("/var/run/postgresql", "/tmp")
"""Debian's directory, and PostgreSQL's own."""
USUAL = ("postgres", "template1")
"""Databases that every cluster has until somebody drops or renames them."""
_VERIFYING = ("verify-ca", "verify-full")
_NEITHER = "Fix what the server says about the connection, then try again."


def stopped(ended: Exit) -> BackupToolError | None:
    """Return the error for a psql that something else ended, or that could not be started; else None."""
    said = _said(ended)
    if ended.code is None:
        return ContainerLost(f"The container went away: {said}")
    if ended.code == 137:
        return ContainerLost(f"psql was killed, or its container went away: {said}")
    if ended.code in (126, 127):
        return ProgramMissing(f"psql could not be started: {said}")
    return None


def lost(ended: Exit) -> BackupToolError:
    """Return the error for a psql that was connected, and ended."""
    said = _said(ended)
    if ended.code == BAD_CONNECTION:
        return ServerUnreachable(f"The server ended the connection: {said}")
    return stopped(ended) or ServerError(f"The connection to the server failed: {said}")


def why(host: Host, environment: Mapping[str, str], ended: Exit) -> BackupToolError:
    """Return the error for a psql with that `environment` that could not connect. Asks the server once more, without
    libpq. The password goes nowhere but where psql may have sent it before."""
    said = _said(ended)
    if ended.code != BAD_CONNECTION:
        return stopped(ended) or ServerError(f"psql could not connect: {said}")
    try:
        target = _Target(host, environment)
        answer, encrypted = target.ask()
        return _error(target, answer, encrypted, said)
    except ProgramMissing:
        return _without_protocol(host, environment, said)
    except (OSError, HostError):
        return ServerUnreachable(f"The server does not answer: {said}")
    except RootCertificateMissing as error:
        return error


def _said(ended: Exit) -> str:
    return ended.stderr.strip() or f"psql ended with exit code {ended.code}"


class _Target:
    """Where and how libpq connects, by its environment variables."""

    def __init__(self, host: Host, environment: Mapping[str, str]) -> None:
        self.host, self.environment = host, environment
        self.user, self.database = environment["PGUSER"], environment["PGDATABASE"]
        self.port = environment.get("PGPORT") or "5432"
        self.name = environment.get("PGHOST") or ""
        self.address = environment.get("PGHOSTADDR") or self.name
        self.mode = environment.get("PGSSLMODE") or "prefer"
        self.turned_away: dict[bool, str] = {}
        """What the server said when it turned us away, with and without encryption."""

    @property
    def is_socket(self) -> bool:
        """Whether it is a socket in the file system, which knows no encryption."""
        return self.address.startswith(("/", "@")) or not (self.address or sys.platform == "win32")

    @property
    def way(self) -> str:
        """The way there, in words."""
        if self.is_socket:
            return "over its socket"
        return "from this machine" if self.host.kind == "local" else "from its own container over TCP"

    @property
    def password(self) -> str | None:
        """The password that libpq has."""
        if (given := self.environment.get("PGPASSWORD")) or self.host.kind != "local":
            return given
        host = "localhost" if self.name in ("", *DEFAULT_SOCKETS) else self.name
        file = password_file.path_of(self.environment)
        return password_file.password(file, host, self.port, self.database, self.user)

    def ask(self) -> tuple[Answer, bool]:
        """Ask for a connection in the ways of the sslmode, until one of them is not turned away; return the answer, and
        whether it came encrypted. Raises OSError, HostError or RootCertificateMissing."""
        ways = {"disable": [False], "allow": [False, True], "prefer": [True, False]}.get(self.mode, [True])
        answer, encrypted = Answer("other"), False
        for encrypted in [False] if self.is_socket else ways:
            context = self._context() if encrypted else None
            answer = self._ask(
                context, None if self.environment.get("PGCHANNELBINDING") == "require" else self.password
            )
            if is_turned_away(answer):
                self.turned_away[encrypted] = answer.message
            elif answer.kind != "plain":
                break
        return answer, encrypted

    def psql_encrypts(self) -> bool:
        """Tell whether psql can connect with encryption: it may be built without."""
        environment = {**self.environment, "PGSSLMODE": "require"}
        return run(self.host, ["psql", "-X", "-w", "-c", ""], env=environment).code == 0

    def is_let_in_encrypted(self) -> bool:
        """Tell whether a rule would let the role in if the connection was encrypted. No password is sent."""
        if self.is_socket:
            return False
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            answer = self._ask(context, None)
        except OSError:
            return False
        return answer.kind != "plain" and not is_turned_away(answer)

    def _ask(self, context: ssl.SSLContext | None, password: str | None) -> Answer:
        options = self.environment.get("PGOPTIONS", "")
        parameters = {"user": self.user, "database": self.database, "client_encoding": "UTF8", "options": options}
        problem: OSError | None = None
        for address, port in self._addresses():
            try:
                with closing(connect(self.host, address, port)) as stream:
                    return handshake.ask(stream, parameters, password, tls=context, name=self.name or address)
            except OSError as error:
                problem = problem or error
        raise problem or OSError("there is no address")

    def _addresses(self) -> list[tuple[str, int]]:
        if not self.is_socket:
            return [(self.address or "localhost", int(self.port))]
        directories = [self.address] if self.address else DEFAULT_SOCKETS
        return [(f"{directory}/.s.PGSQL.{self.port}", 0) for directory in directories]

    def _context(self) -> ssl.SSLContext:
        """Return the TLS context for the sslmode. Raises RootCertificateMissing."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = self.mode == "verify-full"
        root = self.environment.get("PGSSLROOTCERT") or str(_own_directory() / "root.crt")
        # With such a file libpq verifies for `require`, too ("SSL Client Certificates" in its documentation).
        verifies = self.mode in _VERIFYING or (self.mode == "require" and os.path.isfile(root))
        context.verify_mode = ssl.CERT_REQUIRED if verifies else ssl.CERT_NONE
        if verifies and root == "system":
            context.load_default_certs()
        elif verifies and not os.path.isfile(root):
            raise RootCertificateMissing(
                f"sslmode={self.mode} verifies the server's certificate, but there is no file {root} to verify it with."
            )
        elif verifies:
            context.load_verify_locations(root)
        certificate = self.environment.get("PGSSLCERT") or str(_own_directory() / "postgresql.crt")
        with suppress(OSError):  # an unreadable one is not sent, and the server says whether it needs it
            key = self.environment.get("PGSSLKEY") or str(_own_directory() / "postgresql.key")
            context.load_cert_chain(certificate, key, password=lambda: "")
        return context


def _own_directory() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA", "")) / "postgresql"
    return Path.home() / ".postgresql"


def is_turned_away(answer: Answer) -> bool:
    """Tell whether no rule of pg_hba.conf fits, or one that rejects (seen on 15.20, 17.12 and 18.6)."""
    return answer.sqlstate == "28000" and answer.routine == "ClientAuthentication"


def _error(target: _Target, answer: Answer, encrypted: bool, said: str) -> BackupToolError:
    if answer.kind == "accepted" and encrypted and not target.psql_encrypts():
        return EncryptionRequired(
            f"The server lets the role {target.user!r} in with encryption, which its programs here can't do: {said}",
            "Set SCARLET_BACKUP_BIN_DIR to client programs that are built with TLS, as a distribution's are.",
        )
    if answer.kind == "accepted":
        return ServerUnreachable(
            f"psql could not connect, but a moment later the server would have let it in: {said}",
            "Try again. If it fails in the same way, fix what psql says.",
        )
    if answer.kind == "plain":
        return EncryptionUnsupported(f"sslmode={target.mode} asks for encryption, which the server does not offer.")
    if answer.kind == "untrusted":
        return CertificateUntrusted(
            f"The certificate of the server at {target.name} does not verify: {answer.message.removesuffix('.')}."
        )
    if answer.kind == "password":
        return _password_needed(target)
    if answer.kind == "refused":
        return _refusal(target, answer, encrypted)
    return PermissionDenied(f"The server does not let the role {target.user!r} in: {said}", _NEITHER)


def _password_needed(target: _Target) -> PasswordNeeded:
    asks = f"The server asks for the password of the role {target.user!r}"
    file = password_file.path_of(target.environment)
    if target.host.kind == "local" and password_file.is_ignored(file):
        return PasswordNeeded(
            f"{asks}, and PostgreSQL's programs ignore the password file {file}, because others may read it.",
            f"Run `chmod 600 {file}`, then try again.",
        )
    return PasswordNeeded(f"{asks}, and none is known.")


def _refusal(target: _Target, answer: Answer, encrypted: bool) -> BackupToolError:
    role, database, message = repr(target.user), identifier(target.database), answer.message
    state = answer.sqlstate
    if state == "3D000":
        return DatabaseMissing(f"There is no database {database} on the server.")
    if state == "28P01":
        return PasswordRejected(f"The server rejects the password of the role {role}, or has no such role: {message}")
    if is_turned_away(answer):
        if not encrypted and target.is_let_in_encrypted():
            return EncryptionRequired(
                f"The server's pg_hba.conf lets the role {role} connect to the database {database} {target.way} only "
                f"with encryption: {message}"
            )
        no_line = f"No line of the server's pg_hba.conf lets the role {role} connect to the database {database}"
        how = "" if target.is_socket else " with encryption" if encrypted else " without encryption"
        if len(target.turned_away) > 1:
            how = f" with encryption ({target.turned_away[True]}) or without"
        remedy = NotAdmitted.default_remedy
        if True in target.turned_away:
            remedy += " If it asks for a certificate, name yours in SCARLET_BACKUP_DSN (sslcert and sslkey)."
        return NotAdmitted(f"{no_line} {target.way}{how}: {message}", remedy)
    if state == "28000" and answer.routine == "InitializeSessionUserId":
        return RoleMissing(f"The role {role} does not exist on the server, or may not log in: {message}")
    if state == "42501":
        return PermissionDenied(
            f"The role {role} may not connect to the database {database}: {message}",
            f"Run, as the database's owner, `GRANT CONNECT ON DATABASE {database} TO {identifier(target.user)}`; or "
            "set SCARLET_BACKUP_USER to a superuser.",
        )
    if state[:2] == "28":
        return PermissionDenied(f"The server does not let the role {role} in: {message} (SQLSTATE {state})", _NEITHER)
    if state == "53300":
        return TooManyConnections(f"The server has no connection left: {message}")
    if state[:3] == "57P":
        return ServerUnreachable(f"The server does not accept connections now: {message}")
    if state == "42704":  # every setting that we begin with exists since 14
        return ServerUnsupported("The server is older than PostgreSQL 14.")
    if state == "55000":
        return ServerError(
            f"The database {database} accepts no connections: {message}",
            f"Run `ALTER DATABASE {database} WITH ALLOW_CONNECTIONS true`, then try again.",
        )
    return ServerError(f"The server refused the connection: {message} (SQLSTATE {state})", _NEITHER)


def _without_protocol(host: Host, environment: Mapping[str, str], said: str) -> BackupToolError:
    """Find out what can be learned with client programs alone."""
    if run(host, ["pg_isready", "--timeout=5"], env=environment).code != 0:
        return ServerUnreachable(f"The server does not answer: {said}")
    name = environment["PGDATABASE"]
    question = f"SELECT 1 FROM pg_catalog.pg_database WHERE datname = {literal(name)}"
    for other in USUAL:
        found = bytearray()
        argv = ["psql", "-X", "-q", "-A", "-t", "-w", "-c", question]
        if run(host, argv, env={**environment, "PGDATABASE": other}, sink=found.extend).code == 0:
            if not found.strip():
                return DatabaseMissing(f"There is no database {identifier(name)} on the server.")
            break
    return PermissionDenied(f"The server refused the connection: {said}", _NEITHER)
