"""What a restore of a whole volume would do: found out before anything is asked or changed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath

from ...errors import (
    ArgumentsInvalid,
    BackupMissing,
    BackupToolError,
    ContainerMissing,
    ForeignRefused,
    OtherDatabaseRefused,
    PreflightFailed,
    again,
)
from ...hosts import ContainerInfo
from ...hosts.docker.helper import HelperMounts, first_present
from ...hosts.docker.volumes import volume_exists
from ...models.manifest import Site, VolumeManifest
from ...postgres.cluster.configuration import ConfigurationFinding, live_settings
from ...postgres.server import catalogue as pg
from ...postgres.server.counting import count_table
from ...progress import Progress
from .. import own_names
from ..backup.volume_copy import site_of
from ..catalog import records
from ..catalog.records import BackupRecord
from ..context import BackupContext
from ..own_names import ASIDE, VOLUME_UNDO
from ..reading import archive, archive_configuration
from ..reading.archive import Archive
from ..recovery.helper_container import require_alone
from . import size_guard
from .options import RestoreOptions
from .size_guard import Size
from .sql_plan import refuse_damaged

ANONYMOUS = re.compile(r"[0-9a-f]{64}")
"""The names that Docker gives to volumes that have none: no new container would find one."""


@dataclass(frozen=True)
class VolumePlan:
    """What would come into which data directory. `record` is the archive; None for an undo point, which is of `undo`'s
    stamp. `container_info` is None without a container. `databases` are those of the server now, if it could be asked.
    `brings` and `now` say how much of the configured database comes and is there, as far as it was counted; `now` is
    None if the server does not have it. `read` is a foreign archive, and `effects` what its configuration would do."""

    source: str
    options: RestoreOptions
    record: BackupRecord[VolumeManifest] | None
    sha256: str | None
    undo: str | None
    created_at: datetime
    container_info: ContainerInfo | None
    site: Site
    image: str
    databases: list[str]
    server_version: str
    brings: Size
    now: Size | None
    warnings: list[str]
    read: Archive | None = None
    effects: list[ConfigurationFinding] = field(default_factory=list[ConfigurationFinding])

    @property
    def identity(self) -> dict[str, str]:
        """What the audit log keeps of the source."""
        return {"source": self.source, **({"sha256": self.sha256} if self.sha256 else {})}

    @property
    def manifest(self) -> VolumeManifest | None:
        """What `backup` recorded; None for an undo point or a foreign archive."""
        return self.record.manifest if self.record else None

    @property
    def where(self) -> str:
        """The volume, in words."""
        what = f"the volume {self.site.volume}" if self.site.volume else f"what is mounted at {self.site.mounted_at}"
        if self.container_info is None:
            return what
        known = (
            f"Compose project {self.container_info.project}" if self.container_info.project else "",
            f"PostgreSQL {self.server_version}" if self.server_version else "",
        )
        about = f" ({', '.join(filter(None, known))})" if any(known) else ""
        return f"{what} of the container {self.container_info.container}{about}"

    @property
    def source_of_mount(self) -> str:
        """The volume, or the directory of the machine that is mounted in its place."""
        mount = self.container_info.data_mount if self.container_info else None
        return mount.source if mount else self.site.volume or ""

    @property
    def mounts(self) -> HelperMounts:
        """What a helper container has to see."""
        return HelperMounts(
            self.container_info.container_id if self.container_info else None, self.site.volume, self.site.mounted_at
        )

    @property
    def drills(self) -> bool:
        """Whether the archive is tried out in a sandbox first."""
        return self.options.drills(self.record)

    def comparison(self, table: str) -> str:
        """Describe what comes of the configured database and what it replaces, loudly if that is more."""
        return size_guard.compared(self.brings, self.now, table)

    def question(self, table: str) -> str:
        """Write the question that a user is asked before the restore."""
        kind, inside = "the undo point", ""
        manifest = self.manifest
        if self.record is not None:
            kind = "the volume backup"
            proved = self.record.proved_at
            inside = f", proved by a restore drill on {proved:%Y-%m-%d}" if proved else ", not proved by a drill"
        holds = f" (databases {', '.join(manifest.databases)})" if manifest and manifest.databases else ""
        now = ", ".join(self.databases) or "unknown, the server does not answer"
        return " ".join(
            [
                f"Restore {kind} {self.source} (of {self.created_at:%Y-%m-%d %H:%M:%S} UTC{inside}) into {self.where}? "
                f"The whole cluster comes back{holds}: every current database ({now}) is replaced, with roles, "
                "passwords and settings.",
                self.comparison(table),
                *self.warnings,
                "The server is stopped meanwhile. Its current contents are kept in the volume as an undo point; an "
                "older one of a volume is removed.",
            ]
        )


def undo_stamp(source: str) -> str | None:
    """Return the stamp in the name of a volume's undo point; None for any other name."""
    return source.removeprefix(VOLUME_UNDO) if own_names.stamped(VOLUME_UNDO, source) else None


