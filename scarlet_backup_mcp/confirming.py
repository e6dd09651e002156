"""How a user is asked before a restore, in both eras of the protocol.

An answer is good for one call: its question carries a code, and is taken away by the call that it lets through. On
2026-07-28 a sealed answer could be replayed, on 2025-11-25 two calls may be open at once (seen with mcp 2.3.0).
"""

from __future__ import annotations

import os
import time

from mcp.server.elicitation import ElicitationResult
from mcp.server.mcpserver import Context, Elicit
from pydantic import BaseModel, Field

from .calls import App, Question, app_of, in_thread, report
from .errors import BackupToolError, ConfirmationNeeded, ConfirmationStale
from .models import CodePage, ErrorReport
from .procedures import restore as restores
from .procedures.restore import Confirmed, Proposal
from .procedures.sources import Wishes, resolve
from .procedures.target import Target
from .progress import Progress

QUESTION_SECONDS = 600
MODERN = "2026-07-28"
"""From this version on a question is put by an answer to the call, which is then made a second time."""


class Confirm(BaseModel):
    """What the user is asked."""

    confirm: bool = Field(description="True: yes, replace what is live by this backup.")


class Refused(Confirm):
    """There is nothing to ask: the restore can't be done."""

    error: ErrorReport

    def as_error(self) -> BackupToolError:
        """To be raised by the call."""
        error = BackupToolError(self.error.message, self.error.remedy)
        error.code = self.error.code
        return error


async def confirm_restore(
    ctx: Context[App],
    backup: str,
    confirmation: str | None,
    dry_run: bool,
    accept_foreign: bool,
    accept_other_database: bool,
    stop_dependents: bool,
    drop_oldest_undo: bool,
    drill: bool | None,
    code_page: CodePage | None,
    job: str | None,
) -> Confirm | Elicit[Confirm]:
    """Decides what the user has to be asked before a restore. On 2026-07-28 it runs twice for one question."""
    if dry_run or job is not None or confirmation is not None:
        return Confirm(confirm=True)
    app = app_of(ctx)
    wishes = Wishes(accept_foreign, accept_other_database, stop_dependents, drop_oldest_undo, drill, code_page)
    capability = ctx.client_capabilities.elicitation if ctx.client_capabilities else None
    try:
        if capability is None or (capability.form is None and capability.url is not None):
            raise await in_thread(app, lambda target: _how_to_confirm(target, backup, "this client can't ask the user"))
        key = _key(ctx, backup, wishes)
        answered = ctx.input_responses is not None or ctx.request_state is not None
        question = app.questions.get(key) if answered else None
        if question is None or time.monotonic() - question.asked_at > QUESTION_SECONDS:

            def propose(target: Target) -> Proposal:
                return restores.propose(target, Progress(), backup, wishes)

            question = Question(await in_thread(app, propose), time.monotonic(), os.urandom(2).hex())
            app.questions[key] = question
        return Elicit(f"{question.proposal.question} (Request {question.code}.)", Confirm)
    except BackupToolError as error:
        return Refused(confirm=False, error=report(error))


async def consent(
    ctx: Context[App],
    answer: ElicitationResult[Confirm],
    backup: str,
    confirmation: str | None,
    wishes: Wishes,
) -> tuple[str, Confirmed | None]:
    """The source that may be restored, and what the user's yes is bound to; None with a typed confirmation.

    Raises BackupToolError when there is no consent; a question that was open for this call is closed in any case.
    """
    app = app_of(ctx)
    question = app.questions.pop(_key(ctx, backup, wishes), None)
    if confirmation is not None:
        if confirmation != f"restore {backup}" or backup == "latest":
            why = "the confirmation given does not name this backup"
            raise await in_thread(app, lambda target: _how_to_confirm(target, backup, why))
        return backup, None
    if answer.action == "accept" and isinstance(answer.data, Refused):
        raise answer.data.as_error()
    if answer.action != "accept" or not answer.data.confirm:
        raise ConfirmationNeeded("The user did not agree; nothing was changed.", "Ask the user what to do instead.")
    if question is None:
        raise ConfirmationStale("This answer was used already, or its question is no longer open.")
    return question.proposal.source, question.proposal.confirms


def _key(ctx: Context[App], *what: object) -> tuple[object, ...]:
    """What tells a question from others that are open: the call, where one call puts it and gets the answer."""
    one_call = ctx.protocol_version is None or ctx.protocol_version < MODERN
    return (ctx.request_id, *what) if one_call else what


def _how_to_confirm(target: Target, backup: str, why: str) -> ConfirmationNeeded:
    name = resolve(target, backup)
    return ConfirmationNeeded(
        f"A restore replaces the live database, and {why}.",
        f'Get the user\'s consent, then call again with backup="{name}" and confirmation="restore {name}".',
    )
