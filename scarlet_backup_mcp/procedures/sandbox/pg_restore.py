"""Archives of pg_dump (-Fc, -Ft, -Fd), which only pg_restore can read: convert them in a sandbox server."""

from __future__ import annotations

import hashlib
import posixpath
import tarfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from secrets import token_hex

from ...errors import BackupNotValid, DrillFailed, StoreError
from ...hosts import Exit, Host, run
from ...models.manifest import Manifest
from ...models.verification import Check
from ...postgres.dump import archives
from ...progress import Progress
from ...store import directories
from ...store.directory import Entry
from ...store.forms import ARCHIVES, DESCRIPTIONS
from ...store.lock import in_use
from ...store.reading import CompressionDamaged, Compressor, FileReader, beginning, decompress
from ...store.writing import PartialFile
from ..catalog.records import BackupRecord
from ..context import BackupContext
from ..reading.checks import FORM, MANIFEST, describe, name_checks
from .lifecycle import DRILLS, SandboxServer, sandbox_server

_UNPACKED = "archive"
_NEWER = "unsupported version"
"""Part of pg_restore's message about an archive of a newer pg_dump ("ReadHead" in pg_backup_archiver.c)."""


class NotConverted(BackupNotValid):
    """pg_restore can't read the archive. `damaged` is None if pg_restore is just too old for it."""

    def __init__(self, message: str, remedy: str | None, damaged: bool | None) -> None:
        super().__init__(message, remedy)
        self.damaged = damaged


def is_archive(record: BackupRecord[Manifest]) -> bool:
    """Tell whether a backup is an archive."""
    return record.form in ARCHIVES


def header(record: BackupRecord[Manifest]) -> archives.Header | None:
    """Read an archive's header; None if it can't be read."""
    entry = record.entry
    with suppress(StoreError):
        if record.form == "directory":
            return archives.header(beginning(entry.path / directories.CONTENTS, "none"))
        head = beginning(entry.path, entry.name.compression)
        return archives.header(head[tarfile.BLOCKSIZE :] if record.form == "tar" else head)
    return None


def form_checks(record: BackupRecord[Manifest]) -> list[Check]:
    """Check the form of a file that is no script."""
    found = DESCRIPTIONS[record.form]
    if is_archive(record) and (head := header(record)):
        found += f", of the database {head.database} in PostgreSQL {head.server_version}"
    detail = "only a drill, in which pg_restore converts it, shows whether it is complete"
    return [
        *name_checks(record),
        Check(
            check=FORM,
            ok=None if is_archive(record) else False,
            expected="a PostgreSQL dump",
            found=found,
            detail=detail if is_archive(record) else "",
        ),
    ]


def content_checks(record: BackupRecord[Manifest], progress: Progress) -> tuple[list[Check], str]:
    """Check the form after reading every byte; return also the SHA-256."""
    entry = record.entry
    progress.stage(f"reading {record.name}", entry.bytes)
    damage, sha256 = "", ""
    if record.form == "directory":
        sha256 = digest(entry, progress)
    else:
        raw = FileReader(entry.path, progress.report)
        try:
            for _ in decompress(iter(raw), entry.name.compression):
                pass
        except CompressionDamaged as error:
            damage = str(error)
        sha256 = raw.sha256
    return [*form_checks(record), Check(check="compression", ok=not damage, detail=damage)], sha256


def require_readable(record: BackupRecord[Manifest], progress: Progress) -> None:
    """Read every byte. Raises BackupNotValid if a check fails."""
    found, _ = content_checks(record, progress)
    if wrong := [check for check in found if check.ok is False and check.check != MANIFEST]:
        raise BackupNotValid(f"{record.name} did not pass verification: {describe(wrong)}.")


def digest(entry: Entry, progress: Progress) -> str:
    """Return a file's SHA-256; for a directory, that of its files' names and digests. Raises StoreError."""
    if not entry.path.is_dir():
        reader = FileReader(entry.path, lambda _: progress.check())
        for _ in reader:
            pass
        return reader.sha256
    found = hashlib.sha256()
    for name, reader in directories.pieces(entry.path, lambda _: progress.check()):
        for _ in reader:
            pass
        found.update(f"{reader.sha256} {name}\n".encode(errors="surrogateescape"))
    return found.hexdigest()


