"""Find out which code page PowerShell read a dump's bytes with.

In each of these pages the bytes below 0x80 are ASCII and the others are not, and .NET reads all 256 bytes as 256
different characters (its sources). So a group of non-ASCII characters in the file is a group of non-ASCII bytes of the
dump, and only the right page, or a rare accident, turns it back into UTF-8.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import get_args

from ..models.common import CodePage

UTF8: CodePage = 65001
PAGES: tuple[CodePage, ...] = get_args(CodePage)
MAC_ROMAN = 10000
_CODECS = {MAC_ROMAN: "mac_roman", **{28590 + part: f"iso8859_{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 15)}}
"""Python's codecs for pages that it does not know by number. .NET lacks the other parts of ISO 8859."""
OTHER_PAGES = (
    *_CODECS,
    *(720, 737, 775, 855, 857, 860, 861, 862, 863, 864, 865, 866, 869, 874, 932, 936, 949, 950),
    *(1251, 1253, 1254, 1255, 1256, 1257, 1258),
)
"""Pages that can't be undone here; recognised only so that text read with one of them is not taken for correct."""
EVIDENCE = 8
"""How many continuation bytes, in different groups of characters, make a page certain.

In text that was not read with that page, each such byte and the one before it fit UTF-8 about every second time each,
so all of them fit by accident about once in 2^16 (our estimate)."""
ENOUGH = 10_000
"""After this many different groups, more of them say nothing new about a text that needs no page undone; also how many
are remembered."""
HARDLY_ANY = 100
"""Question marks are checked in texts with at most this many non-ASCII characters: one with more did not lose them."""
SAMPLES = 3
SAMPLE_LENGTH = 60
LONGEST_SAMPLED = 1000
"""Longer groups give no samples. In characters."""

_GROUP = re.compile(r"[^\x00-\x7f]+")
_WHOLE_GROUP = r"(?<![^\x00-\x7f])[^\x00-\x7f]{1,12}(?![^\x00-\x7f])"
_BEFORE_GROUP = rf"(?:{_WHOLE_GROUP})?[A-Za-z]{{0,20}}(?<![^\x00-\x7f])"
_AFTER_GROUP = rf"(?![^\x00-\x7f])[A-Za-z]{{0,20}}(?:{_WHOLE_GROUP})?"
_REACH = 12 + 20 + 1
"""How many characters these two expressions can span."""
_CONTROL_AFTER_LETTER = re.compile(r"[^\x00-\x9f][\x80-\x9f]")
"""How È, ’ or an emoji begins when read with an ISO 8859 page: all of these have the C1 controls at 0x80 to 0x9F."""
_OF_NO_PAGE = re.compile(r"[^\x00-\x7f]|.*[^\x00-\u2fff].*", re.DOTALL)
"""A group that no single-byte page makes of UTF-8: a single character, or one that these pages lack (except for Mac's
logo and ligatures)."""
_MARK_AND_LETTER = re.compile(r"[«»…\xa0–—“”‘’].")
"""Neighbours in correct text ("c’è", "«è") whose bytes in Mac Roman happen to be UTF-8."""
# One within a word or before the next, or two at a word's end: an accented letter is two bytes.
_QUESTION_MARKS = re.compile(r"\?(?<=[A-Za-z]\?)(?:\?{0,5}(?=[A-Za-z]| [a-z])|\?(?=[\s,;:.)\\]))")
_WORD_BEFORE = re.compile(r"(\S*?)(?:\\[a-z])?([A-Za-z]*)\Z")
_WORD_AFTER = re.compile(r"[A-Za-z]*")


@dataclass(frozen=True)
class CodePages:
    """Pages that give the same text, with sample words; if there are several choices, words in which these differ."""

    code_pages: tuple[CodePage, ...]
    samples: tuple[str, ...]


def encode(text: str, page: int) -> bytes:
    """Return the bytes that .NET reads as that text. Raises UnicodeEncodeError if the page lacks a character."""
    if page == UTF8 or text.isascii():
        return text.encode("utf-8", "surrogateescape")
    if page in OTHER_PAGES:
        return text.encode(_CODECS.get(page, f"cp{page}"))
    return codecs.charmap_encode(text, "strict", _encoding_map(page))[0]


