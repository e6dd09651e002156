"""The seam between a procedure and its caller: progress one way, cancellation the other.

Procedures are plain blocking code in a worker thread. They call `stage()` and `report()` as they go; both raise
`Cancelled` once the caller has asked for it, so clean-up is ordinary `try/finally`.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from .errors import Cancelled


@dataclass(frozen=True)
class State:
    """How far a procedure is: the stage's title, how much of `total` is done (bytes, or 0/None), a short detail."""

    stage: str = "starting"
    done: float = 0
    total: float | None = None
    detail: str = ""


class Progress:
    """Thread-safe. The base class shows nothing: use it where nobody watches."""

    def __init__(self) -> None:
        self.state = State()
        self._cancel = threading.Event()
        self._deferred = 0

    def stage(self, title: str, total: float | None = None) -> None:
        """Begin a stage; `total` is what `report` will count up to, if known."""
        self.check()
        self._update(State(title, 0, total))

    def report(self, done: float, detail: str = "") -> None:
        """Report how far the current stage is."""
        self.check()
        self._update(State(self.state.stage, done, self.state.total, detail or self.state.detail))

    def check(self) -> None:
        """Raise `Cancelled` if the caller has asked to stop, unless this moment must not be interrupted."""
        if self._cancel.is_set() and not self._deferred:
            raise Cancelled("The call was cancelled.")

    def cancel(self) -> None:
        """Ask the procedure to stop. From any thread."""
        self._cancel.set()

    @property
    def deferring(self) -> bool:
        """True while cancellation has to wait (the moments around a swap)."""
        return self._deferred > 0

    @contextmanager
    def uninterrupted(self) -> Generator[None]:
        """Defer cancellation until the end of this block."""
        self._deferred += 1
        try:
            yield
        finally:
            self._deferred -= 1

    def _update(self, state: State) -> None:
        self.state = state
        self.show(state)

    def show(self, state: State) -> None:
        """Show the state; overridden by the faces. Called in the procedure's thread, as often as `report`."""
