"""The server that was named, and no other: whatever else is there, and whatever the environment says."""

from __future__ import annotations

import json
import secrets
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql
from psycopg.conninfo import make_conninfo

from scarlet_backup_mcp.cli.commands import main as commands
from scarlet_backup_mcp.errors import (
    ConfigurationError,
    ContainerMissing,
    DatabaseMissing,
    SeveralCandidates,
    VolumeShared,
    WrongServer,
)
from scarlet_backup_mcp.hosts import Packed
from scarlet_backup_mcp.hosts.docker.container import DockerHost
from scarlet_backup_mcp.hosts.local import LocalHost, LocalProcess
from scarlet_backup_mcp.models.results import Backup, Integrity
from scarlet_backup_mcp.postgres.cluster import controldata
from scarlet_backup_mcp.postgres.server.dsn import environment_of
from scarlet_backup_mcp.postgres.server.postmaster import Postmaster, Whereabouts, read
from scarlet_backup_mcp.postgres.server.session import Server
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.gate import gate
from scarlet_backup_mcp.procedures.integrity import db_integrity
from scarlet_backup_mcp.procedures.loading.psql import load
from scarlet_backup_mcp.procedures.restore.service import dry_run, propose, restore
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import Settings, load_settings

from ..conftest import IMAGE, LocalDatabase, Stack
from ..helpers.backup_faults import Box
from ..helpers.containers import QUICK, run_docker
from ..helpers.faces import local_settings

