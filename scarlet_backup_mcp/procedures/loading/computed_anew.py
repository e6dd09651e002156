"""Compare what no dump contains and a load recomputes, in the restored database and the backed-up one."""

from __future__ import annotations

from ...errors import HostError, ServerError
from ...models.manifest import Recomputed
from ...postgres.server.catalogue import ServerFacts, server_facts
from ...postgres.server.recomputed import recomputed, unlike
from ...postgres.server.session import Server
from ...progress import Progress

SECONDS = 600
"""For all of it. A backup has less time for the same on the live server; this is mostly another one."""


def unlike_the_backup(
    server: Server, database: str, facts: ServerFacts, before: list[Recomputed] | None, progress: Progress
) -> list[str]:
    """Describe what differs in the restored `database` from what it was `before`, or could not be compared. [] if
    `before` is unknown. Raises nothing if it can't be read."""
    if not before:
        return []
    progress.stage("comparing what was recomputed")
    try:
        after = recomputed(server, database, facts, progress, SECONDS)
    except (ServerError, HostError) as error:
        why_not = f"it could not be read ({error.message.removesuffix('.')})"
        after = [one.model_copy(update={"why_not": why_not}) for one in before]
    return unlike(before, after)


def in_the_sandbox(server: Server, database: str, progress: Progress) -> list[Recomputed]:
    """Return what loading a foreign file computed in the sandbox, since no backup recorded it. Raises ServerError."""
    with server.session(database) as session:
        facts = server_facts(session)
    return recomputed(server, database, facts, progress, SECONDS)


def warnings(found: list[str]) -> list[str]:
    """Return warnings for whoever restores it."""
    return [f"Recomputed by the load: {one}." for one in found]
