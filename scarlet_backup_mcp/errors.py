"""Everything that can go wrong, as one tree (its codes are in docs/errors.md).

Each class has a stable `code` that an agent can branch on, a sentence on what happened, and a remedy: what to do, in
words, and where a call would help that call as data. Words never spell a call; each face does that in its own terms.
Messages never hold a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .redaction import printable


@dataclass(frozen=True, kw_only=True)
class NextCall:
    """A call that would help. Without a `tool` it is the present one again, with these arguments changed (None: left
    out); a face knows the rest of them."""

    tool: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def after(self, tool: str, arguments: Mapping[str, Any]) -> NextCall:
        """Spell out the whole call, after one of `tool` with these `arguments`."""
        if self.tool:
            return self
        changed = {**arguments, **self.arguments}
        return NextCall(tool=tool, arguments={name: value for name, value in changed.items() if value is not None})


def again(**changed: Any) -> NextCall:
    """Suggest the present call once more, with these arguments changed."""
    return NextCall(arguments=changed)


class BackupToolError(Exception):
    """The root. `message` says what happened in one or two sentences, `remedy` what to do next, `next_call` with which
    call, if one helps. The default call goes with the default remedy only."""

    code = "backup_tool_error"
    default_remedy = "Fix what the message names, then try again."
    default_next_call: NextCall | None = None

    def __init__(self, message: str, remedy: str | None = None, next_call: NextCall | None = None) -> None:
        super().__init__(message)
        self.message = printable(message)
        self.remedy = printable(remedy or self.default_remedy)
        self.next_call = next_call if remedy or next_call else self.default_next_call

    def __str__(self) -> str:
        return f"{self.message} ({self.code}) What to do: {self.remedy}"


class ConfigurationError(BackupToolError):
    """A setting has a value that is not allowed."""

    code = "configuration_invalid"
    default_remedy = "Correct the setting named in the message and start again."


class BackupDirUnknown(ConfigurationError):
    """No setting and no Compose label says where backups lie on this machine."""

    code = "backup_dir_unknown"
    default_remedy = (
        "Set SCARLET_BACKUP_DIR to an absolute directory on this machine (for Scarlet: the `backups` folder next "
        "to her compose.yaml), or pass --dir on the command line."
    )


class HostError(BackupToolError):
    """The place where PostgreSQL's programs run did not do its part."""

    code = "host_failed"


class EngineUnreachable(HostError):
    """No Docker engine answers."""

    code = "engine_unreachable"
    default_remedy = "Start Docker Desktop (or the docker service), wait until `docker ps` answers, then try again."


class ContainerMissing(HostError):
    """No container has the configured name or Compose labels."""

    code = "container_missing"
    default_remedy = (
        "Run `docker compose up -d postgres` in Scarlet's directory, or set SCARLET_BACKUP_CONTAINER to the "
        "container's name as `docker ps -a` shows it."
    )


class ContainerAmbiguous(HostError):
    """Several containers could be the one that is meant."""

    code = "container_ambiguous"
    default_remedy = (
        "Set SCARLET_BACKUP_CONTAINER (--container) to the one you mean, or remove the others: with Compose, "
        "`docker compose up -d --scale postgres=1`."
    )


class VolumeShared(HostError):
    """Another container that runs can write to the server's data directory."""

    code = "volume_shared"
    default_remedy = "Stop the other containers, or mount the volume read-only in them; then try again."
    default_next_call = again()


class ContainerNotRunning(HostError):
    """The container exists but does not run."""

    code = "container_not_running"
    default_remedy = "Run `docker compose up -d postgres` in Scarlet's directory, wait ten seconds, then try again."


class ContainerPaused(HostError):
    """The container is paused: nothing in it can answer."""

    code = "container_paused"
    default_remedy = "Run `docker compose unpause postgres` in Scarlet's directory, then try again."


class ContainerLost(HostError):
    """The container or the engine went away while a program ran in it."""

    code = "container_lost"
    default_remedy = (
        "See why the container stopped (`docker logs`), start it with `docker compose up -d postgres`, then try again."
    )


class ProgramMissing(HostError):
    """A program that is needed is not in the container or the bin directory."""

    code = "program_missing"
    default_remedy = "Use a PostgreSQL image with its client programs, or set SCARLET_BACKUP_BIN_DIR."


class ServerError(BackupToolError):
    """The PostgreSQL server refused or failed."""

    code = "server_failed"


class ServerUnreachable(ServerError):
    """The server does not accept connections."""

    code = "server_unreachable"
    default_remedy = (
        "Wait until `pg_isready` says that it accepts connections, or read its log (in Docker: `docker compose exec "
        "postgres pg_isready`, `docker compose logs postgres`); then try again."
    )


