"""How a command of the command line runs: its settings, progress, signals, audit log, errors and exit codes."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .. import __version__
from ..errors import BackupToolError, Cancelled, ConfirmationNeeded, InternalError
from ..models.common import Model
from ..progress import Progress
from ..redaction import printable, printable_json, text
from ..settings import PREFIX, Settings, load_settings
from .commands import IMPOSSIBLE
from .next_command import command_line, given

if TYPE_CHECKING:
    from ..models.audit import Client
    from ..procedures.call_notes import CallNotes
    from ..procedures.context import BackupContext

BAD, STOPPED = 1, 130
log = logging.getLogger(__name__)

M = TypeVar("M", bound=Model)


@dataclass(frozen=True)
class Call:
    """A command as a call of a tool; one that a scheduler started sounds the alarm when it fails."""

    tool: str
    arguments: Mapping[str, object] = field(default_factory=dict[str, object])
    scheduled: bool = False

    @property
    def client(self) -> Client:
        """Who calls."""
        from ..models.audit import Client
        from ..store.audit import SCHEDULE

        return Client(name=SCHEDULE if self.scheduled else "cli", version=__version__)

    def make(self, context: BackupContext, work: Callable[[CallNotes], M]) -> M:
        """Do `work` with its line in the audit log, see `calls.call`."""
        from ..procedures.audit import calls

        on_failure = context.settings.on_failure if self.scheduled else None
        return calls.call(context, self.tool, self.arguments, self.client, work, on_failure)

    def sound(self, error: BackupToolError, options: Mapping[str, Any]) -> None:
        """Sound the alarm for what keeps it from being called at all."""
        from ..procedures.audit import failure_hook

        command = options.get("setting_on_failure") or os.environ.get(f"{PREFIX}ON_FAILURE")
        if self.scheduled and command:
            alarm = failure_hook.Alarm(
                tool=self.tool, outcome="error", code=error.code, message=text(error.message), remedy=error.remedy
            )
            failure_hook.sound(command, alarm)


def run(
    work: Callable[[BackupContext, Progress, CallNotes], M],
    call: Call,
    options: dict[str, Any],
    as_json: bool,
    quiet: bool,
) -> M:
    """Do the work and print its result; exit if it fails. `options` are the settings' own."""
    from ..procedures.context import BackupContext
    from .bar import PipedProgress, TerminalProgress
    from .rendering import print_result

    with errors(as_json, call):
        try:
            found = BackupContext(settings_of(options))
        except BackupToolError as error:
            call.sound(error, options)
            raise
        progress = TerminalProgress() if not quiet and sys.stderr.isatty() else PipedProgress(quiet)

        def cancel(number: int, frame: FrameType | None) -> None:
            progress.cancel()  # with the procedure's clean-up, except in the moments of a swap

        with _on_signals(cancel), progress, found as context:
            result = call.make(context, lambda notes: work(context, progress, notes))
        print_result(result, as_json)
        return result


def settings_of(options: dict[str, Any]) -> Settings:
    """Return the settings that a command's options and the environment give. Raises ConfigurationError."""
    return load_settings(**{name.removeprefix("setting_"): value for name, value in options.items()})


def ask(progress: Progress, show: Callable[[], None], question: str, words: str | None = None) -> None:
    """Show what it is about, then go on only if a person types these words, or without any says yes. Raises
    ConfirmationNeeded or Cancelled."""
    from .bar import TerminalProgress

    if not sys.stdin.isatty():
        raise ConfirmationNeeded("This needs confirmation, and no terminal is attached.", "Add --yes.")
    with progress.paused() if isinstance(progress, TerminalProgress) else nullcontext():
        try:
            with _on_signals(signal.default_int_handler):
                show()
                agreed = _agreed(printable(question), words)
        except (click.Abort, KeyboardInterrupt, EOFError):
            raise Cancelled("Stopped at the question; nothing was changed.") from None
        if not agreed:
            how = "answer yes" if words is None else "type the words"
            raise ConfirmationNeeded("Not confirmed; nothing was changed.", f"Run it again and {how}.")


def _agreed(question: str, words: str | None) -> bool:
    if words is None:
        return click.confirm(question, err=True)
    return click.prompt(question, err=True, default="", show_default=False) == words


@contextmanager
def errors(as_json: bool, call: Call | None = None) -> Any:
    """Print an error raised in the block, and exit with its code."""
    try:
        yield
    except BackupToolError as error:
        _fail(error, as_json, call)
    except Exception as error:
        log.exception("failed")
        _fail(InternalError(f"The command failed unexpectedly ({type(error).__name__})."), as_json, call)


def _fail(error: BackupToolError, as_json: bool, call: Call | None) -> None:
    from .. import summaries
    from ..models.results import ErrorReport
    from .rendering import print_on_stderr
    from .setting_names import as_used

    report = ErrorReport.of(error, call.tool if call else "", given())
    message, _, remedy = as_used(f"{report.message}\0{report.remedy}").partition("\0")
    report = report.model_copy(update={"message": message, "remedy": remedy})
    if as_json:
        click.echo(printable_json(report.model_dump_json(indent=1)))
    print_on_stderr(f"Error: {summaries.describe_error(report, command_line)}")
    sys.exit(STOPPED if isinstance(error, Cancelled) else IMPOSSIBLE)


@contextmanager
def _on_signals(handler: Callable[[int, FrameType | None], object]) -> Any:
    """Give Ctrl-C and SIGTERM to `handler`."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, earlier in zip(numbers, before, strict=True):
            signal.signal(number, earlier)
