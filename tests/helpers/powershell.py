"""What PowerShell makes of a program's output, written from the description of it and not from the repair."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence

from scarlet_backup_mcp.models.common import CodePage
from scarlet_backup_mcp.store.encodings import Container

C1_FOR_HOLES: dict[int, bytes] = {
    1250: bytes([0x81, 0x83, 0x88, 0x90, 0x98]),
    1252: bytes([0x81, 0x8D, 0x8F, 0x90, 0x9D]),
}
"""Bytes that mean nothing in a page: .NET reads them as the control characters of the same number."""
MARKS: dict[Container, bytes] = {"utf-16le": b"\xff\xfe", "utf-16be": b"\xfe\xff", "utf-8-bom": b"\xef\xbb\xbf"}
CODECS: dict[Container, str] = {"utf-16le": "utf-16-le", "utf-16be": "utf-16-be"}


def as_read_by_dotnet(output: bytes, page: CodePage) -> str:
    """A program's output as the console's encoding gives it."""
    if page == 65001:
        return output.decode("utf-8", "replace")
    holes = C1_FOR_HOLES.get(page, b"")
    characters = (chr(byte) if byte in holes else bytes([byte]).decode(f"cp{page}") for byte in range(256))
    return codecs.charmap_decode(output, "strict", dict(enumerate(map(ord, characters))))[0]


def mangle(output: bytes, page: CodePage, container: Container, *, mark: bool = True) -> bytes:
    """The file that `program > file` gives: cut into lines at CRLF, LF or CR, each written with CRLF."""
    lines = re.split("\r\n|\n|\r", as_read_by_dotnet(output, page))
    if lines[-1] == "":
        lines.pop()
    text = "".join(line + "\r\n" for line in lines)
    return (MARKS.get(container, b"") if mark else b"") + text.encode(CODECS.get(container, "utf-8"))


def through_terminal(output: bytes) -> bytes:
    """The file that `docker exec -t … > file` gives where nothing decodes it: the terminal ends lines with CRLF."""
    return output.replace(b"\n", b"\r\n")


def cut(data: bytes, borders: Sequence[int]) -> Iterator[bytes]:
    """The same bytes in chunks that end at those places, empty ones among them."""
    begin = 0
    for border in sorted(border % (len(data) + 1) for border in borders):
        yield data[begin:border]
        begin = border
    yield data[begin:]
