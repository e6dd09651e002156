"""Ways to an engine that are blocked: TLS, ssh, and proxies, each with a sentence and a remedy of its own."""

from __future__ import annotations

import os
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import EngineUnreachable
from scarlet_backup_mcp.hosts.docker.container import DockerHost
from scarlet_backup_mcp.hosts.docker.engine import Endpoint, Engine, EngineRefused
from scarlet_backup_mcp.hosts.docker.unreachable import unreachable

from ..conftest import require
from ..helpers import engines
from ..helpers.engine_front import Front, Reply
from ..helpers.engines import Sshd, certificates

PYTHONS_WORDS = re.compile(r"Exception|Errno|Traceback|Max retries|HTTPSConnection|_ssl\.c|\[SSL")


def connect(address: str, files: Path | None = None) -> EngineUnreachable:
    with pytest.raises(EngineUnreachable) as caught:
        Engine(Endpoint(address, files), 10)
    assert not PYTHONS_WORDS.search(caught.value.message), caught.value.message
    return caught.value


def always(reply: Reply) -> Callable[[str, str], Reply]:
    def decide(_method: str, _target: str) -> Reply:
        return reply

    return decide


# -- TLS


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and certificates that it signed."""
    return certificates(tmp_path_factory.mktemp("tls") / "files")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those of another authority."""
    return certificates(tmp_path_factory.mktemp("tls") / "other")


@pytest.fixture(scope="module")
def tls_server(files: Path) -> Iterator[str]:
    """Asks for a client certificate, as dockerd does with --tlsverify; then says which version it has."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / "server.pem", files / "server-key.pem")
    context.load_verify_locations(files / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client = listener.accept()[0]
                    with suppress(OSError), context.wrap_socket(client, server_side=True) as secured:
                        secured.recv(4096)
                        secured.sendall(Reply.json({"ApiVersion": "1.41"}).encoded())

        threading.Thread(target=accept, daemon=True).start()
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"


def directory_with(tmp_path: Path, **sources: Path) -> Path:
    """A directory with those files, as DOCKER_CERT_PATH names it."""
    for name, source in sources.items():
        (tmp_path / f"{name}.pem").write_bytes(source.read_bytes())
    return tmp_path


def test_an_engines_own_authority_comes_before_the_webs(
    tls_server: str, files: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(other / "ca.pem"))
    Engine(Endpoint(tls_server, files)).close()


def test_another_authority(tls_server: str, files: Path, other: Path, tmp_path: Path) -> None:
    mixed = directory_with(tmp_path, ca=other / "ca.pem", cert=files / "cert.pem", key=files / "key.pem")
    error = connect(tls_server, mixed)
    assert f"not signed by the authority in {mixed}/ca.pem" in error.message
    assert "DOCKER_CERT_PATH" in error.remedy


def test_no_client_certificate(tls_server: str, files: Path, tmp_path: Path) -> None:
    error = connect(tls_server, directory_with(tmp_path, ca=files / "ca.pem"))
    assert f"asks for a client certificate, and there is none in {tmp_path}" in error.message
    assert "cert.pem and key.pem" in error.remedy


def test_a_client_certificate_of_another_authority(tls_server: str, files: Path, other: Path, tmp_path: Path) -> None:
    mixed = directory_with(tmp_path, ca=files / "ca.pem", cert=other / "cert.pem", key=other / "key.pem")
    error = connect(tls_server, mixed)
    assert f"the client certificate {mixed}/cert.pem" in error.message
    assert "the engine's authority signed" in error.remedy


def test_another_name_than_the_certificates(tls_server: str, files: Path) -> None:
    error = connect(tls_server.replace("127.0.0.1", "localhost"), files)
    assert "for another name" in error.message
    assert "DOCKER_HOST" in error.remedy


@pytest.mark.parametrize(("lacks", "names"), [("ca", "ca.pem"), ("key", "key.pem")])
def test_a_missing_file(tls_server: str, files: Path, tmp_path: Path, lacks: str, names: str) -> None:
    there = {name: files / f"{name}.pem" for name in ("ca", "cert", "key") if name != lacks}
    error = connect(tls_server, directory_with(tmp_path, **there))
    assert f"{names} is missing in {tmp_path}" in error.message


def test_tls_where_there_is_none(files: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    with plain.accept()[0] as client:
                        client.recv(4096)
                        client.sendall(Reply(400, b"Bad Request", "text/plain").encoded())

        threading.Thread(target=accept, daemon=True).start()
        error = connect(f"tcp://127.0.0.1:{plain.getsockname()[1]}", files)
    assert "does not speak TLS" in error.message
    assert "DOCKER_TLS_VERIFY" in error.remedy


def test_no_tls_where_there_has_to_be_some() -> None:
    """What Go's net/http answers to plain HTTP on a port for TLS (seen on dockerd 26.1.5)."""
    answer = Reply(400, b"Client sent an HTTP request to an HTTPS server.\n", "text/plain")
    with Front(always(answer)) as front:
        error = connect(front.address)
    assert "over TLS" in error.message
    assert "DOCKER_TLS_VERIFY=1" in error.remedy


