"""The moments of a volume's restore in which no server runs, under the journal; how it is finished or put back.

Before anything is moved a mark is set in the data directory, and then the journal says `exchanging`; the mark goes
after the journal. So what a later call sees of a restore that was cut off in between is either marked, or not what the
journal tells of: another volume of that name, or another mount's view.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager, suppress

from ...errors import BackupToolError, Cancelled, NextCall, RestoreFailed, RestoreInterrupted
from ...hosts import ContainerInfo
from ...hosts.docker.helper import HelperMounts
from ...models.results import DependentReport
from ...postgres.server.session import Readiness
from ...progress import Progress
from ..context import BackupContext
from . import journal as journals
from .helper_container import helper, require_alone
from .journal import StoppedContainer, VolumeJournal
from .volume_layout import VolumeLayout

STOP_SECONDS = 120
"""For the server's last checkpoint; one that is killed then recovers when it starts again."""
READY_SECONDS = 3600
"""For the server's recovery, as long as it is at it."""
SILENT_SECONDS = 300
"""For a server that does not say that it is at it."""
HEALTH_SECONDS = 60
"""For the health check, once the server answers."""
AGAIN_SECONDS = 60
"""For a server that runs on its old contents again, before what depends on it is started."""
STOPPED = ("exited", "created", "dead")
"""Docker's words for a container in which nothing runs."""
LOG_LINES = 15


@contextmanager
def contents_at(context: BackupContext, journal: VolumeJournal, progress: Progress) -> Generator[VolumeLayout]:
    """Yield the data directory that the journal is about, through a helper container."""
    mounts = HelperMounts(journal.container_id, journal.site.volume, journal.site.mounted_at)
    with helper(context, journal.image_id, mounts, progress) as host:
        yield VolumeLayout(host, journal.site.data_directory, journal.stamp)


def exchange(
    context: BackupContext, contents: VolumeLayout, journal: VolumeJournal, incoming: str, progress: Progress
) -> float | None:
    """Stop what has to be stopped, exchange the contents, start the server; gives the seconds in which it was away, or
    None without a container. Whatever fails, or a cancellation while the server starts, puts all back as it was."""
    began = time.monotonic()
    try:
        with progress.uninterrupted():
            for container in journal.dependents:
                context.host.stop_container(container.id)
            if journal.container_id is not None:
                progress.stage("stopping the server")
                stop(context, journal.container_id)
            progress.stage("exchanging the contents of the volume")
            contents.set_mark()
            journals.write(context.directory.path, journal.model_copy(update={"exchanging": True}))
            contents.take_out(lambda: _require_stopped(context, journal))
            contents.put_in(incoming)
            if journal.container_id is None:
                return None
            progress.stage("starting the server")
            context.host.start_container(journal.container_id)
        wait_until_ready(context, progress)
    except BaseException as error:
        with progress.uninterrupted():
            roll_back(context, contents, journal, error)
        raise
    return time.monotonic() - began


def _end(context: BackupContext, contents: VolumeLayout) -> None:
    """Forget the journal, then the mark, and those of calls that were killed between the two."""
    journals.remove(context.directory.path)
    with suppress(BackupToolError):  # empty directories, in nobody's way
        contents.remove_marks()


def stop(context: BackupContext, container_id: str) -> None:
    """Stop the server's container. Raises RestoreFailed if it goes on, or was started again."""
    before = context.host.container_info().started_at
    context.host.stop_container(container_id, STOP_SECONDS)
    container_info = context.host.container_info()
    if container_info.state in STOPPED:
        return
    if container_info.started_at != before:
        raise _started_again(container_info)
    raise RestoreFailed(f"The container did not stop: it is {container_info.state}.")


def _started_again(container_info: ContainerInfo) -> RestoreFailed:
    return RestoreFailed(f"Somebody started the stopped container again: it is {container_info.state}.")


def _require_stopped(context: BackupContext, journal: VolumeJournal) -> None:
    """Raise RestoreFailed if somebody started the server since it was stopped, PreflightFailed if another one."""
    container_info = context.host.container_info() if journal.container_id is not None else None
    if container_info is not None and container_info.state not in STOPPED:
        raise _started_again(container_info)
    require_alone_on_it(context, journal, container_info)


def require_alone_on_it(context: BackupContext, journal: VolumeJournal, container_info: ContainerInfo | None) -> None:
    """Raise what `helper_container.require_alone` does if another container has the volume, too."""
    mount = container_info.data_mount if container_info else None
    source = mount.source if mount else journal.site.volume
    if source:
        require_alone(context, source, container_info)


