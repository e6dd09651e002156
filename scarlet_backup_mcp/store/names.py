"""Names of backups: base names inside the backup directory, nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from ..errors import NameRefused
from ..models.common import Compression, Kind, Packing

PARTIAL = ".partial"
MANIFEST = ".manifest.json"
VERIFIED = ".verified.json"
KEEP = ".keep"
"""Marks a backup for retention to keep; the file's content does not matter."""
REMOVED = ".removed"
REPAIRED = "_repaired"
"""End of a repaired copy's name, before the time."""
JOURNAL = "restore.journal.json"
STOPPED = "memory.journal.json"
"""Names the containers that are stopped while a set is made."""
LONGEST = 200
"""Bytes: with a sidecar's suffix, a name then stays under the 255 that file systems allow."""
VOLUME_PREFIX = "postgres_volume"
SUFFIXES: dict[tuple[Kind, Compression], str] = {
    ("sql", "none"): ".sql",
    ("sql", "zstd"): ".sql.zst",
    ("volume", "gzip"): ".tar.gz",
    ("volume", "zstd"): ".tar.zst",
}
_VOLUME = re.compile(rf"{VOLUME_PREFIX}_[A-Za-z0-9_.-]*\.tar\.(gz|zst)")
# What people and other tools call dumps and archives, rightly or not; a file's content tells what it is.
_ENDING = re.compile(
    r"\.(?:sql|psql|pgsql|dump|dmp|pgdump|backup|bak|custom|tar|tgz|sqlite3?|db|zip)(?:\.(?:gz|zst|xz))?\Z",
    re.IGNORECASE,
)
_STORE = re.compile(r"(?!postgres_volume_)[A-Za-z0-9][A-Za-z0-9_.-]*_volume_\d{8}_\d{6}\.tar\.zst")
_SET = re.compile(r"memory_\d{8}_\d{6}\.json")
_STAMP = re.compile(r"_(\d{8}_\d{6})\.")
# Names of devices on Windows, in any directory and with any suffix.
_DEVICE = re.compile(r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[\d¹²³]) *(\..*)?", re.IGNORECASE)
# Control characters, what means a directory, a stream or a pattern on some system, and bytes that are not UTF-8.
_REFUSED = re.compile(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|\ud800-\udfff]')


@dataclass(frozen=True)
class BackupName:
    """A parsed name. `stamp` is the local time in it, None for a foreign name without one. `foreign`: `backup` gives no
    such name; `compression` then follows from the file's content, and is "none" until that was read."""

    name: str
    kind: Kind
    compression: Packing
    stamp: datetime | None
    foreign: bool = False


def new_name(prefix: str, moment: datetime, compression: Compression, kind: Kind = "sql") -> str:
    """Name a new backup as PROC-004 does: `<prefix>_YYYYMMDD_HHMMSS.sql` or `.sql.zst`,
    `postgres_volume_YYYYMMDD_HHMMSS.tar.gz` or `.tar.zst`; `moment` in local time."""
    stem = prefix if kind == "sql" else VOLUME_PREFIX
    return f"{stem}_{moment:%Y%m%d_%H%M%S}{SUFFIXES[kind, compression]}"


def repaired_name(of: BackupName, moment: datetime) -> str:
    """Name a repaired copy `<prefix>_repaired_YYYYMMDD_HHMMSS.sql`, with the time in the original's name, or else
    `moment`, in local time."""
    suffix = ".sql.zst" if of.compression == "zstd" else ".sql"
    stem = of.name.removesuffix(suffix)
    stem = re.sub(r"_\d{8}_\d{6}(?=\.|$)", "", stem, count=1) if of.stamp is not None else stem
    return f"{stem.encode()[:100].decode(errors='ignore')}{REPAIRED}_{of.stamp or moment:%Y%m%d_%H%M%S}{suffix}"


def made_here(name: BackupName, prefix: str | None) -> bool:
    """Tell whether `repaired_name` gives such names, or `new_name` with that prefix (None: with any)."""
    end = end_of(name)
    if name.kind == "volume" or not end:
        return bool(end) and name.name == end
    stem = name.name.removesuffix(end)
    return stem != name.name and (prefix in (None, stem) or stem.endswith(REPAIRED))


