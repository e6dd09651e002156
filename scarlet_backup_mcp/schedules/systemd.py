"""systemd: a user service and its timer (systemd.service(5), systemd.timer(5))."""

from __future__ import annotations

import getpass
import os
import re
from pathlib import Path

from ..store.writing import write_atomically
from .job import LONGEST_RUN_HOURS, ScheduledJob, require_success, run_program
from .report import JobFile

NOTES = (
    "A missed run is made up for when the machine or the session starts again (Persistent=true).",
    "User timers run while you are logged in; to run them always: loginctl enable-linger {user}",
    "The output of a run is in `journalctl --user -u {name}`.",
)


def directory() -> Path:
    """Return the directory of user units."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def files(job: ScheduledJob) -> list[JobFile]:
    """Return the job's service and timer."""
    day = f"{job.weekday[:3].capitalize()} " if job.weekday else ""
    environment = [f"Environment={_quoted(f'{name}={value}')}" for name, value in job.environment.items()]
    service = [
        "[Unit]",
        f"Description={_specifiers(job.description)}",
        "",
        "[Service]",
        "Type=oneshot",
        *environment,
        f"ExecStart={command_line(job.argv)}",
        f"TimeoutStartSec={LONGEST_RUN_HOURS}h",
        "UMask=0077",
    ]
    timer = [
        "[Unit]",
        f"Description={_specifiers(job.description)}",
        "",
        "[Timer]",
        f"OnCalendar={day}*-*-* {job.at:%H:%M}:00",
        "Persistent=true",
        "",
        "[Install]",
        "WantedBy=timers.target",
    ]
    return [
        JobFile(path=str(directory() / f"{job.name}.service"), text="\n".join(service) + "\n"),
        JobFile(path=str(directory() / f"{job.name}.timer"), text="\n".join(timer) + "\n"),
    ]


def commands(name: str) -> list[str]:
    """Return the commands that register the files by hand."""
    return [
        "systemctl --user daemon-reload",
        f"systemctl --user enable {name}.timer",
        f"systemctl --user restart {name}.timer",
    ]


def notes(job: ScheduledJob) -> list[str]:
    """Return what the user should know about systemd timers."""
    return [note.format(user=getpass.getuser(), name=job.name) for note in NOTES]


def install(job: ScheduledJob) -> bool:
    """Write both files, for their owner only, and start the timer; tell whether they replaced others of that name.
    Raises ScheduleFailed or StoreError."""
    before = {Path(file.path): _bytes_of(Path(file.path)) for file in files(job)}
    directory().mkdir(parents=True, exist_ok=True)
    try:
        for file in files(job):
            write_atomically(Path(file.path), file.text.encode())
        for command in commands(job.name):
            require_success(command.split())
    except BaseException:
        for path, content in before.items():
            path.unlink(missing_ok=True) if content is None else write_atomically(path, content)
        run_program(["systemctl", "--user", "daemon-reload"])
        raise
    return any(before[Path(file.path)] not in (None, file.text.encode()) for file in files(job))


def registered(name: str) -> bool:
    """Tell whether there is a timer of that name."""
    return (directory() / f"{name}.timer").exists()


def remove(name: str) -> bool:
    """Stop the timer and remove both files; False if there are none. Raises ScheduleFailed."""
    there = [path for end in ("timer", "service") if (path := directory() / f"{name}.{end}").exists()]
    if not there:
        return False
    if there[0].suffix == ".timer":
        require_success(["systemctl", "--user", "disable", "--now", f"{name}.timer"])
    for path in there:
        path.unlink()
    require_success(["systemctl", "--user", "daemon-reload"])
    return True


def command_line(argv: tuple[str, ...]) -> str:
    """Quote a command line for ExecStart=, where %, $, quotes and backslashes have a meaning. The program's own name
    can't contain a quote or backslash in any notation, and `$$` does not mean `$` in it (seen on 252: "Executable name
    contains special characters"): such a name is passed to a shell as an argument."""
    if re.search(r"['\"\\]", argv[0]):
        argv = ("/bin/sh", "-c", 'exec "$@"', "sh", *argv)
    return " ".join([_quoted(argv[0]), *(_quoted(argument.replace("$", "$$")) for argument in argv[1:])])


def _quoted(text: str) -> str:
    return '"' + _specifiers(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _specifiers(text: str) -> str:
    return text.replace("%", "%%")


def _bytes_of(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
