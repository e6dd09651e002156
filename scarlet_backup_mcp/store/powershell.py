"""Undo what PowerShell's `>` or `Out-File` does to a dump.

PowerShell reads a program's output as text in a code page (`[Console]::OutputEncoding`), splits it into lines at CRLF,
LF or a lone CR, and writes each with CRLF in a container of its own (.NET's and PowerShell's sources). A plain dump has
LF and no raw CR in its data, so all of that can be undone once the code page is known. Only a CR inside a function's
body is lost, and the missing end of a last line, which pg_dump does not write.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from ..models.common import CodePage
from .code_pages import UTF8, CodePages, Groups, encode
from .encodings import ARCHIVE, DESCRIPTIONS, HEAD, Container, recognise

LONGEST_GROUP = 4 << 20
"""A file with a longer group of non-ASCII characters is not surveyed: a group is held in memory. In characters."""

_CODECS: dict[Container, str] = {"utf-16le": "utf-16-le", "utf-16be": "utf-16-be"}
_CLIENT_ENCODING = re.compile(r"^SET client_encoding = '(\w+)'", re.MULTILINE)
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_FAULT = re.compile(r"\r(?!\n)|(?<!\r)\n|\0")
_FAULTS = {
    "\r": "a carriage return within a line, which PowerShell does not write",
    "\n": "a line end that is LF alone, where PowerShell and terminals write CRLF",
    "\0": "a NUL character, which no plain dump has",
}
_ENDS_TOO_EARLY = ("truncated data", "unexpected end of data")
"""Python's reasons for half a character at the end."""


class Irreparable(Exception):
    """Something that can't be undone. `line` is 1-based; `cut_off`: only the file's end is missing."""

    def __init__(self, message: str, line: int, *, cut_off: bool = False) -> None:
        super().__init__(message)
        self.message, self.line, self.cut_off = message, line, cut_off


