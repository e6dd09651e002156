"""Recognise by its first bytes what a foreign file is: a script, an archive, or nothing of PostgreSQL's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import StoreError
from ..models.common import Packing
from . import gzip
from .encodings import ARCHIVE, recognise
from .reading import XZ_MAGIC, ZSTD_MAGIC, UnpackingRefused, beginning

Form = Literal["script", "custom", "tar", "directory", "tar of another kind", "mysqldump", "sqlite", "zip", "lz4"]
ARCHIVES: frozenset[Form] = frozenset({"custom", "tar", "directory"})
"""What `pg_restore` turns into a script."""
DESCRIPTIONS: dict[Form, str] = {
    "custom": "an archive in pg_dump's custom format (-Fc), which pg_restore reads",
    "tar": "an archive in pg_dump's tar format (-Ft), which pg_restore reads",
    "directory": "a dump in pg_dump's directory format (-Fd), which pg_restore reads",
    "tar of another kind": "a tar archive, but not one of pg_dump's",
    "mysqldump": "a dump of MySQL or MariaDB, which PostgreSQL does not read",
    "sqlite": "an SQLite database, which PostgreSQL does not read",
    "zip": "a ZIP archive: unpack it, and put the dump inside it here",
    "lz4": "compressed with lz4: unpack it with `lz4 -d`, and put the dump inside it here",
}
"""All forms except a script, which is described in more detail elsewhere."""
_MAGIC: tuple[tuple[bytes, Packing], ...] = ((gzip.MAGIC, "gzip"), (ZSTD_MAGIC, "zstd"), (XZ_MAGIC, "xz"))
# "Database File Format" of SQLite; APPNOTE.TXT of ZIP, also of an empty one; lz4's frame format.
_KNOWN: tuple[tuple[bytes, Form], ...] = (
    (ARCHIVE, "custom"),
    (b"SQLite format 3\0", "sqlite"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x04\x22\x4d\x18", "lz4"),
)
# The first lines of mysqldump, mariadb-dump (with their sandbox mark before them) and phpMyAdmin.
_MYSQL = re.compile(rb"(?:/\*M?!999999.*\n)?-- (?:MySQL dump|MariaDB dump|phpMyAdmin SQL Dump)|/\*!40\d{3} SET ")
# With or without pg_dump's comments; NULs of UTF-16 are removed before.
_BEGINS = re.compile(rb"^(?:-- PostgreSQL database |SET |CREATE )", re.MULTILINE)
_TAR = slice(257, 262)
"""Where a tar header (POSIX, and pg_dump's) has its magic."""


@dataclass(frozen=True)
class FileForm:
    """How a file is packed, and what is in it."""

    packing: Packing
    form: Form


def file_form(path: Path) -> FileForm:
    """Recognise a file's packing and form by its first bytes. Raises StoreError."""
    if path.is_dir():
        return FileForm("none", "directory")
    head = beginning(path, "none")
    packing: Packing = "none"
    for magic, found in _MAGIC:
        packing = found if head.startswith(magic) else packing
    if packing != "none":
        try:
            head = beginning(path, packing)
        except UnpackingRefused:  # whoever reads it gets the error
            return FileForm(packing, "script")
    return FileForm(packing, _form(head))


def is_a_backup(path: Path) -> bool:
    """Tell whether a file with a doubtful name is something that `file_form` recognises, or a PostgreSQL script."""
    try:
        found = file_form(path)
        return found.form != "script" or _BEGINS.search(beginning(path, found.packing).replace(b"\0", b"")) is not None
    except StoreError:
        return False


def _form(head: bytes) -> Form:
    for magic, form in _KNOWN:
        if head.startswith(magic):
            return "script" if form == "custom" and recognise(head) != "plain" else form  # text, as PowerShell made it
    if head[_TAR] == b"ustar":
        # The first member of pg_dump's is its table of contents, which begins like an archive ("pg_backup_tar.c").
        return "tar" if head.startswith(b"toc.dat\0") else "tar of another kind"
    return "mysqldump" if _MYSQL.match(head.lstrip()) else "script"
