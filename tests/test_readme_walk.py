"""The README's walk with the Compose example, as it stands there. `SCARLET_TEST_RENEW=1` writes what it prints anew."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from scarlet_backup_mcp.store.names import parse

from .conftest import MEMORY, PROJECT_ROOT, Stack, compose_stack

README = PROJECT_ROOT / "README.md"
EXAMPLES = PROJECT_ROOT / "examples"
SECTION = re.compile(r"(?<=\n)## Back up, verify, restore\n.*?(?=\n## )", re.DOTALL)
BLOCK = re.compile(r"(?<=```\n)\$ .*?(?=```)", re.DOTALL)
UP = "docker compose -f examples/compose.yaml "
WIDTH, SHOWN = 118, 4
"""Columns of the page, and how many lines of an output it shows."""


def test_the_example_holds_the_demos_memory() -> None:
    assert [path.name for path in (EXAMPLES / "init").iterdir()] == ["memory.sql"]
    assert (EXAMPLES / "init" / "memory.sql").read_bytes() == MEMORY.read_bytes()


class Walk:
    """A reader who types the README's commands one after the other."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SCARLET_")}
        self.environment = kept | {
            "SCARLET_BACKUP_CONTAINER": stack.container,
            "SCARLET_BACKUP_SANDBOX_CACHE": "false",
            "COLUMNS": "200",
        }

    def type(self, command: str) -> str:
        """The beginning of what the command prints, with the names of the example."""
        if command.startswith(UP):
            self.stack.compose(*shlex.split(command.removeprefix(UP)), "--pull", "never")
            return ""
        program, *arguments = shlex.split(command.replace("abiogenesis-postgres", self.stack.container))
        programs = {"docker": ["docker"], "scarlet-backup-mcp": [sys.executable, "-m", "scarlet_backup_mcp"]}
        done = subprocess.run(
            [*programs[program], *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            env=self.environment,
            timeout=300,
            check=False,
        )
        assert done.returncode in (0, 1), done.stderr
        printed = done.stdout.replace(self.stack.container, "abiogenesis-postgres").replace(
            self.stack.project, "scarlet"
        )
        printed = re.sub(r" \(Debian [^)]*\)", "", printed)  # each image has its own
        lines = printed.replace(str(self.stack.directory), "examples").splitlines()
        return "".join(f"{line}\n" for line in lines[:SHOWN]) + ("…\n" if len(lines) > SHOWN else "")


def commands(block: str) -> list[tuple[str, str]]:
    """Each command of a block, with what the README shows below it."""
    found = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [(lines.partition("\n")[0], lines.partition("\n")[2]) for lines in found]


def meaning(text: str) -> str:
    """The text without what differs from run to run: figures, ids, the breaks of lines."""
    return " ".join(re.sub(r"\b[0-9a-f]{12}\b|\d[\d.,:_]*\d|\d", "#", text).split())


def wrapped(text: str) -> str:
    """As it fits on a page."""
    lines = [
        textwrap.wrap(line, WIDTH, break_long_words=False, break_on_hyphens=False) or [""] for line in text.splitlines()
    ]
    return "".join(f"{line}\n" for wrapped_line in lines for line in wrapped_line)


def test_the_walk(require_docker: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCARLET_TEST_NO_HEALTH_CHECK", "false")  # `up --wait` waits for it
    text = README.read_text(encoding="utf-8")
    section = SECTION.search(text)
    assert section is not None
    renewed = section[0]
    with compose_stack(tmp_path / "scarlet") as stack:
        walk = Walk(stack)
        for block in BLOCK.findall(section[0]):
            written = ""
            for command, shown in commands(block):
                printed = walk.type(command)
                if os.environ.get("SCARLET_TEST_RENEW") != "1":
                    assert meaning(shown) == meaning(printed), command
                gap = "\n" if written and not written.endswith("\n\n") and written.count("\n") > 1 else ""
                written += f"{gap}$ {command}\n{wrapped(printed)}"
            renewed = renewed.replace(block, written)
        agents = stack.psql("SELECT count(*) FROM agents")
        there = [path.name for path in (stack.directory / "backups").iterdir() if parse(path.name)]
    assert agents == "2"
    assert len(there) == 1
    if os.environ.get("SCARLET_TEST_RENEW") == "1":
        README.write_text(text.replace(section[0], renewed), encoding="utf-8")
