"""The audit log, what is kept out of it, and the alarm of a scheduled run."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import stat
import subprocess
import sys
import textwrap
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from filelock import FileLock
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scarlet_backup_mcp.errors import BackupToolError, Busy, RestoreRefused, StoreError
from scarlet_backup_mcp.models.results import Kept
from scarlet_backup_mcp.procedures.audit import calls
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.call_notes import CallNotes
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.listing import no_success, remedy_of, run_of
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.redaction import HIDDEN, redact, text
from scarlet_backup_mcp.settings import load_settings
from scarlet_backup_mcp.store import audit
from scarlet_backup_mcp.store.audit import (
    AUDIT,
    AUDIT_LOCK,
    SCHEDULE,
    UNENDED,
    AuditEntry,
    Client,
    audited,
    last_runs,
    read,
)

from ..conftest import IMAGE, PROJECT_ROOT, LocalDatabase
from ..helpers.audit import PASSWORD, POSIX
from ..helpers.containers import run_docker, run_docker_quietly

CLI = Client(name="cli", version="1")


def entry(tool: str = "backup", **more: Any) -> AuditEntry:
    fields: dict[str, Any] = {
        "call": secrets.token_hex(4),
        "time": datetime.now(UTC),
        "tool": tool,
        "arguments": {},
        "client": CLI,
        "outcome": "ok",
        "code": None,
    }
    return AuditEntry.model_validate({**fields, "message": "", "duration_seconds": 0.5, **more})


def tools(directory: Path, count: int = 10_000) -> list[str]:
    return [found.tool for found in read(directory, count).entries]


# What is kept


def test_call_leaves_a_line_of_json_as_it_begins_and_one_as_it_ends(tmp_path: Path) -> None:
    with audited(
        lambda: tmp_path, "restore", {"backup": "x.sql", "drill": None}, Client(name="ide", version="2")
    ) as on:
        (unended,) = read(tmp_path, 5).entries
        on.message = "done"
        on.before, on.after = {"sha256": "ab"}, {"undo_point": "letta_before"}
    begun, found = map(json.loads, (tmp_path / AUDIT).read_bytes().splitlines())
    assert (begun["outcome"], begun["duration_seconds"], begun["before"]) == ("begun", None, {})
    assert AuditEntry.model_validate(begun) == unended
    for name in ("call", "time", "tool", "arguments", "client"):
        assert begun[name] == found[name], name
    assert len(found.pop("call")) == 8
    assert datetime.fromisoformat(found.pop("time")).tzinfo is not None
    assert 0 <= found.pop("duration_seconds") < 60
    assert found == {
        "schema": 1,
        "tool": "restore",
        "arguments": {"backup": "x.sql", "drill": None},
        "client": {"name": "ide", "version": "2"},
        "outcome": "ok",
        "code": None,
        "message": "done",
        "before": {"sha256": "ab"},
        "after": {"undo_point": "letta_before"},
    }
    assert on.warning == ""


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (RestoreRefused("It is not whole."), "restore_refused", "It is not whole."),
        (ZeroDivisionError("secret words"), "internal_error", "ZeroDivisionError"),
        (KeyboardInterrupt(), "cancelled", "KeyboardInterrupt"),
    ],
)
def test_error_is_kept_and_goes_on(tmp_path: Path, error: BaseException, code: str, message: str) -> None:
    with pytest.raises(type(error)) as raised, audited(lambda: tmp_path, "restore", {}, CLI):
        raise error
    assert raised.value is error
    (found,) = read(tmp_path, 5).entries
    assert (found.outcome, found.code) == ("error", code)
    assert message in found.message
    assert "secret words" not in found.message


def test_bad_result_is_neither_ok_nor_an_error(tmp_path: Path) -> None:
    with audited(lambda: tmp_path, "backup", {}, CLI) as record:
        record.good = False
    (found,) = read(tmp_path, 5).entries
    assert (found.outcome, found.code) == ("bad", None)


@POSIX
def test_log_is_for_its_owner_only(tmp_path: Path) -> None:
    audit.append(tmp_path, entry())
    assert stat.S_IMODE((tmp_path / AUDIT).stat().st_mode) == 0o600


def test_calls_that_have_not_ended_are_told_as_begun_among_those_that_have(tmp_path: Path) -> None:
    with audited(lambda: tmp_path, "outer", {}, CLI):
        with audited(lambda: tmp_path, "inner", {}, CLI):
            pass
        assert [(each.tool, each.outcome) for each in read(tmp_path, 5).entries] == [
            ("inner", "ok"),
            ("outer", "begun"),
        ]
    assert [(each.tool, each.outcome) for each in read(tmp_path, 5).entries] == [("outer", "ok"), ("inner", "ok")]


def run(job: str, outcome: str = "ok", **more: Any) -> AuditEntry:
    """A scheduled one."""
    begun: dict[str, Any] = {"duration_seconds": None, "message": UNENDED} if outcome == "begun" else {}
    fields: dict[str, Any] = {"client": Client(name=SCHEDULE), "arguments": {"scheduled": job}, "outcome": outcome}
    return entry(**{**fields, **begun, **more})


def runs(directory: Path) -> list[tuple[str | None, str]]:
    return [(found.job, found.outcome) for found in last_runs(directory)]


def test_what_a_call_announces_is_told_before_it_ends(tmp_path: Path) -> None:
    with audited(lambda: tmp_path, "prune_backups", {}, CLI) as record:
        record.announce({"x.sql": "ab"})
        (killed,) = read(tmp_path, 5).entries
    assert (killed.outcome, killed.before) == ("begun", {"x.sql": "ab"})
    (ended,) = read(tmp_path, 5).entries
    assert (ended.outcome, ended.before) == ("ok", {"x.sql": "ab"})


def test_each_scheduled_job_has_its_own_last_run(tmp_path: Path) -> None:
    assert last_runs(tmp_path) == []
    for made in (run("weekly", "ok"), run("weekly", "error", code="busy"), run("daily", "bad"), run("daily")):
        audit.append(tmp_path, made)
    audit.append(tmp_path, entry("restore", outcome="error", code="busy"))
    audit.append(tmp_path, entry("backup", arguments={"scheduled": None}))
    assert runs(tmp_path) == [("daily", "ok"), ("weekly", "error")]
    audit.append(tmp_path, run("weekly"))
    assert runs(tmp_path) == [("weekly", "ok"), ("daily", "ok")]


def test_run_that_has_not_ended_hides_no_earlier_failure_and_is_hidden_by_no_pruning_of_its_own(tmp_path: Path) -> None:
    for made in (run("daily", "error", code="busy"), run("daily", "begun"), run("daily", "begun")):
        audit.append(tmp_path, made)
    audit.append(tmp_path, entry("prune_backups", client=Client(name=SCHEDULE)))
    assert runs(tmp_path) == [("daily", "begun"), ("daily", "error")]
    found = last_runs(tmp_path)[0]
    assert no_success(run_of(found)) == f"The scheduled run of daily at {found.time:%Y-%m-%d %H:%M} UTC {UNENDED}"
    audit.append(tmp_path, run("daily"))
    assert runs(tmp_path) == [("daily", "ok")]


def test_job_that_was_taken_out_is_told_no_more_until_it_runs_again(tmp_path: Path) -> None:
    def take_out(outcome: str, remove: bool) -> None:
        audit.append(tmp_path, entry("schedule", arguments={"job": "daily", "remove": remove}, outcome=outcome))

    audit.append(tmp_path, run("weekly", "bad"))
    audit.append(tmp_path, run("daily", "bad"))
    take_out("error", remove=True)
    take_out("ok", remove=False)
    assert runs(tmp_path) == [("daily", "bad"), ("weekly", "bad")]
    assert "schedule --remove --job daily" in remedy_of(run_of(last_runs(tmp_path)[0]))
    take_out("ok", remove=True)
    assert runs(tmp_path) == [("weekly", "bad")]
    audit.append(tmp_path, run("daily", "begun"))
    assert runs(tmp_path) == [("daily", "begun"), ("weekly", "bad")]


# Reading


def test_last_entries_come_newest_first(tmp_path: Path) -> None:
    for number in range(5):
        audit.append(tmp_path, entry(f"t{number}"))
    assert tools(tmp_path, 3) == ["t4", "t3", "t2"]
    assert tools(tmp_path / "none") == []


@pytest.mark.parametrize("torn", [b'{"schema":1,"tool":"bac', b"\xff\xfe\n", b"{}\n", b'{"schema":2}'])
def test_line_that_cannot_be_read_is_counted_and_the_next_begins_its_own(tmp_path: Path, torn: bytes) -> None:
    audit.append(tmp_path, entry("before"))
    with (tmp_path / AUDIT).open("ab") as file:
        file.write(torn)
    assert tools(tmp_path) == ["before"]
    audit.append(tmp_path, entry("after"))
    found = read(tmp_path, 10)
    assert [each.tool for each in found.entries] == ["after", "before"]
    assert found.unreadable == 1
    assert read(tmp_path, 1).unreadable == 0


def test_fields_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    line = {**json.loads(entry("new").model_dump_json(by_alias=True)), "more": 1}
    (tmp_path / AUDIT).write_text(json.dumps(line) + "\n")
    assert tools(tmp_path) == ["new"]


# Rotation


def test_log_is_bounded_and_keeps_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "LIMIT", 2000)
    for number in range(100):
        audit.append(tmp_path, entry(f"t{number}"))
    files = sorted(tmp_path.glob(f"{AUDIT}*"))
    assert [file.name for file in files] == [AUDIT, *(f"{AUDIT}.{n}" for n in (1, 2, 3))]
    assert all(file.stat().st_size <= 2000 for file in files)
    kept = tools(tmp_path)
    assert kept == [f"t{number}" for number in range(99, 99 - len(kept), -1)]
    assert len(kept) > 20


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_rotation_cut_off_by_a_kill_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: int
) -> None:
    for number in {1, 2, 3} - {missing}:
        line = entry(f"old{number}").model_dump_json(by_alias=True)
        (tmp_path / f"{AUDIT}.{number}").write_text(line + "\n")
    audit.append(tmp_path, entry("present"))
    monkeypatch.setattr(audit, "LIMIT", 1)
    audit.append(tmp_path, entry("next"))
    older = [f"old{number}" for number in (1, 2, 3) if number != missing]
    assert tools(tmp_path) == ["next", "present", *older]


@POSIX
@pytest.mark.parametrize("name", [AUDIT, f"{AUDIT}.1"])
@pytest.mark.parametrize("kind", ["directory", "fifo", "link"])
def test_log_that_is_no_file_is_an_error_of_reading_it(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    make = {"directory": path.mkdir, "fifo": lambda: os.mkfifo(path), "link": lambda: path.symlink_to(tmp_path / "x")}
    make[kind]()
    with pytest.raises(StoreError, match=re.escape(str(path))):
        read(tmp_path, 5)
    with pytest.raises(StoreError, match=re.escape(str(path))):
        last_runs(tmp_path)


@POSIX
def test_file_that_is_rotated_while_the_log_is_read_is_not_told_twice(tmp_path: Path) -> None:
    """A second name of the file stands for the one that it gets between two steps of the reader."""
    audit.append(tmp_path, entry("once"))
    os.link(tmp_path / AUDIT, tmp_path / f"{AUDIT}.1")
    assert tools(tmp_path) == ["once"]


# Several at once, and faults


APPEND_MANY = """
    from datetime import UTC, datetime
    from pathlib import Path
    from scarlet_backup_mcp.store import audit
    directory, name, count, audit.LIMIT = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    for number in range(count):
        audit.append(directory, audit.AuditEntry(
            call=f"{name}{number}",
            time=datetime.now(UTC), tool=f"{name}-{number}", arguments={"label": "x" * (number % 700)},
            client=audit.Client(name="cli"), outcome="ok", code=None, message="", duration_seconds=1.0,
        ))
        print(number, flush=True)
