"""Read a container's memory limits, so that another container can be given the same."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import HostError
from .engine import Answer, Engine

SHARED_MEMORY_AT = "/dev/shm"


@dataclass(frozen=True)
class Resources:
    """Memory limits in bytes; 0 means none. `differs` says what can't be the same in another container."""

    memory: int = 2 << 30
    memory_and_swap: int = 2 << 30
    shared_memory: int = 512 << 20
    differs: str = ""

    def limits(self) -> Answer:
        """Return them as fields of a new container's HostConfig."""
        return {"Memory": self.memory, "MemorySwap": self.memory_and_swap, "ShmSize": self.shared_memory}


def resources_of(engine: Engine, container: str | None) -> Resources:
    """Return a container's limits; our defaults if it can't be inspected or is None. It need not run."""
    if container is None:
        return Resources()
    try:
        found = engine.inspect_container(container)
        host: Answer = found["HostConfig"]
        memory, swap, shared = host["Memory"], host["MemorySwap"], host["ShmSize"]
        mounted = {mount["Destination"] for mount in found["Mounts"]} | set(host.get("Tmpfs") or {})
    except (HostError, KeyError) as error:
        return Resources(differs=f"the live container's limits could not be read ({error}), so it has our defaults")
    differs = ""
    if SHARED_MEMORY_AT in mounted or str(host.get("IpcMode")).startswith(("host", "container:")):
        shared = Resources.shared_memory
        differs = f"the live container shares its {SHARED_MEMORY_AT}, this one has {shared >> 20} MiB of its own"
    return Resources(memory or 0, swap or 0, shared or Resources.shared_memory, differs)
