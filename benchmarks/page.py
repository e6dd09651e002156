"""Write what `run.py` measured into docs/performance.md, between its markers, and draw docs/performance.svg.

    python benchmarks/page.py FILE.json [FILE.json …]

The files are those of `run.py --json`; of several with the same data the last one counts.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from pydantic import BaseModel

from scarlet_backup_mcp.wording import number_of

DOCS = Path(__file__).parent.parent / "docs"
BEGIN, END = "<!-- measured: benchmarks/page.py writes this -->", "<!-- end of measured -->"
# Colours that are told apart on white and on black, by people who do not see red or green, too.
DRAWN = {
    "docker exec pg_dump > file": "#8c8c8c",
    "backup": "#0f82c4",
    "backup, zstd": "#2aa39b",
    "verify full": "#b07cc6",
    "psql < file, into a new database": "#8c8c8c",
    "restore": "#d9661f",
    "drill": "#c9a227",
}
"""The steps that the drawing shows, each in its colour; dashed if it is none of ours."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 440, 60, 250, 48, 48
"""Pixels: of the drawing, and of what is left beside its axes."""


class Row(BaseModel):
    """A step's seconds in each round, and its ratio in each to what it is compared with; what its process took."""

    data: str
    megabytes: float
    step: str
    base: str | None
    seconds: list[float]
    ratios: list[float]
    bytes: int | None = None
    peak_megabytes: float | None = None

    @property
    def median(self) -> float:
        """Its seconds in the middle."""
        return statistics.median(self.seconds)

    @property
    def ratio(self) -> str:
        """The ratio in the middle, with the smallest and the largest; "" without one."""
        if not self.ratios:
            return ""
        spread = f" ({min(self.ratios):.2f} to {max(self.ratios):.2f})" if len(self.ratios) > 1 else ""
        return f"{statistics.median(self.ratios):.2f} ×{spread}"

    def __str__(self) -> str:
        """Lay it out as a line of a table."""
        peak = f", {self.peak_megabytes:.0f} MB of memory" if self.peak_megabytes else ""
        return f"{self.data:<28} {self.step:<42} {self.median:8.3f} s  {self.ratio}{peak}"


class Result(BaseModel):
    """What one run measured, and where; `load` is the machine's, before and after."""

    measured_at: str
    machine: str
    cores: int
    load: list[float]
    rounds: int
    rows: list[Row]


def write_page(results: Sequence[Result]) -> None:
    """Write the tables into the page, and the drawing beside it."""
    page = DOCS / "performance.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{tables(results)}\n\n{END}{after}", encoding="utf-8")
    rows = list(_newest(results).values())
    (DOCS / "performance.svg").write_text(drawing(rows), encoding="utf-8")


def tables(results: Sequence[Result]) -> str:
    """Lay out the figures as Markdown: where they come from, then a table of steps, one of files and one of starts."""
    rows = _newest(results)
    datas = list(dict.fromkeys(data for data, _ in rows if data != "starts"))
    steps = list(dict.fromkeys(step for data, step in rows if data != "starts"))
    lines = [f"- {_origin(result)}" for result in results]
    lines += ["", f"| | compared with | {' | '.join(datas)} |", "|---" * (2 + len(datas)) + "|"]
    for step in steps:
        cells = [rows.get((data, step)) for data in datas]
        base = next((row.base for row in cells if row and row.base), "") or ""
        lines.append(f"| {_code(step)} | {_code(base)} | {' | '.join(map(_cell, cells))} |")
    lines += ["", f"| file | {' | '.join(datas)} |", "|---" * (1 + len(datas)) + "|"]
    for step in steps:
        sizes = [row.bytes if (row := rows.get((data, step))) else None for data in datas]
        if any(sizes):
            lines.append(f"| {_code(step)} | {' | '.join(f'{size / 1e6:,.0f} MB' if size else '' for size in sizes)} |")
    lines += ["", "| start | time | compared with an empty one |", "|---|---|---|"]
    lines += [
        f"| {row.step} | {row.median:.2f} s | {row.ratio} |" for (data, _), row in rows.items() if data == "starts"
    ]
    return "\n".join(lines)


def _origin(result: Result) -> str:
    what = ", ".join(dict.fromkeys(row.data for row in result.rows))
    before, after = result.load
    where = f"{result.machine}, {result.cores} cores, load average {before} before and {after} after"
    return f"{what}: {number_of(result.rounds, 'round')} on {result.measured_at}; {where}"


