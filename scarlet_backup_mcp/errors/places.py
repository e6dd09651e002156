"""Errors of the places that a call works with: the host, the PostgreSQL server, the backup directory."""

from __future__ import annotations

from .base import BackupToolError, NextCall, again


class HostError(BackupToolError):
    """The host that runs PostgreSQL's programs failed."""

    code = "host_failed"


class EngineUnreachable(HostError):
    """No Docker engine answers."""

    code = "engine_unreachable"
    default_remedy = "Start Docker Desktop (or the docker service), wait until `docker ps` answers, then try again."


class EngineForbidden(EngineUnreachable):
    """A Docker engine is there, but this user has no permission to use it."""

    code = "engine_forbidden"
    default_remedy = (
        "Join the group that owns Docker's socket (mostly `docker`; on Windows docker-users) and log in again, or use "
        "Docker's rootless mode; then try again."
    )


class ContainerMissing(HostError):
    """No container has the configured name or Compose labels, and none is meant without them."""

    code = "container_missing"
    default_remedy = (
        "Run `docker compose up -d postgres` in Scarlet's directory, or set SCARLET_BACKUP_CONTAINER to the "
        "container's name as `docker ps -a` shows it."
    )


class SeveralCandidates(HostError):
    """Several containers could be meant, and no setting says which one."""

    code = "several_candidates"
    default_remedy = "Choose one of these lines, and set it as a setting or as an option of the command line."


class VolumeShared(HostError):
    """Another running container can write to the server's data directory."""

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


class WrongPrograms(HostError):
    """The client programs are of another version than the server, which might not load what they write."""

    code = "wrong_programs"


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
    """The server that answered is not the one you named. Nothing was read from it or written to it."""

    code = "wrong_server"
    default_remedy = (
        "See in `docker ps` which servers run, and whether two of them share a volume or a socket directory; "
        "stop the wrong one. If the server was just restarted, try again."
    )


class ServerUnsupported(ServerError):
    """The server's version is older than what this tool was made for."""

    code = "server_unsupported"
    default_remedy = "Use PostgreSQL 14 or newer."


class VolumeUnsupported(ServerError):
    """The server's settings don't allow copying it while it runs."""

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
    """A lock, most likely a migration's, was not released in time."""

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
    """The backup directory failed."""

    code = "store_failed"
    default_remedy = (
        "Check that the backup directory is there, that this user may read and write it, and that its disk has space "
        "and reports no errors; then try again."
    )


class DirectoryNotWritable(StoreError):
    """The backup directory can't be made or written to."""

    code = "directory_not_writable"
    default_remedy = "Give this user write access to the directory, or set SCARLET_BACKUP_DIR to another one."


class LocksUnsupported(StoreError):
    """The backup directory's file system can't lock files, which keeps two calls from disturbing each other."""

    code = "locks_unsupported"
    default_remedy = (
        "Set SCARLET_BACKUP_DIR to a directory on a local disk, and copy finished backups to this one; or mount it "
        "with locks (NFS with its lock service, Lustre with `flock`)."
    )


class FileTooLarge(StoreError):
    """A file can't grow any more: its file system holds none of that size, or a limit is set for this user."""

    code = "file_too_large"
    default_remedy = (
        "Set SCARLET_BACKUP_DIR to a directory on another file system (FAT holds no file over 4 GiB), compress with "
        "zstd, or raise this user's limit (`ulimit -f`)."
    )


class BackupUnreadable(StoreError):
    """This user may not read a backup, a file that belongs to it, or the backup directory. It may well be good."""

    code = "backup_unreadable"
    default_remedy = (
        "Run this as the owner that the message names, or have that owner give this user access to the whole backup "
        "directory."
    )


class DiskFull(StoreError):
    """There is not enough space."""

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
    default_remedy = "Try again with the code page whose sample words are right."


class NewerVersion(StoreError):
    """A newer version of this tool wrote it, in a way that this one does not know. It was left unchanged."""

    code = "newer_version"
    default_remedy = "Update scarlet-backup-mcp on this machine, then try again."


class Busy(StoreError):
    """Another backup, restore or prune holds the lock."""

    code = "busy"
    default_remedy = "Wait until it ends, then try again."
    default_next_call = again()


class ClientFileError(BackupToolError):
    """The configuration file of an MCP client can't be changed safely, so it was left as it is."""

    code = "client_file_failed"
    default_remedy = "Add the entry by hand: docs/setup.md shows it for each client."
