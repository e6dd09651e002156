"""Restore drills: what brings the same data back is proved, and nothing else is."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

import pytest
from click.testing import CliRunner

from scarlet_backup_mcp.cli.commands import main
from scarlet_backup_mcp.errors import (
    BackupNotValid,
    Busy,
    Cancelled,
    DiskFull,
    ForeignRefused,
    again,
)
from scarlet_backup_mcp.hosts.local import LocalHost
from scarlet_backup_mcp.postgres.dump import filters
from scarlet_backup_mcp.postgres.server import databases as postgres_databases
from scarlet_backup_mcp.procedures.catalog.records import latest
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.drill import sql as drills
from scarlet_backup_mcp.procedures.restore.options import RestoreOptions
from scarlet_backup_mcp.procedures.restore.service import dry_run
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress

from ..helpers.drill import (
    AGENTS,
    RESTORED,
    REWRITTEN,
    Databases,
    SandboxServers,
    before_the_end,
    bring_back,
    drill,
    entry,
    left,
    listed,
    take,
    wrong,
)
from ..helpers.faces import ERAS, agent, until
from ..helpers.restore import Watch

# -- what is kept of a drill -----------------------------------------------------------------------------------------


def test_backup_with_a_drill_is_proved_until_its_file_or_manifest_changes(databases: Databases) -> None:
    settings = databases.make(AGENTS)
    taken = take(settings, verify="drill")
    path = Path(taken.path)
    assert (taken.proved, taken.safe_to_proceed, left(settings)) == (True, True, [])
    assert taken.reasons[-1] == "A restore drill brought 3 equal rows back."
    assert taken.drill is not None
    assert (taken.drill.rows_compared, taken.drill.differences, taken.drill.warnings) == (3, [], [])
    assert taken.drill.where.startswith("a sandbox cluster of ")
    assert (taken.drill.restore_seconds or 0) > (taken.drill.load_seconds or 0) > 0
    assert (taken.drill.database_bytes or 0) > 1_000_000
    item = listed(settings, taken.name)
    assert (item.state, item.verified) == ("good", "drill")
    proved_at = item.proved_at
    assert proved_at is not None

    with BackupContext(settings) as context:
        read = verify(context, Progress(), taken.name)
    assert (read.level, read.valid, read.proved, read.proved_at) == ("full", True, True, proved_at)
    assert listed(settings, taken.name).proved_at == proved_at

    for changed in (path, path.with_name(f"{path.name}.manifest.json")):
        before = changed.stat()
        os.utime(changed)
        assert (listed(settings, taken.name).state, listed(settings, taken.name).proved_at) == ("unverified", None)
        os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert listed(settings, taken.name).proved_at == proved_at
    os.utime(path)
    with BackupContext(settings) as context:
        read = verify(context, Progress(), taken.name)
    assert (read.valid, read.proved, read.proved_at) == (True, None, None)


def test_backup_that_a_drill_found_wrong_stays_so_whatever_is_read_of_it(
    databases: Databases, shared: SandboxServers
) -> None:
    settings = databases.make(AGENTS)
    first = take(settings)
    second = take(settings, shared.tampering("DELETE FROM public.agents WHERE id = 2"), verify="drill")
    assert (second.proved, second.safe_to_proceed) == (False, False)
    assert second.reasons[-1] == (
        "A restore drill did not prove it: drill_rows: rows of public.agents; "
        "drill_integrity: SELECT count(*) FROM agents"
    )
    shut = f"In a restore drill {second.name} did not bring the same data back. Take a new backup; "
    assert any(reason.startswith(shut) for reason in second.reasons)
    for _ in range(2):
        item = listed(settings, second.name)
        told = "a restore drill did not bring the same data back"
        assert (item.state, item.proved_at, item.detail) == ("differs", None, told)
        with BackupContext(settings) as context:
            assert latest(context) == latest(context, for_restore=True) == first.name
            read = verify(context, Progress(), second.name)
        assert read.proved is False
    with pytest.raises(BackupNotValid, match="did not bring the same data back in a drill") as refused:
        bring_back(settings, second.name)
    assert refused.value.next_call == again(drill="never")
    assert bring_back(settings, second.name, drill="never").integrity_rows == 3
    found = drill(settings, second.name)
    assert (found.valid, found.proved, listed(settings, second.name).state) == (True, True, "good")


def test_backup_that_lacks_rows_which_pg_dump_leaves_out_is_not_proved(
    databases: Databases, shared: SandboxServers
) -> None:
    settings = databases.make(
        AGENTS + "CREATE TABLE theirs AS SELECT 1 AS one; ALTER EXTENSION plpgsql ADD TABLE theirs;"
    )
    taken = take(settings, verify="drill")
    lacks = f"{taken.name} lacks rows of public.theirs (1), because pg_dump leaves out"
    assert taken.drill is not None
    assert (taken.good, taken.proved, taken.drill.sound, taken.drill.rows_compared) == (False, None, True, 3)
    assert lacks in taken.reasons[-2]
    assert taken.reasons[-1].startswith("A restore drill brought 3 equal rows back, all that it holds; ")
    assert listed(settings, taken.name).proved_at is None
    found = drill(settings, taken.name)
    assert (found.valid, found.proved, found.remedy and lacks in found.remedy) == (True, None, True)


# -- restores --------------------------------------------------------------------------------------------------------


def test_restore_with_a_drill_loads_the_backup_once_it_is_proved(databases: Databases, shared: SandboxServers) -> None:
    settings = databases.make(AGENTS + REWRITTEN)
    name = take(settings).name
    databases.psql("DELETE FROM agents", settings.database)
    with BackupContext(settings) as context:
        planned = dry_run(context, Progress(), name, RestoreOptions(drill="always"))
        without = dry_run(context, Progress(), name)
    title = "Restore it into a sandbox and compare"
    assert [step.title for step in planned.steps if step not in without.steps] == [title]
    assert (planned.drill, planned.source_proved_at, shared.found) == (None, None, [])

    with pytest.raises(BackupNotValid, match=r"did not bring the same data back in a drill: .*rows of public\.moods"):
        bring_back(settings, name, shared.tampering("TRUNCATE public.moods"), drill="always")
    assert databases.beside(settings) == [settings.database]
    assert databases.psql("SELECT count(*) FROM agents", settings.database) == "0"
    assert listed(settings, name).state == "differs"

    with pytest.raises(BackupNotValid, match="did not bring the same data back"):
        bring_back(settings, name, drill="always")
    assert drill(settings, name).proved
    watch = Watch()
    restored = bring_back(settings, name, watch, drill="always")
    assert restored.drill is not None
    assert (restored.drill.proved, restored.rows_compared, restored.integrity_rows) == (True, 5, 3)
    assert restored.source_proved_at == listed(settings, name).proved_at
    assert restored.source_proved_at is not None
    assert title in [step.title for step in restored.steps if step.ok]
    assert [stage.partition(" ")[0] for stage in watch.stages].index("dumping") < watch.stages.index(f"loading {name}")
    again = bring_back(settings, name)
    assert (again.drill, again.source_proved_at) == (None, restored.source_proved_at)


def test_a_foreign_file_does_what_it_does_in_the_sandbox_server_only(
    databases: Databases, shared: SandboxServers
) -> None:
    """A file with the same objects in another order: its trigger sees the rows come, that of a dump does not."""
    mark = f"mark_{secrets.token_hex(4)}"
    settings = databases.make(f"""
        {AGENTS}
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{mark}') THEN CREATE ROLE {mark}; END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER t BEFORE INSERT ON agents FOR EACH ROW EXECUTE FUNCTION f();
        ALTER TABLE agents ENABLE ALWAYS TRIGGER t;
        """)

    def earlier(script: str) -> str:
        trigger = entry(script, "agents t", "TRIGGER")
        rows = entry(script, "agents", "TABLE DATA")
        return script.replace(trigger, "").replace(rows, trigger + rows)

    def marked() -> str:
        return databases.psql(f"SELECT count(*) FROM pg_roles WHERE rolname = '{mark}'", "postgres")

    name = databases.foreign(settings, earlier)
    with BackupContext(settings) as context:
        planned = dry_run(context, Progress(), name, RestoreOptions(accept_foreign=True))
        direct = dry_run(context, Progress(), name, RestoreOptions(accept_foreign=True, drill="never"))
    assert len([step for step in planned.steps if "sandbox" in step.title]) == 1
    assert len(planned.steps) == len(direct.steps) + 1
    seen: list[str] = []

    def look() -> None:
        with shared.found[-1].server.session("postgres") as session:
            seen.extend(
                row["rolname"] for row in session.rows(f"SELECT rolname FROM pg_roles WHERE rolname = '{mark}'")
            )

    restored = bring_back(settings, name, Watch(RESTORED, lambda _: look()), accept_foreign=True)
    assert (seen, marked()) == ([mark], "0")
    assert restored.drill is not None
    assert (restored.drill.proved, restored.rows_compared, restored.integrity_rows) == (True, 3, 3)
    assert restored.source_proved_at == listed(settings, name).proved_at
    assert databases.psql("SELECT tgenabled FROM pg_trigger", settings.database) == "A"
    ours = "SELECT nspname FROM pg_namespace WHERE nspname ~ 'scarlet|amcheck' UNION SELECT extname FROM pg_extension"
    assert databases.psql(ours, settings.database) == "plpgsql"
    try:
        restored = bring_back(settings, name, accept_foreign=True, drill="never")
        assert (restored.drill, restored.rows_compared, marked()) == (None, 3, "1")
    finally:
        databases.roles.append(mark)


def test_a_foreign_file_that_a_drill_refuses_is_not_loaded(databases: Databases, shared: SandboxServers) -> None:
    settings = databases.make(AGENTS)
    name = databases.pg_dump(settings).name
    databases.psql("DELETE FROM agents WHERE id = 1", settings.database)
    watch = shared.tampering("DELETE FROM public.agents WHERE id = 2")
    with pytest.raises(BackupNotValid, match="did not bring the same data back in a drill: drill_rows") as refused:
        bring_back(settings, name, watch, accept_foreign=True)
    assert refused.value.next_call == again(drill="never")
    assert "a restore drill did not bring the same data back" in listed(settings, name).detail
    assert listed(settings, name).proved_at is None
    assert databases.beside(settings) == [settings.database]
    assert databases.psql("SELECT count(*) FROM agents", settings.database) == "2"
    assert bring_back(settings, name, accept_foreign=True, drill="never").integrity_rows == 3


# -- on the live server ----------------------------------------------------------------------------------------------


def test_on_the_live_server_a_drill_leaves_nothing_behind(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drills, "sandbox_server", None)
    settings = databases.make(AGENTS + REWRITTEN + "ALTER DATABASE :\"DBNAME\" SET timezone TO 'Asia/Kathmandu';")
    name = take(settings).name
    beside: list[list[str]] = []
    watch = Watch("checking tables", lambda _: beside.append(databases.beside(settings)))
    found = drill(settings, name, watch, on_live_server=True)
    assert found.drill is not None
    assert (found.proved, len(found.drill.normalised), wrong(found)) == (True, 2, {})
    assert found.drill.where.startswith("a scratch database on the live server 127.0.0.1:")
    assert [len(names) for names in beside] == [2]
    for stage in ("restoring", RESTORED, "loading the definitions once more", "checking tables"):
        with pytest.raises(Cancelled):
            drill(settings, name, Watch(stage, Progress.cancel), on_live_server=True)
        assert databases.beside(settings) == [settings.database]
    assert (listed(settings, name).state, listed(settings, name).proved_at) == ("good", found.proved_at)

    foreign = databases.pg_dump(settings).name
    with pytest.raises(ForeignRefused, match="is not drilled on the live server"):
        drill(settings, foreign, on_live_server=True)
    with BackupContext(settings) as context, context.server.session("postgres") as session:
        assert postgres_databases.advisory_lock(session)
        with pytest.raises(Busy):
            drill(settings, name, on_live_server=True)
    assert databases.beside(settings) == [settings.database]


def test_a_role_that_is_no_superuser_drills_on_the_live_server(databases: Databases) -> None:
    """As on a managed server, for which this is meant."""
    role = f"weak_{secrets.token_hex(4)}"
    databases.psql(f"CREATE ROLE {role} LOGIN CREATEDB PASSWORD 'x'", "postgres")
    databases.roles.append(role)
    dsn = f"postgresql://{role}:x@127.0.0.1:{databases.server.port}/"
    settings = databases.make("", f"OWNER {role}", dsn=dsn)
    databases.psql(f"SET ROLE {role}; CREATE SCHEMA s; CREATE TABLE s.agents (id int);", settings.database)
    databases.psql(f"ALTER DATABASE {settings.database} SET search_path TO s", "postgres")
    name = take(settings).name
    found = drill(settings, name, on_live_server=True)
    assert (found.proved, wrong(found)) == (True, {})
    assert listed(settings, name).state == "good"
    assert databases.beside(settings) == [settings.database]


# -- failures --------------------------------------------------------------------------------------------------------


def test_without_room_there_is_no_drill_and_the_backup_is_good(
    databases: Databases, shared: SandboxServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The free space is made up: a file system of a given size takes a mount, which not everybody may do."""
    settings = databases.make(AGENTS)

    def little(host: LocalHost, directory: str) -> int:
        return 1000

    monkeypatch.setattr(LocalHost, "free_bytes", little)
    taken = take(settings, verify="drill")
    assert (taken.proved, taken.drill, taken.safe_to_proceed) == (None, None, False)
    assert "could not be done: There are 1,000 bytes free" in taken.reasons[-1]
    with pytest.raises(DiskFull):
        drill(settings, taken.name)
    item = listed(settings, taken.name)
    assert (item.state, item.proved_at) == ("good", None)


