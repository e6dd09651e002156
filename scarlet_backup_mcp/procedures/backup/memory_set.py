"""Make a set: the SQL backup, and an archive of each store beside the database."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

from ... import __version__
from ...errors import BackupToolError, StoreRefused
from ...hosts import Dependent
from ...hosts.docker.container import DockerHost
from ...models.manifest import Manifest
from ...models.memory import SetManifest, StoreManifest
from ...progress import Progress
from ...store import names, sets
from ...store.writing import PartialFile
from ...stores.choice import choice_of
from ...stores.siblings import Siblings, Store, siblings, users_of
from ..catalog import recorded
from ..context import BackupContext
from ..memory.project_stores import missing_words
from ..recovery.stopped import stopping
from . import store_copy

NOT_SEEN = (
    "Programs outside of this Compose project, for example on the host through a published port, were not stopped and "
    "can't be seen."
)
Dumped = tuple[Manifest, list[str], bool]


@dataclass(frozen=True)
class MemoryPlan:
    """Which stores are copied, and what is stopped besides them."""

    stores: list[Store]
    users: list[Dependent]


def plan(context: BackupContext) -> MemoryPlan:
    """Find what belongs to the memory, before anything is stopped. Raises StoreRefused for a store that can't be copied
    or what can't be stopped, HostError."""
    if context.settings.via == "local":
        raise StoreRefused("With via=local no stores are known: a set needs Docker.")
    info = context.container_info
    found: Siblings = siblings(info, choice_of(context.settings.stores))
    if found.missing:
        raise StoreRefused(missing_words(found.missing), "Correct it, or start that service.")
    if not found.stores:
        raise StoreRefused(
            f"No store is beside {info.container} in its Compose project ({info.project or 'none'}).",
            "Back up the database alone, with the scope database; or name a store in SCARLET_BACKUP_STORES.",
        )
    for store in found.stores:
        store_copy.require_copyable(store)
    services = Counter(store.service for store in found.stores)
    if doubled := [service for service, count in services.items() if count > 1]:
        raise StoreRefused(
            f"Several containers run the service {', '.join(doubled)}, and a set has one archive of each service."
        )
    users = users_of(info, found.stores) if context.settings.pause else []
    for user in users:
        _require_stoppable(user)
    for store in found.stores:
        store_copy.require_alone(context, store, [user.name for user in users])
    return MemoryPlan(found.stores, users)


def make(
    context: BackupContext, progress: Progress, planned: MemoryPlan, dump: Callable[[], Dumped]
) -> tuple[Dumped, SetManifest]:
    """Stop what uses the memory, dump, copy each store, start everything again, and write the set. Call it under the
    directory's lock. Raises what `dump` raises; and what a store's copy raises, with the SQL backup left as a good one
    by itself."""
    warnings, manifest, stopped_at, seconds = list[str](), None, time.monotonic(), None
    swept = sets.sweep(context.directory.path)
    made = list[tuple[PartialFile, StoreManifest]]()
    with ExitStack() as partials:
        try:
            with stopping(context, progress, warnings) as pause:
                for user in planned.users:
                    pause.stop(user.id, user.name)
                manifest, said, valid = dump()
                stamp = names.require(manifest.name).stamp
                assert stamp is not None
                moment = f"{stamp:%Y%m%d_%H%M%S}"
                for store in planned.stores:
                    archive = context.directory.path / names.store_name(store.service, moment)
                    partial = partials.enter_context(PartialFile(archive))
                    copied = store_copy.copy(context, progress, store, names.set_name(moment), partial, pause)
                    made.append((partial, copied))
            seconds = round(time.monotonic() - stopped_at, 3) if planned.users else None
            for partial, _ in made:
                recorded.read_back(partial, progress)
            of_set = SetManifest(
                name=names.set_name(moment),
                created_at=manifest.created_at,
                finished_at=datetime.now(UTC),
                tool_version=__version__,
                backup=manifest.name,
                backup_sha256=manifest.sha256,
                stores=[store_manifest.member for _, store_manifest in made],
                paused=context.settings.pause,
                stopped=[user.name for user in planned.users],
                paused_seconds=seconds,
                not_seen=NOT_SEEN,
            )
            progress.check()
            with progress.uninterrupted():
                sets.publish(context.directory.path, of_set, made)
        except BackupToolError as error:
            if manifest is not None:
                error.message += f" No set was made. The SQL backup {manifest.name} is there, read back in full."
            raise
    return (manifest, [*swept.sentences, *said, *warnings], valid), of_set


def _require_stoppable(user: Dependent) -> None:
    host = DockerHost(user.id)
    try:
        info = host.container_info()
    finally:
        host.close()
    if info.auto_remove:
        raise StoreRefused(
            f"{user.name}, which uses the database or a store, can't be stopped: the engine removes it as soon as it "
            "stops (AutoRemove).",
            "Stop it by hand first, or set SCARLET_BACKUP_PAUSE to false.",
        )
