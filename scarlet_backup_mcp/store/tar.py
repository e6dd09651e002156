"""Read a tar archive as a stream. Nothing is skipped: every header is checked, and the end must be there.

`tarfile` parses the header blocks. Its own stream reader ends at a damaged header as if the archive ended there (seen
with Python 3.11), so the order of blocks is checked here.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from typing import Literal

BLOCK = tarfile.BLOCKSIZE
LONGEST_EXTENSION = 64 << 10
"""Longest name or pax records to accept, in bytes."""
LONGEST_NUMBER = 20
"""Most digits to accept in a length or size in pax records: 2⁶⁴ has as many."""
_SPARSE = b"GNU.sparse."
_FOR_ALL = (b"path", b"linkpath", b"size")
"""Global pax records about members that GNU tar obeys."""
_LINKS = (tarfile.SYMTYPE, tarfile.LNKTYPE)
_EXTENSIONS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)


class TarDamaged(Exception):
    """The bytes are not a whole tar archive. `offset` is where that shows, in bytes of the archive."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.message, self.offset = message, offset


@dataclass(frozen=True)
class Member:
    """One member. `name` is normalised: no `./`, `//` or trailing slash, and empty for the directory itself. `size` is
    that of a file's data, in bytes."""

    name: str
    kind: Literal["file", "directory", "link"]
    size: int


class MemberHandler:
    """Callbacks for each member, in the archive's order. Override what you need."""

    def member(self, member: Member) -> None:
        """Begin a member."""

    def data(self, data: memoryview) -> None:
        """Take some of a file's data, which is only valid until this returns."""

    def end(self) -> None:
        """End a file, whose data are complete. Not called for directories and links."""


class TarReader:
    """Read an archive fed in pieces of any size. Raises TarDamaged at the first fault; members reported before it are
    as they are in the archive."""

    def __init__(self, handler: MemberHandler) -> None:
        self.bytes = 0
        self._handler = handler
        self._header = bytearray()
        self._left = self._padding = self._zeros = 0
        self._extension: bytearray | None = None
        self._extended = tarfile.TarInfo()
        self._long_name: str | None = None
        self._long_size: int | None = None

    def feed(self, chunk: bytes) -> None:
        """Read the next bytes."""
        view = memoryview(chunk)
        while view:
            if self._left:
                taken = self._take_data(view[: self._left])
            elif self._padding:
                taken = min(self._padding, len(view))
                self._padding -= taken
            else:
                taken = min(BLOCK - len(self._header), len(view))
                self._header += view[:taken]
            view = view[taken:]
            self.bytes += taken
            if len(self._header) == BLOCK:
                self._take_header(bytes(self._header))
                self._header.clear()

    def finish(self) -> None:
        """End the archive. Raises TarDamaged unless it is complete."""
        if self._left or self._padding or self._header:
            raise self._damaged("it ends within a member")
        if self._zeros < 2:
            raise self._damaged("its end is missing")

    def _take_data(self, data: memoryview) -> int:
        self._left -= len(data)
        if self._extension is not None:
            self._extension += data
            if not self._left:
                self._take_extension(bytes(self._extension))
                self._extension = None
        else:
            self._handler.data(data)
            if not self._left:
                self._handler.end()
        return len(data)

    def _take_header(self, block: bytes) -> None:
        if not any(block):
            self._zeros += 1
            return
        if self._zeros:
            raise self._damaged("something follows its end")
        try:
            found = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise self._damaged(f"not a member's header ({error})") from None
        if found.type in _EXTENSIONS:
            if not 0 < found.size <= LONGEST_EXTENSION:
                raise self._damaged(f"a name or an extension of {found.size} bytes")
            self._extension, self._extended = bytearray(), found
            self._expect(found.size)
            return
        self._take_member(found)

    def _take_member(self, found: tarfile.TarInfo) -> None:
        name = found.name if self._long_name is None else self._long_name
        size = found.size if self._long_size is None else self._long_size
        self._long_name = self._long_size = None
        parts = name.split("/")
        if name.startswith("/") or ".." in parts:
            raise self._damaged(f"the member {name!r} would be unpacked outside of the directory")
        name = "/".join(part for part in parts if part not in ("", "."))
        if found.isdir():
            self._handler.member(Member(name, "directory", 0))
        elif found.type in _LINKS:
            self._handler.member(Member(name, "link", 0))
        elif found.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE):
            if size < 0:
                raise self._damaged(f"{name} has a size of {size} bytes")
            self._handler.member(Member(name, "file", size))
            self._expect(size)
            if not size:
                self._handler.end()
        else:
            raise self._damaged(f"{name} is neither a file nor a directory (type {found.type!r})")

    def _take_extension(self, data: bytes) -> None:
        """Take GNU's long names and the pax records `path` and `size` ("pax Header Block" in POSIX). Refuse global
        records that would apply to every member after them."""
        if self._extended.type == tarfile.GNUTYPE_LONGNAME:
            self._long_name = _text(data.rstrip(b"\0"))
        elif self._extended.type in (tarfile.XHDTYPE, tarfile.XGLTYPE):
            records = _pax_records(data)
            if records is None:
                raise self._damaged("pax records that can't be read")
            if self._extended.type == tarfile.XGLTYPE:
                for keyword in records:
                    if keyword in _FOR_ALL or keyword.startswith(_SPARSE):
                        raise self._damaged(f"a global header that sets {_text(keyword)!r} for all that follows")
                return
            if any(keyword.startswith(_SPARSE) for keyword in records):
                raise self._damaged("a sparse file, which is not supported: the archive holds only parts of it")
            self._long_name = _text(records[b"path"]) if b"path" in records else None
            size = records.get(b"size", b"")
            if len(size) > LONGEST_NUMBER:
                raise self._damaged(f"a size of {len(size)} digits")
            self._long_size = int(size) if size.isdigit() else None

    def _expect(self, size: int) -> None:
        self._left, self._padding = size, -size % BLOCK

    def _damaged(self, message: str) -> TarDamaged:
        return TarDamaged(message, self.bytes)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _pax_records(data: bytes) -> dict[bytes, bytes] | None:
    """Parse records `<length> <keyword>=<value>\\n`; None if they can't be parsed."""
    found: dict[bytes, bytes] = {}
    while data:
        length, _, _ = data.partition(b" ")
        end = int(length) if length.isdigit() and len(length) <= LONGEST_NUMBER else 0
        keyword, equals, value = data[len(length) + 1 : end].partition(b"=")
        if not equals or not value.endswith(b"\n") or end > len(data):
            return None
        found[keyword] = value[:-1]
        data = data[end:]
    return found
