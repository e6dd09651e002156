"""Everything that can go wrong, as one tree.

Each class has a stable `code` an agent can branch on, a sentence on what happened and a `remedy`: the next tool
call or command. Messages never hold a secret.

BackupToolError
├── ConfigurationError            configuration_invalid
│   └── BackupDirUnknown          backup_dir_unknown
├── HostError                     host_failed
│   ├── EngineUnreachable         engine_unreachable
│   ├── ContainerMissing          container_missing
│   ├── ContainerAmbiguous        container_ambiguous
│   ├── VolumeShared              volume_shared
│   ├── ContainerNotRunning       container_not_running
│   ├── ContainerPaused           container_paused
│   ├── ContainerLost             container_lost
│   └── ProgramMissing            program_missing
├── ServerError                   server_failed
│   ├── ServerUnreachable         server_unreachable
│   ├── WrongServer               wrong_server
│   ├── ServerUnsupported         server_unsupported
│   ├── VolumeUnsupported         volume_unsupported
│   ├── DatabaseMissing           database_missing
│   ├── PermissionDenied          permission_denied
│   ├── TableLocked               table_locked
│   └── QueryFailed               query_failed
├── StoreError                    store_failed
│   ├── DirectoryNotWritable      directory_not_writable
│   ├── DiskFull                  disk_full
│   ├── NameRefused               name_refused
│   ├── BackupMissing             backup_missing
│   ├── CodePageNeeded            code_page_needed
│   ├── NewerVersion              newer_version
│   └── Busy                      busy
├── DumpFailed                    dump_failed
│   ├── DumpIncomplete            dump_incomplete
│   ├── ValueTooLarge             value_too_large
│   ├── TooFewLocks               too_few_locks
│   └── DataDamaged               data_damaged
├── DrillFailed                   drill_failed
│   └── DrillImpossible           drill_impossible
├── RestoreRefused                restore_refused
│   ├── BackupNotValid            backup_not_valid
│   ├── ForeignRefused            foreign_refused
│   ├── OtherDatabaseRefused      other_database_refused
│   ├── SmallerRefused            smaller_refused
│   ├── ConfirmationNeeded        confirmation_needed
│   ├── ConfirmationStale         confirmation_stale
│   └── PreflightFailed           preflight_failed
├── RestoreFailed                 restore_failed
│   ├── WillNotLoad               will_not_load
│   ├── ConstraintViolated        constraint_violated
│   └── RestoreInterrupted        restore_interrupted
├── ScheduleFailed                schedule_failed
├── ArgumentsInvalid              arguments_invalid
├── JobUnknown                    job_unknown
├── Cancelled                     cancelled
└── InternalError                 internal_error
"""

from __future__ import annotations

from .redaction import printable


class BackupToolError(Exception):
    """The root. `message` says what happened in one or two sentences, `remedy` what to do next."""

    code = "backup_tool_error"
    default_remedy = "Read the message, mend the cause and call the tool again."

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = printable(message)
        self.remedy = printable(remedy or self.default_remedy)

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
        "Set SCARLET_BACKUP_DIR to an absolute directory on this machine (for Scarlet: the `backups` folder "
        "beside her compose.yaml), or pass --dir on the command line."
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
        "Set SCARLET_BACKUP_CONTAINER (--container) to the one that is meant, or remove those that are not: with "
        "Compose, `docker compose up -d --scale postgres=1`."
    )


class VolumeShared(HostError):
    """Another container that runs can write to the server's data directory."""

    code = "volume_shared"
    default_remedy = "Stop the other containers, or mount the volume read-only in them; then call again."


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
        "Look with `docker ps` which servers run, and whether two share a volume or a socket directory; stop the one "
        "that is not meant. A server that was restarted meanwhile is only to be called again."
    )


class ServerUnsupported(ServerError):
    """The server's version is older than what this tool was made for."""

    code = "server_unsupported"
    default_remedy = "Use PostgreSQL 14 or newer."


class VolumeUnsupported(ServerError):
    """The server, as it is set up, can't be copied as a whole while it runs."""

    code = "volume_unsupported"
    default_remedy = "Take an SQL backup with kind sql, which needs no set-up."


class DatabaseMissing(ServerError):
    """The configured database does not exist on the server."""

    code = "database_missing"
    default_remedy = "Check SCARLET_BACKUP_DATABASE; to bring a lost database back call `restore`."


class PermissionDenied(ServerError):
    """The configured role may not do this."""

    code = "permission_denied"
    default_remedy = "Set SCARLET_BACKUP_USER to a superuser (PROC-004 uses `postgres`)."


class TableLocked(ServerError):
    """Something waited too long for a lock that a migration holds, most likely."""

    code = "table_locked"
    default_remedy = "Wait until the migration has ended, then call again; `SELECT * FROM pg_locks` shows who holds it."


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
    default_remedy = "Free space (`list_backups` shows the sizes of the backups there are), then try again."


class NameRefused(StoreError):
    """A name is not the base name of a backup in the backup directory."""

    code = "name_refused"
    default_remedy = "Use a name exactly as `list_backups` shows it, without any directory."


class BackupMissing(StoreError):
    """There is no such backup."""

    code = "backup_missing"
    default_remedy = "Call `list_backups` for the names there are, or `backup` to make one."


class CodePageNeeded(StoreError):
    """What PowerShell did to a file can be undone in several ways, with different texts."""

    code = "code_page_needed"
    default_remedy = "Call it again with code_page= the page whose words read right."