class WrongServer(ServerError):
    """The server that answered is not the one that was named. Nothing was read from it or written to it."""

    code = "wrong_server"
    default_remedy = (
        "See with `docker ps` which servers run, and whether two of them share a volume or a socket directory; "
        "stop the one you do not mean. If the server was only restarted meanwhile, just try again."
    )


class ServerUnsupported(ServerError):
    """The server's version is older than what this tool was made for."""

    code = "server_unsupported"
    default_remedy = "Use PostgreSQL 14 or newer."


class VolumeUnsupported(ServerError):
    """The server, as it is set up, can't be copied as a whole while it runs."""

    code = "volume_unsupported"
    default_remedy = "Take an SQL backup, which needs no such set-up."
    default_next_call = again(kind="sql")


class DatabaseMissing(ServerError):
    """The configured database does not exist on the server."""

    code = "database_missing"
    default_remedy = "Check SCARLET_BACKUP_DATABASE. A database that was lost comes back by a restore."
    default_next_call = NextCall(tool="list_backups")


class PermissionDenied(ServerError):
    """The configured role may not do this."""

    code = "permission_denied"
    default_remedy = "Set SCARLET_BACKUP_USER to a superuser (PROC-004 uses `postgres`)."


class TableLocked(ServerError):
    """Something waited too long for a lock that a migration holds, most likely."""

    code = "table_locked"
    default_remedy = "Wait until the migration has ended, then try again; `SELECT * FROM pg_locks` shows who holds it."
    default_next_call = again()


class QueryFailed(ServerError):
    """A query of ours failed. `sqlstate` is the server's five-character code."""

    code = "query_failed"

    def __init__(self, message: str, remedy: str | None = None, *, sqlstate: str = "") -> None:
        super().__init__(message, remedy)
        self.sqlstate = sqlstate


class StoreError(BackupToolError):
    """The backup directory did not do its part."""

    code = "store_failed"


class DirectoryNotWritable(StoreError):
    """The backup directory can't be made or written to."""

    code = "directory_not_writable"
    default_remedy = "Give this user write access to the directory, or set SCARLET_BACKUP_DIR to another one."


class DiskFull(StoreError):
    """There is not enough room."""

    code = "disk_full"
    default_remedy = "Free some space (the list of backups shows their sizes), then try again."
    default_next_call = NextCall(tool="list_backups")


class NameRefused(StoreError):
    """A name is not the base name of a backup in the backup directory."""

    code = "name_refused"
    default_remedy = "Use a name exactly as the list of backups shows it, without a directory."
    default_next_call = NextCall(tool="list_backups")


class BackupMissing(StoreError):
    """There is no such backup."""

    code = "backup_missing"
    default_remedy = "See which backups there are, or take a new one."
    default_next_call = NextCall(tool="list_backups")


class CodePageNeeded(StoreError):
    """What PowerShell did to a file can be undone in several ways, with different texts."""

    code = "code_page_needed"
    default_remedy = "Try again with the code page whose words read right."


class Busy(StoreError):
    """Another backup, restore or prune holds the lock."""

    code = "busy"
    default_remedy = "Wait until it ends, then try again."
    default_next_call = again()


class DumpFailed(BackupToolError):
    """pg_dump or pg_basebackup failed, or what it wrote does not hold. No backup was made."""

    code = "dump_failed"
    default_remedy = (
        "Read the message and the server's log (in Docker: `docker compose logs postgres`), and fix the cause. "
        "Meanwhile a backup of the other kind may work: sql reads every row, volume copies the files as they are."
    )


class DumpIncomplete(DumpFailed):
    """The dump ended without an error, but is not all there."""

    code = "dump_incomplete"


class ValueTooLarge(DumpFailed):
    """A row is larger than what one row of a dump can hold."""

    code = "value_too_large"
    default_remedy = (
        "Take a backup of kind volume, which copies the files whatever is in them. For an SQL backup keep that "
        "value in pieces, or as a large object."
    )
    default_next_call = again(kind="volume")


class TooFewLocks(DumpFailed):
    """There are more tables than the server has room for locks."""

    code = "too_few_locks"
    default_remedy = (
        "Raise max_locks_per_transaction (`ALTER SYSTEM SET`, or `command: postgres -c …` in compose.yaml) and "
        "restart the server; then try again. Or take a backup of kind volume, which needs no such locks."
    )
    default_next_call = again(kind="volume")


