"""A backup followed by retention, as a schedule runs it."""

from __future__ import annotations

import logging
from typing import Any

from ..errors import BackupToolError
from ..models.audit import Client
from ..models.results import Backup, Prune
from ..progress import Progress
from ..store.audit import SCHEDULE
from ..store.lock import patiently
from .audit import calls
from .backup.service import backup
from .call_notes import CallNotes
from .context import BackupContext
from .prune import prune

PATIENCE_SECONDS = 1800.0
"""How long a scheduled run waits for another call before each of its parts: two jobs may be caught up at once."""
log = logging.getLogger(__name__)


def backup_and_prune(
    context: BackupContext, progress: Progress, client: Client, notes: CallNotes, *, then_prune: bool, **arguments: Any
) -> Backup:
    """Take a backup with these arguments of `backup`, then if asked remove what retention no longer keeps.

    The backup is there whatever comes of the pruning, which has a line of its own in the audit log; what went wrong
    with it is in `not_pruned`. A scheduled run waits for other calls. Raises what `backup` raises.
    """
    patience = PATIENCE_SECONDS if client.name == SCHEDULE else 0
    made = backup(context, progress, **arguments, patience_seconds=patience, notes=notes)
    if then_prune:
        _prune_after(context, progress, client, made, patience)
    return made


def _prune_after(
    context: BackupContext, progress: Progress, client: Client, made: Backup, patience_seconds: float
) -> None:
    def work(notes: CallNotes) -> Prune:
        return patiently(progress, lambda: prune(context, progress, dry_run=False, notes=notes), patience_seconds)

    try:
        made.pruned = calls.call(context, "prune_backups", {}, client, work)
        failed = [item for item in made.pruned.items if item.action == "not removed"]
        made.not_pruned = "; ".join(f"{item.name}: {item.reason}" for item in failed) or None
    except BackupToolError as error:
        made.not_pruned = f"{error.message} {error.remedy}"
    except Exception as error:
        log.exception("pruning failed")
        made.not_pruned = f"It failed unexpectedly ({type(error).__name__})."
