"""What psql itself makes of a script: it runs against a server that only writes down what it is sent."""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

COPY = re.compile(
    rb"(?:\s|/\*[^*]*\*/)*copy(?:\s|/\*\*/)+copymark\s*(?:\(a\)\s*)?from\s+(?:--x\n)?\s*(?:stdin|stdout)\s*;",
    re.I | re.S,
)
"""The statements that are answered as COPY … FROM stdin. The rest of psql's own judgement is left to psql."""
_SCRIPT_END = "SELECT 'end of script'"


@dataclass
class Sent:
    """What psql sent for one script: each statement, and the data of each COPY."""

    statements: list[bytes] = field(default_factory=list[bytes])
    blocks: list[bytes] = field(default_factory=list[bytes])


class ListeningServer:
    """Speaks as much of PostgreSQL's protocol (3.0) as psql needs to send a script; takes one connection."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.sent: list[Sent] = []
        self._now = Sent()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """After psql has ended."""
        self._thread.join(timeout=30)
        self._socket.close()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection, connection.makefile("rwb") as stream:
            (length,) = struct.unpack("!i", stream.read(4))
            stream.read(length - 4)
            stream.write(_message(b"R", struct.pack("!i", 0)))
            settings = {"server_version": "15.0", "client_encoding": "UTF8", "standard_conforming_strings": "on"}
            for name, value in settings.items():
                stream.write(_message(b"S", f"{name}\0{value}\0".encode()))
            stream.write(_message(b"Z", b"I"))
            stream.flush()
            while (kind := stream.read(1)) not in (b"", b"X"):
                (length,) = struct.unpack("!i", stream.read(4))
                body = stream.read(length - 4)
                if kind == b"Q":
                    self._query(body.removesuffix(b"\0"))
                if kind == b"d":
                    self._now.blocks[-1] += body
                if kind == b"Q" and COPY.fullmatch(body.removesuffix(b"\0")):
                    self._now.blocks.append(b"")
                    stream.write(_message(b"G", struct.pack("!bh", 0, 0)))
                elif kind in (b"Q", b"c", b"f"):
                    stream.write(_message(b"C", b"OK\0") + _message(b"Z", b"I"))
                stream.flush()

    def _query(self, text: bytes) -> None:
        if text == _SCRIPT_END.encode():
            self.sent.append(self._now)
            self._now = Sent()
        else:
            self._now.statements.append(text)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def sent_by_psql(psql: Sequence[str], scripts: Sequence[str]) -> list[Sent]:
    """Let psql run each script (paths as psql sees them), each read afresh; what it sent for each."""
    server = ListeningServer()
    address = f"host=127.0.0.1 port={server.port} user=x dbname=x sslmode=disable gssencmode=disable"
    files = [part for script in scripts for part in ("-f", script, "-c", _SCRIPT_END)]
    done = subprocess.run([*psql, "-X", "-q", "-d", address, *files], capture_output=True, timeout=300, check=False)
    server.close()
    assert len(server.sent) == len(scripts), done.stderr[-2000:]
    return server.sent
