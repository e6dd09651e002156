"""What no dump carries and a load computes anew, in a database that was restored against the one that was backed up."""

from __future__ import annotations

from ...errors import HostError, ServerError
from ...models.manifest import Recomputed
from ...postgres.server.catalogue import ServerFacts, server_facts
from ...postgres.server.recomputed import recomputed, unlike
from ...postgres.server.session import Server
from ...progress import Progress

SECONDS = 600
"""For all of it, mostly on another server than where a backup has less time for the same."""


def unlike_the_backup(
    server: Server, database: str, facts: ServerFacts, before: list[Recomputed] | None, progress: Progress
) -> list[str]:
    """In words, what differs in the restored `database` from what it was `before`, or could not be compared; nothing
    where nobody knows that. Whatever keeps it from being read fails nothing."""
    if not before:
        return []
    progress.stage("comparing what was computed anew")
    try:
        after = recomputed(server, database, facts, progress, SECONDS)
    except (ServerError, HostError) as error:
        why_not = f"it could not be read ({error.message.removesuffix('.')})"
        after = [one.model_copy(update={"why_not": why_not}) for one in before]
    return unlike(before, after)


def in_the_sandbox(server: Server, database: str, progress: Progress) -> list[Recomputed]:
    """What the load of a file from elsewhere has computed there, which nobody has recorded. Raises ServerError."""
    with server.session(database) as session:
        facts = server_facts(session)
    return recomputed(server, database, facts, progress, SECONDS)


def warnings(found: list[str]) -> list[str]:
    """The same for whoever restores it."""
    return [f"Computed anew by the load: {one}." for one in found]
