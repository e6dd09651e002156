"""A scheduled job: the command line of `backup` with the settings in force, and when to run it."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import time
from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from ..errors import ConfigurationError, ScheduleFailed
from ..models.common import Kind
from ..postgres.server.dsn import holds_password
from ..settings import PREFIX, Settings

PACKAGE = "scarlet_backup_mcp"
Every = Literal["daily", "weekly"]
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
PROGRAM_SECONDS = 60
LONGEST_RUN_HOURS = 12
"""The scheduler, if it can, ends a run that hangs for this long, so that the next one can begin."""
# Variables that lead to an engine or to client programs, which a scheduler's environment lacks.
_DOCKER = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")
_PASSWORDS = ("PGPASSFILE",)
_SERVICES = ("PGSERVICEFILE", "PGSYSCONFDIR")
_NAMED = ("container", "service", "project", "database")
_WHICH_JOB = ("via", "container", "service", "project", "database", "port", "socket", "dsn", "dir")
IN_A_FILE = (
    "Write the password into a file that only its owner can read, as host:port:database:user:password (with Docker the "
    "host is the container's name; `*` fits any), set PGPASSFILE to that file, and remove the password from the setting"
)
_NAME = r"scarlet-backup(-[0-9a-f]{8})?-(daily|weekly)(-volume)?"
_CACHE = {"cache", ".cache", "caches"}


@dataclass(frozen=True)
class ScheduledJob:
    """A daily or weekly run, in local time. `argv[0]` is an absolute path."""

    name: str
    argv: tuple[str, ...]
    at: time
    weekday: Weekday | None = None
    environment: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def description(self) -> str:
        """What people see in their scheduler."""
        return f"Backup of Scarlet's memory ({'every ' + self.weekday if self.weekday else 'daily'}, {self.at:%H:%M})"


def job_for(
    settings: Settings,
    every: Every,
    at: str,
    *,
    kind: Kind = "sql",
    weekday: Weekday = "sunday",
    options: Sequence[str] = (),
    environment: Mapping[str, str] = os.environ,
) -> ScheduledJob:
    """Describe the job that makes backups of this kind with these settings and `options` of the command `backup`. `at`
    is HH:MM, local time; `weekday` is used if `every` is "weekly". Raises ConfigurationError, also if the job would
    have to contain a password."""
    found = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)", at)
    if found is None:
        raise ConfigurationError(f"{at!r} is not a time of day.", "Write HH:MM, for example 03:30.")
    name = job_name(settings, every, kind)
    command = (interpreter(), "-P", "-m", PACKAGE, "backup", "--scheduled", name, "--quiet", f"--kind={kind}")
    variables = carried(settings, environment)
    argv = (*command, *options, *settings_in_force(settings))
    for text in (*argv, *variables.values()):
        if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", text):
            raise ConfigurationError(f"{text!r} has a control character or is not UTF-8: no scheduler accepts that.")
    return ScheduledJob(
        name, argv, time(int(found[1]), int(found[2])), weekday if every == "weekly" else None, variables
    )


def job_name(settings: Settings, every: Every, kind: Kind = "sql") -> str:
    """Name a job, for example `scarlet-backup-daily` or `scarlet-backup-daily-volume`.

    If database or directory are not the default ones, the name includes a digest of the settings that lead there, so
    that the job for one never replaces the job for another."""
    other = {name: str(_plain(value)) for name, value in _changed(settings).items() if name in _WHICH_JOB}
    which = f"-{hashlib.sha256(repr(sorted(other.items())).encode()).hexdigest()[:8]}" if other else ""
    return f"scarlet-backup{which}-{every}{'-volume' if kind == 'volume' else ''}"


def require_job_name(name: str) -> None:
    """Raise ConfigurationError for a name that `job_name` never gives: other programs' jobs are not ours to remove."""
    if not re.fullmatch(_NAME, name):
        raise ConfigurationError(
            f"{name!r} is not the name of a job of this tool.",
            "Use a name that the list of backups shows, such as scarlet-backup-daily.",
        )


def interpreter() -> str:
    """Return the path of this Python; on Windows that of pythonw.exe, if it exists: it opens no window."""
    found = os.path.abspath(sys.executable)  # not resolved: a virtual environment's link leads out of it
    windowless = Path(found).with_name("pythonw.exe")
    if os.name == "nt" and windowless.exists():
        return str(windowless)
    return found