"""


@contextmanager
def appending(directory: Path, name: str, count: int, limit: int = audit.LIMIT) -> Generator[subprocess.Popen[str]]:
    script = "import sys\n" + textwrap.dedent(APPEND_MANY)
    command = [sys.executable, "-c", script, str(directory), name, str(count), str(limit)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def test_lines_of_processes_at_the_same_time_are_all_there_and_whole(tmp_path: Path) -> None:
    """With rotation: no file may be moved away under another's append."""
    with (
        appending(tmp_path, "a", 80, 25_000) as a,
        appending(tmp_path, "b", 80, 25_000) as b,
        appending(tmp_path, "c", 80, 25_000) as c,
    ):
        assert [process.wait(60) for process in (a, b, c)] == [0, 0, 0]
    found = read(tmp_path, 10_000)
    assert found.unreadable == 0
    assert sorted(each.tool for each in found.entries) == sorted(f"{n}-{i}" for n in "abc" for i in range(80))
    assert (tmp_path / f"{AUDIT}.1").exists()


def test_whatever_was_acknowledged_before_a_kill_is_there(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    for turn in range(4):
        with appending(tmp_path, f"p{turn}", 100_000) as process:
            assert process.stdout is not None
            for line in process.stdout:
                acknowledged.append(f"p{turn}-{int(line)}")
                if len(acknowledged) % 17 == 0:
                    break
            process.kill()
    audit.append(tmp_path, entry("afterwards"))
    found = tools(tmp_path)
    assert found[0] == "afterwards"
    assert set(acknowledged) <= set(found)


@POSIX
def test_disk_that_fills_up_within_a_line_leaves_the_log_as_it_was_and_the_call_unharmed(tmp_path: Path) -> None:
    """A limit of the file's size cuts a write off just as a full disk does."""
    audit.append(tmp_path, entry("before"))
    before = (tmp_path / AUDIT).read_bytes()
    script = """
        import resource
        from pathlib import Path
        from scarlet_backup_mcp.store.audit import Client, audited
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
        with audited(lambda: Path(sys.argv[1]), "backup", {}, Client(name="cli")) as record:
            print("worked")
        print(record.warning)
    """
    command = [sys.executable, "-c", "import sys\n" + textwrap.dedent(script), str(tmp_path), str(len(before) + 40)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT_ROOT, check=True)
    worked, warning = done.stdout.splitlines()
    assert worked == "worked"
    assert "not in the audit log" in warning
    assert (tmp_path / AUDIT).read_bytes() == before


@POSIX
@pytest.mark.parametrize("kind", ["missing", "directory", "link", "fifo"])
def test_log_that_cannot_be_written_is_a_warning_of_the_call(tmp_path: Path, kind: str) -> None:
    directory = tmp_path / "backups"
    if kind != "missing":
        directory.mkdir()
    if kind == "directory":
        (directory / AUDIT).mkdir()
    if kind == "link":
        (directory / AUDIT).symlink_to(tmp_path / "elsewhere")
    if kind == "fifo":
        os.mkfifo(directory / AUDIT)
    with audited(lambda: directory, "backup", {}, CLI) as record:
        pass
    assert "not in the audit log" in record.warning
    assert not (tmp_path / "elsewhere").exists()
    assert directory.exists() == (kind != "missing")


def test_directory_that_is_not_known_does_not_hide_the_error_of_the_call() -> None:
    def where() -> Path:
        raise StoreError("Nobody knows.")

    with pytest.raises(RestoreRefused), audited(where, "restore", {}, CLI):
        raise RestoreRefused("No.")


def test_log_whose_lock_is_held_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "LOCK_SECONDS", 0.1)
    with FileLock(tmp_path / AUDIT_LOCK), pytest.raises(Busy):
        audit.append(tmp_path, entry())