LABEL = ("--label", "scarlet-backup-mcp.test=1")
HASTY = ("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "autovacuum=off")
READY = "grep -q ready /var/lib/postgresql/data/postmaster.pid"
AGENTS = "CREATE TABLE agents (name text); INSERT INTO agents SELECT generate_series(1, {});"


@contextmanager
def server_in(*options: str, settings: Sequence[str] = (), agents: int = 1) -> Generator[Box]:
    """A container with a server of its own, whose `letta` has that many agents. The image's entry point can't make a
    cluster with such options and settings, so it has them only once the cluster is there."""
    box = Box(f"named-{secrets.token_hex(4)}", secrets.token_urlsafe(12))
    made = {"POSTGRES_PASSWORD": box.password, "POSTGRES_DB": "letta", **QUICK}
    environment = [word for name, value in made.items() for word in ("-e", f"{name}={value}")]
    run = ("run", "-d", "--name", box.name, *LABEL, *environment, "-v", f"{box.name}:/var/lib/postgresql/data")
    try:
        run_docker(*run, IMAGE, *HASTY)
        box.wait_until_ready()
        box.psql(AGENTS.format(agents))
        if options or settings:
            run_docker("stop", box.name)
            run_docker("rm", box.name)
            words = [word for setting in settings for word in ("-c", setting)]
            run_docker(*run, *options, IMAGE, *HASTY, *words)
            run_docker("exec", box.name, "timeout", "30", "sh", "-c", f"until {READY}; do sleep 0.1; done")
        yield box
    finally:
        run_docker("rm", "-f", "-v", box.name)
        run_docker("volume", "rm", "-f", box.name)


@pytest.fixture(scope="module")
def other(require_docker: None) -> Iterator[Box]:
    """Another server, with 7 agents, where nothing is ever to be read or written."""
    with server_in(agents=7) as box:
        yield box


def look(settings: Settings) -> Integrity:
    with BackupContext(settings) as context:
        return db_integrity(context, Progress())


def take(settings: Settings) -> Backup:
    with BackupContext(settings) as context:
        return backup(context, Progress(), verify="full")


def cluster_of(directory: Path, made: Backup) -> str:
    return json.loads((directory / f"{made.name}.manifest.json").read_bytes())["identity"]["system_identifier"]


# What was named and is not there


@pytest.mark.sample(1)
@pytest.mark.parametrize("named", ["container", "service", "project"])
def test_nothing_stands_in_for_what_was_named(
    scarlet: Stack, tmp_path: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = take(load_settings(dir=tmp_path, container=scarlet.container))
    usual = {"project": scarlet.project} if named != "project" else {}
    monkeypatch.setenv(f"SCARLET_BACKUP_{named.upper()}", f"{scarlet.container}x")
    with BackupContext(load_settings(dir=tmp_path, **usual)) as context:
        for call in (lambda: backup(context, Progress()), lambda: restore(context, Progress(), made.name)):
            with pytest.raises(ContainerMissing, match=f"There are: .*{scarlet.container}"):
                call()
        assert not gate(context).safe_to_proceed
    given = [f"--dir={tmp_path}", *(f"--{name}={value}" for name, value in usual.items()), "--json"]
    done = CliRunner().invoke(commands, ["restore", made.name, "--yes", *given])
    assert done.exit_code != 0
    assert "container_missing" in done.output
    assert [path.name for path in tmp_path.glob("*.sql")] == [made.name]


def test_a_wrong_name_is_not_remembered(scarlet: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with BackupContext(load_settings(container="no-such-name")) as context, pytest.raises(ContainerMissing):
        backup(context, Progress())
    assert not list((tmp_path / "state").rglob("*.json"))


def test_a_missing_database_is_told_with_those_there_are(scarlet: Stack, tmp_path: Path) -> None:
    with BackupContext(load_settings(dir=tmp_path, container=scarlet.container, database="lettta")) as context:
        for kind in ("sql", "volume"):
            with pytest.raises(DatabaseMissing, match=r"lettta.*There are: letta, "):
                backup(context, Progress(), kind=kind)
    assert not list(tmp_path.glob("*.sql"))


# Two for one


def test_two_containers_of_the_service_are_refused(scarlet: Stack, tmp_path: Path) -> None:
    second = f"{scarlet.project}-second"
    labels = {"project": scarlet.project, "service": "postgres", "oneoff": "False"}
    words = [word for key, value in labels.items() for word in ("--label", f"com.docker.compose.{key}={value}")]
    run_docker("create", "--name", second, *LABEL, *words, IMAGE)
    try:
        settings = load_settings(dir=tmp_path, project=scarlet.project)
        with BackupContext(settings) as context, pytest.raises(SeveralCandidates, match=second):
            backup(context, Progress())
        found = look(settings)
        assert (found.healthy, found.safe_to_proceed) == (False, False)
        assert "several_candidates" in {finding.code for finding in found.findings if finding.severity == "error"}
        assert look(load_settings(dir=tmp_path, project=scarlet.project, container=scarlet.container)).agents == 2
    finally:
        run_docker("rm", "-f", second)


def test_who_else_can_write_to_the_volume_is_refused_and_who_reads_is_told(scarlet: Stack, tmp_path: Path) -> None:
    settings = load_settings(dir=tmp_path, container=scarlet.container)
    with BackupContext(settings) as context:
        made = backup(context, Progress(), verify="full")
        volume = context.container_info.volume
    second = f"{scarlet.project}-second"
    try:
        for mode, shared in (("ro", False), ("rw", True)):
            mount = f"{volume}:/elsewhere:{mode}"
            run_docker("run", "-d", "--name", second, *LABEL, "-v", mount, "--entrypoint", "sleep", IMAGE, "600")
            found = look(settings)
            codes = {finding.code: finding.severity for finding in found.findings}
            assert codes.get("volume_shared") == ("error" if shared else None)
            assert codes.get("volume_read_by_others") == (None if shared else "info")
            if shared:
                before = scarlet.psql("SELECT oid, datname FROM pg_database ORDER BY 1", "postgres")
                with BackupContext(settings) as context:
                    for call in (
                        lambda context=context: backup(context, Progress()),
                        lambda context=context: backup(context, Progress(), kind="volume"),
                        lambda context=context: restore(context, Progress(), made.name),
                        lambda context=context: propose(context, Progress(), made.name),
                        lambda context=context: dry_run(context, Progress(), made.name),
                        lambda context=context: verify(context, Progress(), made.name, "drill", on_live_server=True),
                    ):
                        with pytest.raises(VolumeShared, match=second):
                            call()
                assert scarlet.psql("SELECT oid, datname FROM pg_database ORDER BY 1", "postgres") == before
            else:
                with BackupContext(settings) as context:
                    assert backup(context, Progress(), verify="full").good
            run_docker("rm", "-f", second)
    finally:
        run_docker("rm", "-f", second)


@pytest.mark.long
def test_a_server_that_took_over_the_socket_is_not_the_one_named(require_docker: None, tmp_path: Path) -> None:
    """Two containers share the directory of their sockets: the second server's is the one that answers in the first."""
    sockets = f"named-{secrets.token_hex(4)}"
    shared = ("-v", f"{sockets}:/var/run/postgresql")
    try:
        with server_in(*shared, agents=3) as first:
            run_docker("exec", first.name, "sleep", "6")
            with server_in(*shared, agents=7):
                with BackupContext(first.settings(tmp_path)) as context, pytest.raises(WrongServer):
                    backup(context, Progress())
                found = look(first.settings(tmp_path))
                assert "wrong_server" in {finding.code for finding in found.findings}
                assert found.agents is None
        assert not list(tmp_path.glob("letta*"))
    finally:
        run_docker("volume", "rm", "-f", sockets)


# What the environment says


@pytest.mark.long
def test_what_a_container_has_in_its_environment_leads_nowhere_else(other: Box, tmp_path: Path) -> None:
    """An application's leftovers, an empty service, and a port that is not the server's."""
    address = run_docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", other.name).strip()
    leftovers = {"PGHOST": address, "PGHOSTADDR": address, "PGPORT": "1", "PGSERVICE": "", "PGPASSWORD": other.password}
    words = [word for name, value in leftovers.items() for word in ("-e", f"{name}={value}")]
    with server_in(*words, agents=3) as box:
        settings = box.settings(tmp_path)
        made = take(settings)
        assert made.integrity_rows == 3
        with BackupContext(settings) as context:
            assert restore(context, Progress(), made.name).integrity_rows == 3
            copied = backup(context, Progress(), kind="volume", verify="full")
        assert copied.integrity_rows == 3
        assert cluster_of(tmp_path, copied) == cluster_of(tmp_path, made)
        there = "SELECT count(*) FROM agents; SELECT count(*) FROM pg_database"
        assert other.psql(there).split() == ["7", "4"]


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "setting", ["port=5433", "unix_socket_directories=/tmp", "unix_socket_directories="], ids=["port", "socket", "tcp"]
)
def test_a_server_is_found_where_it_listens(require_docker: None, tmp_path: Path, setting: str) -> None:
    with server_in(settings=[setting], agents=3) as box:
        assert take(box.settings(tmp_path)).integrity_rows == 3


def test_a_server_elsewhere_than_its_environment_says_is_found_by_its_own_word(other: Box) -> None:
    host = DockerHost(other.name)
    found = read(host, "/var/lib/postgresql/data")
    assert isinstance(found, Postmaster)
    assert (found.host, found.port) == ("/var/run/postgresql", "5432")
    assert read(host, "/somewhere/else") is None
    server = Server(host, "postgres", {}, "test", Whereabouts(host, "/somewhere/else"))
    with server.session("letta") as session:
        assert session.identity.data_directory == "/var/lib/postgresql/data"


def test_a_forged_start_is_not_believed(require_docker: None, tmp_path: Path) -> None:
    with server_in() as box:
        box.sh("sed -i '3s/.*/1600000000/' /var/lib/postgresql/data/postmaster.pid")
        with BackupContext(box.settings(tmp_path)) as context, pytest.raises(WrongServer, match=r"postmaster\.pid"):
            backup(context, Progress())


# Connection strings


def service_file(directory: Path, database: LocalDatabase, **parameters: str) -> Path:
    found = {name.removeprefix("PG").lower(): value for name, value in environment_of(database.dsn).items()}
    found = {"dbname" if name == "database" else name: value for name, value in found.items()} | parameters
    lines = "\n".join(f"{name}={value}" for name, value in found.items())
    file = directory / "services.conf"
    file.write_text(f"# for tests\n[another]\ndbname=wrong\n\n  [scarlet]  \n{lines}\n[scarlet]\ndbname=late\n")
    return file


def test_the_database_of_a_service_is_the_one_that_is_meant(
    local_database: LocalDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSERVICEFILE", str(service_file(tmp_path, local_database)))
    with psycopg.connect("service=scarlet") as by_libpq:
        assert by_libpq.info.dbname == local_database.name
    settings = {"dir": tmp_path / "backups", "via": "local", "bin_dir": local_database.bin_dir}
    with BackupContext(load_settings(dsn="service=scarlet", **settings)) as context:
        assert context.database == local_database.name
        made = backup(context, Progress(), verify="full")
        with psycopg.connect(local_database.dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE letta.not_in_the_backup ()")
        brought = restore(context, Progress(), made.name)
    with psycopg.connect(local_database.dsn) as connection:
        assert connection.execute("SELECT to_regclass('letta.not_in_the_backup')").fetchone() == (None,)
    assert brought.undo_point is not None
    with psycopg.connect(local_database.server.dsn(brought.undo_point)) as connection:
        assert connection.execute("SELECT to_regclass('letta.not_in_the_backup')").fetchone() != (None,)
    with pytest.raises(ConfigurationError, match="names the database"):
        BackupContext(load_settings(dsn="service=scarlet", database="letta", **settings))


def test_what_the_string_itself_says_beats_its_service(
    local_database: LocalDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSERVICEFILE", str(service_file(tmp_path, local_database, dbname="postgres")))
    dsn = f"service=scarlet dbname={local_database.name}"
    with psycopg.connect(dsn) as by_libpq:
        assert by_libpq.info.dbname == environment_of(dsn)["PGDATABASE"]
    assert "PGSERVICE" not in environment_of(dsn)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("[other]\nhost=h", "which is in none of"),
        ("[scarlet]\nservice=other", "line 2"),
        ("[scarlet]\nldap://directory", "line 2"),
        ("[scarlet]\nhost=h\napplication_name=x", "application_name"),
    ],
)
def test_a_service_that_cannot_be_followed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, said: str
) -> None:
    file = tmp_path / "services.conf"
    file.write_text(lines)
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    with pytest.raises(ConfigurationError, match=said):
        environment_of("service=scarlet")


@pytest.mark.parametrize("name", ["host=elsewhere dbname=x", "postgresql://elsewhere/x", 'it\'s "odd"'])
def test_a_name_that_looks_like_a_connection_string_is_a_name(
    local_database: LocalDatabase, tmp_path: Path, name: str
) -> None:
    like = sql.Identifier(local_database.name)
    with psycopg.connect(local_database.server.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), like))
        try:
            where = local_settings(local_database, tmp_path).model_dump(exclude={"dsn"}, exclude_unset=True)
            dsn = make_conninfo(local_database.dsn, dbname=name)
            with BackupContext(load_settings(**where, dsn=dsn)) as context:
                made = backup(context, Progress(), verify="full")
                assert made.database == name
                assert restore(context, Progress(), made.name).restored
        finally:
            rows = connection.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [name])
            for (found,) in rows.fetchall():
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(found)))


