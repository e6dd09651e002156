"""`doctor`: look at everything that a backup needs on this machine, and say what to do. Problems are no exceptions."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

from ..clients.change import servers_of
from ..clients.entry import is_ours, missing_command
from ..clients.json_text import NotUnderstood
from ..clients.known import McpClient, clients
from ..errors import BackupToolError, BackupUnreadable, EngineUnreachable, HostError
from ..hosts import ContainerInfo, free_bytes_of
from ..models.common import Kind
from ..models.results import ScheduledRun
from ..models.setup import SetupCheck, SetupReport, Status
from ..postgres.server import catalogue as pg
from ..postgres.server import counting
from ..progress import Progress
from ..schedules import Every, job_name, registered, system_here
from ..store import audit, file_system
from ..store.directory import BackupDirectory
from ..store.writing import READ_ONLY
from .catalog import records
from .compose_advice import in_names_of
from .context import BackupContext
from .listing import no_success, remedy_of, run_of
from .memory.project_stores import REMEDY, described, missing_words, project_stores

CLOCK_WARNS, CLOCK_FAILS = 5.0, 60.0
"""Seconds between this machine's clock and the server's."""
LONGEST_PAUSE: Mapping[Every, timedelta] = {"daily": timedelta(days=2), "weekly": timedelta(days=9)}
"""How long ago a job's last run may be: a machine that was off for a day is no fault."""


class _Report:
    """The checks so far."""

    def __init__(self) -> None:
        self.checks: list[SetupCheck] = []

    def add(self, status: Status, check: str, message: str, remedy: str = "", *, fixed: bool = False) -> None:
        """Add a check."""
        self.checks.append(SetupCheck(check=check, status=status, message=message, remedy=remedy, fixed=fixed))

    def failed(self, check: str, error: BackupToolError) -> None:
        """Add an error as a check."""
        self.add("fail", check, error.message, error.remedy)


