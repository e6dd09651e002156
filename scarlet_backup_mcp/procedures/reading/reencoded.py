"""Old backups that PowerShell re-encoded: find out what was done, how to undo it, and describe that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from ...errors import CodePageNeeded
from ...models.common import CodePage
from ...models.manifest import Manifest
from ...progress import Progress
from ...store.code_pages import UTF8
from ...store.directory import Entry
from ...store.encodings import DESCRIPTIONS, Container
from ...store.powershell import Repair, Survey, survey
from ...store.reading import CompressionDamaged, FileReader, decompress
from ..catalog.records import BackupRecord


def examine(entry: Entry, progress: Progress) -> Survey:
    """Find out what was done to such a file; in a damaged compressed one, up to the damage."""
    progress.stage(f"finding out what PowerShell did to {entry.name.name}", entry.bytes)

    def readable() -> Iterator[bytes]:
        with suppress(CompressionDamaged):
            yield from decompress(iter(FileReader(entry.path, progress.report)), entry.name.compression)

    return survey(readable())


def fits(found: Survey | None, code_page: CodePage | None) -> bool:
    """Tell whether that page, if any, can be the right one, judging by the text."""
    if found is None or found.damage is not None or code_page in (None, UTF8):
        return True
    return any(code_page in choice.code_pages for choice in found.choices)


def describe(found: Survey, code_page: CodePage | None) -> str:
    """Describe what happened to the file, and how it is undone; `code_page` is the one that the caller named."""
    if code_page is None:
        return found.why
    words = [f"The file is {DESCRIPTIONS[found.container]}. It is read with the code page named, {code_page}."]
    if not fits(found, code_page):
        words.append("That is the wrong one: with it the text is not UTF-8.")
    elif found.repair is not None and code_page not in found.choices[0].code_pages:
        words.append(f"Its text alone points to {found.repair.code_page}.")
    words += [found.damage] if found.damage else []
    return " ".join(words)


def way_back(container: Container, found: Survey, code_page: CodePage | None) -> Repair | None:
    """Return what to read the file through. All choices give the same structure, so any of them will do to check it."""
    if code_page is not None:
        return Repair(container, code_page)
    if found.repair is None and found.choices:
        return Repair(container, found.choices[0].code_pages[0])
    return found.repair


def how_much(found: Survey | None) -> str:
    """Say how much of its text can be recovered; None: that was not checked."""
    if found is None:
        return "Verify it with level full"
    if found.question_marks or found.replacement_characters:
        return "Its text can be recovered, except what was lost before (see the check of its encoding)"
    return "Its text can be recovered in full"


def code_page_needed(record: BackupRecord[Manifest], found: Survey) -> CodePageNeeded:
    """Return the error for a file that can't be read until the caller names its code page."""
    choices = "; ".join(f"code page {choice.code_pages[0]}: {', '.join(choice.samples)}" for choice in found.choices)
    return CodePageNeeded(f"{record.name}: {found.why} {choices}.")