# Programs that cannot be asked


class Misled(LocalHost):
    """Leads a load into another database: what no setting does any more, so that its proof is seen to hold."""

    def __init__(self, bin_dir: Path, environment: Mapping[str, str], into: str) -> None:
        super().__init__(bin_dir, environment)
        self._into = into

    def start(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, stdin: bool = False, packed: Packed = False
    ) -> LocalProcess:
        astray = {"PGDATABASE": self._into} if "ON_ERROR_STOP=1" in argv else {}
        return super().start(argv, env={**(env or {}), **astray}, stdin=stdin)


def test_a_load_that_comes_to_another_database_loads_nothing(local_database: LocalDatabase) -> None:
    environment = environment_of(local_database.dsn)
    live = environment.pop("PGDATABASE")
    staging = f"{live}_restore_test"
    with psycopg.connect(local_database.server.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(staging)))
    script = [b"CREATE TABLE public.came_here ();\n"]
    server = Server(Misled(local_database.bin_dir, environment, live), "postgres", environment, "test")
    with pytest.raises(WrongServer, match=staging):
        load(server, staging, "x.sql", script, {}, Progress())
    for name in (live, staging):
        with psycopg.connect(local_database.server.dsn(name)) as connection:
            assert connection.execute("SELECT to_regclass('public.came_here')").fetchone() == (None,)


