"""What a terminal of any width shows: tables, lines, colours, and the bar."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from scarlet_backup_mcp.cli import screen
from scarlet_backup_mcp.cli.screen import Rows

from ..helpers.command_line import CommandLine, posix_only, python_on_a_terminal

NAMES = ["letta_backup_20261122_033000.sql", "postgres_volume_20261129_033000.tar.zst", "p" * 41 + "_1.sql"]
LABEL = 'last 3, weekly 2026-W47; "before the migration of 海 and 🧠 to the new server, see notes"'


def shown(width: int, show: Callable[[Console], None], *, colours: bool = False) -> list[str]:
    file = io.StringIO()
    system = "standard" if colours else None
    console = Console(file=file, width=width, force_terminal=True, color_system=system, highlight=False)
    show(console)
    return file.getvalue().splitlines()


def table(console: Console) -> None:
    cells = [[name, "3 days", "124.0 kB", "good", "1,234,567", LABEL] for name in NAMES]
    titles = ("backup", "age", "size", "state", "rows", "label / detail")
    screen.show_table(console, Rows(titles, cells, [f"3 days old  good; {LABEL}"] * len(cells), right=(1, 2, 4)))


def test_tables_fit_with_whole_names_from_60_to_200_columns() -> None:
    for width in range(60, 201):
        lines = shown(width, table)
        assert max(map(cell_len, lines)) <= width
        bordered = [line for line in lines if line[0] in "┏┃┡│└"]
        assert {(line[0], line[-1]) for line in bordered} <= {
            ("┏", "┓"),
            ("┃", "┃"),
            ("┡", "┩"),
            ("│", "│"),
            ("└", "┘"),
        }
        assert {cell_len(line) for line in bordered} in (set(), {cell_len(lines[0])})
        assert [name for name in NAMES if not any(name in line for line in lines)] == []
        words = set(re.findall(r"[^\s│]+", " ".join(lines)))
        assert set(LABEL.split()) <= words, width


def test_lines_break_between_words_only() -> None:
    text = f"{NAMES[0]}  2.5 MB  would be removed: no rule keeps it, and {'x' * 70} is longer than any line"
    for width in range(60, 80):
        lines = shown(width, lambda console: screen.show_lines(console, text))
        assert " ".join(lines).split() == text.split()
        assert all(cell_len(line) <= width for line in lines if "x" * 70 not in line)


def test_what_is_pasted_stays_in_one_piece() -> None:
    line = f"Next: scarlet-backup-mcp restore {NAMES[1]} --accept-foreign --dir /somewhere/else"
    assert shown(60, lambda console: screen.show_lines(console, line)) == [line]


@pytest.mark.parametrize(
    ("line", "colour"),
    [
        ("PROC-003 may go ahead.", 32),
        ("PROC-003 must NOT go ahead.", 31),
        ("NOT healthy: local server", 31),
        ("Healthy: local server", 32),
        ("x.sql is valid (level full, 16 checks).", 32),
        ("x.sql is NOT valid (level full, 16 checks).", 31),
        ("Drill in a sandbox, PostgreSQL 18: the same data came back.", 32),
        ("Drill in a sandbox, PostgreSQL 18: NOT the same data came back.", 31),
        ("Warning: the clock", 33),
        ("Error: no", 31),
        ("Database letta, server 127.0.0.1:5432.", None),
    ],
)
def test_colour_says_what_is_good_and_what_is_not(line: str, colour: int | None) -> None:
    [text] = shown(100, lambda console: screen.show_lines(console, line), colours=True)
    assert re.findall(r"\x1b\[(3\d)m", text) == ([] if colour is None else [str(colour)])


def test_no_color_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert screen.console().color_system is not None
    monkeypatch.setenv("NO_COLOR", "1")
    assert screen.console().color_system is None


BAR = """
import time
from scarlet_backup_mcp.cli.bar import TerminalProgress

with TerminalProgress() as progress:
    progress.stage("a stage whose title is longer than any terminal " * 5, 10)
    progress.report(10)
    time.sleep(1.5)
    with progress.paused():
        print("\\nQUESTION", flush=True)
    progress.stage("afterwards")
    time.sleep(1)
"""


@posix_only
def test_the_bar_keeps_to_its_line_and_runs_on_after_a_question(tmp_path: Path, command_line: CommandLine) -> None:
    environment = command_line.environment | {"COLUMNS": "80"}
    with python_on_a_terminal(("-c", BAR), environment, tmp_path) as terminal:
        assert terminal.end() == 0, terminal.text
    before, after = terminal.text.split("QUESTION")
    drawn = [line for line in re.split(r"[\r\n]+", before) if line.strip()]
    assert {cell_len(line) for line in drawn} == {80}
    assert [line for line in drawn if not re.match(r"[━╸╺]{24} +\d+% 0:00:0\d ", line)] == []
    assert "0:00:01" in before, "the clock stands still though the stage is done"
    assert re.search(r"━+ +\d+% 0:00:02 afterwards", after)
