"""What has to hold before a restore changes anything. Reads only."""

from __future__ import annotations

from collections.abc import Iterable

from ...errors import PreflightFailed, again
from ...models.manifest import Extension, Role
from ...postgres.dump.roles import role_names
from ...postgres.server import databases
from ...postgres.server.installation import available_extensions
from ...postgres.server.quoting import identifier
from ...postgres.server.session import Session
from .. import disk_space
from ..context import BackupContext
from ..drill.sql import ROOM
from ..loading.load_checks import roles_of
from .sql_plan import SqlPlan

UNDO_POINTS = 2


def check_swap(context: BackupContext, session: Session, plan: SqlPlan) -> None:
    """Check what a swap needs, whatever comes in. Raises PreflightFailed."""
    if not plan.facts.superuser:
        raise PreflightFailed(
            "A restore needs a superuser: a dump sets owners, creates extensions, and databases are renamed.",
            "Set SCARLET_BACKUP_USER to a superuser (PROC-004 uses `postgres`).",
        )
    if plan.facts.in_recovery:
        raise PreflightFailed("The server is a standby, which can't be written to.", "Restore on its primary.")
    if found := databases.obstacles(session, context.database):
        raise PreflightFailed(
            f"The live database has a {'; a '.join(found)}, which a swap would break.",
            "Finish or drop it (COMMIT/ROLLBACK PREPARED, pg_drop_replication_slot, DROP SUBSCRIPTION); try again.",
        )
    if _passes_the_limit(plan) and not plan.options.drop_oldest_undo:
        oldest = plan.undo_points[-1]
        raise PreflightFailed(
            f"There are {len(plan.undo_points)} undo points; the oldest is {oldest.name} ({oldest.bytes:,} bytes).",
            f"If the user agrees, let this restore drop {oldest.name}.",
            again(drop_oldest_undo=True),
        )


def drops_undo(plan: SqlPlan) -> bool:
    """Tell whether a restore that adds an undo point drops the oldest for it."""
    return plan.options.drop_oldest_undo and _passes_the_limit(plan)


def _passes_the_limit(plan: SqlPlan) -> bool:
    return plan.undo is None and plan.live_oid is not None and len(plan.undo_points) >= UNDO_POINTS


def check_load(
    context: BackupContext,
    session: Session,
    plan: SqlPlan,
    roles: Iterable[str],
    database_bytes: int,
    made: Iterable[Role] = (),
) -> None:
    """Check what loading a dump needs: space, roles, extensions. `made` are roles as the file would create them. Raises
    PreflightFailed."""
    _check_room(context, plan, database_bytes)
    _check_roles(session, plan, roles, made)
    _check_extensions(session, plan.properties.extensions if plan.properties else [])


def _check_room(context: BackupContext, plan: SqlPlan, database_bytes: int) -> None:
    if plan.facts.data_directory is None:
        return
    free = context.host.free_bytes(plan.facts.data_directory)
    needed = disk_space.needed(database_bytes, ROOM, plan.facts)
    if free is not None and free < needed:
        raise PreflightFailed(
            f"The server's disk has {free:,} bytes free; a restored copy next to the live database needs {needed:,}.",
            "Free space on the disk of the database's volume"
            + (", or drop an undo point you no longer need (`dropdb` in the container)." if plan.undo_points else "."),
        )


def _check_roles(session: Session, plan: SqlPlan, named: Iterable[str], made: Iterable[Role]) -> None:
    needed = {*named, *(roles_of(plan.properties) if plan.properties else ())}
    if missing := sorted(needed - role_names(session)):
        recorded = {role.name: role for role in (plan.manifest.roles if plan.manifest else made)}
        statements = " ".join(_create_role(name, recorded.get(name)) for name in missing)
        raise PreflightFailed(
            f"The server lacks roles that the backup names: {', '.join(missing)}.",
            f"Create them first, with psql in the container (passwords are not in a backup): {statements}",
        )


def _create_role(name: str, role: Role | None) -> str:
    words = f"CREATE ROLE {identifier(name)}"
    if role is not None:
        words += " LOGIN" if role.login else ""
        words += " SUPERUSER" if role.superuser else ""
        words += " CREATEDB" if role.createdb else ""
        words += " CREATEROLE" if role.createrole else ""
    return words + ";"


def _check_extensions(session: Session, extensions: list[Extension]) -> None:
    wanted = [e for e in extensions if e.name != "plpgsql"]
    if not wanted:
        return
    there = available_extensions(session, (e.name for e in wanted))
    if missing := [f"{e.name} {e.version}" for e in wanted if e.name not in there]:
        raise PreflightFailed(
            f"The server lacks extensions that the backup uses: {', '.join(missing)}.",
            "Run the database with an image that has them (Scarlet's is pgvector/pgvector:pg15).",
        )


def copy_bytes(plan: SqlPlan) -> int:
    """Estimate how large a restored copy may become, in bytes."""
    if plan.manifest is not None and plan.manifest.database_bytes is not None:
        return plan.manifest.database_bytes
    live = plan.databases.get(plan.database)
    size = plan.entry.bytes if plan.entry else 0
    return max(size, (live.bytes or 0) if live else 0)
