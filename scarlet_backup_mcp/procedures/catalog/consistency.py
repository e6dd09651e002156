"""Check that a manifest does not contradict itself: its digest only shows that nobody has changed it since."""

from __future__ import annotations

from datetime import UTC, datetime

from ...models.manifest import Manifest, ManifestHead, VolumeManifest
from ...models.verification import StoredVerification
from ...store.names import BackupName

EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
"""No backup of this tool is older."""


def contradictions(name: BackupName, manifest: ManifestHead) -> list[str]:
    """Describe what can't be true of a backup of that name; for a head, as far as it shows that."""
    found: list[str] = []
    if (manifest.kind, manifest.compression) != (name.kind, name.compression):
        found.append(
            f"it says kind {manifest.kind} with compression {manifest.compression}, the name says kind {name.kind} "
            f"with {name.compression}"
        )
    if manifest.identity is None and manifest.repaired_from is None:
        found.append("it does not name its database")
    if manifest.created_at < EARLIEST:
        found.append(f"it says that it was made in {manifest.created_at.year}")
    if isinstance(manifest, Manifest) and manifest.repaired_from is None:  # of one that was repaired INSERTs count, too
        rows = sum(table.rows for table in manifest.tables)
        if manifest.rows != rows:
            found.append(f"it says {manifest.rows} rows, but its tables have {rows}")
    if isinstance(manifest, VolumeManifest) and manifest.cold != (manifest.rows is None):
        found.append(f"it is {'' if manifest.cold else 'not '}a cold copy, but says {manifest.rows} rows")
    return found


def believed(outcome: StoredVerification | None, manifest: ManifestHead | None) -> StoredVerification | None:
    """Return the outcome if it can be that backup's: a good one has to name its digest, and no failed check."""
    if outcome is None or outcome.valid == bool(outcome.failed_checks):
        return None
    other = manifest is not None and outcome.sha256 != manifest.sha256
    return None if other and (outcome.valid or outcome.proved is not None) else outcome
