"""Write, read and read back an archive of a volume as a stream, from first to last byte.

A `Collector` notes what is in it: `Inventory` for a PostgreSQL cluster, another one for other programs' data."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from ...errors import BackupToolError, DumpIncomplete
from ...hosts import Exit, Host, Packed, run
from ...models.common import Compression, Packing
from ...postgres.cluster.base_backup import BACKUP_MANIFEST, File
from ...progress import Progress
from ...store.reading import CompressionDamaged, FileReader, decompress
from ...store.storing import Storing
from ...store.tar import Member, MemberHandler, TarDamaged, TarReader
from ...store.writing import PartialFile

PG_VERSION = "PG_VERSION"
PG_CONTROL = "pg_control"
KEPT = {BACKUP_MANIFEST: 256 << 20, PG_VERSION: 16, PG_CONTROL: 8192}
"""Files whose content is kept while an archive is read, with their largest size: a backup_manifest has some 170 bytes
for each file of the cluster."""
CONFIGURATION, LONGEST, ALL_OF_IT = ".conf", 1 << 20, 16 << 20
"""Suffix of configuration files, and how many bytes of one, and of all, to keep."""
C = TypeVar("C")
_OF_A_DATABASE = re.compile(r"(^|/)base/\d+$")
"""Each database's directory has its own PG_VERSION."""


@dataclass(frozen=True)
class ArchiveContents:
    """What is in an archive. Names are relative to `root`, the directory in it that holds the cluster: "" in a base
    backup, `data` in what PROC-004's command made. `odd` describes members that a cluster's archive never has."""

    root: str
    files: Mapping[str, File]
    kept: Mapping[str, bytes]
    odd: list[str]


class Collector(MemberHandler, Generic[C]):
    """Collects what is in an archive while it is read."""

    def contents(self) -> C:
        """Return what was found so far."""
        raise NotImplementedError


class Inventory(Collector[ArchiveContents]):
    """Collects the contents of a cluster's archive while it is read."""

    def __init__(self) -> None:
        self._files: dict[str, File] = {}
        self._kept: dict[str, bytes] = {}
        self._odd: list[str] = []
        self._present = Member("", "file", 0)
        self._digest = hashlib.sha256()
        self._keeping: bytearray | None = None
        self._left = ALL_OF_IT

    def member(self, member: Member) -> None:
        """Begin a member: note a link, begin to digest a file."""
        if member.kind == "link":
            self._odd.append(f"{member.name} is a link: the archive lacks tablespaces outside of the data directory")
        if member.kind == "file":
            self._present, self._digest = member, hashlib.sha256()
            keep = member.size <= KEPT.get(posixpath.basename(member.name), -1)
            if member.name.endswith(CONFIGURATION) and member.size <= min(LONGEST, self._left):
                keep, self._left = True, self._left - member.size
            self._keeping = bytearray() if keep else None

    def data(self, data: memoryview) -> None:
        """Digest some of a file's data."""
        self._digest.update(data)
        if self._keeping is not None:
            self._keeping += data

    def end(self) -> None:
        """End a file: note its size and digest."""
        name = self._present.name
        if name in self._files:
            self._odd.append(f"{name} occurs twice")
        self._files[name] = File(self._present.size, self._digest.hexdigest())
        if self._keeping is not None:
            self._kept[name] = bytes(self._keeping)

    def contents(self) -> ArchiveContents:
        """Return what was found so far."""
        versions = [name for name in self._kept if posixpath.basename(name) == PG_VERSION]
        found = posixpath.dirname(min(versions, key=lambda name: name.count("/"), default=""))
        root = _OF_A_DATABASE.sub("", found).rstrip("/")
        start = f"{root}/" if root else ""
        outside = [f"{name} is not in the directory {root}" for name in self._files if not name.startswith(start)]
        return ArchiveContents(
            root,
            {name[len(start) :]: file for name, file in self._files.items() if name.startswith(start)},
            {name[len(start) :]: text for name, text in self._kept.items() if name.startswith(start)},
            [*self._odd, *outside],
        )


@dataclass(frozen=True)
class ArchiveRead(Generic[C]):
    """The result of reading all of it. `damage` says where it stops being a tar archive; the rest is about what came
    before."""

    bytes: int
    sha256: str
    tar_bytes: int
    contents: C
    damage: str | None
    compression_damage: str | None


Archive = ArchiveRead[ArchiveContents]


def read(path: Path, compression: Packing, progress: Progress) -> Archive:
    """Read a cluster's whole archive once. Raises StoreError if it can't be read, Cancelled when asked to stop."""
    return read_into(Inventory(), path, compression, progress)


def read_into(collector: Collector[C], path: Path, compression: Packing, progress: Progress) -> ArchiveRead[C]:
    """Read any whole archive once. Raises what `read` does."""
    progress.stage(f"reading {path.name}", path.stat().st_size)
    raw = FileReader(path, progress.report)
    reader = TarReader(collector)
    damage = compression_damage = None
    plain = decompress(iter(raw), compression, single=True)
    try:
        for piece in plain:
            reader.feed(piece)
        reader.finish()
    except CompressionDamaged as error:
        compression_damage = str(error)
    except TarDamaged as error:
        damage = f"at byte {error.offset:,} of the archive: {error.message}"
        with suppress(CompressionDamaged):  # so that the digest is of the whole file
            for _ in plain:
                pass
    return ArchiveRead(raw.bytes, raw.sha256, reader.bytes, collector.contents(), damage, compression_damage)


@dataclass(frozen=True)
class Written(Generic[C]):
    """What was seen while an archive was written. `said` are the lines that its program wrote to stderr."""

    contents: C
    tar_bytes: int
    said: list[str]


ArchiveWritten = Written[ArchiveContents]


def write(
    host: Host,
    argv: Sequence[str],
    partial: PartialFile,
    compression: Compression,
    progress: Progress,
    *,
    collector: Collector[C],
    env: Mapping[str, str],
    total: int | None,
    failure: Callable[[Exit], BackupToolError],
) -> Written[C]:
    """Run a program there that writes an archive of about `total` bytes to stdout; put it, compressed, into `partial`.
    Raises what `failure` returns for an exit code other than 0, DumpIncomplete if the archive is not complete, or what
    the host and the disk raise; `partial` is then useless."""
    reader = TarReader(collector)
    packed: Packed = "kept" if compression == "zstd" else True
    try:
        with Storing(partial, compression, reader.feed) as storing:

            def sink(chunk: bytes) -> None:
                storing.put(chunk)
                progress.report(reader.bytes if total is None else min(reader.bytes, total))

            ended = run(host, argv, env=env, sink=sink, progress=progress, packed=packed)
            if ended.code != 0:
                raise failure(ended)
            storing.finish()
        reader.finish()
    except TarDamaged as error:
        raise DumpIncomplete(f"{argv[0]} did not write a complete archive: {error.message}.") from None
    except CompressionDamaged as error:
        raise DumpIncomplete(f"{argv[0]}'s output was damaged on its way here: {error}.") from None
    said = [line for line in ended.stderr.splitlines() if line.strip()]
    return Written(collector.contents(), reader.bytes, said)
