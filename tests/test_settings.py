"""Settings, connection strings, and where backups lie when no setting says it."""

from __future__ import annotations

import os
import platform
import traceback
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from scarlet_backup_mcp import wsl
from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.errors import (
    BackupDirUnknown,
    BackupToolError,
    ConfigurationError,
    EngineUnreachable,
    PermissionDenied,
    ServerUnreachable,
)
from scarlet_backup_mcp.hosts import ContainerInfo, Dependent, Packed, Process
from scarlet_backup_mcp.postgres.server.dsn import VARIABLES, environment_of
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import PREFIX, load_settings

from .conftest import LocalDatabase

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such paths.")
PASSWORD = "Tr0ub4dor3"


@pytest.fixture(autouse=True)
def own_state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is kept which directory a container had."""
    for name in ("XDG_STATE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))


# Settings


def test_defaults_are_those_of_scarlet() -> None:
    found = load_settings()
    assert (found.container, found.service, found.project) == ("abiogenesis-postgres", "postgres", "scarlet")
    assert (found.database, found.user, found.integrity_table) == ("letta", "postgres", "agents")
    assert (found.via, found.dir, found.dsn, found.prefix) == ("docker", None, None, "letta_backup")


WRONG: list[tuple[str, str, str]] = [
    ("via", "ssh", "'docker' or 'local'"),
    ("via", "Docker", "'docker' or 'local'"),
    ("dir", "backups", "absolute"),
    ("dir", "./backups", "absolute"),
    ("dir", "~no-such-user-here/backups", "absolute"),
    ("bin_dir", "bin", "absolute"),
    ("prefix", "../letta", "letters, digits"),
    ("prefix", "let ta", "letters, digits"),
    ("prefix", "-letta", "letters, digits"),
    ("prefix", "l" * 42, "1 to 41"),
    ("prefix", "postgres_volume_x", "postgres_volume"),
    ("prefix", "letta\n", "letters, digits"),
    ("container", "a b", "Docker name"),
    ("container", "-rf", "Docker name"),
    ("container", "../x", "Docker name"),
    ("service", "postgres;", "Docker name"),
    ("project", "scarlet/x", "Docker name"),
    ("database", "d" * 64, "1 to 63 bytes"),
    ("database", "è" * 32, "1 to 63 bytes"),
    ("database", "let\nta", "control characters"),
    ("database", "template0", "not a template"),
    ("database", "template1", "not a template"),
    ("user", "u" * 64, "1 to 63 bytes"),
    ("integrity_table", "agents\t", "control characters"),
]


@pytest.mark.parametrize("by", ["environment", "option"])
@pytest.mark.parametrize(("name", "value", "allowed"), WRONG)
def test_wrong_value_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str, by: str
) -> None:
    if by == "environment":
        monkeypatch.setenv(PREFIX + name.upper(), value)
    with pytest.raises(ConfigurationError) as refused:
        load_settings(**({} if by == "environment" else {name: value}))
    assert PREFIX + name.upper() in refused.value.message
    assert repr(value) in refused.value.message
    assert allowed in refused.value.message
    assert refused.value.code == "configuration_invalid"


def test_every_wrong_value_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCARLET_BACKUP_PREFIX", "a/b")
    with pytest.raises(ConfigurationError) as refused:
        load_settings(via="ssh", dir="here")
    for part in ("SCARLET_BACKUP_PREFIX='a/b'", "SCARLET_BACKUP_VIA='ssh'", "SCARLET_BACKUP_DIR='here'"):
        assert part in refused.value.message


def test_empty_option_is_refused_and_empty_variable_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCARLET_BACKUP_DATABASE", "")
    assert load_settings().database == "letta"
    with pytest.raises(ConfigurationError, match="SCARLET_BACKUP_DATABASE=''"):
        load_settings(database="")


def test_option_overrides_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCARLET_BACKUP_CONTAINER", "of-environment")
    monkeypatch.setenv("SCARLET_BACKUP_PROJECT", "of-environment")
    found = load_settings(container="of-option", project=None)
    assert (found.container, found.project) == ("of-option", "of-environment")


def test_option_mends_a_wrong_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCARLET_BACKUP_VIA", "ssh")
    assert load_settings(via="docker").via == "docker"
    monkeypatch.setenv("SCARLET_BACKUP_VIA", "local")
    monkeypatch.setenv("SCARLET_BACKUP_DSN", "postgresql://h/d")
    assert load_settings(via="docker").dsn is None
    with pytest.raises(ConfigurationError, match="only via=local uses a DSN"):
        load_settings(via="docker", dsn="postgresql://h/d")


def test_home_directory_is_filled_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert load_settings(dir="~/backups").dir == tmp_path / "backups"


def test_local_server_needs_a_connection_string() -> None:
    with pytest.raises(ConfigurationError, match=r"SCARLET_BACKUP_DSN.*postgresql://"):
        load_settings(via="local")


def test_database_is_the_one_of_the_connection_string() -> None:
    assert target_of("postgresql://h/memory").database == "memory"
    assert target_of("postgresql://h").database == "letta"
    assert target_of("postgresql://h/memory", database="memory").database == "memory"
    with pytest.raises(ConfigurationError, match=r"'memory'.*'letta'"):
        target_of("postgresql://h/memory", database="letta")


def target_of(dsn: str, **more: str) -> BackupContext:
    return BackupContext(load_settings(via="local", dsn=dsn, **more))


# Secrets


def test_password_is_in_no_representation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCARLET_BACKUP_DSN", f"postgresql://u:{PASSWORD}%26@h/letta")
    found = load_settings(via="local")
    context = BackupContext(found)
    for shown in (
        repr(found),
        str(found),
        repr(context),
        str(vars(found)),
        found.model_dump_json(),
        context.describe(),
    ):
        assert PASSWORD not in shown


@pytest.mark.parametrize(
    "dsn",
    [
        f"host=h password={PASSWORD} nonsense",
        f"host=h password='{PASSWORD}",
        f"host=h password={PASSWORD} application_name=x",
        f"postgresql://u:{PASSWORD}@h:port/letta",
        f"postgresql://u:{PASSWORD}@h,i/letta",
        f"postgresql://u:{PASSWORD}@[h/letta",
        f"postgresql://u:{PASSWORD}@h/letta?application_name=x",
        f"postgresql://u:1/b?{PASSWORD}=x@h/letta",
        f"host=h password=a {PASSWORD}=x",
        f"mysql://u:{PASSWORD}@h/letta",
        PASSWORD,
    ],
)
def test_password_is_in_no_refusal(dsn: str) -> None:
    """Also where it was written without its escapes, so that a part of it stands where a parameter's name would."""
    with pytest.raises(ConfigurationError) as refused:
        target_of(dsn)
    told = "".join(traceback.format_exception(refused.value))
    for shown in (told, str(refused.value), refused.value.message, refused.value.remedy):
        assert PASSWORD not in shown


