"""What a server's machine, or its container, has to build indexes with."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass

from ...errors import PermissionDenied, QueryFailed
from .quoting import literal
from .session import Session

SESSIONS = 4
"""Most sessions that build indexes at once: Docker Desktop's default memory does not suffice for more."""
MOST_MEMORY = 1 << 30
SHARED_MEMORY_AT = "/dev/shm"
FILES = {
    "status": "/proc/self/status",
    "memory": "/proc/meminfo",
    # version 2 of control groups, then version 1, as a container sees its own
    "cores": "/sys/fs/cgroup/cpu.max",
    "quota": "/sys/fs/cgroup/cpu/cpu.cfs_quota_us",
    "period": "/sys/fs/cgroup/cpu/cpu.cfs_period_us",
    "limit": "/sys/fs/cgroup/memory.max",
    "limit_1": "/sys/fs/cgroup/memory/memory.limit_in_bytes",
}


@dataclass(frozen=True)
class Capacity:
    """Cores that the server may use, bytes of memory that are free for building, and its own settings for that."""

    cores: int
    memory: int
    maintenance_work_mem: int
    shared_memory: int | None = None
    """Free bytes in SHARED_MEMORY_AT; None if that is unknown."""

    @property
    def sessions(self) -> int:
        """How many sessions may build at once."""
        return min(self.cores, SESSIONS)

    def settings(self, sessions: int, *, in_memory: bool) -> dict[str, str]:
        """Return settings for each of so many sessions. A build `in_memory` that shared memory is too small for has no
        parallel workers: then it needs none."""
        each = max(self.maintenance_work_mem, min(self.memory, MOST_MEMORY) // sessions)
        found = {"maintenance_work_mem": f"{each >> 10}kB"}
        if in_memory and self.shared_memory is not None and each > self.shared_memory * 3 // 4 // sessions:
            found["max_parallel_maintenance_workers"] = "0"
        return found


def capacity(session: Session, shared_memory: int | None) -> Capacity | None:
    """Ask a superuser's session what the server has; None if it can't be known, as on any system but Linux."""
    read = ", ".join(f"pg_read_file({literal(path)}, 0, 65536, true) AS {name}" for name, path in FILES.items())
    own = "pg_size_bytes(current_setting('maintenance_work_mem'))"
    with suppress(QueryFailed, PermissionDenied):
        found = session.rows(f"SELECT {own} AS own, {read}")[0]
        own_bytes: int = found.pop("own")
        text: dict[str, str] = {name: value or "" for name, value in found.items()}
        memory = re.search(r"^MemAvailable: +(\d+) kB", text["memory"], re.MULTILINE)
        allowed = re.search(r"^Cpus_allowed_list:\s*(\S+)", text["status"], re.MULTILINE)
        if memory is not None and allowed is not None:
            free = int(memory[1]) << 10
            for limit in (text["limit"].strip(), text["limit_1"].strip()):
                free = min(free, int(limit) // 2) if limit.isdigit() else free
            return Capacity(_cores(allowed[1], text), free // 4, own_bytes, shared_memory)
    return None


def _cores(allowed: str, text: dict[str, str]) -> int:
    ranges = (part.partition("-") for part in allowed.split(","))
    cores = sum(int(last or first) - int(first) + 1 for first, _, last in ranges)
    quota, _, period = (text["cores"] or f"{text['quota'].strip()} {text['period'].strip()}").strip().partition(" ")
    if quota.isdigit() and period.isdigit() and int(period):
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores
