"""Restores, and kills itself with SIGKILL at one exact moment.

    python -m tests.helpers.restore_killer '{"moment": …, "backup": …, "settings": {…}}'

Ends with exit code 0 only when the moment never came.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from scarlet_backup_mcp.hosts.docker.container import DockerHost
from scarlet_backup_mcp.postgres.server import databases
from scarlet_backup_mcp.postgres.server.session import Session
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.loading import attempts
from scarlet_backup_mcp.procedures.recovery import journal as journals
from scarlet_backup_mcp.procedures.restore import service as restoring
from scarlet_backup_mcp.progress import Progress, State
from scarlet_backup_mcp.settings import load_settings

MEGABYTE = 1 << 20


def die() -> None:
    """As a power cut or the out-of-memory killer would have it."""
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str) -> None:
    """Die when that function is called."""

    def killed(*_args: Any, **_options: Any) -> None:
        die()

    setattr(owner, name, killed)


def after(owner: Any, name: str) -> None:
    """Die when that function has done its work."""
    function = getattr(owner, name)

    def killed(*args: Any, **options: Any) -> None:
        function(*args, **options)
        die()

    setattr(owner, name, killed)


def after_both_renames() -> None:
    """Die between the second rename and its COMMIT."""
    execute, renames = Session.execute, list[str]()

    def killed(self: Session, statement: str, timeout: float | None = None) -> str:
        answer = execute(self, statement, timeout)
        if "RENAME TO" in statement:
            renames.append(statement)
            if len(renames) == 2:
                die()
        return answer

    Session.execute = killed


class Mortal(Progress):
    """Dies in the middle of the load."""

    def show(self, state: State) -> None:
        if state.stage.startswith("loading") and state.done > MEGABYTE:
            die()


MOMENTS: dict[str, Callable[[], None]] = {
    "when the new database is not marked yet": lambda: before(databases, "set_comment"),
    "before the load": lambda: before(attempts, "load"),
    "in the middle of the load": lambda: None,
    "after owner and settings are put back": lambda: after(databases, "apply_properties"),
    "after the journal is written": lambda: after(journals, "write"),
    "after a dependent is stopped": lambda: after(DockerHost, "stop_container"),
    "between the renames and their COMMIT": after_both_renames,
    "after the swap": lambda: after(databases, "swap"),
    "before the journal is removed": lambda: before(journals, "remove"),
}


def main(moment: str, backup: str, settings: dict[str, str]) -> None:
    """Restore, up to that moment."""
    MOMENTS[moment]()
    progress = Mortal() if moment == "in the middle of the load" else Progress()
    with BackupContext(load_settings(**settings)) as context:
        restoring.restore(context, progress, backup)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
