"""Backup and restore against what a shell would do with `docker exec`, side by side on one container.

    python benchmarks/against_docker_exec.py [MEGABYTES]

Needs a Docker engine with the image pgvector/pgvector:pg15. Prints seconds and ratios of one run: compare ratios, not
seconds, since machines are noisy. The shell's ways check nothing; ours count, read back, verify and compare.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from scarlet_backup_mcp.models.common import Compression
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.restore.options import RestoreOptions
from scarlet_backup_mcp.procedures.restore.service import restore
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import Settings, load_settings

IMAGE = "pgvector/pgvector:pg15"
ROUNDS = 3
# Half wide rows as Letta's passages, half narrow ones as its messages.
FILL = """
CREATE EXTENSION vector;
CREATE TABLE agents AS SELECT 1 AS id;
CREATE TABLE passages AS SELECT g AS id, (SELECT array_agg(random()::real) FROM generate_series(1, 1024) WHERE g > 0)
    ::vector AS embedding FROM generate_series(1, {megabytes} * 42) AS g;
CREATE TABLE messages AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, {megabytes} * 12500) AS g;
"""


def main(megabytes: int) -> None:
    """Run everything and print the table."""
    with filled_container(megabytes) as container, tempfile.TemporaryDirectory() as directory:
        compare(container, Path(directory))


@contextmanager
def filled_container(megabytes: int) -> Generator[str]:
    """Name of a container with a database letta of about that size."""
    container = f"scarlet-benchmark-{secrets.token_hex(4)}"
    docker("run", "-d", "--pull", "never", "--name", container, "-e", "POSTGRES_PASSWORD=benchmark", IMAGE)
    try:
        psql = ("exec", "-i", container, "psql", "-q", "-U", "postgres", "-v", "ON_ERROR_STOP=1")
        wait_for(container)
        docker(*psql, stdin=b"CREATE DATABASE letta")
        docker(*psql, "-d", "letta", stdin=FILL.format(megabytes=megabytes).encode())
        yield container
    finally:
        docker("rm", "-f", "-v", container)


def compare(container: str, directory: Path) -> None:
    """Time each way, alternating, and print the best of each."""
    settings = load_settings(dir=str(directory / "backups"), container=container)
    plain = directory / "plain.sql"
    newest: list[str] = []
    ways: dict[str, Callable[[], object]] = {
        "docker exec pg_dump > file": lambda: shell_dump(container, plain),
        "backup": lambda: newest.append(our_backup(settings, "none")),
        "backup, zstd": lambda: our_backup(settings, "zstd"),
        "psql < file, into a new database": lambda: shell_restore(container, plain),
        "restore": lambda: our_restore(settings, newest[-1]),
    }
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            best[name] = min(best.get(name, float("inf")), time.perf_counter() - began)
    size = plain.stat().st_size / 1e6
    for name, base in (
        ("docker exec pg_dump > file", None),
        ("backup", "docker exec pg_dump > file"),
        ("backup, zstd", "docker exec pg_dump > file"),
        ("psql < file, into a new database", None),
        ("restore", "psql < file, into a new database"),
    ):
        ratio = f"{best[name] / best[base]:.2f} x" if base else ""
        print(f"{name:<36} {best[name]:7.2f} s  {size / best[name]:6.0f} MB/s  {ratio}")


def our_backup(settings: Settings, compression: Compression) -> str:
    """Take a backup; its name."""
    with BackupContext(settings) as context:
        return backup(context, Progress(), compression=compression).name


def our_restore(settings: Settings, name: str) -> None:
    """Restore it over the live database."""
    with BackupContext(settings) as context:
        restore(context, Progress(), name, RestoreOptions(drop_oldest_undo=True))


def shell_dump(container: str, file: Path) -> None:
    """PROC-004's step 3 in a shell that leaves bytes alone."""
    with file.open("wb") as out:
        subprocess.run(["docker", "exec", container, "pg_dump", "-U", "postgres", "letta"], stdout=out, check=True)


def shell_restore(container: str, file: Path) -> None:
    """PROC-004's restore, into an empty database so that it can succeed."""
    psql = ("exec", "-i", container, "psql", "-q", "-U", "postgres")
    docker(*psql, stdin=b"DROP DATABASE IF EXISTS shell; CREATE DATABASE shell")
    with file.open("rb") as source:
        subprocess.run(["docker", *psql, "-d", "shell"], stdin=source, stdout=subprocess.DEVNULL, check=True)


def wait_for(container: str) -> None:
    """Until the server accepts connections over TCP, which it does only when it is set up."""
    ready = ["docker", "exec", container, "pg_isready", "-q", "-h", "127.0.0.1"]
    for _ in range(300):
        if subprocess.run(ready, check=False).returncode == 0:
            return
        time.sleep(0.1)
    sys.exit("The server did not start.")


def docker(*arguments: str, stdin: bytes = b"") -> None:
    """Run a docker command."""
    subprocess.run(["docker", *arguments], input=stdin, stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
