"""Whether a manifest agrees with itself: its digest tells only that nobody has changed it since."""

from __future__ import annotations

from datetime import UTC, datetime

from ...models.manifest import Manifest, ManifestHead, VolumeManifest
from ...models.verification import StoredVerification
from ...store.names import BackupName

EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
"""No backup of this tool is older."""


def contradictions(name: BackupName, manifest: ManifestHead) -> list[str]:
    """In words, what can't be true of a backup of that name; of a head, what that tells."""
    found: list[str] = []
    if (manifest.kind, manifest.compression) != (name.kind, name.compression):
        found.append(
            f"it is of kind {manifest.kind} with compression {manifest.compression}, the name of kind {name.kind} with "
            f"{name.compression}"
        )
    if manifest.identity is None and manifest.repaired_from is None:
        found.append("it does not tell of which database it is")
    if manifest.created_at < EARLIEST:
        found.append(f"it says that it was made in {manifest.created_at.year}")
    if isinstance(manifest, Manifest) and manifest.repaired_from is None:  # of one that was repaired INSERTs count, too
        rows = sum(table.rows for table in manifest.tables)
        if manifest.rows != rows:
            found.append(f"it tells {manifest.rows} rows, and its tables {rows}")
    if isinstance(manifest, VolumeManifest) and manifest.cold != (manifest.rows is None):
        found.append(f"it is {'' if manifest.cold else 'not '}a cold copy, and tells {manifest.rows} rows")
    return found


def believed(outcome: StoredVerification | None, manifest: ManifestHead | None) -> StoredVerification | None:
    """The outcome, if it can be of that backup: what speaks for it has to name its digest, and no failed check."""
    if outcome is None or outcome.valid == bool(outcome.failed_checks):
        return None
    other = manifest is not None and outcome.sha256 != manifest.sha256
    return None if other and (outcome.valid or outcome.proved is not None) else outcome
