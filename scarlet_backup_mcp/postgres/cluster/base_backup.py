"""Compare a base backup's archive with the `backup_manifest` that the server puts into it.

For its format see "Backup Manifest Format" in PostgreSQL's documentation. It does not list WAL segments (only those in
`pg_wal/archive_status`, seen on 15.20), but names the range of WAL that the copy needs to be consistent.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

BACKUP_MANIFEST = "backup_manifest"
BACKUP_LABEL = "backup_label"
DIGESTS = {"SHA256": "sha256"}
"""The checksums that can be compared. With others, only the sizes of files are."""
SMALLEST_SEGMENT, LARGEST_SEGMENT = 1 << 20, 1 << 30
MISSING = 1000
"""Missing WAL segments are named up to this many."""
_SEGMENT = re.compile(r"pg_wal/([0-9A-F]{24})")
_HISTORY = re.compile(r"pg_wal/[0-9A-F]{8}\.history")


class BackupManifestDamaged(Exception):
    """The text is not a backup_manifest, or not as it was written."""


@dataclass(frozen=True)
class File:
    """A regular file as it was found. `sha256` in hex."""

    bytes: int
    sha256: str


class ListedFile(BaseModel):
    """One of `Files`. `encoded_path` is hexadecimal, for names that are not UTF-8."""

    path: str | None = Field(default=None, alias="Path")
    encoded_path: str | None = Field(default=None, alias="Encoded-Path", pattern=r"^([0-9A-Fa-f]{2})*$")
    size: int = Field(alias="Size")
    algorithm: str | None = Field(default=None, alias="Checksum-Algorithm")
    checksum: str | None = Field(default=None, alias="Checksum")

    @property
    def name(self) -> str:
        """The path relative to the data directory, decoded like a name in a tar archive."""
        if self.path is not None:
            return self.path
        return bytes.fromhex(self.encoded_path or "").decode("utf-8", "surrogateescape")


class WalRange(BaseModel):
    """The WAL that is needed, from `start` up to but not including `end`."""

    timeline: int = Field(alias="Timeline")
    start: str = Field(alias="Start-LSN", pattern=r"^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}$")
    end: str = Field(alias="End-LSN", pattern=r"^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}$")


class BackupManifest(BaseModel):
    """Version 1 (13 to 16) and 2 (from 17 on, which adds the system identifier)."""

    version: Literal[1, 2] = Field(alias="PostgreSQL-Backup-Manifest-Version")
    system_identifier: int | None = Field(default=None, alias="System-Identifier")
    files: list[ListedFile] = Field(alias="Files")
    wal_ranges: list[WalRange] = Field(alias="WAL-Ranges")
    checksum: str = Field(alias="Manifest-Checksum")


def parse(text: bytes) -> BackupManifest:
    """Read a manifest from its file's bytes. Raises BackupManifestDamaged, also if its own checksum is wrong.

    That is the SHA-256 of everything before the last line (parse_manifest.c).
    """
    try:
        found = BackupManifest.model_validate_json(text)
    except ValidationError as error:
        raise BackupManifestDamaged(f"it can't be read ({error.errors()[0]['msg']})") from None
    last_line = text.rstrip(b"\n").rfind(b"\n") + 1
    if hashlib.sha256(text[:last_line]).hexdigest() != found.checksum:
        raise BackupManifestDamaged("it is not what the server wrote: its own checksum differs")
    return found


@dataclass(frozen=True)
class ManifestComparison:
    """How an archive's files compare with its backup_manifest. Faults are sentences; of `unchecked` files only the
    sizes were compared, because their checksums are of another kind."""

    compared: int
    file_faults: list[str]
    wal_faults: list[str]
    unchecked: int


def compare(manifest: BackupManifest, files: Mapping[str, File]) -> ManifestComparison:
    """Compare an archive's regular files, by their names, with its backup_manifest."""
    listed = {file.name: file for file in manifest.files}
    faults = (
        [f"{len(manifest.files) - len(listed)} files are listed twice"] if len(manifest.files) > len(listed) else []
    )
    unchecked = 0
    for name, file in listed.items():
        found = files.get(name)
        if found is None:
            faults.append(f"{name} is missing")
        elif found.bytes != file.size:
            faults.append(f"{name} has {found.bytes:,} bytes instead of {file.size:,}")
        elif file.algorithm not in DIGESTS:
            unchecked += 1
        elif found.sha256 != file.checksum:
            faults.append(f"the content of {name} differs")
    wal = {name for name in files if _SEGMENT.fullmatch(name) or _HISTORY.fullmatch(name)}
    extra = files.keys() - listed.keys() - wal - {BACKUP_MANIFEST}
    faults += [f"{name} is not listed" for name in sorted(extra)]
    if BACKUP_LABEL not in files:
        faults.append(f"{BACKUP_LABEL}, without which a server would start from a torn state, is missing")
    return ManifestComparison(len(listed), faults, _wal_faults(manifest.wal_ranges, wal_segments(files)), unchecked)


def wal_segments(files: Mapping[str, File]) -> dict[str, File]:
    """Return the WAL segments among the files, by their 24 hexadecimal digits."""
    return {found[1]: file for name, file in sorted(files.items()) if (found := _SEGMENT.fullmatch(name))}


def _wal_faults(ranges: Sequence[WalRange], segments: Mapping[str, File]) -> list[str]:
    sizes = {file.bytes for file in segments.values()}
    if not ranges or not segments:
        return ["there is no WAL, so the copy is not consistent"]
    size = max(sizes)
    if len(sizes) > 1 or size & (size - 1) or not SMALLEST_SEGMENT <= size <= LARGEST_SEGMENT:
        return [f"WAL segments of {', '.join(f'{size:,}' for size in sorted(sizes))} bytes: some are cut off"]
    count = sum(len(_numbers(range_, size)) for range_ in ranges)
    if count > len(segments) + MISSING:
        return [f"{count:,} WAL segments are needed, but there are {len(segments):,}"]
    needed = {name for range_ in ranges for name in segment_names(range_, size)}
    faults = [f"the WAL segment {name} is missing" for name in sorted(needed - segments.keys())]
    return faults + [f"the WAL segment {name} is not needed" for name in sorted(segments.keys() - needed)]


def segment_names(needed: WalRange, segment_bytes: int) -> list[str]:
    """Name the segments that hold a range of WAL (XLogFileName in xlog_internal.h)."""
    in_a_file = (1 << 32) // segment_bytes
    return [
        f"{needed.timeline:08X}{number // in_a_file:08X}{number % in_a_file:08X}"
        for number in _numbers(needed, segment_bytes)
    ]


def _numbers(needed: WalRange, segment_bytes: int) -> range:
    return range(_lsn(needed.start) // segment_bytes, (_lsn(needed.end) - 1) // segment_bytes + 1)


def _lsn(text: str) -> int:
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)
