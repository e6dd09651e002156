"""Check an archive of a whole volume: in a moment (`quick`), or by reading all of it (`full`)."""

from __future__ import annotations

from ...models.manifest import VolumeManifest, WalSegment
from ...models.verification import Check
from ...postgres.cluster import base_backup
from ...postgres.cluster.base_backup import BACKUP_LABEL, BACKUP_MANIFEST, BackupManifest, BackupManifestDamaged
from ...store import gzip
from ...store.directory import Entry
from ...store.encodings import HEAD
from ...store.permissions import cannot_read
from ...store.reading import ZSTD_MAGIC, beginning
from ...store.tar import Member, MemberHandler, TarDamaged, TarReader
from ...wording import number_of
from ..catalog.records import BackupRecord
from . import archive_configuration
from .archive import PG_VERSION, Archive, ArchiveContents
from .checks import SHOWN, name_checks, same

RULES_VERSION = 1
"""Rises when `content_checks` may find fault with an archive that `backup` let pass before: manifests record it."""
CONSISTENT = "consistent"
NEEDED = (PG_VERSION, "global/pg_control")
"""Files that every PostgreSQL cluster has."""
POSTMASTER_PID = "postmaster.pid"
MAGIC = {"gzip": gzip.MAGIC, "zstd": ZSTD_MAGIC}


def quick_checks(record: BackupRecord[VolumeManifest]) -> list[Check]:
    """Check name, manifest, size, and the first bytes of the compressed stream and of the archive."""
    entry = record.entry
    magic = MAGIC[entry.name.compression]
    begins = _first_bytes(entry, len(magic))
    return [
        *name_checks(record),
        Check(check="compression", ok=begins == magic, expected=magic.hex(" "), found=begins.hex(" ")),
        _structure_check(beginning(entry.path, entry.name.compression)),
    ]


def _structure_check(begins: bytes) -> Check:
    """Check an archive's first bytes. Pax records and long names precede the member that they belong to."""
    first, expected = _First(), "a tar archive"
    try:
        TarReader(first).feed(begins)
    except TarDamaged as error:
        return Check(check="structure", ok=False, expected=expected, found=_words([error.message]))
    if not first.found and len(begins) == HEAD and any(begins):
        undecided = "its first 4 KiB do not get beyond the name of its first member: level full reads on"
        return Check(check="structure", ok=None, expected=expected, detail=undecided)
    return Check(check="structure", ok=bool(first.found), expected=expected, found=first.found or "nothing")


def content_checks(record: BackupRecord[VolumeManifest], archive: Archive) -> list[Check]:
    """Check everything that the whole content shows."""
    manifest, contents = record.manifest, archive.contents
    whole = archive.damage is None and archive.compression_damage is None
    checks = [
        *name_checks(record),
        Check(check="compression", ok=archive.compression_damage is None, detail=archive.compression_damage or ""),
        Check(
            check="structure",
            ok=whole and not contents.odd,
            expected="a complete tar archive of files and directories",
            found=number_of(len(contents.files), "file"),
            detail=_words([archive.damage] if archive.damage else contents.odd)
            or ("" if whole else "its end can't be read"),
        ),
        data_directory(contents),
        archive_configuration.check(archive_configuration.findings_of(contents), foreign=manifest is None),
    ]
    if manifest is not None and manifest.cold:
        checks.append(same("files", manifest.files, len(contents.files)))
    elif manifest is not None or is_base_backup(contents):
        checks += base_backup_checks(contents)
    else:
        checks.append(_copied_how(contents))
    if manifest is not None:
        checks += [
            same("sha256", manifest.sha256, archive.sha256),
            same("tar_bytes", manifest.tar_bytes, archive.tar_bytes),
            _wal_digests(manifest.wal, wal_of(contents)),
        ]
    if manifest is not None and not manifest.cold:
        digest = contents.files.get(BACKUP_MANIFEST)
        checks.append(
            same("backup_manifest_sha256", manifest.backup_manifest_sha256, digest.sha256 if digest else "none")
        )
    return checks


def is_base_backup(contents: ArchiveContents) -> bool:
    """Tell whether pg_basebackup made it, judging by its files. A server that has run on a base backup renames the
    label, and leaves the list of files behind, which is then outdated."""
    if POSTMASTER_PID in contents.files:
        return False
    listed = BACKUP_MANIFEST in contents.kept and f"{BACKUP_LABEL}.old" not in contents.files
    return listed or BACKUP_LABEL in contents.files


