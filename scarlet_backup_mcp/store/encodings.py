"""Recognise by its first bytes how a text file was written.

Windows PowerShell 5.1's `>` writes UTF-16LE with a byte order mark, its `Out-File -Encoding utf8` UTF-8 with one, and
both, like PowerShell 6 to 7.3, end lines with CRLF (.NET's and PowerShell's own sources; seen with such files).
"""

from __future__ import annotations

import codecs
from typing import Literal

Container = Literal["plain", "utf-16le", "utf-16be", "utf-8-bom", "crlf"]
HEAD = 4096
DESCRIPTIONS: dict[Container, str] = {
    "plain": "plain bytes",
    "utf-16le": "UTF-16, as Windows PowerShell 5.1's `>` writes",
    "utf-16be": "UTF-16 (big-endian), as `Out-File -Encoding BigEndianUnicode` writes",
    "utf-8-bom": "UTF-8 with a byte order mark, as Windows PowerShell 5.1's `Out-File -Encoding utf8` writes",
    "crlf": "text with lines that end in CRLF, as PowerShell 6 to 7.3 or a terminal writes it",
}
ARCHIVE = b"PGDMP"
"""What pg_dump's custom format begins with (pg_backup_archiver.c)."""

_FIRST_CHARACTERS = 4


def recognise(head: bytes) -> Container:
    """Return the container of a file that begins with `head`, some 4 KiB of it.

    A file with a byte order mark and LF line ends is plain: an editor wrote it, and only the mark has to be undone.
    UTF-16 without a byte order mark is recognised by the NULs in its first characters: a dump begins with ASCII.
    """
    if head.startswith(b"\xff\xfe"):
        return "utf-16le"
    if head.startswith(b"\xfe\xff"):
        return "utf-16be"
    first, second = head[: 2 * _FIRST_CHARACTERS : 2], head[1 : 2 * _FIRST_CHARACTERS : 2]
    if len(second) == _FIRST_CHARACTERS and all(first) and not any(second):
        return "utf-16le"
    if len(second) == _FIRST_CHARACTERS and all(second) and not any(first):
        return "utf-16be"
    line, newline, _ = head.partition(b"\n")
    if head.startswith(codecs.BOM_UTF8) and not (newline and not line.endswith(b"\r")):
        return "utf-8-bom"
    if not newline or not line.endswith(b"\r") or (head.startswith(ARCHIVE) and not _is_utf8(head)):
        return "plain"
    return "crlf"


def _is_utf8(head: bytes) -> bool:
    """Tell whether bytes, which may end within a character, are UTF-8; those of a binary archive are not."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True
