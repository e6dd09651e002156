"""Check a backup's file: in a moment (`quick`), or by reading its whole content (`full`)."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from ...models.manifest import Manifest, TableData
from ...models.verification import Check
from ...postgres.dump import script
from ...postgres.dump.parts import CLUSTER
from ...postgres.dump.refusals import Refusal
from ...progress import Progress
from ...store.directory import Entry
from ...store.encodings import DESCRIPTIONS, Container, recognise
from ...store.reading import FileReader, beginning
from ...wording import number_of
from .. import durations
from ..catalog.consistency import contradictions
from ..catalog.records import CLOCK_SLACK, BackupRecord, M
from .foreign import DumpChoice
from .sql import Examination

HEADER, TRAILER = script.HEADER.decode(), script.TRAILER.decode()
# The text alone may be part of a row. After it, only the end of pg_dump's own restriction may follow.
_LAST_LINES = re.compile(rf"^--\n{TRAILER}\n--\n\s*(?:\\unrestrict \w+\s*)?\Z", re.MULTILINE)
_FIRST_LINE = re.compile(rf"^{HEADER}$", re.MULTILINE)
_CLUSTER = CLUSTER.decode()
# In foreign files the end of a cluster's dump may follow the last dump, or what Supabase's tools put there.
_OTHER_LAST_LINES = re.compile(
    rf"^--\n(?:{TRAILER}|{_CLUSTER} complete)\n--\n\s*(?:\\unrestrict \w+\s*)?(?:RESET ALL;\s*)?\Z", re.MULTILINE
)
_UNCOMMENTED = re.compile("^(?:SET|CREATE) ", re.MULTILINE)
_OTHER_FIRST_LINE = re.compile(rf"^(?:{HEADER}|{_CLUSTER})$", re.MULTILINE)
EDGE = 8192
"""Bytes of the file's beginning and end that `quick` checks."""
SHOWN = 5
CLOCK = "time"
"""The one check that says nothing about the file: time passes, so its outcome is not kept."""
MANIFEST = "manifest"
CONSISTENCY = "consistency"
FORM = "form"
"""Name of the check whether the file is a dump at all."""
CONTENT = "content"
"""Name of the check whether the content of a file that is not examined again has changed."""
CONTENTS = "contents"
"""Name of the check what else a foreign script contains besides one dump."""


