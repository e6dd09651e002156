"""A backup's file as the script to load: read from its beginning for each attempt, and checked while it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from ...errors import BackupNotValid, RestoreFailed
from ...postgres.dump.builds import Batch, builds_apart
from ...postgres.dump.contents import Contents
from ...postgres.dump.events import Handler, ScriptDamaged
from ...postgres.dump.filters import Definitions, strip_restrict
from ...postgres.dump.refusals import Refused, Refusing
from ...progress import Progress
from ...store.directory import Entry
from ...store.reading import FileReader, decompress
from ..reading import checks
from ..reading.sql import Examination

Piece = TypeVar("Piece")


class FileScript:
    """The script in a file that was `examined`. Called, it yields it; `apart` yields it with its builds in batches.

    `contents` are those of the script. None: they are not known before its end, since its file was not examined again,
    because it is unchanged; then a statement that must not be loaded raises BackupNotValid before anything of it is
    yielded. Either way RestoreFailed is raised, at the latest at the end, if the file has changed since.
    """

    def __init__(self, entry: Entry, examined: Examination, contents: Contents | None, progress: Progress) -> None:
        self._entry, self._examined, self._progress = entry, examined, progress
        self._contents, self._unread = contents, contents is None
        self._definitions: bytes | None = None

    @property
    def contents(self) -> Contents:
        """What was read of the script."""
        assert self._contents is not None, "it was read to its end"
        return self._contents

    def __call__(self, *, rows: bool = True) -> Iterator[bytes]:
        """Yield the script, without `rows` its definitions only."""
        if not rows and self._definitions is not None:
            yield self._definitions
        else:
            yield from self._read(lambda plain, beside: strip_restrict(plain, *beside, rows=rows))

    def apart(self, leave_out: bytes) -> Iterator[bytes | Batch]:
        """Yield the script as `builds_apart` does."""
        return self._read(lambda plain, beside: builds_apart(plain, *beside, leave_out=leave_out))

    def _read(self, take: Callable[[Iterator[bytes], list[Handler]], Iterator[Piece]]) -> Iterator[Piece]:
        entry, examined = self._entry, self._examined
        changed = RestoreFailed(f"{entry.name.name} changed after it was verified. The live database is unchanged.")
        if not entry.has(entry.path.stat()):
            raise changed
        refusing, definitions, contents = Refusing(), Definitions(), Contents()
        raw = FileReader(entry.path, self._progress.report)
        plain = decompress(iter(raw), entry.name.compression)
        try:
            yield from take(
                examined.through(plain) if examined.through else plain,
                [refusing, contents, definitions] if self._unread else [definitions],
            )
            refusing.ended()
        except Refused as error:
            found = checks.describe_refusals([error.refusal])
            raise BackupNotValid(f"{entry.name.name} did not pass verification: {found}.") from None
        except ScriptDamaged as error:
            raise BackupNotValid(f"{entry.name.name} did not pass verification: {error}.") from None
        if raw.sha256 != examined.sha256:
            raise changed
        self._definitions = definitions.script
        self._contents = contents if self._unread else self._contents
