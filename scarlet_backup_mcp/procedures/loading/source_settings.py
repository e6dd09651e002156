"""The settings that a backed-up database had, for its load."""

from __future__ import annotations

from contextlib import suppress

from ...errors import HostError, ServerError
from ...models.manifest import Manifest
from ...postgres.server.effective import UNPINNED, effective, overlaid
from ..context import BackupContext


def settings_of(context: BackupContext, manifest: Manifest | None) -> dict[str, str]:
    """Return the backed-up database's settings that affect values during a load (None: of a file that lacks them).

    An older manifest only records what was set for the database; the rest is taken from the live server. {} if that is
    needed and does not answer.
    """
    if manifest is not None and manifest.effective is not None:
        return manifest.effective
    for database in [None] if manifest else [context.database, None]:
        with (
            suppress(HostError, ServerError),
            context.server.session(database or context.maintenance_database, UNPINNED) as session,
        ):
            own = manifest.properties.settings if manifest and manifest.properties else []
            return overlaid(effective(session), own)
    return overlaid({}, manifest.properties.settings) if manifest and manifest.properties else {}
