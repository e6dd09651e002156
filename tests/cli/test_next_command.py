"""A call that would help, as a command line that can be pasted; settings as the person sets them."""

from __future__ import annotations

import shlex
import shutil
import sys
from contextlib import AbstractContextManager

import click
import pytest

from scarlet_backup_mcp.cli import next_command
from scarlet_backup_mcp.cli.commands import main
from scarlet_backup_mcp.cli.setting_names import as_used
from scarlet_backup_mcp.errors import NextCall, again
from scarlet_backup_mcp.settings import PREFIX

pytestmark = pytest.mark.skipif(next_command.os.name == "nt", reason="quotes for a POSIX shell")


def typed(line: str) -> AbstractContextManager[click.Context]:
    """As if a person had typed it after the program's name."""
    name, *rest = shlex.split(line)
    group = main.make_context("scarlet-backup-mcp", [name, *rest], resilient_parsing=True)
    return main.load(name).make_context(name, rest, parent=group)


CASES = [
    (
        "restore 'a b.sql' --dir /x",
        again(accept_foreign=True),
        "restore 'a b.sql' --accept-foreign --dir /x",
    ),
    ("restore latest --drill=always --yes", again(drill=None), "restore latest --yes"),
    ("restore latest --leave-dependents", again(backup="x.sql"), "restore x.sql --leave-dependents"),
    ("restore a.sql --json --quiet", again(drill="never"), "restore a.sql --drill never"),
    ("backup --kind sql --label 'my own'", again(kind="volume"), "backup --kind volume --label 'my own'"),
    ("verify x.sql --container c", NextCall(tool="list_backups"), "list --container c"),
    ("prune --dry-run", NextCall(tool="prune_backups", arguments={"dry_run": False}), "prune"),
    (
        "backup",
        NextCall(tool="verify_backup", arguments={"backup": "x.sql", "level": "drill"}),
        "verify x.sql --level drill",
    ),
]


@pytest.mark.parametrize(("line", "call", "expected"), CASES, ids=[expected for *_, expected in CASES])
def test_the_next_call_is_spelled_as_the_person_would_type_it(line: str, call: NextCall, expected: str) -> None:
    with typed(line):
        spelled = next_command.command_line(call.after(line.split()[0], next_command.given()))
    assert spelled == f"scarlet-backup-mcp {expected}"


def test_a_password_on_the_command_line_is_not_repeated() -> None:
    with typed("verify x.sql --dsn postgresql://scarlet:hunter2@127.0.0.1/letta"):
        spelled = next_command.command_line(again(level="full").after("verify_backup", next_command.given()))
    assert spelled.startswith("scarlet-backup-mcp verify x.sql --level full --dsn ")
    assert "hunter2" not in spelled


@pytest.mark.parametrize(
    ("original", "first", "on_path", "expected"),
    [
        (
            ["python3", "-P", "-m", "scarlet_backup_mcp", "list"],
            "/x/__main__.py",
            None,
            "python3 -P -m scarlet_backup_mcp",
        ),
        (["python", "/env/bin/scarlet-backup-mcp"], "/env/bin/scarlet-backup-mcp", "/env/bin/scarlet-backup-mcp", ""),
        (["python", "bin/scarlet-backup-mcp"], "bin/scarlet-backup-mcp", "/other/scarlet-backup-mcp", "bin/"),
        (["python", ".venv/bin/scarlet-backup-mcp"], ".venv/bin/scarlet-backup-mcp", None, ".venv/bin/"),
        (["scarlet-backup-mcp"], "/env/bin/scarlet-backup-mcp", "/env/bin/scarlet-backup-mcp.exe", ""),
    ],
)
def test_the_program_is_started_as_it_was(
    monkeypatch: pytest.MonkeyPatch, original: list[str], first: str, on_path: str | None, expected: str
) -> None:
    def which(_: str) -> str | None:
        return on_path

    monkeypatch.setattr(sys, "orig_argv", original)
    monkeypatch.setattr(sys, "argv", [first])
    monkeypatch.setattr(shutil, "which", which)
    module = "scarlet_backup_mcp" in expected
    assert " ".join(next_command.program()) == (expected if module else f"{expected}scarlet-backup-mcp")


REMEDY = "Set SCARLET_BACKUP_USER to a superuser, or SCARLET_BACKUP_KEEP_LAST=5."


@pytest.mark.parametrize(
    ("line", "environment", "expected"),
    [
        ("backup", {}, "Set --user to a superuser, or --keep-last=5."),
        ("backup --user me", {"USER": "you"}, "Set --user to a superuser, or --keep-last=5."),
        ("backup", {"USER": "you"}, "Set SCARLET_BACKUP_USER to a superuser, or --keep-last=5."),
    ],
)
def test_settings_are_named_as_the_person_sets_them(
    monkeypatch: pytest.MonkeyPatch, line: str, environment: dict[str, str], expected: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(PREFIX + name, value)
    with typed(line):
        assert as_used(REMEDY) == expected


def test_what_is_said_of_the_environment_stays() -> None:
    text = "There is no setting SCARLET_BACKUP_USR. The settings are SCARLET_BACKUP_DIR and SCARLET_BACKUP_USER."
    with typed("backup"):
        assert as_used(text) == text
