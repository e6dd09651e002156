"""Makes a set, and kills itself with SIGKILL at one exact moment.

    python -m tests.helpers.memory_killer '{"moment": …, "settings": {…}}'

Ends with exit code 0 only when the moment never came.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from scarlet_backup_mcp.hosts.docker.engine import Engine
from scarlet_backup_mcp.models.common import Model
from scarlet_backup_mcp.models.memory import SetManifest
from scarlet_backup_mcp.procedures.backup import service
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.reading import archive
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import Settings
from scarlet_backup_mcp.store import manifests

from .restore_killer import before, die


def before_the_set() -> None:
    """Die when all archives have their names, and the set has none."""
    seal = manifests.seal

    def killed(manifest: Model) -> bytes:
        if isinstance(manifest, SetManifest):
            die()
        return seal(manifest)

    manifests.seal = killed


MOMENTS: dict[str, Callable[[], None]] = {
    "while a store is stopped": lambda: before(archive, "write"),
    "before anything is asked to stop": lambda: before(Engine, "signal_container"),
    "before the dump": lambda: before(service, "_dump_twice"),
    "before the set has its name": before_the_set,
}


def main(moment: str, settings: dict[str, Any]) -> None:
    """Make the set."""
    MOMENTS[moment]()
    with BackupContext(Settings(**settings)) as context:
        service.backup(context, Progress(), scope="memory")


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
