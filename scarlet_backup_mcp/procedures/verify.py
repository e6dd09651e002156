"""`verify_backup`: PROC-004's step 4 and "Verifica Finale". Needs the backup directory only, no engine."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

from ..errors import BackupNotValid
from ..models import Check, Level, Manifest, Step, TableData, Verification
from ..postgres.refusals import Refusal
from ..progress import Progress
from ..store.directory import Entry
from ..store.encodings import DESCRIPTIONS, Container, recognise
from ..store.reading import CompressionDamaged, FileReader, decompress
from . import catalogue
from .catalogue import CLOCK_SLACK, Known
from .examine import Examination, examine
from .target import Target

HEADER = b"-- PostgreSQL database dump"
TRAILER = b"-- PostgreSQL database dump complete"
EDGE = 4096
"""Bytes of the file's beginning and end that `quick` looks at."""
SHOWN = 5
CLOCK_CHECK = "time"
"""The one check that says nothing about the file: time passes, so its outcome is not kept."""


def verify(target: Target, progress: Progress, name: str = "latest", level: Level = "full") -> Verification:
    """Check a backup and, after `full`, keep the outcome beside it.

    Raises NameRefused, BackupMissing, BackupNotValid (an archive of a whole volume) and StoreError.
    """
    began = time.monotonic()
    known = find(target, name)
    examination: Examination | None = None
    if level == "quick":
        progress.stage(f"looking at {known.name}")
        checks = quick_checks(known)
    else:
        checks, examination = full(target, known, progress)
    return _report(known, level, checks, examination, time.monotonic() - began)


def find(target: Target, name: str) -> Known[Manifest]:
    """The SQL backup that `name` (or `latest`) means."""
    entry = target.directory.find(catalogue.latest(target) if name == "latest" else name)
    if entry.name.kind == "volume":
        raise BackupNotValid(
            f"{name} is an archive of a whole volume: its content can't be checked by this version.",
            "Take an SQL backup with `backup`: that one can be verified.",
        )
    return catalogue.know(target, entry)


def full(
    target: Target, known: Known[Manifest], progress: Progress, *, store: bool = True
) -> tuple[list[Check], Examination]:
    """Every check, and what the reading found. The outcome is kept beside the backup if `store`."""
    entry = known.entry
    examination = examine(entry.path, entry.name.compression, progress)
    checks = [*_name_checks(known), *_content_checks(known, examination)]
    if store and (known.manifest is not None or known.detail):
        failed = [check.check for check in checks if check.ok is False and check.check != CLOCK_CHECK]
        target.directory.store_verification(entry, valid=not failed, sha256=examination.sha256, failed=failed)
    return checks, examination


# -- checks ----------------------------------------------------------------------------------------------------------


def quick_checks(known: Known[Manifest]) -> list[Check]:
    """Name, manifest, size, first and last lines: what a look at the file tells in a moment."""
    entry = known.entry
    checks = _name_checks(known)
    container = _container(entry)
    checks.append(_container_check(container))
    if entry.name.compression == "none":
        with entry.path.open("rb") as file:
            head = file.read(EDGE)
            file.seek(max(0, entry.bytes - EDGE))
            tail = file.read(EDGE)
        checks.append(Check(check="header", ok=HEADER in head, expected=HEADER.decode(), found=_shown(head)))
        checks.append(Check(check="trailer", ok=TRAILER in tail, expected=TRAILER.decode(), found=_shown(tail[-80:])))
    else:
        checks.append(Check(check="header", ok=_compressed_head(entry) is not None, expected=HEADER.decode()))
        checks.append(Check(check="trailer", ok=None, detail="a compressed file's end is looked at by level full"))
    return checks


def _name_checks(known: Known[Manifest]) -> list[Check]:
    entry, manifest = known.entry, known.manifest
    checks = [
        Check(
            check="name",
            ok=entry.name.stamp is not None if manifest is not None else None,
            expected="a name with a time, as PROC-004 has it",
            found=known.name,
        ),
        Check(check="size", ok=entry.bytes > 0, expected="> 0 bytes", found=f"{entry.bytes} bytes"),
        Check(
            check="manifest",
            ok=manifest is not None,
            expected="there is one",
            found="found" if manifest else "none",
            detail=known.detail if manifest is None else "",
        ),
    ]
    if manifest is not None:
        checks.append(_same("bytes", manifest.bytes, entry.bytes))
        ahead = manifest.created_at > datetime.now(UTC) + CLOCK_SLACK
        checks.append(
            Check(check=CLOCK_CHECK, ok=not ahead, expected="not in the future", found=manifest.created_at.isoformat())
        )
    return checks


