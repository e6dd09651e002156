"""What each step costs, beside what PROC-004's own commands cost for the same, in one run.

    python benchmarks/run.py [MEGABYTES …] [--rounds N] [--vectors N] [--backups N] [--json FILE] [--page]
    python benchmarks/run.py [MEGABYTES …] [--vectors N] --profile [STEP]

Needs a Docker engine with the image pgvector/pgvector:pg15. The steps are timed in turn, round by round; the ratio of a
round is that of two neighbours in it, and the table has the median of the rounds with the smallest and the largest.
Compare ratios, not seconds: machines are noisy. The shell's commands check nothing; ours count, read back and compare.
`--page` writes the figures into docs/performance.md, as `page.py` does with files of `--json`.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import platform
import pstats
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from letta import filled_container
from page import Result, Row, write_page
from starts import STARTS
from steps import BASE, DUMP, LOAD, Bench

Steps = Mapping[str, tuple[str | None, Callable[[], float | None]]]
STARTED = "starts"
"""The `data` of rows that have none."""
SMALLEST = 20
"""Megabytes besides the vectors."""


def timed(work: Callable[[], float | None]) -> float:
    """Time a step, unless it returns its seconds itself."""
    began = time.perf_counter()
    seconds = work()
    return time.perf_counter() - began if seconds is None else seconds


def measured(steps: Steps, rounds: int, tidy: Callable[[], None] = lambda: None) -> dict[str, list[float]]:
    """Return the seconds of each step in each round; a first round that does not count warms up if there are more."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + (rounds > 1)):
        for name, seconds in found.items():
            seconds.append(timed(steps[name][1]))
        tidy()
    return {name: seconds[-rounds:] for name, seconds in found.items()}


def rows_of(data: str, megabytes: float, steps: Steps, seconds: Mapping[str, list[float]]) -> list[Row]:
    """Put the seconds of steps beside those of what they are compared with."""
    return [
        Row(
            data=data,
            megabytes=megabytes,
            step=name,
            base=base,
            seconds=seconds[name],
            ratios=[ours / other for ours, other in zip(seconds[name], seconds[base], strict=True)] if base else [],
        )
        for name, (base, _) in steps.items()
    ]


def run(bench: Bench, data: str, rounds: int) -> list[Row]:
    """Measure everything on one container."""
    seconds = measured(bench.steps, rounds, bench.tidy)
    rows = rows_of(data, bench.megabytes, bench.steps, seconds)
    for row in rows:
        row.bytes = bench.bytes.get(row.step)
    commands = {"backup": ("backup",), "restore": ("restore", "latest", "--yes", "--drop-oldest-undo")}
    for row in rows:
        if row.step in commands:
            row.peak_megabytes = bench.peak_megabytes(*commands[row.step])
    return rows


def profile(bench: Bench, chosen: str) -> None:
    """Show where the time of a step of ours goes, or of each: its processor time, that of programs that it started, and
    the functions of its main thread that took longest with what they called."""
    if chosen:
        for needed in (DUMP, "backup", "backup, volume", *(["restore"] if chosen == "undo" else [])):
            timed(bench.steps[needed][1])
    for name in [chosen] if chosen else bench.steps:
        profiler = cProfile.Profile()
        own, others = time.process_time(), _of_children()
        seconds = profiler.runcall(timed, bench.steps[name][1])
        own, others = time.process_time() - own, _of_children() - others
        print(f"\n== {name}: {seconds:.2f} s; processor {own:.2f} s, programs that it started {others:.2f} s")
        if name not in (BASE, DUMP, LOAD):
            pstats.Stats(profiler).sort_stats("cumulative").print_stats("scarlet_backup_mcp", 20)


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Run what the command line asks for, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("megabytes", type=int, nargs="*", default=[50, 500], help="of plain dump; 50 and 500")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count; 5")
    parser.add_argument("--vectors", type=int, help="also with an HNSW index over that many vectors of 1,024")
    parser.add_argument("--backups", type=int, default=0, help="also time a listing of that many backups")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    parser.add_argument("--page", action="store_true", help="write the figures into docs/performance.md")
    parser.add_argument("--profile", metavar="STEP", nargs="?", const="", help="show where the time goes, instead")
    options = parser.parse_args()
    kinds: list[tuple[str, int, int]] = [(f"{megabytes:,} MB", megabytes, 0) for megabytes in options.megabytes]
    if options.vectors:
        kinds.append((f"HNSW over {options.vectors:,} vectors", SMALLEST, options.vectors))
    load = os.getloadavg()[0]
    rows = [] if options.profile is not None else rows_of(STARTED, 0, STARTS, measured(STARTS, options.rounds))
    print(*rows, sep="\n")
    for data, megabytes, vectors in kinds:
        with filled_container(megabytes, vectors) as container, tempfile.TemporaryDirectory() as directory:
            bench = Bench(container, Path(directory), options.backups)
            if options.profile is not None:
                profile(bench, options.profile)
                continue
            rows += run(bench, data, options.rounds)
            print(*rows[-len(bench.steps) :], sep="\n", flush=True)
    result = Result(
        measured_at=f"{datetime.now(UTC):%Y-%m-%d}",
        machine=f"{platform.system()} on {platform.machine()}, Python {platform.python_version()}",
        cores=os.cpu_count() or 0,
        load=[round(load, 1), round(os.getloadavg()[0], 1)],
        rounds=options.rounds,
        rows=rows,
    )
    if options.json:
        options.json.write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if options.page:
        write_page([result])


if __name__ == "__main__":
    main()
