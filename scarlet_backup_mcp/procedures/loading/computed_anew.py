"""What no dump carries and a load computes anew, in a database that was restored against the one that was backed up."""

from __future__ import annotations

from ...models.manifest import Manifest
from ...postgres.server.catalogue import ServerFacts
from ...postgres.server.recomputed import recomputed, unlike
from ...postgres.server.session import Server
from ...progress import Progress


def unlike_the_backup(
    server: Server, database: str, facts: ServerFacts, manifest: Manifest | None, progress: Progress
) -> list[str]:
    """In words, what differs in the restored `database`, or could not be compared; nothing where the backup does not
    tell what it was."""
    if manifest is None or not manifest.recomputed:
        return []
    progress.stage("comparing what was computed anew")
    return unlike(manifest.recomputed, recomputed(server, database, facts, progress))


def warnings(found: list[str]) -> list[str]:
    """The same for whoever restores it."""
    return [f"Computed anew by the load, not as the backed-up database had it: {one}." for one in found]
