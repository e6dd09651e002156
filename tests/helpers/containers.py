"""The docker command, and PostgreSQL's own programs for servers in containers."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from scarlet_backup_mcp.cli.demo.embedded import wheel_bin_dir

DOCKER_SECONDS = 120
"""No docker command of the tests takes longer, or the test fails instead of hanging."""
QUICK = {
    "POSTGRES_INITDB_ARGS": "--no-sync",
    "PATH": "/usr/local/sbin:/usr/local/bin:"
    + "".join(f"/usr/lib/postgresql/{version}/bin:" for version in (15, 17, 18))
    + "/usr/sbin:/usr/bin:/sbin:/bin",
}
"""Variables for a container with PostgreSQL: its cluster has to outlive no power cut, and the programs themselves come
before Debian's Perl script for each of them, which takes four times as long to start."""
QUICKLY = tuple(word for name, value in QUICK.items() for word in ("-e", f"{name}={value}"))
"""The same for `docker run`."""
_PSQL = ("-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-f", "-")
_UNREACHED = b"psql: error: connection to server"
"""How psql's own message begins when it could not connect at all: nothing has been run then."""


def run_docker(*arguments: str, stdin: str = "", env: dict[str, str] | None = None) -> str:
    """Run a docker command; return its stdout. Raises AssertionError with its stderr when it fails."""
    done = docker(arguments, stdin, env)
    assert done.returncode == 0, f"docker {arguments[0]}: {done.stderr.decode(errors='replace')}"
    return done.stdout.decode()


def run_docker_quietly(*arguments: str) -> str:
    """Run a docker command; return its stdout, or "" if it fails."""
    done = docker(arguments)
    return done.stdout.decode().strip() if done.returncode == 0 else ""


def docker(
    arguments: tuple[str, ...], stdin: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a docker command in bytes, not text: Python would change line ends, which a test may be about."""
    command = ["docker", *arguments]
    return subprocess.run(
        command, input=stdin.encode(), capture_output=True, env=env, timeout=DOCKER_SECONDS, check=False
    )


def psql_in(container: str, statements: str, database: str) -> str:
    """Run SQL as the superuser; return the unaligned rows. Raises AssertionError with the server's error.

    Over TCP where that is possible, which takes a seventh of the time of a `docker exec`.
    """
    done = _over_tcp(container, "psql", "-w", *_PSQL, "-d", database, stdin=statements)
    if done is None or (done.returncode == 2 and done.stderr.startswith(_UNREACHED)):
        done = docker(("exec", "-i", container, "psql", *_PSQL, "-d", database), statements)
    assert done.returncode == 0, f"psql: {done.stderr.decode(errors='replace')}"
    return done.stdout.decode().removesuffix("\n")


def wait_for_server(container: str) -> None:
    """Wait until PostgreSQL accepts connections over TCP: on the local socket a first start answers too early."""
    deadline = time.monotonic() + 60
    while not _is_ready(container):
        assert time.monotonic() < deadline, f"PostgreSQL in {container} does not come up."
        time.sleep(0.1)


def _is_ready(container: str) -> bool:
    done = _over_tcp(container, "psql", "-w", "-X", "-c", "", "-U", "postgres", "-d", "postgres")
    if done is not None and done.returncode == 0:
        return True
    return run_docker_quietly("exec", container, "pg_isready", "-h", "127.0.0.1", "-U", "postgres") != ""


def _over_tcp(
    container: str, program: str, *arguments: str, stdin: str = ""
) -> subprocess.CompletedProcess[bytes] | None:
    """Run a client program here; None where the container has no address that can be reached from here."""
    if sys.platform != "linux":  # Docker Desktop's containers are in a machine of their own
        return None
    found = run_docker_quietly("inspect", "-f", "{{json .NetworkSettings.Networks}}\n{{json .Config.Env}}", container)
    networks, variables = map(json.loads, found.splitlines() or ("{}", "[]"))
    address = next((network["IPAddress"] for network in networks.values() if network["IPAddress"]), None)
    if address is None:
        return None
    password = next((word.partition("=")[2] for word in variables if word.startswith("POSTGRES_PASSWORD=")), "")
    environment = {"PGHOST": address, "PGPASSWORD": password, "PGCONNECT_TIMEOUT": "2"}
    command = [str(wheel_bin_dir() / program), *arguments]
    return subprocess.run(
        command, input=stdin.encode(), capture_output=True, env=environment, timeout=DOCKER_SECONDS, check=False
    )
