"""The gate as a hook of an agent's host: `recreate_agents*.py` does not start while the gate to PROC-003 is shut.

`scarlet-backup-hook` reads what Claude Code and VS Code give a PreToolUse hook on stdin, and denies the call as both
read it, as JSON on stdout. It says nothing about anything else. What keeps it from asking the gate denies the call.

It runs before every command of the agent, so it imports nothing that takes time.
Sources: Claude Code's and VS Code's hooks references, as of November 2026.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

GUARDED = re.compile(r"(?<!\w)recreate_agents", re.IGNORECASE)
BLOCKS = 2
"""The code with which a hook blocks the call, whatever it wrote."""
SECONDS = 50
"""Less than the hook's own time-out in the examples: a hook that times out lets the call through."""
READERS = {
    *("cat", "diff", "file", "grep", "head", "less", "ls", "more", "rg", "stat", "tail", "test", "wc"),
    *("dir", "findstr", "gc", "gci", "get-childitem", "get-content", "select-string", "sls", "type"),
    *("cd", "echo", "set-location"),
    *("code", "mypy", "nano", "notepad", "pyright", "ruff", "vim"),
}
"""Commands that start nothing, whatever file they name."""
GIT_READERS = {"add", "blame", "commit", "diff", "log", "ls-files", "show", "status"}


def main() -> None:
    """Deny the call on stdin, or say nothing."""
    answer = answer_to(sys.stdin.buffer.read() if sys.stdin else b"")
    if answer is None:
        return
    try:
        os.write(1, f"{json.dumps(answer)}\n".encode())
    except OSError:  # both hosts then read the code
        with suppress(OSError):
            print("PROC-003 must not go ahead: the gate's answer can't be written.", file=sys.stderr, flush=True)
        os._exit(BLOCKS)


def answer_to(given: bytes) -> dict[str, Any] | None:
    """Return what the host is told about the call that it gave; None lets it through."""
    text = given.decode("utf-8-sig", "replace")  # PowerShell may write a mark
    try:
        guarded = starts_it(_command(json.loads(text)))
    except Exception:  # whatever it is that came instead
        guarded = GUARDED.search(text) is not None
    if not guarded or not (reason := _reason_to_deny()):
        return None
    return {
        "hookSpecificOutput": {
            "hookEventName": "PreToolUse",
            "permissionDecision": "deny",
            "permissionDecisionReason": f"PROC-003 must not go ahead. {reason}",
        }
    }


def starts_it(command: str) -> bool:
    """Tell whether the command line, of whichever shell, may start the guarded script: it names it, and not only to
    commands that read or edit."""
    if GUARDED.search(command) is None:
        return False
    if "$(" in command or "`" in command:
        return True
    lexer = shlex.shlex(command, posix=True, punctuation_chars="();|&\n")
    lexer.whitespace, lexer.commenters, lexer.escape = " \t\r", "", ""  # a backslash is a part of Windows' paths
    pipeline: list[list[str]] = [[]]
    try:
        for token in [*lexer, ";"]:
            if not set(token) <= set("();|&\n"):
                pipeline[-1].append(token)
            elif token.strip() in ("|", "|&"):
                pipeline.append([])
            else:
                if _names_it(pipeline) and not all(map(_reads, pipeline)):
                    return True
                pipeline = [[]]
    except ValueError:  # quotes that do not end, or another shell's
        return True
    return False


def _names_it(pipeline: list[list[str]]) -> bool:
    return any(GUARDED.search(word) for words in pipeline for word in words)


def _reads(words: list[str]) -> bool:
    if not words:
        return True
    return words[0].lower() in READERS or (words[0] == "git" and len(words) > 1 and words[1] in GIT_READERS)


def _command(call: Mapping[str, Any]) -> str:
    """Return the command line that a tool call would run, "" if it runs none. VS Code's tasks have it in two parts."""
    given = call["tool_input"]
    if not isinstance(given, Mapping):
        return ""
    arguments = cast(Mapping[str, Any], given)
    task = arguments.get("task", arguments)
    return " ".join([str(task.get("command", "")), *map(str, task.get("args", []))])


def _reason_to_deny() -> str:
    """Ask the gate; "" if it is open."""
    gate = [sys.executable, "-P", "-m", "scarlet_backup_mcp", "gate", "--json"]
    try:
        done = subprocess.run(gate, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False)
        answer = json.loads(done.stdout)
        if done.returncode == 0 and answer["safe_to_proceed"] is True:
            return ""
        reasons = answer["reasons"] if "reasons" in answer else [answer["message"], answer["remedy"]]
        return " ".join([*map(str, reasons), "Make a backup first, as PROC-004 says."])
    except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError) as error:
        return f"The gate could not be asked ({type(error).__name__}): run `scarlet-backup-mcp gate` to see why."


if __name__ == "__main__":
    main()
