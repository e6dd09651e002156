"""The seam between a procedure and its caller: progress one way, cancellation the other.

Procedures are plain blocking code in a worker thread. They call `expect()`, `stage()` and `report()` as they go; these
raise `Cancelled` once the caller has asked for it, so clean-up is ordinary `try/finally`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from .errors import Cancelled

BYTES_A_SECOND = 150e6
"""Of a file that is read and checked: a stage of so many bytes takes so long, unless it says otherwise."""
HASHED_A_SECOND = 800e6
"""Of a file that is only read and hashed."""
MOMENT_SECONDS = 0.3
"""What a stage takes that says nothing."""
UNEXPECTED_SECONDS = 3.0
"""What a call takes that says nothing."""


@dataclass(frozen=True)
class State:
    """How far a procedure is: the stage's title, how much of `total` is done (bytes, or 0/None), a short detail.

    The stage moves the whole call's bar from `begins` on by `share`, both between 0 and 1. Without a `total` the time
    since `since` moves it, slower and slower, as if the stage took about `seconds`.
    """

    stage: str = "starting"
    done: float = 0
    total: float | None = None
    detail: str = ""
    begins: float = 0
    share: float = 0
    seconds: float = 0
    since: float = 0

    @property
    def fraction(self) -> float:
        """How much of the whole call is done, between 0 and 1."""
        if self.total:
            part = min(1.0, self.done / self.total)
        else:
            part = 1 - math.exp((self.since - time.monotonic()) / self.seconds) if self.seconds else 0
        return self.begins + self.share * part


class Progress:
    """Thread-safe. The base class shows nothing: use it where nobody watches."""

    def __init__(self) -> None:
        self.state = State()
        self._left = UNEXPECTED_SECONDS
        self._cancel = threading.Event()
        self._deferred = 0

    @property
    def fraction(self) -> float:
        """How much of the whole call is done, between 0 and 1; it never falls. It may be read from any thread, and
        grows by itself during a stage whose length is unknown."""
        return self.state.fraction

    def expect(self, seconds: float) -> None:
        """Say about how long the rest of the call takes: what is left of the bar is divided by that.

        Called by what is a call by itself, and by nothing that is a part of others.
        """
        self.check()
        self._left = seconds

    def stage(self, title: str, total: float | None = None, seconds: float | None = None) -> None:
        """Begin a stage; `total` is what `report` will count up to, if known, and `seconds` about how long it takes.

        A stage of 0 seconds does not move the bar, for example one that waits for somebody else.
        """
        self.check()
        if seconds is None:
            seconds = max(MOMENT_SECONDS, (total or 0) / BYTES_A_SECOND)
        begins, after = self.state.begins + self.state.share, self._left - seconds
        if after < 0:  # longer than was expected: as much again may follow
            after = seconds
        self._left = after = max(after, seconds / 20)
        share = (1 - begins) * seconds / (seconds + after) if seconds else 0
        self._update(State(title, 0, total, begins=begins, share=share, seconds=seconds, since=time.monotonic()))

    def report(self, done: float, detail: str = "") -> None:
        """Report how far the current stage is."""
        self.check()
        state = self.state
        self._update(replace(state, done=max(done, state.done), detail=detail or state.detail))

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
