"""The command line on a real terminal: questions, colours, interruptions."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scarlet_backup_mcp.models.results import Backup, Integrity
from scarlet_backup_mcp.settings import Settings

from ..conftest import LocalDatabase
from ..helpers.command_line import AGENTS, ROWS, CommandLine, Terminal, directory_of, posix_only, terminal
from ..helpers.faces import (
    execute,
    live_oid,
    local_backends,
    locked,
    undo_points,
    unfinished,
    until,
)


@posix_only
def test_terminal_shows_a_bar_and_tables(command_line: CommandLine) -> None:
    with terminal(command_line, "backup", "--label", "on a terminal") as screen:
        assert screen.end() == 0
        assert "━" in screen.seen
        assert "PROC-003 may go ahead." in screen.seen
    with terminal(command_line, "list") as screen:
        assert screen.end() == 0
        line = r'[┃│] letta_backup_\d{8}_\d{6}\.sql .*[┃│] good +[┃│] +554 [┃│] .*"on a terminal"'
        assert re.search(line, screen.text)
    with terminal(command_line, "verify") as screen:
        assert screen.end() == 0
        assert re.search(r"[┃│] sha256 +[┃│] yes", screen.text)
    with terminal(command_line, "integrity") as screen:
        assert screen.end() == 0
        assert re.search(r"[┃│] letta\.messages +[┃│]", screen.text)


@posix_only
def test_alone_on_a_terminal_it_says_that_it_is_a_server(command_line: CommandLine) -> None:
    with terminal(command_line) as screen:
        assert screen.end() == 2
        assert "This is an MCP server" in screen.text
        assert "scarlet-backup-mcp restore latest" in screen.text


@posix_only
def test_names_are_whole_and_others_backups_told_on_a_terminal_of_any_width(
    local_database: LocalDatabase, command_line: CommandLine
) -> None:
    name = command_line.answer(Backup, 0, "backup").name
    command_line.environment["SCARLET_BACKUP_DSN"] = local_database.dsn.replace(local_database.name, "another")
    for columns in ("80", "200"):
        command_line.environment["COLUMNS"] = columns
        with terminal(command_line, "list") as screen:
            assert screen.end() == 0
        assert name in screen.text
        assert f"other database {local_database.name}" in screen.text


@posix_only
def test_labels_and_names_are_shown_as_they_are(local: Settings, command_line: CommandLine) -> None:
    """A label may come from anyone, and a foreign file may have any name: neither is markup to rich."""
    label, foreign = "[red]x[/red] [/] :smile:", "odd [red] [bold]x.sql"
    made = command_line.answer(Backup, 0, "backup", "--label", label)
    (directory_of(local) / foreign).write_bytes(Path(made.path).read_bytes())
    for arguments, expected, code in [
        (("list",), (label, foreign), 0),
        (("verify", foreign), (foreign,), 1),
        (("restore", foreign, "--accept-foreign", "--dry-run"), (foreign,), 0),
    ]:
        with terminal(command_line, *arguments) as screen:
            assert screen.end() == code, screen.text
            assert [words for words in expected if words not in screen.text] == [], screen.text


def test_control_characters_in_a_label_are_refused(local: Settings, command_line: CommandLine) -> None:
    for label in ("\x1b[31mred", "a\nb", "\x07"):
        done = command_line.run("backup", "--label", label)
        assert done.returncode == 2
        assert "\x1b" not in done.stdout + done.stderr
    assert not directory_of(local).exists() or list(directory_of(local).glob("*.sql")) == []


@posix_only
def test_restore_takes_the_exact_words_only(
    local_database: LocalDatabase, restorable: Backup, command_line: CommandLine
) -> None:
    before = live_oid(local_database)
    name = restorable.name
    for typed in ("", "y", "restore latest", f"Restore {name}", f"restore  {name}", name):
        with terminal(command_line, "restore", "latest") as screen:
            screen.read_until(f"Type 'restore {name}'")
            screen.type(f"{typed}\r")
            assert screen.end() == 2, typed
            assert "confirmation_needed" in screen.text, typed
    assert live_oid(local_database) == before


@pytest.fixture
def restorable(command_line: CommandLine) -> Backup:
    return command_line.answer(Backup, 0, "backup")


@posix_only
def test_restore_asks_with_the_facts_and_goes_on(
    local_database: LocalDatabase, restorable: Backup, command_line: CommandLine
) -> None:
    execute(local_database, "TRUNCATE letta.agents CASCADE")
    with terminal(command_line, "restore", "latest") as screen:
        question = screen.read_until(f"Type 'restore {restorable.name}'")
        for fact in (
            restorable.name,
            f"{ROWS} rows",
            f"{AGENTS} of them in agents",
            local_database.name,
            "0 of them in",
        ):
            assert fact in question, fact
        screen.type(f"restore {restorable.name}\r")
        assert screen.end() == 0
        assert f"Restored {restorable.name}" in screen.seen
    assert len(undo_points(local_database)) == 1
    assert command_line.answer(Integrity, 0, "integrity").agents == AGENTS


@posix_only
def test_restore_is_stale_when_the_database_changed_under_the_question(
    local_database: LocalDatabase, restorable: Backup, command_line: CommandLine
) -> None:
    with terminal(command_line, "restore", "latest") as screen:
        screen.read_until(f"Type 'restore {restorable.name}'")
        assert command_line.run("restore", "latest", "--yes").returncode == 0
        restored = live_oid(local_database)
        screen.type(f"restore {restorable.name}\r")
        assert screen.end() == 2
        assert "confirmation_stale" in screen.seen
    assert live_oid(local_database) == restored


@posix_only
def test_key_or_signal_at_the_question_ends_it(
    local_database: LocalDatabase, restorable: Backup, command_line: CommandLine
) -> None:
    before = live_oid(local_database)
    ends: dict[str, tuple[Callable[[Terminal], None], list[int]]] = {
        "Ctrl-C": (lambda screen: screen.type("\x03"), [130]),
        "Ctrl-D": (lambda screen: screen.type("\x04"), [2, 130]),
        "SIGTERM": (lambda screen: screen.process.send_signal(signal.SIGTERM), [130]),
    }
    for name, (end, codes) in ends.items():
        with terminal(command_line, "restore", "latest") as screen:
            screen.read_until(f"Type 'restore {restorable.name}'")
            time.sleep(0.2)
            end(screen)
            assert screen.end(15) in codes, name
            assert "internal_error" not in screen.seen, name
            assert "Traceback" not in screen.seen, name
    assert live_oid(local_database) == before


@posix_only
def test_ctrl_c_on_a_terminal_stops_a_backup(
    local_database: LocalDatabase, local: Settings, command_line: CommandLine
) -> None:
    with locked(local_database), terminal(command_line, "backup") as screen:
        until(lambda: local_backends(local_database), 20, "a backend of ours")
        screen.type("\x03")
        assert screen.end(15) == 130, screen.seen
        assert "Traceback" not in screen.seen
        until(lambda: not local_backends(local_database), 20, "no backend of ours")
    assert unfinished(directory_of(local)) == []
    with contextlib.suppress(FileNotFoundError):
        assert list(directory_of(local).glob("*.sql*")) == []
