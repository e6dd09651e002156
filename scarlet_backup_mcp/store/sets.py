"""Sets in the backup directory: an SQL backup and archives of stores that were made together.

A set is there when its own file is, which is written last and removed first. Its archives are no backups by
themselves: they are listed, kept and removed with the set."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import BackupMissing, NewerVersion, StoreError
from ..models.memory import SetManifest, StoreManifest, StoreMember
from . import manifests, names, removal, sidecars
from .removal import Swept
from .writing import PartialFile, delete, sync_directory, write_atomically


@dataclass(frozen=True)
class MemorySet:
    """A set. Without a `manifest` nothing is known of it; `fault` says why it can't be relied on, and is "" for a set
    that has all its members."""

    name: str
    manifest: SetManifest | None
    fault: str = ""

    @property
    def bytes(self) -> int:
        """The size of its archives."""
        return sum(member.bytes for member in self.manifest.stores) if self.manifest else 0


def sets(directory: Path) -> list[MemorySet]:
    """List the sets, newest first by their names. Raises StoreError if the directory can't be listed."""
    return list(_newest_first(directory))


def newest(directory: Path) -> MemorySet | None:
    """Return the newest set that has all its members, without reading older ones; None if there is none. Raises
    StoreError if the directory can't be listed."""
    return next((found for found in _newest_first(directory) if not found.fault), None)


def find(directory: Path, name: str) -> MemorySet:
    """Return the set of that name. Raises BackupMissing, or StoreError if its file can't be read as one."""
    found = _read(directory, name)
    if found.manifest is None:
        if not os.path.lexists(directory / name):
            raise BackupMissing(f"There is no {name} in {directory}.")
        raise StoreError(f"{name} can't be relied on: {found.fault}.", "Its members may be intact: verify each.")
    return found


def archive_manifest(directory: Path, member: StoreMember) -> StoreManifest:
    """Return what an archive's own manifest says. Raises StoreError without a good one."""
    text = sidecars.read(directory / (member.name + names.MANIFEST), sidecars.MANIFEST)
    if text is None:
        raise StoreError(f"{member.name} has no manifest.")
    try:
        found = manifests.unseal(text, StoreManifest)
    except manifests.ManifestNewer as error:
        raise NewerVersion(f"{member.name} was made by a newer version of this tool: {error}.") from error
    except manifests.ManifestDamaged as error:
        raise StoreError(f"The manifest of {member.name} {error}.") from error
    if found.member != member:
        raise StoreError(f"The manifest of {member.name} is not the one that its set was made with.")
    return found


def alone(directory: Path, found: Sequence[MemorySet]) -> list[str]:
    """List the archives that none of the sets, which are all there are, names: a killed call left them, or their set's
    file is lost."""
    named = {member.name for item in found if item.manifest for member in item.manifest.stores}
    unread = {item.name for item in found if item.manifest is None}
    return sorted(
        name
        for name in _listed(directory)
        if names.is_store(name) and name not in named and names.set_of(name) not in unread
    )


def publish(directory: Path, made: SetManifest, archives: Sequence[tuple[PartialFile, StoreManifest]]) -> None:
    """Give finished archives their names and manifests, then write the set's own file. Call it under the lock. If it
    fails, neither is there."""
    for path in (directory / made.name, *(partial.final for partial, _ in archives)):
        if os.path.lexists(path):
            raise StoreError(f"{path} appeared while the set was being made; it was left alone.")
    done = list[Path]()
    try:
        for partial, manifest in archives:
            sidecar = Path(f"{partial.final}{names.MANIFEST}")
            done += [sidecar]
            write_atomically(sidecar, manifests.seal(manifest))
            partial.publish()
            done += [partial.final]
        write_atomically(directory / made.name, manifests.seal(made))
    except BaseException:
        for path in reversed(done):
            with suppress(OSError):
                path.unlink(missing_ok=True)
        raise


def remove(directory: Path, of: MemorySet) -> list[str]:
    """Remove a set and its archives, not its SQL backup; return warnings about space that may not be free yet. Call it
    under the lock. Raises StoreError."""
    delete(directory / of.name)
    sync_directory(directory)
    stores = of.manifest.stores if of.manifest else []
    there = [member.name for member in stores if os.path.lexists(directory / member.name)]
    return [warning for name in there if (warning := removal.remove(directory, name)) is not None]


def sweep(directory: Path) -> Swept:
    """Remove unfinished archives and manifests without their archive, which killed calls left. Call it under the
    lock."""
    swept, listed = Swept(), set(_listed(directory))
    for name in sorted(listed):
        archive = name.removesuffix(names.PARTIAL).removesuffix(names.MANIFEST)
        if name == archive or not names.is_store(archive) or (name.endswith(names.MANIFEST) and archive in listed):
            continue
        try:
            (directory / name).unlink(missing_ok=True)
            swept.removed.append(name)
        except OSError as error:
            swept.warnings.append(f"{name} can't be removed ({error.strerror or error}). The next backup tries again.")
    if swept.removed:
        sync_directory(directory)
    return swept


def _newest_first(directory: Path) -> Iterator[MemorySet]:
    for name in sorted(filter(names.is_set, _listed(directory)), reverse=True):
        yield _read(directory, name)


def _read(directory: Path, name: str) -> MemorySet:
    try:
        text = sidecars.read(directory / name)
        if text is None:
            return MemorySet(name, None, "it was removed")
        manifest = manifests.unseal(text, SetManifest)
    except manifests.ManifestNewer as error:
        return MemorySet(name, None, f"made by a newer version of this tool: {error}")
    except manifests.ManifestDamaged as error:
        return MemorySet(name, None, f"its file {error}")
    except StoreError as error:
        return MemorySet(name, None, error.message.removesuffix("."))
    if manifest.name != name:
        return MemorySet(name, None, f"its file says that it is {manifest.name}")
    return MemorySet(name, manifest, "; ".join(_faults(directory, manifest)))


def _faults(directory: Path, manifest: SetManifest) -> Iterator[str]:
    if not os.path.lexists(directory / manifest.backup):
        yield f"{manifest.backup} is missing"
    for member in manifest.stores:
        try:
            size = os.lstat(directory / member.name).st_size
        except OSError:
            yield f"{member.name} is missing"
            continue
        if size != member.bytes:
            yield f"{member.name} has {size:,} bytes instead of {member.bytes:,}"
        if not os.path.lexists(directory / (member.name + names.MANIFEST)):
            yield f"the manifest of {member.name} is missing"


def _listed(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"{directory} can't be listed: {error.strerror or error}.") from error
