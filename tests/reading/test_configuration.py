"""What the configuration in an archive of a whole volume would do: named, and of a foreign archive not done."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

import pytest

from scarlet_backup_mcp import summaries
from scarlet_backup_mcp.errors import BackupNotValid
from scarlet_backup_mcp.models.results import Backup
from scarlet_backup_mcp.postgres.cluster.configuration import disarmed, findings, live_settings
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.reading import archive_configuration
from scarlet_backup_mcp.procedures.reading.archive import LONGEST, read
from scarlet_backup_mcp.procedures.restore.options import RestoreOptions
from scarlet_backup_mcp.procedures.restore.service import dry_run, propose
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress

from ..helpers.containers import run_docker
from ..helpers.volume import Rig, a_rig

FOREIGN = "postgres_volume_20260101_010101.tar.gz"
ARCHIVED = "/tmp/archived"
BRING = f"""
ALTER SYSTEM SET archive_mode = on;
ALTER SYSTEM SET archive_command = 'touch {ARCHIVED}; echo sk-hidden';
"""
TAKE_BACK = "ALTER SYSTEM RESET ALL"
INCLUDED = "Session_Preload_Libraries 'auto_explain'\ndeadlock_timeout = '7s'\n"
SETTINGS: dict[str, str] = {
    "archive_command": "",
    "archive_library": "",
    "dynamic_library_path": "$libdir",
    "session_preload_libraries": "",
    "unix_socket_directories": "/var/run/postgresql",
}
"""Each with the value that it has where nothing sets it."""


def found(files: dict[str, bytes], *others: str, **live: str) -> list[str]:
    return [str(finding) for finding in findings(files, [*files, *others], live)]


# -- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"archive_command = 'curl sk-hidden'", "archive_command (postgresql.conf, line 2) runs a command"),
        (b"  ARCHIVE_Command'x'", "archive_command (postgresql.conf, line 2) runs a command"),
        (b"restore_command x", "restore_command (postgresql.conf, line 2) runs a command"),
        (b"archive_cleanup_command='' 'x'", ""),
        (b"recovery_end_command = '''' # x", "recovery_end_command (postgresql.conf, line 2) runs a command"),
        (b"ssl_passphrase_command = '\\143'\r", "ssl_passphrase_command (postgresql.conf, line 2) runs a command"),
        (b"#archive_command = 'x'", ""),
        (b"archive_commands = 'x'", ""),
        (b"archive_command = ''", ""),
        (b"archive_mode = off", ""),
        (
            b"archive_mode = always",
            "archive_mode (postgresql.conf, line 2) starts archiving the write-ahead log",
        ),
        (b"shared_preload_libraries = 'a\x1b[2J'", "shared_preload_libraries = 'a\\x1b[2J' (postgresql.conf, line 2)"),
        (b"shared_preload_libraries = 'loaded'", ""),
        (b"dynamic_library_path = '$libdir'", ""),
        (b"dynamic_library_path = '$libdir:/tmp'", "dynamic_library_path = '$libdir:/tmp' (postgresql.conf, line 2)"),
        (b"unix_socket_directories = '/var/run/postgresql, /tmp'", ""),
        (b"unix_socket_directories = '/srv'", "unix_socket_directories = '/srv' (postgresql.conf, line 2) names a"),
        (b"hba_file = 'other.conf'", "hba_file = 'other.conf' (postgresql.conf, line 2)"),
        (b"log_directory = 'log'", ""),
        (b"log_directory = 'a/../../b'", "log_directory = 'a/../../b' (postgresql.conf, line 2)"),
        (b"fsync = no", "fsync (postgresql.conf, line 2) may lose rows"),
        (b"fsync = yes", ""),
        (b"zero_damaged_pages = true", "zero_damaged_pages (postgresql.conf, line 2)"),
        (b"ignore_invalid_pages = on", "ignore_invalid_pages (postgresql.conf, line 2) ignores damaged pages"),
        (b"ignore_invalid_pages = off", ""),
        (b"include '/etc/other.conf'", "include '/etc/other.conf' (postgresql.conf, line 2) reads settings from"),
        (b"include = '../other.conf'", "include '../other.conf' (postgresql.conf, line 2) reads settings from"),
        (b"include_if_exists 'PG_VERSION'", "include_if_exists 'PG_VERSION' (postgresql.conf, line 2) reads"),
        (b"include 'missing.conf'", "include 'missing.conf' (postgresql.conf, line 2) reads"),
        (b"include_if_exists 'missing.conf'", ""),
        (b"include '\\143.conf'", ""),
        (b"include 'd\xc3\xa9.conf'", "include 'dé.conf' (postgresql.conf, line 2) reads"),
        (b"include_dir 'conf.d'", "archive_library = 'a' (conf.d/b.conf, line 1) loads a library"),
        (b"include_dir 'empty.d'", ""),
    ],
)
def test_settings_are_read_as_a_server_reads_them(line: bytes, told: str) -> None:
    files = {
        "postgresql.conf": b"work_mem = '4MB'\n" + line + b"\n",
        "conf.d/b.conf": b"archive_library = 'a'",
        "conf.d/.c.conf": b"archive_library = 'c'",
        "conf.d/deeper/d.conf": b"archive_library = 'd'",
        "c.conf": b"work_mem = 1MB\ninclude 'postgresql.conf'",
        "d\u00e9.conf": b"",
    }
    said = found(files, "PG_VERSION", "conf.d/e", shared_preload_libraries="loaded")
    assert len(said) == bool(told), said
    assert not said or said[0].startswith(told)
    assert "sk-hidden" not in "".join(said)


@pytest.mark.parametrize(
    ("rule", "risky"),
    [
        ("local all all trust", False),
        ("host all all 127.0.0.1/32 trust", False),
        ("host all all ::1/128 trust # all", False),
        ("host all all 127.0.0.1 255.255.255.255 trust", False),
        ("host all all 127.0.0.1 0.0.0.0 trust", True),
        ("host all all all trust", True),
        ("host\tall,\tother all 0.0.0.0/0 trust", True),
        ('hostssl "all" "all" samenet tru"st"', True),
        ("host all all 10.0.0.0 255.0.0.0 trust", True),
        ("host all all 10.0.0.0/8 ident map=m", True),
        ("host all all 127.0.0.1/32 ident", False),
        ("local all all ident", False),
        ("host all all all scram-sha-256", False),
        ("#host all all all trust", False),
        ("host all all \\\n all trust", True),
        ("#host all \\\nhost all all all trust", False),
        ("host all all all ldap ldapserver=evil", True),
        ("local all all radius", True),
        ("include other.conf", True),
    ],
)
def test_rules_are_read_as_a_server_reads_them(rule: str, risky: bool) -> None:
    files = {"pg_hba.conf": f"# rules\n{rule}\nlocal all all reject\n".encode()}
    said = findings(files, files, {})
    assert [finding.line for finding in said] == ([2] if risky else [])
    after = disarmed(files, said).get("pg_hba.conf", files["pg_hba.conf"])
    assert findings({"pg_hba.conf": after}, files, {}) == []
    assert after.endswith(b"\nlocal all all reject\n")


def test_names_of_others_signals_and_what_is_too_large_are_told() -> None:
    files = {"pg_ident.conf": b"# map\nm root postgres\nm /^(.*)$ \\1\n"}
    assert found(files, "standby.signal", "postgresql.conf") == [
        "standby.signal makes the server recover or follow another one",
        "postgresql.conf is too large to check",
        "m /^(.*)$ \\1 (pg_ident.conf, line 3) lets in every user whose name matches",
    ]
    with pytest.raises(BackupNotValid, match=r"can't be checked: postgresql.conf is too large"):
        archive_configuration.on_restore(findings(files, ["postgresql.conf"], {}), "a", accepted=False)
    assert LONGEST < 10 << 20


def test_a_line_is_commented_out_with_the_reason_and_nothing_else_changes() -> None:
    text = b"a = 1\r\narchive_command = 'x' # \xff \\\nb = '\xe9'\n"
    after = disarmed({"postgresql.conf": text}, findings({"postgresql.conf": text}, ["postgresql.conf"], {}))
    assert after["postgresql.conf"] == (
        b"a = 1\r\n# scarlet-backup-mcp commented out the next line, since it runs a command:\n"
        b"#archive_command = 'x' # \xff \\\nb = '\xe9'\n"
    )


# -- on a server -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rigs(require_docker: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, Backup]]:
    """A server, and a backup of it that brings what the server itself has not read, by then taken back."""
    with a_rig(tmp_path_factory.mktemp("configuration")) as rig:
        rig.psql(BRING)
        rig.psql("ALTER ROLE scarlet IN DATABASE letta SET session_preload_libraries = 'auto_explain'")
        rig.sh(
            'cd "$PGDATA" && mkdir conf.d && cp postgresql.conf /tmp/was.conf && chown postgres conf.d && '
            f'printf %s "{INCLUDED}" > conf.d/a.conf && echo "include_dir \'conf.d\'" >> postgresql.conf'
        )
        made = rig.take()
        rig.psql(TAKE_BACK)
        rig.sh('cd "$PGDATA" && cp /tmp/was.conf postgresql.conf && rm -r conf.d')
        for part in ("", ".verified.json"):
            if (path := rig.directory / (made.name + part)).exists():
                (rig.directory / (FOREIGN + part)).write_bytes(path.read_bytes())
        yield rig, made


def archives(rig: Rig) -> str:
    """What a server has of it, and whether the command ran."""
    rig.psql("CREATE TABLE IF NOT EXISTS filled (n int); SELECT pg_switch_wal(); SELECT pg_sleep(1)")
    settings = "name IN ('archive_mode', 'deadlock_timeout')"
    told = f"SELECT string_agg(setting, ' ' ORDER BY name) FROM pg_settings WHERE {settings}"
    ran = rig.sh(f"ls {ARCHIVED} 2>/dev/null; rm -f {ARCHIVED}")
    return f"{rig.psql(told)} {rig.psql('SHOW session_preload_libraries')} {ran}".strip()


def test_the_reader_finds_what_postgres_would_use(rigs: tuple[Rig, Backup]) -> None:
    """`postgres -C` of the same file is the oracle; where it refuses the whole file, no server starts on it."""
    rig, _ = rigs
    lines = [
        "Archive_Command'a b'",
        "ARCHIVE_COMMAND = 'it''s \\143 \\n'",
        "archive_command == x",
        "archive_command = 'x",
        'archive_command "x"',
        "archive_library=a.b/c",
        "session_preload_libraries = '\\141' # x",
        "unix_socket_directories '/srv'\r",
        "dynamic_library_path = $libdir",
        "dynamic_library_path = '$libdir'",
        "include = 'd.conf'",
        "include_if_exists d.conf",
        "include_dir '.'",
        "include_dir 'deeper'",
        "#archive_command = 'x'",
        "archive_command = ''",
        "archive_command = '' archive_library = 'x'",
    ]
    included = "archive_library = 'd'\n"
    script = "set -e; rm -rf /tmp/oracle; mkdir -p /tmp/oracle; cd /tmp/oracle; bin=$(pg_config --bindir)\n"
    for number, line in enumerate(lines):
        script += f"mkdir {number}; cat > {number}/postgresql.conf <<'END'\n{line}\nEND\n"
        script += f'mkdir {number}/deeper; printf %s "{included}" | tee {number}/d.conf > {number}/deeper/e.conf\n'
    script += f"for n in $(seq 0 {len(lines) - 1}); do for name in {' '.join(SETTINGS)}; do "
    script += 'echo "$($bin/postgres -D $n -C $name 2>/dev/null || echo refused)"; done; done'
    said = iter(run_docker("exec", "-i", "-u", "postgres", rig.container, "sh", stdin=script).splitlines())
    refused = list[str]()
    for line in lines:
        values = {name: next(said) for name in SETTINGS}
        files = {"postgresql.conf": line.encode(), "d.conf": included.encode(), "deeper/e.conf": included.encode()}
        if set(values.values()) == {"refused"}:
            refused.append(line)
            continue
        used = {name for name, value in values.items() if value != SETTINGS[name]}
        assert {text.split(" ")[0] for text in found(files)} == used, (line, values)
    assert refused == [lines[at] for at in (2, 3, 4, 8, 11, 12, 16)]


@pytest.mark.long
def test_a_foreign_archives_configuration_is_named_and_commented_out(rigs: tuple[Rig, Backup]) -> None:
    rig, _ = rigs
    lines = ("archive_mode", "archive_command", "session_preload_libraries = 'auto_explain'", "host all all all")
    report = rig.call(verify, FOREIGN, "full")
    question = rig.call(propose, FOREIGN, RestoreOptions(accept_foreign=True)).question
    rehearsed = rig.call(dry_run, FOREIGN, RestoreOptions(accept_foreign=True))
    for told in (summaries.describe(report), question, summaries.describe(rehearsed)):
        assert all(line in told for line in lines), told
        assert "sk-hidden" not in told
    assert "are commented out" in question
    assert any("Comment out" in step.title and step.ok is None for step in rehearsed.steps)

    done = rig.restore(FOREIGN, accept_foreign=True)
    assert done.drill is not None
    assert done.drill.verdict == "sound", done.drill
    assert "session_preload_libraries of scarlet in letta loads a library" in " ".join(done.drill.warnings)
    assert archives(rig) == "off 7000"
    rig.assert_tidy(done.undo_point)
    assert any("are commented out" in warning for warning in done.warnings)
    auto = rig.sh('cat "$PGDATA/postgresql.auto.conf"')
    assert "since it runs a command:\n#archive_command = 'touch" in auto
    assert rig.sh('stat -c "%U %a" "$PGDATA/postgresql.auto.conf" "$PGDATA/conf.d/a.conf"').startswith("postgres 600")
    assert rig.psql("SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'trust' AND address = 'all'") == "0"


@pytest.mark.long
def test_it_takes_effect_if_that_is_accepted_and_in_a_backup_of_ours(rigs: tuple[Rig, Backup]) -> None:
    rig, made = rigs
    done = rig.restore(FOREIGN, accept_foreign=True, accept_configuration=True, drill="never")
    assert any("in it takes effect: " in warning for warning in done.warnings)
    assert archives(rig) == f"on 7000 auto_explain {ARCHIVED}"
    question = rig.call(propose, made.name).question
    assert "Check the configuration in it: session_preload_libraries" in question
    assert "archive_mode (postgresql.auto.conf, line 3) starts" in question
    done = rig.restore(made.name)
    assert sum("configuration in it" in warning for warning in done.warnings) == 1
    assert archives(rig) == f"on 7000 auto_explain {ARCHIVED}"
    with BackupContext(rig.settings) as context, context.server.session("postgres") as session:
        contents = read(rig.directory / made.name, "gzip", Progress()).contents
        live = live_settings(session)
        told = [finding.what for finding in archive_configuration.findings_of(contents, live)]
    assert told == ["host all all all"], told
    with tarfile.open(rig.directory / made.name) as whole:
        assert "./conf.d/a.conf" in whole.getnames() or "conf.d/a.conf" in whole.getnames()
