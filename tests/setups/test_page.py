"""docs/setups.md has the table's rows. `SCARLET_TEST_RENEW=1` writes them anew."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from ..conftest import PROJECT_ROOT
from .rows import ALL, SECTIONS
from .table import SQL, VOLUME, Setup

PAGE = PROJECT_ROOT / "docs" / "setups.md"
BEGIN, END = "<!-- from the tests -->\n", "<!-- end -->\n"


def test_the_page_has_these_rows() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    renewed = before + BEGIN + "".join(section(title, rows) for title, rows in SECTIONS.items()) + "\n" + END + after
    if os.environ.get("SCARLET_TEST_RENEW") == "1":
        PAGE.write_text(renewed, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == renewed, "docs/setups.md is stale: SCARLET_TEST_RENEW=1"


def test_names_are_unique_and_no_step_both_works_and_is_refused() -> None:
    names = [row.name for row in ALL]
    assert sorted(set(names)) == sorted(names)
    assert [row.name for row in ALL if set(row.works) & set(row.refused)] == []


def section(title: str, rows: Sequence[Setup]) -> str:
    if not rows:
        return ""
    lines = [("Set-up", "What is found", "What works", "What is refused, and why"), *map(cells, rows)]
    table = [f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines]
    return "\n".join(["", f"## {title}", "", table[0], "|---|---|---|---|", *table[1:], ""])


def cells(row: Setup) -> tuple[str, ...]:
    found = ", ".join(phrase.format(container="`db`") for phrase in row.found)
    return row.setup, found, ", ".join(working(row)), "; ".join(refusals(row))


def working(row: Setup) -> Iterator[str]:
    """In few words where all of a kind works."""
    for whole, summary in ((SQL, "SQL: all"), (VOLUME, "volume: all")):
        works = [verb for verb in whole if verb in row.works]
        yield from [summary] if works == list(whole) else works


def refusals(row: Setup) -> Iterator[str]:
    for verb, refusal in row.refused.items():
        yield f"{verb}: `{refusal.code}`, {' '.join(filter(None, (refusal.message, refusal.remedy)))}"