def end_of(name: BackupName) -> str:
    """Return what follows the prefix in a name of ours; "" for any other name."""
    found = [of for of in SUFFIXES if of == (name.kind, name.compression)]
    if name.stamp is None or name.foreign or not found:
        return ""
    return new_name("", name.stamp, found[0][1], name.kind)


def unnamed(name: str) -> str:
    """Return the name that a backup's file has while it is being removed; no backup has such a name."""
    return f".{name}{REMOVED}"


def before_unnamed(file_name: str) -> str | None:
    """Return the backup's name that `unnamed` turned into this one; None for any other name."""
    name = file_name.removeprefix(".").removesuffix(REMOVED)
    return name if file_name == unnamed(name) and (parse(name) is not None or is_store(name)) else None


def store_name(service: str, stamp: str) -> str:
    """Name the archive of a store in the set of that moment: `<service>_volume_YYYYMMDD_HHMMSS.tar.zst`."""
    return f"{service}_volume_{stamp}.tar.zst"


def set_name(stamp: str) -> str:
    """Name a set: `memory_YYYYMMDD_HHMMSS.json`."""
    return f"memory_{stamp}.json"


def set_of(store: str) -> str:
    """Return the name of the set that the archive of a store was made for."""
    return set_name(store.removesuffix(".tar.zst")[-len("YYYYMMDD_HHMMSS") :])


def is_store(name: str) -> bool:
    """Tell whether `store_name` gives such names."""
    return _STORE.fullmatch(name) is not None and is_plain(name)


def is_set(name: str) -> bool:
    """Tell whether `set_name` gives such names."""
    return _SET.fullmatch(name) is not None


def parse(name: str) -> BackupName | None:
    """Parse a file's name; None if no backup of PostgreSQL has such a name."""
    if not (_VOLUME.fullmatch(name) or without_ending(name)) or not is_plain(name) or is_store(name):
        return None
    stamp = _stamp(name)
    if _VOLUME.fullmatch(name):
        return BackupName(name, "volume", "zstd" if name.endswith(".zst") else "gzip", stamp)
    for (kind, compression), suffix in SUFFIXES.items():
        if kind == "sql" and name.endswith(suffix):
            return BackupName(name, kind, compression, stamp)
    return BackupName(name, "sql", "none", stamp, foreign=True)


def without_ending(name: str) -> str:
    """Return a backup's name up to what tells its form; "" if there is no such ending, or nothing before it."""
    found = _ENDING.search(name)
    return name[: found.start()] if found else ""


def is_doubtful(name: BackupName) -> bool:
    """Tell whether files that are no backups have such names, too, like Windows' Thumbs.db."""
    return name.foreign and name.name.lower().endswith(".db")


def of_directory(name: str) -> BackupName | None:
    """Parse the name of a directory that holds a dump (`pg_dump -Fd`): any plain name will do."""
    return BackupName(name, "sql", "none", _stamp(name), foreign=True) if is_plain(name) else None


def is_plain(name: str) -> bool:
    """Tell whether it is a base name on every system, and neither hidden nor a device's."""
    if not name or name.startswith((".", "-")) or _REFUSED.search(name) or len(name.encode()) > LONGEST:
        return False
    return name[-1] not in ". " and not _DEVICE.fullmatch(name)


def _stamp(name: str) -> datetime | None:
    found = _STAMP.search(name)
    return moment(found[1]) if found else None


def require(name: str) -> BackupName:
    """Parse a name that a caller gave. Raises NameRefused if no backup has such a name."""
    found = parse(name)
    if found is None:
        raise NameRefused(
            f"{name!r} is not a backup's name: give a file name without a path that ends in .sql, .dump, .backup or "
            f".tar (optionally followed by .gz, .zst or .xz), one like {VOLUME_PREFIX}_….tar.gz, or the name of a "
            "directory that `pg_dump -Fd` made."
        )
    return found


def moment(stamp: str) -> datetime | None:
    """Read a time `YYYYMMDD_HHMMSS`, without a zone; None if there is no such time."""
    try:
        return datetime.fromisoformat(stamp.replace("_", "T"))
    except ValueError:
        return None
