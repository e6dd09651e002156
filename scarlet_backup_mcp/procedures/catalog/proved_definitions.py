"""Find out whether a drill has proved that definitions load, from the outcomes kept with a directory's backups.

What a drill showed about one backup's definitions holds for every backup with the same ones, on the same image.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ...errors import BackupToolError
from ...models.common import DrillMode
from ...models.manifest import Manifest
from ...models.verification import DrillOutcome
from ...postgres.dump.definitions_digest import called_functions
from ..context import BackupContext
from . import records

HOW = (
    "verify it with level drill. If no sandbox server can be started, set SCARLET_BACKUP_BIN_DIR to the bin "
    "directory of a PostgreSQL server, or drill on the live server."
)
"""How to prove them."""


def image(context: BackupContext, server_version: str) -> str:
    """Return what a proof is bound to: the container's image, or the version of a server that runs in none. Raises what
    `BackupContext.container_info` raises."""
    number = f"PostgreSQL {server_version.split()[0]}"  # packagers append their own text
    return context.container_info.image_id or number if context.settings.via == "docker" else number


def outcomes(context: BackupContext, definitions: str, on: str) -> list[DrillOutcome]:
    """List the last drill of each backup with these definitions on that image, newest first."""
    found = [
        item.verification.drilled
        for item in records.all_backups(context)
        if item.manifest is not None
        and item.manifest.definitions_sha256 == definitions
        and item.verification is not None
        and item.verification.sha256 == item.manifest.sha256
        and item.verification.drilled is not None
        and item.verification.drilled.on == on
    ]
    return sorted(found, key=lambda outcome: outcome.at, reverse=True)


def proof(context: BackupContext, definitions: str, on: str) -> DrillOutcome | None:
    """Return the newest drill's outcome. If it did not prove the definitions (`by`), it revokes earlier proofs."""
    return next(iter(outcomes(context, definitions, on)), None)


def due(context: BackupContext, manifest: Manifest) -> DrillMode | None:
    """Return the drill that a new backup needs; None if its definitions are proved and their last full drill is recent,
    or if the settings say that the gate needs no proof.

    Only a dump above SCARLET_BACKUP_DRILL_BYTES gets a sample drill, and only if the load calls no users' functions:
    these would need all rows. Raises whatever prevents querying the server.
    """
    settings, identity = context.settings, manifest.identity
    if settings.gate_level == "unproved" or manifest.definitions_sha256 is None or identity is None:
        return None
    found = outcomes(context, manifest.definitions_sha256, image(context, identity.server_version))
    if found and found[0].by is not None:
        proved = [outcome for outcome in found if outcome.by is not None]
        fulls = [outcome.at for outcome in proved if outcome.by == "full"]
        since = max(fulls) if fulls else min(outcome.at for outcome in proved)
        return "full" if datetime.now(UTC) - since > timedelta(days=settings.drill_days) else None
    if manifest.script_bytes <= settings.drill_bytes:
        return "full"
    try:
        with context.server.session(context.database) as session:
            return "full" if called_functions(session).own else "sample"
    except BackupToolError:
        return "full"
