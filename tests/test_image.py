"""The Docker image, built from the Dockerfile on Debian's Python and used as docs/install.md says."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from .conftest import PROJECT_ROOT, Stack
from .helpers.containers import run_docker

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
"""This machine's: a package index may be behind one of its own."""
SOCKET = "/var/run/docker.sock"

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        shutil.which("apt-get") is None or os.geteuid() != 0, reason="builds a Debian system: as root, on Debian"
    ),
]


@pytest.fixture(scope="module")
def base(require_docker: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """In the place of `python:3.13-slim`, which comes from a registry: Debian with its python3 and venv."""
    directory, tag = tmp_path_factory.mktemp("base"), f"scarlet-test-base-{secrets.token_hex(4)}"
    # With lists of its own: those of the machine may be old or missing, and are not to be changed.
    (directory / "lists" / "partial").mkdir(parents=True)
    apt = ["apt-get", "-qq", "-o", f"Dir::State::lists={directory / 'lists'}", "-o", "APT::Sandbox::User=root"]
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "download", "mmdebstrap"], cwd=directory, check=True)
    subprocess.run(["dpkg-deb", "-x", str(next(directory.glob("*.deb"))), "tool"], cwd=directory, check=True)
    command = [
        str(directory / "tool" / "usr" / "bin" / "mmdebstrap"),
        *("--quiet", "--mode=root", "--variant=essential", "--include=python3,python3-venv,ca-certificates"),
        *("--aptopt=APT::Install-Recommends false", f'--customize-hook=cp {CERTIFICATES} "$1{CERTIFICATES}"'),
        *("bookworm", "root.tar"),
    ]
    subprocess.run(command, cwd=directory, check=True)
    run_docker("import", "-c", f"ENV PIP_CERT={CERTIFICATES}", str(directory / "root.tar"), tag)
    yield tag
    run_docker("rmi", tag)


@pytest.fixture(scope="module")
def image(base: str) -> Iterator[str]:
    """The image of the project."""
    tag = f"scarlet-test-image-{secrets.token_hex(4)}"
    build = ["docker", "build", "--quiet", "--network", "host", "--build-arg", f"BASE={base}", "--tag", tag, "."]
    subprocess.run(build, cwd=PROJECT_ROOT, env={**os.environ, "DOCKER_BUILDKIT": "0"}, check=True)
    yield tag
    run_docker("rmi", tag)


async def test_the_server_in_the_image_backs_up_the_container_beside_it(
    image: str, scarlet: Stack, tmp_path: Path
) -> None:
    command = ["run", "--rm", "-i", "-v", f"{SOCKET}:{SOCKET}", "-v", f"{tmp_path}:/backups"]
    settings = {"CONTAINER": scarlet.container, "GATE_LEVEL": "unproved", "SANDBOX_CACHE": "false"}
    for name, value in settings.items():
        command += ["-e", f"SCARLET_BACKUP_{name}={value}"]
    server = StdioServerParameters(command="docker", args=[*command, image], env=dict(os.environ))
    async with Client(stdio_client(server), mode="legacy") as client:
        made = await client.call_tool("backup", {"wait_seconds": 0})
        drilled = await client.call_tool("verify_backup", {"level": "drill", "wait_seconds": 0})
    assert not made.is_error, made.content
    content: dict[str, Any] = made.structured_content or {}
    assert content["safe_to_proceed"] is True
    assert (tmp_path / content["name"]).stat().st_size == content["bytes"]
    assert (drilled.structured_content or {})["proved"] is True


def test_the_image_has_both_programs(image: str) -> None:
    assert "scarlet-backup-mcp, version" in run_docker("run", "--rm", image, "--version")
    assert run_docker("run", "--rm", "--entrypoint", "scarlet-backup-hook", image) == ""