# -- proxies

FORBIDDEN = Reply(
    403, b"<html><body><h1>403 Forbidden</h1>\nRequest forbidden by administrative rules.\n</body></html>"
)
"""HAProxy's, which docker-socket-proxy is made of."""
RUNNING: dict[str, object] = {
    "Id": "1",
    "Name": "/db",
    "Image": "sha256:1",
    "Mounts": [],
    "HostConfig": {},
    "Config": {"Image": "postgres"},
    "State": {"Status": "running", "StartedAt": "", "Health": None},
}


@pytest.mark.parametrize(
    ("forbids", "doing"), [("/containers/1/exec", "prepare a program"), ("/exec/2/start", "start a program")]
)
def test_a_proxy_that_forbids_programs(monkeypatch: pytest.MonkeyPatch, forbids: str, doing: str) -> None:
    def decide(method: str, target: str) -> Reply:
        if target.endswith(forbids):
            return FORBIDDEN
        if target.endswith("/exec"):
            return Reply.json({"Id": "2"}, 201)
        return Reply.json({"ApiVersion": "1.41"} if target.endswith("/version") else RUNNING)

    with Front(decide) as front:
        monkeypatch.setenv("DOCKER_HOST", front.address)
        host = DockerHost("db")
        with pytest.raises(EngineRefused) as caught:
            host.start(["true"])
        host.close()
    assert caught.value.status == 403
    assert f"does not allow us to {doing} in the container: it forbids `POST /v1.41{forbids}`." in caught.value.message
    assert "EXEC=1" in caught.value.remedy


@pytest.mark.parametrize("status", [403, 502, 503])
def test_a_page_instead_of_an_answer(status: int) -> None:
    with Front(always(Reply(status, FORBIDDEN.body))) as front:
        error = connect(front.address)
    assert f"HTTP status {status} and a web page, as a proxy does" in error.message
    assert "<" not in error.message
    assert ("docker-socket-proxy" in error.remedy) == (status == 403)


def test_a_page_later_on() -> None:
    def decide(_: str, target: str) -> Reply:
        return Reply.json({"ApiVersion": "1.41"}) if target.endswith("/version") else Reply(502, b"<html>no</html>")

    with Front(decide) as front, pytest.raises(EngineRefused) as caught:
        Engine(Endpoint(front.address)).inspect_container("db")
    assert "could not look at the container db: HTTP status 502." in caught.value.message


# -- ssh


@pytest.mark.parametrize(
    ("says", "code", "words", "remedy"),
    [
        ("me@far: Permission denied (publickey).", 255, "does not let this user in", "ssh-copy-id -p 22 me@far"),
        ("Host key verification failed.", 255, "does not know the host key", "`ssh -p 22 me@far`"),
        ("sh: 1: docker: not found", 127, "no `docker` command for me on far", "ssh -p 22 me@far docker version"),
        ("connect to host far port 22: Connection refused", 255, "Connection refused", "docker -H"),
        (
            "Cannot connect to the Docker daemon at unix:///x.",
            1,
            "no engine answers on far: Cannot",
            "Start the engine",
        ),
    ],
)
def test_over_ssh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, code: int, words: str, remedy: str
) -> None:
    """What OpenSSH 9.2 said, from a stand-in."""
    (tmp_path / "ssh").write_text(f"#!/bin/sh\necho '{says}' >&2\nexit {code}\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    error = unreachable("ssh://me@far:22", EOFError())
    assert words in error.message
    assert remedy in error.remedy


def wrong_key(daemon: Sshd) -> None:
    (daemon.directory / "authorized").write_text((daemon.directory / "other.pub").read_text())


def unknown_host(daemon: Sshd) -> None:
    (daemon.directory / "known").write_text("")


def another_host(daemon: Sshd) -> None:
    other = (daemon.directory / "other.pub").read_text()
    (daemon.directory / "known").write_text(f"[127.0.0.1]:{daemon.port} {other}")


def nothing(_: Sshd) -> None:
    pass


@pytest.mark.long
@pytest.mark.parametrize(
    ("variables", "spoil", "words", "remedy"),
    [
        ([], wrong_key, "does not let this user in", "ssh-copy-id"),
        ([], unknown_host, "does not know the host key", "fingerprint"),
        ([], another_host, "another one than before", "ssh-keygen -R '[127.0.0.1]:"),
        (["PATH=/nonexistent"], nothing, "there is no `docker` command", "docker version"),
        (["DOCKER_HOST=unix:///nonexistent"], nothing, "no engine answers on 127.0.0.1", "Start the engine"),
    ],
)
def test_a_live_sshd(
    monkeypatch: pytest.MonkeyPatch,
    variables: list[str],
    spoil: Callable[[Sshd], None],
    words: str,
    remedy: str,
) -> None:
    require(engines.missing_for("ssh", "sshd"))
    with engines.sshd(variables) as daemon:
        spoil(daemon)
        monkeypatch.setenv("PATH", daemon.path)
        error = connect(daemon.address)
    assert words in error.message
    assert remedy in error.remedy
