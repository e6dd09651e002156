"""How a user is asked before a restore, or before backups are removed, in both eras of the protocol.

An answer is good for one call: its question carries a code, and is taken away by the call that it lets through. On
2026-07-28 a sealed answer could be replayed, on 2025-11-25 two calls may be open at once (seen with mcp 2.3.0).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Annotated, Any

from mcp.server.elicitation import ElicitationResult
from mcp.server.mcpserver import Context, Elicit, Resolve
from pydantic import BaseModel, Field

from .. import summaries
from ..errors import BackupToolError, ConfigurationError, ConfirmationNeeded, ConfirmationStale, again
from ..models.audit import Client
from ..models.common import CodePage
from ..models.results import ErrorReport
from ..procedures import prune as retention
from ..procedures.audit import calls
from ..procedures.call_notes import CallNotes
from ..procedures.catalog import by_name
from ..procedures.context import BackupContext
from ..procedures.restore import service as restores
from ..procedures.restore.options import Confirmed, Proposal, RestoreDrill, RestoreOptions
from ..progress import Progress
from ..redaction import printable
from .tool_calls import MODERN, App, Question, app_of, client_of, in_thread, report

QUESTION_SECONDS = 600
HUMAN_SECONDS = 1.0
"""No person reads a question and declines in less: then the host did it by itself, as some do."""
PRUNE = "prune"


class Confirm(BaseModel):
    """What the user is asked."""

    confirm: bool = Field(description="True: yes, do it.")


class Refused(Confirm):
    """There is nothing to ask: it can't be done."""

    error: ErrorReport

    def as_error(self) -> BackupToolError:
        """Return the error for the call to raise."""
        error = BackupToolError(self.error.message, self.error.remedy, self.error.next_call)
        error.code = self.error.code
        return error


def restore_options(
    accept_foreign: bool,
    accept_other_database: bool,
    accept_violations: bool,
    accept_configuration: bool,
    stop_dependents: bool,
    drop_oldest_undo: bool,
    drill: RestoreDrill,
    code_page: CodePage | None,
    accept_smaller: bool,
) -> RestoreOptions:
    """Return what the caller of `restore` has chosen, for its question and for itself."""
    return RestoreOptions(
        accept_foreign=accept_foreign,
        accept_other_database=accept_other_database,
        accept_violations=accept_violations,
        accept_configuration=accept_configuration,
        stop_dependents=stop_dependents,
        drop_oldest_undo=drop_oldest_undo,
        drill=drill,
        code_page=code_page,
        accept_smaller=accept_smaller,
    )


async def confirm_restore(
    ctx: Context[App],
    backup: str | None,
    confirmation: str | None,
    dry_run: bool,
    job: str | None,
    options: Annotated[RestoreOptions, Resolve(restore_options)],
) -> Confirm | Elicit[Confirm]:
    """Decide what the user has to be asked before a restore. On 2026-07-28 it runs twice for one question."""
    if backup is None or dry_run or job is not None or confirmation is not None:
        return Confirm(confirm=True)
    client = client_of(ctx)

    def propose(context: BackupContext) -> _Asked:
        proposal = _proposal(context, client, backup, options)
        return proposal.source, proposal.question, proposal.confirms, _typed(proposal.source)

    def how_to_confirm(context: BackupContext) -> ConfirmationNeeded:
        return _how_to_confirm(context, client, backup, options, "this client can't ask the user")

    return await _ask(ctx, ("restore", backup, options), propose, how_to_confirm)


async def confirm_prune(
    ctx: Context[App], confirmation: str | None, dry_run: bool, include_undo: bool, job: str | None
) -> Confirm | Elicit[Confirm]:
    """Decide what the user has to be asked before backups are removed."""
    if dry_run or job is not None or confirmation is not None:
        return Confirm(confirm=True)

    def propose(context: BackupContext) -> _Asked:
        would = retention.prune(context, Progress(), include_undo=include_undo)
        text = summaries.question_before_pruning(would) if would.confirmation else ""
        return PRUNE, text, would.confirmation or "", {"confirmation": would.confirmation}

    def how_to_confirm(context: BackupContext) -> ConfirmationNeeded | None:
        if retention.prune(context, Progress(), include_undo=include_undo).confirmation is None:
            return None
        return ConfirmationNeeded(
            "Backups are removed for good, and this client can't ask the user.",
            "Make a dry run and show the user its list. If the user agrees to it, call again without the dry run and "
            "with the confirmation that the dry run gave.",
            again(dry_run=True),
        )

    return await _ask(ctx, (PRUNE, include_undo), propose, how_to_confirm)


async def consent(
    ctx: Context[App],
    answer: ElicitationResult[Confirm],
    backup: str,
    confirmation: str | None,
    options: RestoreOptions,
) -> tuple[str, Confirmed | None]:
    """Return the source that may be restored, and what the user's yes is bound to; None with a typed confirmation.

    Raises BackupToolError when there is no consent; a question that was open for this call is closed in any case.
    """
    app = app_of(ctx)
    question = app.questions.pop(_key(ctx, "restore", backup, options), None)
    if confirmation is not None:
        name = await in_thread(app.settings, lambda context: by_name.full_name(context, backup))
        _refuse_after_a_no(app, name)
        if confirmation != f"restore {name}" or name == by_name.LATEST:
            why = "the confirmation given does not name this backup"
            client = client_of(ctx)
            raise await in_thread(app.settings, lambda context: _how_to_confirm(context, client, backup, options, why))
        return name, None
    agreed = _agreed(app, answer, question)
    return agreed.subject, agreed.confirms