def doctor(
    context: BackupContext,
    progress: Progress,
    project: Path,
    *,
    fix: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> SetupReport:
    """Look at Docker, container, database, other stores, directory, clock, schedule and MCP clients.

    `project` is where clients have their files for a project. `fix` makes the backup directory and takes other users'
    rights to it away; nothing else is changed.
    """
    report = _Report()
    progress.stage("checking Docker")
    container_info = _container(context, report)
    database_bytes: int | None = None
    if container_info is not None:
        progress.stage("querying the server")
        database_bytes = _server(context, report, progress)
        _stores(context, report)
    progress.stage("checking the directory")
    directory = _directory(context, report, container_info, database_bytes, fix=fix)
    progress.stage("checking the schedule")
    _schedule(context, report, directory)
    progress.stage("checking the MCP clients")
    _clients(report, clients(project, environment), environment)
    for check in report.checks:
        check.remedy = in_names_of(container_info, check.remedy)
    return SetupReport(good=all(check.status != "fail" for check in report.checks), checks=report.checks)


def _container(context: BackupContext, report: _Report) -> ContainerInfo | None:
    """Check Docker and the container; None if no program can be started there."""
    local = context.settings.via == "local"
    answers = "Not needed: the server is reached directly." if local else "The engine answers."
    try:
        info = context.container_info
        context.host.require_running()
    except EngineUnreachable as error:
        report.failed("docker", error)
        report.add("warn", "container", "Unknown: no Docker engine could be asked.", "Run this again after that.")
        return None
    except BackupToolError as error:
        report.add("ok", "docker", answers)
        report.failed("container", error)
        return None
    report.add("ok", "docker", answers)
    if local:
        return info
    if info.health in ("unhealthy", "starting"):
        remedy = "Read `docker compose logs postgres`."
        report.add("warn", "container", f"{info.container} runs, but is {info.health}.", remedy)
    else:
        only = ", the only PostgreSQL" if info.only_candidate else ""
        report.add("ok", "container", f"{info.container} runs ({info.image}{only}).")
    return info


def _server(context: BackupContext, report: _Report, progress: Progress) -> int | None:
    """Check the database and the clock; return the database's size in bytes."""
    name, table = context.database, context.settings.integrity_table
    try:
        with context.maintenance_session(progress) as session:
            session.ping()
            version, databases = pg.server_facts(session).version, pg.databases(session)
            before = time.time()
            clock = pg.clock(session)
            after = time.time()
        if name not in databases:
            there = ", ".join(sorted(databases))
            remedy = "Correct SCARLET_BACKUP_DATABASE; if the database was lost, restore it from a backup."
            report.add("fail", "database", f"There is no database {name!r}. There are: {there}.", remedy)
        else:
            rows = counting.count_table(context.server, name, table).rows
            if rows:
                report.add(
                    "ok", "database", f"{context.found_database.in_brief} on PostgreSQL {version}; {table}: {rows:,}."
                )
            else:
                what = f"has no table {table}" if rows is None else f"has nothing in {table}"
                remedy = "`scarlet-backup-mcp integrity` says more; if that is not intended, restore a backup."
                report.add("fail", "database", f"{name} {what}.", remedy)
    except BackupToolError as error:
        report.failed("database", error)
        return None
    _clock(report, clock - before if clock < before else max(0.0, clock - after))
    return databases[name].bytes if name in databases else None


def _clock(report: _Report, ahead: float) -> None:
    """Judge by how many seconds the server's clock is ahead of this machine's."""
    if abs(ahead) < CLOCK_WARNS:
        report.add("ok", "clock", "This machine and the server have the same time.")
        return
    how = f"The server's clock is {abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's."
    remedy = "Set both clocks; Docker Desktop's falls behind after sleep until it is restarted."
    report.add("fail" if abs(ahead) >= CLOCK_FAILS else "warn", "clock", how, remedy)


def _stores(context: BackupContext, report: _Report) -> None:
    """Check that backups hold all that the project keeps. A project with PostgreSQL alone has nothing to check."""
    found_stores = project_stores(context)
    for store in found_stores.uncovered:
        report.add("warn", "stores", described(store), REMEDY)
    if found_stores.missing:
        report.add("fail", "stores", missing_words(found_stores.missing), "Correct it, or start that service.")


# -- the backup directory ----------------------------------------------------------------------------------------------


def _directory(
    context: BackupContext, report: _Report, info: ContainerInfo | None, database_bytes: int | None, *, fix: bool
) -> BackupDirectory | None:
    try:
        directory = context.directory
    except BackupToolError as error:
        if isinstance(error, HostError):  # which is a check of its own
            remedy = "Correct that first, or set SCARLET_BACKUP_DIR to an absolute path."
            message = "Unknown: no setting names it, and the container could not be inspected."
            report.add("warn", "directory", message, remedy)
        else:
            report.failed("directory", error)
        return None
    path = directory.path
    try:
        missing, opened = bool(directory.absence()), False
    except BackupToolError as error:
        report.failed("directory", error)
        return directory
    if fix:
        try:
            directory.prepare()
            opened = _close_to_others(path)
        except BackupToolError as error:
            report.failed("directory", error)
            return directory
    there = next(place for place in (path, *path.parents) if os.path.exists(place))
    if os.path.islink(path) and directory.absence():
        remedy = "Mount or make what it leads to, or set SCARLET_BACKUP_DIR (--dir) to another directory."
        report.add("fail", "directory", directory.absence(), remedy)
        return directory
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        problem = "can't be made" if missing else "is not a directory" if not there.is_dir() else "can't be written to"
        remedy = "Give this user write access, or set SCARLET_BACKUP_DIR (--dir) to another directory."
        if file_system.is_read_only(there):
            problem, remedy = "is on a file system that is mounted read-only", READ_ONLY
        report.add("fail", "directory", f"{path} {problem}.", remedy)
        return directory
    if not directory.exists():
        remedy = "The first backup makes it, or add --fix."
        report.add("warn", "directory", f"{path} does not exist yet.", remedy)
    elif missing or opened:
        done = "was made" if missing else "is now for its owner only"
        report.add("ok", "directory", f"{path} {done}.", fixed=True)
    else:
        report.add("ok", "directory", f"{path} can be written to.")
    for warning in directory.warnings():
        remedy = "Set SCARLET_BACKUP_DIR (--dir) to another directory"
        fixable = "; if only its rights are too wide, add --fix" if "chmod" in warning else ""
        report.add("warn", "directory", warning, f"{remedy}{fixable}.")
    _readable(context, report)
    _space(report, there, database_bytes)
    if info is not None and _on_one_disk(context, info, there):
        remedy = "Copy backups to another disk or machine, or set SCARLET_BACKUP_DIR to one there."
        report.add("warn", "disk", f"{path} is on the disk that holds the database: one failure takes both.", remedy)
    return directory


def _close_to_others(path: Path) -> bool:
    """Take other users' rights to the directory away, if it is one for backups: not one that programs or users share,
    such as /tmp, and none above the user's own files. Tell whether it was done."""
    if os.name != "posix":
        return False
    found = path.stat()
    mode = stat.S_IMODE(found.st_mode)
    shared = mode & (stat.S_ISVTX | stat.S_ISGID) or found.st_uid != os.getuid() or path.is_mount()
    if not mode & 0o077 or shared or path in (Path.home(), *Path.home().parents):
        return False
    with suppress(OSError):
        path.chmod(mode & 0o700)
    return not stat.S_IMODE(path.stat().st_mode) & 0o077  # FAT and NTFS may take a new mode and keep the old one


def _readable(context: BackupContext, report: _Report) -> None:
    """Check that this user may read the backups there are."""
    with suppress(BackupToolError):  # whoever needs one gets the error
        if unread := records.unread(records.all_backups(context)):
            report.add("fail", "backups", unread, BackupUnreadable.default_remedy)


def _space(report: _Report, there: Path, database_bytes: int | None) -> None:
    free = free_bytes_of(there)
    if free is None:
        return
    shown = f"{free / 1e9:,.1f} GB free"
    if database_bytes is None:
        report.add("ok", "space", f"{shown}.")
    elif free < 2 * database_bytes:
        message = f"{shown}; the database has {database_bytes / 1e9:,.1f} GB."
        remedy = "Free some space, or set SCARLET_BACKUP_DIR to a larger disk."
        report.add("fail" if free < database_bytes else "warn", "space", message, remedy)
    else:
        report.add("ok", "space", f"{shown}, more than twice the database.")


def _on_one_disk(context: BackupContext, info: ContainerInfo, directory: Path) -> bool:
    """Tell whether backups and data are known to lie on the same file system of this machine."""
    if info.kind == "local":
        with suppress(BackupToolError), context.maintenance_session() as session:
            data = pg.server_facts(session).data_directory
            return (
                bool(data) and context.host.free_bytes(data) is not None and _device(Path(data)) == _device(directory)
            )
        return False
    mount = info.data_mount
    if mount is None or not mount.path or info.engine is not None or not info.engine_local:
        return False  # another engine's paths are not this machine's
    device = _device(Path(mount.path))
    return device is not None and device == _device(directory)


def _device(path: Path) -> int | None:
    """Return the file system of a path, or of the nearest directory above it that may be looked at; None if the path
    does not exist here."""
    while True:
        try:
            return path.stat().st_dev
        except PermissionError:
            path = path.parent
        except OSError:
            return None


# -- schedule and clients ----------------------------------------------------------------------------------------------


def _schedule(context: BackupContext, report: _Report, directory: BackupDirectory | None) -> None:
    remedy = "`scarlet-backup-mcp schedule --install` registers one."
    jobs: dict[str, Every] = {
        job_name(context.settings, every, kind): every for every in get_args(Every) for kind in get_args(Kind)
    }
    try:
        installed = [name for name in jobs if registered(name)]
    except BackupToolError as error:
        report.add("warn", "schedule", error.message, error.remedy)
        return
    if not installed:
        report.add("warn", "schedule", f"No scheduled backup is registered with {system_here()}.", remedy)
        return
    runs: dict[str | None, ScheduledRun] = {}
    if directory is not None:
        with suppress(BackupToolError):
            runs = {run.job: run_of(run) for run in reversed(audit.last_runs(directory.path))}
    for name in installed:
        run = runs.get(name)
        if run is None:
            report.add("warn", "schedule", f"{name} is registered and has not run yet.", "Look again after its time.")
        elif run.outcome != "ok":
            status: Status = "warn" if run.outcome == "begun" else "fail"
            report.add(status, "schedule", no_success(run), remedy_of(run))
        elif datetime.now(UTC) - run.time > LONGEST_PAUSE[jobs[name]]:
            message = f"{name} is registered, but its last run was on {run.time:%Y-%m-%d %H:%M} UTC."
            report.add("fail", "schedule", message, f"See why {system_here()} does not start it. {remedy}")
        else:
            report.add("ok", "schedule", f"{name}: last run {run.time:%Y-%m-%d %H:%M} UTC.")


def _clients(report: _Report, known: list[McpClient], environment: Mapping[str, str]) -> None:
    without: list[str] = []
    found = 0
    for client in known:
        places = dict.fromkeys([(client.path, (client.table,)), *client.also])
        entries, unread = 0, False
        for path, way in places:
            try:
                servers = servers_of(path, "toml" if path.suffix == ".toml" else "json", way)
            except NotUnderstood as error:
                report.add("warn", "clients", f"{client.title}: {path}: it {error}.", "Correct that file.")
                unread = True
                continue
            for name, entry in servers.items():
                if is_ours(entry):
                    entries += 1
                    _entry(report, f"{client.title}: {name} in {path}", missing_command(entry, environment))
        found += entries
        if client.there and not entries and not unread:
            without.append(client.title)
    if without:
        remedy = "`scarlet-backup-mcp init` adds this server, after showing the change."
        message = f"Not configured in: {', '.join(without)}."
        report.add("ok" if found else "warn", "clients", message, remedy)
    elif not found:
        report.add("warn", "clients", "No MCP client was found here.", "`scarlet-backup-mcp init --client` names one.")


def _entry(report: _Report, where: str, missing: str | None) -> None:
    if missing is None:
        report.add("ok", "clients", f"{where}.")
    else:
        remedy = "`scarlet-backup-mcp init` corrects an entry of its own; correct another one by hand."
        report.add("fail", "clients", f"{where} starts {missing}, which is not here.", remedy)
