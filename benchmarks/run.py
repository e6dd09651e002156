"""What each step costs, beside what PROC-004's own commands cost for the same, in one run.

    python benchmarks/run.py [MEGABYTES …] [--rounds N] [--hnsw] [--backups N] [--json FILE] [--profile STEP]

Needs a Docker engine with the image pgvector/pgvector:pg15. The steps are timed in turn, round by round; the ratio of a
round is that of two neighbours in it, and the table has the median of the rounds with the smallest and the largest.
Compare ratios, not seconds: machines are noisy. The shell's commands check nothing; ours count, read back and compare.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from letta import docker, filled_container

from scarlet_backup_mcp.models.common import Compression, Kind
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.listing import list_backups
from scarlet_backup_mcp.procedures.restore.options import RestoreOptions
from scarlet_backup_mcp.procedures.restore.service import restore
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import Settings, load_settings

DUMP, LOAD, BASE = "docker exec pg_dump > file", "psql < file, into a new database", "pg_basebackup > file"


class Bench:
    """One container, and every step in it. A step that gives seconds is not timed by the clock."""

    def __init__(self, container: str, directory: Path) -> None:
        self._container = container
        self._directory = directory
        self.settings = load_settings(dir=str(directory / "backups"), container=container)
        self._newest: dict[tuple[Kind, Compression], str] = {}
        self._unavailable = 0.0
        self.steps: dict[str, tuple[str | None, Callable[[], float | None]]] = {
            DUMP: (None, self._shell_dump),
            "backup": (DUMP, lambda: self._backup("sql", "none")),
            "backup, zstd": (DUMP, lambda: self._backup("sql", "zstd")),
            "verify full": (DUMP, lambda: self._verify("full")),
            LOAD: (None, self._shell_load),
            "restore": (LOAD, self._restore),
            "nobody can connect": (None, lambda: self._unavailable),
            "drill": (LOAD, lambda: self._verify("drill")),
            BASE: (None, self._shell_base),
            "backup, volume": (BASE, lambda: self._backup("volume", "gzip")),
            "backup, volume, zstd": (BASE, lambda: self._backup("volume", "zstd")),
        }

    @property
    def megabytes(self) -> float:
        """Size of the plain dump, once there is one."""
        return (self._directory / "plain.sql").stat().st_size / 1e6

    def seconds(self, step: str) -> float:
        """Run a step and time it."""
        began = time.perf_counter()
        told = self.steps[step][1]()
        return time.perf_counter() - began if told is None else told

    def peak_megabytes(self) -> float:
        """Return the most memory that a process of ours takes for a backup."""
        ours = {"SCARLET_BACKUP_DIR": str(self.settings.dir), "SCARLET_BACKUP_CONTAINER": self._container}
        command = [sys.executable, "-m", "scarlet_backup_mcp", "backup", "--compression", "none"]
        child = subprocess.Popen(command, env=os.environ | ours, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            sys.exit("The backup failed.")
        return usage.ru_maxrss / 1e3

    def _shell_dump(self) -> None:
        """PROC-004's step 3, in a shell that leaves bytes alone."""
        self._to_file("plain.sql", "pg_dump", "-U", "postgres", "letta")

    def _shell_base(self) -> None:
        self._to_file("base.tar", "pg_basebackup", "-U", "postgres", "-D", "-", "-Ft", "-X", "fetch", "-c", "fast")

    def _to_file(self, file: str, *program: str) -> None:
        with (self._directory / file).open("wb") as out:
            subprocess.run(["docker", "exec", self._container, *program], stdout=out, check=True)

    def _shell_load(self) -> None:
        """PROC-004's restore, into an empty database so that it can succeed."""
        psql = ("exec", "-i", self._container, "psql", "-q", "-U", "postgres")
        docker(*psql, stdin=b"DROP DATABASE IF EXISTS shell; CREATE DATABASE shell")
        with (self._directory / "plain.sql").open("rb") as source:
            subprocess.run(["docker", *psql, "-d", "shell"], stdin=source, stdout=subprocess.DEVNULL, check=True)
        docker(*psql, stdin=b"DROP DATABASE shell")

    def _backup(self, kind: Kind, compression: Compression) -> None:
        with BackupContext(self.settings) as context:
            taken = backup(context, Progress(), kind=kind, compression=compression, verify="full")
        self._newest[kind, compression] = taken.name

    def _verify(self, level: str) -> None:
        with BackupContext(self.settings) as context:
            verify(context, Progress(), self._newest["sql", "none"], "drill" if level == "drill" else "full")

    def _restore(self) -> None:
        with BackupContext(self.settings) as context:
            options = RestoreOptions(drop_oldest_undo=True)
            restored = restore(context, Progress(), self._newest["sql", "none"], options)
        self._unavailable = restored.unavailable_seconds or 0.0


