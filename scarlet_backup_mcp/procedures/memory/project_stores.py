"""Which stores the project has beside the database, and which of them no backup holds."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...errors import BackupToolError, HostError
from ...limits import within
from ...models.results import SiblingStore
from ...stores.choice import choice_of
from ...stores.siblings import Siblings, bytes_of, siblings
from ...wording import size
from ..context import BackupContext
from .sets import newest

SOON = 2.0
"""Seconds that a listing waits for the engine."""
REMEDY = "Take a backup with the scope memory, which stops the stores and what uses them while it copies their data."


@dataclass(frozen=True)
class ProjectStores:
    """The stores, and what was wrong with looking for them: services that are named and missing, or why they are
    unknown."""

    stores: list[SiblingStore] = field(default_factory=list[SiblingStore])
    missing: list[str] = field(default_factory=list[str])
    unknown: str = ""

    @property
    def uncovered(self) -> list[SiblingStore]:
        """Those with data that outlive their container, which no backup holds."""
        return [store for store in self.stores if not store.unsaved and store.in_set is None]


def project_stores(context: BackupContext) -> ProjectStores:
    """Look for the stores, with their sizes."""
    try:
        found = _siblings(context)
    except HostError as error:
        return ProjectStores(unknown=error.message)
    return ProjectStores(_shown(context, found, sizes=True), found.missing)


def stores_soon(context: BackupContext) -> ProjectStores:
    """Look for the stores without their sizes; none while the engine does not answer at once."""
    if context.settings.via == "docker" and context.known_container_info is None:
        return ProjectStores()
    try:
        found = within(SOON, lambda: _siblings(context)) or Siblings()
    except BackupToolError:
        return ProjectStores()
    return ProjectStores(_shown(context, found, sizes=False), found.missing)


def described(store: SiblingStore) -> str:
    """Say what a store holds, and that no backup has it."""
    holds = f"holds {size(store.bytes)}" if store.bytes is not None else "holds data"
    return f"{store.service} ({store.image}) {holds} in the {store.place}, and is in no backup."


def missing_words(missing: list[str]) -> str:
    """Say which services of the setting the project does not have."""
    return (
        f"SCARLET_BACKUP_STORES names {', '.join(missing)}, and the Compose project has no container of that service."
    )


def _siblings(context: BackupContext) -> Siblings:
    if context.settings.via == "local":
        return Siblings()
    return siblings(context.container_info, choice_of(context.settings.stores))


def _shown(context: BackupContext, found: Siblings, *, sizes: bool) -> list[SiblingStore]:
    held = dict[str, str]()
    if found.stores and (of_set := newest(context)) is not None and of_set.manifest is not None:
        held = {member.container: of_set.name for member in of_set.manifest.stores}
    return [
        SiblingStore(
            service=store.service,
            container=store.container,
            image=store.image,
            version=store.version,
            directory=store.directory,
            place=store.place,
            bytes=bytes_of(store) if sizes else None,
            unsaved=store.unsaved,
            in_set=held.get(store.container),
        )
        for store in found.stores
    ]
