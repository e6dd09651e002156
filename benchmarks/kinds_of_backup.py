"""The two kinds of backup side by side on one container: sizes and times of each step of their lives.

    python benchmarks/kinds_of_backup.py [MEGABYTES]

Needs a Docker engine with the image pgvector/pgvector:pg15. Ratios are to the plain SQL backup of the same run: compare
them, not seconds, since machines are noisy.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from letta import filled_container

from scarlet_backup_mcp.models.common import Compression, Kind, Model
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.restore.options import RestoreOptions
from scarlet_backup_mcp.procedures.restore.service import restore
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import Settings, load_settings

M = TypeVar("M", bound=Model)
# Volumes first: restores of SQL leave databases behind, which a volume's copy would hold, too.
KINDS: tuple[tuple[Kind, Compression], ...] = (("volume", "gzip"), ("volume", "zstd"), ("sql", "none"), ("sql", "zstd"))
STEPS = ("backup", "verify full", "drill", "restore", "without server")


def main(megabytes: int) -> None:
    """Run everything and print the table."""
    with filled_container(megabytes) as container, tempfile.TemporaryDirectory() as directory:
        settings = load_settings(dir=str(Path(directory) / "backups"), container=container)
        show({kind: live(settings, *kind) for kind in KINDS})


def live(settings: Settings, kind: Kind, compression: Compression) -> dict[str, float]:
    """Bytes of a backup, and seconds of each step."""
    taken, seconds = timed(settings, lambda t: backup(t, Progress(), kind=kind, compression=compression))
    found = {"bytes": float(taken.bytes), "backup": seconds}
    found["verify full"] = timed(settings, lambda t: verify(t, Progress(), taken.name))[1]
    found["drill"] = timed(settings, lambda t: verify(t, Progress(), taken.name, "drill"))[1]
    options = RestoreOptions(drop_oldest_undo=True)
    restored, found["restore"] = timed(settings, lambda t: restore(t, Progress(), taken.name, options))
    found["without server"] = restored.unavailable_seconds or 0.0
    return found


def timed(settings: Settings, work: Callable[[BackupContext], M]) -> tuple[M, float]:
    """What it gives, and its seconds."""
    began = time.perf_counter()
    with BackupContext(settings) as context:
        result = work(context)
    return result, time.perf_counter() - began


def show(found: dict[tuple[Kind, Compression], dict[str, float]]) -> None:
    """One line for each kind; ratios to the plain SQL backup."""
    base = found["sql", "none"]
    print(f"{'':<14}{'MB':>14}" + "".join(f"{step + ' s':>18}" for step in STEPS))
    for (kind, compression), values in found.items():
        cells = [f"{values['bytes'] / 1e6:.0f} ({values['bytes'] / base['bytes']:.2f} x)"]
        cells += [f"{values[step]:.1f} ({values[step] / base[step]:.2f} x)" for step in STEPS]
        print(f"{kind + ' ' + compression:<14}{cells[0]:>14}" + "".join(f"{cell:>18}" for cell in cells[1:]))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