def _content_checks(known: Known[Manifest], found: Examination) -> list[Check]:
    manifest, summary = known.manifest, found.summary
    refused = found.refused(foreign=manifest is None)
    checks = [
        _container_check(found.container),
        Check(check="compression", ok=found.compression_damage is None, detail=found.compression_damage or ""),
        Check(check="structure", ok=found.damage is None, expected="a plain dump", detail=found.damage or ""),
        Check(check="header", ok=found.header, expected=HEADER.decode()),
        Check(check="trailer", ok=summary is not None and summary.trailer, expected=TRAILER.decode()),
        Check(
            check="statements",
            ok=not refused,
            expected="only what pg_dump writes",
            found=f"{len(refused)} refused",
            detail=describe_refusals(refused),
        ),
    ]
    if manifest is not None:
        checks += [
            _same("sha256", manifest.sha256, found.sha256),
            _same("script_bytes", manifest.script_bytes, found.script_bytes),
            _table_check(manifest.tables, found.tables),
            _same("rest_of_script", manifest.rest_sha256, found.rest_sha256),
        ]
    return checks


def describe_refusals(refused: list[Refusal]) -> str:
    """The first few in words."""
    return "; ".join(f"line {r.line} {r.reason}: {r.excerpt}" for r in refused[:SHOWN])


def _table_check(expected: list[TableData], found: list[TableData]) -> Check:
    before, after = ({(t.schema_, t.name, *t.columns): t for t in side} for side in (expected, found))
    wrong = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
    return Check(
        check="tables",
        ok=not wrong,
        expected=f"{len(expected)} tables, {sum(t.rows for t in expected):,} rows",
        found=f"{len(found)} tables, {sum(t.rows for t in found):,} rows",
        detail="; ".join(_difference(key, before.get(key), after.get(key)) for key in sorted(wrong)[:SHOWN]),
    )


def _difference(key: tuple[str, ...], before: TableData | None, after: TableData | None) -> str:
    name = ".".join(key[:2])
    if before is None:
        return f"{name} is not in the manifest"
    if after is None:
        return f"{name} is missing"
    if before.rows != after.rows:
        return f"{name} has {after.rows} rows instead of {before.rows}"
    return f"{name} has the right number of rows, but other data"


def _same(check: str, expected: object, found: object) -> Check:
    return Check(check=check, ok=expected == found, expected=str(expected), found=str(found))


def _container_check(container: Container) -> Check:
    return Check(
        check="encoding",
        ok=container == "plain",
        expected=DESCRIPTIONS["plain"],
        found=DESCRIPTIONS[container],
        detail="" if container == "plain" else "re-encoded on its way to the file: it must not be loaded as it is",
    )


def _container(entry: Entry) -> Container:
    head = _compressed_head(entry) if entry.name.compression != "none" else _head(entry.path)
    return recognise(head or b"")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(EDGE)


def _compressed_head(entry: Entry) -> bytes | None:
    try:
        head = next(decompress(iter(FileReader(entry.path)), entry.name.compression), b"")
    except CompressionDamaged:
        return None
    return head if HEADER in head[:EDGE] else None


def _shown(data: bytes) -> str:
    return data[:80].decode("utf-8", "replace").strip()


# -- what is told ----------------------------------------------------------------------------------------------------


def _report(
    known: Known[Manifest], level: Level, checks: list[Check], examination: Examination | None, seconds: float
) -> Verification:
    foreign = known.manifest is None
    failed = [check for check in checks if check.ok is False]
    valid = not failed and not foreign
    container = examination.container if examination else _container(known.entry)
    return Verification(
        name=known.name,
        level=level,
        valid=valid,
        foreign=foreign,
        shrunk=known.manifest.shrunk if known.manifest else None,
        repairable=None if container == "plain" else container != "utf-16be",
        checks=checks,
        tables=len(examination.tables) if examination else None,
        rows=examination.rows if examination else None,
        bytes=known.entry.bytes,
        sha256=examination.sha256 if examination else None,
        verified_at=datetime.now(UTC),
        duration_seconds=round(seconds, 3),
        steps=[
            Step(
                step="Verifica Finale",
                title="The file exists, is not empty, has the right time, and holds what it should",
                ok=valid,
                detail="; ".join(check.check for check in failed) or "every check holds",
            )
        ],
        remedy=remedy_for(known, failed),
    )


def remedy_for(known: Known[Manifest], failed: list[Check]) -> str | None:
    """What to do about a backup with these failed checks; None if nothing has to be done."""
    container = _container(known.entry)
    if container != "plain":
        return (
            f"The file is {DESCRIPTIONS[container]}: its text was re-encoded and must not be loaded as it is. "
            "Take a new backup with `backup` while the database is there."
        )
    if known.manifest is None:
        if known.detail:
            return (
                "Its manifest is damaged, so nothing tells whether its content is whole: call `backup` for a new one."
            )
        only = [check for check in failed if check.check != "manifest"]
        return (
            "It is damaged: take a new backup with `backup`."
            if only
            else "Its structure is whole, but nothing tells whether its content is: take a backup with `backup`."
        )
    return "Don't rely on it: take a new backup with `backup`, and check the disk." if failed else None