# Secrets


SECRETS = st.text(
    st.characters(codec="utf-8", exclude_characters="\"'\\,;&@", exclude_categories=("Z", "C")), max_size=30
)


@settings(max_examples=150, deadline=None, database=None)
@given(secret=SECRETS)
@example(secret="pa/ss:wo")
@example(secret="postgresql://")
def test_password_is_seen_in_no_form_of_a_message(secret: str) -> None:
    secret = f"Zq9{secret}"
    for message in (
        f"connecting to postgresql://scarlet:{secret}@db.example:5432/letta failed",
        f"host=db password={secret} user=scarlet",
        f"host=db password='{secret} {secret}'",
        f'{{"PGPASSWORD": "{secret}"}}',
        f"POSTGRES_PASSWORD={secret}",
        f"api_key: {secret}",
    ):
        assert secret not in text(message)


def test_known_secret_and_secret_names_are_hidden_at_any_depth() -> None:
    given = {
        "dsn": "host=x",
        "deep": [{"PGPASSWORD": PASSWORD, "label": f"with {PASSWORD} in it"}],
        "password": None,
        "path": Path("/x"),
        "count": 3,
        "yes": True,
    }
    assert redact(given, [PASSWORD]) == {
        "dsn": HIDDEN,
        "deep": [{"PGPASSWORD": HIDDEN, "label": f"with {HIDDEN} in it"}],
        "password": None,
        "path": "/x",
        "count": 3,
        "yes": True,
    }