@dataclass(frozen=True)
class Repair:
    """Turn a file of that container and code page back into the dump. Called with the file's bytes it yields the
    dump's, as far as they can be recovered, and raises Irreparable where that ends: only a stream that ended without an
    exception is the whole dump."""

    container: Container
    code_page: CodePage

    def __call__(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the dump's bytes. Raises Irreparable, and what `chunks` raises."""
        head, chunks = _peek(chunks)
        if (container := recognise(head)) != self.container:
            raise Irreparable(f"the file is {DESCRIPTIONS[container]}, not {DESCRIPTIONS[self.container]}", 1)
        if container == "plain":
            if self.code_page != UTF8:
                raise Irreparable("the file's bytes are unchanged: there is no code page to undo", 1)
            yield from chunks
            return
        checked = codecs.getincrementaldecoder("utf-8")() if _encoding_of(head, container) == "utf-8" else None
        line = 1
        for text in _text(chunks, container):
            data = self._undone(text, checked)
            if data is None:  # its lines before that are still the dump's
                for part in _LINE.findall(text):
                    if (data := self._undone(part, checked)) is None:
                        break
                    yield data
                    line += data.count(b"\n")
                raise Irreparable(
                    f"characters that were not read with code page {self.code_page}: it is another one, or the file "
                    "is damaged",
                    line,
                )
            yield data
            line += data.count(b"\n")

    def _undone(self, text: str, checked: codecs.IncrementalDecoder | None) -> bytes | None:
        """Return the bytes that were read as that text; None if it was not that page, or they are not UTF-8."""
        try:
            data = encode(text, self.code_page)
            if checked and self.code_page != UTF8:
                checked.decode(data)
        except UnicodeError:
            return None
        return data


@dataclass(frozen=True)
class Survey:
    """What was found in a file.

    `choices` are the possible pages, as far as the file was read; `repair` is set if the page is certain and can be
    undone. `why` is for people. `damage` is what else is wrong, with its line; if the file is only `cut_off`, the
    repair yields what there is and then raises. `replacement_characters` counts U+FFFD: after page 65001 each may
    stand for lost bytes. `question_marks` counts those that may stand for other characters. `archive`: it was pg_dump's
    binary format, now destroyed.
    """

    container: Container
    choices: tuple[CodePages, ...]
    repair: Repair | None
    why: str
    damage: str | None = None
    cut_off: bool = False
    replacement_characters: int = 0
    question_marks: int = 0
    question_samples: tuple[str, ...] = ()
    archive: bool = False


def survey(chunks: Iterator[bytes]) -> Survey:
    """Find out what was done to a file, in one pass with constant memory. Raises only what `chunks` raises.

    These are certain: ASCII text; a page with `EVIDENCE` that fits all groups, if all such pages give the same text;
    and 65001, that is unchanged text, if it has no U+FFFD, no other page fits all groups, none fits most, and groups
    that no page makes outnumber those with control characters.
    """
    head, chunks = _peek(chunks)
    container = recognise(head)
    described = f"The file is {DESCRIPTIONS[container]}."
    if container == "plain":
        return Survey(container, (CodePages((UTF8,), ()),), Repair(container, UTF8), described)
    if _decoded(head, container).startswith(ARCHIVE.decode()):
        lost = "It was an archive (pg_dump -Fc): its bytes were taken for text and can't be recovered."
        return Survey(container, (), None, f"{described} {lost}", damage=lost, archive=True)
    groups = Groups(_encoding_of(head, container))
    damage: Irreparable | None = None
    try:
        for text in _with_whole_groups(_text(chunks, container)):
            groups.take(text)
    except Irreparable as error:
        damage = error
    choices, certain, why = groups.verdict()
    damaged = f"Line {damage.line}: {damage.message}." if damage else None
    return Survey(
        container,
        choices,
        Repair(container, certain) if certain and (damage is None or damage.cut_off) else None,
        " ".join([described, *why, *filter(None, [damaged])]),
        damage=damaged,
        cut_off=damage is not None and damage.cut_off,
        replacement_characters=groups.replacement_characters,
        question_marks=groups.suspicious_marks,
        question_samples=tuple(groups.question_samples) if groups.suspicious_marks else (),
    )


# -- text ------------------------------------------------------------------------------------------------------------


def _peek(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Return the file's beginning, and all of its chunks."""
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= HEAD:
            break
    return head[:HEAD], chain([head], chunks)


def _decoded(head: bytes, container: Container) -> str:
    return head.decode(_CODECS.get(container, "utf-8"), "ignore").removeprefix("\ufeff")


def _encoding_of(head: bytes, container: Container) -> str:
    """Return Python's name of the encoding in the dump's preamble; UTF-8 if there is none."""
    found = _CLIENT_ENCODING.search(_decoded(head, container))
    if found is None or found[1] == "UTF8":
        return "utf-8"
    try:
        return codecs.lookup(found[1].replace("WIN", "cp")).name if found[1].startswith(("LATIN", "WIN")) else "latin-1"
    except LookupError:
        return "latin-1"


def _decode(chunks: Iterator[bytes], container: Container) -> Iterator[str]:
    """Yield the container's text as it is. Raises UnicodeDecodeError, after the text before it.

    In a file without a byte order mark, which a terminal wrote, bytes that are not UTF-8 become lone surrogates."""
    codec = _CODECS.get(container, "utf-8")
    decoder = codecs.getincrementaldecoder(codec)("surrogateescape" if container == "crlf" else "strict")
    try:
        for chunk in chunks:
            yield decoder.decode(chunk)
        decoder.errors = "strict"  # half a character at the end is a cut
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        yield error.object[: error.start].decode(codec)
        raise


def _text(chunks: Iterator[bytes], container: Container) -> Iterator[str]:
    """Yield the container's text with LF and without its mark. Raises Irreparable, after the text before it."""
    line, held, last = 1, "", ""
    begun = False
    try:
        for decoded in _decode(chunks, container):
            text = held + (decoded if begun else decoded.removeprefix("\ufeff"))
            begun = begun or decoded != ""
            held = "\r" if text.endswith("\r") else ""
            text = text.removesuffix(held)
            ends = text.count("\r\n")
            if text.count("\n") != ends or text.count("\r") != ends or "\0" in text:
                fault = _FAULT.search(text)
                assert fault is not None, "a line end that is none of CRLF, or a NUL"
                yield text[: fault.start()].replace("\r\n", "\n")
                raise Irreparable(
                    f"{_FAULTS[fault[0]]}: the file is damaged, or was changed later",
                    line + text.count("\n", 0, fault.start()),
                )
            line += ends
            last = text[-1:] or last
            yield text.replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        if error.reason in _ENDS_TOO_EARLY:
            raise Irreparable("the file ends within a character: its end is missing", line, cut_off=True) from None
        raise Irreparable("bytes that are not text: the file is damaged, or was changed later", line) from None
    if held or last != "\n":
        raise Irreparable("the last line has no end: the file's end is missing", line, cut_off=True)


def _with_whole_groups(texts: Iterator[str]) -> Iterator[str]:
    """Yield the text in pieces that don't end within a group; without the last group if the file ends in it."""
    held, line = "", 1
    for text in texts:
        line += text.count("\n")
        end = len(text)
        while end and text[end - 1] > "\x7f":
            end -= 1
        if end:
            yield held + text[:end]
            held = text[end:]
        else:
            held += text
        if len(held) > LONGEST_GROUP:
            raise Irreparable(f"over {LONGEST_GROUP:,} characters without an ASCII one: name the code page", line)
