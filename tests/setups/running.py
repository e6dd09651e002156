"""Start a row's server, and speak to it without the tool."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer, wheel_bin_dir

from ..conftest import require_image
from ..helpers.containers import docker, run_docker, run_docker_quietly
from .table import Local, Server, Setup

LABEL = ("--label", "scarlet-backup-mcp.test=1")
HASTY = ("-c", "fsync=off", "-c", "full_page_writes=off")
START_SECONDS = 60
NEUTRAL = (
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("default_transaction_read_only", "off"),
    ("synchronous_commit", "local"),
    ("role", "none"),
)
"""What lets the test work on a server whatever a row has set there."""
OPTIONS = " ".join(f"-c {name}={value}" for name, value in NEUTRAL)
PSQL = ("psql", "-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-f", "-")

_ROWS = r"""
SELECT format('SELECT %L, count(*), md5(string_agg(t::text, E''\n'' ORDER BY t::text COLLATE "C")) FROM ONLY %s t',
              oid::regclass, oid::regclass)
FROM pg_class WHERE relkind = 'r' AND relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
ORDER BY oid::regclass::text COLLATE "C"
\gexec
SELECT count(*) FROM pg_largeobject_metadata;
"""
_RESET = """
SELECT format('DROP DATABASE %I WITH (FORCE)', datname) FROM pg_database WHERE datname <> ALL ('{databases}') \\gexec
SELECT format('DROP OWNED BY %I', rolname) FROM pg_roles WHERE rolname <> ALL ('{roles}') \\gexec
SELECT format('DROP ROLE %I', rolname) FROM pg_roles WHERE rolname <> ALL ('{roles}') \\gexec
SELECT format('ALTER ROLE %I RESET ALL', rolname) FROM pg_roles WHERE oid = 10 \\gexec
ALTER SYSTEM RESET ALL;
SELECT pg_reload_conf();
"""


@dataclass
class Running:
    """A running server."""

    psql: list[str]
    """Command that runs SQL from its stdin in the database whose name follows."""
    environment: Mapping[str, str] = field(repr=False)
    container: str = ""
    known: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """What a row's settings can name in braces."""
    used: bool = False
    _first: Mapping[str, str] = field(default_factory=dict[str, str])

    def sql(self, statements: str, database: str) -> str:
        """Run SQL as the superuser; the unaligned rows. Raises AssertionError with the server's error."""
        done = subprocess.run(
            [*self.psql, database],
            input=statements.encode(),
            capture_output=True,
            env={**os.environ, **self.environment},
            check=False,
        )
        assert done.returncode == 0, f"{statements[:200]}: {done.stderr.decode(errors='replace')}"
        return done.stdout.decode(errors="replace").removesuffix("\n")

    def rows(self, database: str) -> str:
        """Number and digest of the rows of every table."""
        return self.sql(_ROWS, database)

    def prepare(self, setup: Setup) -> None:
        """Have nothing of another row on the server, and this row's database."""
        if self.used:
            self.sql(_RESET.format(**self._first), "postgres")
        else:
            databases = self.sql("SELECT array_agg(datname) FROM pg_database", "postgres")
            self._first = {
                "databases": databases,
                "roles": self.sql("SELECT array_agg(rolname) FROM pg_roles", "postgres"),
            }
        self.used = True
        name = setup.database.replace('"', '""')
        missing = f"SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = $name${setup.database}$name$)"
        self.sql(
            f"""SELECT $do$CREATE DATABASE "{name}" {setup.create}$do$ FROM ({missing}) AS missing \\gexec""",
            "postgres",
        )
        self.sql(setup.memory, setup.database)
        if setup.sql:
            self.sql(setup.sql, setup.database)

    def wait(self) -> None:
        """Until it accepts connections."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.sql("", "postgres")
                return
            except AssertionError:
                assert time.monotonic() < deadline, run_docker_quietly("logs", "--tail", "20", self.container)
            time.sleep(0.1)


class Servers:
    """Keeps the last server running, since the next row may be of the same."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = ExitStack()
        self._server: Server | Local | None = None
        self._running: Running | None = None

    def __call__(self, server: Server | Local) -> Running:
        """The server, running; another one that ran before is gone."""
        if self._running is None or self._server is not server:
            self.close()
            directory = self._directory / secrets.token_hex(4)
            directory.mkdir()
            starting = _container(server, directory) if isinstance(server, Server) else _local(server)
            self._running = self._stack.enter_context(starting)
            self._server = server
        return self._running

    def close(self) -> None:
        """Remove the server, with everything that was made for it."""
        self._running = None
        self._stack.close()


