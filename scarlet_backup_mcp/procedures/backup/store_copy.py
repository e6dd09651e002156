"""Copy a store's data into an archive, while the store is stopped."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from ...errors import BackupToolError, DumpFailed, StoreRefused
from ...hosts import Exit, Host, run
from ...hosts.docker.container import DockerHost
from ...hosts.docker.engine import IDLE
from ...hosts.docker.helper import HelperMounts
from ...models.memory import StoreManifest, StoreMember
from ...progress import Progress
from ...store.writing import PartialFile
from ...stores import redis
from ...stores.images import store_in
from ...stores.siblings import Store, bytes_of
from .. import durations
from ..catalog import recorded
from ..context import BackupContext
from ..reading import archive
from ..reading.store_archive import StoreInventory
from ..recovery.helper_container import helper, others_with
from ..recovery.stopped import Stopping

ROOM = 1.1
"""Free space required for an archive, in sizes of the data: they may not compress at all."""
AGAIN = "See in `docker ps` what else writes there, check the disk, and take a backup again."
SHOWN = 5
ENGLISH = {"LC_ALL": "C"}


def require_copyable(store: Store) -> None:
    """Raise StoreRefused if stopping or copying the store would lose something: before anything is stopped."""
    if store.unsaved or store.mount is None or store.directory is None:
        raise StoreRefused(f"{store.service} can't be in a set: {store.unsaved}.")
    if store.auto_remove:
        raise StoreRefused(
            f"{store.service} can't be stopped: the engine removes the container {store.container} as soon as it stops "
            "(AutoRemove)."
        )


def require_alone(context: BackupContext, store: Store, stopped: Collection[str] = ()) -> None:
    """Raise StoreRefused if a container that is not among these has the store's data mounted, too."""
    assert store.mount is not None
    found = others_with(context, store.mount.source, store.container)
    if others := [name for name in found if name not in stopped]:
        raise StoreRefused(
            f"{store.place}, which holds the data of {store.service}, is in use by {', '.join(others)} as well, which "
            "would go on writing while it is copied.",
            f"Stop it first (`docker stop {others[0]}`), and try again.",
        )


def copy(
    context: BackupContext, progress: Progress, store: Store, set_name: str, partial: PartialFile, stopping: Stopping
) -> StoreManifest:
    """Copy one store into `partial`, which is finished then, and has to be read back; return its manifest. One that
    runs is stopped, and started again.

    Raises StoreNotSaved, StoreNotStopped, StoreRefused, DumpFailed, or what the host and the disk raise.
    """
    saved, began = False, datetime.now(UTC)
    size = bytes_of(store)
    recorded.require_room(context, int((size or 0) * ROOM), f"{store.service}'s data")
    if store.running:
        saved = store_in(store.image) in ("redis", "valkey") and redis.save(store)
        began = datetime.now(UTC)
        stopping.stop(store.container_id, store.container)
    require_alone(context, store)
    before = _stopped_since(store)
    mounts = HelperMounts(container=store.container_id, read_only=True)
    with helper(context, context.container_info.image_id or "", mounts, progress) as host:
        progress.stage(f"copying {store.service}", size, durations.of_dumping(size or 0))
        written = archive.write(
            host,
            ["tar", "-C", store.directory or "", *_options(host), "-cf", "-", "."],
            partial,
            "zstd",
            progress,
            collector=StoreInventory(),
            env=ENGLISH,
            total=size,
            failure=lambda ended: _error(store, ended),
        )
    if _stopped_since(store) != before:
        raise DumpFailed(f"{store.service} was started while its data were copied. The copy is thrown away.", AGAIN)
    if written.said or written.contents.odd:
        said = " ".join([*written.said, *written.contents.odd][:SHOWN])
        raise DumpFailed(f"tar did not copy all of {store.service}: {said}", AGAIN)
    if store.running:
        stopping.start(store.container_id)
    ended = datetime.now(UTC)
    partial.finish()
    contents = written.contents
    return StoreManifest(
        set_name=set_name,
        member=StoreMember(
            name=partial.final.name,
            service=store.service,
            container=store.container,
            image=store.image,
            image_id=store.image_id,
            version=store.version,
            directory=store.directory or "",
            place=store.place,
            bytes=partial.bytes,
            sha256=partial.sha256,
            files=len(contents.files),
            began_at=began,
            finished_at=ended,
            saved=saved,
            stopped_seconds=round((ended - began).total_seconds(), 3) if store.running else None,
        ),
        tar_bytes=written.tar_bytes,
        directories=contents.directories,
        links=contents.links,
        members=contents.files,
    )


def _options(host: Host) -> list[str]:
    """Return options of GNU's tar that keep times to the nanosecond and any length of a name; busybox's has none."""
    version = bytearray()
    run(host, ["tar", "--version"], sink=version.extend)
    return ["--format=pax", "--numeric-owner"] if b"GNU" in version else []


def _stopped_since(store: Store) -> str:
    """Return what tells a run of the store's container from a later one. Raises DumpFailed if it runs."""
    host = DockerHost(store.container_id)
    try:
        info = host.container_info()
    finally:
        host.close()
    if info.state not in IDLE:
        raise DumpFailed(f"{store.service} runs (its state is {info.state}), so its data can't be copied.", AGAIN)
    return info.started_at or ""


def _error(store: Store, ended: Exit) -> BackupToolError:
    said = ended.stderr.strip()
    if ended.code is None or ended.code == 137:
        return DumpFailed(f"The helper container or its engine went away while {store.service} was copied. {said}")
    return DumpFailed(f"tar could not copy {store.service} (exit code {ended.code}): {said or 'no output'}", AGAIN)