def test_wrong_type_of_connection_string_is_not_shown() -> None:
    with pytest.raises(ConfigurationError, match=r"SCARLET_BACKUP_DSN=\(not shown\)") as refused:
        load_settings(via="local", dsn=[PASSWORD])
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize(("port", "error"), [("real", PermissionDenied), ("closed", ServerUnreachable)])
def test_password_is_in_no_error_of_a_connection(
    embedded: EmbeddedServer, tmp_path: Path, port: str, error: type[BackupToolError]
) -> None:
    dsn = f"postgresql://postgres:{PASSWORD}@127.0.0.1:{embedded.port if port == 'real' else 1}/postgres"
    configured = load_settings(via="local", dsn=dsn, dir=tmp_path / "backups", bin_dir=embedded.bin_dir)
    with BackupContext(configured) as context, pytest.raises(error) as refused:
        backup(context, Progress())
    assert PASSWORD not in f"{refused.value} {refused.value!r} {refused.value.remedy}"
    assert [path.name for path in (tmp_path / "backups").iterdir() if not path.name.startswith(".")] == []


def test_password_is_in_no_file_and_no_result(local_database: LocalDatabase, tmp_path: Path) -> None:
    password = local_database.server.password
    configured = load_settings(via="local", dsn=local_database.dsn, dir=tmp_path / "b", bin_dir=local_database.bin_dir)
    with BackupContext(configured) as context:
        result = backup(context, Progress())
    assert password not in result.model_dump_json()
    files = [path for path in (tmp_path / "b").iterdir() if path.is_file()]
    assert len(files) >= 3
    for path in files:
        assert password.encode() not in path.read_bytes(), path.name