@cache
def _encoding_map(page: int):
    return codecs.charmap_build("".join(_character(bytes([byte]), page) for byte in range(256)))


def _character(byte: bytes, page: int) -> str:
    """Decode one byte as .NET does: with the C1 control where Python's codec has a hole."""
    try:
        return byte.decode(f"cp{page}")
    except UnicodeDecodeError:
        return chr(byte[0])


def _word_of(group: str, text: str) -> str:
    """Return a group's first occurrence with the letters around it."""
    at = text.find(group)
    word = re.compile(_BEFORE_GROUP + re.escape(group) + _AFTER_GROUP)
    found = word.search(text, max(0, at - _REACH), at + len(group) + _REACH)
    return found[0] if found else group


class Groups:
    """The evidence for each page in a text's groups of non-ASCII characters."""

    def __init__(self, encoding: str) -> None:
        self.replacement_characters = 0
        self.question_samples: list[str] = []
        self._question_marks = self._not_ascii = 0
        self._not_utf8 = False
        self._encoding = encoding
        self._seen: set[str] = set()
        self._judged = self._controls = self._right = 0
        self._fitting: Counter[int] = Counter()
        self._continuation_bytes: Counter[int] = Counter()
        # By how the pages differ on a group (for each the first page that gives the same bytes; None: it does not fit).
        self._words: dict[tuple[int | None, ...], list[str]] = {}

    def take(self, text: str) -> None:
        """Learn from a piece of the text that holds whole groups."""
        if "?" in text and self._not_ascii <= HARDLY_ANY:
            self._look_for_replaced(text)
        if text.isascii():
            return
        self.replacement_characters += text.count("\ufffd")
        if self._not_ascii <= HARDLY_ANY:
            self._not_ascii += len(text) - len(text.encode("ascii", "ignore"))
        if self._settled(text):
            return
        groups = [group for group in dict.fromkeys(_GROUP.findall(text)) if group not in self._seen]
        for group in groups:
            self._judge(group, text)
        if len(self._seen) > ENOUGH:
            self._seen.clear()
        self._seen.update(group for group in groups if len(group) <= SAMPLE_LENGTH)

    @property
    def suspicious_marks(self) -> int:
        """Number of question marks that may stand for other characters."""
        return self._question_marks if self._not_ascii <= min(HARDLY_ANY, self._question_marks) else 0

    def verdict(self) -> tuple[tuple[CodePages, ...], CodePage | None, list[str]]:
        """Return the choices, the page if it is certain, and why, in sentences."""
        ways: dict[tuple[int | None, ...], list[CodePage]] = {}
        for index, page in enumerate(PAGES):
            ways.setdefault(tuple(parting[index] for parting in self._words), []).append(page)
        fitting = [tuple(pages) for way, pages in ways.items() if None not in way]
        if any(self._continuation_bytes[pages[0]] >= EVIDENCE for pages in fitting):
            fitting = [pages for pages in fitting if UTF8 not in pages]
        choices = tuple(CodePages(pages, self._samples(pages, fitting)) for pages in fitting)
        certain, why = self._certain(fitting)
        if self.suspicious_marks:
            words = ", ".join(self.question_samples)
            why.append(f"{self._question_marks} question marks may stand for lost characters: {words}.")
        return choices, certain, why

    def _certain(self, fitting: list[tuple[CodePage, ...]]) -> tuple[CodePage | None, list[str]]:
        if not self._words:
            return UTF8, ["Its text is ASCII, which is the same in every code page."]
        if len(fitting) > 1:
            pages = ", ".join(" or ".join(map(str, pages)) for pages in fitting)
            return None, [f"Its text may have been read with code page {pages}, each with another result."]
        if UTF8 not in fitting[0]:
            same = f" (or, with the same result, {', '.join(map(str, fitting[0][1:]))})" if fitting[0][1:] else ""
            return fitting[0][0], [
                f"Its text was read with code page {fitting[0][0]}{same}: that turns every group of non-ASCII "
                f"characters back into UTF-8. (If the database itself held such text, it is {UTF8}.)"
            ]
        if self.replacement_characters:
            return None, [
                f"It holds {self.replacement_characters} replacement characters (U+FFFD). Either they were in the "
                f"database, or they stand for lost bytes: name code page {UTF8} to take them as they are."
            ]
        for page, fits in self._fitting.most_common(1):
            if fits * 2 > self._judged:
                cause = "the file is damaged" if page in PAGES else "that can't be undone here"
                return None, [
                    f"{fits} of its {self._judged} groups of non-ASCII characters look like UTF-8 that was read with "
                    f"code page {page}. Either {cause}, or the database held such text: name code page {UTF8} to take "
                    "it as it is."
                ]
        if self._controls > self._right:
            return None, [
                f"{self._controls} of its {self._judged} groups of non-ASCII characters contain control characters, "
                "like UTF-8 that was read with an ISO 8859 code page. Either that can't be undone here, or the "
                f"database held such text: name code page {UTF8} to take it as it is."
            ]
        kept = " Bytes that are not UTF-8 are kept as they are." if self._not_utf8 else ""
        return UTF8, [f"Its text is unchanged: there is no code page to undo.{kept}"]

    # the evidence

    def _settled(self, text: str) -> bool:
        """Tell whether a piece of text can add nothing new."""
        standing = [page for index, page in enumerate(PAGES[:-1]) if all(parting[index] for parting in self._words)]
        if not standing:
            return self._judged >= ENOUGH
        if any(self._continuation_bytes[page] < EVIDENCE for page in standing):
            return False
        readings = {self._read(text, page) for page in standing}
        return len(readings) == 1 and None not in readings

    def _judge(self, group: str, text: str) -> None:
        """Learn from one group of `text`."""
        self._judged += 1
        self._not_utf8 = self._not_utf8 or any("\ud800" <= character <= "\udfff" for character in group)
        readings = {page: self._read(group, page) for page in (*PAGES, *OTHER_PAGES)}
        for page, data in readings.items():
            if data is not None and page != UTF8:
                self._fitting[page] += 1
                if self._encoding == "utf-8":
                    self._continuation_bytes[page] += len(data) - len(data.decode())
        if _CONTROL_AFTER_LETTER.search(group):
            self._controls += 1
        elif _OF_NO_PAGE.fullmatch(group):
            self._right += 1
        firsts: dict[bytes, int] = {}
        parting = tuple(None if (data := readings[page]) is None else firsts.setdefault(data, page) for page in PAGES)
        words = self._words.setdefault(parting, [])
        if len(words) < SAMPLES and len(group) <= LONGEST_SAMPLED:
            words.append(_word_of(group, text))

    def _read(self, text: str, page: int) -> bytes | None:
        """Return the dump's bytes if it was that page; None if it was not."""
        if page == MAC_ROMAN and _MARK_AND_LETTER.fullmatch(text):
            return None
        try:
            data = encode(text, page)
            if self._encoding == "utf-8" and page != UTF8:
                data.decode()
        except UnicodeError:
            return None
        return data

    def _look_for_replaced(self, text: str) -> None:
        for marks in _QUESTION_MARKS.finditer(text):
            start, end = marks.span()
            before = _WORD_BEFORE.search(text, max(0, start - SAMPLE_LENGTH // 2), start)
            after = _WORD_AFTER.match(text, end, end + SAMPLE_LENGTH // 2)
            if before is None or after is None or any(character in "/=&%@:" for character in before[1]):
                continue
            self._question_marks += 1
            word = before[2] + marks[0] + after[0]
            if len(self.question_samples) < SAMPLES and word not in self.question_samples:
                self.question_samples.append(word)

    def _samples(self, pages: tuple[CodePage, ...], fitting: list[tuple[CodePage, ...]]) -> tuple[str, ...]:
        """Return sample words as `pages` give them, first those on which most of the fitting pages differ."""
        indexes = [PAGES.index(other[0]) for other in fitting]
        telling = sorted(self._words, key=lambda parting: len({parting[index] for index in indexes}), reverse=True)
        words = [word for parting in telling for word in self._words[parting]]
        samples = dict.fromkeys(self._shown(encode(word, pages[0])) for word in words)
        return tuple(samples)[:SAMPLES]

    def _shown(self, data: bytes) -> str:
        """Decode a sample, with a dot for every character that could affect a terminal."""
        text = data.decode(self._encoding, "replace")[:SAMPLE_LENGTH]
        return "".join(character if character.isprintable() else "·" for character in text)
