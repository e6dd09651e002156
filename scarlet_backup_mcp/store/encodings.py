"""How a text file was written: recognised by its first bytes.

Windows PowerShell 5.1's `>` writes UTF-16LE with a byte order mark, its `Out-File -Encoding utf8` UTF-8 with one, and
both, like PowerShell 6 to 7.3, end lines with CRLF (.NET's and PowerShell's own sources; seen with such files).
"""

from __future__ import annotations

from typing import Literal

Container = Literal["plain", "utf-16le", "utf-16be", "utf-8-bom", "crlf"]
HEAD = 4096
DESCRIPTIONS: dict[Container, str] = {
    "plain": "plain bytes",
    "utf-16le": "UTF-16 with a byte order mark, as Windows PowerShell 5.1's `>` writes",
    "utf-16be": "UTF-16 (big-endian) with a byte order mark",
    "utf-8-bom": "UTF-8 with a byte order mark, as Windows PowerShell 5.1's `Out-File -Encoding utf8` writes",
    "crlf": "text with lines that end in CRLF, as PowerShell 6 to 7.3 or a terminal writes it",
}


def recognise(head: bytes) -> Container:
    """The container of a file that begins with `head`, some 4 KiB of it."""
    if head.startswith(b"\xff\xfe"):
        return "utf-16le"
    if head.startswith(b"\xfe\xff"):
        return "utf-16be"
    if head.startswith(b"\xef\xbb\xbf"):
        return "utf-8-bom"
    first, newline, _ = head.partition(b"\n")
    return "crlf" if newline and first.endswith(b"\r") else "plain"
