"""How a tool call of the MCP face runs: a procedure in a thread, its answer or its error as a result."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

import anyio.to_thread
from mcp.server.mcpserver import Context
from mcp.types import CallToolResult, TextContent
from pydantic import BaseModel, ConfigDict, RootModel

from .. import summaries
from ..errors import ArgumentsInvalid, BackupToolError, ConfigurationError, InternalError, NextCall
from ..models.audit import Client
from ..models.common import Model
from ..models.results import Backup, ErrorReport, Integrity, Listing, Prune, Restore, Running
from ..models.verification import Verification
from ..procedures.audit import calls
from ..procedures.call_notes import CallNotes
from ..procedures.context import BackupContext
from ..progress import Progress
from ..settings import TOOLS, Settings
from .jobs import TOTAL, Jobs

log = logging.getLogger(__name__)
T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
MODERN = "2026-07-28"
"""From this version on a question is put by an answer to the call, which is then made a second time; and what does not
exist is an invalid parameter."""

# The protocol wants an object at a schema's top; each of the alternatives is one. Errors are among them, since clients
# of the TypeScript SDK hold every result against the schema (seen with the Inspector 2.12.0).
_OBJECT = ConfigDict(json_schema_extra={"type": "object"})


class BackupAnswer(RootModel[Backup | Running | ErrorReport]):
    """A backup, word that it goes on, or an error."""

    model_config = _OBJECT


class VerifyAnswer(RootModel[Verification | Running | ErrorReport]):
    """A verification, word that it goes on, or an error."""

    model_config = _OBJECT


class ListAnswer(RootModel[Listing | ErrorReport]):
    """A listing or an error."""

    model_config = _OBJECT


class RestoreAnswer(RootModel[Restore | Running | ErrorReport]):
    """A restore, word that it goes on, or an error."""

    model_config = _OBJECT


class PruneAnswer(RootModel[Prune | Running | ErrorReport]):
    """What was removed, word that it goes on, or an error."""

    model_config = _OBJECT


class IntegrityAnswer(RootModel[Integrity | ErrorReport]):
    """What was found, or an error."""

    model_config = _OBJECT


@dataclass
class Question:
    """A question that was put to the user, about `subject`; a yes is bound to `confirms`, and its code makes an answer
    good for this one call. `typed`: the arguments that stand for a yes in the conversation. Without `text` there was
    nothing to ask."""

    subject: str
    text: str
    confirms: Any
    typed: Mapping[str, Any]
    asked_at: float
    code: str


@dataclass
class App:
    """What the tools share."""

    settings: Settings | ConfigurationError
    jobs: Jobs
    served: tuple[str, ...] = TOOLS
    """The tools that it offers."""
    questions: dict[tuple[object, ...], Question] = field(default_factory=dict[tuple[object, ...], Question])
    refused: dict[str, float] = field(default_factory=dict[str, float])
    """When a user last said no, by the question's subject."""


ALIVE: list[App] = []
"""Apps whose jobs have to be ended when a signal ends the process."""


@dataclass(frozen=True)
class Call:
    """The call that is under way: its tool, the arguments that a suggestion to call again has to repeat, and the tools
    that may be suggested."""

    tool: str
    arguments: Mapping[str, Any]
    served: tuple[str, ...]

    def suggested(self, model: M) -> M:
        """Leave out of what is said, and of its findings, the next calls of tools that are not served."""
        following, findings = getattr(model, "next_call", None), getattr(model, "findings", None)
        changed: dict[str, Any] = {}
        if isinstance(following, NextCall) and following.tool not in self.served:
            changed["next_call"] = None
        if findings:
            changed["findings"] = [self.suggested(finding) for finding in findings]
        return model.model_copy(update=changed) if changed else model


CALL: ContextVar[Call] = ContextVar("CALL")
_OF_ONE_CALL = ("job", "wait_seconds", "confirmation")


def begin(tool: str, arguments: Mapping[str, Any], app: App) -> None:
    """Remember the running call."""
    repeated = {name: value for name, value in arguments.items() if name not in _OF_ONE_CALL}
    CALL.set(Call(tool, repeated, app.served))


def app_of(ctx: Context[App]) -> App:
    """Return what the tools share, from a call's context."""
    return ctx.request_context.lifespan_context


