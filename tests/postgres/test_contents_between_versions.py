"""Dumps of servers of different versions, compared as databases."""

from __future__ import annotations

import pytest

from scarlet_backup_mcp.postgres.dump.definitions import Definition, alike
from scarlet_backup_mcp.postgres.dump.filters import strip_restrict
from scarlet_backup_mcp.postgres.dump.script import Handler, read_script

from ..conftest import MEMORY
from ..helpers.contents import ODDITIES, Place, named, verdict


class WithoutTimeOut(Handler):
    """A script without the setting that 17 has and 15 has not."""

    def __init__(self) -> None:
        self.script = b""

    def text(self, data: bytes, line: int) -> None:
        self.script += data.replace(b"SET transaction_timeout = 0;\n", b"")

    def copy_data(self, data: bytes) -> None:
        self.script += data


@pytest.fixture(scope="module")
def older(old: Place) -> bytes:
    """A dump of Scarlet's memory, and a view, by PostgreSQL 15."""
    with old.database() as name:
        old.psql(name, MEMORY.read_bytes() + b"CREATE VIEW letta.newest AS SELECT name FROM letta.agents;")
        return old.pg_dump(name)


def test_a_dump_of_an_older_version_is_equal_after_a_reload(local: Place, old: Place) -> None:
    for script in (MEMORY.read_bytes(), ODDITIES.encode()):
        with old.database() as name:
            old.psql(name, script)
            before = old.pg_dump(name)
        after = local.loaded(before)
        found = verdict(before, after, local.loaded(before), same_version=False)
        assert (found.differences, found.complete, found.equal) == ([], True, True)
        assert found.rewritten


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("CREATE OR REPLACE VIEW letta.newest AS SELECT id AS name FROM letta.agents", "VIEW letta.newest"),
        ("ALTER TABLE letta.agents ALTER name SET DEFAULT 'x'", "TABLE letta.agents"),
        ("SELECT nextval('letta.message_seq_id')", "SEQUENCE SET letta.message_seq_id"),
        ("CREATE INDEX more ON letta.agents (name)", "INDEX letta.more"),
    ],
)
def test_a_change_is_found_in_a_dump_of_another_version(older: bytes, local: Place, change: str, what: str) -> None:
    with local.database() as name:
        local.psql(name, b"".join(strip_restrict([older])))
        again = local.pg_dump(name)
        local.psql(name, change.encode())
        assert what in named(verdict(older, local.pg_dump(name), again, same_version=False))


def test_a_dump_of_a_newer_version_is_equal_after_a_reload(local: Place, old: Place) -> None:
    with local.database() as name:
        local.psql(name, MEMORY.read_bytes())
        before = local.pg_dump(name)
    without = WithoutTimeOut()
    read_script([before], without)
    after = old.loaded(without.script)
    found = verdict(before, after, old.loaded(without.script), same_version=False)
    assert (found.differences, found.complete, found.equal) == ([], True, True)
    assert "SEQUENCE letta.message_seq_id" in [item.what for item in found.rewritten]


def test_a_cast_of_an_operand_is_not_taken_for_one_of_an_arrays_element() -> None:
    array = "ARRAY['a'::character varying, 'b'::character varying]"
    elements = "ARRAY[('a'::character varying)::text, ('b'::character varying)::text]"
    one, rewritten, other = (
        Definition("o", (f"CREATE TABLE s.t (CHECK (k = ANY ({kept}) AND {distinct}));".encode(),))
        for kept, distinct in (
            (f"({array})::text[]", "n IS DISTINCT FROM m"),
            (elements, "n IS DISTINCT FROM m"),
            (elements, "(n)::text IS DISTINCT FROM (m)::text"),
        )
    )
    assert alike(one, rewritten)
    assert not alike(one, other)
