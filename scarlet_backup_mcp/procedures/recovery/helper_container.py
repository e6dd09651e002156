"""Programs next to the server, in a helper container that sees its volume whether the server runs or not."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from ...errors import HostError, PreflightFailed, StoreError, VolumeShared
from ...hosts import ContainerInfo, Host, run
from ...hosts.docker.helper import HelperMounts, helper_container, helpers_of, remove_helpers
from ...hosts.docker.volumes import running_with
from ...progress import Progress
from ...store.owner import owner_of
from ..context import BackupContext

HELPERS = ".scarlet-helper"
"""In the backup directory: what marks the helpers as its own."""


@contextmanager
def helper(
    context: BackupContext, image: str, mounts: HelperMounts, progress: Progress, *, alone: bool = True
) -> Generator[Host]:
    """Start a helper container of that image for the block. First those that killed calls left are removed, and what
    still runs in them is ended. Call it under the directory's lock, or say that it is not `alone`: others' then stay.
    Raises HostError or StoreError."""
    if alone:
        remove_left_helpers(context)
    with helper_container(image, mounts, _owner(context), progress) as host:
        yield host


def remove_left_helpers(context: BackupContext) -> None:
    """Remove helpers under the directory's lock: then they belong to nobody. Raises HostError or StoreError."""
    remove_helpers(_owner(context))


def require_sole_writer(container_info: ContainerInfo) -> list[str]:
    """Look whether another container can write to the server's data directory: two servers on one volume destroy it.

    Gives the names of those that can only read there. Raises VolumeShared, or HostError.
    """
    mount = container_info.data_mount
    users = running_with(mount.source) if mount is not None else []
    others = [user for user in users if user.name != container_info.container and not user.helper]
    if mount is not None and (writers := [user.name for user in others if user.writable]):
        raise VolumeShared(
            f"The data of container {container_info.container} are in {mount.source}, which "
            f"{', '.join(writers)} can also write to. Two servers on the same data destroy them.",
            f"Stop everything but the server (`docker stop {writers[0]}`), or mount it there read-only; then try "
            "again.",
        )
    return [user.name for user in others]


def others_with(context: BackupContext, source: str, container: str | None) -> list[str]:
    """List the containers that run with that volume or directory mounted, except `container` and this backup
    directory's own helpers: those are killed calls', or a dry run's, which only looks. Raises HostError or StoreError.
    """
    others = [user.name for user in running_with(source) if user.name != container]
    marked = context.directory.path / HELPERS
    own = helpers_of(owner_of(marked)) if others and marked.is_dir() else []
    return [name for name in others if name not in own]


def require_alone(context: BackupContext, source: str, container_info: ContainerInfo | None) -> None:
    """Raise PreflightFailed if another container than the server's runs on the volume or directory `source`, or
    what `others_with` does."""
    if others := others_with(context, source, container_info.container if container_info else None):
        raise PreflightFailed(
            f"Other running containers have the same volume mounted: {', '.join(others)}.",
            f"Stop them (`docker stop {' '.join(others)}`), then try again.",
        )


def output(host: Host, argv: list[str], progress: Progress | None = None) -> str:
    """Run a program there; return its stdout. Raises HostError unless it ended well."""
    said = bytearray()
    ended = run(host, argv, env={"LC_ALL": "C"}, sink=said.extend, progress=progress)
    if ended.code != 0:
        raise HostError(
            f"`{' '.join(argv)}` in the helper container failed with exit code {ended.code}: {ended.stderr.strip()}"
        )
    return said.decode(errors="replace")


def _owner(context: BackupContext) -> str:
    if not context.directory.path.is_dir():
        context.directory.prepare()
    marked = context.directory.path / HELPERS
    try:
        marked.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{marked} can't be made: {error.strerror or error}.") from error
    return owner_of(marked)
