"""The server that exists only for a drill: room for it, and errors that are its own and not the live server's."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from ...errors import DiskFull, DrillFailed, HostError, ServerError


@contextmanager
def its_own_failures(where: str) -> Generator[None]:
    """Raise DrillFailed for whatever fails in the drill's server: its errors say nothing about the live one."""
    try:
        yield
    except (HostError, ServerError) as error:
        raise DrillFailed(f"The drill could not finish: something failed in {where}: {error.message}") from error


def require_room(where: str, free: int | None, needed: int) -> None:
    """Raise DiskFull if fewer than `needed` bytes are `free`; None: nobody knows how many are."""
    if free is not None and free < needed:
        raise DiskFull(
            f"There are {free:,} bytes free for {where}; a drill needs {needed:,}.",
            "Free space there (with Docker, `docker system df` shows what is used), then try again.",
        )
