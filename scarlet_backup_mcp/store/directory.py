"""The backup directory and its contents."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json

from ..errors import BackupMissing, BackupUnreadable, NameRefused, NewerVersion, StoreError
from ..models.common import CodePage, Compression, Kind, SearchPath, Verdict
from ..models.manifest import Manifest, ManifestHead, VolumeManifest
from ..models.verification import DrillOutcome, StoredVerification
from . import directories, forms, location, manifests, names, removal, sidecars
from .file_system import same_time
from .names import BackupName
from .permissions import cannot_read, in_the_way, is_directory, may_read
from .removal import Swept, is_temporary
from .writing import PartialFile, sync_directory, write_atomically

H = TypeVar("H", bound=ManifestHead)
STALE_SECONDS = 3600
"""Age at which a temporary file is certainly no longer being written."""
DRILL = "drill"
"""Name of the drill among an outcome's failed checks."""


@dataclass(frozen=True)
class Entry:
    """A backup's file or directory. `bytes` and `mtime_ns` identify its content to a stored verification."""

    name: BackupName
    path: Path
    bytes: int
    mtime_ns: int

    def has(self, found: os.stat_result) -> bool:
        """Tell whether a look at the file shows the content that it had."""
        return found.st_size == self.bytes and same_time(self.mtime_ns, found.st_mtime_ns)


