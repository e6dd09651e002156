"""What is in a store's archive, and how it is checked against its manifest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from ...models.memory import StoreFile, StoreManifest, StoreMember
from ...models.verification import Check
from ...progress import Progress
from ...store.tar import Member
from .archive import ArchiveRead, Collector, read_into
from .checks import SHOWN, same


@dataclass(frozen=True)
class StoreContents:
    """The members of a store's archive. `odd` describes what none of ours has."""

    files: list[StoreFile] = field(default_factory=list[StoreFile])
    directories: int = 0
    links: int = 0
    odd: list[str] = field(default_factory=list[str])


class StoreInventory(Collector[StoreContents]):
    """Collects the members of a store's archive while it is read."""

    def __init__(self) -> None:
        self._files: list[StoreFile] = []
        self._names: set[str] = set()
        self._count = {"directory": 0, "link": 0}
        self._odd: list[str] = []
        self._present = Member("", "file", 0)
        self._digest = hashlib.sha256()

    def member(self, member: Member) -> None:
        """Begin a member."""
        if member.name in self._names:
            self._odd.append(f"{member.name} occurs twice")
        self._names.add(member.name)
        if member.kind == "file":
            self._present, self._digest = member, hashlib.sha256()
        else:
            self._count[member.kind] += 1

    def data(self, data: memoryview) -> None:
        """Digest some of a file's data."""
        self._digest.update(data)

    def end(self) -> None:
        """End a file."""
        name = self._present.name.encode("utf-8", "backslashreplace").decode()
        self._files.append(StoreFile(name=name, bytes=self._present.size, sha256=self._digest.hexdigest()))

    def contents(self) -> StoreContents:
        """Return what was found so far."""
        return StoreContents(self._files, self._count["directory"], self._count["link"], self._odd)


def read(path: Path, progress: Progress) -> ArchiveRead[StoreContents]:
    """Read a store's whole archive once. Raises StoreError or Cancelled."""
    return read_into(StoreInventory(), path, "zstd", progress)


def content_checks(member: StoreMember, manifest: StoreManifest, found: ArchiveRead[StoreContents]) -> list[Check]:
    """Compare all that an archive holds with its set and its own manifest."""
    contents = found.contents
    expected = {file.name: file for file in manifest.members}
    differing = [file.name for file in contents.files if expected.pop(file.name, None) != file]
    wrong = [*differing, *(f"{name} is missing" for name in expected), *contents.odd]
    damage = found.damage or found.compression_damage or ""
    return [
        Check(check="structure", ok=not damage, expected="a complete tar archive", detail=damage),
        same("sha256", member.sha256, found.sha256),
        same("tar_bytes", manifest.tar_bytes, found.tar_bytes),
        Check(
            check="files",
            ok=not wrong,
            expected=f"{len(manifest.members)} files as its manifest lists them, and no other",
            found=f"{len(contents.files)} files",
            detail="; ".join(wrong[:SHOWN]),
        ),
        same("directories", manifest.directories, contents.directories),
        same("links", manifest.links, contents.links),
    ]
