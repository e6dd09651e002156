"""The moments of a volume's restore in which no server runs, under the journal; how it is finished or put back.

Before anything is moved a mark is set in the data directory, and then the journal says `exchanging`; the mark goes
after the journal. So what a later call sees of a restore that was cut off in between is either marked, or not what the
journal tells of: another volume of that name, or another mount's view.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager, suppress

from ...errors import BackupToolError, Cancelled, RestoreFailed, RestoreInterrupted
from ...hosts import Place
from ...hosts.docker.helper import Sight
from ...models.results import DependentReport
from ...progress import Progress
from ..context import Target
from . import journal as journals
from .helper_container import helper, require_alone
from .journal import StoppedContainer, VolumeJournal
from .volume_layout import Contents

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
REJECTING = "rejecting connections"
"""pg_isready's words for a server that is at its recovery, for example."""


@contextmanager
def contents_at(target: Target, journal: VolumeJournal, progress: Progress) -> Generator[Contents]:
    """The data directory that the journal is about, through a helper container."""
    sight = Sight(journal.container_id, journal.site.volume, journal.site.mounted_at)
    with helper(target, journal.image_id, sight, progress) as host:
        yield Contents(host, journal.site.data_directory, journal.stamp)


def exchange(
    target: Target, contents: Contents, journal: VolumeJournal, incoming: str, progress: Progress
) -> float | None:
    """Stop what has to be stopped, exchange the contents, start the server; gives the seconds in which it was away, or
    None without a container. Whatever fails, or a cancellation while the server starts, puts all back as it was."""
    began = time.monotonic()
    try:
        with progress.uninterrupted():
            for container in journal.dependents:
                target.host.stop_container(container.id)
            if journal.container_id is not None:
                progress.stage("stopping the server")
                stop(target, journal.container_id)
            progress.stage("exchanging the contents of the volume")
            contents.set_mark()
            journals.write(target.directory.path, journal.model_copy(update={"exchanging": True}))
            contents.take_out(lambda: _require_stopped(target, journal))
            contents.put_in(incoming)
            if journal.container_id is None:
                return None
            progress.stage("starting the server")
            target.host.start_container(journal.container_id)
        wait_until_ready(target, progress)
    except BaseException as error:
        with progress.uninterrupted():
            roll_back(target, contents, journal, error)
        raise
    return time.monotonic() - began


def _end(target: Target, contents: Contents) -> None:
    """Forget the journal, then the mark, and those of calls that were killed between the two."""
    journals.remove(target.directory.path)
    with suppress(BackupToolError):  # empty directories, in nobody's way
        contents.remove_marks()


def stop(target: Target, container_id: str) -> None:
    """Stop the server's container. Raises RestoreFailed if it goes on, or was started again."""
    before = target.host.place().started_at
    target.host.stop_container(container_id, STOP_SECONDS)
    place = target.host.place()
    if place.state in STOPPED:
        return
    if place.started_at != before:
        raise _started_again(place)
    raise RestoreFailed(f"The container did not stop: it is {place.state}.")


def _started_again(place: Place) -> RestoreFailed:
    return RestoreFailed(f"Somebody else has started the container, which was stopped: it is {place.state}.")


def _require_stopped(target: Target, journal: VolumeJournal) -> None:
    """Raises RestoreFailed if somebody has started the server since it was stopped, PreflightFailed if another one."""
    place = target.host.place() if journal.container_id is not None else None
    if place is not None and place.state not in STOPPED:
        raise _started_again(place)
    require_alone_on_it(target, journal, place)


def require_alone_on_it(target: Target, journal: VolumeJournal, place: Place | None) -> None:
    """Raises what `beside.require_alone` does where another container has the volume, too."""
    mount = place.data_mount if place else None
    source = mount.source if mount else journal.site.volume
    if source:
        require_alone(target, source, place)


def wait_until_ready(target: Target, progress: Progress) -> None:
    """Until the server answers and its container's health check, if there is one, has had its say. Raises RestoreFailed
    when it ends, or comes to no end of its recovery."""
    began, first_start = time.monotonic(), target.host.place().started_at
    while True:
        progress.check()
        place, waited = target.host.place(), time.monotonic() - began
        if place.state != "running" or place.started_at != first_start:
            raise _does_not_come_up(target, place, f"its container is {place.state}, and did not stay up")
        ready, said = _is_ready(target)
        if ready and (place.health != "starting" or waited > HEALTH_SECONDS):
            return
        given_up = REJECTING not in said and (place.health == "unhealthy" or waited > SILENT_SECONDS)
        if not ready and (given_up or waited > READY_SECONDS):
            raise _does_not_come_up(target, place, said)
        time.sleep(0.2)