def wait_until_ready(context: BackupContext, progress: Progress) -> None:
    """Wait until the server answers, and its container's health check, if there is one, has ended. Raises RestoreFailed
    if the server ends, or does not finish its recovery."""
    began, first_start = time.monotonic(), context.host.container_info().started_at
    while True:
        progress.check()
        container_info, waited = context.host.container_info(), time.monotonic() - began
        if container_info.state != "running" or container_info.started_at != first_start:
            raise _does_not_come_up(
                context, container_info, f"its container is {container_info.state}, and did not keep running"
            )
        ready, said, rejects, _ = _is_ready(context)
        if ready and (container_info.health != "starting" or waited > HEALTH_SECONDS):
            return
        given_up = not rejects and (container_info.health == "unhealthy" or waited > SILENT_SECONDS)
        if not ready and (given_up or waited > READY_SECONDS):
            raise _does_not_come_up(context, container_info, said)
        time.sleep(0.2)


def _is_ready(context: BackupContext) -> Readiness:
    try:
        context.server.where.forget()  # another cluster may run there than before
        return context.server.ready()
    except BackupToolError as error:
        return Readiness(False, error.message)


def _does_not_come_up(context: BackupContext, container_info: ContainerInfo, said: str) -> RestoreFailed:
    try:
        log = context.host.container_log(container_info.container_id or "", LOG_LINES).strip()
    except BackupToolError as error:
        log = error.message
    return RestoreFailed(f"The server does not start: {said}. Its log ends:\n{log}\n")


# -- back ------------------------------------------------------------------------------------------------------------


def roll_back(context: BackupContext, contents: VolumeLayout, journal: VolumeJournal, error: BaseException) -> None:
    """Put everything back, running if it ran. Raises RestoreInterrupted if that fails: then the journal stays."""
    try:
        reports = _put_back_somehow(context, contents, journal)
    except BackupToolError as problem:
        why = error.message if isinstance(error, BackupToolError) else type(error).__name__
        raise RestoreInterrupted(
            f"The restore failed ({why}), and the old contents could not be put back yet: {problem.message} What is "
            f"missing in {contents.directory} is in {contents.aside}, {contents.returning} or {contents.outgoing}.",
            "Fix what the message names. The next backup or restore continues putting them back.",
            NextCall(tool="backup"),
        ) from error
    down = [f"{report.name}: {report.detail}" for report in reports if report.action == "start failed"]
    if isinstance(error, BackupToolError):
        if not isinstance(error, Cancelled):
            error.message += " The volume's contents are as before."
        if down:
            error.message += f" Not everything could be started again: {'; '.join(down)}"


def _put_back_somehow(context: BackupContext, contents: VolumeLayout, journal: VolumeJournal) -> list[DependentReport]:
    """Put everything back, with a new helper if the old one fails."""
    try:
        return put_back(context, contents, journal)
    except BackupToolError:
        with contents_at(context, journal, Progress()) as anew:
            return put_back(context, anew, journal)


def put_back(
    context: BackupContext, contents: VolumeLayout, journal: VolumeJournal, *, keep: bool = False
) -> list[DependentReport]:
    """Undo what was done, however far it got; start what ran; forget the journal. What can't be started is told. With
    `keep` what was to come in stays beside, with all that has come to lie there meanwhile."""
    if contents.turn_back():
        if journal.container_id is not None and context.host.container_info().state not in STOPPED:
            stop(context, journal.container_id)
        incoming = contents.set_aside(journal.undo) if journal.undo else contents.incoming
        contents.put_back(incoming, lambda: _require_stopped(context, journal))
    contents.remove(contents.unpacked, *([] if keep else [contents.incoming]))
    reports: list[DependentReport] = []
    if journal.container_id is not None and journal.was_running:
        server = StoppedContainer(id=journal.container_id, name=journal.container or journal.container_id)
        reports += journals.start(context, [server])
        _wait_a_while(context)
    reports += journals.start(context, journal.dependents)
    _end(context, contents)
    return reports


def _wait_a_while(context: BackupContext) -> None:
    """Wait for the server to answer, for its dependents. One that did not start before either is no failure here."""
    until = time.monotonic() + AGAIN_SECONDS
    with suppress(BackupToolError):
        while context.host.container_info().state in ("running", "restarting") and time.monotonic() < until:
            if _is_ready(context)[0]:
                return
            time.sleep(0.2)


def finish(context: BackupContext, contents: VolumeLayout, journal: VolumeJournal) -> list[DependentReport]:
    """Start dependents, and keep only the newest undo point, after the server was seen to run."""
    journals.write(context.directory.path, journal.model_copy(update={"checked": True}))
    reports = journals.start(context, journal.dependents)
    stamps = contents.undo_stamps()
    empty = [stamp for stamp in stamps if contents.is_empty(contents.set_aside(stamp))]
    kept = journal.stamp in stamps and journal.stamp not in empty
    older = [stamp for stamp in stamps if stamp != journal.stamp] if kept else []
    contents.remove_dropped()
    contents.remove(*(contents.set_aside(stamp) for stamp in {*empty, *older}), contents.unpacked, contents.incoming)
    _end(context, contents)
    return reports


# -- what was cut off ------------------------------------------------------------------------------------------------
