"""How an interrupted restore of a volume is settled by the next call: finished, rolled back, or said to be out of
reach. What is not seen to be gone is never taken for it: then the journal stays, and the message tells what to do."""

from __future__ import annotations

from ...errors import BackupToolError, Cancelled, ContainerMissing, RestoreFailed, RestoreInterrupted
from ...hosts import ContainerInfo
from ...hosts.docker.helper import first_present
from ...hosts.docker.volumes import engine_id, volume_exists
from ...progress import Progress
from ...store.lock import writer_lock
from ...store.names import JOURNAL
from ..call_notes import CallNotes
from ..context import BackupContext
from . import journal as journals
from .journal import VolumeJournal
from .stopped import settle_stopped
from .volume_exchange import contents_at, finish, put_back, require_alone_on_it, wait_until_ready
from .volume_layout import VolumeLayout


def settle_first(context: BackupContext, progress: Progress, notes: CallNotes) -> None:
    """Start what a killed backup of the whole memory left stopped, and settle a volume's interrupted restore, under the
    directory's lock, if there is any. Raises Busy, and what `settle_volume` and `settle_stopped` raise."""
    settle_stopped(context, notes)
    if isinstance(journals.read(context.directory.path), VolumeJournal):
        with writer_lock(context.directory.path, "settle"):
            settle_volume(context, progress, notes)


def settle_volume(context: BackupContext, progress: Progress, notes: CallNotes) -> None:
    """Finish or roll back a volume's interrupted restore, under the directory's lock. `notes.settled` says what
    was done. Raises RestoreInterrupted when it can't be done now.

    Once all new contents were in place somebody may have started the server and written: if it comes up on them, the
    restore is finished, since nothing is lost by that.
    """
    journal = journals.read(context.directory.path)
    if isinstance(journal, VolumeJournal):
        notes.settled += _settle(context, journal, progress)


def _settle(context: BackupContext, journal: VolumeJournal, progress: Progress) -> list[str]:
    what = f"A restore of {journal.source} into {journal.where} was interrupted"
    try:
        container_info = _present_container(context)
        same_engine = context.settings.via == "docker" and journal.engine in (None, engine_id())
        if container_info is not None and _is_anothers(journal, container_info, same_engine):
            return [f"{what}. It belongs to another container: take a backup of that one, or restore it."]
        progress.stage("settling an interrupted restore")
        moved = False
        if container_info is None or not journal.is_seen_by(container_info):
            moved = container_info is not None and journal.is_of(
                container_info
            )  # its server may have begun a cluster elsewhere in it
            container_info = None  # or made anew, with other contents or another view of them
            if _are_gone(context, journal, same_engine):
                journals.remove(context.directory.path)
                return [f"{what}, and its volume {journal.volume} is gone since: there is nothing to settle."]
        now = {
            "container_id": container_info.container_id if container_info else None,
            "image_id": _image(journal, container_info),
        }
        journal = journal.model_copy(update=now)
        require_alone_on_it(context, journal, container_info)
        with contents_at(context, journal, progress) as contents:
            _require_traces(context, contents, journal, same_engine)
            finished = journal.checked or (contents.is_exchanged and _comes_up(context, journal, progress))
            with progress.uninterrupted():
                if finished:
                    reports = finish(context, contents, journal)
                else:
                    reports = put_back(context, contents, journal, keep=moved)
            kept = moved and not finished and contents.exists(contents.incoming)
    except Cancelled:
        raise
    except BackupToolError as error:
        raise RestoreInterrupted(f"{what}, and can't be settled now: {error.message}", error.remedy) from error
    ended = "when its contents were in place: it is finished" if finished else "before its end: it is rolled back"
    notes = [f"{what} {ended} now.", *(f"{report.name}: {report.action} {report.detail}".strip() for report in reports)]
    if kept:
        notes.append(
            f"The container now mounts its volume differently, so the new contents are kept, with everything added "
            f"since, in {contents.incoming.rpartition('/')[2]}: remove it when nothing "
            "in it is needed."
        )
    return notes


