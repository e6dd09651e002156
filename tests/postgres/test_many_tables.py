"""What a backup takes grows with the database as pg_dump's own work does: no message per table, nothing quadratic."""

from __future__ import annotations

import time

import pytest

from scarlet_backup_mcp.errors import ServerError
from scarlet_backup_mcp.models.results import Backup
from scarlet_backup_mcp.postgres.server import catalogue as pg
from scarlet_backup_mcp.postgres.server import counting
from scarlet_backup_mcp.postgres.server.session import Session
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress

from ..helpers.drill import Databases


def tables(first: int, last: int) -> str:
    """Make tables with two rows each; a transaction makes a few only, since it locks them all."""
    return "".join(
        f"""DO $$ BEGIN FOR i IN {begin}..{min(begin + 99, last)} LOOP
            EXECUTE format('CREATE TABLE many.t%s (id serial PRIMARY KEY, name text DEFAULT now())', i);
            EXECUTE format('INSERT INTO many.t%s (name) VALUES (%L), (%L)', i, i, 'x');
        END LOOP; END $$;"""
        for begin in range(first, last + 1, 100)
    )


def large_objects(count: int) -> str:
    return f"SELECT count(lo_from_bytea(0, i::text::bytea)) FROM generate_series(1, {count}) AS i"


class Messages:
    """The messages that psql sends to the server: each statement that does not end in `\\;`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent = 0
        write = Session._write  # pyright: ignore[reportPrivateUsage]

        def counted(session: Session, script: str) -> None:
            self.sent += max(1, script.count("\\g "))
            write(session, script)

        monkeypatch.setattr(Session, "_write", counted)

    def of_a_backup(self, context: BackupContext) -> tuple[Backup, int]:
        before = self.sent
        made = backup(context, Progress(), verify="full")
        return made, self.sent - before


def test_a_backup_sends_no_message_per_table(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = databases.make("CREATE SCHEMA many; CREATE TABLE agents (id int)")
    databases.psql(tables(1, 20), settings.database)
    messages = Messages(monkeypatch)
    with BackupContext(settings) as context:
        few, sent_for_few = messages.of_a_backup(context)
    databases.psql(tables(21, 280), settings.database)
    with BackupContext(settings) as context:
        many, sent_for_many = messages.of_a_backup(context)
    assert (few.rows, many.rows) == (40, 560)
    assert (few.warnings, many.warnings) == ([], [])
    batches = -(-281 // counting.BATCH) - 1  # besides the one for few
    assert sent_for_many - sent_for_few == 4 * batches  # begin, count, compare the names, commit


@pytest.mark.parametrize("psql", ["today's", "14"])
def test_tables_that_can_not_be_counted_leave_the_others_counted(databases: Databases, psql: str) -> None:
    settings = databases.make("CREATE SCHEMA many")
    databases.psql(tables(1, 12), settings.database)
    with (
        BackupContext(settings) as context,
        context.server.session(settings.database) as session,
    ):
        if psql == "14":  # which shows only the last result of a message
            session._psql = 140021  # pyright: ignore[reportPrivateUsage]
        known = pg.tables(session)
        session.execute("DROP TABLE many.t3; DROP TABLE many.t7; ALTER TABLE many.t9 RENAME TO gone")
        counted = counting.count_rows(session, known)
        assert {lost.table.name for lost in counted.failed} == {"t3", "t7", "t9"}
        assert sorted(counted.rows.values()) == [2] * 9
        with pytest.raises(ServerError, match=r"many\.t3"):
            counted.require()


@pytest.mark.long
def test_our_own_work_is_not_quadratic(databases: Databases) -> None:
    """Ten times as many tables and large objects take ten times as long, not a hundred times. Processor time of our
    own only, which other programs hardly change."""
    seconds: list[float] = []
    for of in (300, 3000):
        settings = databases.make("CREATE SCHEMA many; CREATE TABLE agents (id int)")
        databases.psql(tables(1, of), settings.database)
        databases.psql(large_objects(of * 10), settings.database)
        with BackupContext(settings) as context:
            began = time.process_time()
            made = backup(context, Progress(), verify="full")
            assert verify(context, Progress(), made.name).valid
            seconds.append(time.process_time() - began)
        assert made.rows == of * 2
    assert seconds[1] < 30 * seconds[0]
