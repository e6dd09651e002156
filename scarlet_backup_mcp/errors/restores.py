"""Errors of restores."""

from __future__ import annotations

from .base import BackupToolError, NextCall, again


class RestoreRefused(BackupToolError):
    """A restore was not started. Nothing was changed."""

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
    default_remedy = "If it should replace this database, accept that it is from another one."
    default_next_call = again(accept_other_database=True)


class SmallerRefused(RestoreRefused):
    """The source has less than half of what it would replace."""

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
    default_remedy = "Ask the user again with the current facts."


class PreflightFailed(RestoreRefused):
    """A condition for the restore does not hold."""

    code = "preflight_failed"


class RestoreFailed(BackupToolError):
    """A restore was started and failed. The message says what state the database is in."""

    code = "restore_failed"
    default_remedy = "The live database is unchanged. Fix the cause, then restore again."
    default_next_call = again()


class WillNotLoad(RestoreFailed):
    """The server refused a part of a backup whose file is intact."""

    code = "will_not_load"
    default_remedy = (
        "Change the object named in the message in the live database so that it needs nothing that a dump lacks "
        "(a function in pg_catalog, for example, is in none), then take a new backup. If that database is "
        "lost, choose another backup."
    )


class ConstraintViolated(RestoreFailed):
    """The database had rows that violate its own constraints. The backup is faithful."""

    code = "constraint_violated"
    default_remedy = (
        "A drill names the rows. If the user agrees, restore with the violations accepted: foreign keys and "
        "checks that the rows violate become NOT VALID, unique indexes are left out."
    )
    default_next_call = again(accept_violations=True)


class RestoreInterrupted(RestoreFailed):
    """An earlier restore was interrupted and can't be tidied up yet."""

    code = "restore_interrupted"
    default_remedy = "Start the server (in Docker: `docker compose up -d postgres`), then try again."
    default_next_call = again()
