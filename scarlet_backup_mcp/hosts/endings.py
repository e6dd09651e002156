"""Tell a program that ended by itself from one whose container or engine went away."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from ..errors import ContainerLost, ContainerMissing, ContainerNotRunning, EngineUnreachable, HostError
from . import Exit, Host

KILLED = 137
"""Exit code of a program that was killed, as when memory runs out."""
_AFTER_A_KILL = "Find out whether it ran out of memory (see `dmesg`) or somebody restarted it, then try again."


def lost(host: Host, ended: Exit, during: str) -> HostError | None:
    """Return the error to raise if something else ended a program; None if it ended by itself.

    The container or its engine went away, before or while it ran, or only the program was killed. `during` completes
    the sentence, for example "the load".
    """
    try:
        host.require_running()
    except EngineUnreachable as error:
        return type(error)(f"The engine went away during {during}. {error.message}", error.remedy)
    except HostError as error:
        return ContainerLost(f"The container went away during {during}. {error.message}")
    if ended.code is None:
        return ContainerLost(f"The container or its engine went away during {during}. {ended.stderr.strip()}".strip())
    if ended.code == KILLED:
        error = HostError if host.kind == "local" else ContainerLost  # it may have been restarted
        return error(f"The program was killed during {during}. {ended.stderr.strip()}".strip(), _AFTER_A_KILL)
    return None


@contextmanager
def still_there(during: str) -> Generator[None]:
    """Raise ContainerLost when a container that was running is found stopped or missing. `during` as for `lost`."""
    try:
        yield
    except (ContainerMissing, ContainerNotRunning) as error:
        raise ContainerLost(f"The container went away during {during}. {error.message}") from error