class DataDamaged(DumpFailed):
    """The server could not read its own files."""

    code = "data_damaged"
    default_remedy = (
        "Keep every older backup. Stop the container and take a backup of kind volume: a cold copy holds all "
        "files as they are. Check the disk. Then restore the last good backup; what is newer and still readable "
        "comes out table by table (`COPY … TO`), from a damaged page with `SET zero_damaged_pages = on`."
    )
    default_next_call = again(kind="volume")


class DrillFailed(BackupToolError):
    """A restore drill could not be done, so it tells nothing of the backup. The live database is as it was."""

    code = "drill_failed"
    default_remedy = "Read the message and fix the cause. A full verification needs no server."


class DrillImpossible(DrillFailed):
    """The throw-away server could not be started."""

    code = "drill_impossible"
    default_remedy = "Read the message and fix the cause. A full verification needs no sandbox."


class RestoreRefused(BackupToolError):
    """A restore was not begun. Nothing was changed."""

    code = "restore_refused"


class BackupNotValid(RestoreRefused):
    """The source did not pass verification."""

    code = "backup_not_valid"
    default_remedy = "Choose another backup; the list shows which ones are good."
    default_next_call = NextCall(tool="list_backups")


class ForeignRefused(RestoreRefused):
    """The source has no manifest of ours."""

    code = "foreign_refused"
    default_remedy = "If the user knows where the file comes from and trusts it, accept it as a foreign one."
    default_next_call = again(accept_foreign=True)


class OtherDatabaseRefused(RestoreRefused):
    """The source is a backup of another database."""

    code = "other_database_refused"
    default_remedy = "If it is meant to replace this database, accept that it is from another one."
    default_next_call = again(accept_other_database=True)


class SmallerRefused(RestoreRefused):
    """The source holds less than half of what it would replace."""

    code = "smaller_refused"
    default_remedy = (
        "Choose another backup (the list shows their rows), or, if the user wants exactly this one, accept that "
        "it is smaller."
    )
    default_next_call = again(accept_smaller=True)


class ConfirmationNeeded(RestoreRefused):
    """A destructive call needs the user's consent first."""

    code = "confirmation_needed"


class ConfirmationStale(RestoreRefused):
    """What was confirmed is no longer what would happen."""

    code = "confirmation_stale"
    default_remedy = "Ask the user again with what is true now."


class PreflightFailed(RestoreRefused):
    """A condition for the restore does not hold."""

    code = "preflight_failed"


class RestoreFailed(BackupToolError):
    """A restore was begun and failed. The message says what state the database is in."""

    code = "restore_failed"
    default_remedy = "The live database is as it was. Fix the cause, then restore again."
    default_next_call = again()


class WillNotLoad(RestoreFailed):
    """The server refused a part of a backup whose file is whole."""

    code = "will_not_load"
    default_remedy = (
        "In the live database change the object that the message names, so that it needs nothing that a dump "
        "lacks (a function in pg_catalog, for example, is in none), then take a new backup. If that database is "
        "lost, choose another backup."
    )


class ConstraintViolated(RestoreFailed):
    """The database held rows that break its own constraints. The backup is faithful."""

    code = "constraint_violated"
    default_remedy = (
        "A drill names the rows. If the user agrees, restore with the violations accepted: foreign keys and "
        "checks that the rows break become NOT VALID, unique indexes are left out."
    )
    default_next_call = again(accept_violations=True)


class RestoreInterrupted(RestoreFailed):
    """An earlier restore was cut off and can't be tidied up yet."""

    code = "restore_interrupted"
    default_remedy = "Start the server (in Docker: `docker compose up -d postgres`), then try again."
    default_next_call = again()


class ScheduleFailed(BackupToolError):
    """The system's scheduler refused. What was registered before is as it was, unless the message says otherwise."""

    code = "schedule_failed"
    default_remedy = "Read what the scheduler says and fix the cause, or register by hand what `schedule` prints."


class ArgumentsInvalid(BackupToolError):
    """A tool was called with arguments that its input schema does not have. Nothing was done."""

    code = "arguments_invalid"
    default_remedy = "Correct the arguments that the message names."


class JobUnknown(BackupToolError):
    """No job of that number is known to this server."""

    code = "job_unknown"
    default_remedy = "The list of backups shows the running jobs of this server, and the backup if the job has ended."
    default_next_call = NextCall(tool="list_backups")


class Cancelled(BackupToolError):
    """The caller stopped the work. Nothing was left behind."""

    code = "cancelled"
    default_remedy = "Call the tool again when you want it done."


class InternalError(BackupToolError):
    """An error nobody foresaw. Its traceback is in the server's log on stderr."""

    code = "internal_error"
    default_remedy = "Read the log on stderr. The list of backups and a check of the database show what was done."
    default_next_call = NextCall(tool="db_integrity")
