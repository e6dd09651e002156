"""Copy the files of a stopped server through a helper container (`backup` of kind `volume`): a cold copy."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TypeVar

from ...errors import (
    BackupToolError,
    ContainerLost,
    ContainerMissing,
    ContainerNotRunning,
    ContainerPaused,
    DumpFailed,
    VolumeUnsupported,
)
from ...hosts import ContainerInfo, Exit, Host, Mount
from ...hosts.docker.helper import HelperMounts
from ...models.manifest import VolumeManifest
from ...progress import Progress
from ...store.writing import PartialFile
from .. import durations
from ..catalog import recorded
from ..catalog.recorded import Order
from ..context import BackupContext
from ..reading import archive, archive_checks, checks
from ..reading.archive import ArchiveContents
from ..recovery.helper_container import helper, others_with
from ..recovery.journal import require_running
from . import data_directory, volume_copy

E = TypeVar("E", bound=BackupToolError)

STOPPED = ("created", "exited", "dead")
"""Docker's states of a container in which nothing runs and which does not start by itself."""
STOP_FIRST = (
    "If its server does not start at all, run `docker compose stop postgres` in Scarlet's directory and take a backup "
    "with kind volume again: it then copies the files."
)
AGAIN = "See in `docker ps` whether something writes there, check the disk, and take a backup again."
SIGNALS = ("standby.signal", "recovery.signal")
SHOWN = 5
ENGLISH = {"LC_ALL": "C"}


def stopped(context: BackupContext) -> ContainerInfo | None:
    """Return the container if it is stopped, so that its files can be copied; None while it runs.

    Raises RestoreInterrupted while a journal waits, ContainerNotRunning or ContainerPaused in any other state.
    """
    try:
        require_running(context)
    except ContainerNotRunning:
        container_info = context.host.container_info()
        if container_info.state not in STOPPED:
            raise
        return container_info
    return None


def or_stopped(error: E) -> E:
    """Add to an error's remedy what to do if the server can't be started."""
    return type(error)(error.message, f"{error.remedy} {STOP_FIRST}")


def copy(context: BackupContext, progress: Progress, order: Order) -> tuple[VolumeManifest, list[str]]:
    """Copy the files, verify the copy, and give it its name; return its manifest and warnings.

    Call it under the lock. Raises VolumeUnsupported if the data directory can't be copied this way, DumpFailed if
    something wrote there meanwhile or the copy is not whole, or what `stopped` and the helper raise; then no file is
    left behind.
    """
    created_at, compression = datetime.now(UTC), order.compression
    container_info = stopped(context)
    if container_info is None:
        raise DumpFailed(f"The {context.describe()} has just started.", "Take a backup again.")
    mount = _mount(container_info)
    _require_unused(context, container_info, mount)
    name = context.directory.new_name(context.settings.prefix, compression, "volume")
    with PartialFile(context.directory.path / name) as partial, _no_server_to_start():
        mounts = HelperMounts(container=container_info.container_id, read_only=True)
        with helper(context, container_info.image_id or "", mounts, progress) as host:
            progress.stage("checking the files")
            cluster = data_directory.examine(host, container_info)
            recorded.require_room(context, int(cluster.bytes * volume_copy.ROOM), "these files")
            progress.stage("copying the files", cluster.bytes, durations.of_dumping(cluster.bytes))
            written = archive.write(
                host,
                data_directory.tar(container_info),
                partial,
                compression,
                progress,
                collector=archive.Inventory(),
                env=ENGLISH,
                total=cluster.bytes,
                failure=_error,
            )
            _require_untouched(context, container_info, mount, host, cluster)
        _require_whole(written)
        partial.finish()
        recorded.read_back(partial, progress)
        manifest = VolumeManifest(
            **recorded.file_fields(context, partial, order, "volume", created_at),
            **recorded.row_fields(None, None),
            **volume_copy.fields_of(written),
            identity=recorded.identity(
                context,
                system_identifier=cluster.control.system_identifier,
                version=cluster.version,
                version_num=cluster.version_num,
                database_oid=None,
            ),
            cold=True,
            pg_basebackup_version=None,
            site=volume_copy.site_of(container_info, None),
            databases=[],
            cluster_bytes=None,
            tables=[],
            quiet=None,
            backup_manifest_sha256=None,
            start_lsn=None,
            end_lsn=None,
        )
        recorded.publish(context, progress, partial, manifest, order)
    return manifest, [*cluster.warnings, *_warnings_of(written.contents)]


