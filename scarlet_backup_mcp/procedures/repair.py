"""`repair`: a clean copy of an old backup that PowerShell re-encoded, beside the original, which is left as it is."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from .. import __version__
from ..errors import BackupNotValid, DumpFailed
from ..models import CodePage, Manifest, Repaired, TableData
from ..postgres.digests import BlockDigests
from ..postgres.script import ScriptReader
from ..progress import Progress
from ..store import names
from ..store.encodings import DESCRIPTIONS
from ..store.lock import writer_lock
from ..store.reading import Compressor, FileReader, decompress
from ..store.writing import PartialFile
from . import checks, verify
from .backup import read_back
from .catalogue import Known
from .dump import Written
from .examine import Examination, table_data
from .target import Target


def repair(target: Target, progress: Progress, name: str, *, code_page: CodePage | None = None) -> Repaired:
    """Write what the dump was before PowerShell had it, under a name of its own and with a manifest.

    The manifest proves the copy's content; of the database it tells nothing, since the original does not either.
    Raises CodePageNeeded where only the caller can tell the right page, BackupNotValid for a file that is no whole
    dump of PowerShell's; nothing is left behind then.
    """
    began = time.monotonic()
    known = verify.find(target, name)
    container = checks.container_of(known.entry)
    if container == "plain":
        raise BackupNotValid(f"{name} was not re-encoded: there is nothing to repair.", "Use it as it is.")
    target.directory.prepare()
    with writer_lock(target.directory.path, "repair"):
        target.directory.sweep()
        reading = verify.full(target, known, progress, store=False, code_page=code_page)
        if reading.ambiguous is not None and code_page is None:
            raise verify.code_page_needed(known, reading.ambiguous)
        found = reading.examination
        if not reading.whole or found is None or found.repair is None or found.summary is None:
            raise BackupNotValid(f"{name} can't be had back as a whole dump: {checks.describe(reading.failed)}.")
        manifest = _write(target, known, found, progress)
    why = reading.survey.why if reading.survey else ""
    return Repaired(
        name=manifest.name,
        path=str(target.directory.path / manifest.name),
        repaired_from=name,
        found=why or f"It was {DESCRIPTIONS[container]}.",
        code_page=found.repair.code_page,
        bytes=manifest.bytes,
        sha256=manifest.sha256,
        tables=len(manifest.tables),
        rows=manifest.rows,
        integrity_rows=manifest.integrity_rows,
        duration_seconds=round(time.monotonic() - began, 3),
        remedy=f"Prove it with `verify_backup` of {manifest.name}, level drill; the original may stay as it is.",
    )


def _write(target: Target, known: Known[Manifest], found: Examination, progress: Progress) -> Manifest:
    assert found.repair is not None
    compression = known.entry.name.compression
    final = target.directory.path / names.repaired_name(known.entry.name, known.created_at.astimezone())
    if final.exists():
        raise BackupNotValid(f"{final.name} is there already.", "Use it, or move it away first.")
    progress.stage(f"writing {final.name}", known.entry.bytes)
    partial = PartialFile(final)
    try:
        raw = FileReader(known.entry.path, progress.report)
        digests, compressor = BlockDigests(), Compressor(compression)
        reader = ScriptReader(digests)
        for chunk in found.repair(decompress(iter(raw), compression)):
            reader.feed(chunk)
            partial.write(compressor.compress(chunk))
        partial.write(compressor.finish())
        summary = reader.finish()
        partial.finish()
        if raw.sha256 != found.sha256:
            raise DumpFailed(f"{known.name} changed while it was read.", "Try again when nothing writes to it.")
        written = Written(
            tables=table_data(digests),
            rest_sha256=digests.rest_sha256,
            script_bytes=summary.bytes,
            pg_dump_version=summary.pg_dump_version or "unknown",
            warnings=[],
        )
        read_back(partial, compression, written, progress)
        manifest = _manifest(target, known, partial, written)
        with progress.uninterrupted():
            target.directory.publish(partial, manifest, failed=[])
    except BaseException:
        partial.discard()
        raise
    return manifest


def _manifest(target: Target, known: Known[Manifest], partial: PartialFile, written: Written) -> Manifest:
    table = target.settings.integrity_table
    integrity_rows = _rows_of(written.tables, table)
    return Manifest(
        name=partial.final.name,
        kind="sql",
        compression=known.entry.name.compression,
        created_at=known.created_at,
        finished_at=datetime.now(UTC),
        label=None,
        repaired_from=known.name,
        identity=None,
        pg_dump_version=written.pg_dump_version,
        tool_version=__version__,
        bytes=partial.bytes,
        sha256=partial.sha256,
        script_bytes=written.script_bytes,
        tables=written.tables,
        rows=sum(t.rows for t in written.tables),
        rest_sha256=written.rest_sha256,
        schemas=None,
        properties=None,
        roles=[],
        database_bytes=None,
        integrity_table=table,
        integrity_rows=integrity_rows,
        shrunk=not integrity_rows,
        shrunk_reasons=[] if integrity_rows else [f"the table {table} is empty or not there"],
        last_full=None,
    )


def _rows_of(tables: list[TableData], name: str) -> int | None:
    """Rows of the one table of that name, in whatever schema; None if there is none, or more than one."""
    found = {(t.schema_, t.name) for t in tables if t.name == name}
    return sum(t.rows for t in tables if t.name == name) if len(found) == 1 else None
