"""Ctrl-C at any moment of the program's life."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import PROJECT_ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


def run(code: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(PROJECT_ROOT), "HOME": str(cwd)},
        timeout=60,
        check=False,
    )


INTERRUPTED = """
import importlib.abc, os, runpy, signal, sys
where = sys.argv.pop(1)

class Interrupt(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == where:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupt())
runpy.run_module("scarlet_backup_mcp", run_name="__main__", alter_sys=True)
"""


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("where", "arguments"),
    [
        ("scarlet_backup_mcp.streams", ["serve"]),
        ("click", ["list"]),
        ("pydantic", ["serve"]),
        ("scarlet_backup_mcp.cli.commands", ["gate"]),
        ("scarlet_backup_mcp.server.stdio", ["serve"]),
        ("mcp.server", []),
        ("scarlet_backup_mcp.server.strict_tool", ["serve"]),
    ],
)
def test_ctrl_c_during_imports_ends_quietly(tmp_path: Path, where: str, arguments: list[str]) -> None:
    done = run(INTERRUPTED, where, *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.sample(2)
@pytest.mark.parametrize("delay", [0.3, 0.9, 1.5, 2.2])
def test_ctrl_c_at_any_moment_of_serve_ends_quietly(tmp_path: Path, delay: float) -> None:
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from scarlet_backup_mcp.__main__ import main\nprint('started', flush=True)\nmain()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(PROJECT_ROOT), "HOME": str(tmp_path)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(delay)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=10)
        assert (process.returncode, output, errors) == (130, b"", b"")


def test_shells_background_job_goes_on_ignoring_ctrl_c(tmp_path: Path) -> None:
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    code += "from scarlet_backup_mcp import __main__\nfrom scarlet_backup_mcp.cli import commands\n"
    code += "commands.main = lambda **_: print(signal.getsignal(signal.SIGINT).name)\n__main__.main()"
    assert run(code, cwd=tmp_path).stdout == "SIG_IGN\n"
