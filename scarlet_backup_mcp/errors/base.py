"""The root of all errors, what they suggest to call next, and those that belong to no one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..redaction import printable


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
    """No setting and no Compose label says where the backups are."""

    code = "backup_dir_unknown"
    default_remedy = (
        "Set SCARLET_BACKUP_DIR to an absolute directory on this machine (for Scarlet: the `backups` folder next "
        "to her compose.yaml)."
    )


class ScheduleFailed(BackupToolError):
    """The scheduler refused. Earlier registrations are unchanged unless the message says otherwise."""

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
    """An unexpected error. Its traceback is in the server's log on stderr."""

    code = "internal_error"
    default_remedy = (
        "Read the log on stderr. The list of backups and a check of the database show what was done and what exists."
    )
    default_next_call = NextCall(tool="db_integrity")