@contextmanager
def as_script(
    context: BackupContext, record: BackupRecord[Manifest], progress: Progress
) -> Generator[BackupRecord[Manifest]]:
    """Yield the backup as a script that exists during the block.

    An archive is converted in a sandbox server, which has no network; anything else is a script, or will be refused.
    Raises NotConverted, or whatever prevents starting the sandbox.
    """
    if not is_archive(record):
        yield record
        return
    with ExitStack() as held:
        with sandbox_server(context, progress) as sandbox:
            directory = context.directory.path / DRILLS
            partial = held.enter_context(PartialFile(directory / f"{token_hex(8)}.sql.zst"))
            held.enter_context(in_use(partial.path))
            progress.stage(f"converting {record.name} with pg_restore", record.entry.bytes)
            sha256 = _convert(record, sandbox, partial, progress)
        status = partial.path.stat()
        name = replace(record.entry.name, compression="zstd")
        entry = Entry(name, partial.path, status.st_size, status.st_mtime_ns)
        yield replace(record, entry=entry, form="script", archive=sha256)


def _convert(record: BackupRecord[Manifest], sandbox: SandboxServer, partial: PartialFile, progress: Progress) -> str:
    """Write the script into `partial`, compressed; return the archive's SHA-256."""
    host, entry, compressor = sandbox.server.host, record.entry, Compressor("zstd")
    raw: FileReader | None = None
    path: str | None = None
    if record.form == "directory":
        path = str(entry.path)
        if host.kind == "docker":
            inside = posixpath.dirname(sandbox.data_directory)
            _unpack(host, entry.path, inside, progress)
            path = f"{inside}/{_UNPACKED}"
    else:
        raw = FileReader(entry.path, progress.report)
    argv = archives.pg_restore(record.form, path)
    source = decompress(iter(raw), entry.name.compression) if raw else None
    try:
        ended = run(
            host,
            argv,
            source=source,
            sink=lambda data: partial.write(compressor.compress(data)),
            progress=progress,
        )
    except CompressionDamaged as error:
        raise NotConverted(f"{record.name} is damaged: {error}.", None, damaged=True) from None
    if ended.code != 0:
        raise _refused(record, ended)
    partial.write(compressor.finish())
    partial.finish()
    if raw is None or raw.bytes != entry.bytes:  # pg_restore need not read on to the end
        return digest(entry, progress)
    return raw.sha256


def _refused(record: BackupRecord[Manifest], ended: Exit) -> NotConverted:
    error = next((line for line in ended.stderr.splitlines() if line.strip()), f"exit code {ended.code}")
    message = f"pg_restore can't read {record.name}: {error.removeprefix('pg_restore: error: ')}."
    if _NEWER in error:
        head = header(record)
        by = f" {head.pg_dump_version}" if head else ""
        return NotConverted(
            message,
            f"A newer pg_dump{by} wrote it: convert it with that version's `pg_restore -f NAME.sql ARCHIVE`, and name "
            "the script here.",
            damaged=None,
        )
    return NotConverted(message, "It is damaged or cut off: choose another one.", damaged=True)


def _unpack(host: Host, path: Path, inside: str, progress: Progress) -> None:
    """Copy a directory's files into the sandbox."""
    made = run(host, ["mkdir", f"{inside}/{_UNPACKED}"], progress=progress)
    argv = ["tar", "-xf", "-", "-C", f"{inside}/{_UNPACKED}"]
    ended = made if made.code != 0 else run(host, argv, source=_packed(path, progress), progress=progress)
    if ended.code != 0:
        raise DrillFailed(f"{path.name} could not be copied into the sandbox: {ended.stderr.strip()}")


def _packed(path: Path, progress: Progress) -> Iterator[bytes]:
    """Yield a tar archive of the files in a directory."""
    for name, reader in directories.pieces(path, progress.report):
        member = tarfile.TarInfo(name)
        member.size, member.mode = reader.path.lstat().st_size, 0o600
        yield member.tobuf(tarfile.PAX_FORMAT)
        yield from reader
        if reader.bytes != member.size:
            raise StoreError(
                f"{name} in {path.name} changed while it was being read.", "Try again when nothing writes to it."
            )
        yield bytes(-member.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)
