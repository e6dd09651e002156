"""How systemd, launchd, cron and the Task Scheduler are told of a job."""

from __future__ import annotations

import os
import plistlib
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from scarlet_backup_mcp import schedules
from scarlet_backup_mcp.errors import ConfigurationError
from scarlet_backup_mcp.schedules import ScheduledJob, ScheduleFailed, cron, launchd, systemd, windows
from scarlet_backup_mcp.schedules.job import (
    job_for,
    job_name,
)
from scarlet_backup_mcp.settings import load_settings

from ..helpers.schedules import POSIX, WEIRD, empty_python, install_into, job

ANALYZE = shutil.which("systemd-analyze")


# systemd


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not here.")
@pytest.mark.parametrize("place", ["plain", "a b", "50%n", "$HOME", "it's", 'q"q', "back\\slash", "è;"])
def test_systemd_finds_the_program_and_nothing_to_complain_of(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir()
    program = tmp_path / place / "python"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    made = job(argv=(str(program), *WEIRD), environment={"DOCKER_HOST": 'a "b" %n \\ $x'}, weekday="friday")
    for file in systemd.files(made):
        (tmp_path / Path(file.path).name).write_text(file.text)
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    units = [str(tmp_path / f"{made.name}.{end}") for end in ("service", "timer")]
    command = [str(ANALYZE), "verify", "--user", *units]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    program.unlink()
    if place not in ("it's", 'q"q', "back\\slash"):  # those are a shell's argument
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert "No such file" in done.stderr


def test_systemd_line_escapes_what_means_something_to_it() -> None:
    """Its own reading of this very line was looked at in 252, with `systemd --user --test`."""
    line = systemd.command_line(("/x $y%z/py", "a b", "50% $HOME", "\\x", "it's", 'q"q', "è"))
    assert line == r'''"/x $y%%z/py" "a b" "50%% $$HOME" "\\x" "it's" "q\"q" "è"'''
    assert systemd.command_line(("/it's/py", "$")) == r'''"/bin/sh" "-c" "exec \"$$@\"" "sh" "/it's/py" "$$"'''


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not here.")
@pytest.mark.parametrize(("weekday", "read"), [(None, "*-*-* 03:05:00"), ("sunday", "Sun *-*-* 03:05:00")])
def test_systemd_reads_the_time_as_it_was_meant(weekday: Any, read: str) -> None:
    timer = systemd.files(job(weekday=weekday))[1].text
    calendar = next(line for line in timer.splitlines() if line.startswith("OnCalendar=")).partition("=")[2]
    command = [str(ANALYZE), "calendar", calendar]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"Normalized form: {read}" in said
    assert "Persistent=true" in timer


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Puts a shell script in the place of a scheduler's program, since the user's own scheduler is not for tests. Its
    calls are in the file that it gives."""

    def put(name: str, script: str = "") -> Path:
        directory = tmp_path / "bin"
        directory.mkdir(exist_ok=True)
        program = directory / name
        program.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/calls"\n{script}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")
        return tmp_path / "calls"

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / "config"))
    return put


StandIn = Callable[..., Path]


@POSIX
def test_systemd_timer_is_written_started_and_removed(stand_in: StandIn) -> None:
    calls = stand_in("systemctl")
    made = job()
    assert [systemd.install(each) for each in (job(at=time(4, 4)), made, made)] == [False, True, False]
    written = sorted(systemd.directory().iterdir())
    assert [path.name for path in written] == [f"{made.name}.service", f"{made.name}.timer"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o600}
    assert calls.read_text().splitlines()[-1] == f"--user restart {made.name}.timer"
    assert systemd.remove(made.name)
    assert calls.read_text().splitlines()[-2:] == [f"--user disable --now {made.name}.timer", "--user daemon-reload"]
    assert not list(systemd.directory().iterdir())
    assert not systemd.remove(made.name)
    (systemd.directory() / f"{made.name}.service").touch()
    stand_in("systemctl", 'test "$2" != disable')
    assert systemd.remove(made.name), "of a removal that was cut off only the service is left"


@POSIX
def test_systemd_that_refuses_leaves_things_as_they_were(stand_in: StandIn) -> None:
    stand_in("systemctl", 'test "$2" = daemon-reload || { echo no bus >&2; exit 1; }')
    with pytest.raises(ScheduleFailed, match="no bus"):
        systemd.install(job())
    assert not list(systemd.directory().iterdir())
    stand_in("systemctl")
    systemd.install(job())
    before = {path: path.read_bytes() for path in systemd.directory().iterdir()}
    stand_in("systemctl", 'test "$2" = daemon-reload || exit 1')
    with pytest.raises(ScheduleFailed):
        systemd.install(job(at=time(4, 4)))
    assert {path: path.read_bytes() for path in systemd.directory().iterdir()} == before


# launchd


def test_property_list_holds_every_argument_as_it_is() -> None:
    (file,) = launchd.files(job(environment={"DOCKER_HOST": "<&>\"'"}, weekday="saturday"))
    found = plistlib.loads(file.text.encode())
    assert found["ProgramArguments"] == ["/usr/bin/python3", *WEIRD]
    assert found["EnvironmentVariables"] == {"DOCKER_HOST": "<&>\"'"}
    assert found["StartCalendarInterval"] == {"Hour": 3, "Minute": 5, "Weekday": 6}
    assert found["Label"] == Path(file.path).stem
    (daily,) = launchd.files(job())
    assert plistlib.loads(daily.text.encode())["StartCalendarInterval"] == {"Hour": 3, "Minute": 5}


@POSIX
def test_launchd_job_is_loaded_replaced_and_removed(stand_in: StandIn) -> None:
    calls = stand_in("launchctl")
    made = job()
    assert [launchd.install(each) for each in (job(at=time(4, 4)), made, made)] == [False, True, False]
    path = launchd.path_of(made.name)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    domain = f"gui/{os.getuid()}"
    assert calls.read_text().splitlines()[-3:] == [
        f"bootout {domain}/{made.name}",
        f"enable {domain}/{made.name}",
        f"bootstrap {domain} {path}",
    ]
    assert launchd.registered(made.name)
    assert launchd.remove(made.name)
    assert not launchd.registered(made.name)
    assert not path.exists()


@POSIX
@pytest.mark.parametrize("code", launchd.NOT_LOADED)
def test_launchd_job_that_is_not_loaded_is_removed_as_far_as_it_is_there(stand_in: StandIn, code: int) -> None:
    stand_in("launchctl")
    launchd.install(job())
    stand_in("launchctl", f"exit {code}")
    assert [launchd.remove(job().name) for _ in range(2)] == [True, False]
    assert not launchd.path_of(job().name).exists()


@POSIX
def test_launchd_job_that_may_still_be_loaded_is_not_told_as_removed_and_keeps_its_file(stand_in: StandIn) -> None:
    stand_in("launchctl")
    launchd.install(job())
    stand_in("launchctl", 'echo "Boot-out failed: 5: Input/output error" >&2; exit 5')
    with pytest.raises(ScheduleFailed, match="Input/output"):
        launchd.remove(job().name)
    assert launchd.path_of(job().name).exists()


@POSIX
def test_launchd_that_refuses_leaves_things_as_they_were(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launchd, "TRIES", 1)
    stand_in("launchctl", 'test "$1" != bootstrap || { echo Input/output error >&2; exit 5; }')
    with pytest.raises(ScheduleFailed, match="Input/output"):
        launchd.install(job())
    assert not launchd.path_of(job().name).exists()


@POSIX
@pytest.mark.parametrize("system", ["systemd", "launchd"])
def test_files_that_cannot_be_changed_are_an_error_of_the_schedule(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, system: schedules.System
) -> None:
    """A file lies where a directory would, and a directory where a file would."""

    def any_is(_: ScheduledJob) -> None:
        """Its interpreter is not what is looked at here."""

    for program in ("systemctl", "launchctl"):
        stand_in(program)
    monkeypatch.setattr(schedules, "system_here", lambda: system)
    monkeypatch.setattr(schedules, "require_runnable", any_is)
    home = tmp_path / "home"
    home.write_bytes(b"")
    with pytest.raises(ScheduleFailed, match="home"):
        schedules.schedule(load_settings(), "daily", "03:00", install=True)
    home.unlink()
    for name in (systemd.directory() / f"{job().name}.timer", launchd.path_of(job().name)):
        name.mkdir(parents=True)
    with pytest.raises(ScheduleFailed, match=job().name):
        schedules.unschedule(job().name)


# cron


OTHERS = b"# mine, \xe8\r\n\n5 4 * * * echo '%'\n@reboot x"
TABLE = """
case "$1" in
-l) cat "$HOME/table" 2>/dev/null || { echo "no crontab for me" >&2; exit 1; } ;;
-) cat > "$HOME/table" ;;
esac
"""


@pytest.fixture
def table(stand_in: StandIn, tmp_path: Path) -> Path:
    """The table of a `crontab` that keeps it in a file; its calls are counted in `calls`."""
    (tmp_path / "home").mkdir()
    stand_in("crontab", TABLE)
    return tmp_path / "home" / "table"


def writes(table: Path) -> int:
    return (table.parent.parent / "calls").read_text().splitlines().count("-")


@POSIX
@pytest.mark.parametrize("others", [None, b"", OTHERS, OTHERS + b"\n"])
def test_cron_lines_are_put_in_once_and_taken_out_and_all_others_stay(table: Path, others: bytes | None) -> None:
    if others is not None:
        table.write_bytes(others)
    before = others or b""
    before += b"\n" if before and not before.endswith(b"\n") else b""
    assert not cron.install(job())
    lines = cron.files(job())[0].text.encode()
    assert table.read_bytes() == before + lines
    assert not cron.install(job())
    assert writes(table) == 1
    assert cron.install(job(at=time(4, 4)))
    assert table.read_bytes() == before + cron.files(job(at=time(4, 4)))[0].text.encode()
    cron.install(job(name="scarlet-backup-weekly", weekday="monday"))
    assert cron.registered(job().name)
    assert cron.remove(job().name)
    assert not cron.registered(job().name)
    assert cron.remove("scarlet-backup-weekly")
    assert table.read_bytes() == before
    assert not cron.remove(job().name)


@POSIX
@pytest.mark.parametrize("cut", ["# BEGIN", "# END"])
def test_cron_table_with_half_a_pair_of_markers_is_left_alone(table: Path, cut: str) -> None:
    cron.install(job())
    harmed = b"".join(line for line in table.read_bytes().splitlines(True) if not line.startswith(cut.encode()))
    table.write_bytes(harmed + OTHERS)
    for change in (lambda: cron.install(job()), lambda: cron.remove(job().name)):
        with pytest.raises(ScheduleFailed, match="markers"):
            change()
    assert table.read_bytes() == harmed + OTHERS


@POSIX
def test_cron_table_that_cannot_be_read_is_not_replaced(table: Path, stand_in: StandIn) -> None:
    table.write_bytes(OTHERS)
    stand_in("crontab", 'test "$1" = - && exec cat > "$HOME/table"; echo "you may not use this" >&2; exit 1')
    with pytest.raises(ScheduleFailed, match="may not"):
        cron.install(job())
    assert table.read_bytes() == OTHERS


def as_cron_reads(command: str, dropped_before: str) -> str:
    """What of a command reaches the shell: a backslash escapes what follows, as far as a % is concerned, and is itself
    dropped before some; the first bare % ends the command."""
    read, escaped = "", False
    for character in command:
        if escaped:
            read = read[:-1] + character if character in dropped_before else read + character
            escaped = False
        elif character == "%":
            break
        else:
            read += character
            escaped = character == "\\"
    return read


@POSIX
@pytest.mark.parametrize("dropped_before", ["%\\", "%"], ids=["as seen with Debian 3.0pl1", "as crontab(5) says"])
def test_cron_and_the_shell_hand_over_every_argument_as_it_is(tmp_path: Path, dropped_before: str) -> None:
    program = tmp_path / "it's 50% \\% \\\\\\%" / "py"
    program.parent.mkdir()
    keep = f"open({str(tmp_path / 'told')!r}, 'w').write(repr((sys.argv[1:], os.environ['DOCKER_HOST'])))"
    program.write_text(f"#!{sys.executable}\nimport os, sys\n{keep}\n")
    program.chmod(0o755)
    text = cron.files(job(argv=(str(program), *WEIRD), environment={"DOCKER_HOST": "x %'y"}))[0].text
    line = text.splitlines()[1]
    *when, command = line.split(" ", 5)
    assert when == ["5", "3", "*", "*", "*"]
    subprocess.run(["/bin/sh", "-c", as_cron_reads(command, dropped_before)], check=True)
    assert (tmp_path / "told").read_text() == repr((WEIRD, "x %'y"))


def test_cron_line_of_a_week_names_its_day_and_a_long_one_is_refused() -> None:
    assert cron.files(job(weekday="sunday"))[0].text.splitlines()[1].startswith("5 3 * * 0 ")
    with pytest.raises(ConfigurationError, match="bytes"):
        cron.files(job(argv=("/usr/bin/python3", "è" * 500)))


@POSIX
def test_schedule_is_registered_and_taken_out_by_the_same_settings(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = empty_python(tmp_path / "a b")
    monkeypatch.setattr(sys, "executable", str(python))
    chosen = load_settings(dir=str(tmp_path / "backups"))
    with pytest.raises(ConfigurationError, match="does not find"):
        schedules.schedule(chosen, "weekly", "03:00", system="cron", install=True)
    assert not table.exists()
    install_into(python)
    told = schedules.schedule(chosen, "weekly", "03:00", system="cron", install=True, options=["--verify", "drill"])
    assert (told.action, told.name) == ("installed", job_name(chosen, "weekly"))
    assert schedules.REPLACED not in told.notes
    assert f"'{python}' -P -m scarlet_backup_mcp backup --scheduled {told.name}" in table.read_text()
    assert f"--verify drill --dir={tmp_path / 'backups'}" in table.read_text()
    volume = job_for(chosen, "weekly", "04:00", kind="volume")
    assert not cron.install(volume)
    again = schedules.schedule(chosen, "weekly", "05:00", system="cron", install=True)
    assert (again.name, again.notes[0], table.read_text().count("# BEGIN ")) == (told.name, schedules.REPLACED, 2)
    assert schedules.unschedule(job_name(chosen, "daily"), system="cron").action == "nothing to remove"
    assert schedules.unschedule(told.name, system="cron").action == "removed"
    assert schedules.unschedule(volume.name, system="cron").action == "removed"
    assert table.read_bytes() == b""


# Windows


def tag(name: str) -> str:
    return f"{{{windows.NAMESPACE}}}{name}"


def test_task_runs_late_rather_than_never_and_on_battery() -> None:
    (file,) = windows.files(job(argv=("C:\\Program Files\\è\\pythonw.exe", "a b", 'q"q', "C:\\x y\\", "<&>")))
    assert file.text.startswith('<?xml version="1.0" encoding="UTF-16"?>')
    task = ElementTree.fromstring(file.text.encode("utf-16"))
    assert [child.tag for child in task] == [
        tag(name) for name in ("RegistrationInfo", "Triggers", "Principals", "Settings", "Actions")
    ]
    settings = {child.tag: child.text for child in task.iterfind(f"{tag('Settings')}/*")}
    assert settings == {
        tag("MultipleInstancesPolicy"): "IgnoreNew",
        tag("DisallowStartIfOnBatteries"): "false",
        tag("StopIfGoingOnBatteries"): "false",
        tag("StartWhenAvailable"): "true",
        tag("ExecutionTimeLimit"): "PT12H",
    }
    assert task.findtext(f".//{tag('StartBoundary')}", "").endswith("T03:05:00")
    assert task.findtext(f".//{tag('DaysInterval')}") == "1"
    assert task.findtext(f".//{tag('Command')}") == "C:\\Program Files\\è\\pythonw.exe"
    assert task.findtext(f".//{tag('Arguments')}") == '"a b" q\\"q "C:\\x y\\\\" <&>'
    assert task.findtext(f".//{tag('LogonType')}") == "InteractiveToken"


def test_task_of_a_week_names_its_day() -> None:
    (file,) = windows.files(job(argv=("C:\\py.exe",), weekday="wednesday"))
    task = ElementTree.fromstring(file.text.encode("utf-16"))
    assert [child.tag for child in task.iterfind(f".//{tag('DaysOfWeek')}/*")] == [tag("Wednesday")]
    assert task.findtext(f".//{tag('WeeksInterval')}") == "1"


@pytest.mark.parametrize("argument", ["C:\\%USERNAME%\\x", "--dir=%a%", "$(Arg0)"])
def test_task_whose_words_would_be_replaced_is_refused(argument: str) -> None:
    with pytest.raises(ConfigurationError, match="expand"):
        windows.files(job(argv=("C:\\py.exe", argument)))


@pytest.mark.parametrize("argument", ["50%", "%20", "%C3", "$HOME", "100% of 5% "])
def test_task_with_a_mere_percent_sign_is_taken(argument: str) -> None:
    assert argument.strip() in windows.files(job(argv=("C:\\py.exe", argument)))[0].text


@POSIX
def test_task_that_is_not_found_is_told_apart_from_one_that_may_not_be_looked_at(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program's exit code has 8 bits here, so its last ones stand for Windows' code."""
    monkeypatch.setenv("SYSTEMROOT", str(tmp_path / "windows"))
    (tmp_path / "windows").mkdir()
    (tmp_path / "windows" / "System32").symlink_to(tmp_path / "bin")
    monkeypatch.setattr(windows, "NOT_FOUND", windows.NOT_FOUND & 0xFF)
    made = job(argv=("C:\\py.exe",))
    stand_in("schtasks.exe", 'test "$1" != /Query || exit 2')
    assert (windows.remove(made.name), windows.install(made)) == (False, False)
    stand_in("schtasks.exe")
    assert (windows.install(made), windows.remove(made.name)) == (True, True)
    stand_in("schtasks.exe", "echo ERROR: Access is denied. >&2; exit 5")
    for change in (lambda: windows.install(made), lambda: windows.remove(made.name)):
        with pytest.raises(ScheduleFailed, match="Access is denied"):
            change()


@pytest.mark.skipif(os.name != "nt", reason="Task Scheduler is on Windows only.")
def test_task_is_registered_and_deleted() -> None:
    made = job(name=f"scarlet-backup-test-{os.getpid()}", argv=(sys.executable, "-V"))
    try:
        assert not windows.install(made)
        assert windows.install(made)
    finally:
        assert windows.remove(made.name)
    assert not windows.remove(made.name)
