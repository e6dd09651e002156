"""Old backups that PowerShell has re-encoded: what was done to one, which way back there is, and how that is told."""

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


def look(entry: Entry, progress: Progress) -> Survey:
    """Find out what was done to such a file. Of a compressed one that is damaged, what comes before that."""
    progress.stage(f"finding out what PowerShell did to {entry.name.name}", entry.bytes)

    def there_is() -> Iterator[bytes]:
        with suppress(CompressionDamaged):
            yield from decompress(iter(FileReader(entry.path, progress.report)), entry.name.compression)

    return survey(there_is())


def fits(looked: Survey | None, code_page: CodePage | None) -> bool:
    """Whether that page, if it is one, can be the right one, as far as the text tells."""
    if looked is None or looked.damage is not None or code_page in (None, UTF8):
        return True
    return any(code_page in choice.code_pages for choice in looked.choices)


def told(looked: Survey, code_page: CodePage | None) -> str:
    """What had happened to the file, and how it is undone; `code_page` is the one that the caller has named."""
    if code_page is None:
        return looked.why
    words = [f"The file is {DESCRIPTIONS[looked.container]}. It is read with code page {code_page}, which was named."]
    if not fits(looked, code_page):
        words.append("It is another one: with that one its text is no UTF-8.")
    elif looked.repair is not None and code_page not in looked.choices[0].code_pages:
        words.append(f"Its text alone would tell {looked.repair.code_page}.")
    words += [looked.damage] if looked.damage else []
    return " ".join(words)


def way_back(container: Container, looked: Survey, code_page: CodePage | None) -> Repair | None:
    """What to read the file through. Between choices the structure is the same, so any of them will do for a look."""
    if code_page is not None:
        return Repair(container, code_page)
    if looked.repair is None and looked.choices:
        return Repair(container, looked.choices[0].code_pages[0])
    return looked.repair


def how_much(looked: Survey | None) -> str:
    """How much of its text can be had back, in words; None: that was not looked at."""
    if looked is None:
        return "Call `verify_backup` with level full"
    if looked.question_marks or looked.replacement_characters:
        return "All that is in it can be had back, but not what was lost before (see the check of its encoding)"
    return "Its text can be had back in full"


def code_page_needed(record: BackupRecord[Manifest], looked: Survey) -> CodePageNeeded:
    """The error where a file can't be read before the caller has named its code page."""
    choices = "; ".join(f"code_page={choice.code_pages[0]}: {', '.join(choice.samples)}" for choice in looked.choices)
    return CodePageNeeded(f"{record.name}: {looked.why} {choices}.")