@dataclass(frozen=True)
class Row:
    """A step's seconds in each round, and its ratio to its base in each."""

    megabytes: float
    step: str
    base: str | None
    seconds: list[float]
    ratios: list[float]

    def __str__(self) -> str:
        """Lay it out as a line of the table."""
        spread = f"{min(self.ratios):5.2f} to {max(self.ratios):4.2f}" if self.ratios else ""
        ratio = f"{statistics.median(self.ratios):6.2f} x {spread}" if self.ratios else ""
        return f"{self.megabytes:7.0f} MB  {self.step:<34} {statistics.median(self.seconds):8.2f} s {ratio}"


def measured(bench: Bench, rounds: int) -> list[Row]:
    """Time all steps in turn; the first round only warms up if there are more."""
    found: dict[str, list[float]] = {name: [] for name in bench.steps}
    for _ in range(rounds + (rounds > 1)):
        for name, seconds in found.items():
            seconds.append(bench.seconds(name))
    counted = {name: seconds[-rounds:] for name, seconds in found.items()}
    return [
        Row(bench.megabytes, name, base, seconds, _ratios(seconds, counted[base]) if base else [])
        for name, seconds in counted.items()
        for base in [bench.steps[name][0]]
    ]


def _ratios(ours: list[float], theirs: list[float]) -> list[float]:
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def listing_seconds(settings: Settings, backups: int) -> float:
    """Time a listing of that many backups: links to one."""
    directory = settings.dir
    assert directory is not None
    first = next(path for path in sorted(directory.glob("letta_backup_*.sql")))
    for number in range(backups):
        name = f"letta_backup_20200101_{number // 3600:02}{number // 60 % 60:02}{number % 60:02}.sql"
        for path in directory.glob(f"{first.name}*"):
            os.link(path, directory / path.name.replace(first.name, name))
    with BackupContext(settings) as context:
        began = time.perf_counter()
        list_backups(context)
        return time.perf_counter() - began


def profile(bench: Bench, step: str) -> None:
    """Show where a step's time goes, in the thread that calls it."""
    for needed in (DUMP, "backup"):
        bench.seconds(needed)
    profiler = cProfile.Profile()
    profiler.runcall(bench.seconds, step)
    pstats.Stats(profiler).sort_stats("cumulative").print_stats(40)


def main() -> None:
    """Run what the command line asks for, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("megabytes", type=int, nargs="*", default=[50, 500], help="of plain dump; 50 and 500")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count; 5")
    parser.add_argument("--hnsw", action="store_true", help="with an HNSW index over 50,000 vectors of 1,024")
    parser.add_argument("--backups", type=int, help="also time a listing of that many backups")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    parser.add_argument("--profile", metavar="STEP", help="show where the time of one step goes, instead")
    options = parser.parse_args()
    rows: list[Row] = []
    for megabytes in options.megabytes:
        with filled_container(megabytes, hnsw=options.hnsw) as container, tempfile.TemporaryDirectory() as directory:
            bench = Bench(container, Path(directory))
            if options.profile:
                profile(bench, options.profile)
                continue
            rows += measured(bench, options.rounds)
            print(*rows[-len(bench.steps) :], sep="\n")
            print(f"{bench.megabytes:7.0f} MB  memory of a backup's process: {bench.peak_megabytes():.0f} MB")
            if options.backups:
                seconds = listing_seconds(bench.settings, options.backups)
                print(f"{bench.megabytes:7.0f} MB  a listing of {options.backups} backups: {seconds:.3f} s")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
