"""Digest a script's bytes, to detect damage, and its rows, to compare databases."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import xxhash

from .events import Handler, Target


@dataclass(frozen=True)
class BlockDigest:
    """All COPY data of one target: rows, bytes, and a digest (hex) of the data in the script's order."""

    target: Target
    rows: int
    bytes: int
    digest: str


@dataclass(frozen=True)
class RowDigest:
    """The rows of one table, regardless of their order. `target` is that of its first block.

    `digest` is the sum modulo 2**128, in hex, of each row's XXH3 128-bit hash, a row being its line of COPY data
    without the newline. It does not protect against deliberate collisions.
    """

    target: Target
    rows: int
    digest: str


class _Block:
    def __init__(self, sha256: bool) -> None:
        self.rows = self.bytes = 0
        self.hash = hashlib.sha256() if sha256 else xxhash.xxh3_128()


class BlockDigests(Handler):
    """A digest of each target's data, and SHA-256 of the rest of the script.

    The former only tell which table is damaged: XXH3-128, or with `sha256` SHA-256, for manifests of version 1.
    """

    def __init__(self, *, sha256: bool = False) -> None:
        self._sha256 = sha256
        self._blocks: dict[Target, _Block] = {}
        self._block = _Block(sha256)
        self._rest = hashlib.sha256()

    @property
    def blocks(self) -> list[BlockDigest]:
        """The digests in the order of each target's first block."""
        return [
            BlockDigest(target, block.rows, block.bytes, block.hash.hexdigest())
            for target, block in self._blocks.items()
        ]

    @property
    def rest_sha256(self) -> str:
        """The digest of the text outside COPY data, without lines that differ between two dumps of the same database.

        These are `\\restrict` and `\\unrestrict` (a random token) and the comments that name versions.
        """
        return self._rest.hexdigest()

    def text(self, data: bytes, line: int) -> None:
        """Hash the text."""
        self._rest.update(data)

    def volatile_text(self, data: bytes, line: int) -> None:
        """Leave it out."""

    def copy_begin(self, target: Target, line: int) -> None:
        """Continue this target's digest."""
        self._block = self._blocks.setdefault(target, _Block(self._sha256))

    def copy_data(self, data: bytes) -> None:
        """Hash the bytes."""
        self._block.bytes += len(data)
        self._block.hash.update(data)

    def copy_end(self, rows: int) -> None:
        """Count the rows."""
        self._block.rows += rows


class RowDigests(Handler):
    """Digests of each table's rows that do not depend on their order.

    Partitions that are loaded through their root come as several blocks of it, perhaps with another order of columns:
    such rows are digested in the order of the table's first block. `like` are the digests of the script to compare
    with, whose order then applies.
    """

    def __init__(self, like: RowDigests | None = None) -> None:
        self._like = like
        self._first: dict[tuple[str, str], Target] = {}
        self._rows: dict[tuple[str, str], int] = {}
        self._sums: dict[tuple[str, str], int] = {}
        self._table = ("", "")
        self._order: list[int] | None = None
        self._part: xxhash.xxh3_128 | None = None
        self._pieces: list[bytes] = []
        self._sum = 0

    @property
    def rows(self) -> list[RowDigest]:
        """The digests in the order of each table's first block, with its target."""
        return [
            RowDigest(target, self._rows.get(table, 0), f"{self._sums.get(table, 0):032x}")
            for table, target in self._first.items()
        ]

    def columns(self, table: tuple[str, str]) -> tuple[str, ...] | None:
        """Return the order of a table's (schema, name) columns in its digest; None if it has no block."""
        if self._like is not None and (columns := self._like.columns(table)) is not None:
            return columns
        first = self._first.get(table)
        return first.columns if first else None

    def copy_begin(self, target: Target, line: int) -> None:
        """Continue this table's digest."""
        self._table, self._sum = (target.schema, target.name), 0
        self._first.setdefault(self._table, target)
        self._order = reordering(target.columns, self.columns(self._table))

    def copy_data(self, data: bytes) -> None:
        """Hash each row; a row may come in several pieces."""
        if self._order is not None:
            data = self._reordered(data, self._order)
        start = 0
        if self._part is not None:
            start = data.find(b"\n") + 1
            self._part.update(data[: start - 1] if start else data)
            if not start:
                return
            self._sum += self._part.intdigest()
            self._part = None
        end = data.rfind(b"\n", start) + 1
        if end:
            self._sum += sum(map(xxhash.xxh3_128_intdigest, data[start : end - 1].split(b"\n")))
        if len(data) > max(start, end):
            self._part = xxhash.xxh3_128(data[max(start, end) :])

    def copy_end(self, rows: int) -> None:
        """Count the rows."""
        self._rows[self._table] = self._rows.get(self._table, 0) + rows
        self._sums[self._table] = (self._sums.get(self._table, 0) + self._sum) % (1 << 128)

    def _reordered(self, data: bytes, order: list[int]) -> bytes:
        """Reorder the values of the complete rows; hold an incomplete one back."""
        *lines, rest = data.split(b"\n")
        if not lines:
            self._pieces.append(rest)
            return b""
        lines[0] = b"".join((*self._pieces, lines[0]))
        self._pieces = [rest]
        rows = (line.split(b"\t") for line in lines)
        return b"".join(b"\t".join([values[at] for at in order if at < len(values)]) + b"\n" for values in rows)


def reordering(columns: Sequence[str], wanted: Sequence[str] | None) -> list[int] | None:
    """Return the position in `columns` of each of `wanted`; None if the order is the same, or the columns are not."""
    if wanted is None or tuple(columns) == tuple(wanted) or sorted(columns) != sorted(wanted):
        return None
    return [columns.index(column) for column in wanted]
