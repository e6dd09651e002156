"""Where the server is and with which password, by settings of their own, a DSN, a service and a password file."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from urllib.parse import quote

import pytest

from scarlet_backup_mcp.cli.setting_names import as_used
from scarlet_backup_mcp.clients.entry import entry_for
from scarlet_backup_mcp.errors import ConfigurationError, PasswordNeeded, PasswordRejected
from scarlet_backup_mcp.hosts import ContainerInfo
from scarlet_backup_mcp.postgres.server.postmaster import Whereabouts
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.connection import connection_of
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import Settings, load_settings

from ..conftest import LocalDatabase
from ..helpers.faces import command_lines_here

SECRET = "an-unusual-password"


@pytest.fixture
def without_password(local_database: LocalDatabase, tmp_path: Path) -> dict[str, object]:
    """Settings for the embedded server, whose DSN says nothing but the database."""
    return {
        "via": "local",
        "dir": tmp_path / "backups",
        "bin_dir": local_database.bin_dir,
        "dsn": f"postgresql:///{local_database.name}",
        "socket": "127.0.0.1",
        "port": local_database.server.port,
    }


def password_file(directory: Path, *lines: str) -> Path:
    file = directory / "passwords"
    file.write_text("\n".join(lines))
    file.chmod(stat.S_IRUSR | stat.S_IWUSR)
    return file


def test_a_password_of_its_own_is_used_and_seen_nowhere(
    local_database: LocalDatabase, without_password: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    password = local_database.server.password
    with BackupContext(load_settings(**without_password)) as context, pytest.raises(PasswordNeeded):
        backup(context, Progress())
    monkeypatch.setenv("SCARLET_BACKUP_PASSWORD", password)
    settings = load_settings(**without_password)
    shown = [repr(settings), settings.model_dump_json()]
    with BackupContext(settings) as context:
        assert password in context.secrets()
        with context.server.session(context.database):
            shown += command_lines_here()
        made = backup(context, Progress(), verify="full")
        shown += [repr(context), context.describe(), made.model_dump_json()]
    assert made.integrity_rows == 2
    assert [text for text in shown if password in text] == []
    files = [path for path in (settings.dir or Path()).rglob("*") if path.is_file()]
    assert len(files) >= 3
    assert [path.name for path in files if password.encode() in path.read_bytes()] == []
    monkeypatch.setenv("SCARLET_BACKUP_PASSWORD", f"not-{password}")
    with BackupContext(load_settings(**without_password)) as context, pytest.raises(PasswordRejected) as refused:
        backup(context, Progress())
    assert password not in f"{refused.value}{refused.value.remedy}"


def test_a_password_file_is_honoured(
    local_database: LocalDatabase,
    without_password: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = local_database.server
    file = password_file(tmp_path, f"127.0.0.1:{server.port}:{local_database.name}:postgres:{server.password}")
    monkeypatch.setenv("PGPASSFILE", str(file))
    with BackupContext(load_settings(**without_password)) as context:
        assert context.server.session(context.database).close().code == 0
    chosen = {**without_password, "dsn": f"postgresql:///{local_database.name}?passfile={quote(str(tmp_path / 'x'))}"}
    with BackupContext(load_settings(**chosen)) as context, pytest.raises(PasswordNeeded):
        context.server.session(context.database)


@pytest.mark.parametrize(
    ("dsn", "name", "value"),
    [
        ("postgresql://h:5433/letta", "port", "5434"),
        ("host=/tmp dbname=letta", "socket", "/var/run/postgresql"),
        (f"postgresql://u:{SECRET}@h/letta", "password", f"{SECRET}2"),
    ],
)
def test_a_setting_that_differs_from_the_dsn_is_refused(dsn: str, name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"SCARLET_BACKUP_{name.upper()} differ") as refused:
        BackupContext(load_settings(via="local", dsn=dsn, **{name: value}))
    assert SECRET not in str(refused.value)


def test_settings_complete_a_dsn() -> None:
    given = {"port": "5433", "socket": "/run/x", "password": SECRET}
    assert connection_of(load_settings(via="local", dsn="dbname=letta port=5433", **given), {"PGPASSFILE": "/f"}) == {
        "PGDATABASE": "letta",
        "PGHOST": "/run/x",
        "PGPORT": "5433",
        "PGPASSWORD": SECRET,
        "PGPASSFILE": "/f",
    }
    assert connection_of(load_settings(), {"PGPASSFILE": "/f"}) == {}


def test_a_dsn_with_docker_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCARLET_BACKUP_DSN", f"postgresql://u:{SECRET}@h/letta")
    with pytest.raises(ConfigurationError, match="only via=local uses a DSN") as refused:
        load_settings()
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(("name", "value"), [("port", "0"), ("port", "65536"), ("port", "x"), ("socket", "/a,/b")])
def test_what_can_be_no_place_is_refused(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"SCARLET_BACKUP_{name.upper()}="):
        load_settings(**{name: value})


def test_a_password_is_no_option(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Set SCARLET_BACKUP_PASSWORD or SCARLET_BACKUP_USER."
    assert as_used(text) == "Set SCARLET_BACKUP_PASSWORD or --user."
    with pytest.raises(ConfigurationError, match="PASSWORD holds a password") as refused:
        entry_for(load_settings(password=SECRET), os.environ, shared=False, typed=False)
    assert SECRET not in str(refused.value)


# With Docker


def docker_password(settings: Settings, **environment: str) -> str | None:
    """The password for a container with that environment."""
    with BackupContext(settings) as context:
        context.__dict__["container_info"] = ContainerInfo(
            kind="docker", container="memory", data_directory="/data", environment=environment
        )
        found = context.server.environment("letta").get("PGPASSWORD")
        assert context.secrets_are_known
        assert found is None or found in context.secrets()
        return found


def test_which_password_counts_with_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(_: Whereabouts) -> dict[str, str]:
        return {}

    monkeypatch.setattr(Whereabouts, "environment", nowhere)
    usual = {"dir": tmp_path, "container": "memory"}
    inside = {"POSTGRES_PASSWORD": "of-the-container"}
    assert docker_password(load_settings(**usual), **inside) == "of-the-container"
    file = password_file(tmp_path, "other:*:*:*:wrong", "memory:5432:letta:postgres:of-the-file")
    monkeypatch.setenv("PGPASSFILE", str(file))
    assert docker_password(load_settings(**usual), **inside) == "of-the-file"
    assert docker_password(load_settings(**usual, user="else"), **inside) == "of-the-container"
    assert docker_password(load_settings(**usual, password="of-the-setting"), **inside) == "of-the-setting"