def quick_checks(record: BackupRecord[Manifest]) -> list[Check]:
    """Check name, manifest, size, first and last lines."""
    entry = record.entry
    container = container_of(entry)
    checks = [
        *name_checks(record),
        _encoding_check(container, "level full shows whether that can be undone", readable=None),
    ]
    if entry.name.compression == "none":
        with entry.path.open("rb") as file:
            head = _legible(file.read(EDGE), container)
            file.seek(max(0, entry.bytes - EDGE) // 2 * 2)  # UTF-16 comes in pairs
            tail = _legible(file.read(EDGE), container)
        last = (_OTHER_LAST_LINES if record.manifest is None else _LAST_LINES).search(tail)
        uncommented = record.manifest is None and (_is_uncommented(head) or f"\n{TRAILER}\n" in tail)
        checks += [
            _header_check(head, foreign=record.manifest is None),
            _edge_check("trailer", TRAILER, True if last else None if uncommented else False),
        ]
    else:
        head = _legible(beginning(entry.path, entry.name.compression), container)
        checks.append(_header_check(head, foreign=record.manifest is None))
        checks.append(Check(check="trailer", ok=None, detail="level full checks the end of a compressed file"))
    return checks


def content_checks(
    record: BackupRecord[Manifest], encoding: str, found: Examination, certain: bool, choice: DumpChoice | None
) -> list[Check]:
    """Check everything that the whole content shows. `encoding` describes what PowerShell did to the file; `certain`:
    it is known how to undo that, and not just one of several ways. `choice` is what was read of a foreign script."""
    manifest, summary = record.manifest, found.summary
    trailer = summary is not None and summary.trailer
    uncommented = choice is not None and choice.uncommented
    refused = found.refused(foreign=record.foreign)
    checks = [
        *name_checks(record),
        _encoding_check(container_of(record.entry), encoding, certain and found.repair is not None),
        Check(check="compression", ok=found.compression_damage is None, detail=found.compression_damage or ""),
        Check(check="structure", ok=found.damage is None, expected="a plain dump", detail=_damage(found)),
        Check(check="header", ok=None if uncommented else found.header, expected=HEADER),
        Check(
            check="trailer",
            ok=None if uncommented else trailer,
            expected=TRAILER,
            detail="it has no pg_dump comments: nothing shows whether its end is missing" if uncommented else "",
        ),
        Check(
            check="statements",
            ok=not refused,
            expected="only what pg_dump writes",
            found=f"{len(refused)} refused",
            detail=describe_refusals(refused),
        ),
    ]
    if choice is not None and (
        notes := [*choice.notes, *([f"{choice.refused[0].upper()}{choice.refused[1:]}."] if choice.refused else [])]
    ):
        checks.append(Check(check=CONTENTS, ok=None if choice.refused else True, detail=". ".join(notes)))
    if manifest is not None:
        checks += [
            same("sha256", manifest.sha256, found.sha256),
            same("script_bytes", manifest.script_bytes, found.script_bytes),
            _table_check(manifest.tables, found.tables),
            same("rest_of_script", manifest.rest_sha256, found.rest_sha256),
        ]
    return checks


def unchanged(record: BackupRecord[M], rules: int, progress: Progress) -> list[Check]:
    """Read a file whose content was checked, by these rules, while it was written, and return its checks: if its
    SHA-256 is the same, so is what was checked. [] for any other, or if it has changed: read that as a whole. Only for
    a report: what is loaded has to be checked as it is loaded."""
    manifest, entry = record.manifest, record.entry
    if manifest is None or manifest.rules != rules:
        return []
    progress.stage(f"reading {record.name}", entry.bytes, durations.of_hashing(entry.bytes))
    raw = FileReader(entry.path, progress.report)
    raw.read_all()
    if raw.sha256 != manifest.sha256:
        return []
    return [
        *name_checks(record),
        same("sha256", manifest.sha256, raw.sha256),
        Check(check=CONTENT, ok=True, expected="as it was checked while it was written", found="unchanged"),
    ]


def container_of(entry: Entry) -> Container:
    """Recognise by its first bytes how the file's text was written."""
    return recognise(beginning(entry.path, entry.name.compression))


def describe_refusals(refused: list[Refusal]) -> str:
    """Describe the first few refused statements."""
    return "; ".join(f"line {r.line} {r.reason}: {r.excerpt}" for r in refused[:SHOWN])


def describe(failed: list[Check]) -> str:
    """Describe failed checks."""
    return "; ".join(f"{c.check}: {c.detail or f'expected {c.expected}, found {c.found}'}" for c in failed)


def name_checks(record: BackupRecord[M]) -> list[Check]:
    """Check name, size, manifest and time of a backup of either kind."""
    entry, manifest = record.entry, record.manifest
    checks = [
        Check(
            check="name",
            ok=entry.name.stamp is not None if manifest is not None else None,
            expected="a name with a time, as in PROC-004",
            found=record.name,
        ),
        Check(check="size", ok=entry.bytes > 0, expected="> 0 bytes", found=f"{entry.bytes} bytes"),
        Check(
            check=MANIFEST,
            ok=manifest is not None,
            expected="a manifest",
            found="found" if manifest else "none",
            detail=record.detail if manifest is None else "",
        ),
    ]
    if manifest is not None:
        wrong = contradictions(entry.name, manifest)
        expected = "a manifest without contradictions"
        checks.append(Check(check=CONSISTENCY, ok=not wrong, expected=expected, detail="; ".join(wrong)))
        checks.append(same("bytes", manifest.bytes, entry.bytes))
        ahead = manifest.created_at > datetime.now(UTC) + CLOCK_SLACK
        checks.append(
            Check(check=CLOCK, ok=not ahead, expected="not in the future", found=manifest.created_at.isoformat())
        )
    return checks


def _encoding_check(container: Container, detail: str, readable: bool | None) -> Check:
    """Check the encoding. Re-encoded text is no fault if it can be undone; the first bytes alone don't show that."""
    plain = container == "plain"
    return Check(
        check="encoding",
        ok=True if plain else readable,
        expected=DESCRIPTIONS["plain"],
        found=DESCRIPTIONS[container],
        detail="" if plain else detail,
    )


def _damage(found: Examination) -> str:
    if found.damage is None:
        return ""
    return f"{found.damage}. The intact tables before it have {number_of(found.rows, 'row')}"


def _table_check(expected: list[TableData], found: list[TableData]) -> Check:
    before, after = ({(t.schema_, t.name, *t.columns): t for t in side} for side in (expected, found))
    wrong = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
    return Check(
        check="tables",
        ok=not wrong,
        expected=f"{number_of(len(expected), 'table')}, {number_of(sum(t.rows for t in expected), 'row')}",
        found=f"{number_of(len(found), 'table')}, {number_of(sum(t.rows for t in found), 'row')}",
        detail="; ".join(_difference(key, before.get(key), after.get(key)) for key in sorted(wrong)[:SHOWN]),
    )


def _difference(key: tuple[str, ...], before: TableData | None, after: TableData | None) -> str:
    name = ".".join(key[:2])
    if before is None:
        return f"{name} is not in the manifest"
    if after is None:
        return f"{name} is missing"
    if before.rows != after.rows:
        return f"{name} has {number_of(after.rows, 'row')} instead of {before.rows}"
    return f"{name} has the right number of rows, but different data"


def same(check: str, expected: object, found: object) -> Check:
    """Check that two values are equal, and show both."""
    return Check(check=check, ok=expected == found, expected=str(expected), found=str(found))


def _legible(data: bytes, container: Container) -> str:
    """Decode data without a code page: headers and trailers are ASCII."""
    codec = {"utf-16le": "utf-16-le", "utf-16be": "utf-16-be"}.get(container, "utf-8")
    return data.decode(codec, "replace").removeprefix("\ufeff").replace("\r\n", "\n")


def _header_check(head: str, *, foreign: bool) -> Check:
    first = (_OTHER_FIRST_LINE if foreign else _FIRST_LINE).search(head)
    return _edge_check("header", HEADER, True if first else None if foreign and _is_uncommented(head) else False)


def _is_uncommented(head: str) -> bool:
    """Tell whether a script that begins so may be a dump without pg_dump's comments."""
    return _UNCOMMENTED.search(head) is not None and not re.search("^--", head, re.MULTILINE)


def _edge_check(check: str, expected: str, ok: bool | None) -> Check:
    """Check the first or last lines. What is there instead is not shown: it may be a row, and a secret."""
    return Check(check=check, ok=ok, expected=expected, found=expected if ok else "something else")
