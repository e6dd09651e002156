"""Find the statements of a dump that build indexes and keys, which several sessions can do at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .events import Handler, Target
from .filters import Filter
from .headings import Headings
from .script import RESTRICT_LINE, ScriptReader
from .shortcuts import COPY, NAME

_TABLE = rb"(?P<schema>%b)\.(?P<table>%b)" % (NAME, NAME)
_BUILD = re.compile(
    rb"CREATE (?:UNIQUE )?INDEX %b ON (?:ONLY )?%b USING (?P<method>%b) " % (NAME, _TABLE, NAME)
    + rb"|ALTER TABLE (?:ONLY )?%b\s+ADD CONSTRAINT %b (?:PRIMARY KEY|UNIQUE) "
    % (_TABLE.replace(b"<schema>", b"<of>").replace(b"<table>", b"<keyed>"), NAME)
)
_OF_A_BUILD = re.compile(
    rb"COMMENT ON (?:INDEX|CONSTRAINT) |ALTER INDEX %b\.%b (?:ATTACH PARTITION|ALTER COLUMN) "
    rb"|ALTER TABLE (?:ONLY )?%b\.%b (?:CLUSTER ON|REPLICA IDENTITY USING INDEX) " % ((NAME,) * 4)
)
"""What pg_dump writes about an index after it: no other index depends on it."""
_SETTING = re.compile(rb"SET [a-z_]+ = |SELECT pg_catalog\.set_config\('[a-z_]+', '[^']*', false\);\Z")
_IN_MEMORY = (b"hnsw", b"ivfflat")
"""Access methods whose parallel build takes all of maintenance_work_mem from shared memory (pgvector's README)."""


@dataclass(frozen=True)
class Build:
    """A statement that builds an index or a key, and the settings of the script at that place. `size` is the number of
    bytes of its table's rows in the script; `at` locates it, as `Headings.before` does."""

    sql: bytes
    table: tuple[bytes, bytes]
    settings: tuple[bytes, ...]
    size: int
    in_memory: bool
    at: str


Batch = list[Build]
"""Statements that do not depend on each other, the ones of the largest tables first; all that is before them in the
script has to be done."""


class _Apart(Filter):
    """Keeps the script in `out`, less `\\restrict`, with its builds collected in batches. What is about an index waits
    for its batch; any other statement ends a batch, since it may depend on it."""

    def __init__(self, leave_out: bytes) -> None:
        super().__init__()
        self._leave_out = leave_out
        self.batches: list[tuple[int, Batch]] = []
        """Each with the number of items in `out` before it."""
        self._batch: Batch = []
        self._after: list[bytes] = []
        self._comments: list[bytes] = []
        self._settings: list[bytes] = []
        self._sizes: dict[tuple[bytes, bytes], int] = {}
        self._table = (b"", b"")
        self._other_rights = False

    def comment(self, data: bytes, line: int) -> None:
        self._comments.append(data + b"\n")

    def statement(self, sql: bytes, line: int) -> None:
        comments, self._comments = self._comments, []
        if sql == self._leave_out:
            return
        if not self._other_rights and (found := _BUILD.match(sql)):
            table = (found["schema"] or found["of"], found["table"] or found["keyed"])
            settings, size = tuple(self._settings), self._sizes.get(table, 0)
            in_memory = found["method"] in _IN_MEMORY
            self._batch.append(Build(sql, table, settings, size, in_memory, _located(comments)))
            return
        text = [*comments, sql, b"\n"]
        if _SETTING.match(sql):
            self._settings.append(sql)
        elif self._batch and _OF_A_BUILD.match(sql):
            self._after += text
            return
        else:
            self.end_batch()
            self._other_rights = self._other_rights or sql.startswith((b"SET ", b"RESET "))
            if copy := COPY.fullmatch(sql):
                self._table = copy["schema"], copy["table"]
        self.out += text

    def meta_command(self, command: bytes, line: int) -> None:
        if not RESTRICT_LINE.fullmatch(command):
            self.end_batch()
            self.out += [*self._comments, command, b"\n"]
            self._comments = []

    def copy_begin(self, target: Target, line: int) -> None:
        self._sizes.setdefault(self._table, 0)

    def copy_data(self, data: bytes) -> None:
        self._sizes[self._table] += len(data)
        self.out.append(data)

    def copy_end(self, rows: int) -> None:
        self.out.append(b"\\.\n")

    def end_batch(self) -> None:
        """End the batch, if there is one, and let follow what waited for it."""
        if self._batch:
            self.batches.append((len(self.out), sorted(self._batch, key=lambda build: -build.size)))
            self.out += self._after
            self._batch, self._after = [], []


def builds_apart(chunks: Iterable[bytes], *beside: Handler, leave_out: bytes = b"") -> Iterator[bytes | Batch]:
    """Yield a script without its `\\restrict` lines and the statement `leave_out`, and with batches where indexes and
    keys are built; handlers `beside` get the events first. Raises ScriptDamaged, at the latest after the last chunk."""
    kept = _Apart(leave_out)
    reader = ScriptReader(*beside, kept)
    for chunk in chunks:
        reader.feed(chunk)
        yield from _given_out(kept)
    reader.finish()
    kept.end_batch()
    yield from _given_out(kept)


def _given_out(kept: _Apart) -> Iterator[bytes | Batch]:
    begin = 0
    for end, batch in kept.batches:
        yield b"".join(kept.out[begin:end])
        yield batch
        begin = end
    if rest := b"".join(kept.out[begin:]):
        yield rest
    kept.out.clear()
    kept.batches.clear()


def _located(comments: list[bytes]) -> str:
    headings = Headings()
    lines = sum(1 for _ in headings.passing(comments))
    return headings.before(lines + 1)