@contextmanager
def _container(server: Server, directory: Path) -> Generator[Running]:
    in_file = server.files.get(server.environment.get("POSTGRES_PASSWORD_FILE", ""), secrets.token_urlsafe(12))
    password = server.environment.get("POSTGRES_PASSWORD", in_file)
    with ExitStack() as stack:
        if server.start is not None:
            name = stack.enter_context(server.start(directory))
        else:
            name = f"setup-{secrets.token_hex(4)}"
            stack.callback(run_docker_quietly, "volume", "rm", "-f", name)
            stack.callback(run_docker_quietly, "rm", "-f", "-v", name)
            _run(server, name, password, directory)
        user = server.environment.get("POSTGRES_USER", "postgres")
        client = ("-e", f"PGPASSWORD={password}", "-e", f"PGOPTIONS={OPTIONS}", "-e", "PGCLIENTENCODING=UTF8")
        psql = ["docker", "exec", "-i", *client, name, *PSQL, "-U", user, *server.psql, "-d"]
        _wait_for_the_entry_point(name)
        address = run_docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name).strip()
        known = {"container": name, "address": address, "password": password, "bin_dir": str(wheel_bin_dir())}
        running = Running(psql, {}, name, known)
        running.wait()
        if server.then:
            run_docker(*server.then, name)
        yield running


def _run(server: Server, name: str, password: str, directory: Path) -> None:
    require_image(server.image)
    given = {"POSTGRES_INITDB_ARGS": "--no-sync", **server.environment}
    if not {"POSTGRES_PASSWORD_FILE", "POSTGRES_HOST_AUTH_METHOD"} & set(given):
        given["POSTGRES_PASSWORD"] = password
    options = [word for item in given.items() for word in ("-e", "=".join(item))]
    if server.in_memory:
        data = given.get("PGDATA", "/var/lib/postgresql" if "18" in server.image else "/var/lib/postgresql/data")
        options += ["--tmpfs", f"{data}:size=2g"]
    for number, (path, text) in enumerate(server.files.items()):
        file = directory / f"file{number}"
        file.write_text(text, encoding="utf-8")
        file.chmod(0o755)
        options += ["-v", f"{file}:{path}:ro"]
    directory.chmod(0o755)
    (directory / "empty").mkdir()
    options += [word.format(volume=name, directory=directory / "empty") for word in server.options]
    run_docker("run", "-d", "--pull", "never", "--name", name, *LABEL, *options, server.image, *HASTY, *server.command)


def _wait_for_the_entry_point(name: str) -> None:
    """At a first start the image's entry point starts a server of its own, ends it, and becomes the real one."""
    ready = '! grep -qsE "bash|docker-ent" /proc/[0-9]*/comm && grep -q ready "$PGDATA/postmaster.pid"'
    deadline = time.monotonic() + START_SECONDS
    while docker(("exec", name, "sh", "-c", ready)).returncode != 0:
        assert time.monotonic() < deadline, run_docker_quietly("logs", "--tail", "20", name)
        time.sleep(0.1)


class _Configured(EmbeddedServer):
    """The embedded server with a row's configuration."""

    def __init__(self, local: Local) -> None:
        super().__init__()
        self._local = local

    @property
    def known(self) -> dict[str, str]:
        """What a row can name in braces."""
        where = {"directory": str(self.directory), "bin_dir": str(self.bin_dir), "port": str(self.port)}
        return {**where, "user": self.user, "password": self.password}

    def _launch(self) -> None:
        local = self._local
        self._configure({name: value.format(**self.known) for name, value in local.configuration.items()})
        if local.hba:
            (self.data / "pg_hba.conf").write_text(local.hba, encoding="utf-8")
        super()._launch()
        for name, text in local.files.items():
            file = self._base / name
            file.touch(0o600)
            file.write_text(text.format(**self.known), encoding="utf-8")


@contextmanager
def _local(local: Local) -> Generator[Running]:
    with _Configured(local) as server:
        psql = [str(server.bin_dir / PSQL[0]), *PSQL[1:], "-d"]
        environment = {**server.environment, "PGOPTIONS": OPTIONS, "PGCLIENTENCODING": "UTF8"}
        yield Running(psql, environment, "", server.known)
