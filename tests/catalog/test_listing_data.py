"""What `list_backups` gives an agent: little, of what a person would ask for, and a picture of the last weeks."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from scarlet_backup_mcp import summaries
from scarlet_backup_mcp.models.audit import AuditEntry, Client
from scarlet_backup_mcp.models.common import Model
from scarlet_backup_mcp.procedures import integrity
from scarlet_backup_mcp.procedures.audit import calls
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.catalog import records
from scarlet_backup_mcp.procedures.catalog.weeks import weeks
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.gate import gate
from scarlet_backup_mcp.procedures.listing import list_backups
from scarlet_backup_mcp.procedures.prune import prune
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.store import audit

from ..helpers.records import add, ago, names_of
from ..helpers.store import Made, Shelf

LIMIT = 3 * 1024
"""Bytes of the default answer's data."""
SAFE = 2**53
"""Beyond it JavaScript does not read an integer as it is."""


def data_of(result: Model) -> dict[str, Any]:
    """As a tool's answer has it."""
    return result.model_dump(mode="json", by_alias=True)


def ten(made: Made, here: Shelf) -> None:
    """Good ones of ten days, a drill proved them, some have labels; and a schedule's last run."""
    for day in range(10):
        name = f"letta_backup_2026010{day}_000000.sql"
        add(here, made, name, created_at=ago(day), label="prima di PROC-003" if day % 3 == 0 else None)
        outcome = json.loads(here.outcome(name).read_bytes())
        outcome |= {"level": "drill", "proved": True, "proved_at": ago(day)}
        here.outcome(name).write_text(json.dumps(outcome))
    run = AuditEntry(
        call="c",
        time=datetime.now(UTC),
        tool="backup",
        arguments={"kind": "sql", "label": None, "scheduled": "scarlet-backup-daily", "verify": "auto", "prune": True},
        client=Client(name="schedule", version="1.0.0"),
        outcome="ok",
        code=None,
        message="It was read back in full and matches its manifest. " * 5,
        duration_seconds=1.0,
        after={"backup": "letta_backup_20260100_000000.sql", "sha256": "0" * 64},
    )
    audit.append(here.directory, run)


def test_default_answer_is_small(made: Made, tmp_path: Path) -> None:
    here = made.shelf.copy(tmp_path / "backups")
    ten(made, here)
    listing = here.listing()
    large = [item.model_copy(update={"bytes": 497_412_908, "rows": 850_554}) for item in listing.backups]
    about = (
        "database letta (POSTGRES_DB), role letta (POSTGRES_USER), container scarlet-postgres (0123456789ab, Compose "
        "project scarlet, the only PostgreSQL)"
    )
    directory = "/home/scarlet/projects/scarlet/backups"
    named = {"backups": large, "database": "letta", "server": about, "directory": directory}
    data = data_of(listing.model_copy(update=named))
    compact = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
    assert len(data["backups"]) == 10
    assert len(compact) <= LIMIT, compact.decode()
    newest = data["backups"][0]
    assert {"name", "created_at", "age_seconds", "bytes", "state", "verified", "proved_at", "rows", "label"} <= {
        *newest
    }
    assert not {"mtime_ns", "manifest_bytes", "sha256", "detail", "shrunk"} & {*newest}


def integers(text: str) -> list[int]:
    """All integers in some JSON."""
    found: list[int] = []
    json.loads(text, parse_int=lambda digits: found.append(int(digits)))
    return found


def test_no_integer_is_larger_than_javascript_reads(made: Made, tmp_path: Path) -> None:
    here = made.shelf.copy(tmp_path / "backups", made.plain, made.zstd)
    taken = here.back_up()
    with BackupContext(here.settings) as context:
        results = [
            taken,
            here.listing(),
            here.verify(taken.name),
            gate(context),
            integrity.db_integrity(context, Progress()),
            prune(context, Progress(), dry_run=True),
            context.directory.manifest(taken.name),
        ]
    for result in filter(None, results):
        assert max(map(abs, integers(result.model_dump_json())), default=0) <= SAFE, type(result)


def test_an_unfinished_file_does_not_take_a_usable_ones_place(made: Made, tmp_path: Path) -> None:
    here = made.shelf.copy(tmp_path / "backups", made.plain)
    here.file("letta_backup_29990101_000000.sql.partial").write_bytes(b"x")
    assert names_of(here.listing(limit=1)) == ["letta_backup_29990101_000000.sql.partial", made.plain]


def test_a_good_backup_is_no_bad_call_because_the_gate_is_shut(made: Made, tmp_path: Path) -> None:
    here = made.shelf.copy(tmp_path / "backups")
    assert here.settings.dsn is not None
    with psycopg.connect(here.settings.dsn.get_secret_value()) as writer, BackupContext(here.settings) as context:
        writer.execute("UPDATE letta.agents SET id = id")
        work = partial(backup, context, Progress())
        done = calls.call(context, "backup", {}, Client(name="cli"), lambda notes: work(notes=notes))
        writer.rollback()
        assert (done.good, done.safe_to_proceed) == (True, False)
        [entry] = list_backups(context, log=5).log
    assert entry.outcome == "ok"


def test_a_picture_of_the_last_weeks_ends_the_text(made: Made, tmp_path: Path) -> None:
    here = made.shelf.copy(tmp_path / "backups")
    today = date(2026, 11, 26)  # a Thursday
    for name, back, change in (
        ("a.sql", 24, {}),  # Monday, three weeks before
        ("b.sql", 9, {}),  # Tuesday of the last week
        ("c.sql", 9, {}),
        ("d.sql", 2, {"shrunk": True, "shrunk_reasons": ["all gone"]}),
    ):
        moment = datetime(2026, 11, 26, 12, tzinfo=UTC) - timedelta(days=back)
        add(here, made, name, created_at=moment.isoformat(), **change)
    outcome = json.loads(here.outcome("c.sql").read_bytes())
    here.outcome("c.sql").write_text(json.dumps({**outcome, "proved": True, "proved_at": ago(0)}))
    with BackupContext(here.settings) as context:
        found = weeks(context, records.all_backups(context), today)
    assert summaries.timeline(found)[1:] == [
        "2026-W45  +......  good",
        "2026-W46  .......  missing",
        "2026-W47  .#.....  proved",
        "2026-W48  ....     none yet",
    ]
    text = summaries.describe(here.listing())
    assert text.splitlines()[-1].startswith(f"{datetime.now(UTC):%G-W%V}  ")
    assert "weeks" not in data_of(here.listing())


def test_weeks_of_an_empty_directory_and_of_a_long_history(made: Made, tmp_path: Path) -> None:
    here = made.shelf.copy(tmp_path / "backups")
    with BackupContext(here.settings) as context:
        assert len(weeks(context, [])) == 1
        add(here, made, "old.sql", created_at=ago(700))
        assert len(weeks(context, records.all_backups(context))) == 12