class NewerVersion(StoreError):
    """A newer version of this tool wrote it, in a way that this one does not know. It was left as it is."""

    code = "newer_version"
    default_remedy = "Update scarlet-backup-mcp on this machine, then call again."


class Busy(StoreError):
    """Another backup, restore or prune holds the lock."""

    code = "busy"
    default_remedy = "Wait until it ends, then try again."


class DumpFailed(BackupToolError):
    """pg_dump or pg_basebackup failed, or what it wrote does not hold. No backup was made."""

    code = "dump_failed"
    default_remedy = (
        "Read what it says and the server's log (in Docker: `docker compose logs postgres`), and mend that. Meanwhile "
        "`backup` with the other kind may do: sql reads every row, volume copies the files as they are."
    )


class DumpIncomplete(DumpFailed):
    """The dump ended without an error, but is not all there."""

    code = "dump_incomplete"


class ValueTooLarge(DumpFailed):
    """A row is larger than what one row of a dump can hold."""

    code = "value_too_large"
    default_remedy = (
        "Call `backup` with kind volume, which copies the files whatever is in them. For an SQL backup keep that value "
        "in pieces, or as a large object."
    )


class TooFewLocks(DumpFailed):
    """There are more tables than the server has room for locks."""

    code = "too_few_locks"
    default_remedy = (
        "Set max_locks_per_transaction to a higher value (`ALTER SYSTEM SET`, or `command: postgres -c …` in "
        "compose.yaml) and restart the server; then call `backup` again. Or take one with kind volume, which needs no "
        "such locks."
    )


class DataDamaged(DumpFailed):
    """The server could not read its own files."""

    code = "data_damaged"
    default_remedy = (
        "Keep every older backup (`list_backups`). Stop the container and call `backup` with kind volume: a cold copy "
        "holds all files as they are. Check the disk. Then restore the last good backup; what is newer and can still "
        "be read comes out table by table (`COPY … TO`), of a damaged page with `SET zero_damaged_pages = on`."
    )


class DrillFailed(BackupToolError):
    """A restore drill could not be done, so it tells nothing of the backup. The live database is as it was."""

    code = "drill_failed"
    default_remedy = "Read the message and mend the cause; `verify_backup` with level full needs no server."


class DrillImpossible(DrillFailed):
    """The throw-away server could not be started."""

    code = "drill_impossible"
    default_remedy = "Read what it says and mend the cause; `verify_backup` with level=full needs no throw-away server."


class RestoreRefused(BackupToolError):
    """A restore was not begun. Nothing was changed."""

    code = "restore_refused"


class BackupNotValid(RestoreRefused):
    """The source did not pass verification."""

    code = "backup_not_valid"
    default_remedy = "Choose another backup: `list_backups` shows which ones are good."


class ForeignRefused(RestoreRefused):
    """The source has no manifest of ours."""

    code = "foreign_refused"
    default_remedy = "If you know where the file comes from and trust it, call again with accept_foreign=true."


class OtherDatabaseRefused(RestoreRefused):
    """The source is a backup of another database."""

    code = "other_database_refused"
    default_remedy = "If it is meant to replace this database, call again with accept_other_database=true."


class SmallerRefused(RestoreRefused):
    """The source holds less than half of what it would replace."""

    code = "smaller_refused"
    default_remedy = (
        "Choose another backup (`list_backups` tells their rows), or, if the user wants exactly this, call again with "
        "accept_smaller=true."
    )


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
    default_remedy = "The live database is as it was. Read the message, mend the cause and call `restore` again."


class WillNotLoad(RestoreFailed):
    """The server refused a part of a backup whose file is whole."""

    code = "will_not_load"
    default_remedy = (
        "In the live database change the object that the message names, so that it needs nothing that a dump lacks (a "
        "function in pg_catalog, for example, is in none), then call `backup` again. Where that database is lost, "
        "choose another backup."
    )


class ConstraintViolated(RestoreFailed):
    """The database held rows that break its own constraints. The backup is faithful."""

    code = "constraint_violated"
    default_remedy = (
        "`verify_backup` with level drill names the rows. If the user agrees, call `restore` again with "
        "accept_violations=true: foreign keys and checks that the rows break become NOT VALID, unique indexes are left "
        "out."
    )


class RestoreInterrupted(RestoreFailed):
    """An earlier restore was cut off and can't be tidied up yet."""

    code = "restore_interrupted"
    default_remedy = "Start the server (in Docker: `docker compose up -d postgres`), then call `restore` again."


class ScheduleFailed(BackupToolError):
    """The system's scheduler refused. What was registered before is as it was, unless the message says otherwise."""

    code = "schedule_failed"
    default_remedy = "Read what the scheduler says and mend the cause, or register by hand what `schedule` prints."


class ArgumentsInvalid(BackupToolError):
    """A tool was called with arguments that its input schema does not have. Nothing was done."""

    code = "arguments_invalid"
    default_remedy = "Call it again with arguments as its input schema has them."


class JobUnknown(BackupToolError):
    """No job of that number is known to this server."""

    code = "job_unknown"
    default_remedy = "Call `list_backups`: it shows this server's running jobs, and the backup if the job has ended."


class Cancelled(BackupToolError):
    """The caller stopped the work. Nothing was left behind."""

    code = "cancelled"
    default_remedy = "Call the tool again when you want it done."


class InternalError(BackupToolError):
    """An error nobody foresaw. Its traceback is in the server's log on stderr."""

    code = "internal_error"
    default_remedy = "Read the log on stderr; `list_backups` and `db_integrity` tell what was done and what there is."
