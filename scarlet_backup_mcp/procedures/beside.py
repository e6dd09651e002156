"""Programs beside the server, in a helper container that sees its volume whether the server runs or not."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from ..errors import HostError, StoreError
from ..hosts import Host, run
from ..hosts.helper import Sight, helper_container, remove_helpers
from ..progress import Progress
from .target import Target
from .throw_away import owner_of

HELPERS = ".scarlet-helper"
"""In the backup directory: what marks the helpers as its own."""


@contextmanager
def helper(target: Target, image: str, sight: Sight, progress: Progress) -> Generator[Host]:
    """One of that image's, as long as the block; those that killed calls have left are removed first, and what still
    runs in them is ended. Call it under the directory's lock. Raises HostError or StoreError."""
    remove_left_helpers(target)
    with helper_container(image, sight, _owner(target), progress) as host:
        yield host


def remove_left_helpers(target: Target) -> None:
    """Under the directory's lock: what there is then belongs to nobody. Raises HostError or StoreError."""
    remove_helpers(_owner(target))


def output(host: Host, argv: list[str], progress: Progress | None = None) -> str:
    """What a program there wrote to its stdout. Raises HostError unless it ended well."""
    said = bytearray()
    ended = run(host, argv, env={"LC_ALL": "C"}, sink=said.extend, progress=progress)
    if ended.code != 0:
        raise HostError(
            f"`{' '.join(argv)}` in the helper container failed with exit code {ended.code}: {ended.stderr.strip()}"
        )
    return said.decode(errors="replace")


def _owner(target: Target) -> str:
    marked = target.directory.path / HELPERS
    try:
        marked.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{marked} can't be made: {error.strerror or error}.") from error
    return owner_of(marked)
