"""A call as both faces make it: its procedure, its line in the audit log, and the alarm when a schedule began it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeVar

from ...errors import BackupToolError, InternalError
from ...models.audit import Client
from ...models.common import Model, Step
from ...models.results import Backup, Kept, Prune, Repaired, Restore
from ...models.verification import Verification
from ...redaction import HIDDEN, text
from ...store.audit import Record, audited
from ..call_notes import CallNotes
from ..context import BackupContext
from ..step_titles import in_language
from .failure_hook import Alarm, sound

M = TypeVar("M", bound=Model)
T = TypeVar("T")
READING = frozenset({"list_backups", "db_integrity", "gate"})
"""What changes nothing whatever its arguments; neither does a dry run, or a quick look at a backup."""


def call(
    context: BackupContext,
    tool: str,
    arguments: Mapping[str, object],
    client: Client,
    work: Callable[[CallNotes], M],
    on_failure: str | None = None,
) -> M:
    """Do `work`; a call that may change something gets its line in the audit log of the backup directory. What `work`
    raises goes on. The titles of the result's steps are in the user's language.

    `on_failure` is run when it raises or its result is bad. What is wrong with the log or that command is a warning of
    the result, where it has warnings. A label is hidden in the log as long as the password that it may hold is unknown.
    """
    notes = CallNotes()
    if tool in READING or arguments.get("dry_run") or arguments.get("level") == "quick":
        return _translated(work(notes), context)
    arguments = {name: value for name, value in arguments.items() if name != "dry_run"}
    try:
        where, shown = (lambda: context.directory.path), {**arguments, **_hidden(context, arguments)}
        begin = context.settings.dir is not None or context.known_container_info is not None
        with audited(where, tool, shown, client, context.secrets, begin=begin) as record:
            try:
                notes.announce = record.announce
                result = work(notes)
            except BackupToolError as error:
                error.message = " ".join([*notes.settled, error.message])
                raise
            finally:
                shown |= {**arguments, **_hidden(context, arguments)}
            _account(notes, result, record)
    except Exception as error:
        if on_failure is not None:
            known = error if isinstance(error, BackupToolError) else InternalError("It failed unexpectedly.")
            sound(on_failure, _alarm(context, tool, known))
        raise
    told = [record.warning]
    if on_failure is not None and not record.good:
        told.append(sound(on_failure, _alarm(context, tool, None, record.message)))
    warnings: list[str] | None = getattr(result, "warnings", None)
    if warnings is not None:
        warnings += filter(None, told)
    return _translated(result, context)


def before_asking(
    context: BackupContext,
    tool: str,
    arguments: Mapping[str, object],
    client: Client,
    work: Callable[[CallNotes], T],
) -> T:
    """Do what comes before a question. It changes nothing, except that it may settle what killed calls left: then that
    gets a line in the audit log."""
    notes = CallNotes()
    try:
        return work(notes)
    finally:
        if notes.settled:
            shown = {**arguments, **_hidden(context, arguments)}
            with audited(lambda: context.directory.path, tool, shown, client, context.secrets) as record:
                record.message = " ".join(notes.settled)


def _translated(result: M, context: BackupContext) -> M:
    steps: list[Step] | None = getattr(result, "steps", None)
    if steps is not None:
        steps[:] = in_language(steps, context.settings.language)
    return result


def _hidden(context: BackupContext, arguments: Mapping[str, object]) -> dict[str, object]:
    """Return the log's stand-ins for free text that can't be searched for secrets yet."""
    return {"label": HIDDEN} if arguments.get("label") and not context.secrets_are_known else {}


def _account(notes: CallNotes, result: Model, record: Record) -> None:
    """Record what there was before and after, and whether the result is what a user needs: a good backup, even if it
    does not open the gate, because the database is in use."""
    if isinstance(result, Backup):
        not_pruned = [f"Not pruned: {result.not_pruned}"] if result.not_pruned else []
        record.good = result.good and not not_pruned
        record.message = " ".join([*notes.settled, *not_pruned, *result.reasons])
        record.after = {"backup": result.name, "sha256": result.sha256}
        if result.memory is not None:
            record.after |= {"set": result.memory.name}
            record.after |= {member.name: member.sha256 for member in result.memory.stores}
    elif isinstance(result, Verification):
        record.good = (
            result.valid if result.level != "drill" else result.drill is not None and bool(result.drill.proved)
        )
        record.before = {"backup": result.name, **({"sha256": result.sha256} if result.sha256 else {})}
    elif isinstance(result, Repaired):
        record.before, record.after = {"backup": result.repaired_from}, {"backup": result.name, "sha256": result.sha256}
    elif isinstance(result, Prune):
        record.good = not any(item.action == "not removed" for item in result.items)
        gone = {item.name for item in result.items if item.action == "removed"}
        record.before = {name: digest for name, digest in record.before.items() if name in gone}
        record.message = " ".join(notes.settled)
    elif isinstance(result, Kept):
        record.before = {"backup": result.name}
    elif isinstance(result, Restore):
        record.message = " ".join(notes.settled)
        record.after = {"undo_point": result.undo_point} if result.undo_point else {}


def _alarm(context: BackupContext, tool: str, error: BackupToolError | None, message: str = "") -> Alarm:
    hidden, directory = context.secrets(), None
    with suppress(BackupToolError):
        directory = str(context.directory.path)
    return Alarm(
        tool=tool,
        outcome="error" if error else "bad",
        code=error.code if error else None,
        message=text(error.message if error else message, hidden),
        remedy=text(error.remedy, hidden)
        if error
        else "Run `scarlet-backup-mcp list` and `scarlet-backup-mcp backup`.",
        database=context.database,
        container=context.settings.container if context.settings.via == "docker" else None,
        directory=directory,
    )
