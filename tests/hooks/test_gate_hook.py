"""The hook that keeps PROC-003 from starting while the gate is shut, as agents' hosts call it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from scarlet_backup_mcp import gate_hook
from scarlet_backup_mcp.gate_hook import answer_to, starts_it
from scarlet_backup_mcp.models.results import Backup

from ..conftest import PROJECT_ROOT, LocalDatabase
from ..helpers.command_line import CommandLine
from ..helpers.faces import local_settings

EXAMPLES = PROJECT_ROOT / "examples" / "hooks"
RUN = "python recreate_agents.py"


def claude_code(command: str) -> dict[str, Any]:
    """What Claude Code's hooks reference shows as the input of PreToolUse for Bash."""
    return {
        "session_id": "abc123",
        "transcript_path": "/home/user/.claude/projects/x/abc123.jsonl",
        "cwd": "/home/user/my-project",
        "permission_mode": "default",
        "hook_event_name": "PreToolUse",
        "tool_name": "Bash",
        "tool_input": {"command": command, "description": "Recreate the agents", "timeout": 120000},
        "tool_use_id": "toolu_01ABC123",
    }


def vs_code(command: str) -> dict[str, Any]:
    """What VS Code's hooks reference shows, with the name and arguments of its terminal tool."""
    return {
        "timestamp": "2026-02-09T10:30:00.000Z",
        "cwd": "/path/to/workspace",
        "session_id": "session-identifier",
        "hook_event_name": "PreToolUse",
        "transcript_path": "/path/to/transcript.json",
        "tool_name": "run_in_terminal",
        "tool_input": {"command": command, "explanation": "Recreate the agents", "goal": "PROC-003", "mode": "sync"},
        "tool_use_id": "tool-123",
    }


HOSTS = [claude_code, vs_code]


def call(environment: dict[str, str], directory: Path, given: object) -> str | None:
    """Run the program; return the reason why it denies the call, None if it says nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "scarlet_backup_mcp.gate_hook"],
        input=json.dumps(given).encode(),
        capture_output=True,
        env=environment,
        cwd=directory,
        timeout=60,
        check=True,  # both hosts read the decision only where the exit code is 0
    )
    if not done.stdout:
        return None
    decision = json.loads(done.stdout)["hookSpecificOutput"]
    assert decision.pop("hookEventName") == "PreToolUse"
    assert decision.pop("permissionDecision") == "deny"
    return decision.pop("permissionDecisionReason")


def test_it_denies_while_the_gate_is_shut_and_says_nothing_once_it_is_open(
    local_database: LocalDatabase, tmp_path: Path
) -> None:
    line = CommandLine(local_settings(local_database, tmp_path), tmp_path)
    reason = call(line.environment, tmp_path, claude_code(RUN))
    assert reason is not None
    assert reason.startswith("PROC-003 must not go ahead.")
    assert "PROC-004" in reason
    line.answer(Backup, 0, "backup")
    assert call(line.environment, tmp_path, vs_code(RUN)) is None


def test_it_denies_when_the_gate_can_not_be_asked(tmp_path: Path) -> None:
    environment = {**os.environ, "SCARLET_BACKUP_GATE_MINUTES": "soon", "PYTHONPATH": str(PROJECT_ROOT)}
    reason = call(environment, tmp_path, vs_code(RUN))
    assert reason is not None
    assert "SCARLET_BACKUP_GATE_MINUTES" in reason


def test_a_gate_that_does_not_answer_denies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_hook, "SECONDS", 0.01)
    assert "TimeoutExpired" in json.dumps(answer_to(json.dumps(claude_code(RUN)).encode()))


@pytest.fixture
def shut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate that is shut, without asking it: these tests are about what is asked for."""
    monkeypatch.setattr(gate_hook, "_reason_to_deny", lambda: "No backup.")


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"nonsense",
        b"\xff\xfe{}",
        b"[]",
        b'\xef\xbb\xbf{"tool_input": {"file_path": "recreate_agents.py"}}',
        b'{"tool_name": "Bash"}',
        json.dumps({"tool_name": "Bash", "tool_input": RUN[:6]}).encode(),
        json.dumps({"tool_name": "editFiles", "tool_input": {"files": ["src/recreate_agents.py"]}}).encode(),
        json.dumps(
            {"tool_name": "Write", "tool_input": {"file_path": "/x/recreate_agents.py", "content": RUN}}
        ).encode(),
    ],
)
def test_what_starts_nothing_is_left_alone(given: bytes, shut: None) -> None:
    assert answer_to(given) is None


