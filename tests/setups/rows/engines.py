"""Engines other than Docker's own on this machine, and ways to an engine."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from ...conftest import IMAGE
from ...engines.conftest import set_up
from ...helpers.containers import run_docker, run_docker_quietly
from ...helpers.engine_front import Front, Reply
from ...helpers.volume import HASTY, LABEL, PGDATA, TRUSTED, a_volume
from ..table import SQL, VOLUME, Server, Setup

ALLOWED = re.compile(r"(/v[\d.]+)?/(containers|exec|images|info|volumes|version|_ping)\b")
"""What docker-socket-proxy lets through with CONTAINERS, EXEC, IMAGES, INFO, VOLUMES and POST."""


def on(kind: str) -> Callable[[Path], AbstractContextManager[str]]:
    """A server on an engine of the tests' own, to which DOCKER_HOST leads as long as it runs."""

    @contextmanager
    def start(_: Path) -> Generator[str]:
        name = f"setup-{secrets.token_hex(4)}"
        with set_up(kind) as reached, pytest.MonkeyPatch.context() as patch:
            for variable, value in reached.environment.items():
                patch.setenv(variable, value)
            with a_volume() as volume:
                options = ("--name", name, *LABEL, *TRUSTED, "--network", "none", "-v", f"{volume}:{PGDATA}")
                run_docker("run", "-d", "--pull", "never", *options, IMAGE, *HASTY)
                yield name
                run_docker_quietly("rm", "-fv", name)

    return start


@contextmanager
def through_a_proxy(_: Path) -> Generator[Mapping[str, str]]:
    """DOCKER_HOST leads to a stand-in for docker-socket-proxy, before the machine's engine."""

    def decide(_: str, target: str) -> Reply | None:
        return None if ALLOWED.match(target) else Reply(403, b"<html>Forbidden</html>")

    with Front(decide) as front, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", front.address)
        yield {}


def row(name: str, setup: str, kind: str) -> Setup:
    return Setup(name=name, setup=setup, server=Server(start=on(kind), in_memory=False), works=[*SQL, *VOLUME])


ROWS = [
    row("podman", "Podman 4.3, with `DOCKER_HOST` on its service's socket", "Podman"),
    row("docker-26", "Docker Engine 26.1, on a socket of its own", "Docker of another version"),
    row("containerd-store", "Docker Engine 26.1 with containerd's image store", "containerd's image store"),
    row("tls", "An engine over TLS: `DOCKER_HOST=tcp://…`, `DOCKER_TLS_VERIFY`, `DOCKER_CERT_PATH`", "over TLS"),
    row("ssh", "An engine over ssh, with `ControlMaster` in `~/.ssh/config`", "over ssh"),
    Setup(
        name="socket-proxy",
        setup="docker-socket-proxy with CONTAINERS, EXEC, IMAGES, INFO, VOLUMES and POST",
        server=Server(),
        around=through_a_proxy,
        works=SQL,
    ),
]
