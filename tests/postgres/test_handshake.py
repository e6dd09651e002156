"""What answers need not be a PostgreSQL server."""

from __future__ import annotations

import struct

import pytest

from scarlet_backup_mcp.postgres.server.handshake import ask

SASL, CHALLENGE = struct.pack("!i", 10) + b"SCRAM-SHA-256\0\0", struct.pack("!i", 11)


def message(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("!i", len(content) + 4) + content


class Answers:
    """A stream that has these bytes, whatever is sent."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = [*answers, b""]

    def send(self, data: bytes) -> None:
        pass

    def receive(self) -> bytes:
        return self._answers.pop(0)

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "answers",
    [
        [b"HTTP/1.1 400 Bad Request\r\n\r\n"],
        [message(b"R", b"")],
        [message(b"R", SASL), message(b"R", CHALLENGE + b"s=c2FsdA==,i=4096")],
        [message(b"R", SASL), message(b"R", CHALLENGE + b"r=abc,s=c2FsdA==,i=many")],
        [message(b"R", SASL), message(b"R", CHALLENGE + b"\xff")],
        [message(b"R", SASL)[:7]],
    ],
)
def test_what_is_no_server_is_an_error_of_the_connection(answers: list[bytes]) -> None:
    with pytest.raises(OSError, match=r"no PostgreSQL server|closed the connection"):
        ask(Answers(*answers), {"user": "postgres"}, "secret")