def is_volume(context: BackupContext, source: str) -> bool:
    """Tell whether `source` names a volume's archive or undo point. Raises NameRefused or BackupMissing."""
    if undo_stamp(source) is not None:
        return True
    if source == "latest" or own_names.stamped(own_names.undo_prefix(context.database), source) is not None:
        return False
    return context.directory.find(source).name.kind == "volume"


def plan(
    context: BackupContext, progress: Progress, source: str, options: RestoreOptions, *, asked: bool = False
) -> VolumePlan:
    """Resolve `source` and look at what it would replace. If the user was `asked`, and so has seen how much each side
    has, that is not counted again. Reads only. Raises RestoreRefused's children, BackupMissing, HostError."""
    progress.stage("looking at the source and the volume")
    if options.code_page is not None or options.accept_violations:
        raise ArgumentsInvalid(
            f"{source} is a backup of a whole volume: it has no code page, and no constraint is checked when it comes "
            "back.",
            "Leave these two arguments out.",
            again(code_page=None, accept_violations=None),
        )
    if context.settings.via == "local":
        raise PreflightFailed(
            "Restoring a whole volume needs Docker: without it this tool does not stop and start servers.",
            "Stop the server, set its data directory aside, unpack the archive with `tar` in its place and start it; "
            "or restore an SQL backup.",
        )
    undo = undo_stamp(source)
    record = None if undo else records.volume_record(context, context.directory.find(source))
    if undo is not None and options.drill == "always":
        raise ArgumentsInvalid(f"{source} is an undo point: it has no drill.", "Leave it out.", again(drill=None))
    container_info = _place(context)
    manifest = record.manifest if record else None
    site = _site(context, container_info, manifest)
    warnings = _check_origin(context, record, options) if record else []
    running = container_info is not None and container_info.state == "running"
    live = _look(context, site, source if undo else None) if running else LiveServer()
    created = record.created_at if record else own_names.stamped(VOLUME_UNDO, source) or datetime.now(UTC)
    set_aside = f"it was set aside at {created:%Y-%m-%d %H:%M:%S} UTC" if undo else ""
    brings = size_guard.recorded(manifest) if manifest else Size(None, None, written=set_aside)
    now = Size(None, live.integrity_rows) if context.database in live.databases else None
    if now is not None and not asked:
        now = size_guard.measured(context, context.database, now.integrity_rows, progress, manifest)
    if now is not None:
        table = context.settings.integrity_table
        warnings += size_guard.check(source, brings, now, table, accepted=options.accept_smaller)
    read, effects = None, list[ConfigurationFinding]()
    if record is not None and manifest is None:
        read = archive.read(record.entry.path, record.entry.name.compression, progress)
        if effects := archive_configuration.findings_of(read.contents, live.settings):
            accepted = options.accept_configuration
            warnings.append(archive_configuration.on_restore(effects, source, accepted=accepted))
    return VolumePlan(
        source=source,
        options=options,
        record=record,
        sha256=manifest.sha256 if manifest else read.sha256 if read else None,
        undo=undo,
        created_at=created,
        container_info=container_info,
        site=site,
        image=_image(container_info, manifest),
        databases=live.databases,
        server_version=live.version,
        brings=brings,
        now=now,
        warnings=warnings,
        read=read,
        effects=[] if options.accept_configuration else effects,
    )


def no_undo_point(source: str, there: list[str]) -> BackupMissing:
    """Return the error for a volume's undo point that is not `there`."""
    return BackupMissing(f"There is no undo point {source} in the volume.", f"There are: {', '.join(there) or 'none'}.")


def _place(context: BackupContext) -> ContainerInfo | None:
    try:
        container_info = context.host.container_info()
    except ContainerMissing:
        return None
    if container_info.state in ("paused", "removing"):
        raise PreflightFailed(
            f"The container {container_info.container} is {container_info.state}.",
            "Run `docker compose unpause postgres`, then try again.",
        )
    if container_info.auto_remove:
        raise PreflightFailed(
            f"The container {container_info.container} was started with --rm: it would be deleted when stopped.",
            "Run the server without --rm, as Compose does, and restore again.",
        )
    return container_info


def _site(context: BackupContext, container_info: ContainerInfo | None, manifest: VolumeManifest | None) -> Site:
    """Return where the data directory is; without a container, where it was when the archive was made."""
    return _site_of_container(context, container_info) if container_info else _site_of_backup(context, manifest)


def _image(container_info: ContainerInfo | None, manifest: VolumeManifest | None) -> str:
    """Return the container's own image; without a container the backup's, or what has its name now."""
    if container_info is not None and container_info.image_id is not None:
        return container_info.image_id
    identity = manifest.identity if manifest else None
    names = (identity.image_id, identity.image) if identity else ()
    found = first_present(*names)
    if found is None:
        name = (identity.image if identity else None) or "the server's image"
        raise PreflightFailed(
            f"There is no container, and the image {name} is not on this machine.",
            f"Run `docker pull {name}`, or `docker compose create postgres` in Scarlet's directory; then try again.",
        )
    return found


