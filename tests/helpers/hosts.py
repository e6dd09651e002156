"""Programs to run on a host."""

from __future__ import annotations

import time
from collections.abc import Callable

from scarlet_backup_mcp.hosts import Host, run

IMAGE = "pgvector/pgvector:pg15"
OURS = {"scarlet-backup-mcp.test": "1"}
MEGABYTE = 1 << 20


def output_of(host: Host, *argv: str, **env: str) -> str:
    output = bytearray()
    ended = run(host, argv, env=env, sink=output.extend)
    assert ended.code == 0, ended
    return output.decode()


def running(host: Host, marker: str) -> list[str]:
    """Command lines that hold the marker, where the host's programs run."""
    lines = output_of(
        host, "sh", "-c", r'for f in /proc/[0-9]*/cmdline; do tr "\0\n" "  " < $f; echo; done 2>/dev/null'
    )
    return [line for line in lines.splitlines() if marker in line]


def eventually(condition: Callable[[], object], seconds: float = 10) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.1)
    return False


def exists(host: Host, path: str) -> bool:
    return run(host, ["test", "-e", path]).code == 0
