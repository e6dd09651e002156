"""Containers that are stopped while a set is made, and started again whatever happens.

A journal in the backup directory names each before it is asked to stop; if this process is killed, the next call starts
them. Nothing is ever killed: a container that does not end is left running."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import ValidationError

from ...errors import BackupToolError, HostError, RestoreInterrupted, StoreError, StoreNotStopped
from ...hosts.docker.engine import IDLE, Answer, Engine, EngineRefused, find_endpoint
from ...models.common import OpenModel, Utc
from ...models.results import DependentReport
from ...progress import Progress
from ...store import sidecars
from ...store.lock import writer_lock
from ...store.names import STOPPED
from ...store.writing import delete, sync_directory, write_atomically
from ..call_notes import CallNotes
from ..context import BackupContext
from .journal import StoppedContainer, start

STOP_SECONDS = 120
"""How long a container may take to end, unless its own StopTimeout is longer."""
LATE_SECONDS = 15
"""How long to wait for the end of one that was asked to end, before it is started again."""
STILL_STOPPING = timedelta(minutes=10)
"""How long after its beginning a killed call's last container may still be about to end."""
KILLED = 137
"""Exit code of a program that was killed, for example by the kernel for want of memory."""
_POLL = 0.1


class StoppedJournal(OpenModel):
    """What is stopped, or was about to be."""

    journal_version: Literal["stopped 1"] = "stopped 1"
    containers: list[StoppedContainer]
    started_at: Utc


class Stopping:
    """Stops containers of the context's engine and starts them again. Make it with `stopping`."""

    def __init__(self, context: BackupContext, progress: Progress, engine: Engine) -> None:
        self._context, self._progress, self._engine = context, progress, engine
        self._stopped: list[StoppedContainer] = []
        self._ended: set[str] = set()
        self._began = datetime.now(UTC)

    def stop(self, container_id: str, name: str) -> None:
        """Ask a running container to end, and wait until it has. Raises StoreNotStopped if it does not, or was killed,
        HostError, Cancelled."""
        self._progress.stage(f"stopping {name}")
        settings: Answer = self._engine.inspect_container(container_id)["Config"]
        asked = StoppedContainer(id=container_id, name=name)
        self._write([*self._stopped, asked])
        self._stopped.append(asked)
        try:
            self._engine.signal_container(container_id, settings.get("StopSignal") or "SIGTERM")
        except EngineRefused:  # so it was not asked
            self._stopped.remove(asked)
            self._write(self._stopped)
            raise
        seconds = max(STOP_SECONDS, settings.get("StopTimeout") or 0)
        until = time.monotonic() + seconds
        while (state := self._engine.inspect_container(container_id)["State"])["Status"] not in IDLE:
            if time.monotonic() > until:
                raise StoreNotStopped(f"{name} was asked to stop, and still runs after {seconds} s.")
            self._progress.check()
            time.sleep(_POLL)
        self._ended.add(container_id)
        if state["ExitCode"] == KILLED:
            raise StoreNotStopped(f"{name} was killed while it stopped (exit code {KILLED}): its data may be torn.")

    def start(self, container_id: str) -> list[DependentReport]:
        """Start one again that `stop` has stopped; no other."""
        mine = [container for container in self._stopped if container.id == container_id]
        return self._start(mine)

    def start_all(self) -> list[DependentReport]:
        """Start all that are still stopped, the last one first. One that was asked to end and has not is given some
        seconds more to end first."""
        return self._start(self._stopped[::-1])

    def _start(self, containers: list[StoppedContainer]) -> list[DependentReport]:
        reports = list[DependentReport]()
        for container in containers:
            if self._has_ended(container):
                reports += start(self._context, [container])
            else:
                detail = "It was asked to stop, and may still do so: see in a minute whether it runs."
                reports.append(DependentReport(name=container.name, action="start failed", detail=detail))
            if reports[-1].action != "start failed":
                self._stopped.remove(container)
        if reports:
            self._write(self._stopped)
        return reports

    def _has_ended(self, container: StoppedContainer) -> bool:
        """Tell whether it has ended, or is gone; whoever runs one that had ended has started it since."""
        return container.id in self._ended or _ends(self._engine, container)

    def _write(self, containers: list[StoppedContainer]) -> None:
        if containers:
            journal = StoppedJournal(containers=containers, started_at=self._began)
            _keep(self._context, journal)
        else:
            _forget(self._context)