# Connection strings: libpq's own parser, through psycopg, is the oracle


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("postgresql://h", {"PGHOST": "h"}),
        ("postgres://u@h:5433/db", {"PGUSER": "u", "PGHOST": "h", "PGPORT": "5433", "PGDATABASE": "db"}),
        (
            "postgresql://u:p%40ss%2F%3A@h/d%20b",
            {"PGUSER": "u", "PGPASSWORD": "p@ss/:", "PGHOST": "h", "PGDATABASE": "d b"},
        ),
        ("postgresql://[::1]:5433/db", {"PGHOST": "::1", "PGPORT": "5433", "PGDATABASE": "db"}),
        ("postgresql://[2001:db8::7]", {"PGHOST": "2001:db8::7"}),
        ("postgresql:///db?host=/tmp&port=5433", {"PGHOST": "/tmp", "PGPORT": "5433", "PGDATABASE": "db"}),
        ("postgresql://%2Fvar%2Frun%2FPostgres/db", {"PGHOST": "/var/run/Postgres", "PGDATABASE": "db"}),
        ("postgresql://Db.Example/db", {"PGHOST": "Db.Example", "PGDATABASE": "db"}),
        (
            "postgresql://h/db?sslmode=require&connect_timeout=3",
            {"PGHOST": "h", "PGDATABASE": "db", "PGSSLMODE": "require", "PGCONNECT_TIMEOUT": "3"},
        ),
        ("postgresql://h/db?password=a+b%20c", {"PGHOST": "h", "PGDATABASE": "db", "PGPASSWORD": "a+b c"}),
        ("host=h port=5433 dbname=db user=u", {"PGHOST": "h", "PGPORT": "5433", "PGDATABASE": "db", "PGUSER": "u"}),
        ("host = h  password = 'it''s'", None),
        (r"host=h password='it\'s \\ a secret'", {"PGHOST": "h", "PGPASSWORD": "it's \\ a secret"}),
        (r"password=a\ b host=h", {"PGHOST": "h", "PGPASSWORD": "a b"}),
        ("host=h password=''", {"PGHOST": "h"}),
        ("", {}),
    ],
)
def test_connection_string_reads_as_libpq_reads_it(dsn: str, expected: dict[str, str] | None) -> None:
    if expected is None:
        with pytest.raises(ConfigurationError):
            environment_of(dsn)
        return
    assert by_libpq(dsn) == expected
    assert environment_of(dsn) == expected


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://one,two/db",
        "postgresql://one:5432,two:5433/db",
        "postgresql:///db?host=one,two",
        "host=one,two dbname=db",
        "hostaddr=127.0.0.1,127.0.0.2 dbname=db",
    ],
)
def test_several_hosts_are_refused(dsn: str) -> None:
    """A backup of whichever of two servers answers first is a backup of nobody knows what."""
    with pytest.raises(ConfigurationError, match="several hosts") as refused:
        environment_of(dsn)
    assert "one server" in refused.value.remedy


@pytest.mark.parametrize("dsn", ["postgresql://h/db?application_name=x&keepalives=1", "host=h options='-c x=y'"])
def test_parameter_that_cannot_be_passed_on_is_refused(dsn: str) -> None:
    with pytest.raises(ConfigurationError, match=r"application_name|options") as refused:
        environment_of(dsn)
    assert "sslmode" in refused.value.remedy


@pytest.mark.parametrize("dsn", ["letta", "http://h/db", "host", "host=h =x", "host='h", "postgresql://h:port/db"])
def test_what_is_no_connection_string_is_refused(dsn: str) -> None:
    with pytest.raises(ConfigurationError, match="SCARLET_BACKUP_DSN"):
        environment_of(dsn)


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
HOSTS = st.sampled_from(["h", "127.0.0.1", "db.example.org", "[::1]", "[2001:db8::1]", ""])
ESCAPED = TEXT.map(lambda text: quote(text, safe=""))


@settings(max_examples=300, deadline=None, database=None)
@given(user=ESCAPED, password=ESCAPED, host=HOSTS, port=st.integers(1, 65535), name=ESCAPED, certificate=ESCAPED)
def test_any_escaped_uri_reads_as_libpq_reads_it(
    user: str, password: str, host: str, port: int, name: str, certificate: str
) -> None:
    dsn = f"postgresql://{user}:{password}@{host}:{port}/{name}?sslrootcert={certificate}"
    assert environment_of(dsn) == by_libpq(dsn)


