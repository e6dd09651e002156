"""What a terminal shows: lines wrapped at words, colour where it means something, tables that fit."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..redaction import printable

GOOD, DOUBTFUL, BAD = "green", "yellow", "red"
_MEANINGS = (
    (r"^ok\b", GOOD),
    (r"^(Warning|warning|warn)\b", DOUBTFUL),
    (r"^(Error|error|fail)\b", BAD),
    (r"\bNOT\b[^.,;:]*", BAD),
    (r"^PROC-003 may go ahead\.", GOOD),
    (r"^Healthy\b", GOOD),
    (r"^ok\b", GOOD),
    (r"^warn\b", DOUBTFUL),
    (r"^fail\b", BAD),
    (r" is valid\b", GOOD),
    (r"(?<!NOT )\bthe same data came back\b", GOOD),
)
"""Words of summaries that decide something, and their colours."""
_STATES = {
    "good": GOOD,
    "damaged": BAD,
    "unreadable": DOUBTFUL,
    "differs": BAD,
    "will_not_load": BAD,
    "constraint_violated": BAD,
    "yes": GOOD,
    "NO": BAD,
    "would be removed": DOUBTFUL,
    "not removed": BAD,
}
"""Cells that are coloured as a whole."""
_INDENT = "  "
_ONE_PIECE = re.compile(r"Next: |\(confirmation: ")
"""Lines that are pasted: a terminal wraps them without line ends of its own."""
_NARROWEST = 20
"""Columns of a table's last column; with fewer there is no table."""


def console(*, stderr: bool = False) -> Console:
    """Return the terminal on stdout or stderr; without any colour if NO_COLOR is set."""
    colours = None if os.environ.get("NO_COLOR") else "auto"
    return Console(stderr=stderr, color_system=colours, highlight=False, soft_wrap=False)


def show_lines(screen: Console, text: str) -> None:
    """Print lines of words, none of which is broken: where a line does not fit, its rest is indented below it."""
    for line in printable(text).splitlines():
        shown = coloured(line)
        parts = [shown] if _ONE_PIECE.match(line) else shown.divide(_breaks(line, screen.width))
        for number, part in enumerate(parts):
            part.rstrip()
            screen.print(Text(_INDENT) + part if number else part, soft_wrap=True)


def _breaks(line: str, width: int) -> list[int]:
    """Return where words begin that have to go on a new line; a word longer than a line is the terminal's to break."""
    found: list[int] = []
    used = 0
    for word in re.finditer(r"\s*\S+", line):
        length = cell_len(word[0])
        if used and used + length > width:
            found.append(word.end() - len(word[0].lstrip()))
            used, length = len(_INDENT), cell_len(word[0].lstrip())
        used += length
    return found


def coloured(text: str) -> Text:
    """Colour what is good, what to look at, and what must not go on."""
    whole = _STATES.get(text)
    if whole is not None:
        return Text(text, whole)
    shown = Text(text)
    for words, style in _MEANINGS:
        shown.highlight_regex(words, style)
    return shown


@dataclass(frozen=True)
class Rows:
    """A table's content. All columns but the last are never broken."""

    titles: Sequence[str]
    cells: Sequence[Sequence[str]]
    narrow: Sequence[str]
    """What is said of each row below its first cell, where the terminal is too narrow for a table."""
    title: str = ""
    right: Iterable[int] = ()
    """Numbers of the columns with figures, which end at the same place."""


def show_table(screen: Console, rows: Rows) -> None:
    """Print a table that fits, with whole names; on a terminal too narrow for it, each row as its name with an indented
    line below it."""
    cells = [[printable(cell) for cell in row] for row in rows.cells]
    widths = [max(map(cell_len, column)) for column in zip(rows.titles, *cells, strict=True)]
    borders = 3 * len(widths) + 1
    if sum(widths[:-1]) + min(widths[-1], _NARROWEST) + borders > screen.width:
        show_lines(screen, rows.title)
        for (name, *_), told in zip(cells, rows.narrow, strict=True):
            screen.print(Text(name), soft_wrap=True)
            show_lines(screen, f"  {told}")
        return
    table = Table(title=Text(printable(rows.title)) if rows.title else None, title_style="", header_style="")
    for number, title in enumerate(rows.titles):
        last = number == len(rows.titles) - 1
        justify = "right" if number in rows.right else "left"
        table.add_column(title, no_wrap=not last, overflow="fold", justify=justify)
    for row in cells:
        table.add_row(*map(coloured, row))
    screen.print(table)