def _is_anothers(journal: VolumeJournal, container_info: ContainerInfo, same_engine: bool) -> bool:
    """Tell whether the journal is of another container: it may have another name now, its volume counts."""
    if container_info.kind == "local":
        return True
    return journal.container not in (None, container_info.container) and not (
        same_engine and journal.is_of(container_info)
    )


def _image(journal: VolumeJournal, container_info: ContainerInfo | None) -> str:
    """Return the image whose programs see the contents. Raises RestoreInterrupted if it is gone."""
    found = container_info.image_id if container_info else first_present(journal.image_id)
    if found is None:
        raise RestoreInterrupted(
            f"there is no container with {journal.volume}, and its image is no longer on this machine.",
            "Run `docker compose create postgres` in Scarlet's directory, which makes the container, then try again.",
        )
    return found


def _require_traces(context: BackupContext, contents: VolumeLayout, journal: VolumeJournal, same_engine: bool) -> None:
    """Raise RestoreInterrupted if nothing that the journal records is to be seen, though it must be."""
    if journal.checked or (same_engine and not journal.exchanging):
        return
    old = (contents.outgoing, contents.returning, contents.aside)
    others = (contents.mark, contents.incoming, contents.unpacked)
    if any(contents.exists(path) for path in (*old, *others)):
        return
    if not same_engine:
        raise _elsewhere(context, journal)
    names = ", ".join(path.rpartition("/")[2] for path in old)
    raise RestoreInterrupted(
        f"{journal.volume} does not contain what that restore left: none of {names} is in it, but one of them had the "
        "old contents.",
        f"Look for those directories wherever {journal.volume} may have been moved or copied to, and mount it again as "
        f"it was, at {journal.site.mounted_at}; then try again. {_only_if_gone(context, journal)}",
    )


def _are_gone(context: BackupContext, journal: VolumeJournal, same_engine: bool) -> bool:
    """Tell whether the contents that no container has any more were removed. Raises RestoreInterrupted if they may
    still exist, but are out of reach."""
    mounted, site = journal.volume or "a directory of the engine's machine", journal.site
    if site.volume is None:
        raise RestoreInterrupted(
            f"its data directory is {mounted}, which the container {context.settings.container} does not have, or not "
            f"as it had it: at {site.mounted_at}, with PGDATA {site.data_directory}.",
            f"Make the container with {mounted} mounted again so (`docker compose create postgres`), then try again. "
            + _only_if_gone(context, journal),
        )
    if volume_exists(site.volume):
        return False
    if not same_engine:
        raise _elsewhere(context, journal)
    if journal.engine is not None and (journal.removable or not journal.exchanging):
        return True
    raise RestoreInterrupted(
        f"this Docker engine has no volume {mounted}"
        + ("." if journal.removable else ", but its contents may still exist elsewhere."),
        "Make the volume and the container again as they were (`docker compose create postgres`), or set DOCKER_HOST "
        f"or DOCKER_CONTEXT to the engine that has it, then try again. {_only_if_gone(context, journal)}",
    )


def _elsewhere(context: BackupContext, journal: VolumeJournal) -> RestoreInterrupted:
    return RestoreInterrupted(
        f"this is not the Docker engine that had the volume {journal.volume}.",
        f"Set DOCKER_HOST or DOCKER_CONTEXT to that engine, then try again. {_only_if_gone(context, journal)}",
    )


def _only_if_gone(context: BackupContext, journal: VolumeJournal) -> str:
    stopped = ", ".join(container.name for container in journal.dependents)
    start = f", and start by hand what it had stopped: {stopped}" if stopped else ""
    return f"Only if the old contents are gone for good, remove {context.directory.path / JOURNAL}{start}."


def _present_container(context: BackupContext) -> ContainerInfo | None:
    """Return the container, which may have been created again since; None without one."""
    try:
        return context.host.container_info()
    except ContainerMissing:
        return None


def _comes_up(context: BackupContext, journal: VolumeJournal, progress: Progress) -> bool:
    if journal.container_id is None:
        return True
    try:
        context.host.start_container(journal.container_id)
        wait_until_ready(context, progress)
    except RestoreFailed:
        return False
    return True