def test_a_server_that_was_slow_to_start_is_told_as_that_too(local_database: LocalDatabase) -> None:
    """Its file tells a start some seconds before its own; how long it took can't be arranged."""
    host = LocalHost(local_database.bin_dir, environment_of(local_database.dsn))
    environment = environment_of(local_database.dsn)
    with Server(host, "postgres", environment, "test").session(local_database.name) as session:
        found = session.identity
    assert found.data_directory is not None
    where = Whereabouts(LocalHost(None, {}), found.data_directory)
    where.require(found, local_database.name)
    with pytest.raises(WrongServer, match="more than 5 s to start") as caught:
        where.require(replace(found, started_at=found.started_at + 9), local_database.name)
    assert "slow to start" in caught.value.remedy


def test_two_servers_in_one_call_are_told_apart(local_database: LocalDatabase) -> None:
    host = LocalHost(local_database.bin_dir, environment_of(local_database.dsn))
    server = Server(host, "postgres", environment_of(local_database.dsn), "test")
    with server.session(local_database.name) as session:
        found = session.identity
    for wrong, said in (
        (replace(found, database="another"), "ended up in"),
        (replace(found, system_identifier="1"), "Two clusters"),
        (replace(found, started_at=1.0), "restarted"),
    ):
        with pytest.raises(WrongServer, match=said):
            server.where.require(wrong, local_database.name)


