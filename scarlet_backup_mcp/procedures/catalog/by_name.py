"""Find the backup that a caller named, exactly or as people write names.

A name without its ending, or in other case, means the one backup that has it. Nothing else is taken for a name: the
error then lists the nearest ones.
"""

from __future__ import annotations

import os

from ...errors import BackupMissing, NameRefused, NextCall
from ...nearest import nearest
from ...store import names
from ...store.directory import Entry
from .. import own_names
from ..context import BackupContext
from . import records

LATEST = "latest"


def find(context: BackupContext, name: str) -> Entry:
    """Return the backup of that name, or the one that `latest` means. Raises NameRefused or BackupMissing."""
    found = full_name(context, name)
    return context.directory.find(records.latest(context) if found == LATEST else found)


def full_name(context: BackupContext, name: str) -> str:
    """Return the whole name of the backup that is meant; `latest` and an undo point's name stay as they are. Raises
    NameRefused or BackupMissing."""
    if names.is_set(name) or names.is_store(name):
        raise NameRefused(
            f"{name} is {'a set' if names.is_set(name) else 'part of a set'}, which nothing restores as a whole.",
            "Restore its SQL backup by name, and unpack its archives by hand (docs/memory.md).",
            NextCall(tool="list_backups"),
        )
    if name == LATEST or _is_undo_point(context, name) or not names.is_plain(name) or _is_there(context, name):
        return name
    there = [entry.name for entry in context.directory.entries()]
    sought, ends = name.casefold(), names.without_ending(name) != ""
    meant = [
        of.name
        for of in there
        if of.name.casefold() == sought or (not ends and names.without_ending(of.name).casefold() == sought)
    ]
    if len(meant) == 1:
        return meant[0]
    if sought == LATEST:
        return LATEST
    if not there:
        raise BackupMissing(f"There is no backup {name} in {context.directory.path}, and no other.")
    near = nearest(name, [of.name for of in there])
    raise BackupMissing(
        f"There is no backup {name} in {context.directory.path}. The nearest: {near}.",
        "Choose one by its whole name; the list also shows the undo points.",
        NextCall(tool="list_backups"),
    )


def _is_undo_point(context: BackupContext, name: str) -> bool:
    if names.without_ending(name):  # then it is none, and the server need not be asked which database is meant
        return False
    prefixes = (own_names.undo_prefix(context.database), own_names.VOLUME_UNDO)
    return any(own_names.stamped(prefix, name) is not None for prefix in prefixes)


def _is_there(context: BackupContext, name: str) -> bool:
    """Tell whether anything is there under exactly this name, which file systems that ignore case do not tell."""
    try:
        return name in os.listdir(context.directory.path)
    except OSError:  # whoever reads the directory gets the error
        return False
