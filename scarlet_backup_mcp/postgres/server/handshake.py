"""Ask for a connection and read the server's answer, to learn why a client program was refused.

libpq shows a refusal without its SQLSTATE, in the server's language: `lc_messages=C` and psql's VERBOSITY take effect
only afterwards (seen on 15.20, 17.12 and 18.6). The protocol ("Message Flow" and "Message Formats" in PostgreSQL's
documentation) has the SQLSTATE and the name of the routine that refused, which are never translated.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import ssl
import stringprep
import struct
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from ...hosts.streams import Stream

_PROTOCOL, _SSL_REQUEST = 196608, 80877103
_OK, _CLEAR_TEXT, _MD5, _SASL, _SASL_CONTINUE, _SASL_FINAL = 0, 3, 5, 10, 11, 12
_SCRAM = b"SCRAM-SHA-256"
_LONGEST = 1 << 20
_NO_POSTGRES = "what answers is no PostgreSQL server"
T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """What a server answers to somebody who wants to connect.

    accepted: it lets them in. refused: it does not, with the error's SQLSTATE, routine and message (in the server's own
    language). password: it asks for one, and there is none. other: it asks for what only a client program knows.
    plain: it offers no encryption. untrusted: its certificate does not verify.
    """

    kind: Literal["accepted", "refused", "password", "other", "plain", "untrusted"]
    sqlstate: str = ""
    routine: str = ""
    message: str = ""


def ask(
    stream: Stream,
    parameters: Mapping[str, str],
    password: str | None,
    *,
    tls: ssl.SSLContext | None = None,
    name: str | None = None,
) -> Answer:
    """Ask for a connection with these startup `parameters` (user, database …), encrypted if there is a context `tls`
    for the server `name`. Raises OSError if the server goes away or answers something else."""
    if tls is not None:
        stream.send(struct.pack("!ii", 8, _SSL_REQUEST))
        if stream.receive()[:1] != b"S":
            return Answer("plain")
        try:
            stream = _Encrypted(stream, tls, name)
        except ssl.SSLCertVerificationError as error:
            return Answer("untrusted", message=error.verify_message)
    packed = b"".join(f"{key}\0{value}\0".encode() for key, value in parameters.items()) + b"\0"
    stream.send(struct.pack("!ii", len(packed) + 8, _PROTOCOL) + packed)
    try:
        return _Conversation(stream, parameters["user"], password).answer()
    except (ValueError, LookupError, struct.error) as error:
        raise OSError(_NO_POSTGRES) from error


class _Encrypted:
    """A stream through TLS."""

    def __init__(self, stream: Stream, context: ssl.SSLContext, name: str | None) -> None:
        self._stream = stream
        self._coming, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._coming, self._going, server_hostname=name)
        self._through(self._tls.do_handshake)

    def send(self, data: bytes) -> None:
        self._through(lambda: self._tls.write(data))

    def receive(self) -> bytes:
        return self._through(lambda: self._tls.read(1 << 16))

    def close(self) -> None:
        self._stream.close()

    def _through(self, action: Callable[[], T]) -> T:
        while True:
            try:
                return action()
            except ssl.SSLWantReadError:
                self._flush()
                received = self._stream.receive()
                self._coming.write(received) if received else self._coming.write_eof()
            finally:
                self._flush()

    def _flush(self) -> None:
        if self._going.pending:
            self._stream.send(self._going.read())


class _Conversation:
    def __init__(self, stream: Stream, user: str, password: str | None) -> None:
        self._stream, self._user, self._password = stream, user, password
        self._received = b""
        self._scram: _Scram | None = None

    def answer(self) -> Answer:
        while True:
            kind, content = self._message()
            if kind == b"E":
                fields = {part[:1]: part[1:].decode("utf-8", "replace") for part in content.split(b"\0") if part}
                return Answer("refused", fields.get(b"C", ""), fields.get(b"R", ""), fields.get(b"M", ""))
            if kind == b"Z":
                return Answer("accepted")
            if kind == b"R" and (ended := self._authenticate(struct.unpack_from("!i", content)[0], content[4:])):
                return ended

    def _authenticate(self, method: int, data: bytes) -> Answer | None:
        """Answer a request to authenticate; return how it ended if it can't be answered."""
        if method in (_OK, _SASL_FINAL):
            return None
        if method not in (_CLEAR_TEXT, _MD5, _SASL, _SASL_CONTINUE):
            return Answer("other")
        if self._password is None:
            return Answer("password")
        if method == _CLEAR_TEXT:
            self._send(self._password.encode() + b"\0")
        elif method == _MD5:
            inner = hashlib.md5((self._password + self._user).encode(), usedforsecurity=False).hexdigest()
            outer = hashlib.md5(inner.encode() + data, usedforsecurity=False).hexdigest()
            self._send(f"md5{outer}\0".encode())
        elif method == _SASL:
            if _SCRAM not in data.split(b"\0"):
                return Answer("other")
            self._scram = _Scram(self._password)
            first = self._scram.first
            self._send(_SCRAM + b"\0" + struct.pack("!i", len(first)) + first)
        elif self._scram is not None:
            self._send(self._scram.final(data))
        return None

    def _send(self, data: bytes) -> None:
        self._stream.send(b"p" + struct.pack("!i", len(data) + 4) + data)

    def _message(self) -> tuple[bytes, bytes]:
        kind = self._take(1)
        length = struct.unpack("!i", self._take(4))[0] - 4
        if not 0 <= length <= _LONGEST:
            raise OSError(_NO_POSTGRES)
        return kind, self._take(length)

    def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            received = self._stream.receive()
            if not received:
                raise ConnectionResetError("the server closed the connection")
            self._received += received
        taken, self._received = self._received[:count], self._received[count:]
        return taken


class _Scram:
    """The client's side of SCRAM-SHA-256 (RFC 5802 and 7677), without channel binding."""

    def __init__(self, password: str) -> None:
        self._password = _prepared(password)
        self._bare = f"n=,r={secrets.token_urlsafe(18)}"
        self.first = f"n,,{self._bare}".encode()

    def final(self, challenge: bytes) -> bytes:
        """Answer the server's challenge."""
        fields = dict(part.split("=", 1) for part in challenge.decode().split(","))
        salt, rounds = base64.b64decode(fields["s"]), int(fields["i"])
        client = hmac.digest(hashlib.pbkdf2_hmac("sha256", self._password, salt, rounds), b"Client Key", "sha256")
        without_proof = f"c=biws,r={fields['r']}"
        signed = f"{self._bare},{challenge.decode()},{without_proof}".encode()
        signature = hmac.digest(hashlib.sha256(client).digest(), signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(client, signature, strict=True))
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()


def _prepared(password: str) -> bytes:
    """Normalise a password like SASLprep (RFC 4013), for those that it does not prohibit."""
    mapped = (" " if stringprep.in_table_c12(c) else c for c in password if not stringprep.in_table_b1(c))
    return unicodedata.normalize("NFKC", "".join(mapped)).encode()
