"""Scheduled jobs: what they run, how each scheduler is told, and what registering them leaves alone."""

from __future__ import annotations

import os
import plistlib
import shutil
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from datetime import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from scarlet_backup_mcp import schedules
from scarlet_backup_mcp.errors import ConfigurationError
from scarlet_backup_mcp.models.common import Kind
from scarlet_backup_mcp.schedules import Every, ScheduledJob, ScheduleFailed, cron, launchd, systemd, windows
from scarlet_backup_mcp.schedules.job import (
    interpreter,
    job_for,
    job_name,
    require_job_name,
    require_runnable,
    settings_in_force,
)
from scarlet_backup_mcp.settings import load_settings

from ..conftest import NO_DRILLS, PROJECT_ROOT

POSIX = pytest.mark.skipif(os.name == "nt", reason="There are no such programs on Windows.")
PASSWORD = "Tr0ub4dor3"
# One argument each that some scheduler or shell would take apart or replace.
WEIRD = [
    "a b",
    "50% $HOME ${HOME} `id`",
    "\\%",
    "\\\\%x",
    "it's \\%'",
    'q"q',
    "è漢",
    "%",
    ";",
    "$$",
    "%n",
    "\\",
    "--x=/è y",
]
ANALYZE = shutil.which("systemd-analyze")


def job(**more: Any) -> ScheduledJob:
    values: dict[str, Any] = {"name": "scarlet-backup-daily", "argv": ("/usr/bin/python3", *WEIRD), "at": time(3, 5)}
    return ScheduledJob(**{**values, **more})


# What a job runs


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NO_DRILLS:
        monkeypatch.delenv(name)


def test_defaults_need_no_options(nothing_set: None) -> None:
    made = job_for(load_settings(), "daily", "03:05", environment={})
    words = ("-P", "-m", "scarlet_backup_mcp", "backup", "--scheduled", made.name, "--quiet", "--kind=sql")
    assert made.argv == (interpreter(), *words)
    assert Path(made.argv[0]).is_absolute()
    assert (made.name, made.at, made.weekday, made.environment) == ("scarlet-backup-daily", time(3, 5), None, {})


def test_options_lead_to_the_same_settings_again(nothing_set: None, tmp_path: Path) -> None:
    chosen = load_settings(
        via="local",
        dsn="postgresql://scarlet@127.0.0.1/letta?sslmode=prefer",
        dir=str(tmp_path / "a b'è"),
        database="--drop",
        integrity_table="a=b",
    )
    words = settings_in_force(chosen)
    assert len(words) == 5
    options = dict(word.removeprefix("--").split("=", 1) for word in words)
    assert load_settings(**{name.replace("-", "_"): value for name, value in options.items()}) == chosen


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://postgres:{PASSWORD}@127.0.0.1/letta",
        f"host=db password={PASSWORD}",
        f"postgresql://db/letta?password={PASSWORD}",
    ],
)
def test_password_is_refused_and_not_shown(dsn: str) -> None:
    with pytest.raises(ConfigurationError, match="pgpass") as refused:
        schedules.schedule(load_settings(via="local", dsn=dsn), "daily", "03:00", system="cron")
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize("address", [f"ssh://me:{PASSWORD}@host", f"tcp://u:p/{PASSWORD}@h:2375"])
def test_password_of_an_engine_is_refused_and_not_shown(address: str) -> None:
    with pytest.raises(ConfigurationError, match="DOCKER_HOST") as refused:
        job_for(load_settings(), "daily", "03:00", environment={"DOCKER_HOST": address})
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize("at", ["3:00", "24:00", "03:60", "03:00:00", "", "three", "０３:00"])
def test_no_time_of_day_is_refused(at: str) -> None:
    with pytest.raises(ConfigurationError, match="HH:MM"):
        job_for(load_settings(), "daily", at)


@pytest.mark.parametrize("directory", ["/x\ny", "/x\x1by", "/x\udcff"])
@POSIX
def test_what_no_scheduler_takes_is_refused(directory: str) -> None:
    with pytest.raises(ConfigurationError, match="control character"):
        job_for(load_settings(dir=directory), "daily", "03:00")


