"""Read the header of pg_dump's archives (`ReadHead` in pg_backup_archiver.c), and turn archives into scripts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Header:
    """An archive's header. Versions are spelled as in pg_dump, for example "15.20 (Debian 15.20-0+deb12u1)"."""

    database: str
    server_version: str
    pg_dump_version: str


class _Short(Exception):
    pass


def header(head: bytes) -> Header | None:
    """Parse the header of an archive or table of contents that begins with `head`; None if it can't be read, or is from
    before 2010."""
    if len(head) < 11:
        return None
    version, width, at = (head[5], head[6]), head[8], 11
    at += 1 if version >= (1, 15) else 1 + width  # the compression: a byte from PostgreSQL 16 on
    at += 7 * (1 + width)  # the time of the dump
    try:
        database, at = _text(head, at, width)
        server, at = _text(head, at, width)
        program, at = _text(head, at, width)
    except _Short:
        return None
    return Header(database, server, program)


def _text(head: bytes, at: int, width: int) -> tuple[str, int]:
    """Read a length (a byte for its sign, then the lowest byte first) and as many bytes."""
    begins = at + 1 + width
    length = int.from_bytes(head[at + 1 : begins], "little")
    if begins + length > len(head) or head[at : at + 1] != b"\0":
        raise _Short
    return head[begins : begins + length].decode("utf-8", "replace"), begins + length


def pg_restore(form: str, path: str | None = None) -> list[str]:
    """Return the command with which pg_restore turns the archive on its stdin, or at `path`, into a plain dump. `form`
    is pg_restore's name of the format: custom, tar or directory. It connects to no server."""
    return ["pg_restore", f"--format={form}", "--file=-", *([path] if path else [])]
