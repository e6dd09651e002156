"""Examine the data directory of a stopped server, with programs in a helper container."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from ...errors import EngineUnreachable, HostError, VolumeUnsupported
from ...hosts import ContainerInfo, Host, run
from ...postgres.cluster import controldata
from ...postgres.cluster.controldata import ControlData, ControlDataDamaged
from ...store.names import JOURNAL
from ..reading.archive import PG_VERSION
from ..reading.archive_checks import NEEDED
from ..recovery.helper_container import output
from ..recovery.journal import BACK_BY_HAND
from ..recovery.volume_layout import OF_A_SERVER, PREFIX

NOT_COPIED = ("pgsql_tmp*", "lost+found", ".s.PGSQL.*")
"""What lies in a data directory and is not the cluster's: temporary files and undo points of restores (base backups
skip such names, too: "Backing Up The Data Directory"), what a file system has in its root, sockets."""
LEFT_ALONE = [word for name in NOT_COPIED for word in ("-name", name, "-prune", "-o")]
"""Arguments with which `find` passes over them."""
SHOWN = 5
BY_HAND = "If it does not start, save its files first: `docker cp` copies them out of a stopped container as they are."


@dataclass(frozen=True)
class StoppedCluster:
    """A data directory as programs in the helper see it. `bytes` is what its files take on the disk."""

    control: ControlData
    version: str
    version_num: int
    bytes: int
    warnings: list[str]


def examine(host: Host, container_info: ContainerInfo) -> StoppedCluster:
    """Examine the data directory. Raises VolumeUnsupported if there is none, or if an archive could not hold all of
    it."""
    directory = _path(container_info)
    if missing := [name for name in NEEDED if not _is_file(host, f"{directory}/{name}")]:
        if left := _left_by_restores(host, directory):
            raise VolumeUnsupported(
                f"There is no complete cluster of PostgreSQL in {directory} of the container "
                f"{container_info.container}, only what a restore has moved there: {', '.join(left)}.",
                f"A restore was interrupted there. Take a backup with the backup directory that has its {JOURNAL}: "
                f"that finishes it or rolls it back. Only if that file is lost: {BACK_BY_HAND}",
            )
        raise VolumeUnsupported(
            f"There is no cluster of PostgreSQL in {directory} of the container {container_info.container}: "
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing.",
            "If the server keeps its data elsewhere, set PGDATA in the container's environment. An empty volume holds "
            "nothing to back up: the list of backups shows what can be restored.",
        )
    if odd := _neither_files_nor_directories(host, directory):
        raise VolumeUnsupported(
            "The data directory contains something other than files and directories, such as tablespaces or a pg_wal "
            f"elsewhere: {', '.join(odd[:SHOWN])}. An archive contains the data directory only.",
            f"Start the server and take an SQL backup with kind sql. {BY_HAND}",
        )
    found = control(host, container_info)
    major = output(host, ["cat", f"{directory}/{PG_VERSION}"])
    program = ""
    with suppress(HostError):  # without it PG_VERSION has to do
        program = output(host, ["postgres", "--version"]).strip()
    try:
        version, version_num = controldata.version_of(major, program)
    except ControlDataDamaged as error:
        raise _unreadable(container_info, f"{error}.") from None
    warnings = ["The server was stopped, so its files were copied as they are: nobody counted its rows."]
    if not found.clean:
        warnings.append(
            f"It was not shut down cleanly (pg_controldata says: {found.state}): from this copy it starts as after a "
            "crash."
        )
    if program and version == major.strip():
        warnings.append(f"The files are of PostgreSQL {version}, which the image's program can't read: {program}.")
    return StoppedCluster(found, version, version_num, _bytes(host, directory), warnings)


def _left_by_restores(host: Host, directory: str) -> list[str]:
    found = bytearray()
    run(host, ["find", directory, "-mindepth", "1", "-maxdepth", "1", "-name", f"{PREFIX}_*"], sink=found.extend)
    return sorted(path.rpartition("/")[2] for path in found.decode(errors="replace").splitlines())


def _is_file(host: Host, path: str) -> bool:
    ended = run(host, ["test", "-f", path])
    if ended.code not in (0, 1):
        raise HostError(f"{path} could not be looked for in the helper container: {ended.stderr.strip()}")
    return ended.code == 0


def control(host: Host, container_info: ContainerInfo) -> ControlData:
    """Read its control data as it is now. Raises VolumeUnsupported if that can't be read."""
    try:
        return controldata.parse(output(host, ["pg_controldata", _path(container_info)]))
    except EngineUnreachable:
        raise
    except HostError as error:
        raise _unreadable(container_info, error.message) from None
    except ControlDataDamaged as error:
        raise _unreadable(container_info, f"{error}.") from None


def _unreadable(container_info: ContainerInfo, why: str) -> VolumeUnsupported:
    return VolumeUnsupported(f"The cluster in {container_info.data_directory} can't be identified: {why}", BY_HAND)


def _neither_files_nor_directories(host: Host, directory: str) -> list[str]:
    """List paths in the data directory."""
    found = output(host, ["find", f"{directory}/", *LEFT_ALONE, "!", "-type", "f", "!", "-type", "d", "-print"])
    return [path.removeprefix(directory).lstrip("/") for path in found.splitlines()]


def _bytes(host: Host, directory: str) -> int:
    """Sum the disk blocks of what is to be copied."""
    entries = ["find", f"{directory}/", "-mindepth", "1", "-maxdepth", "1", *LEFT_ALONE]
    sizes = output(host, [*entries, "-exec", "du", "-sk", "{}", "+"])
    return sum(int(line.partition("\t")[0]) * 1024 for line in sizes.splitlines() if line[:1].isdigit())


def tar(container_info: ContainerInfo) -> list[str]:
    """Return the command that copies it, for GNU's and busybox's tar. Members are `./PG_VERSION` and so on."""
    left_out = [*NOT_COPIED, *(f"./{name}" for name in OF_A_SERVER)]
    return ["tar", "-C", _path(container_info), *(f"--exclude={pattern}" for pattern in left_out), "-cf", "-", "."]


def _path(container_info: ContainerInfo) -> str:
    return container_info.data_directory or ""