@settings(max_examples=300, deadline=None, database=None)
@given(
    values=st.dictionaries(st.sampled_from(["user", "password", "dbname", "passfile"]), TEXT | st.just(""), min_size=1)
)
def test_any_quoted_pairs_read_as_libpq_reads_them(values: dict[str, str]) -> None:
    dsn = make_conninfo("", **cast("dict[str, Any]", values))
    assert environment_of(dsn) == by_libpq(dsn)


RAW = st.text("abU:/@?#[]%&=+, '\\\t\u00a0147", max_size=25)


@settings(max_examples=1500, deadline=None, database=None)
@given(dsn=st.builds("postgresql://{}".format, RAW) | st.builds("{}={}".format, st.sampled_from(list(VARIABLES)), RAW))
@example(dsn="postgresql://u:1#2@h/db")
@example(dsn="postgresql://h/db#more")
@example(dsn="postgresql://u:a?b@h/db")
@example(dsn="postgresql://u:a/b@h/db")
@example(dsn="postgresql://h/a/b")
@example(dsn="postgresql://[@]")
@example(dsn="postgresql://h/db?password=a;b")
@example(dsn="password=a\u00a0user=b")
def test_any_connection_string_reads_as_libpq_reads_it_or_is_refused(dsn: str) -> None:
    """To misread one is to back up another server, or to send it the wrong password."""
    try:
        expected = by_libpq(dsn)
    except (ProgrammingError, UnicodeDecodeError):
        expected = None
    try:
        found = environment_of(dsn)
    except ConfigurationError:
        return
    assert found == expected


def by_libpq(dsn: str) -> dict[str, str]:
    read = conninfo_to_dict(dsn)
    return {VARIABLES.get(name, name): str(value) for name, value in read.items() if value}


# Where backups lie when no setting says it


class FakeHost:
    """Stands for an engine that says where Compose ran: no real one can be remote, or on Windows, at will."""

    kind: Literal["docker", "local"] = "docker"

    def __init__(self, container_info: ContainerInfo | None) -> None:
        self._place = container_info

    def container_info(self) -> ContainerInfo:
        if self._place is None:
            raise EngineUnreachable("No Docker engine answers.")
        return self._place

    def require_running(self) -> ContainerInfo:
        return self.container_info()

    def start(self, argv: Sequence[str], *, env: object = None, stdin: bool = False, packed: Packed = False) -> Process:
        raise NotImplementedError

    def free_bytes(self, directory: str) -> int | None:
        raise NotImplementedError

    def containers_at(self, addresses: Collection[str]) -> dict[str, Dependent]:
        return {}

    def dependents(self) -> list[Dependent]:
        raise NotImplementedError

    def stop_container(self, container_id: str) -> None:
        raise NotImplementedError

    def start_container(self, container_id: str) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass


def directory_of(container_info: ContainerInfo | None, **options: Any) -> Path:
    with BackupContext(load_settings(**options)) as context:
        vars(context)["host"] = FakeHost(container_info)
        return context.directory.path


def at(working_dir: str | None, *, engine_local: bool = True) -> ContainerInfo:
    return ContainerInfo(
        "docker", "abiogenesis-postgres", project="scarlet", working_dir=working_dir, engine_local=engine_local
    )


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory that is nobody's business, with a `backups` in it to fall into."""
    current = tmp_path / "current"
    (current / "backups").mkdir(parents=True)
    monkeypatch.chdir(current)
    return current


def test_setting_wins_over_the_label_and_needs_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scarlet").mkdir()
    monkeypatch.setenv("SCARLET_BACKUP_DIR", str(tmp_path / "mine"))
    assert directory_of(at(str(tmp_path / "scarlet"))) == tmp_path / "mine"
    assert directory_of(None) == tmp_path / "mine"
    assert directory_of(None, dir=tmp_path / "other") == tmp_path / "other"


def test_label_names_the_directory(tmp_path: Path, elsewhere: Path) -> None:
    (tmp_path / "scarlet").mkdir()
    assert directory_of(at(str(tmp_path / "scarlet"))) == tmp_path / "scarlet" / "backups"


def test_directory_is_remembered_while_the_engine_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(EngineUnreachable):
        directory_of(None)
    (tmp_path / "scarlet" / "backups").mkdir(parents=True)
    found = directory_of(at(str(tmp_path / "scarlet")))
    assert directory_of(None) == found
    with pytest.raises(EngineUnreachable):
        directory_of(None, container="another")


