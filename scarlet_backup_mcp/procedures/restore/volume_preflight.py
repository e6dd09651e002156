"""What is looked at before the contents of a volume are exchanged, and at the server that then runs on them."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import PreflightFailed, RestoreFailed
from ...postgres.server import catalogue as pg
from ...postgres.server import programs
from ...postgres.server.counting import count_table
from ...postgres.server.installation import databases_of_other_collations
from ...wording import number_of
from ..context import BackupContext
from ..own_names import VOLUME_UNDO
from ..reading.archive import Archive
from ..recovery.helper_container import output
from ..recovery.volume_layout import PG_VERSION, VolumeLayout
from .volume_plan import VolumePlan, no_undo_point

ROOM = 1.05
SPARE_BYTES = 64 << 20
"""Free space asked for: the archive's contents, and what a server needs to start."""


def look_at_the_volume(planned: VolumePlan, contents: VolumeLayout, read: Archive | None) -> str:
    """Check the volume; return the account, "uid:gid", that must own the files. Raises PreflightFailed or
    BackupMissing."""
    if planned.undo is not None:
        if planned.undo not in (stamps := contents.undo_stamps()):
            raise no_undo_point(planned.source, [VOLUME_UNDO + stamp for stamp in stamps])
        version = output(contents.host, ["cat", f"{contents.set_aside(planned.undo)}/{PG_VERSION}"]).strip()
    else:
        assert read is not None
        version = read.contents.kept[PG_VERSION].decode("ascii", "replace").strip()
        free = contents.host.free_bytes(planned.site.mounted_at)
        needed = int(read.tar_bytes * ROOM) + SPARE_BYTES
        if free is not None and free < needed:
            raise PreflightFailed(
                f"The disk of {planned.where} has {free:,} bytes free; the archive's contents next to the current ones "
                f"need {needed:,}.",
                _ways_to_room(contents),
            )
    there = programs.major(output(contents.host, ["postgres", "--version"]).rpartition(") ")[2])
    if str(there) != version:
        raise PreflightFailed(
            f"{planned.source} is a data directory of PostgreSQL {version}; the container's image is of {there}, which "
            "can't start on it.",
            f"Set the image in compose.yaml to one of PostgreSQL {version} (Scarlet's: pgvector/pgvector:pg{version}), "
            "run `docker compose up -d postgres`, then try again; or restore an SQL backup, which moves between "
            "versions.",
        )
    return _owner(planned, contents)


def _ways_to_room(contents: VolumeLayout) -> str:
    """Say what to do if the volume's disk is too small. This restore would remove our own undo point on it anyway."""
    free = "Free space there (with Docker, `docker system df` shows what is used), then try again."
    stamps = contents.undo_stamps()
    if not stamps or not contents.is_there:
        return free
    return (
        f"The undo point {VOLUME_UNDO}{stamps[0]} is on that disk, and this restore would remove it anyway: if the "
        "user can do without it now, run `scarlet-backup-mcp prune --include-undo` while the server runs; it shows all "
        f"that it would remove, and asks. If no server starts, remove {contents.set_aside(stamps[0])} by hand. {free}"
    )


def _owner(planned: VolumePlan, contents: VolumeLayout) -> str:
    """Return the current contents' owner; else whom the container's program runs as; else the image's own account."""
    version = f"{contents.directory}/{PG_VERSION}"
    if contents.exists(version):
        return output(contents.host, ["stat", "-c", "%u:%g", version]).strip()
    account, _, group = (planned.container_info.user if planned.container_info else "").partition(":")
    account = account or "postgres"
    uid = output(contents.host, ["id", "-u", account]).strip() if not account.isdigit() else account
    gid = output(contents.host, ["id", "-g", account]).strip() if not account.isdigit() else group or account
    return f"{uid}:{group if group.isdigit() else gid}"


@dataclass(frozen=True)
class ServerFound:
    """The server on what was restored. `integrity_rows` as it counts them; None where there is no such table."""

    databases: int
    integrity_rows: int | None
    warnings: list[str]


def look_at_the_server(context: BackupContext, planned: VolumePlan) -> ServerFound:
    """Raise RestoreFailed unless the server that runs now is what was restored; return what was found."""
    manifest, warnings, rows = planned.manifest, list[str](), None
    with context.maintenance_session() as session:
        facts, databases = pg.server_facts(session), pg.databases(session)
    table = manifest.integrity_table if manifest is not None else context.settings.integrity_table
    if context.database in databases:
        rows = count_table(context.server, context.database, table).rows
    else:
        warnings.append(f"There is no database {context.database} on what was restored: {', '.join(databases)}.")
    wrong: list[str] = []
    if manifest is not None and manifest.identity is not None:
        if facts.system_identifier != manifest.identity.system_identifier:
            wrong.append(f"it is the cluster {facts.system_identifier}, not {manifest.identity.system_identifier}")
        if missing := set(manifest.databases) - databases.keys():
            wrong.append(f"the databases {', '.join(sorted(missing))} are missing")
        ours = manifest.identity.database == context.database
        if ours and manifest.quiet and rows != manifest.integrity_rows:
            wrong.append(f"{table} has {number_of(rows, 'row')} instead of {manifest.integrity_rows}")
        if ours and manifest.integrity_rows and not rows:
            wrong.append(f"{table} is empty or missing")
    if wrong:
        raise RestoreFailed(f"The server that started does not match the backup: {'; '.join(wrong)}.")
    container_info = context.host.container_info()
    if container_info.health == "unhealthy":
        warnings.append(
            f"The container {container_info.container} is unhealthy, though its server answers: read its log."
        )
    warnings += [
        f"The database {name} was made with another version of its collation: run `REINDEX DATABASE` and `ALTER "
        "DATABASE … REFRESH COLLATION VERSION` in it, or its text indexes may miss rows."
        for name in _other_collations(context)
    ]
    return ServerFound(len(databases), rows, warnings)


def _other_collations(context: BackupContext) -> list[str]:
    with context.maintenance_session() as session:
        return databases_of_other_collations(session)