def _is_ready(target: Target) -> tuple[bool, str]:
    try:
        target.server.where.forget()  # another cluster may run there than before
        return target.server.ready()
    except BackupToolError as error:
        return False, error.message


def _does_not_come_up(target: Target, place: Place, said: str) -> RestoreFailed:
    try:
        log = target.host.container_log(place.container_id or "", LOG_LINES).strip()
    except BackupToolError as error:
        log = error.message
    return RestoreFailed(f"The server does not come up: {said}. Its log ends:\n{log}\n")


# -- back ------------------------------------------------------------------------------------------------------------


def roll_back(target: Target, contents: Contents, journal: VolumeJournal, error: BaseException) -> None:
    """As it was before, and running if it ran. Raises RestoreInterrupted when that fails: then the journal stays."""
    try:
        reports = _put_back_somehow(target, contents, journal)
    except BackupToolError as problem:
        why = error.message if isinstance(error, BackupToolError) else type(error).__name__
        raise RestoreInterrupted(
            f"The restore failed ({why}), and the old contents could not be put back yet: {problem.message} What is "
            f"not in {contents.directory} of them is in {contents.aside}, {contents.returning} or {contents.outgoing}.",
            "Mend what the message names, then call `restore` or `backup`: it goes on putting them back.",
        ) from error
    down = [f"{report.name}: {report.detail}" for report in reports if report.action == "start failed"]
    if isinstance(error, BackupToolError):
        if not isinstance(error, Cancelled):
            error.message += " The volume's contents are as they were before."
        if down:
            error.message += f" Not everything could be started again: {'; '.join(down)}"


def _put_back_somehow(target: Target, contents: Contents, journal: VolumeJournal) -> list[DependentReport]:
    """With a new helper, if it was the old one that has failed."""
    try:
        return put_back(target, contents, journal)
    except BackupToolError:
        with contents_at(target, journal, Progress()) as anew:
            return put_back(target, anew, journal)


def put_back(
    target: Target, contents: Contents, journal: VolumeJournal, *, keep: bool = False
) -> list[DependentReport]:
    """Undo what was done, however far it got; start what ran; forget the journal. What can't be started is told. With
    `keep` what was to come in stays beside, with all that has come to lie there meanwhile."""
    if contents.turn_back():
        if journal.container_id is not None and target.host.place().state not in STOPPED:
            stop(target, journal.container_id)
        incoming = contents.set_aside(journal.undo) if journal.undo else contents.incoming
        contents.put_back(incoming, lambda: _require_stopped(target, journal))
    contents.remove(contents.unpacked, *([] if keep else [contents.incoming]))
    reports: list[DependentReport] = []
    if journal.container_id is not None and journal.was_running:
        server = StoppedContainer(id=journal.container_id, name=journal.container or journal.container_id)
        reports += journals.start(target, [server])
        _wait_a_while(target)
    reports += journals.start(target, journal.dependents)
    _end(target, contents)
    return reports


def _wait_a_while(target: Target) -> None:
    """Dependents want a server that answers. One that did not come up before either is nobody's fault here."""
    until = time.monotonic() + AGAIN_SECONDS
    with suppress(BackupToolError):
        while target.host.place().state in ("running", "restarting") and time.monotonic() < until:
            if _is_ready(target)[0]:
                return
            time.sleep(0.2)


def finish(target: Target, contents: Contents, journal: VolumeJournal) -> list[DependentReport]:
    """After the server was seen to run: start dependents, and let only the newest undo point stay."""
    journals.write(target.directory.path, journal.model_copy(update={"checked": True}))
    reports = journals.start(target, journal.dependents)
    stamps = contents.undo_stamps()
    empty = [stamp for stamp in stamps if contents.is_empty(contents.set_aside(stamp))]
    kept = journal.stamp in stamps and journal.stamp not in empty
    older = [stamp for stamp in stamps if stamp != journal.stamp] if kept else []
    contents.remove_dropped()
    contents.remove(*(contents.set_aside(stamp) for stamp in {*empty, *older}), contents.unpacked, contents.incoming)
    _end(target, contents)
    return reports


# -- what was cut off ------------------------------------------------------------------------------------------------