def settings_in_force(settings: Settings) -> list[str]:
    """Return command line options for settings that differ from their defaults or were given explicitly.

    Raises ConfigurationError for a password."""
    named = {name: getattr(settings, name) for name in _NAMED if name in settings.model_fields_set}
    changed = {**named, **_changed(settings)}
    if named := secret_setting(settings):
        raise ConfigurationError(
            f"{PREFIX}{named} holds a password, and others can read a scheduled job's command line.",
            f"{IN_A_FILE}, then call `schedule` again.",
        )
    return [f"--{name.replace('_', '-')}={_plain(value)}" for name, value in changed.items()]


def secret_setting(settings: Settings) -> str | None:
    """Return the end of the name of the setting that holds a password, if one does."""
    if settings.password is not None:
        return "PASSWORD"
    return "DSN" if settings.dsn is not None and holds_password(settings.dsn.get_secret_value()) else None


def require_runnable(job: ScheduledJob) -> None:
    """Start the job's interpreter like a scheduler, and check that it finds this package. Raises ConfigurationError.

    Here a project's directory or PYTHONPATH may have led to the package, and a cache may be emptied any day.
    """
    if is_in_cache(Path(job.argv[0])):
        raise ConfigurationError(
            f"{job.argv[0]} is in a cache. Once that is emptied, the job would no longer run.",
            "Install it permanently (uv tool, pipx or a virtual environment), then call `schedule` from there.",
        )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [job.argv[0], "-P", "-c", f"import importlib; importlib.import_module('{PACKAGE}.cli')"]
    try:
        done = subprocess.run(
            command, env=environment, cwd=Path.home(), capture_output=True, timeout=PROGRAM_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"{job.argv[0]} can't be started: {error}.") from None
    if done.returncode:
        raise ConfigurationError(
            f"{job.argv[0]} does not find {PACKAGE} when a scheduler starts it.",
            "Install it into that Python's environment (`pip install .`), then call `schedule` again.",
        )


def run_program(argv: Sequence[str], stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a scheduler's own program, with untranslated messages. Raises ScheduleFailed when it can't be started."""
    try:
        return subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            env={**os.environ, "LC_ALL": "C"},
            timeout=PROGRAM_SECONDS,
            check=False,
        )
    except OSError as error:
        raise ScheduleFailed(f"{argv[0]} can't be run: {error.strerror or 'no reason is known'}.") from None
    except subprocess.TimeoutExpired:
        raise ScheduleFailed(f"{argv[0]} has not ended within {PROGRAM_SECONDS} s.") from None


def require_success(argv: Sequence[str], stdin: bytes = b"", *, or_codes: Collection[int] = ()) -> bool:
    """Run a scheduler's own program; False if its exit code is one of `or_codes`. Raises ScheduleFailed, with its
    output, for any other code but 0."""
    done = run_program(argv, stdin)
    if done.returncode and done.returncode not in or_codes:
        output = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise ScheduleFailed(f"`{' '.join(argv)}` failed with exit code {done.returncode}: {output or 'no output'}.")
    return not done.returncode


def carried(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of `environment` that lead to an engine or to client programs. Raises ConfigurationError for
    a password."""
    local = (*_SERVICES, *(("PATH",) if settings.bin_dir is None else ()))
    wanted = (*_PASSWORDS, *(_DOCKER if settings.via == "docker" else local))
    found = {name: environment[name] for name in wanted if environment.get(name)}
    if re.search(r"://[^@]*:[^@]*@", found.get("DOCKER_HOST", "")):
        raise ConfigurationError(
            "DOCKER_HOST holds a password, which a scheduled job or a client's configuration would expose.",
            "Use an ssh key, and remove the password from DOCKER_HOST.",
        )
    return found


def is_in_cache(program: Path) -> bool:
    """Tell whether a program lies in a cache, such as that of `uvx`, which may be emptied any day."""
    return bool(_CACHE & {part.lower() for part in program.parts})


# --------------------------------------------------------------------------------------------------------------------


def _changed(settings: Settings) -> dict[str, object]:
    values = {name: getattr(settings, name) for name in Settings.model_fields}
    return {name: value for name, value in values.items() if value != Settings.model_fields[name].get_default()}


def _plain(value: object) -> object:
    return value.get_secret_value() if isinstance(value, SecretStr) else value