def open_context(settings: Settings | ConfigurationError) -> BackupContext:
    """Open what a call works on. Raises ConfigurationError; a wrong setting is an answer, and no end of the server: of
    that hosts only say that the connection was closed."""
    if isinstance(settings, ConfigurationError):
        raise settings.with_traceback(None)
    return BackupContext(settings)


async def in_thread(settings: Settings | ConfigurationError, work: Callable[[BackupContext], T]) -> T:
    """Run something short and read-only in a thread. Raises nothing but BackupToolError."""

    def run() -> T:
        with open_context(settings) as context:
            return work(context)

    try:
        return await anyio.to_thread.run_sync(run, abandon_on_cancel=True)
    except BackupToolError:
        raise
    except Exception as error:
        log.exception("a call failed")
        raise InternalError(f"The call failed unexpectedly ({type(error).__name__}).") from error


def client_of(ctx: Context[App]) -> Client:
    """Return who calls, as it introduced itself; on 2026-07-28 it need not."""
    introduced = ctx.request_context.session.client_params
    if introduced is None:
        return Client(name="mcp")
    return Client(name=f"mcp: {introduced.client_info.name}", version=introduced.client_info.version)


async def long_call(
    ctx: Context[App],
    work: Callable[[BackupContext, Progress, CallNotes], Model],
    arguments: Mapping[str, object],
    seconds: float,
    job: str | None,
) -> CallToolResult:
    """Begin a job of the present call, or take up `job`, and wait for it. `arguments` are all that it has, as the audit
    log wants them."""
    app, client, call = app_of(ctx), client_of(ctx), CALL.get()

    def run(progress: Progress) -> Model:
        with open_context(app.settings) as context:
            return calls.call(context, call.tool, arguments, client, lambda notes: work(context, progress, notes))

    async def tell(number: float, message: str) -> None:
        await ctx.report_progress(number, TOTAL, message)

    try:
        if job is None:
            waiting_for = app.jobs.start(call.tool, call.arguments, run)
        else:
            waiting_for = app.jobs.get(call.tool, job)
            if others := [name for name, value in call.arguments.items() if waiting_for.arguments.get(name) != value]:
                raise ArgumentsInvalid(
                    f"The job {job} was begun with other arguments: {', '.join(others)}.",
                    "Call again with the job alone.",
                    NextCall(tool=call.tool, arguments={"job": job}),
                )
            begin(call.tool, waiting_for.arguments, app)
        return answered(await app.jobs.wait(waiting_for, seconds, tell))
    except BackupToolError as error:
        return failed(error)


async def refused(ctx: Context[App], arguments: Mapping[str, object], error: BackupToolError) -> CallToolResult:
    """Report a call that was not made, with its line in the audit log."""
    client, tool = client_of(ctx), CALL.get().tool

    def refuse(context: BackupContext) -> Model:
        def work(_: CallNotes) -> Model:
            raise error

        return calls.call(context, tool, arguments, client, work)

    try:
        return answered(await in_thread(app_of(ctx).settings, refuse))
    except BackupToolError as raised:
        return failed(raised)


async def short_call(
    ctx: Context[App],
    work: Callable[[BackupContext, Progress], Model],
    finish: Callable[[Model], Model] = lambda model: model,
) -> CallToolResult:
    """Run something that takes a moment."""
    client, tool = client_of(ctx), CALL.get().tool

    def run(context: BackupContext) -> Model:
        return calls.call(context, tool, {}, client, lambda _: work(context, Progress()))

    try:
        return answered(finish(await in_thread(app_of(ctx).settings, run)))
    except BackupToolError as error:
        return failed(error)


def answered(result: Model) -> CallToolResult:
    """Return a result as text and data."""
    result = CALL.get().suggested(result)
    return CallToolResult(
        content=[TextContent(text=summaries.describe(result))],
        structured_content=result.model_dump(mode="json", by_alias=True),
    )


def report(error: BackupToolError) -> ErrorReport:
    """Return an error of the current call as data."""
    call = CALL.get()
    return call.suggested(ErrorReport.of(error, call.tool, call.arguments))


def failed(error: BackupToolError) -> CallToolResult:
    """Return an error of the current call as text and data."""
    told = report(error)
    return CallToolResult(
        content=[TextContent(text=summaries.describe_error(told))],
        structured_content=told.model_dump(mode="json"),
        is_error=True,
    )
