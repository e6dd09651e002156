"""An engine with just the containers that have one label: what a machine looks like on which nothing else runs."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

ENGINE = "/var/run/docker.sock"
_LISTING = re.compile(rb"\AGET (\S*/containers/json)\?(\S*) ")


@contextmanager
def only_labelled(label: str, path: Path) -> Generator[str]:
    """The address, as in DOCKER_HOST, of an engine at that socket. It lists the containers with `label` alone; whatever
    is asked for by its name is passed on unseen."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    threading.Thread(target=_accept, args=(listener, label), daemon=True).start()
    try:
        yield f"unix://{path}"
    finally:
        listener.close()


def _accept(listener: socket.socket, label: str) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            engine = socket.socket(socket.AF_UNIX)
            engine.connect(ENGINE)
            for source, sink in ((client, engine), (engine, client)):
                threading.Thread(target=_pass_on, args=(source, sink, label), daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket, label: str) -> None:
    """A request's head comes in one piece, since http.client sends it so."""
    filters = quote(f'{{"label":["{label}"]}}').encode()
    with suppress(OSError):
        while chunk := source.recv(1 << 16):
            listing = _LISTING.match(chunk)
            if listing and b"filters=" not in listing[2]:
                chunk = chunk.replace(listing[2], listing[2] + b"&filters=" + filters, 1)
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)