def test_long_text_is_cut_and_bytes_that_are_no_text_are_kept_out(tmp_path: Path) -> None:
    assert len(text("x" * 100_000)) == 2000
    with audited(lambda: tmp_path, "backup", {"label": "\udcff\u2028\n"}, CLI) as record:
        pass
    assert record.warning == ""
    assert tools(tmp_path) == ["backup"]


# A call on a real database


def test_backup_is_in_the_log_with_its_digest_and_no_password_is(local_database: LocalDatabase, tmp_path: Path) -> None:
    dsn, password = local_database.dsn, urlsplit(local_database.dsn).password
    assert password
    directory = tmp_path / "backups"
    chosen = {"via": "local", "dsn": dsn, "bin_dir": local_database.bin_dir, "dir": directory}
    with BackupContext(load_settings(**chosen)) as context:
        result = calls.call(
            context, "backup", {"dsn": dsn, "label": password}, CLI, lambda _: backup(context, Progress())
        )

        def fail(_: CallNotes) -> Any:
            raise RestoreRefused(f"{dsn} and {password} are not right.")

        with pytest.raises(RestoreRefused):
            calls.call(context, "restore", {"backup": dsn}, CLI, fail)
    refused, made = read(directory, 5).entries
    assert (made.outcome, made.after) == ("ok", {"backup": result.name, "sha256": result.sha256})
    assert (refused.outcome, refused.code) == ("error", "restore_refused")
    assert password.encode() not in (directory / AUDIT).read_bytes()


