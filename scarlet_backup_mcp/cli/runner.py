"""How a command of the command line runs: its settings, progress, signals, audit log, errors and exit codes."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeVar

import click

from .. import __version__
from ..errors import BackupToolError, Cancelled, ConfirmationNeeded, InternalError
from ..models.audit import Client
from ..models.common import Model
from ..models.results import ErrorReport
from ..procedures.audit import calls, failure_hook
from ..procedures.context import BackupContext
from ..progress import Progress
from ..redaction import printable, printable_json, text
from ..settings import PREFIX, Settings, load_settings
from ..store.audit import SCHEDULE
from .rendering import PipedProgress, TerminalProgress, for_terminal, print_result

BAD, IMPOSSIBLE, STOPPED = 1, 2, 130
PATIENCE_SECONDS = 1800.0
"""How long a scheduled run waits for another call before each of its parts: two jobs may be caught up at once."""
log = logging.getLogger(__name__)

M = TypeVar("M", bound=Model)


@dataclass(frozen=True)
class Audited:
    """A call for the audit log; one that a scheduler began sounds the alarm when it fails."""

    tool: str
    arguments: Mapping[str, object]
    scheduled: bool = False

    def call(self, context: BackupContext, work: Callable[[], M], *, alarmed: bool = True) -> M:
        """As `calls.call`; without `alarmed` its failure is another call's to sound the alarm for."""
        client = Client(name=SCHEDULE if self.scheduled else "cli", version=__version__)
        on_failure = context.settings.on_failure if self.scheduled and alarmed else None
        return calls.call(context, self.tool, self.arguments, client, work, on_failure)

    def sound(self, error: BackupToolError, options: Mapping[str, Any]) -> None:
        """For what keeps it from being called at all."""
        command = options.get("setting_on_failure") or os.environ.get(f"{PREFIX}ON_FAILURE")
        if self.scheduled and command:
            told = failure_hook.Alarm(
                tool=self.tool, outcome="error", code=error.code, message=text(error.message), remedy=error.remedy
            )
            failure_hook.sound(command, told)


def run(
    work: Callable[[BackupContext, Progress], M],
    options: dict[str, Any],
    as_json: bool,
    quiet: bool,
    audit: Audited | None = None,
) -> M:
    """Do it and print what it gives; exits where that fails. `options` are the settings' own."""
    with errors(as_json):
        try:
            found = BackupContext(settings_of(options))
        except BackupToolError as error:
            if audit is not None:
                audit.sound(error, options)
            raise
        progress = TerminalProgress() if not quiet and sys.stderr.isatty() else PipedProgress(quiet)

        def cancel(number: int, frame: FrameType | None) -> None:
            progress.cancel()  # with the procedure's clean-up, except in the moments of a swap

        with _on_signals(cancel), progress, found as context:
            result = audit.call(context, lambda: work(context, progress)) if audit else work(context, progress)
        print_result(result, as_json)
        return result


def settings_of(options: dict[str, Any]) -> Settings:
    """The settings that a command's options and the environment give. Raises ConfigurationError."""
    return load_settings(**{name.removeprefix("setting_"): value for name, value in options.items()})


def ask(progress: Progress, question: str, words: str) -> None:
    """Go on only if a person types these words. Raises ConfirmationNeeded or Cancelled."""
    if not sys.stdin.isatty():
        raise ConfirmationNeeded("It is not done without a word of yours, and nobody can be asked here.", "Add --yes.")
    if isinstance(progress, TerminalProgress):
        progress.pause()
    click.echo(printable(question), err=True)
    try:
        with _on_signals(signal.default_int_handler):
            typed = click.prompt(f"Type '{printable(words)}' to go on", err=True, default="", show_default=False)
    except (click.Abort, KeyboardInterrupt, EOFError):
        raise Cancelled("It was stopped at the question; nothing was changed.") from None
    if typed != words:
        raise ConfirmationNeeded("It was not confirmed; nothing was changed.", "Run it again and type the words.")


@contextmanager
def errors(as_json: bool) -> Any:
    """What is raised in the block is told, and is the exit code."""
    try:
        yield
    except BackupToolError as error:
        _fail(error, as_json)
    except Exception as error:
        log.exception("failed")
        _fail(InternalError(f"It failed unexpectedly ({type(error).__name__})."), as_json)


def _fail(error: BackupToolError, as_json: bool) -> None:
    if as_json:
        told = ErrorReport(code=error.code, message=error.message, remedy=error.remedy)
        click.echo(printable_json(told.model_dump_json(indent=1)))
    click.echo(
        f"Error: {for_terminal(error.message)}\nWhat to do: {for_terminal(error.remedy)}\n({error.code})", err=True
    )
    sys.exit(STOPPED if isinstance(error, Cancelled) else IMPOSSIBLE)


@contextmanager
def _on_signals(handler: Callable[[int, FrameType | None], object]) -> Any:
    """Ctrl-C and SIGTERM are for `handler`."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, earlier in zip(numbers, before, strict=True):
            signal.signal(number, earlier)