# -- before the copy -------------------------------------------------------------------------------------------------


def _mount(container_info: ContainerInfo) -> Mount:
    """Find the mount of the data directory. Raises VolumeUnsupported if a helper would not see all of it."""
    mount = container_info.data_mount
    if mount is None:
        raise VolumeUnsupported(
            f"The data directory {container_info.data_directory} of the container {container_info.container} is in "
            "the container itself, not on a volume that a helper container could read.",
            f"Start that same container (`docker start {container_info.container}`: a new one would not have the data) "
            "and take a backup again.",
        )
    if mount.kind == "tmpfs":
        raise VolumeUnsupported(
            f"The data directory {container_info.data_directory} of the container {container_info.container} is in "
            "memory, and was lost when it stopped.",
            "The list of backups shows what can be restored. Put the data directory on a volume.",
        )
    if inside := ", ".join(other.destination for other in container_info.mounts_inside):
        raise VolumeUnsupported(
            f"Other volumes or directories are mounted inside the data directory ({inside}), and an archive holds the "
            "data directory only.",
            f"Start the server and take an SQL backup with kind sql. {data_directory.BY_HAND}",
        )
    return mount


def _require_unused(context: BackupContext, container_info: ContainerInfo, mount: Mount) -> None:
    """Raise VolumeUnsupported if a running container could write there."""
    if users := others_with(context, mount.source, container_info.container):
        raise VolumeUnsupported(
            f"{mount.source}, which holds the data directory, is in use by {', '.join(users)}: a copy made while "
            "somebody may write may be torn.",
            f"Stop it (`docker stop {users[0]}`) and take a backup again; or, if it is the server, set "
            "SCARLET_BACKUP_CONTAINER to its name.",
        )


@contextmanager
def _no_server_to_start() -> Generator[None]:
    """Raise DumpFailed if the helper container is lost: the remedies of these errors are about the server's own."""
    try:
        yield
    except (ContainerLost, ContainerMissing, ContainerNotRunning, ContainerPaused) as error:
        raise DumpFailed(f"The files could not be copied. {error.message}", AGAIN) from error


# -- after it --------------------------------------------------------------------------------------------------------


def _error(ended: Exit) -> BackupToolError:
    said = ended.stderr.strip()
    if ended.code is None or ended.code == 137:
        return DumpFailed(f"The helper container or its engine went away during the copy. {said}".strip(), AGAIN)
    return DumpFailed(
        f"tar could not copy the files (exit code {ended.code}): {said or 'no output'}",
        AGAIN,
    )


def _require_untouched(
    context: BackupContext,
    container_info: ContainerInfo,
    mount: Mount,
    host: Host,
    cluster: data_directory.StoppedCluster,
) -> None:
    """Raise DumpFailed if a server may have run on the files since they were examined."""
    now = context.host.container_info()
    others = others_with(context, mount.source, now.container)
    if (now.container_id, now.state, now.started_at) != (
        container_info.container_id,
        container_info.state,
        container_info.started_at,
    ):
        happened = f"the container {now.container} was {now.state} at the end"
    elif others:
        happened = f"{', '.join(others)} had {mount.source} mounted at the end"
    elif data_directory.control(host, container_info) != cluster.control:
        happened = "its control file was written meanwhile"
    else:
        return
    raise DumpFailed(
        f"A server may have written while its files were copied: {happened}. The copy is thrown away.",
        "Take a backup again: it takes a consistent copy of a running server.",
    )


def _require_whole(written: archive.ArchiveWritten) -> None:
    """Raise DumpFailed unless tar read all of it without a complaint."""
    if written.said:
        raise DumpFailed(f"tar did not copy everything: {' '.join(written.said[:SHOWN])}", AGAIN)
    check = archive_checks.data_directory(written.contents)
    if not check.ok or written.contents.odd or written.contents.root:
        wrong = [*written.contents.odd[:SHOWN], *([] if check.ok else [checks.describe([check])])]
        raise DumpFailed(
            f"tar ended without an error, but the copy is not a complete data directory: {'; '.join(wrong)}."
        )


def _warnings_of(contents: ArchiveContents) -> list[str]:
    return [
        f"It contains {name}: a server that starts on it runs as a standby or in recovery, not as it was."
        for name in SIGNALS
        if name in contents.files
    ]
