"""Engines of the tests' own."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest

from ..conftest import require
from ..helpers import engines
from ..helpers.engines import Reached


@contextmanager
def over_tls() -> Generator[Reached]:
    with ExitStack() as opened:
        files = engines.certificates(opened.enter_context(engines.state_directory()) / "tls")
        yield opened.enter_context(engines.another_dockerd(tls=files))


@contextmanager
def over_ssh() -> Generator[Reached]:
    """With one connection for all calls, which ssh's users know to configure: each call opens one otherwise."""
    with engines.another_dockerd() as there, engines.sshd([f"DOCKER_HOST={there.address}"]) as daemon:
        shared = ("ControlMaster auto", f"ControlPath {daemon.directory}/control", "ControlPersist 20")
        daemon.configure(*shared)
        yield Reached({"DOCKER_HOST": daemon.address, "PATH": daemon.path})


@contextmanager
def containerd_store() -> Generator[Reached]:
    with engines.another_dockerd(containerd_store=True) as reached:
        yield reached


Start = Callable[[], AbstractContextManager[Reached]]
KINDS: dict[str, tuple[Callable[[], str | None], Start]] = {
    "Podman": (lambda: engines.missing_for("podman"), engines.podman),
    "Docker of another version": (engines.dockerd_missing, engines.another_dockerd),
    "containerd's image store": (engines.dockerd_missing, containerd_store),
    "over TLS": (lambda: engines.dockerd_missing() or engines.missing_for("openssl"), over_tls),
    "over ssh": (lambda: engines.dockerd_missing() or engines.missing_for("ssh", "sshd"), over_ssh),
}


def set_up(kind: str) -> AbstractContextManager[Reached]:
    missing, start = KINDS[kind]
    require(missing())
    return start()


@pytest.fixture(scope="module", params=list(KINDS))
def engine(require_docker: None, request: pytest.FixtureRequest) -> Iterator[Reached]:
    """An engine of the tests' own of each kind, to which the docker command and we are led."""
    with set_up(request.param) as reached, pytest.MonkeyPatch.context() as patch:
        for name, value in reached.environment.items():
            patch.setenv(name, value)
        yield reached