@contextmanager
def stopping(context: BackupContext, progress: Progress, warnings: list[str]) -> Generator[Stopping]:
    """Start whatever was stopped in the block when that ends, however it ends; add to `warnings` what could not be
    started. Call it under the directory's lock."""
    engine = Engine(find_endpoint(os.environ))
    made = Stopping(context, progress, engine)
    try:
        yield made
    except BaseException as error:
        with progress.uninterrupted():
            down = _down(made.start_all())
        if down and isinstance(error, BackupToolError):
            error.message += " " + " ".join(down)
        raise
    else:
        with progress.uninterrupted():
            warnings += _down(made.start_all())
    finally:
        engine.close()


def _ends(engine: Engine, container: StoppedContainer) -> bool:
    """Wait some seconds for the end of one that was asked for: to start it before would do nothing, and then it would
    end."""
    until = time.monotonic() + LATE_SECONDS
    with suppress(HostError):  # whoever starts it gets the error
        while engine.inspect_container(container.id)["State"]["Status"] not in IDLE:
            if time.monotonic() > until:
                return False
            time.sleep(_POLL)
    return True


def _is_there(engine: Engine, container: StoppedContainer) -> bool:
    """Tell whether it, or what Compose created again under its name, exists."""
    for name in (container.id, container.name):
        try:
            engine.inspect_container(name)
            return True
        except EngineRefused as refused:
            if refused.status != 404:
                raise
    return False


def settle_stopped(context: BackupContext, notes: CallNotes) -> None:
    """Start what a killed call left stopped, under the directory's lock, if there is anything; what can't be started is
    tried again by the next call. Raises Busy while that call runs, RestoreInterrupted if its journal can't be read,
    EngineUnreachable."""
    if _read(context) is None:
        return
    with writer_lock(context.directory.path, "settle"):
        journal = _read(context)
        if journal is None:
            return
        engine = Engine(find_endpoint(os.environ))
        try:
            if datetime.now(UTC) - journal.started_at < STILL_STOPPING:
                _ends(engine, journal.containers[-1])  # the others had ended before it was asked
            tried = journal.containers[::-1]
            reports = start(context, tried)
            failed = [one for one, report in zip(tried, reports, strict=True) if report.action == "start failed"]
            left = [container for container in failed if _is_there(engine, container)]
        finally:
            engine.close()
        if left:
            _keep(context, journal.model_copy(update={"containers": left[::-1]}))
        else:
            _forget(context)
        notes.settled.append(
            "A backup of the whole memory was interrupted: "
            + ", ".join(f"{report.name} {report.action} {report.detail}".strip() for report in reports)
            + "."
        )


def waiting(context: BackupContext) -> str | None:
    """Describe what is stopped, and by what; None if nothing is. Raises RestoreInterrupted."""
    journal = _read(context)
    if journal is None:
        return None
    names = ", ".join(container.name for container in journal.containers)
    return (
        f"{names}: stopped for a backup of the whole memory that is running, or was interrupted; unless it is still "
        "running, the next backup starts them first."
    )


def _read(context: BackupContext) -> StoppedJournal | None:
    path = context.directory.path / STOPPED
    try:
        text = sidecars.read(path)
        return None if text is None else StoppedJournal.model_validate_json(text)
    except (ValidationError, StoreError) as error:
        raise RestoreInterrupted(
            f"{path}, which names the containers that a backup of the whole memory has stopped, can't be read.",
            "See in `docker compose ps -a` which services are stopped, start them, and remove that file.",
        ) from error


def _keep(context: BackupContext, journal: StoppedJournal) -> None:
    write_atomically(context.directory.path / STOPPED, journal.model_dump_json(indent=1).encode())


def _forget(context: BackupContext) -> None:
    delete(context.directory.path / STOPPED)
    sync_directory(context.directory.path)


def _down(reports: list[DependentReport]) -> list[str]:
    return [
        f"{report.name} is not started again: {report.detail} Start it by hand (`docker start {report.name}`)."
        for report in reports
        if report.action == "start failed"
    ]
