"""A temporary cluster on this machine, removed with all its data."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from ...errors import HostError
from ...progress import Progress

UNPRIVILEGED = ("postgres", "_postgres", "nobody")
"""Accounts to run the server as when we are root, which PostgreSQL refuses; the first that exists is used."""
START_SECONDS = 60
STOP_SECONDS = 10
PORT_ATTEMPTS = 5

INITDB = ("--encoding=UTF8", "--no-locale", "--no-sync")
LOOPBACK: Mapping[str, str] = {"listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
"""No sockets: their paths are limited to some 100 bytes."""


class LocalCluster:
    """A server in a temporary directory, on loopback, for one superuser with a random password.

        with Cluster(lambda: Path("/usr/lib/postgresql/15/bin"), settings={"fsync": "off"}) as server:
            psycopg.connect(server.dsn("postgres"))

    `start` and `stop` can be called instead. However the block ends, the server and its directory are then removed.
    `programs` finds the bin directory. `copy_programs` copies the first argument, a bin directory, into the second and
    returns the copy: for when we are root and the account that runs the server can't reach the original.
    """

    def __init__(
        self,
        programs: Callable[[], Path],
        *,
        user: str = "postgres",
        settings: Mapping[str, str],
        prefix: str = "scarlet-postgres-",
        copy_programs: Callable[[Path, Path], Path] | None = None,
    ) -> None:
        self.port = 0
        self.user = user
        self.password = secrets.token_urlsafe(18)
        self.directory: Path | None = None
        self._programs, self._copy_programs = programs, copy_programs
        self._settings, self._prefix = settings, prefix
        self._bin_dir: Path | None = None
        self._account: tuple[int, int] | None = None

    @property
    def bin_dir(self) -> Path:
        """The directory of the server's programs (psql, pg_dump, initdb …). Raises ProgramMissing without them."""
        if self._bin_dir is None:
            self._bin_dir = self._programs()
        return self._bin_dir

    @property
    def data(self) -> Path:
        """The data directory. Raises HostError before the start."""
        return self._base / "data"

    def dsn(self, database: str = "postgres") -> str:
        """Return a connection URI for a database of this server. It contains the password."""
        user, name = quote(self.user, safe=""), quote(database, safe="")
        return f"postgresql://{user}:{self.password}@127.0.0.1:{self.port}/{name}"

    @property
    def environment(self) -> dict[str, str]:
        """libpq's variables for this server. They contain the password."""
        return {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": self.user, "PGPASSWORD": self.password}

    def start(self, progress: Progress | None = None) -> Self:
        """Create a cluster and start it, in 1 to 3 seconds.

        Raises ProgramMissing without the programs, HostError if one of them fails.
        """
        progress = progress or Progress()
        self.stop()
        try:
            self._prepare()
            self._initialise()
            progress.check()
            self._launch()
            progress.check()
        except BaseException:
            with contextlib.suppress(HostError):  # the first error says more
                self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the server and remove its directory. Harmless if there is none. Raises HostError if it stays."""
        if self.directory is None:
            return
        try:
            if (self.data / "postmaster.pid").exists():
                # Immediate: the data that a checkpoint would save are about to be deleted.
                self._run("pg_ctl", "stop", "-D", str(self.data), "-m", "immediate", "-w")
        finally:
            directory = self.directory
            remove_tree(directory)
            self.directory = self._bin_dir = self._account = None
        if directory.exists():
            raise HostError(f"The directory {directory} could not be removed.", "Remove it by hand.")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _base(self) -> Path:
        if self.directory is None:
            raise HostError("The temporary PostgreSQL has not been started.", "Call start() first.")
        return self.directory

    @property
    def _log(self) -> Path:
        return self._base / "server.log"

    def _prepare(self) -> None:
        bin_dir = self.bin_dir
        self.directory = Path(tempfile.mkdtemp(prefix=self._prefix))
        if is_root():
            self._account = unprivileged_account()
            os.chown(self.directory, *self._account)
            if not self._can_run(bin_dir / executable("postgres")):
                # For example in a virtual environment under /root.
                if self._copy_programs is None:
                    raise HostError(
                        f"PostgreSQL does not run as root, and no other account can reach {bin_dir}.",
                        "Run the same command as an ordinary user.",
                    )
                self._bin_dir = self._copy_programs(bin_dir, self.directory)

    def _initialise(self) -> None:
        password_file = self._base / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self.password + "\n", encoding="ascii")
        if self._account is not None:
            os.chown(password_file, *self._account)
        owner = ("-U", self.user, "--pwfile", str(password_file), "-A", "scram-sha-256")
        self._run("initdb", "-D", str(self.data), *owner, *INITDB)
        password_file.unlink()
        self._configure({**self._settings, **LOOPBACK})

    def _launch(self) -> None:
        """Start the server; retry with another port if another program takes the free one first."""
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self.port = free_port()
            self._configure({"port": str(self.port)})
            self._log.unlink(missing_ok=True)
            start = ("start", "-D", str(self.data), "-l", str(self._log), "-w", "-t", str(START_SECONDS))
            try:
                self._run("pg_ctl", *start)
                return
            except HostError:
                if attempt == PORT_ATTEMPTS or "could not bind" not in self._log_text():
                    raise

    def _configure(self, settings: Mapping[str, str]) -> None:
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as file:
            for name, value in settings.items():
                quoted = value.replace("\\", "\\\\").replace("'", "''")
                file.write(f"{name} = '{quoted}'\n")

    def _log_text(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def _run(self, program: str, *arguments: str) -> None:
        """Run a program as the server's account. Raises HostError with its output and the server's log."""
        # A file, not a pipe: the server inherits it from pg_ctl, and would keep a pipe open as long as it runs.
        with tempfile.TemporaryFile() as output:
            code = self._call([str(self.bin_dir / executable(program)), *arguments], output.fileno())
            output.seek(0)
            text = output.read().decode("utf-8", errors="replace")
        if code != 0:
            raise HostError(
                f"The temporary PostgreSQL's {program} failed with exit code {code}:\n{text}{self._log_text()[-2000:]}",
                "See its message above. The directory for temporary files must be writable and have 100 MB free.",
            )

    def _can_run(self, program: Path) -> bool:
        try:
            return self._call([str(program), "--version"], subprocess.DEVNULL) == 0
        except PermissionError:
            return False

    def _call(self, command: Sequence[str], output: int) -> int:
        user, group = self._account or (None, None)
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(self._base),
            cwd=self._base,
            user=user,
            group=group,
            extra_groups=None if self._account is None else [],
            check=False,
        ).returncode


def remove_leftovers(prefix: str) -> list[str]:
    """Remove the directories, by their prefix, of clusters whose process was killed; return the removed paths.

    Call it only when none of them can be in use. On Linux a server that still runs is ended; elsewhere that can't be
    done safely, but it ends by itself within a minute, when it finds its postmaster.pid gone.
    """
    gone: list[str] = []
    for directory in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        if directory.is_dir() and not directory.is_symlink() and _is_ours(directory):
            _end_server(directory / "data")
            remove_tree(directory)
            if not directory.exists():
                gone.append(str(directory))
    return sorted(gone)


def _is_ours(directory: Path) -> bool:
    """Check a directory's owner: anybody can create one of that name among the system's temporary files."""
    if sys.platform == "win32":
        return True
    ours = {os.geteuid(), *(unprivileged_account()[:1] if is_root() else ())}
    return directory.stat().st_uid in ours


def _end_server(data: Path) -> None:
    """Signal the process in postmaster.pid if it is this server: another one may have got its number."""
    with contextlib.suppress(OSError, ValueError):
        number = int((data / "postmaster.pid").read_text(encoding="ascii", errors="replace").splitlines()[0])
        until = time.monotonic() + STOP_SECONDS
        while sys.platform != "win32" and os.path.samefile(f"/proc/{number}/cwd", data):
            os.kill(number, signal.SIGQUIT)
            if time.monotonic() > until:
                return
            time.sleep(0.1)


def _environment(home: Path) -> dict[str, str]:
    """Return this process's environment without what affects PostgreSQL's programs."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**inherited, "LC_ALL": "C", "HOME": str(home)}


def is_root() -> bool:
    """Tell whether PostgreSQL would refuse this user. (On Windows pg_ctl drops an administrator's rights itself.)"""
    return sys.platform != "win32" and os.geteuid() == 0


def unprivileged_account() -> tuple[int, int]:
    """Return user and group id of an account that the server can run as. Raises HostError if there is none."""
    if sys.platform != "win32":
        import pwd

        for name in UNPRIVILEGED:
            try:
                account = pwd.getpwnam(name)
            except KeyError:
                continue
            return account.pw_uid, account.pw_gid
    raise HostError(
        "PostgreSQL does not run as root, and there is no account `postgres` or `nobody` to run it as.",
        "Run the same command as an ordinary user.",
    )


def executable(program: str) -> str:
    """Return a program's file name on this system."""
    return f"{program}.exe" if sys.platform == "win32" else program


def free_port() -> int:
    """Return a TCP port on loopback that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def remove_tree(directory: Path, seconds: float = 5) -> None:
    """Remove a directory, with retries: on Windows a file can stay in use for a moment after its program has ended."""
    deadline = time.monotonic() + seconds
    while directory.exists():
        shutil.rmtree(directory, ignore_errors=True)
        if time.monotonic() > deadline:
            return
        if directory.exists():
            time.sleep(0.1)
