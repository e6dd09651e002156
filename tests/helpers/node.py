"""Programs from npm, for the tests with clients in other languages."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

INSTALL_SECONDS = 300
REQUIRED = "SCARLET_TEST_REQUIRE_NODE"
"""Set to 1 where nothing that needs npm may be skipped, as in .ci/long."""
NODE = "node@22"
"""The conformance package needs it; with an older one it does not start."""


def missing(reason: str) -> NoReturn:
    """Skip the test, or fail it where it is required."""
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(reason)
    pytest.skip(reason)


class Packages:
    """A directory of its own with Node.js and packages, newest or as named."""

    def __init__(self, directory: Path, *packages: str) -> None:
        self.directory = directory
        npm = shutil.which("npm")
        if npm is None:
            missing("There is no npm.")
        directory.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--prefix", str(directory)]
        try:
            done = subprocess.run(
                [*command, NODE, *packages],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                timeout=INSTALL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            missing(f"{', '.join(packages)} could not be fetched within {INSTALL_SECONDS} s.")
        self.node = directory / "node_modules" / ".bin" / "node"
        if done.returncode != 0 or not self.node.exists():
            missing(f"{', '.join(packages)} can't be had from npm: {done.stderr[-500:]}")

    def run(
        self, script: Path, *arguments: str, seconds: float, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a script of one of the packages, or one that uses them."""
        return subprocess.run(
            [str(self.node), str(script), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            cwd=self.directory,
            env=environment,
            timeout=seconds,
            check=False,
        )
