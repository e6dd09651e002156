"""What the end of a program means where the place it ran in went away."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from ..errors import ContainerLost, ContainerMissing, ContainerNotRunning, EngineUnreachable, HostError
from . import Exit, Host


def lost(host: Host, ended: Exit, during: str) -> HostError | None:
    """The error when the container or its engine went away under a program, or before it began; None: it ended itself.

    `during` completes the sentence, for example "the load".
    """
    try:
        host.require_running()
    except EngineUnreachable as error:
        return EngineUnreachable(f"The engine went away during {during}. {error.message}")
    except HostError as error:
        return ContainerLost(f"The container went away during {during}. {error.message}")
    if ended.code is None or ended.code == 137:
        return ContainerLost(f"The container or its engine went away during {during}. {ended.stderr.strip()}".strip())
    return None


@contextmanager
def still_there(during: str) -> Generator[None]:
    """A container that no program can be started in any more was lost: it ran before. `during` as for `lost`."""
    try:
        yield
    except (ContainerMissing, ContainerNotRunning) as error:
        raise ContainerLost(f"The container went away during {during}. {error.message}") from error