def base_backup_checks(contents: ArchiveContents) -> list[Check]:
    """Compare the archive with the server's own list of files."""
    manifest, why_not = backup_manifest(contents)
    checks = [
        Check(
            check=BACKUP_MANIFEST,
            ok=manifest is not None,
            expected="the server's list of files, with its own checksum",
            found="found" if manifest else "none",
            detail=why_not,
        )
    ]
    if manifest is None:
        return checks
    compared = base_backup.compare(manifest, contents.files)
    unchecked = f"only the sizes of {compared.unchecked:,} could be compared: they have no SHA-256"
    return [
        *checks,
        Check(
            check="files",
            ok=False if compared.file_faults else None if compared.unchecked else True,
            expected=f"{number_of(compared.compared, 'file')} as backup_manifest lists them, and no other",
            found=f"{len(compared.file_faults)} faults",
            detail=_words(compared.file_faults) or (unchecked if compared.unchecked else ""),
        ),
        Check(
            check="wal",
            ok=not compared.wal_faults,
            expected=", ".join(f"{range_.start} to {range_.end}" for range_ in manifest.wal_ranges),
            found=f"{len(wal_of(contents))} segments",
            detail=_words(compared.wal_faults),
        ),
    ]


def backup_manifest(contents: ArchiveContents) -> tuple[BackupManifest | None, str]:
    """Return the archive's backup_manifest, or why there is no valid one."""
    text = contents.kept.get(BACKUP_MANIFEST)
    if text is None:
        return None, "without it, nothing shows whether all files are there and intact"
    try:
        return base_backup.parse(text), ""
    except BackupManifestDamaged as error:
        return None, str(error)


def wal_of(contents: ArchiveContents) -> list[WalSegment]:
    """Return the WAL segments in a manifest's form."""
    return [
        WalSegment(name=name, bytes=file.bytes, sha256=file.sha256)
        for name, file in base_backup.wal_segments(contents.files).items()
    ]


def data_directory(contents: ArchiveContents) -> Check:
    """Check that it is the data directory of a PostgreSQL cluster, and of which major version."""
    missing = [name for name in NEEDED if name not in contents.files]
    version = contents.kept.get(PG_VERSION, b"").decode("ascii", "replace").strip()
    return Check(
        check="data_directory",
        ok=not missing,
        expected="a data directory of PostgreSQL",
        found=f"of PostgreSQL {version}" if version else "",
        detail=f"missing: {', '.join(missing)}" if missing else "",
    )


def _copied_how(contents: ArchiveContents) -> Check:
    """Check whether the server ran while it was copied, for an archive that pg_basebackup did not make."""
    if POSTMASTER_PID in contents.files:
        return Check(
            check=CONSISTENT,
            ok=False,
            expected="a copy of a stopped server, or one that pg_basebackup made",
            found=POSTMASTER_PID,
            detail="the server ran while its files were copied (or was killed before), so they are from different "
            "moments: a restore of it may have torn data, without any error",
        )
    return Check(
        check=CONSISTENT,
        ok=None,
        detail=f"no {POSTMASTER_PID}, so the server was apparently stopped; nothing shows whether all files are there "
        "and intact",
    )


def _wal_digests(expected: list[WalSegment], found: list[WalSegment]) -> Check:
    differing = [segment.name for segment in expected if segment not in found]
    return Check(
        check="wal_digests",
        ok=expected == found,
        expected=f"{len(expected)} segments",
        found=f"{len(found)} segments",
        detail=f"changed: {', '.join(differing[:SHOWN])}" if differing else "",
    )


class _First(MemberHandler):
    """Notes the first member only."""

    def __init__(self) -> None:
        self.found = ""

    def member(self, member: Member) -> None:
        self.found = self.found or _words([f"it begins with the {member.kind} {member.name or '.'}"])


def _words(sentences: list[str]) -> str:
    """Join the first few, escaped: file names may contain anything, even what no text or terminal should."""
    joined = "; ".join(sentences[:SHOWN])
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in joined)


def _first_bytes(entry: Entry, count: int) -> bytes:
    try:
        with entry.path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise cannot_read(entry.path, error) from error
