"""The alarm of a scheduled run that failed."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from scarlet_backup_mcp.errors import BackupToolError
from scarlet_backup_mcp.procedures.audit import calls
from scarlet_backup_mcp.procedures.audit.failure_hook import Alarm, sound
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.call_notes import CallNotes
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import load_settings
from scarlet_backup_mcp.store.audit import (
    SCHEDULE,
    Client,
    read,
)

from ..conftest import LocalDatabase
from ..helpers.audit import PASSWORD, POSIX

ALARM = Alarm(tool="backup", outcome="error", code="disk_full", message="è full", remedy="Free space.")


def listener(to: Path, code: str = "") -> str:
    """A command that keeps its input and the environment, then does `code`."""
    script = to.with_suffix(".py")
    script.write_text(
        "import json, os, sys, time\n"
        f"open({str(to)!r}, 'w').write(json.dumps([json.load(sys.stdin), sys.argv[1:], dict(os.environ)]))\n" + code
    )
    return f'"{sys.executable}" "{script}"'


def test_command_gets_the_error_as_json_and_no_shell_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCARLET_BACKUP_DSN", PASSWORD)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert sound(listener(tmp_path / "told") + ' $HOME "a b" ; echo', ALARM) == ""
    told, arguments, environment = json.loads((tmp_path / "told").read_text())
    assert (told["schema"], told["code"], told["message"]) == (1, "disk_full", "è full")
    assert arguments == ["$HOME", "a b", ";", "echo"]
    assert PASSWORD not in environment.values()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("/there/is/no/such-program", "could not be started"),
        ('"', "could not be started"),
        (" ", "could not be started"),
        (f'"{sys.executable}" -c "import sys; sys.exit(\'no mail\')"', "exit code 1: no mail"),
    ],
)
@POSIX
def test_command_that_fails_is_told_and_logged(command: str, said: str, caplog: pytest.LogCaptureFixture) -> None:
    assert said in sound(command, ALARM)
    assert said in caplog.text


def test_command_is_started_and_heard_where_no_file_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk: no directory for temporary files stands for it, so that the command itself can still write."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "there is none"))
    assert sound(listener(tmp_path / "told", "sys.exit('no mail')"), ALARM).endswith("exit code 1: no mail.")
    assert json.loads((tmp_path / "told").read_text())[0]["code"] == "disk_full"


@POSIX
def test_command_that_does_not_read_or_leaves_a_child_behind_is_not_waited_for(tmp_path: Path) -> None:
    long = ALARM.model_copy(update={"message": "x" * (1 << 20)})
    script = tmp_path / "script"
    script.write_text('sleep 60 & echo $! > "$1"; echo no mail >&2; exit $2\n')
    for code, said in (("0", ""), ("3", "The command of SCARLET_BACKUP_ON_FAILURE ended with exit code 3: no mail.")):
        began = time.monotonic()
        try:
            assert sound(f"/bin/sh '{script}' '{tmp_path / 'pid'}' {code}", long) == said
            assert time.monotonic() - began < 20
        finally:
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


@POSIX
def test_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    script = tmp_path / "script"  # of a shell, which starts in no time
    script.write_text(f"sleep 60 &\necho $! > '{tmp_path / 'pid'}'\nsleep 60\n")
    began = time.monotonic()
    assert "was killed" in sound(f"/bin/sh '{script}'", ALARM, seconds=1.5)
    assert time.monotonic() - began < 20
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 20
    while alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIG_DFL)
    except ProcessLookupError:
        return False
    if sys.platform == "linux":  # where nobody waits for orphans, they stay as zombies
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return True


def test_alarm_comes_for_errors_and_for_bad_results(tmp_path: Path, local_database: LocalDatabase) -> None:
    directory = tmp_path / "backups"
    chosen = {"via": "local", "dsn": local_database.dsn, "bin_dir": local_database.bin_dir, "dir": directory}
    scheduled = Client(name=SCHEDULE)

    def told() -> dict[str, Any]:
        found = json.loads((tmp_path / "told").read_text())[0]
        (tmp_path / "told").unlink()
        return found

    with BackupContext(load_settings(**chosen)) as context:
        command = listener(tmp_path / "told")

        def take(*_: CallNotes) -> Any:
            return backup(context, Progress())

        calls.call(context, "backup", {}, scheduled, take, command)
        assert not (tmp_path / "told").exists()
        worse = take().model_copy(
            update={"good": False, "safe_to_proceed": False, "reasons": ["It has shrunk."], "warnings": []}
        )
        result = calls.call(context, "backup", {}, scheduled, lambda _: worse, "/no/such-program")
        assert "could not be started" in result.warnings[0]
        calls.call(context, "backup", {}, scheduled, lambda _: worse, command)
        found = told()
        assert (found["outcome"], found["message"], found["directory"]) == ("bad", "It has shrunk.", str(directory))

        def fail(_: CallNotes) -> Any:
            raise BackupToolError("No.", "Do it.")

        with pytest.raises(BackupToolError):
            calls.call(context, "backup", {}, scheduled, fail, command)
        assert (found := told())["outcome"] == "error"
        assert (found["code"], found["remedy"]) == ("backup_tool_error", "Do it.")
    assert [each.outcome for each in read(directory, 9).entries] == ["error", "bad", "bad", "ok"]
