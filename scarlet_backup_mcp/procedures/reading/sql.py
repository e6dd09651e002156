"""Read a dump's file once, from first to last byte, and collect everything that the file alone can show."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...models.common import CodePage, Packing
from ...models.manifest import Manifest, TableData
from ...postgres.dump.digests import BlockDigests
from ...postgres.dump.events import Handler, ScriptDamaged, Summary
from ...postgres.dump.refusals import Refusal, Refusals, refused
from ...postgres.dump.roles import Roles
from ...postgres.dump.script import ScriptReader
from ...progress import Progress
from ...store.powershell import Irreparable, Repair
from ...store.reading import CompressionDamaged, FileReader, decompress
from .foreign import Through


@dataclass(frozen=True)
class Examination:
    """What was found in a file. `damage` says where it stops being a plain dump; the rest is then about what came
    before. `repair` and `way` are what the file was read through."""

    bytes: int
    sha256: str
    repair: Repair | None
    script_bytes: int
    header: bool
    summary: Summary | None
    tables: list[TableData]
    rest_sha256: str
    refusals: list[Refusal]
    roles: list[str]
    damage: str | None = None
    compression_damage: str | None = None
    way: Through | None = None

    @property
    def through(self) -> Through | None:
        """What turns the file's plain bytes into the script; None: nothing is needed."""
        repair, way = self.repair, self.way
        if repair is None or way is None:
            return repair or way
        return lambda plain: way(repair(plain))

    def refused(self, *, foreign: bool) -> list[Refusal]:
        """Return the statements that must not be loaded (see `refusals.refused`)."""
        return refused(self.refusals, foreign=foreign)

    @property
    def code_page(self) -> CodePage | None:
        """The code page that a PowerShell-made file was read with; None for any other file."""
        return self.repair.code_page if self.repair else None

    @property
    def rows(self) -> int:
        """Number of rows of all tables."""
        return sum(table.rows for table in self.tables)


def examine(
    path: Path,
    compression: Packing,
    progress: Progress,
    *extra: Handler,
    repair: Repair | None = None,
    way: Through | None = None,
    sha256_of_blocks: bool = False,
) -> Examination:
    """Read the whole file once, undoing what PowerShell did to it (`repair`), and then through `way`.

    `sha256_of_blocks`: digest each table as manifests of version 1 have it.

    Raises StoreError if it can't be read, Cancelled when asked to stop.
    """
    progress.stage(f"reading {path.name}", path.stat().st_size)
    raw = FileReader(path, progress.report)
    digests, refusals, roles = BlockDigests(sha256=sha256_of_blocks), Refusals(), Roles()
    reader = ScriptReader(digests, refusals, roles, *extra)
    damage = compression_damage = summary = None
    script_bytes = 0
    plain = decompress(iter(raw), compression)
    try:
        repaired = repair(plain) if repair else plain
        for chunk in way(repaired) if way else repaired:
            script_bytes += len(chunk)
            if damage is None:
                try:
                    reader.feed(chunk)
                except ScriptDamaged as error:
                    damage = f"line {error.line}: {error.message}"
    except CompressionDamaged as error:
        compression_damage = str(error)
    except (Irreparable, ScriptDamaged) as error:
        damage = damage or f"line {error.line}: {error.message}"
        with suppress(CompressionDamaged):  # so that the digest is of the whole file
            for _ in plain:
                pass
    if damage is None:
        try:
            summary = reader.finish()
            refusals.ended()
        except ScriptDamaged as error:
            damage = f"line {error.line}: {error.message}"
    return Examination(
        bytes=raw.bytes,
        sha256=raw.sha256,
        repair=repair,
        script_bytes=script_bytes,
        header=reader.header,
        summary=summary,
        tables=table_data(digests),
        rest_sha256=digests.rest_sha256,
        refusals=refusals.found,
        roles=roles.names,
        damage=damage,
        compression_damage=compression_damage,
        way=way,
    )


def recorded(manifest: Manifest) -> Examination:
    """Return what `backup` found in a file while it wrote it, for one that is unchanged; without its roles."""
    return Examination(
        bytes=manifest.bytes,
        sha256=manifest.sha256,
        repair=None,
        script_bytes=manifest.script_bytes,
        header=True,
        summary=None,
        tables=manifest.tables,
        rest_sha256=manifest.rest_sha256,
        refusals=[],
        roles=[],
    )


def table_data(digests: BlockDigests) -> list[TableData]:
    """Return the COPY targets in a manifest's form."""
    return [
        TableData(
            schema=block.target.schema,
            name=block.target.name,
            columns=list(block.target.columns),
            rows=block.rows,
            bytes=block.bytes,
            digest=block.digest,
        )
        for block in digests.blocks
    ]