class BackupDirectory:
    """The backup directory. It need not exist yet: it then reads as an empty one.

    `prefix` is the one of SQL backups made here; it tells unfinished ones from other programs' files, as do earlier
    prefixes of which a backup with its manifest is there. None takes any.
    """

    def __init__(self, path: Path, prefix: str | None = None) -> None:
        self.path = path
        self._prefix = prefix

    def prepare(self) -> None:
        """Create it, for its owner only. Raises DirectoryNotWritable."""
        location.prepare(self.path)

    def exists(self) -> bool:
        """Tell whether it is there. Raises BackupUnreadable if this user may not know."""
        return is_directory(self.path)

    def absence(self) -> str:
        """Say why it is not there; "" if it is. Raises BackupUnreadable."""
        return location.absence(self.path)

    def warnings(self) -> list[str]:
        """Return what a careful user should know about this location."""
        return location.warnings(self.path)

    # -- reading ---------------------------------------------------------------------------------------------------

    def entries(self) -> Iterator[Entry]:
        """Yield every regular file with a backup's name, and every directory with a dump in it, in no order.

        Links and devices are skipped, and so is a file with a doubtful name whose content is no backup. Raises
        BackupUnreadable if this user may list the directory, but not look at what is in it."""
        for item in self._scan():
            try:
                if item.is_dir(follow_symlinks=False):
                    name = names.of_directory(item.name) if directories.is_dump(Path(item.path)) else None
                else:
                    name = names.parse(item.name) if item.is_file(follow_symlinks=False) else None
                if name is not None and not (names.is_doubtful(name) and not forms.is_a_backup(Path(item.path))):
                    yield _entry(name, Path(item.path))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except PermissionError as error:
                raise cannot_read(Path(item.path), error) from error

    def unreadable(self, entry: Entry) -> str:
        """Say what of a backup and its outcome of a verification this user may not read, and why; "" if nothing."""
        for path in (str(entry.path), f"{entry.path}{names.VERIFIED}"):
            if not may_read(path) and os.path.lexists(path):
                return f"this user may not read {os.path.basename(path)}: {in_the_way(Path(path))}"
        return ""

    def partials(self) -> Iterator[Path]:
        """Yield every unfinished backup or repaired copy that was made here."""
        found = self._scan()
        if not (partials := list(_parsed(found, names.PARTIAL))):
            return
        made = _parsed(found, names.MANIFEST)
        prefixes = {
            self._prefix,
            *(name.name.removesuffix(names.end_of(name)) for _, name in made if name.kind == "sql"),
        }
        for item, name in partials:
            mine = any(names.made_here(name, prefix) for prefix in prefixes)
            if mine and item.is_file(follow_symlinks=False):
                yield Path(item.path)

    def find(self, name: str) -> Entry:
        """Return the entry of that name. Raises NameRefused or BackupMissing."""
        path = self.path / name
        if (of := names.of_directory(name)) is not None and directories.is_dump(path):
            return _entry(of, path)
        parsed = names.require(name)
        try:
            mode = path.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            raise BackupMissing(f"There is no {name} in {self.path}.") from None
        except PermissionError as error:
            raise cannot_read(path, error) from error
        if not stat.S_ISREG(mode):
            raise NameRefused(f"{name} is not a regular file (links and devices are never followed).")
        return _entry(parsed, path)

    def manifest(self, name: str) -> Manifest | None:
        """Return the manifest of an SQL backup; None without one. Raises StoreError if it can't be read as one,
        NewerVersion if only a newer version of this tool can read it."""
        return self._manifest(name, Manifest)

    def volume_manifest(self, name: str) -> VolumeManifest | None:
        """Return the manifest of a volume's archive; None without one. Raises StoreError if it can't be read as one."""
        return self._manifest(name, VolumeManifest)

    def _manifest(self, name: str, model: type[H]) -> H | None:
        text = sidecars.read(self._beside(name, names.MANIFEST), sidecars.MANIFEST)
        return None if text is None else self._checked(name, lambda: manifests.unseal(text, model))

    def manifest_head(self, name: str) -> ManifestHead | None:
        """Return the head of a manifest; None without one. Reads its beginning only, so the rest may be damaged."""
        text = sidecars.beginning(self._beside(name, names.MANIFEST), manifests.HEAD_BYTES)
        return None if text is None else self._checked(name, lambda: manifests.head(text))

    def publish(self, partial: PartialFile, manifest: ManifestHead, failed: list[str], *, keep: bool = False) -> None:
        """Give a finished, verified partial file its name, manifest and verification, and with `keep` its mark.

        Call it under the lock. If it fails, neither name nor manifest is there.
        """
        sidecar_paths = [self.path / (manifest.name + end) for end in removal.SIDECARS]
        try:
            write_atomically(self.path / (manifest.name + names.MANIFEST), manifests.seal(manifest))
            if keep:
                write_atomically(self.path / (manifest.name + names.KEEP), b"")
            status = os.stat(partial.path)  # a rename mostly changes neither size nor time
            entry = Entry(names.require(manifest.name), partial.final, status.st_size, status.st_mtime_ns)
            self.store_verification(entry, sha256=manifest.sha256, failed=failed)
            partial.publish()
            with suppress(OSError, StoreError):
                if not entry.has(os.stat(partial.final)):  # FAT through FUSE sets a new time
                    self.store_verification(self.find(manifest.name), sha256=manifest.sha256, failed=failed)
        except BaseException:
            if not partial.final.exists():
                for path in sidecar_paths:
                    with suppress(OSError):  # on a file system that went read-only, too, the first error is reported
                        path.unlink(missing_ok=True)
            raise

    def is_marked(self, entry: Entry) -> bool:
        """Tell whether a backup is marked to be kept."""
        return os.path.lexists(f"{entry.path}{names.KEEP}")

    def verification(self, entry: Entry) -> StoredVerification | None:
        """Return the last outcome of `full` or `drill` for exactly this content and manifest; None without one that
        this user may read."""
        with suppress(BackupUnreadable):
            return self._verification(entry)[0]
        return None

    def _verification(self, entry: Entry) -> tuple[StoredVerification | None, bytes]:
        """Return that outcome, and the JSON that it was read from. Raises BackupUnreadable."""
        try:
            text = sidecars.read(self._beside(entry.name.name, names.VERIFIED)) or b""
            found = StoredVerification.model_validate_json(text, extra="ignore")
            if _is_of(found, entry, *self._manifest_status(entry)):
                return found, text
        except BackupUnreadable:
            raise
        except (ValidationError, StoreError):
            pass
        return None, b""

    def store_verification(
        self,
        entry: Entry,
        *,
        sha256: str,
        failed: list[str],
        proved: bool | None = None,
        proved_on: str | None = None,
        verdict: Verdict | None = None,
        said: str = "",
        search_path: SearchPath | None = None,
        code_page: CodePage | None = None,
        drilled: DrillOutcome | None = None,
    ) -> None:
        """Keep the outcome of a verification of a file that looked like `entry` when it began.

        `proved` is a drill's result on the server `proved_on`, with its `verdict`, what it `said` and the
        `search_path` that it could load the file with. None keeps an earlier result for the same content and
        `code_page`, so that reading the file once more does not clear what a drill found wrong. A verdict "unknown"
        replaces no other. The same holds for what a drill showed about the definitions (`drilled`), and for what a
        newer version of this tool wrote about that content.

        Raises StoreError; BackupMissing if the file is gone, and BackupUnreadable if this user may not read an earlier
        outcome, and then writes nothing.
        """
        if not any(os.path.lexists(f"{entry.path}{end}") for end in ("", names.PARTIAL)):
            raise BackupMissing(f"{entry.name.name} was removed in the meantime.")
        now = datetime.now(UTC)
        manifest_bytes, manifest_mtime_ns = self._manifest_status(entry)
        earlier, written = self._verification(entry)
        proved_at = now if proved is not None else None
        if earlier is not None and (earlier.sha256, earlier.code_page) != (sha256, code_page):
            earlier = None
        if earlier is not None:
            drilled = drilled or earlier.drilled
            if proved is None:
                proved, proved_at, proved_on = earlier.proved, earlier.proved_at, earlier.proved_on
                if proved is not None or (verdict in (None, "unknown") and earlier.verdict is not None):
                    verdict, said, search_path = earlier.verdict, earlier.said, earlier.search_path
                search_path = search_path or earlier.search_path
                failed = [*failed, *([DRILL] if proved is False else [])]
        outcome = StoredVerification(
            level="drill" if proved_at == now else "full",
            valid=not failed,
            proved=proved,
            proved_at=proved_at,
            proved_on=proved_on,
            drilled=drilled,
            verdict=verdict,
            said=said,
            search_path=search_path,
            code_page=code_page,
            verified_at=now,
            sha256=sha256,
            bytes=entry.bytes,
            mtime_ns=entry.mtime_ns,
            manifest_bytes=manifest_bytes,
            manifest_mtime_ns=manifest_mtime_ns,
            failed_checks=failed,
        )
        content = outcome.model_dump(mode="json")
        if earlier is not None:
            content = _over(from_json(written), earlier.model_dump(mode="json"), content)
        write_atomically(self.path / (entry.name.name + names.VERIFIED), json.dumps(content, indent=1).encode())

    # -- changes: only under the lock ------------------------------------------------------------------------------

    def new_name(self, prefix: str, compression: Compression, kind: Kind = "sql") -> str:
        """Return a free name for now; wait for the next second if this one's is taken."""
        ends = [
            end for (of, _), suffix in names.SUFFIXES.items() if of == kind for end in (suffix, suffix + names.PARTIAL)
        ]
        while True:
            name = names.new_name(prefix, datetime.now(), compression, kind)
            stem = name.removesuffix(names.SUFFIXES[kind, compression])
            if not any((self.path / (stem + end)).exists() for end in ends):
                return name
            time.sleep(0.05)

    def mark(self, entry: Entry, keep: bool) -> None:
        """Mark a backup to be kept, durably, or remove the mark. Raises StoreError."""
        path = Path(f"{entry.path}{names.KEEP}")
        if not keep:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise StoreError(f"{path.name} can't be removed: {error.strerror or error}.") from error
            sync_directory(self.path)
        elif not self.is_marked(entry):
            write_atomically(path, b"")

    def remove(self, entry: Entry) -> str | None:
        """Remove a backup with its sidecar files (see `removal`); return a warning if its space may not be free yet.

        Raises StoreError, with the backup still there; BackupMissing without the file."""
        now = self.find(entry.name.name)
        if now.bytes != entry.bytes or not same_time(entry.mtime_ns, now.mtime_ns):
            raise StoreError(f"{entry.name.name} has changed in the meantime; it was left alone.")
        return removal.remove(self.path, entry.name.name)

    def sweep(self) -> Swept:
        """Remove what killed backups left behind, and finish interrupted removals. What can't be removed stays for the
        next call."""
        swept = Swept()
        for partial in list(self.partials()):
            finished = partial.with_name(partial.name.removesuffix(names.PARTIAL))
            orphans = [] if finished.exists() else [Path(f"{finished}{end}") for end in removal.SIDECARS]
            try:
                for path in (*orphans, partial):
                    path.unlink(missing_ok=True)
                swept.removed.append(partial.name)
            except OSError as error:
                swept.warnings.append(
                    f"{partial.name}, left by a backup that was killed, can't be removed "
                    f"({error.strerror or error}). The next backup tries again."
                )
        for item in self._scan():
            with suppress(OSError):  # it is too small to mention, and a verification may just be renaming it
                if is_temporary(item.name) and item.stat(follow_symlinks=False).st_mtime < time.time() - STALE_SECONDS:
                    Path(item.path).unlink()
        if swept.removed:
            sync_directory(self.path)
        finished = removal.finish(self.path, [item.name for item in self._scan()])
        return Swept(swept.removed + finished.removed, swept.warnings + finished.warnings)

    # --------------------------------------------------------------------------------------------------------------

    def _scan(self) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.path) as found:
                return list(found)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise cannot_read(self.path, error) from error

    def _beside(self, name: str, end: str) -> str:
        """Return the path of a backup's sidecar file; a `Path` of each takes longer to make than the file to read."""
        return os.path.join(self.path, name + end)

    def _manifest_status(self, entry: Entry) -> tuple[int, int]:
        try:
            found = os.stat(self._beside(entry.name.name, names.MANIFEST), follow_symlinks=False)
        except OSError:
            return 0, 0
        return found.st_size, found.st_mtime_ns

    def _checked(self, name: str, read: Callable[[], H]) -> H:
        try:
            found = read()
        except manifests.ManifestNewer as error:
            raise NewerVersion(f"{name} was made by a newer version of this tool: {error}.") from error
        except manifests.ManifestDamaged as error:
            raise StoreError(
                f"The manifest of {name} {error}.",
                "If you trust the backup itself, move its manifest away: the backup then counts as foreign.",
            ) from error
        if found.name != name:
            raise StoreError(
                f"The manifest of {name} says it belongs to {found.name}.",
                "The file was renamed together with its manifest: rename both back.",
            )
        return found