def _newest(results: Iterable[Result]) -> dict[tuple[str, str], Row]:
    return {(row.data, row.step): row for result in results for row in result.rows}


def _code(step: str) -> str:
    return f"`{step}`" if " > " in step or " < " in step else step


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    speed = f"{row.megabytes / row.median:,.0f} MB/s" if row.step == "verify full" else ""
    memory = f"{row.peak_megabytes:.0f} MB of memory" if row.peak_megabytes else ""
    return ", ".join(filter(None, [f"{row.median:.2f} s", row.ratio and f"**{row.ratio}**", speed, memory]))


# -- the drawing -------------------------------------------------------------------------------------------------------


def drawing(rows: Iterable[Row]) -> str:
    """Draw the seconds of steps over the sizes of dumps as SVG, both axes logarithmic: twice the size for twice the
    time is a line of one slope."""
    lines = {step: sorted((row.megabytes, row.median) for row in rows if row.step == step) for step in DRAWN}
    points = [point for line in lines.values() for point in line]
    if not points:
        return ""
    across = _Axis(min(x for x, _ in points), max(x for x, _ in points), LEFT, WIDTH - RIGHT)
    up = _Axis(min(y for _, y in points), max(y for _, y in points), HEIGHT - BOTTOM, TOP)
    parts = [
        f'<line x1="{across(x):.1f}" y1="{TOP}" x2="{across(x):.1f}" y2="{HEIGHT - BOTTOM}"/>' for x in across.ticks
    ]
    parts += [f'<line x1="{LEFT}" y1="{up(y):.1f}" x2="{WIDTH - RIGHT}" y2="{up(y):.1f}"/>' for y in up.ticks]
    parts += [_text(across(x), HEIGHT - BOTTOM + 18, f"{x:,g}", "middle") for x in across.ticks]
    parts += [_text(LEFT - 8, up(y) + 4, f"{y:g}", "end") for y in up.ticks]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, "size of the plain dump in MB", "middle"))
    parts.append(_text(LEFT - 44, TOP - 20, "seconds"))
    lowest = 0.0
    for step, line in sorted(((step, line) for step, line in lines.items() if line), key=lambda it: up(it[1][-1][1])):
        places = [(across(x), up(y)) for x, y in line]
        dashes = ' stroke-dasharray="6 4"' if " > " in step or " < " in step else ""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{DRAWN[step]}" stroke-width="2"{dashes}/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{DRAWN[step]}"/>' for x, y in places]
        lowest = max(places[-1][1] + 4, lowest + 16)
        parts.append(_text(WIDTH - RIGHT + 10, lowest, step, colour=DRAWN[step]))
    told = "; ".join(
        f"{step}: " + ", ".join(f"{y:.1f} s for {x:,.0f} MB" for x, y in line) for step, line in lines.items()
    )
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title desc">
<title id="title">What each step costs as the database grows</title>
<desc id="desc">{escape(told)}</desc>
<style>
text {{ font: 13px system-ui, sans-serif; fill: #444 }}
line {{ stroke: #8884 }}
@media (prefers-color-scheme: dark) {{ text {{ fill: #ccc }} }}
</style>
{chr(10).join(parts)}
</svg>
"""


class _Axis:
    """A logarithmic axis between two pixels, a little longer than what is shown on it."""

    def __init__(self, least: float, most: float, begin: float, end: float) -> None:
        self._least, self._most = math.log(least / 1.2), math.log(most * 1.2)
        self._begin, self._end = begin, end

    def __call__(self, value: float) -> float:
        """Return a value's pixel."""
        part = (math.log(value) - self._least) / (self._most - self._least)
        return self._begin + part * (self._end - self._begin)

    @property
    def ticks(self) -> list[float]:
        """Return the round values on it."""
        powers = range(math.floor(self._least / math.log(10)), math.ceil(self._most / math.log(10)) + 1)
        found = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
        return [value for value in found if self._least <= math.log(value) <= self._most]


def _text(x: float, y: float, words: str, anchor: str = "start", colour: str = "") -> str:
    style = f' style="fill: {colour}"' if colour else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(words)}</text>'


if __name__ == "__main__":
    write_page([Result.model_validate_json(Path(name).read_bytes()) for name in sys.argv[1:]])