def test_jobs_of_different_databases_directories_kinds_and_periods_have_different_names(tmp_path: Path) -> None:
    others: list[dict[str, str]] = [{"container": "other"}, {"database": "other"}, {"dir": str(tmp_path)}]
    chosen = [load_settings(**other) for other in ({}, *others)]
    periods: tuple[Every, ...] = ("daily", "weekly")
    kinds: tuple[Kind, ...] = ("sql", "volume")
    names = [job_name(settings, every, kind) for settings in chosen for every in periods for kind in kinds]
    assert len(set(names)) == 16
    for name in names:
        require_job_name(name)
    assert job_name(load_settings(prefix="x"), "daily") == job_name(load_settings(), "daily")


@pytest.mark.parametrize(
    "name", ["", "backup", "scarlet-backup-daily ", "scarlet-backup-daily\n", "x/scarlet-backup-daily"]
)
def test_no_other_job_is_taken_out(name: str) -> None:
    with pytest.raises(ConfigurationError, match="not the name of a job"):
        schedules.unschedule(name, system="cron")


def test_what_leads_to_the_engine_or_to_programs_goes_along() -> None:
    there = {"DOCKER_HOST": "unix:///x", "DOCKER_CONTEXT": "", "PATH": "/bin", "SECRET": "s"}
    assert job_for(load_settings(), "daily", "03:00", environment=there).environment == {"DOCKER_HOST": "unix:///x"}
    local = load_settings(via="local", dsn="postgresql://127.0.0.1/x")
    assert job_for(local, "daily", "03:00", environment=there).environment == {"PATH": "/bin"}


def empty_python(directory: Path) -> Path:
    """A Python of its own, in which nothing is installed."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(directory)], check=True)
    return directory / "bin" / "python"


def install_into(python: Path) -> None:
    """Let that Python find this package, and what it needs."""
    (found,) = (python.parent.parent / "lib").glob("python*/site-packages")
    (found / "x.pth").write_text(f"{PROJECT_ROOT}\n{sysconfig.get_path('purelib')}\n")


@POSIX
def test_interpreter_that_does_not_find_the_package_by_itself_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = empty_python(tmp_path / "v")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PROJECT_ROOT), sysconfig.get_path("purelib")]))
    monkeypatch.chdir(PROJECT_ROOT)
    with pytest.raises(ConfigurationError, match="does not find"):
        require_runnable(job(argv=(str(python),)))
    install_into(python)
    require_runnable(job(argv=(str(python),)))


def test_interpreter_in_a_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cache"):
        require_runnable(job(argv=(str(tmp_path / ".cache" / "uv" / "python"),)))


def test_nothing_is_registered_for_a_system_that_is_not_here() -> None:
    there = "windows" if os.name != "nt" else "launchd"
    with pytest.raises(ScheduleFailed, match="no "):
        schedules.schedule(load_settings(), "daily", "03:00", system=there, install=True)


@pytest.mark.parametrize("system", ["windows", "systemd", "launchd", "cron"])
def test_every_system_is_printed_anywhere(system: schedules.System) -> None:
    told = schedules.schedule(load_settings(), "weekly", "03:00", system=system, options=["--verify", "drill"])
    assert told.action == "printed"
    assert any("drill" in file.text for file in told.files)
    assert any("missed" in note or "catch up" in note for note in told.notes)
    assert told.commands
    assert "drill" in "\n".join(schedules.lines(told))


@POSIX
def test_process_without_streams_runs() -> None:
    """As under pythonw.exe, which has none."""
    code = "from scarlet_backup_mcp.schedules import without_console; without_console(); import sys; "
    code += "print('x'); sys.exit(7 if not sys.stderr.isatty() else 1)"
    command = ["/bin/sh", "-c", 'exec "$@" >&- 2>&-', "sh", sys.executable, "-c", code]
    assert subprocess.run(command, cwd=PROJECT_ROOT, check=False).returncode == 7


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
    assert launchd.remove(made.name)
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
    assert cron.remove(job().name)
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
