"""How much memory a container may use, so that another one can be given as much."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import HostError
from .engine import Answer, Engine

SHARED_MEMORY_AT = "/dev/shm"


@dataclass(frozen=True)
class Resources:
    """Bytes; 0 is no limit. `differs` says what another container that gets them can't have like the first one."""

    memory: int = 2 << 30
    memory_and_swap: int = 2 << 30
    shared_memory: int = 512 << 20
    differs: str = ""

    def limits(self) -> Answer:
        """For the HostConfig of a new container."""
        return {"Memory": self.memory, "MemorySwap": self.memory_and_swap, "ShmSize": self.shared_memory}


def resources_of(engine: Engine, container: str | None) -> Resources:
    """Those of a container, which need not run; our own where it can't be asked, or is None."""
    if container is None:
        return Resources()
    try:
        found = engine.inspect_container(container)
        host: Answer = found["HostConfig"]
        memory, swap, shared = host["Memory"], host["MemorySwap"], host["ShmSize"]
        mounted = {mount["Destination"] for mount in found["Mounts"]} | set(host.get("Tmpfs") or {})
    except (HostError, KeyError) as error:
        return Resources(differs=f"the live container could not be asked for its limits ({error}), so it has our own")
    differs = ""
    if SHARED_MEMORY_AT in mounted or str(host.get("IpcMode")).startswith(("host", "container:")):
        shared = Resources.shared_memory
        differs = f"the live container has a {SHARED_MEMORY_AT} from elsewhere, this one {shared >> 20} MiB of its own"
    return Resources(memory or 0, swap or 0, shared or Resources.shared_memory, differs)
