"""A cold copy: the files of a server that does not run, read through a helper container (`backup` of kind `volume`)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from .. import __version__
from ..errors import (
    BackupToolError,
    ContainerLost,
    ContainerNotRunning,
    ContainerPaused,
    DumpFailed,
    HostError,
    VolumeUnsupported,
)
from ..hosts import Exit, Host, Mount, Place, run
from ..hosts.helper import Sight
from ..hosts.volumes import running_with
from ..models import Compression, VolumeManifest
from ..postgres import controldata
from ..postgres.base_backup import BACKUP_MANIFEST
from ..postgres.controldata import ControlData, ControlDataDamaged
from ..progress import Progress
from ..store.writing import PartialFile
from . import archive, archive_checks, checks, record, volume
from .archive import PG_VERSION, Contents
from .beside import helper, output
from .journal import require_running
from .target import Target

E = TypeVar("E", bound=BackupToolError)

STOPPED = ("created", "exited", "dead")
"""Docker's words for a container in which nothing runs, and which nothing but a call will start."""
STOP_FIRST = (
    "If its server does not come up at all, run `docker compose stop postgres` in Scarlet's directory and call "
    "`backup` with kind volume again: it then copies the files."
)
NOT_COPIED = ("pgsql_tmp*", "lost+found")
"""What lies in a data directory without being the cluster's: temporary files, what restores have set aside, and what a
file system has in its root. Base backups skip the first as well ("Backing Up The Data Directory")."""
OF_A_SERVER = ("postmaster.pid", "postmaster.opts", ".s.PGSQL.*", BACKUP_MANIFEST)
"""Of a server that has run, or of the archive that it was restored from: new ones are made. Only in the root."""
SIGNALS = ("standby.signal", "recovery.signal")
SHOWN = 5
ENGLISH = {"LC_ALL": "C"}


@dataclass(frozen=True)
class Cluster:
    """What programs in the helper tell of the data directory. `bytes` is what its files take on the disk."""

    control: ControlData
    version: str
    version_num: int
    bytes: int
    warnings: list[str]


def stopped(target: Target) -> Place | None:
    """The place if its container has ended, so that its files can be copied; None while it runs.

    Raises RestoreInterrupted while a journal waits, ContainerNotRunning or ContainerPaused where neither is so.
    """
    try:
        require_running(target)
    except ContainerNotRunning as error:
        place = target.host.place()
        if place.state not in STOPPED:
            raise or_stopped(error) from None
        return place
    except ContainerPaused as error:
        raise or_stopped(error) from None
    return None


def or_stopped(error: E) -> E:
    """The same error with the way that is left where the server can't be had to run."""
    return type(error)(error.message, f"{error.remedy} {STOP_FIRST}")


def copy(
    target: Target, progress: Progress, label: str | None, compression: Compression
) -> tuple[VolumeManifest, list[str]]:
    """Copy the files, verify the copy and give it its name; gives warnings too. Call it under the directory's lock.

    Raises VolumeUnsupported where the data directory can't be copied so, DumpFailed when something wrote there
    meanwhile or the copy is not whole, or what `stopped` and the helper raise; no file is left behind.
    """
    created_at = datetime.now(UTC)
    place = stopped(target)
    if place is None:
        raise DumpFailed(f"The {target.describe()} was started just now.", "Call `backup` again.")
    mount = _mount(place)
    _require_unused(mount)
    name = target.directory.new_name(target.settings.prefix, compression, "volume")
    partial = PartialFile(target.directory.path / name)
    try:
        sight = Sight(container=place.container_id, read_only=True)
        with helper(target, place.image_id or "", sight, progress) as host:
            cluster = _examine(host, place, progress)
            record.require_room(target, int(cluster.bytes * volume.ROOM[compression]), "these files")
            progress.stage("copying the files", cluster.bytes)
            written = archive.write(
                host,
                _tar(_directory(place)),
                partial,
                compression,
                progress,
                env=ENGLISH,
                total=cluster.bytes,
                failure=_error,
            )
            _require_untouched(target, place, mount, host, cluster)
        _require_whole(written)
        partial.finish()
        archive.read_back(partial, compression, written, progress)
        manifest = VolumeManifest(
            name=name,
            kind="volume",
            compression=compression,
            created_at=created_at,
            finished_at=datetime.now(UTC),
            label=label,
            identity=record.identity(
                target,
                system_identifier=cluster.control.system_identifier,
                version=cluster.version,
                version_num=cluster.version_num,
                database_oid=None,
            ),
            cold=True,
            pg_basebackup_version=None,
            tool_version=__version__,
            bytes=partial.bytes,
            sha256=partial.sha256,
            site=volume.site_of(place, None),
            databases=[],
            cluster_bytes=None,
            tables=[],
            quiet=None,
            tar_bytes=written.tar_bytes,
            files=len(written.contents.files),
            backup_manifest_sha256=None,
            start_lsn=None,
            end_lsn=None,
            wal=archive_checks.wal_of(written.contents),
            rows=None,
            integrity_table=target.settings.integrity_table,
            integrity_rows=None,
            shrunk=False,
            shrunk_reasons=[],
            last_full=None,
        )
        progress.check()
        with progress.uninterrupted():
            target.directory.publish(partial, manifest, failed=[])
    except BaseException:
        partial.discard()
        raise
    return manifest, [*cluster.warnings, *_warnings_of(written.contents)]