def _site_of_container(context: BackupContext, container_info: ContainerInfo) -> Site:
    site, mount, inside = site_of(container_info, None), container_info.data_mount, container_info.mounts_inside
    if site is None or mount is None or mount.kind not in ("volume", "bind"):
        raise PreflightFailed(
            f"The data directory {container_info.data_directory} is on no volume: it would be lost with the container.",
            "Mount a volume there, as Scarlet's compose.yaml does, and restore again.",
        )
    if inside or not mount.writable:
        why = (
            f"{', '.join(m.destination for m in inside)} is mounted inside it" if inside else "it is mounted read-only"
        )
        raise PreflightFailed(
            f"The contents of {container_info.data_directory} can't be exchanged: {why}.",
            "Mount the volume writable and nothing below the data directory, or restore an SQL backup.",
        )
    require_alone(context, mount.source, container_info)
    return site


def _site_of_backup(context: BackupContext, manifest: VolumeManifest | None) -> Site:
    remedy = "Run `docker compose create postgres` in Scarlet's directory (or `up -d`), then restore again."
    site, identity = (manifest.site, manifest.identity) if manifest else (None, None)
    if site is None or site.volume is None or identity is None:
        raise ContainerMissing("There is no container, and the source does not name its volume.", remedy)
    if identity.container != context.settings.container:
        raise ContainerMissing(
            f"There is no container {context.settings.container}, and the backup is of {identity.container}.", remedy
        )
    if ANONYMOUS.fullmatch(site.volume) and not volume_exists(site.volume):
        raise ContainerMissing("There is no container, and the backup is of a volume without a name.", remedy)
    require_alone(context, site.volume, None)
    return site


def _check_origin(context: BackupContext, record: BackupRecord[VolumeManifest], options: RestoreOptions) -> list[str]:
    warnings = refuse_damaged(record, options)
    manifest = record.manifest
    if manifest is None or manifest.identity is None:
        if not options.accept_foreign:
            raise ForeignRefused(
                f"{record.name} has no manifest: this tool did not make it, or its manifest is lost. A server on "
                "foreign files does whatever is in them."
            )
        return [*warnings, f"{record.name} has no manifest: nothing shows whether all its files are there and intact."]
    if not context.is_ours(manifest) and not options.accept_other_database:
        identity = manifest.identity
        raise OtherDatabaseRefused(
            f"{record.name} is a backup of the server with {identity.database} in "
            f"{identity.container or 'a local server'} (project {identity.project}), not of {context.database} in "
            f"{context.settings.container}."
        )
    if record.in_future:
        warnings.append("The backup's time is in the future: a clock is or was wrong.")
    if manifest.shrunk:
        warnings.append(f"The backup is of a database that had shrunk: {'; '.join(manifest.shrunk_reasons)}.")
    if manifest.configuration:
        warnings.append(archive_configuration.named("; ".join(manifest.configuration)))
    if manifest.cold:
        warnings.append("It is a cold copy of a stopped server: nobody counted its rows.")
    if manifest.unlogged:
        warnings.append(f"Unlogged tables are empty in it: {', '.join(manifest.unlogged)}.")
    return warnings


@dataclass(frozen=True)
class LiveServer:
    """The live server as far as it answers: its databases, the rows of its integrity table, and the settings that an
    archive's are compared with."""

    databases: list[str] = field(default_factory=list[str])
    version: str = ""
    integrity_rows: int | None = None
    settings: dict[str, str] = field(default_factory=dict[str, str])


def _look(context: BackupContext, site: Site, undo: str | None) -> LiveServer:
    """Look at the live server. Raises PreflightFailed if its data directory is another one than the
    container's environment says, BackupMissing if the undo point is not in it."""
    try:
        with context.maintenance_session() as session:
            names, facts = sorted(pg.databases(session, sizes=False)), pg.server_facts(session)
            settings = live_settings(session)
            points = [point.name for point in own_names.volume_undo_points(pg.data_directory_entries(session, ASIDE))]
    except BackupToolError:
        return LiveServer()
    if undo is not None and points and undo not in points:  # none: perhaps the role may not look there
        raise no_undo_point(undo, points)
    directory = facts.data_directory
    if directory is not None and PurePosixPath(directory) != PurePosixPath(site.data_directory):
        raise PreflightFailed(
            f"The server's data directory is {directory}, but PGDATA of its container is {site.data_directory}.",
            "Set PGDATA in the container's environment to the directory that the server uses.",
        )
    try:
        rows = count_table(context.server, context.database, context.settings.integrity_table).rows
    except BackupToolError:
        rows = None
    return LiveServer(names, facts.version, rows, settings)