@pytest.mark.parametrize(
    "given",
    [
        b'{"tool_input": {"command": "python recreate_agents.py"',
        b"python recreate_agents.py",
        b'["recreate_agents.py"]',
        b'{"tool_input": {"task": {"command": "py", "args": ["recreate_agents.py"]}}}',
    ],
)
def test_what_may_start_it_is_denied_in_any_form(given: bytes, shut: None) -> None:
    assert answer_to(given) is not None


@pytest.mark.parametrize(
    "command",
    [
        RUN,
        "py -3 .\\scripts\\recreate_agents_v2.py --all",
        "./recreate_agents.py",
        "& .\\Recreate_Agents.py",
        "cd scarlet && python recreate_agents.py",
        "cd scarlet\npython recreate_agents.py",
        "cat notes.txt; python3 recreate_agents.py",
        "cat recreate_agents.py | python",
        "git add recreate_agents.py && python recreate_agents.py",
        "git bisect run python recreate_agents.py",
        "uv run recreate_agents.py",
        "python -m recreate_agents",
        'python -c "import recreate_agents"',
        "docker exec -it letta python /app/recreate_agents.py",
        'bash -c "python recreate_agents.py"',
        "(python recreate_agents.py)",
        "echo $(python recreate_agents.py)",
        "echo `python recreate_agents.py`",
        "nohup python recreate_agents.py &",
        "find . -name recreate_agents.py -exec python {} +",
        "ls 'recreate_agents.py",
        "FORCE=1 python recreate_agents.py",
        "if ($true) { python recreate_agents.py }",
    ],
)
def test_a_command_that_may_start_it_is_guarded(command: str) -> None:
    assert starts_it(command)


@pytest.mark.parametrize(
    "command",
    [
        "",
        "git status",
        "python create_agents.py",
        "pytest tests/test_recreate_agents.py",
        "cat recreate_agents.py",
        "cd scarlet && cat recreate_agents.py | head -20",
        'grep -n "a|b;c" recreate_agents.py 2>/dev/null',
        "Get-Content .\\recreate_agents.py",
        'git commit -m "Let recreate_agents.py wait; then go on" recreate_agents.py',
        "git diff recreate_agents.py",
        "cat recreate_agents.py; python other.py | tee log",
        "ruff check recreate_agents.py && ls -l recreate_agents*.py",
    ],
)
def test_a_command_that_only_reads_it_or_another_one_is_not_guarded(command: str) -> None:
    assert not starts_it(command)


def test_the_examples_start_the_program_that_is_installed() -> None:
    scripts = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    of_claude = json.loads((EXAMPLES / "claude-code.json").read_text(encoding="utf-8"))["hooks"]["PreToolUse"]
    of_vs_code = json.loads((EXAMPLES / "vscode.json").read_text(encoding="utf-8"))["hooks"]["PreToolUse"]
    hooks = [hook for group in of_claude for hook in group["hooks"]] + of_vs_code
    assert [group["matcher"] for group in of_claude] == ["Bash|PowerShell"]
    assert len(hooks) == 3
    for hook in hooks:
        assert hook["type"] == "command"
        assert scripts[hook["command"]] == "scarlet_backup_mcp.gate_hook:main"
        assert hook["timeout"] > gate_hook.SECONDS


def test_it_starts_without_what_takes_time() -> None:
    """Other modules of the package take half a second, before each of the agent's commands."""
    script = "import sys, scarlet_backup_mcp.gate_hook; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PROJECT_ROOT
    )
    ours = [name for name in loaded.stdout.split() if name.startswith("scarlet_backup_mcp")]
    assert sorted(ours) == ["scarlet_backup_mcp", "scarlet_backup_mcp.gate_hook"]
    assert not {"pydantic", "click", "rich", "mcp", "docker"} & set(loaded.stdout.split())
