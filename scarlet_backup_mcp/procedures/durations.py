"""About how long work takes, in seconds, for the bar that a face shows: nothing waits or gives up by these figures."""

from __future__ import annotations

from ..models.common import Level
from ..progress import BYTES_A_SECOND, HASHED_A_SECOND, MOMENT_SECONDS
from ..store.directory import Entry

SANDBOX = 3.0
"""Starting a sandbox server."""
SHORT_STAGES = 5 * MOMENT_SECONDS
"""What else a call does, before, between and after its long stages."""
UNPACKED = {"none": 1, "gzip": 4, "zstd": 4}
"""How much larger the content is than the file."""


def content_bytes(entry: Entry) -> int:
    """Return about how many bytes a backup's content has."""
    return entry.bytes * UNPACKED.get(entry.name.compression, 1)


def of_reading(size: int) -> float:
    """Return how long it takes to read and check so many bytes, or to count the rows in them."""
    return max(MOMENT_SECONDS, size / BYTES_A_SECOND)


def of_hashing(size: int) -> float:
    """Return how long it takes to read so many bytes for their digest."""
    return max(MOMENT_SECONDS, size / HASHED_A_SECOND)


def of_dumping(size: int) -> float:
    """Return how long a dump or a copy of so many bytes takes."""
    return max(MOMENT_SECONDS, size / 50e6)


def of_loading(size: int) -> float:
    """Return how long it takes to load a dump of so many bytes, with its indexes."""
    return max(MOMENT_SECONDS, size / 15e6)


def of_backup(size: int, *, drills: bool) -> float:
    """Return how long a backup takes whose content has so many bytes."""
    written = of_dumping(size) + 2 * of_reading(size) + SHORT_STAGES
    return written + (of_verification(size, "drill") if drills else 0)


def of_verification(size: int, level: Level) -> float:
    """Return how long a verification takes of a backup whose content has so many bytes."""
    if level == "quick":
        return 2 * MOMENT_SECONDS
    drill = SANDBOX + of_loading(size) + of_dumping(size) + SHORT_STAGES if level == "drill" else 0
    return of_reading(size) + 2 * MOMENT_SECONDS + drill


def of_restore(size: int, *, drills: bool) -> float:
    """Return how long a restore takes of a backup whose content has so many bytes."""
    verified = of_verification(size, "drill" if drills else "full")
    return verified + of_loading(size) + of_dumping(size) + of_reading(size) + 2 * SHORT_STAGES