def consent_to_prune(
    ctx: Context[App], answer: ElicitationResult[Confirm], confirmation: str | None, include_undo: bool
) -> str:
    """Return what the user's yes is bound to. Raises BackupToolError as `consent` does."""
    app = app_of(ctx)
    question = app.questions.pop(_key(ctx, PRUNE, include_undo), None)
    if confirmation is None:
        return _agreed(app, answer, question).confirms
    _refuse_after_a_no(app, PRUNE)
    return confirmation


_Asked = tuple[str, str, Any, Mapping[str, Any]]
"""Subject, text, what a yes confirms, and how it is typed: see `Question`."""


async def _ask(
    ctx: Context[App],
    what: tuple[object, ...],
    propose: Callable[[BackupContext], _Asked],
    how_to_confirm: Callable[[BackupContext], ConfirmationNeeded | None],
) -> Confirm | Elicit[Confirm]:
    """`how_to_confirm` is for a client that can't ask; None when there is nothing to confirm."""
    app, key = app_of(ctx), _key(ctx, *what)
    capability = ctx.client_capabilities.elicitation if ctx.client_capabilities else None
    try:
        in_conversation = not isinstance(app.settings, ConfigurationError) and app.settings.ask == "conversation"
        if in_conversation or capability is None or (capability.form is None and capability.url is not None):
            needed = await in_thread(app.settings, how_to_confirm)
            if needed is not None:
                raise needed
            app.questions[key] = Question("", "", "", {}, time.monotonic(), "")
            return Confirm(confirm=True)
        answered = ctx.input_responses is not None or ctx.request_state is not None
        question = app.questions.get(key) if answered else None
        if question is None or time.monotonic() - question.asked_at > QUESTION_SECONDS:
            question = Question(*await in_thread(app.settings, propose), time.monotonic(), os.urandom(2).hex())
            app.questions[key] = question
        if not question.text:
            return Confirm(confirm=True)
        return Elicit(f"{printable(question.text)} (Request {question.code}.)", Confirm)
    except BackupToolError as error:
        return Refused(confirm=False, error=report(error))


def _agreed(app: App, answer: ElicitationResult[Confirm], question: Question | None) -> Question:
    if answer.action == "accept" and isinstance(answer.data, Refused):
        raise answer.data.as_error()
    if answer.action == "cancel":
        raise ConfirmationNeeded(
            "The question was closed without an answer; nothing was changed.",
            "Ask again when the user wants it.",
            again(),
        )
    if question is None:
        raise ConfirmationStale("This answer was already used, or its question is closed.")
    if answer.action == "accept" and answer.data.confirm:
        return question
    if answer.action == "decline" and time.monotonic() - question.asked_at < HUMAN_SECONDS:
        raise _ask_in_conversation(
            "This host declined by itself, sooner than anybody could read the question; nothing was changed.",
            question.text,
            question.typed,
        )
    app.refused[question.subject] = time.monotonic()
    raise ConfirmationNeeded("The user said no; nothing was changed.", "Ask the user what to do instead.")


def _refuse_after_a_no(app: App, subject: str) -> None:
    """A user's no in a dialog holds against a confirmation that an agent types. Raises ConfirmationNeeded."""
    said = app.refused.get(subject)
    if said is not None and time.monotonic() - said < QUESTION_SECONDS:
        raise ConfirmationNeeded(
            "The user said no to this less than ten minutes ago; nothing was changed.",
            "Ask the user what to do instead. Without a confirmation the user is asked again.",
        )


def _typed(source: str) -> dict[str, Any]:
    """The arguments that stand for a user's yes in the conversation."""
    return {"backup": source, "confirmation": f"restore {source}"}


def _key(ctx: Context[App], *what: object) -> tuple[object, ...]:
    """Return what tells a question from others that are open: the call, where one call puts it and gets the answer."""
    one_call = ctx.protocol_version is None or ctx.protocol_version < MODERN
    return (ctx.request_id, *what) if one_call else what


def _how_to_confirm(
    context: BackupContext, client: Client, backup: str, options: RestoreOptions, why: str
) -> ConfirmationNeeded:
    """Return how a client that can't ask confirms. Raises what the restore would refuse with, as `propose` does."""
    proposal = _proposal(context, client, backup, options)
    return _ask_in_conversation(
        f"A restore replaces current data, and {why}.", proposal.question, _typed(proposal.source)
    )


def _ask_in_conversation(why: str, question: str, typed: Mapping[str, Any]) -> ConfirmationNeeded:
    """Return the error that has the agent ask the user; `typed` are the arguments that then stand for a yes."""
    return ConfirmationNeeded(
        why,
        f'Ask the user in the conversation: "{question}" If the user agrees, call again with the confirmation '
        f'"{typed["confirmation"]}".',
        again(**typed),
    )


def _proposal(context: BackupContext, client: Client, backup: str, options: RestoreOptions) -> Proposal:
    def propose(notes: CallNotes) -> Proposal:
        return restores.propose(context, Progress(), backup, options, notes=notes)

    return calls.before_asking(context, "restore", {"backup": backup, **asdict(options)}, client, propose)