# -- before the copy -------------------------------------------------------------------------------------------------


def _directory(place: Place) -> str:
    return place.data_directory or ""


def _mount(place: Place) -> Mount:
    """What the data directory lies on. Raises VolumeUnsupported where a helper would not see all of it."""
    mount = place.data_mount
    if mount is None or mount.kind == "tmpfs":
        where = "in the container itself" if mount is None else "in memory"
        raise VolumeUnsupported(
            f"The data directory {place.data_directory} of the container {place.container} lies {where}, on no volume "
            "that a helper container could read.",
            f"Start that very container (`docker start {place.container}`: a new one would not have the data) and call "
            "`backup` again.",
        )
    if place.mounts_inside:
        raise VolumeUnsupported(
            f"Other volumes or directories are mounted inside of the data directory ({_words(place.mounts_inside)}), "
            "and one archive can hold the data directory only.",
            "Start the server and take an SQL backup with kind sql.",
        )
    return mount


def _words(mounts: list[Mount]) -> str:
    return ", ".join(mount.destination for mount in mounts)


def _require_unused(mount: Mount) -> None:
    """Raises VolumeUnsupported where a container that runs might write there."""
    if users := running_with(mount.source):
        raise VolumeUnsupported(
            f"{mount.source}, in which the data directory lies, is in use by {', '.join(users)}: what is copied while "
            "somebody may write is torn.",
            f"Stop it (`docker stop {users[0]}`) and call `backup` again; or, if it is the server, set "
            "SCARLET_BACKUP_CONTAINER to its name.",
        )


def _examine(host: Host, place: Place, progress: Progress) -> Cluster:
    progress.stage("looking at the files")
    directory = _directory(place)
    if missing := [name for name in archive_checks.NEEDED if not _is_file(host, f"{directory}/{name}")]:
        raise VolumeUnsupported(
            f"There is no cluster of PostgreSQL in {directory} of the container {place.container}: "
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing.",
            "If the server keeps its data elsewhere, set PGDATA in the container's environment. An empty volume holds "
            "nothing to back up: `list_backups` shows what can be restored.",
        )
    if odd := _neither_files_nor_directories(host, directory):
        raise VolumeUnsupported(
            "There is something in the data directory that is neither a file nor a directory, as tablespaces and a "
            f"pg_wal that lies elsewhere are: {', '.join(odd[:SHOWN])}. One archive can hold the data directory only.",
            "Start the server and take an SQL backup with kind sql.",
        )
    control = _control(host, directory)
    major = output(host, ["cat", f"{directory}/{PG_VERSION}"])
    program = ""
    with suppress(HostError):  # one that does not start is of no use anyway
        program = output(host, ["postgres", "--version"]).strip()
    try:
        version, version_num = controldata.version_of(major, program)
    except ControlDataDamaged as error:
        raise _unreadable(directory, str(error)) from None
    warnings = ["The server did not run, so its files were copied as they lay: nobody counted its rows."]
    if not control.clean:
        warnings.append(
            f"It was not shut down in an orderly way (pg_controldata says: {control.state}): from this copy it starts "
            "as after a crash."
        )
    if version == major.strip():
        warnings.append(
            f"The files are of PostgreSQL {version}, and the image's program is {program or 'none that starts'}: it "
            "can't read them."
        )
    return Cluster(control, version, version_num, _bytes(host, directory), warnings)


