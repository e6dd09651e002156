"""What no dump carries and a load computes anew, in a database that was restored against the one that was backed up."""

from __future__ import annotations

from ...errors import HostError, ServerError
from ...models.manifest import Manifest
from ...postgres.server.catalogue import ServerFacts
from ...postgres.server.recomputed import recomputed, unlike
from ...postgres.server.session import Server
from ...progress import Progress

SECONDS = 600
"""For all of it, mostly on another server than where a backup has less time for the same."""


def unlike_the_backup(
    server: Server, database: str, facts: ServerFacts, manifest: Manifest | None, progress: Progress
) -> list[str]:
    """In words, what differs in the restored `database`, or could not be compared; nothing where the backup does not
    tell what it was. Whatever keeps it from being read fails nothing."""
    if manifest is None or not manifest.recomputed:
        return []
    progress.stage("comparing what was computed anew")
    try:
        after = recomputed(server, database, facts, progress, SECONDS)
    except (ServerError, HostError) as error:
        why_not = f"it could not be read ({error.message.removesuffix('.')})"
        after = [one.model_copy(update={"why_not": why_not}) for one in manifest.recomputed]
    return unlike(manifest.recomputed, after)


def warnings(found: list[str]) -> list[str]:
    """The same for whoever restores it."""
    return [f"Computed anew by the load, not as the backed-up database had it: {one}." for one in found]
