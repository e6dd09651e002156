"""Errors of taking and drilling backups."""

from __future__ import annotations

from .base import BackupToolError, again


class DumpFailed(BackupToolError):
    """pg_dump or pg_basebackup failed, or its output failed the checks. No backup was made."""

    code = "dump_failed"
    default_remedy = (
        "Read the message and the server's log (in Docker: `docker compose logs postgres`), and fix the cause. "
        "Meanwhile a backup of the other kind may work: sql reads every row, volume copies the files as they are."
    )


class DumpIncomplete(DumpFailed):
    """The dump ended without an error, but is incomplete."""

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
    """There are more tables than the server has locks for."""

    code = "too_few_locks"
    SETTING = (
        "Set max_locks_per_transaction to {} (by `command: postgres -c …` in compose.yaml, which wins over the others, "
        "in postgresql.conf, or by `ALTER SYSTEM SET`) and restart the server; then try again."
    )
    OR_A_VOLUME = "Or take a backup of kind volume, which needs no such locks."
    default_remedy = f"{SETTING.format('a higher value')} {OR_A_VOLUME}"
    default_next_call = again(kind="volume")


class DataDamaged(DumpFailed):
    """The server could not read its own files."""

    code = "data_damaged"
    default_remedy = (
        "Keep every older backup. Stop the container and take a backup of kind volume: a cold copy holds all "
        "files as they are. Check the disk. Then restore the last good backup; what is newer and still readable "
        "can be copied table by table (`COPY … TO`), from damaged pages with `SET zero_damaged_pages = on`."
    )
    default_next_call = again(kind="volume")


class StoreRefused(BackupToolError):
    """A store beside the database, or what uses it, can't be stopped or copied without losing something."""

    code = "store_refused"
    default_remedy = (
        "Do what the message says; or leave that store out (`-service` in SCARLET_BACKUP_STORES), or back up the "
        "database alone, with the scope database."
    )


class StoreNotStopped(BackupToolError):
    """A container did not stop when it was asked to, or was killed. No set was made."""

    code = "store_not_stopped"
    default_remedy = (
        "See in its log (`docker compose logs`) why it does not end. If it only uses a store, stop it by hand first, "
        "or set SCARLET_BACKUP_PAUSE to false, which stops the stores alone."
    )


class StoreNotSaved(BackupToolError):
    """A store did not write its data to its disk. No set was made."""

    code = "store_not_saved"
    default_remedy = "See its log (`docker compose logs`), and try again."


class DrillFailed(BackupToolError):
    """A restore drill could not be done. This says nothing about the backup. The live database is unchanged."""

    code = "drill_failed"
    default_remedy = "Fix what the message names and drill again. Meanwhile verify it in full, which needs no server."


class DrillImpossible(DrillFailed):
    """The sandbox could not be started."""

    code = "drill_impossible"
    default_remedy = "Fix what the message names and drill again. Meanwhile verify it in full, which needs no sandbox."
