"""Engines of the tests' own beside the machine's: Podman and another dockerd; and ways to them: TLS and ssh.

`.ci/long` installs what they need. Each keeps its state in a directory of its own and runs in network and mount
namespaces of its own, so none sees the machine's bridges, rules or containers. Containers there need `--network none`:
their addresses are others' here.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

from ..conftest import IMAGE
from .containers import run_docker

DOCKERD = "SCARLET_TEST_DOCKERD"
"""Names a dockerd of another version than the machine's."""
APART = ("unshare", "--net", "--mount", "--propagation", "slave", "sh", "-c", 'ip link set lo up; exec "$@"', "sh")
BEGIN = """
import os, sys
at = sys.argv.index("--")
for inherited in map(int, sys.argv[1:at]):
    os.dup2(inherited, 3)
    os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execvp(sys.argv[at + 1], sys.argv[at + 1:])
"""
"""Becomes a program that may take over a socket, as systemd hands it over (sd_listen_fds)."""
UP_SECONDS = 60

RUNC = f"""#!{sys.executable}
import json, os, sys
from pathlib import Path

for option, value in zip(sys.argv, sys.argv[1:]):
    file = Path(value, "config.json") if option == "--bundle" else Path(value)
    if option in ("--bundle", "--process"):
        settings = json.loads(file.read_text())
        settings.get("process", settings).pop("rlimits", None)
        file.write_text(json.dumps(settings))
os.execvp("runc", ["runc", *sys.argv[1:]])
"""
"""A runtime for Podman that raises no limits, which a sandboxed machine forbids even to root."""


@dataclass(frozen=True)
class Reached:
    """An engine, and the variables that lead the docker command and us to it."""

    environment: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def address(self) -> str:
        """What DOCKER_HOST says."""
        return self.environment["DOCKER_HOST"]


def missing_for(*programs: str) -> str | None:
    """Say what an engine of the tests' own lacks here; None if nothing."""
    if sys.platform != "linux" or os.getuid() != 0:
        return "An engine of the tests' own needs Linux and root."
    lacking = [program for program in ("unshare", "runc", *programs) if shutil.which(program) is None]
    return f"There is no {', '.join(lacking)} here: see .ci/long." if lacking else None


def dockerd_missing() -> str | None:
    """Say why no other dockerd can be started here; None if it can."""
    program = os.environ.get(DOCKERD)
    if not program:
        return f"{DOCKERD} does not name a dockerd of another version: see .ci/long."
    return missing_for(program)


@contextmanager
def state_directory() -> Generator[Path]:
    """A new directory whose path is short enough for a socket's address."""
    made = Path(mkdtemp(prefix="engine-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def podman() -> Generator[Reached]:
    """Podman as a service that speaks Docker's API, with the tests' image."""
    with state_directory() as directory:
        runtime = directory / "runc"
        runtime.write_text(RUNC)
        runtime.chmod(stat.S_IRWXU)
        address = f"unix://{directory}/podman.sock"
        storage = ("--root", str(directory / "root"), "--runroot", str(directory / "run"), "--storage-driver", "vfs")
        how = ("--runtime", str(runtime), "--cgroup-manager", "cgroupfs", "--events-backend", "file")
        with _running(["podman", *storage, *how, "system", "service", "--time", "0", address], directory):
            yield from _filled(Reached({"DOCKER_HOST": address}))


@contextmanager
def another_dockerd(*, containerd_store: bool = False, tls: Path | None = None) -> Generator[Reached]:
    """The dockerd that `DOCKERD` names, with the tests' image; with containerd's image store, or listening on a socket
    of this machine with the certificates in `tls` besides."""
    with state_directory() as directory, ExitStack() as opened:
        settings = directory / "daemon.json"
        settings.write_text(json.dumps({"features": {"containerd-snapshotter": containerd_store}}))
        program, address = os.environ[DOCKERD], f"unix://{directory}/docker.sock"
        places = {"data-root": "data", "exec-root": "run", "pidfile": "pid", "config-file": "daemon.json"}
        options = [f"--{name}={directory / place}" for name, place in places.items()]
        command, listener = [program, *options, "--host", address], None
        if tls is not None:
            listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
            files = [f"--tls{name}={tls / file}.pem" for name, file in SERVER_FILES.items()]
            command = [*command, "--host", "fd://", "--tlsverify", *files]
        path = f"{Path(program).parent}:{Path(program).parents[1] / 'bin'}:{os.environ['PATH']}"
        with _running(command, directory, listener, {"PATH": path}):
            reached = Reached({"DOCKER_HOST": address})
            if listener is not None:
                address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
                client = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tls)}
                reached = Reached({"DOCKER_HOST": address, **client})
            yield from _filled(reached)