def _parsed(found: Iterable[os.DirEntry[str]], end: str) -> Iterator[tuple[os.DirEntry[str], BackupName]]:
    """Yield the items whose name is a backup's followed by `end`, with the backup's name."""
    for item in found:
        name = names.parse(item.name.removesuffix(end)) if item.name.endswith(end) else None
        if name is not None:
            yield item, name


def _over(written: dict[str, Any], read: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Merge `now` into what was `written`: fields that are unknown here, or as they were `read`, stay as written."""
    return now | {name: value for name, value in written.items() if name not in now or now[name] == read[name]}


def _is_of(outcome: StoredVerification, entry: Entry, manifest_bytes: int, manifest_mtime_ns: int) -> bool:
    """Tell whether an outcome is of that content and manifest, whose times the file system may have rounded."""
    return (
        (outcome.bytes, outcome.manifest_bytes) == (entry.bytes, manifest_bytes)
        and same_time(outcome.mtime_ns, entry.mtime_ns)
        and same_time(outcome.manifest_mtime_ns, manifest_mtime_ns)
    )


def _entry(name: BackupName, path: Path) -> Entry:
    found = os.stat(path, follow_symlinks=False)
    if stat.S_ISDIR(found.st_mode):
        return Entry(name, path, *directories.size_and_time(path))
    return Entry(name, path, found.st_size, found.st_mtime_ns)
