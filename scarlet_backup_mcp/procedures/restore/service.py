"""`restore`: resolve the source once, as an SQL restore or a volume restore; then ask, rehearse or do it."""

from __future__ import annotations

from dataclasses import replace

from ...errors import RestoreInterrupted, again
from ...models.results import Restore
from ...progress import Progress
from ..call_notes import CallNotes
from ..catalog.by_name import full_name
from ..context import BackupContext
from ..recovery import journal as journals
from ..recovery.volume_settlement import settle_first
from .options import AS_USUAL, Confirmed, Proposal, RestoreOptions
from .sql_restore import SqlRestore
from .volume_plan import is_volume
from .volume_restore import VolumeRestore


def restore(
    context: BackupContext,
    progress: Progress,
    source: str,
    options: RestoreOptions = AS_USUAL,
    *,
    confirmed: Confirmed | None = None,
    notes: CallNotes | None = None,
) -> Restore:
    """Bring the database back from a backup's file, `latest`, or an undo point.

    `confirmed` None means that the caller has the user's consent for whatever `source` names. Raises BackupToolError;
    its message says when the live database is not as it was.
    """
    notes = notes or CallNotes()
    settle_first(context, progress, notes)
    return _resolved(context, progress, source, options, notes).run(confirmed)


def propose(
    context: BackupContext,
    progress: Progress,
    source: str,
    options: RestoreOptions = AS_USUAL,
    *,
    notes: CallNotes | None = None,
) -> Proposal:
    """Write the question that a user is asked before a restore. Settles an interrupted restore of a volume first, whose
    server does not run until then; raises what the restore would refuse with, as far as a quick look shows."""
    notes = notes or CallNotes()
    settle_first(context, progress, notes)
    proposal = _resolved(context, progress, source, options, notes).propose()
    return replace(proposal, question=" ".join([*notes.settled, proposal.question]))


def dry_run(context: BackupContext, progress: Progress, source: str, options: RestoreOptions = AS_USUAL) -> Restore:
    """Check everything that `restore` would check except for a drill, and report what it would do. Writes nothing,
    neither here nor on the server."""
    if waiting := journals.waiting(context):
        raise RestoreInterrupted(waiting, "Wait until it ends, or do that; then try again.", again())
    return _resolved(context, progress, source, options, CallNotes()).dry_run()


def _resolved(
    context: BackupContext, progress: Progress, source: str, options: RestoreOptions, notes: CallNotes
) -> SqlRestore | VolumeRestore:
    source = full_name(context, source)
    kind = VolumeRestore if is_volume(context, source) else SqlRestore
    return kind(context, progress, source, options, notes)