def test_directory_of_another_project_is_not_remembered_for_this_one(tmp_path: Path) -> None:
    """Both have a container of the same name, one after the other, and nothing that is set tells them apart."""
    for name in ("a", "b"):
        (tmp_path / name / "backups").mkdir(parents=True)
        directory_of(replace(at(str(tmp_path / name)), project=name))
        directory_of(replace(at(str(tmp_path / name)), project=name), project=name)
    with pytest.raises(EngineUnreachable):
        directory_of(None)
    for name in ("a", "b"):
        assert directory_of(None, project=name) == tmp_path / name / "backups"


def test_directory_on_another_engine_is_not_remembered_for_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "backups").mkdir()
    found = directory_of(at(str(tmp_path)))
    monkeypatch.setenv("DOCKER_HOST", "unix:///another.sock")
    with pytest.raises(EngineUnreachable):
        directory_of(None)
    monkeypatch.delenv("DOCKER_HOST")
    assert directory_of(None) == found


@POSIX
def test_a_directory_whose_name_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        load_settings(dir=f"{tmp_path}/perch\udce9")


@pytest.mark.parametrize(
    "container_info",
    [
        at(None),
        at(""),
        at("."),
        at("backups"),
        at("/no/such/directory/here"),
    ],
)
def test_directory_is_never_the_current_one(elsewhere: Path, container_info: ContainerInfo) -> None:
    with pytest.raises(BackupDirUnknown) as unknown:
        directory_of(container_info)
    assert unknown.value.code == "backup_dir_unknown"
    assert "SCARLET_BACKUP_DIR" in unknown.value.remedy
    assert list(elsewhere.rglob("*")) == [elsewhere / "backups"]


def test_local_host_needs_a_directory(elsewhere: Path) -> None:
    with pytest.raises(BackupDirUnknown):
        directory_of(None, via="local", dsn="postgresql://h/letta")


def test_directory_of_a_remote_engine_is_not_taken_for_one_here(tmp_path: Path) -> None:
    (tmp_path / "backups").mkdir()
    with pytest.raises(BackupDirUnknown, match="another machine"):
        directory_of(at(str(tmp_path), engine_local=False))


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where WSL mounts Windows' drives, by its configuration."""
    found = tmp_path / "mounts of windows"
    (tmp_path / "wsl.conf").write_text(f"[boot]\nsystemd=true\n[automount]\nroot = {found}/\n")
    monkeypatch.setattr(wsl, "CONFIGURATION", tmp_path / "wsl.conf")
    return found


def release(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """No test can choose the kernel it runs on."""
    monkeypatch.setattr(platform, "release", lambda: name)


@POSIX
def test_windows_directory_is_found_inside_wsl(mounts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release(monkeypatch, "5.15.167.4-microsoft-standard-WSL2")
    directory = mounts / "h" / "ABIOGENESIS" / "scarlet"
    directory.mkdir(parents=True)
    assert directory_of(at("H:\\ABIOGENESIS\\scarlet")) == directory / "backups"
    assert directory_of(None, dir="H:\\ABIOGENESIS\\scarlet\\old backups") == directory / "old backups"


@POSIX
@pytest.mark.parametrize("working_dir", ["H:\\ABIOGENESIS\\scarlet", "\\\\server\\share\\scarlet", "H:scarlet"])
def test_directory_that_wsl_does_not_have_is_unknown(
    mounts: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, working_dir: str
) -> None:
    release(monkeypatch, "5.15.167.4-microsoft-standard-WSL2")
    with pytest.raises(BackupDirUnknown):
        directory_of(at(working_dir))


@POSIX
@pytest.mark.parametrize("working_dir", ["H:\\ABIOGENESIS\\scarlet", "h:/scarlet", "\\\\server\\share\\scarlet"])
def test_windows_directory_is_unknown_elsewhere(
    mounts: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, working_dir: str
) -> None:
    release(monkeypatch, "6.1.0-generic")
    (mounts / "h" / "ABIOGENESIS" / "scarlet").mkdir(parents=True)
    with pytest.raises(BackupDirUnknown):
        directory_of(at(working_dir))
    with pytest.raises(ConfigurationError, match="absolute"):
        load_settings(dir=working_dir)