def lines_of(directory: Path) -> list[tuple[str, Any]]:
    """Of each line its outcome and the label."""
    found = map(json.loads, (directory / AUDIT).read_bytes().splitlines())
    return [(line["outcome"], line["arguments"]["label"]) for line in found]


def test_label_is_hidden_while_nobody_knows_the_container_s_password_and_no_engine_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as engine:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{engine.getsockname()[1]}")
        with BackupContext(load_settings(dir=str(tmp_path))) as context:
            calls.call(context, "keep", {"label": "free text"}, CLI, lambda _: Kept(name="x", keep=True))
        engine.settimeout(0)
        with pytest.raises(BlockingIOError):
            engine.accept()
    assert lines_of(tmp_path) == [("begun", HIDDEN), ("ok", HIDDEN)]


def test_label_that_holds_the_password_of_a_file_in_the_container_never_shows_it(
    require_docker: None, tmp_path: Path
) -> None:
    name, password = f"audit-{secrets.token_hex(4)}", secrets.token_hex(8)
    options = ("--pull", "never", "--label", "scarlet-backup-mcp.test=1", "--entrypoint", "sh")
    held = ("-e", "POSTGRES_PASSWORD_FILE=/password", IMAGE, "-c", f"echo {password} > /password; exec sleep 60")

    def refused(label: str) -> None:
        """No server runs there, and at last no container."""
        with BackupContext(load_settings(dir=tmp_path, container=name)) as context, pytest.raises(BackupToolError):
            calls.call(context, "backup", {"label": label}, CLI, lambda _: backup(context, Progress(), label=label))

    try:
        run_docker("run", "-d", "--name", name, *options, *held)
        refused(f"it is {password}")
        refused("it is not")
        run_docker("kill", name)
        refused(password)
    finally:
        run_docker_quietly("rm", "-fv", name)
    assert lines_of(tmp_path) == [
        *[("begun", HIDDEN), ("error", f"it is {HIDDEN}")],
        *[("begun", HIDDEN), ("error", "it is not")],
        *[("begun", HIDDEN), ("error", HIDDEN)],
    ]
