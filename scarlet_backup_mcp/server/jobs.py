"""Procedures in worker threads, for the MCP face: a call may stop waiting while its job goes on."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from ..errors import BackupToolError, InternalError, JobUnknown, NextCall
from ..models.common import Model
from ..models.results import JobState, Running
from ..progress import Progress, State

log = logging.getLogger(__name__)
M = TypeVar("M", bound=Model)

TOTAL = 100.0
"""What the number told to a client runs up to."""
LEAST_PROGRESS = 0.00001
"""What that number grows by when only the words change: it has to grow."""
SIGN_OF_LIFE_SECONDS = 5.0
"""After so long something is told though nothing has changed: some hosts give up on a call that says nothing."""
LOOK = 0.25
"""Seconds between two looks at a job: at most four progress notifications a second."""
KEPT = 20
"""Ended jobs whose outcome can still be asked for."""
SHUTDOWN_SECONDS = 1.5
DEFERRED_SHUTDOWN_SECONDS = 30.0
"""How long the end of the process waits for a job that may not be stopped just now (a swap)."""


class Job:
    """One procedure under way. `result` or `error` is there once it is done."""

    def __init__(self, tool: str, arguments: Mapping[str, Any], work: Callable[[Progress], Model]) -> None:
        self.id = f"{tool}-{secrets.token_hex(4)}"
        self.tool = tool
        self.arguments = arguments
        self.progress = Progress()
        self.result: Model | None = None
        self.error: BackupToolError | None = None
        self.done = anyio.Event()
        self._work = work
        self._began = time.monotonic()
        self._seconds: float | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since it began, or that it took."""
        return self._seconds if self._seconds is not None else time.monotonic() - self._began

    async def run(self) -> None:
        """Run it in a thread, to its end. Cancelling this task (at the end of the process) abandons the thread."""
        try:
            self.result = await anyio.to_thread.run_sync(self._work, self.progress, abandon_on_cancel=True)
        except BackupToolError as error:
            self.error = error
        except Exception as error:
            log.exception("%s failed", self.tool)
            self.error = InternalError(f"{self.tool} failed unexpectedly ({type(error).__name__}).")
        finally:
            self._seconds = time.monotonic() - self._began
            self.done.set()

    def running(self) -> Running:
        """Return what a call that stops waiting answers."""
        state = self.progress.state
        return Running(
            job=self.id,
            tool=self.tool,
            stage=describe(state),
            progress=round(self.progress.fraction, 3),
            elapsed_seconds=round(self.elapsed, 1),
            remedy="The work goes on. Call again with this job alone to wait for its result.",
            next_call=NextCall(tool=self.tool, arguments={"job": self.id}),
        )


def describe(state: State) -> str:
    """Describe a moment of a job, for example "dumping: letta.messages (12 of 40 MB)"."""
    words = state.stage + (f": {state.detail}" if state.detail else "")
    if state.total is None or state.total < 1e6:
        return words
    return f"{words} ({state.done / 1e6:,.0f} of {state.total / 1e6:,.0f} MB)"


class Jobs:
    """The jobs of one server, in its task group."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._jobs: dict[str, Job] = {}

    def start(self, tool: str, arguments: Mapping[str, Any], work: Callable[[Progress], Model]) -> Job:
        """Begin a procedure in a thread; gives its job at once."""
        ended = [job.id for job in self._jobs.values() if job.done.is_set()]
        for old in ended[: max(0, len(ended) - KEPT + 1)]:
            del self._jobs[old]
        job = Job(tool, arguments, work)
        self._jobs[job.id] = job
        self._tasks.start_soon(job.run)
        return job

    def get(self, tool: str, job: str) -> Job:
        """Return the job that `tool` started. Raises JobUnknown."""
        found = self._jobs.get(job)
        if found is None or found.tool != tool:
            raise JobUnknown(
                f"This server has no job {job!r} of {tool}: it belongs to another tool, ended long ago, or is from "
                "before a restart."
            )
        return found

    async def wait(self, job: Job, seconds: float, tell: Callable[[float, str], Awaitable[None]]) -> Model | Running:
        """Wait for the job's result; after `seconds` (0: never) return that it goes on. Raises what the job raised.

        `tell` gets a number that grows up to `TOTAL`, which it reaches when the job has succeeded, and words.
        Cancelling this call cancels the job, and waits until it has cleaned up.
        """
        until = time.monotonic() + seconds if seconds else float("inf")
        told, number, at = "", -LEAST_PROGRESS, 0.0
        try:
            while not job.done.is_set() and (left := until - time.monotonic()) > 0:
                words, now = describe(job.progress.state), 0.99 * TOTAL * job.progress.fraction
                if words != told or now >= number + 0.01 or time.monotonic() - at > SIGN_OF_LIFE_SECONDS:
                    told, number, at = words, max(now, number + LEAST_PROGRESS), time.monotonic()
                    await tell(round(number, 5), words)
                with anyio.move_on_after(min(LOOK, left)):
                    await job.done.wait()
            if job.result is not None:
                await tell(TOTAL, "done")
        except anyio.get_cancelled_exc_class():
            job.progress.cancel()
            with anyio.CancelScope(shield=True):
                await job.done.wait()
            raise
        if not job.done.is_set():
            return job.running()
        if job.error is not None:
            raise job.error
        assert job.result is not None
        return job.result

    def states(self) -> list[JobState]:
        """List the running jobs, oldest first."""
        return [
            JobState(
                job=job.id,
                tool=job.tool,
                stage=describe(job.progress.state),
                elapsed_seconds=round(job.elapsed, 1),
                done=False,
            )
            for job in self._jobs.values()
            if not job.done.is_set()
        ]

    async def shut_down(self) -> None:
        """Cancel every job and wait for their clean-up: 1.5 s, or up to 30 s from the moments of a swap on."""
        active = [job for job in self._jobs.values() if not job.done.is_set()]
        for job in active:
            job.progress.cancel()
        now = time.monotonic()
        until, last = now + SHUTDOWN_SECONDS, now + DEFERRED_SHUTDOWN_SECONDS
        while active := [job for job in active if not job.done.is_set()]:
            if any(job.progress.deferring for job in active):
                until = min(last, time.monotonic() + SHUTDOWN_SECONDS)
            if time.monotonic() > until:
                return
            await anyio.sleep(0.02)