@contextmanager
def _running(
    command: Sequence[str],
    directory: Path,
    listener: socket.socket | None = None,
    variables: dict[str, str] | None = None,
) -> Generator[None]:
    """A daemon, from when it answers on its socket in `directory`. It inherits `listener` as systemd would give it."""
    inherited = [listener.fileno()] if listener else []
    begin = [*APART, sys.executable, "-c", BEGIN, *map(str, inherited), "--", *command]
    environment = {**os.environ, **(variables or {})}
    environment.pop("DOCKER_HOST", None)
    with (directory / "log").open("wb") as log:
        daemon = subprocess.Popen(
            begin, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, pass_fds=inherited
        )
    try:
        _wait(lambda: any(map(_accepts, directory.glob("*.sock"))), daemon, directory / "log")
        yield
    finally:
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(UP_SECONDS)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def _wait(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + UP_SECONDS
    while not ready():
        said = log.read_text(errors="replace")[-2000:] if log.exists() else ""
        assert process.poll() is None, f"It ended: {said}"
        assert time.monotonic() < until, f"It does not come up: {said}"
        time.sleep(0.1)


def _filled(reached: Reached) -> Generator[Reached]:
    """The engine with the tests' image in it; all its containers are removed at the end."""
    there = {**os.environ, **reached.environment}
    with subprocess.Popen(["docker", "save", IMAGE], stdout=subprocess.PIPE) as saved:
        loaded = subprocess.run(["docker", "load"], stdin=saved.stdout, capture_output=True, env=there, check=False)
    assert loaded.returncode == 0, loaded.stderr.decode()
    try:
        yield reached
    finally:
        for container in run_docker("ps", "-aq", env=there).split():
            run_docker("rm", "-fv", container, env=there)


# -- ways to an engine -----------------------------------------------------------------------------------------------

SERVER_FILES = {"cacert": "ca", "cert": "server", "key": "server-key"}
"""dockerd's options for TLS, and the files of `certificates`."""


def certificates(directory: Path) -> Path:
    """Write ca.pem, and cert.pem and key.pem for a client; server.pem and server-key.pem for 127.0.0.1."""
    directory.mkdir()
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    _openssl(directory, "req", "-x509", *curve, "-subj", "/CN=authority", "-keyout", "ca-key.pem", "-out", "ca.pem")
    signed = ("-CA", "ca.pem", "-CAkey", "ca-key.pem", "-addext", "basicConstraints=critical,CA:FALSE")
    for name, key, use in (("server", "server-key", "serverAuth"), ("cert", "key", "clientAuth")):
        extensions = ("-addext", f"extendedKeyUsage={use}", "-addext", "subjectAltName=IP:127.0.0.1")
        files = ("-subj", f"/CN={name}", "-keyout", f"{key}.pem", "-out", f"{name}.pem")
        _openssl(directory, "req", "-x509", *signed, *curve, *extensions, *files)
    return directory


def _openssl(directory: Path, *arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Sshd:
    """A live sshd on 127.0.0.1, an `ssh` to be first on PATH that has its key, and the files of both."""

    directory: Path
    port: int

    @property
    def address(self) -> str:
        """As DOCKER_HOST spells it."""
        return f"ssh://root@127.0.0.1:{self.port}"

    @property
    def path(self) -> str:
        """PATH, with that `ssh` first."""
        return f"{self.directory / 'bin'}:{os.environ['PATH']}"

    def configure(self, *lines: str) -> None:
        """Write the configuration of that `ssh`, after `lines`: the first value of an option counts."""
        files = (f"IdentityFile {self.directory}/key", f"UserKnownHostsFile {self.directory}/known")
        (self.directory / "ssh_config").write_text("\n".join([*lines, *files, "IdentitiesOnly yes", ""]))


@contextmanager
def sshd(set_env: Iterable[str] = ()) -> Generator[Sshd]:
    """An sshd whose programs get these variables ("NAME=value")."""
    with state_directory() as directory:
        for name in ("host", "key", "other"):
            keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)]
            subprocess.run(keygen, check=True, capture_output=True)
        with socket.create_server(("127.0.0.1", 0)) as found:
            port = found.getsockname()[1]
        shutil.copy(directory / "key.pub", directory / "authorized")
        (directory / "known").write_text(f"[127.0.0.1]:{port} {(directory / 'host.pub').read_text()}")
        (directory / "sshd_config").write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {directory}/host\nPidFile none\nStrictModes no\nUsePAM no\n"
            f"AuthorizedKeysFile {directory}/authorized\nPasswordAuthentication no\nPermitRootLogin yes\n"
            f"KbdInteractiveAuthentication no\nMaxSessions 100\nMaxStartups 100\n"
            + "".join(f"SetEnv {variable}\n" for variable in set_env)
        )
        (directory / "bin").mkdir()
        ssh = directory / "bin" / "ssh"
        ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {shlex.quote(str(directory))}/ssh_config "$@"\n')
        ssh.chmod(stat.S_IRWXU)
        Path("/run/sshd").mkdir(exist_ok=True)
        made = Sshd(directory, port)
        made.configure()
        program = shutil.which("sshd") or "/usr/sbin/sshd"
        command = [program, "-D", "-f", str(directory / "sshd_config"), "-E", str(directory / "log")]
        daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            _wait(lambda: _answers(port), daemon, directory / "log")
            yield made
        finally:
            daemon.terminate()
            daemon.wait(UP_SECONDS)


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
