"""An engine that can't be reached: why, in words without Python's, and the remedy that fits."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import mkdtemp

import pytest

from scarlet_backup_mcp.errors import EngineForbidden, EngineUnreachable
from scarlet_backup_mcp.hosts.docker.engine import Endpoint, Engine, find_endpoint
from scarlet_backup_mcp.hosts.docker.unreachable import unreachable
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.integrity import db_integrity
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import load_settings
from scarlet_backup_mcp.summaries import describe

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets and user ids")

PYTHONS_WORDS = re.compile(r"Error|Exception|Errno|Traceback|Max retries|url|HTTPConnection|pool|\('|0x", re.IGNORECASE)
NOBODY = 65534
Answer = Callable[[socket.socket], object]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user may enter, with a path short enough for a socket's address."""
    made = Path(mkdtemp(prefix="engine-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def listen(place: Path) -> Iterator[Callable[[Answer], str]]:
    """Open a socket that treats each connection like that; gives its address."""
    with ExitStack() as opened:

        def start(answer: Answer) -> str:
            path = place / "engine.sock"
            listener = opened.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen(5)

            def accept() -> None:
                with suppress(OSError):
                    while True:
                        answer(listener.accept()[0])

            threading.Thread(target=accept, daemon=True).start()
            return f"unix://{path}"

        yield start


def connect(address: str, timeout: int = 10) -> EngineUnreachable:
    with pytest.raises(EngineUnreachable) as caught:
        Engine(Endpoint(address), timeout)
    check_words(caught.value.message, address)
    return caught.value


def check_words(message: str, address: str) -> None:
    """It names the address, whose random part may hold anything, and is not in the words of Python."""
    assert address in message
    assert not PYTHONS_WORDS.search(message.replace(address, "")), message


def says(*words: bytes) -> Answer:
    def answer(client: socket.socket) -> None:
        client.recv(4096)
        client.sendall(b"\r\n".join(words))
        client.close()

    return answer


def test_no_socket(place: Path) -> None:
    error = connect(f"unix://{place}/none")
    assert "no such socket" in error.message
    assert "Start Docker Desktop" in error.remedy


def test_no_socket_and_no_docker(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(place))
    error = connect(f"unix://{place}/none")
    assert "no `docker` command" in error.message
    assert error.remedy.startswith("Install Docker")


def test_a_stopped_engine(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{place}/dead")
    error = connect(f"unix://{place}/dead")
    assert "no engine listens on it" in error.message
    assert "Start Docker Desktop" in error.remedy


def test_one_that_hangs_up(listen: Callable[[Answer], str]) -> None:
    assert "closes the connection" in connect(listen(lambda client: client.close())).message


def test_one_that_is_silent(listen: Callable[[Answer], str]) -> None:
    held: list[socket.socket] = []
    assert "does not respond" in connect(listen(held.append), timeout=1).message


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (says(b"hello", b"", b""), "does not speak Docker's API"),
        (says(b"HTTP/1.1 200 OK", b"Content-Length: 2", b"", b"hi"), "does not speak Docker's API"),
        (says(b"HTTP/1.1 503 No", b"Content-Length: 2", b"", b"hi"), "HTTP status 503"),
    ],
)
def test_something_else_listens_there(listen: Callable[[Answer], str], answer: Answer, words: str) -> None:
    assert words in connect(listen(answer)).message


@pytest.mark.parametrize(
    ("address", "words", "remedy"),
    [
        ("tcp://127.0.0.1:1", "nothing listens there", "Start Docker Desktop"),
        ("tcp://no.such.invalid:2375", "can't be resolved", "DOCKER_HOST"),
        ("blah://x", "Invalid bind address", "DOCKER_HOST"),
    ],
)
def test_addresses(address: str, words: str, remedy: str) -> None:
    error = connect(address)
    assert words in error.message
    assert remedy in error.remedy


def test_over_ssh(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "ssh").write_text("#!/bin/sh\nexit 255\n")
    (place / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    error = connect("ssh://me@far.example")
    assert "ssh did not connect" in error.message
    assert "docker -H ssh://me@far.example ps" in error.remedy


def _connect_as_nobody(address: str, results: multiprocessing.SimpleQueue[tuple[str, str, str]]) -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    os.environ["HOME"] = "/"
    try:
        Engine(Endpoint(address), 5)
    except EngineUnreachable as error:
        results.put((error.code, error.message, error.remedy))


@pytest.mark.skipif(sys.platform != "linux", reason="forks and becomes another user")
@pytest.mark.parametrize("group", [0, 12])
def test_no_permission_on_the_socket(listen: Callable[[Answer], str], place: Path, group: int) -> None:
    """With a mode of 0; root, whom modes don't stop, becomes nobody first."""
    address = listen(lambda client: client.close())
    (place / "engine.sock").chmod(0)
    if os.getuid() != 0:
        error = connect(address)
        assert error.code == "engine_forbidden"
        return
    os.chown(place / "engine.sock", 0, group)
    context = multiprocessing.get_context("fork")
    results: multiprocessing.SimpleQueue[tuple[str, str, str]] = context.SimpleQueue()
    child = context.Process(target=_connect_as_nobody, args=(address, results))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert not results.empty()
    code, message, remedy = results.get()
    assert code == "engine_forbidden"
    check_words(message, address)
    assert "no permission" in message
    assert "Docker Desktop" not in remedy
    assert ("sudo usermod -aG man nobody" in remedy) == (group == 12)
    assert "rootless" in remedy


def test_a_windows_pipe_without_permission() -> None:
    """As docker-py's pipes raise it; there is no Windows here to see it happen."""
    raised = type("error", (Exception,), {"__module__": "pywintypes"})(5, "CreateFile", "Access is denied.")
    error = unreachable("npipe:////./pipe/docker_engine", raised)
    assert isinstance(error, EngineForbidden)


def test_unreadable_settings_name_the_file_and_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(EngineUnreachable) as caught:
        find_endpoint({"DOCKER_CONFIG": str(tmp_path)})
    assert "config.json can't be read: it is not valid JSON." in caught.value.message
    assert "Correct that file" in caught.value.remedy


def test_integrity_claims_nothing_about_a_container_nobody_could_look_for(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{place}/none")
    with BackupContext(load_settings(dir=place)) as context:
        text = describe(db_integrity(context, Progress()))
    assert "the container could not be inspected" in text
    assert "not found" not in text