def test_a_control_file_tells_whose_it_is(local_database: LocalDatabase) -> None:
    with psycopg.connect(local_database.dsn) as connection:
        row = connection.execute(
            "SELECT system_identifier::text, pg_read_binary_file('global/pg_control') FROM pg_control_system()"
        ).fetchone()
    assert row is not None
    assert controldata.is_of(row[1], row[0])
    assert not controldata.is_of(row[1], str(int(row[0]) + 1))
    assert not controldata.is_of(b"", row[0])


# What is told


def test_results_and_questions_say_which_server_they_are_about(scarlet: Stack, tmp_path: Path) -> None:
    settings = load_settings(dir=tmp_path, container=scarlet.container)
    with BackupContext(settings) as context:
        made = backup(context, Progress(), verify="full")
        short = (context.container_info.container_id or "none")[:12]
        by = "(POSTGRES_DB)"
        where = f"database letta {by}, container {scarlet.container} ({short}, Compose project {scarlet.project})"
        assert made.server == where
        assert gate(context).server == where
        question = propose(context, Progress(), made.name).question
        assert f"letta of container {scarlet.container} ({short}, Compose project {scarlet.project})" in question
        assert restore(context, Progress(), made.name).server == where
    given = [f"--dir={tmp_path}", f"--container={scarlet.container}"]
    listed = CliRunner().invoke(commands, ["list", "--json", *given])
    assert json.loads(listed.stdout)["server"] == where
    assert look(settings).server == where


def test_an_engine_that_is_not_the_default_is_named(
    scarlet: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = tmp_path / "engine.sock"
    socket.symlink_to("/var/run/docker.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    with BackupContext(load_settings(dir=tmp_path, container=scarlet.container)) as context:
        assert f"engine unix://{socket})" in context.about
