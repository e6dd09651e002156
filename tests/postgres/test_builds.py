"""Which statements of a dump are left to sessions of their own, and what has to be done before and after them."""

from __future__ import annotations

from scarlet_backup_mcp.postgres.dump.builds import Batch, Build, builds_apart
from scarlet_backup_mcp.postgres.dump.script import TRAILER

BEFORE = b"""\\restrict Abc1
SET transaction_timeout = 0;
SET lock_timeout = 0;
SELECT pg_catalog.set_config('search_path', '', false);
SET default_tablespace = '';
CREATE TABLE s.small (a int);
CREATE TABLE s."Large one" (a int, v vector);
COPY s.small (a) FROM stdin;
1
\\.
COPY s."Large one" (a, v) FROM stdin;
1\t[1,2,3]
2\tCREATE INDEX i ON s.small USING btree (a);
\\.
"""
SMALL = b"ALTER TABLE ONLY s.small\n    ADD CONSTRAINT small_pkey PRIMARY KEY (a);"
LARGE = b'CREATE UNIQUE INDEX large_a ON s."Large one" USING btree (a);'
VECTORS = b'CREATE INDEX large_v ON s."Large one" USING hnsw (v);'
ROOT = b"CREATE INDEX root_a ON ONLY s.root USING btree (a);"
LEAF = b"CREATE INDEX leaf_a ON s.leaf USING btree (a);"
ATTACH = b"ALTER INDEX s.root_a ATTACH PARTITION s.leaf_a;"
COMMENT = b"COMMENT ON INDEX s.large_a IS 'it';"
CLUSTER = b"ALTER TABLE s.small CLUSTER ON small_pkey;"
REPLICA = b"ALTER TABLE ONLY s.small REPLICA IDENTITY USING INDEX small_pkey;"
FUNCTION = b"CREATE FUNCTION s.f() RETURNS SETOF int LANGUAGE sql BEGIN ATOMIC SELECT a FROM s.small GROUP BY a; END;"
FOREIGN = b"ALTER TABLE ONLY s.small\n    ADD CONSTRAINT fk FOREIGN KEY (a) REFERENCES s.root(a);"


def apart(script: bytes, size: int = 1 << 20, leave_out: bytes = b"") -> list[bytes | Batch]:
    """The pieces, with those of the script itself joined."""
    found: list[bytes | Batch] = []
    for piece in builds_apart((script[at : at + size] for at in range(0, len(script), size)), leave_out=leave_out):
        if isinstance(piece, bytes) and found and isinstance(last := found[-1], bytes):
            found[-1] = last + piece
        else:
            found.append(piece)
    return found


def batches(script: bytes) -> list[list[bytes]]:
    return [[build.sql for build in piece] for piece in apart(script) if not isinstance(piece, bytes)]


def test_builds_come_apart_and_what_is_about_them_follows() -> None:
    heading = b"--\n-- Name: large_a; Type: INDEX; Schema: s; Owner: me\n--\n"
    script = b"\n".join(
        [BEFORE, SMALL, CLUSTER, heading + LARGE, COMMENT, VECTORS, ROOT, LEAF, ATTACH, REPLICA, FOREIGN, b"", TRAILER]
    )
    for size in (1, 7, 1 << 20):
        before, batch, after = apart(script, size)
        assert before == BEFORE.replace(b"\\restrict Abc1\n", b"")
        assert after == b"\n".join([CLUSTER, COMMENT, ATTACH, REPLICA, FOREIGN, b""])
        assert isinstance(batch, list)
        assert [build.sql for build in batch] == [LARGE, VECTORS, SMALL, ROOT, LEAF]  # the largest tables first
        settings = (
            b"SET transaction_timeout = 0;",
            b"SET lock_timeout = 0;",
            b"SELECT pg_catalog.set_config('search_path', '', false);",
            b"SET default_tablespace = '';",
        )
        table = (b"s", b'"Large one"')
        assert batch[0] == Build(LARGE, table, settings, 55, in_memory=False, at="INDEX s.large_a")
        assert batch[1].in_memory
        assert batch[2].table == (b"s", b"small")
        assert batch[2].size == 2


def test_a_build_waits_for_whatever_it_could_need() -> None:
    using = b"CREATE INDEX of_f ON s.root USING btree (s.f(a));"
    assert batches(b"\n".join([BEFORE, SMALL, FUNCTION, using, FOREIGN, LARGE, b""])) == [[SMALL], [using], [LARGE]]


def test_a_setting_before_a_build_is_in_force_for_it_only() -> None:
    moved = b"SET default_tablespace = fast;"
    pieces = apart(b"\n".join([BEFORE, SMALL, moved, LARGE, b""]))
    batch = next(piece for piece in pieces if not isinstance(piece, bytes))
    assert [moved in build.settings for build in batch] == [True, False]
    assert sum(moved in piece for piece in pieces if isinstance(piece, bytes)) == 1


def test_a_statement_can_be_left_out_everywhere() -> None:
    pieces = apart(BEFORE + SMALL, leave_out=b"SET transaction_timeout = 0;")
    assert b"SET transaction_timeout" not in repr(pieces).encode()
    assert batches(BEFORE) == []


def test_what_another_program_or_role_wrote_stays_in_its_place() -> None:
    odd = [
        b"CREATE INDEX ON s.small USING btree (a);",
        b"CREATE INDEX i ON small (a);",
        b"ALTER TABLE s.small ADD CONSTRAINT c CHECK ((a > 0));",
        b"ALTER TABLE ONLY s.small\n    ADD CONSTRAINT e EXCLUDE USING gist (a WITH =);",
        b"SET SESSION AUTHORIZATION 'other';",
        LARGE,
    ]
    assert batches(b"\n".join([BEFORE, *odd, b""])) == []