@pytest.mark.parametrize("stage", ["restoring", "loading the definitions once more"])
def test_a_connection_that_is_lost_says_nothing_of_the_backup(
    databases: Databases, shared: SandboxServers, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """As when the server runs out of memory: the kernel kills a backend, and then the server ends all the others."""
    monkeypatch.setattr(filters, "LARGEST", 0)  # so that the definitions are read again, which takes a moment
    settings = databases.make(f"{AGENTS} {REWRITTEN} CREATE TABLE t AS SELECT repeat('x', 9000000) AS x;")
    kill = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname ~ '^drill'"

    def end_it(_: Progress) -> None:
        with shared.found[-1].server.session("postgres") as session:
            until(lambda: session.rows(kill), 10, "a connection to be ended")

    taken = take(settings, Watch(stage, end_it, 4_000_000), verify="drill")
    assert (taken.proved, taken.drill, taken.safe_to_proceed) == (None, None, False)
    assert "The drill that was asked for could not be done: " in taken.reasons[-1]
    assert listed(settings, taken.name).state == "good"


def test_a_cancelled_drill_leaves_nothing_and_the_backup_is_there(databases: Databases) -> None:
    settings = databases.make(AGENTS)
    with pytest.raises(Cancelled, match=r"The drill was cancelled\. The backup (\S+) exists") as caught:
        take(settings, Watch(RESTORED, Progress.cancel), verify="drill")
    assert left(settings) == []
    name = re.findall(r"letta_backup_\S+\.sql", caught.value.message)[0]
    assert name in caught.value.remedy
    item = listed(settings, name)
    assert (item.state, item.proved_at) == ("good", None)
    with pytest.raises(Cancelled):
        drill(settings, name, Watch("checking tables", Progress.cancel))
    assert left(settings) == []
    assert (listed(settings, name).state, listed(settings, name).proved_at) == ("good", None)


# -- through the faces -----------------------------------------------------------------------------------------------


async def test_an_agent_has_a_proved_backup_in_one_call(databases: Databases) -> None:
    settings = databases.make(AGENTS)
    async with agent(settings, max(ERAS)) as client:
        taken = await client.call("backup", verify="drill", wait_seconds=0)
        assert (taken["proved"], taken["safe_to_proceed"], taken["drill"]["rows_compared"]) == (True, True, 3)
        found = await client.call("verify_backup", backup=taken["name"], level="drill", on_live_server=True)
        assert (found["proved"], found["drill"]["proved"], found["level"]) == (True, True, "drill")
        listing = await client.call("list_backups")
        assert listing["backups"][0]["proved_at"] == found["proved_at"][: len("2026-11-30")]


def test_the_command_line_tells_a_drill_in_words_and_by_its_code(databases: Databases, shared: SandboxServers) -> None:
    settings = databases.make(AGENTS)
    options = ["--via", "local", "--dsn", settings.dsn.get_secret_value() if settings.dsn else ""]
    options += ["--bin-dir", str(settings.bin_dir), "--dir", str(settings.dir), "--database", settings.database]

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, [*arguments, "--quiet", *options])
        return result.exit_code, result.stdout

    code, text = run("backup", "--verify", "drill")
    assert (code, "A restore drill brought 3 equal rows back." in text) == (0, True)
    code, text = run("verify", "latest", "--level", "drill")
    assert code == 0
    assert re.search(r"is valid, proved by a restore drill on \d{4}-\d\d-\d\d \d\d:\d\d UTC \(level drill", text)
    assert "PostgreSQL 18.6: the same data came back. Compared: 3 rows and" in text
    assert re.search(r"A restore should take about \d+ s\.", text)
    databases.pg_dump(settings)
    code, text = run("verify", "old.sql", "--level", "drill")
    assert (code, "old.sql is intact, without a manifest, proved by a restore drill on" in text) == (0, True)
    databases.foreign(settings, lambda script: before_the_end(script, "ALTER TABLE public.agents ADD CHECK (id < 0);"))
    code, text = run("verify", "old.sql", "--level", "drill")
    assert (code, "its rows violate constraints" in text, "is violated by some row" in text) == (1, True, True)