def _is_file(host: Host, path: str) -> bool:
    ended = run(host, ["test", "-f", path])
    if ended.code not in (0, 1):
        raise HostError(f"{path} could not be looked for in the helper container: {ended.stderr.strip()}")
    return ended.code == 0


def _control(host: Host, directory: str) -> ControlData:
    """Raises VolumeUnsupported when it can't be read."""
    try:
        return controldata.parse(output(host, ["pg_controldata", directory]))
    except (ControlDataDamaged, HostError) as error:
        raise _unreadable(directory, str(error)) from None


def _unreadable(directory: str, why: str) -> VolumeUnsupported:
    return VolumeUnsupported(
        f"The files in {directory} can't be told to be a cluster of PostgreSQL: {why}.",
        "Keep them before anything else is done: `docker cp` copies them out of a stopped container as they are.",
    )


def _neither_files_nor_directories(host: Host, directory: str) -> list[str]:
    """Paths in the data directory; sockets, which nobody misses, are none."""
    kinds = ["!", "-type", "f", "!", "-type", "d", "!", "-type", "s"]
    found = output(host, ["find", f"{directory}/", *_left_alone("-prune", "-o"), *kinds, "-print"])
    return [path.removeprefix(directory).lstrip("/") for path in found.splitlines()]


def _bytes(host: Host, directory: str) -> int:
    """What is to be copied, as its blocks on the disk tell."""
    entries = ["find", f"{directory}/", "-mindepth", "1", "-maxdepth", "1", *_left_alone("-prune", "-o")]
    sizes = output(host, [*entries, "-exec", "du", "-sk", "{}", "+"])
    return sum(int(line.partition("\t")[0]) * 1024 for line in sizes.splitlines() if line[:1].isdigit())


def _left_alone(*then: str) -> list[str]:
    """Words for `find`: whatever is not copied, and what to do with it."""
    first, second = NOT_COPIED
    return ["(", "-name", first, "-o", "-name", second, ")", *then]


def _tar(directory: str) -> list[str]:
    """What GNU's and busybox's tar understand. Members are `./PG_VERSION` and so on."""
    left_out = [*NOT_COPIED, *(f"./{name}" for name in OF_A_SERVER)]
    return ["tar", "-C", directory, *(f"--exclude={pattern}" for pattern in left_out), "-cf", "-", "."]


# -- after it --------------------------------------------------------------------------------------------------------


def _error(ended: Exit) -> BackupToolError:
    said = ended.stderr.strip()
    if ended.code is None or ended.code == 137:
        return ContainerLost(f"The helper container or its engine went away during the copy. {said}".strip())
    return DumpFailed(
        f"tar could not copy the files (exit code {ended.code}): {said or 'it said nothing'}",
        "See with `docker ps` whether something writes there, check the disk, and call `backup` again.",
    )


def _require_untouched(target: Target, place: Place, mount: Mount, host: Host, cluster: Cluster) -> None:
    """Raises DumpFailed if a server may have run on the files since they were looked at."""
    now = target.host.place()
    others = [name for name in running_with(mount.source) if name != host.place().container]
    if (now.container_id, now.state, now.started_at) != (place.container_id, place.state, place.started_at):
        happened = f"the container {now.container} was {now.state} when it ended"
    elif others:
        happened = f"{', '.join(others)} had {mount.source} mounted when it ended"
    elif _control(host, _directory(place)) != cluster.control:
        happened = "its control file was written meanwhile"
    else:
        return
    raise DumpFailed(
        f"A server may have written while its files were copied: {happened}. The copy is thrown away.",
        "Call `backup` again: of a server that runs it takes a consistent copy.",
    )


def _require_whole(written: archive.Written) -> None:
    """Raises DumpFailed unless all of it was read without a complaint."""
    if written.said:
        raise _error(Exit(0, "\n".join(written.said)))
    data_directory = archive_checks.data_directory(written.contents)
    if not data_directory.ok or written.contents.odd or written.contents.root:
        wrong = [*written.contents.odd[:SHOWN], *([] if data_directory.ok else [checks.describe([data_directory])])]
        raise DumpFailed(f"tar ended without an error, but the copy is no whole data directory: {'; '.join(wrong)}.")


def _warnings_of(contents: Contents) -> list[str]:
    return [
        f"It holds {name}: a server that is started on it comes up as a standby or in recovery, not as it was."
        for name in SIGNALS
        if name in contents.files
    ]
