"""A socket that speaks HTTP as an engine does: it answers by itself, or passes requests on to the machine's engine."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Self

ENGINE = "/var/run/docker.sock"


@dataclass(frozen=True)
class Reply:
    """An answer over HTTP."""

    status: int
    body: bytes
    kind: str = "text/html"

    @classmethod
    def json(cls, value: Any, status: int = 200) -> Self:
        """As the Engine API gives it."""
        return cls(status, json.dumps(value).encode(), "application/json")

    def encoded(self) -> bytes:
        """With the connection's end after it."""
        head = f"HTTP/1.1 {self.status} x\r\nContent-Type: {self.kind}\r\nContent-Length: {len(self.body)}\r\n"
        return head.encode() + b"Connection: close\r\n\r\n" + self.body


class Front:
    """Asks `decide` about each request (method and target); None passes it on to the engine. One request for each
    connection, so that every one is seen."""

    def __init__(self, decide: Callable[[str, str], Reply | None]) -> None:
        self._decide = decide
        self._directory = Path(mkdtemp(prefix="front-"))
        self.address = f"unix://{self._directory}/engine.sock"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{self._directory}/engine.sock")
        self._listener.listen(50)
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        shutil.rmtree(self._directory)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            begun = b""
            while b"\r\n\r\n" not in begun:
                received = client.recv(1 << 16)
                if not received:
                    return
                begun += received
            line, _, rest = begun.partition(b"\r\n")
            method, target, _ = line.decode().split(" ")
            if (reply := self._decide(method, target)) is not None:
                client.sendall(reply.encoded())
                return
            if b"\r\nupgrade:" not in rest.lower():  # a stream keeps its own header
                rest = b"Connection: close\r\n" + rest
            with socket.socket(socket.AF_UNIX) as engine:
                engine.connect(ENGINE)
                engine.sendall(line + b"\r\n" + rest)
                back = threading.Thread(target=_pass_on, args=(engine, client), daemon=True)
                back.start()
                _pass_on(client, engine)
                back.join()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
