"""Two dumps compared as databases: what differs is named, and what is equal is not refused."""

from __future__ import annotations

import re
import secrets
import subprocess
import tracemalloc
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.postgres.dump.contents import Comparison, Contents, compare, confirm
from scarlet_backup_mcp.postgres.dump.definitions import Definition, alike
from scarlet_backup_mcp.postgres.dump.script import Handler, read_script, strip_restrict
from scarlet_backup_mcp.postgres.server.quoting import identifier

from ..conftest import MEMORY, PROJECT_ROOT, Stack
from ..helpers.containers import run_docker

NASTY = PROJECT_ROOT / "tests" / "data" / "nasty.sql"
ROLES = ('nasty O\'Brien "the" owner', "nasty роль с пробелом", "nasty user", "nasty PUBLIC")


def read(script: bytes, like: Contents | None = None) -> Contents:
    contents = Contents(like)
    read_script([script], contents)
    return contents


def compared(before: bytes, after: bytes, *, same_version: bool = True) -> Comparison:
    first = read(before)
    return compare(first, read(after, first), same_version=same_version)


def named(comparison: Comparison) -> list[str]:
    return [difference.what for difference in comparison.differences]


# Without a server: rows

HEAD = b"""--
-- PostgreSQL database dump
--

\\restrict aBc

-- Dumped from database version 15.20 (Debian 15.20-0+deb12u1)
-- Dumped by pg_dump version 15.20 (Debian 15.20-0+deb12u1)

SET statement_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET row_security = off;

"""


def copies(*blocks: tuple[bytes, bytes]) -> bytes:
    return HEAD + b"".join(b"COPY s.%b FROM stdin;\n%b\\.\n" % block for block in blocks)


def test_the_order_of_rows_and_the_number_of_blocks_make_no_difference() -> None:
    before = copies((b"t (a, b)", b"1\tx\n2\ty\n\\N\t\n"), (b"u (a)", b"1\n"))
    after = copies((b"u (a)", b"1\n"), (b"t (a, b)", b"\\N\t\n"), (b"t (a, b)", b"2\ty\n1\tx\n"))
    found = compared(before, after)
    assert (found.equal, found.complete, found.rows_compared) == (True, True, 4)


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        (b"1\tx\n2\tz\n", "3 in the backup, 2 in the restored copy"),
        (b"1\tx\n2\ty\n2\ty\n2\ty\n", "3 in the backup, 4 in the restored copy"),
        (b"1\tx\n2\ty\n3\ty\n", "3 in the backup, 3, with different content, in the restored copy"),
        (b"1\tx\n1\tx\n2\ty\n", "3 in the backup, 3, with different content, in the restored copy"),
        (b"x\t1\n2\ty\n2\ty\n", "3 in the backup, 3, with different content, in the restored copy"),
    ],
)
def test_rows_that_were_changed_dropped_or_doubled_are_told(rows: bytes, shown: str) -> None:
    same = (b"u (a)", b"7\n")
    found = compared(copies((b"t (a, b)", b"1\tx\n2\ty\n2\ty\n"), same), copies((b"t (a, b)", rows), same))
    assert list(map(str, found.differences)) == [f"rows of s.t: {shown}"]
    assert not found.equal
    assert found.rows_compared == 1


def test_a_table_without_a_block_has_no_rows() -> None:
    empty, filled = copies((b"t (a)", b"")), copies((b"t (a)", b"1\n"))
    assert compared(HEAD, empty).equal
    assert compared(empty, HEAD).equal
    assert named(compared(HEAD, filled)) == named(compared(filled, HEAD)) == ["rows of s.t"]


def test_rows_of_partitions_and_copies_with_another_order_of_columns_are_equal() -> None:
    first, second = (b"t (a, b, c)", b"1\t\\t\tx\n"), (b"t (c, a, b)", b"y\t2\t\n")
    turned = (b"t (b, c, a)", b"\ty\t2\n\\t\tx\t1\n")
    assert compared(copies(first, second), copies(second, first)).equal
    assert compared(copies(first, second), copies(turned)).equal
    assert compared(copies(turned), copies(second, first)).equal
    swapped = (b"t (b, c, a)", b"\ty\t2\nx\t\\t\t1\n")
    assert named(compared(copies(first, second), copies(swapped))) == ["rows of s.t"]
    assert named(compared(copies((b"t (a, b)", b"1\t2\n")), copies((b"t (a, c)", b"1\t2\n")))) == []


def test_reordered_rows_in_pieces_of_any_size() -> None:
    before = copies((b"t (a, b)", b"1\t" + b"x" * 3_000_000 + b"\n2\ty\n"))
    after = copies((b"t (b, a)", b"y\t2\n" + b"x" * 3_000_000 + b"\t1\n"))
    first = read(before)
    second = Contents(first)
    read_script((after[at : at + 70_001] for at in range(0, len(after), 70_001)), second)
    assert compare(first, second).equal


def test_two_scripts_read_apart_are_not_compared_wrongly() -> None:
    before, after = copies((b"t (a, b)", b"1\t2\n")), copies((b"t (b, a)", b"2\t1\n"))
    with pytest.raises(ValueError, match="like"):
        compare(read(before), read(after))


def test_inserted_rows_compare_with_inserted_rows_however_they_are_grouped() -> None:
    single = b"INSERT INTO s.t VALUES (1, 'a;(b', NULL);\nINSERT INTO s.t VALUES (-2, 'it''s', ARRAY[1, f(2, 3)]);\n"
    many = b"INSERT INTO s.t VALUES\n\t(-2, 'it''s', ARRAY[1, f(2, 3)]),\n\t(1, 'a;(b', NULL);\n"
    other = many.replace(b"(1, 'a", b"(1, 'A")
    assert read(HEAD + many).rows["s", "t"].rows == 2
    found = compared(HEAD + single, HEAD + many)
    assert (found.equal, found.complete, found.rows_compared) == (True, True, 2)
    assert named(compared(HEAD + single, HEAD + other)) == ["rows of s.t"]
    assert named(compared(HEAD + single, HEAD + single.splitlines(keepends=True)[0])) == ["rows of s.t"]


def test_inserted_rows_with_names_of_columns_may_have_them_in_another_order() -> None:
    before = HEAD + b"INSERT INTO s.t (a, \"b c\") OVERRIDING SYSTEM VALUE VALUES (1, 'x');\n"
    after = HEAD + b"INSERT INTO s.t (\"b c\", a) OVERRIDING SYSTEM VALUE VALUES ('x', 1);\n"
    found = compared(before, after)
    assert (found.equal, found.rows_compared) == (True, 1)
    assert not compared(before, after.replace(b"'x'", b"'y'")).equal
    assert "--column-inserts" in read(before).options


def test_inserted_and_copied_rows_compare_by_their_number() -> None:
    inserted = HEAD + b"INSERT INTO s.t VALUES (1);\nINSERT INTO s.none DEFAULT VALUES;\n"
    copied = copies((b"t (a)", b"1\n"), (b"none ", b"\n"))
    found = compared(inserted, copied)
    assert (found.by_number, found.not_compared, found.complete) == (["s.none", "s.t"], [], False)
    assert (found.equal, found.rows_compared) == (True, 0)
    assert named(compared(inserted + b"INSERT INTO s.t VALUES (1);\n", copied)) == ["rows of s.t"]
    assert "--inserts" in read(inserted).options
    with_names = HEAD + b"INSERT INTO s.t (a, b) VALUES (1, 2);\n"
    assert compared(with_names, copies((b"t (b, a)", b"2\t1\n"))).by_number == ["s.t"]


@pytest.mark.parametrize("rest", [b"VALUES (1) ON CONFLICT DO NOTHING;", b"SELECT 1;", b"VALUES (1) RETURNING (1);"])
def test_inserted_rows_that_can_not_be_counted_are_not_compared(rest: bytes) -> None:
    found = compared(HEAD + b"INSERT INTO s.t VALUES (1);\nINSERT INTO s.t " + rest + b"\n", copies((b"t (a)", b"1\n")))
    assert (found.not_compared, found.complete) == (["s.t"], False)


# Without a server: definitions


def entry(name: str, kind: str, definition: str, owner: str = "postgres", schema: str = "s") -> bytes:
    return f"--\n-- Name: {name}; Type: {kind}; Schema: {schema}; Owner: {owner}\n--\n\n{definition}\n\n\n".encode()


TABLE = entry("t", "TABLE", "CREATE TABLE s.t (\n    a integer\n);\n\n\nALTER TABLE s.t OWNER TO postgres;")
KEY = entry("t t_pkey", "CONSTRAINT", "ALTER TABLE ONLY s.t\n    ADD CONSTRAINT t_pkey PRIMARY KEY (a);")
VALUE = entry("q", "SEQUENCE SET", "SELECT pg_catalog.setval('s.q', 7, true);")
GRANT = entry("TABLE t", "ACL", "GRANT SELECT ON TABLE s.t TO reader;")
COMMENT = entry("TABLE t", "COMMENT", "COMMENT ON TABLE s.t IS 'one  two -- three';")
SCRIPT = HEAD + TABLE + KEY + VALUE + GRANT + COMMENT


@pytest.mark.parametrize(
    "after",
    [
        HEAD + COMMENT + GRANT + VALUE + KEY + TABLE,
        SCRIPT.replace(b"15.20", b"15.21").replace(b"aBc", b"dEf").replace(b"row_security = off", b"row_security = on"),
        SCRIPT.replace(b"SET row", b"SET transaction_timeout = 0;\nSET row"),
        SCRIPT.replace(b"\n    a integer\n", b" a  integer -- a comment\n "),
        SCRIPT.replace(b"--\n-- Name: t; Type", b"SET default_tablespace = '';\n\n--\n-- Name: t; Type"),
        SCRIPT.replace(b"--\n-- Name: t; Type", b"SET default_table_access_method = heap;\n\n--\n-- Name: t; Type"),
        SCRIPT.replace(b"; Owner: postgres\n--\n\nSELECT", b"; Owner: postgres; Tablespace: \n--\n\nSELECT"),
        SCRIPT.replace(b"--\n-- Name: t; Type", b"DROP TABLE IF EXISTS s.t;\n\n--\n-- Name: t; Type"),
        SCRIPT + b"--\n-- Statistics for Name: t; Type: STATISTICS DATA; Schema: s; Owner: -\n--\n\n"
        b"SELECT * FROM pg_catalog.pg_restore_relation_stats(\n\t'relpages', '5'::integer\n);\n",
    ],
)
def test_what_is_no_difference(after: bytes) -> None:
    assert after != SCRIPT
    for found in (compared(SCRIPT, after), compared(after, SCRIPT)):
        assert found.differences == []
        assert (found.equal, found.objects_compared) == (True, 8)


IN_A_TABLESPACE = b"SET default_tablespace = fast;\n\n--\n-- Name: "


@pytest.mark.parametrize(
    ("after", "what"),
    [
        (HEAD + TABLE + KEY + GRANT + COMMENT, ["SEQUENCE SET s.q"]),
        (SCRIPT + GRANT, ["ACL ON TABLE s.t"]),
        (SCRIPT.replace(b"7, true", b"7, false"), ["SEQUENCE SET s.q"]),
        (SCRIPT.replace(b"ACL; Schema: s; Owner: postgres", b"ACL; Schema: s; Owner: bob"), ["ACL ON TABLE s.t"]),
        (SCRIPT.replace(b"OWNER TO postgres", b"OWNER TO bob"), ["TABLE s.t"]),
        (SCRIPT.replace(b"one  two", b"one two"), ["COMMENT ON TABLE s.t"]),
        (SCRIPT.replace(b"a integer", b"a bigint"), ["TABLE s.t"]),
        (SCRIPT.replace(b"SELECT ON", b"INSERT ON"), ["ACL ON TABLE s.t"]),
        (SCRIPT.replace(b"--\n-- Name: t; Type", IN_A_TABLESPACE + b"t; Type"), ["TABLE s.t", "CONSTRAINT s.t t_pkey"]),
        (SCRIPT.replace(b"--\n-- Name: t t_pkey", IN_A_TABLESPACE + b"t t_pkey"), ["CONSTRAINT s.t t_pkey"]),
        (SCRIPT.replace(b"--\n-- Name: TABLE t", IN_A_TABLESPACE + b"TABLE t"), []),
        (SCRIPT.replace(b"--\n-- Name: t;", b"SET default_table_access_method = columns;\n-- Name: t;"), ["TABLE s.t"]),
        (SCRIPT.replace(b"'UTF8'", b"'LATIN1'"), ["statements outside any object"]),
        (SCRIPT.replace(b"'search_path', ''", b"'search_path', 's'"), ["statements outside any object"]),
        (SCRIPT + b"-- PostgreSQL database dump complete\n", []),
        (SCRIPT.replace(b"SET row", b"CREATE TABLE s.more ();\nSET row"), ["statements outside any object"]),
    ],
)
def test_what_is_a_difference(after: bytes, what: list[str]) -> None:
    assert after != SCRIPT
    assert named(compared(SCRIPT, after)) == what
    assert named(compared(after, SCRIPT)) == what


def stripped(script: bytes) -> bytes:
    return re.sub(rb"(?m)^--.*\n", b"", script)


def test_scripts_without_comments_are_compared_statement_by_statement() -> None:
    bare = stripped(SCRIPT)
    assert not read(bare).has_objects
    found = compared(bare, SCRIPT)
    assert (found.equal, found.by_object) == (True, False)
    assert named(compared(bare.replace(b"a integer", b"a bigint"), SCRIPT)) == ["CREATE TABLE s.t"]
    assert named(compared(bare + b"COMMENT ON TABLE s.t IS 'x';\n", SCRIPT)) == ["COMMENT ON TABLE s.t IS 'x'"]
    assert named(compared(bare.replace(b"7, true", b"7, false"), SCRIPT)) == ["SELECT pg_catalog.setval"]


def test_texts_are_shown_round_the_first_difference() -> None:
    long = b", ".join(b"column_%d integer" % at for at in range(200))
    before = SCRIPT.replace(b"a integer", long)
    (difference,) = compared(before, before.replace(b"column_150 integer", b"column_150 text")).differences
    assert "column_150 integer" in difference.before
    assert "column_150 text" in difference.after
    assert len(difference.before) < 520


def test_options_make_a_dump_of_the_same_form() -> None:
    assert read(SCRIPT).options == ["--encoding=UTF8"]
    assert read(SCRIPT.replace(b"Owner: postgres", b"Owner: -")).options == ["--encoding=UTF8", "--no-owner"]
    assert read(stripped(SCRIPT)).options == ["--encoding=UTF8"]


@pytest.mark.parametrize(
    ("script", "quoted"),
    [
        (b'CREATE SCHEMA "s";\nCREATE TABLE "s"."T" (\n    "A" "text"\n);\n', True),
        (b'CREATE TABLE "S"."T" (\n    "id" integer\n);\nCREATE TABLE "s"."t" (\n);\n', True),
        (b'CREATE TABLE "S"."T" (\n    "A" "text"\n);\n', False),
        (b'CREATE TABLE public."user" (\n    "order" text\n);\n', False),
        (b'CREATE TABLE "S"."T" (\n    id integer,\n    "order" text\n);\nCREATE SCHEMA "user";\n', False),
        (b'CREATE SCHEMA "user";\nCREATE SCHEMA s;\n', False),
    ],
)
def test_quotes_without_need_are_told_from_those_that_names_need(script: bytes, quoted: bool) -> None:
    assert ("--quote-all-identifiers" in read(HEAD + script).options) is quoted


HASHED = b"CREATE TABLE s.h (m s.mood)\nPARTITION BY HASH (m);\nALTER TABLE ONLY s.h ATTACH PARTITION s.h1 DEFAULT;\n"
RANGED = b"CREATE TABLE s.r (a int)\nPARTITION BY RANGE (a);\nCREATE TABLE s.r1 PARTITION OF s.r DEFAULT;\n"


@pytest.mark.parametrize(
    ("rows", "via_root"),
    [
        (b"COPY s.h (m) FROM stdin;\n\\.\nCOPY s.r (a) FROM stdin;\n\\.\n", True),
        (b"INSERT INTO s.r VALUES (1);\n", True),
        (b"COPY s.h (m) FROM stdin;\n\\.\nCOPY s.r1 (a) FROM stdin;\n\\.\n", False),
        (b"COPY s.h1 (m) FROM stdin;\n\\.\nCOPY s.r1 (a) FROM stdin;\n\\.\n", False),
        (b"", False),
    ],
)
def test_rows_are_told_to_be_loaded_via_the_root_from_all_partitions_together(rows: bytes, via_root: bool) -> None:
    assert ("--load-via-partition-root" in read(HEAD + HASHED + RANGED + rows).options) is via_root


# Without a server: large objects

LARGE = b"""--
-- Name: 7; Type: BLOB; Schema: -; Owner: bob
--

SELECT pg_catalog.lo_create('7');


ALTER LARGE OBJECT 7 OWNER TO bob;

--
-- Name: 8; Type: BLOB; Schema: -; Owner: bob
--

SELECT pg_catalog.lo_create('8');


ALTER LARGE OBJECT 8 OWNER TO bob;

--
-- Data for Name: BLOBS; Type: BLOBS; Schema: -; Owner: -
--

BEGIN;

SELECT pg_catalog.lo_open('7', 131072);
SELECT pg_catalog.lowrite(0, '\\x00ff');
SELECT pg_catalog.lowrite(0, '\\x5c2e');
SELECT pg_catalog.lo_close(0);

SELECT pg_catalog.lo_open('8', 131072);
SELECT pg_catalog.lo_close(0);

COMMIT;
"""
GROUPED = b"""--
-- Name: 7..8; Type: BLOB METADATA; Schema: -; Owner: bob
--

SELECT pg_catalog.lo_create('7');
SELECT pg_catalog.lo_create('8');

ALTER LARGE OBJECT 7 OWNER TO bob;
ALTER LARGE OBJECT 8 OWNER TO bob;

--
-- Data for Name: 7..8; Type: BLOBS; Schema: -; Owner: bob
--

BEGIN;

SELECT pg_catalog.lo_open('7', 131072);
SELECT pg_catalog.lowrite(0, '\\x00ff5c2e');
SELECT pg_catalog.lo_close(0);

COMMIT;
"""


def test_large_objects_are_compared_one_by_one_however_they_are_grouped() -> None:
    assert compared(HEAD + LARGE, HEAD + GROUPED).equal
    assert named(compared(HEAD + LARGE, HEAD + GROUPED.replace(b"ff5c", b"ff5d"))) == ["content of large object 7"]
    assert named(compared(HEAD + LARGE, HEAD + GROUPED.replace(b"8 OWNER TO bob", b"8 OWNER TO eve"))) == [
        "LARGE OBJECT 8"
    ]
    assert named(compared(HEAD + LARGE, HEAD + LARGE.replace(b"'8'", b"'9'"))) == ["LARGE OBJECT 8", "LARGE OBJECT 9"]


def test_memory_does_not_grow_with_rows_and_large_objects() -> None:
    row = b"7\t" + b"0.1234567," * 50 + b"\n"
    block = row * 2000
    write = b"SELECT pg_catalog.lowrite(0, '\\x%b');\n" % (b"00" * 16384)

    def chunks() -> Iterator[bytes]:
        yield b"COPY s.t (a, b) FROM stdin;\n\\.\nCOPY s.t (b, a) FROM stdin;\n"
        yield from [block] * 60
        yield b"\\.\nSELECT pg_catalog.lo_open('7', 131072);\n"
        yield from [write] * 1000
        yield b"SELECT pg_catalog.lo_close(0);\n"
        yield from [b"INSERT INTO s.i VALUES ('%b');\n" % (b"x" * 50_000)] * 600

    contents = Contents()
    tracemalloc.start()
    read_script(chunks(), contents)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert contents.rows["s", "t"].rows == 120_000
    assert contents.rows["s", "i"].rows == 600
    assert peak < 12 * len(block)


# Without a server: what may have been rewritten


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = ANY ((ARRAY['a'::character varying])::text[])", "x = ANY (ARRAY[('a'::character varying)::text])"),
        ("a AND (b AND c)", "a AND b AND c"),
        ("a > (- 1)", "a > '-1'::integer"),
        ("a > (- 1.5e10)", "a > '-1.5e10'::double precision"),
        ("ARRAY[a]::timestamp(3) without time zone[]", "ARRAY[(a)::timestamp(3) without time zone]"),
        ("ARRAY[a]::time with time zone[]", "ARRAY[(a)::time with time zone]"),
        ("ARRAY[a]::interval day to second(3)[]", "ARRAY[(a)::interval day to second(3)]"),
        ("ARRAY[a]::numeric(10,2)[]", "ARRAY[(a)::numeric(10,2)]"),
        ("ARRAY[a]::bit varying(5)[]", "ARRAY[(a)::bit varying(5)]"),
        ('ARRAY[a]::"char"[]', 'ARRAY[(a)::"char"]'),
        ('ARRAY[a]::s."Odd ""type"""(3)[]', 'ARRAY[(a)::s."Odd ""type"""(3)]'),
        ("ARRAY[a]::s.mood[]", "ARRAY[(a)::s.mood]"),
    ],
)
def test_casts_and_parentheses_may_have_been_rewritten(one: str, other: str) -> None:
    def check(expression: str) -> Definition:
        return Definition(
            "o", (f"CREATE TABLE s.t (\n    a integer,\n    CONSTRAINT c CHECK ({expression})\n);".encode(),)
        )

    assert alike(check(one), check(other))
    assert alike(check(other), check(one))
    assert not alike(check(one), check(other + " + 1"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("n IS DISTINCT FROM k", "(n)::text IS DISTINCT FROM (k)::text"),
        ("NULLIF(n, 'a'::ext.citext)", "NULLIF((n)::text, ('a'::ext.citext)::text)"),
        ("a", "a::timestamp(3) without time zone"),
        ("a = (1)::bigint", "a = ((1)::numeric)"),
        ("x = ANY (ARRAY[a]::text[])", "x = ANY (ARRAY[a])"),
        ("x = ANY (ARRAY[a]::text[])", "x = ANY (ARRAY[(a)::character varying])"),
        ("x = ANY (ARRAY[a]::text[])", "(x)::character varying = ANY (ARRAY[(a)::text])"),
    ],
)
def test_a_cast_more_or_less_is_a_difference(one: str, other: str) -> None:
    first, second = (
        Definition("o", (f"CREATE INDEX i ON s.t USING btree ({each});".encode(),)) for each in (one, other)
    )
    assert not alike(first, second)
    assert not alike(second, first)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CREATE TABLE s.t (a character varying(10));", "CREATE TABLE s.t (a character varying(11));"),
        ("CREATE TABLE s.t (a text, b text);", "CREATE TABLE s.t (b text, a text);"),
        ("CREATE TABLE s.t (a text, b text)\nINHERITS (p);", "CREATE TABLE s.t (a text, b int)\nINHERITS (p);"),
        ("CREATE TABLE s.t (CHECK ((a = ')'::text)));", "CREATE TABLE s.t (CHECK ((a = ''::text)));"),
        ("CREATE TABLE s.t (a text DEFAULT 'x'::text);", "CREATE TABLE s.t (a text DEFAULT '::text'::text);"),
        ("CREATE TABLE s.t (a int DEFAULT 1);", "CREATE TABLE s.t (a int DEFAULT '-1'::int);"),
        ("CREATE FUNCTION f() AS $$a::text$$;", "CREATE FUNCTION f() AS $$a$$;"),
        ("CREATE VIEW v AS SELECT 'a'::text AS x;", "CREATE VIEW v AS SELECT 'b'::text AS x;"),
        ("COMMENT ON TABLE t IS '(a)';", "COMMENT ON TABLE t IS 'a';"),
        ("CREATE CAST (a AS b) WITHOUT FUNCTION;", "CREATE CAST a AS b WITHOUT FUNCTION;"),
        ("GRANT SELECT(a) ON TABLE t TO u;", "GRANT SELECT a ON TABLE t TO u;"),
    ],
)
def test_nothing_else_may_have_been_rewritten(one: str, other: str) -> None:
    assert not alike(Definition("o", (one.encode(),)), Definition("o", (other.encode(),)))


def test_another_owner_is_never_taken_for_a_rewritten_text() -> None:
    one, other = (Definition(owner, (b"CREATE VIEW v AS SELECT 1;",)) for owner in ("a", "b"))
    assert not alike(one, other)


CHECKED = SCRIPT.replace(b"a integer", b"a integer,\n    CONSTRAINT c CHECK ((a = ANY ((ARRAY[b])::bigint[])))")
RELOADED = CHECKED.replace(b"(ARRAY[b])::bigint[]", b"ARRAY[(b)::bigint]")


def test_a_rewritten_definition_is_equal_only_once_it_is_confirmed() -> None:
    before = read(CHECKED)
    after = read(RELOADED, before)
    found = compare(before, after)
    assert (found.differences, found.equal, [item.what for item in found.rewritten]) == ([], False, ["TABLE s.t"])
    confirmed = confirm(found, read(RELOADED), after)
    assert confirmed.equal
    assert "(ARRAY[b])::bigint[]" in confirmed.rewritten[0].before
    assert "ARRAY[(b)::bigint]" in confirmed.rewritten[0].after
    for again in (CHECKED, SCRIPT, HEAD):
        refused = confirm(found, read(again), after)
        assert (named(refused), refused.rewritten, refused.equal) == (["TABLE s.t"], [], False)


def test_another_versions_spelling_is_to_be_confirmed_but_no_value_owner_or_string() -> None:
    view = entry("v", "VIEW", "CREATE VIEW s.v AS\n SELECT t.a FROM s.t;\n\n\nALTER TABLE s.v OWNER TO postgres;")
    newer = view.replace(b"t.a", b"a").replace(b"ALTER TABLE", b"ALTER VIEW")
    found = compared(SCRIPT + view, SCRIPT + newer, same_version=False)
    assert (found.differences, [item.what for item in found.rewritten]) == ([], ["VIEW s.v"])
    assert named(compared(SCRIPT + view, SCRIPT + newer)) == ["VIEW s.v"]
    for old, new in (
        (b"7, true", b"8, true"),
        (b"'one", b"'other"),
        (b"ACL; Schema: s; Owner: p", b"ACL; Schema: s; Owner: q"),
    ):
        assert len(named(compared(SCRIPT, SCRIPT.replace(old, new), same_version=False))) == 1
    assert named(compared(SCRIPT + view, SCRIPT, same_version=False)) == ["VIEW s.v"]


# On a server


@dataclass(frozen=True)
class Place:
    """A server's psql and pg_dump."""

    psql: Callable[[str, bytes], bytes]
    pg_dump: Callable[..., bytes]

    @contextmanager
    def database(self, template: str = "template0") -> Generator[str]:
        name = f"contents_{secrets.token_hex(4)}"
        self.psql("postgres", f"CREATE DATABASE {name} TEMPLATE {template};".encode())
        try:
            yield name
        finally:
            self.psql("postgres", f"DROP DATABASE {name} WITH (FORCE);".encode())

    def loaded(self, script: bytes, *options: str) -> bytes:
        """A dump of a new database with that in it."""
        with self.database() as name:
            self.psql(name, b"".join(strip_restrict([script])))
            return self.pg_dump(name, *options)


@pytest.fixture(scope="module")
def local(embedded: EmbeddedServer) -> Place:
    def run(program: str, database: str, *arguments: str, stdin: bytes = b"") -> bytes:
        command = [str(embedded.bin_dir / program), "-d", embedded.dsn(database), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout

    def psql(database: str, statements: bytes) -> bytes:
        return run("psql", database, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-", stdin=statements)

    def pg_dump(database: str, *options: str) -> bytes:
        return run("pg_dump", database, *options)

    return Place(psql, pg_dump)


@pytest.fixture(scope="module")
def roles(local: Place) -> Iterator[None]:
    names = [identifier(role) for role in ROLES]
    local.psql("postgres", "".join(f"CREATE ROLE {name};" for name in names).encode())
    yield
    local.psql("postgres", "".join(f"DROP ROLE {name};" for name in names).encode())


BASE = """
CREATE SCHEMA s; CREATE SCHEMA other;
CREATE TYPE s.mood AS ENUM ('sad', 'ok');
CREATE DOMAIN s.code AS varchar(9) DEFAULT 'a' CHECK (VALUE IN ('a', 'b'));
CREATE FUNCTION s.f(a int DEFAULT 1) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION s.noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TABLE s.agents (
    id int PRIMARY KEY, name varchar(20) DEFAULT 'x' CHECK (name IN ('x', 'y')), mood s.mood, at timestamptz, note text,
    doubled int GENERATED ALWAYS AS (id * 2) STORED, n bigint GENERATED BY DEFAULT AS IDENTITY
);
INSERT INTO s.agents (id, name, at) SELECT i, 'x', '2026-01-01' FROM generate_series(1, 20) AS i;
CREATE TABLE s.notes (agent int CONSTRAINT known REFERENCES s.agents ON DELETE CASCADE, body text NOT NULL);
INSERT INTO s.notes SELECT i, 'note ' || i FROM generate_series(1, 20) AS i;
CREATE INDEX notes_body ON s.notes (lower(body)) WHERE body IN ('a', 'b');
ALTER TABLE s.notes REPLICA IDENTITY FULL;
CREATE SEQUENCE s.counter; SELECT nextval('s.counter');
CREATE VIEW s.named AS SELECT name, 'x' AS lit FROM s.agents WHERE name IN ('x', 'y');
CREATE MATERIALIZED VIEW s.counted AS SELECT count(*) FROM s.notes;
CREATE TRIGGER noted BEFORE UPDATE ON s.notes FOR EACH ROW WHEN (NEW.body IS DISTINCT FROM OLD.body)
    EXECUTE FUNCTION s.noted();
CREATE RULE kept AS ON DELETE TO s.notes WHERE OLD.agent = 1 DO INSTEAD NOTHING;
ALTER TABLE s.notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON s.notes USING (agent > 0 AND body IN ('a', 'b'));
CREATE STATISTICS s.both ON agent, body FROM s.notes;
CREATE PUBLICATION news FOR TABLE s.notes WHERE (agent > 0);
GRANT SELECT ON s.agents TO "nasty user";
COMMENT ON TABLE s.agents IS 'agents';
ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON TABLES TO "nasty user";
SELECT lo_from_bytea(4711, '\\x00ff');
"""


@dataclass(frozen=True)
class Base:
    place: Place
    name: str
    dump: bytes
    again: bytes
    """What a database is dumped as that was made from `dump`."""


@pytest.fixture(scope="module")
def base(local: Place, roles: None) -> Iterator[Base]:
    with local.database() as name:
        local.psql(name, BASE.encode())
        dump = local.pg_dump(name)
        yield Base(local, name, dump, local.loaded(dump))


def verdict(before: bytes, after: bytes, again: bytes, *, same_version: bool = True) -> Comparison:
    first = read(before)
    second = read(after, first)
    found = compare(first, second, same_version=same_version)
    return found if found.confirmed else confirm(found, read(again), second)


CHANGES = [
    ("UPDATE s.notes SET body = 'note X' WHERE agent = 7", "rows of s.notes"),
    ("SET session_replication_role = replica; DELETE FROM s.agents WHERE id = 20", "rows of s.agents"),
    ("INSERT INTO s.notes SELECT * FROM s.notes WHERE agent = 3", "rows of s.notes"),
    ("UPDATE s.agents SET at = at + interval '1 microsecond' WHERE id = 1", "rows of s.agents"),
    ("UPDATE s.agents SET note = '' WHERE id = 1", "rows of s.agents"),
    ("ALTER TABLE s.agents ALTER note TYPE varchar", "TABLE s.agents"),
    ("ALTER TABLE s.agents ALTER at TYPE timestamptz(3)", "TABLE s.agents"),
    ("ALTER TABLE s.agents ALTER name SET DEFAULT 'y'", "TABLE s.agents"),
    ("ALTER TABLE s.agents ALTER name DROP DEFAULT", "TABLE s.agents"),
    ("ALTER TABLE s.notes ALTER body DROP NOT NULL", "TABLE s.notes"),
    ("ALTER TABLE s.notes ALTER body SET STORAGE EXTERNAL", "TABLE s.notes"),
    ("ALTER TABLE s.notes SET (fillfactor = 50)", "TABLE s.notes"),
    ("DROP PUBLICATION news; ALTER TABLE s.notes SET UNLOGGED", "TABLE s.notes"),
    ("ALTER TABLE s.notes RENAME body TO text", "TABLE s.notes"),
    ("ALTER TABLE s.agents ALTER doubled SET EXPRESSION AS (id * 3)", "TABLE s.agents"),
    ("ALTER TABLE s.agents ALTER n SET GENERATED ALWAYS", "SEQUENCE s.agents_n_seq"),
    ("ALTER TABLE s.agents DROP CONSTRAINT agents_name_check", "TABLE s.agents"),
    (
        "ALTER TABLE s.agents DROP CONSTRAINT agents_name_check, "
        "ADD CONSTRAINT agents_name_check CHECK (name IN ('x', 'z'))",
        "TABLE s.agents",
    ),
    ("ALTER TABLE s.agents ADD CHECK (id > 0)", "TABLE s.agents"),
    ("ALTER TABLE s.notes DROP CONSTRAINT known", "FK CONSTRAINT s.notes known"),
    ("ALTER TABLE s.notes ALTER CONSTRAINT known DEFERRABLE", "FK CONSTRAINT s.notes known"),
    ("ALTER TABLE s.agents DROP CONSTRAINT agents_pkey CASCADE", "CONSTRAINT s.agents agents_pkey"),
    ("DROP INDEX s.notes_body", "INDEX s.notes_body"),
    (
        "DROP INDEX s.notes_body; CREATE INDEX notes_body ON s.notes (lower(body)) WHERE body IN ('a')",
        "INDEX s.notes_body",
    ),
    (
        "DROP INDEX s.notes_body; CREATE UNIQUE INDEX notes_body ON s.notes (lower(body)) WHERE body IN ('a', 'b')",
        "INDEX s.notes_body",
    ),
    ("CREATE INDEX more ON s.notes (agent)", "INDEX s.more"),
    ('GRANT INSERT ON s.agents TO "nasty user"', "ACL ON TABLE s.agents"),
    ('REVOKE ALL ON s.agents FROM "nasty user"', "ACL ON TABLE s.agents"),
    ('GRANT SELECT (body) ON s.notes TO "nasty user"', "ACL ON COLUMN s.notes.body"),
    ("GRANT USAGE ON SCHEMA s TO PUBLIC", "ACL ON SCHEMA s"),
    (
        'ALTER DEFAULT PRIVILEGES IN SCHEMA s REVOKE SELECT ON TABLES FROM "nasty user"',
        "DEFAULT ACL s.DEFAULT PRIVILEGES FOR TABLES",
    ),
    ('ALTER TABLE s.notes OWNER TO "nasty user"', "TABLE s.notes"),
    ('ALTER FUNCTION s.f OWNER TO "nasty user"', "FUNCTION s.f(integer)"),
    (
        "CREATE OR REPLACE FUNCTION s.f(a int DEFAULT 2) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'",
        "FUNCTION s.f(integer)",
    ),
    (
        "CREATE OR REPLACE FUNCTION s.f(a int DEFAULT 1) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT ($1)'",
        "FUNCTION s.f(integer)",
    ),
    ("COMMENT ON TABLE s.agents IS 'Agents'", "COMMENT ON TABLE s.agents"),
    ("CREATE SCHEMA more", "SCHEMA more"),
    ("DROP SCHEMA other", "SCHEMA other"),
    ('ALTER SCHEMA other OWNER TO "nasty user"', "SCHEMA other"),
    ("CREATE EXTENSION vector SCHEMA other", "EXTENSION vector"),
    ("SELECT nextval('s.counter')", "SEQUENCE SET s.counter"),
    ("ALTER SEQUENCE s.counter INCREMENT 2", "SEQUENCE s.counter"),
    (
        "CREATE OR REPLACE VIEW s.named AS SELECT name, 'y' AS lit FROM s.agents WHERE name IN ('x', 'y')",
        "VIEW s.named",
    ),
    ("ALTER VIEW s.named RENAME lit TO literal", "VIEW s.named"),
    ("ALTER VIEW s.named SET (security_invoker)", "VIEW s.named"),
    ("REFRESH MATERIALIZED VIEW s.counted WITH NO DATA", "MATERIALIZED VIEW DATA s.counted"),
    ("ALTER TABLE s.notes DISABLE TRIGGER noted", "TRIGGER s.notes noted"),
    ("DROP RULE kept ON s.notes", "RULE s.notes kept"),
    ("ALTER POLICY own ON s.notes USING (agent > 1 AND body IN ('a', 'b'))", "POLICY s.notes own"),
    ("ALTER TABLE s.notes DISABLE ROW LEVEL SECURITY", "ROW SECURITY s.notes"),
    ("ALTER TYPE s.mood ADD VALUE 'more'", "TYPE s.mood"),
    ("ALTER DOMAIN s.code SET DEFAULT 'b'", "DOMAIN s.code"),
    ("DROP STATISTICS s.both", "STATISTICS s.both"),
    ("ALTER PUBLICATION news SET (publish = 'insert')", "PUBLICATION news"),
    ("ALTER PUBLICATION news SET TABLE s.notes WHERE (agent > 1)", "PUBLICATION TABLE s.news notes"),
    ("SELECT lo_put(4711, 0, '\\x01')", "content of large object 4711"),
    ("SELECT lo_create(4712)", "LARGE OBJECT 4712"),
]


@pytest.mark.parametrize(("change", "what"), CHANGES)
def test_a_change_is_found_and_named(base: Base, change: str, what: str) -> None:
    with base.place.database(base.name) as name:
        base.place.psql(name, change.encode())
        found = verdict(base.dump, base.place.pg_dump(name), base.again)
    assert what in named(found)
    assert not found.equal


def test_a_cast_alone_is_a_difference(base: Base) -> None:
    change = b"ALTER TABLE s.agents ALTER doubled SET EXPRESSION AS (id * (2)::int2)"
    with base.place.database(base.name) as name:
        base.place.psql(name, change)
        after = base.place.pg_dump(name)
    assert named(compared(base.dump, after)) == ["TABLE s.agents"]
    assert named(verdict(base.dump, after, base.again)) == ["TABLE s.agents"]


def test_what_a_server_rewrites_is_equal(base: Base) -> None:
    found = verdict(base.dump, base.again, base.place.loaded(base.dump))
    assert found.differences == []
    assert {"DOMAIN s.code", "TABLE s.agents", "VIEW s.named"} <= {item.what for item in found.rewritten}
    assert (found.equal, found.rows_compared) == (True, 40)


def test_updates_deletes_and_another_time_zone_make_no_difference(base: Base) -> None:
    with base.place.database(base.name) as name:
        base.place.psql(
            name,
            f"""ALTER DATABASE {name} SET timezone TO 'Asia/Kathmandu';
            SET session_replication_role = replica;
            INSERT INTO s.agents (id, name, at, n) SELECT id + 100, name, at, n FROM s.agents;
            DELETE FROM s.agents WHERE id BETWEEN 5 AND 110; VACUUM s.agents;
            UPDATE s.agents SET note = 'n' WHERE id % 3 = 0; DELETE FROM s.notes WHERE agent % 2 = 0 OR agent > 4;
            INSERT INTO s.notes SELECT 1 + i % 4, repeat('n', i) FROM generate_series(500, 600) AS i;""".encode(),
        )
        before = base.place.pg_dump(name)
        assert b"+05:45" in before
        base.place.psql("postgres", f"ALTER DATABASE {name} RESET timezone".encode())
        utc = base.place.pg_dump(name)
    once = base.place.loaded(before)
    assert verdict(utc, once, once).equal


def test_a_dump_without_owners_and_with_inserts_is_compared_with_one_of_the_same_form(base: Base) -> None:
    for options in (
        ("--no-owner", "--inserts"),
        ("--column-inserts",),
        ("--rows-per-insert=7", "--clean", "--if-exists"),
    ):
        before = base.place.pg_dump(base.name, *options)
        after = base.place.loaded(before, *read(before).options)
        found = verdict(before, after, after)
        assert ({*named(found)}, found.complete, found.rows_compared) == (set(), True, 40)


FORMS = """
CREATE SCHEMA f; CREATE TYPE f.mood AS ENUM ('sad', 'ok');
CREATE TABLE f.ranged (id int, mood f.mood, note text DEFAULT 'x') PARTITION BY RANGE (id);
CREATE TABLE f.low PARTITION OF f.ranged FOR VALUES FROM (0) TO (10);
CREATE TABLE f.high (note text, mood f.mood, id int) PARTITION BY LIST (id);
ALTER TABLE f.ranged ATTACH PARTITION f.high FOR VALUES FROM (10) TO (20);
CREATE TABLE f."High, other order" (mood f.mood, id int, note text);
ALTER TABLE f.high ATTACH PARTITION f."High, other order" DEFAULT;
CREATE TABLE f.hashed (mood f.mood, n int CHECK (n IN (1, 2, 3))) PARTITION BY HASH (mood);
CREATE TABLE f.hashed_0 PARTITION OF f.hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE f.hashed_1 PARTITION OF f.hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO f.ranged SELECT i, 'ok', 'note ' || i FROM generate_series(1, 15) AS i;
INSERT INTO f.hashed VALUES ('sad', 1), ('ok', 2), ('ok', 3);
CREATE VIEW f.v AS SELECT id AS "Id" FROM f.ranged;
ALTER TABLE f.ranged OWNER TO "forms owner"; ALTER VIEW f.v OWNER TO "forms owner";
SELECT lo_create(815); ALTER LARGE OBJECT 815 OWNER TO "forms owner";
GRANT USAGE ON SCHEMA f TO "nasty user" WITH GRANT OPTION;
SET ROLE "nasty user"; GRANT USAGE ON SCHEMA f TO PUBLIC; RESET ROLE;
"""


@pytest.fixture(scope="module")
def forms(local: Place, roles: None) -> Iterator[str]:
    """Its owner is a superuser, as a script that sets the session's authorization mostly takes one to be loaded."""
    local.psql("postgres", b'CREATE ROLE "forms owner" SUPERUSER;')
    with local.database() as name:
        local.psql(name, FORMS.encode())
        yield name
    local.psql("postgres", b'DROP ROLE "forms owner";')


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--quote-all-identifiers", None),
        ("--use-set-session-authorization --clean --if-exists", "--use-set-session-authorization"),
        ("--load-via-partition-root", None),
        ("--load-via-partition-root --column-inserts", None),
        ("--quote-all-identifiers --use-set-session-authorization --load-via-partition-root", None),
        ("--use-set-session-authorization --no-owner", "--no-owner"),
        ("", ""),
    ],
)
def test_a_dump_of_another_form_is_compared_with_one_of_the_same_form(
    local: Place, forms: str, options: str, expected: str | None
) -> None:
    before = local.pg_dump(forms, *options.split())
    like = read(before).options
    assert {*like} == {"--encoding=UTF8", *(options if expected is None else expected).split()}
    after = local.loaded(before, *like)
    found = verdict(before, after, after)
    assert (named(found), found.complete, found.equal, found.rows_compared) == ([], True, True, 18)


def test_a_dump_with_all_names_quoted_does_not_differ_by_the_public_schema_that_a_new_database_has(
    local: Place,
) -> None:
    with local.database() as name:
        local.psql(name, MEMORY.read_bytes())
        before = local.pg_dump(name, "--quote-all-identifiers")
    after = local.loaded(before, *read(before).options)
    assert (b"standard public schema" in before, b"standard public schema" in after) == (False, True)
    found = verdict(before, after, after)
    assert (named(found), found.equal) == ([], True)
    other = after.replace(b"standard public schema", b"another public schema")
    assert named(verdict(before, other, other)) == ['COMMENT ON SCHEMA "public"']
    assert named(verdict(stripped(before), after, after)) == []


def test_owners_that_only_the_sessions_authorization_tells_are_not_taken_to_be_equal(local: Place, forms: str) -> None:
    before = stripped(local.pg_dump(forms, "--use-set-session-authorization"))
    assert read(before).options == ["--encoding=UTF8"]
    assert not compared(before, local.loaded(before)).equal


@pytest.mark.parametrize(
    ("option", "changes"),
    [
        (
            "--quote-all-identifiers",
            {
                "ALTER TABLE f.ranged ALTER note SET DEFAULT 'y'": "TABLE f.ranged",
                'ALTER TABLE f.ranged RENAME note TO "Note"': "TABLE f.ranged",
            },
        ),
        (
            "--use-set-session-authorization",
            {
                "ALTER TABLE f.ranged OWNER TO postgres": "TABLE f.ranged",
                "ALTER LARGE OBJECT 815 OWNER TO postgres": "LARGE OBJECT 815",
                'REVOKE USAGE ON SCHEMA f FROM "nasty user" CASCADE': "ACL ON SCHEMA f",
            },
        ),
        (
            "--load-via-partition-root",
            {
                "UPDATE f.ranged SET note = 'x' WHERE id = 12": "rows of f.ranged",
                "DELETE FROM f.low WHERE id = 1": "rows of f.ranged",
                "ALTER TABLE f.ranged DETACH PARTITION f.low": "rows of f.low",
            },
        ),
    ],
)
def test_a_change_is_found_in_a_dump_of_another_form(
    local: Place, forms: str, option: str, changes: dict[str, str]
) -> None:
    before = local.pg_dump(forms, option)
    like = read(before).options
    again = local.loaded(before, *like)
    for change, what in changes.items():
        with local.database(forms) as name:
            local.psql(name, change.encode())
            assert what in named(verdict(before, local.pg_dump(name, *like), again))


def test_other_comments_and_none_make_no_difference(base: Base) -> None:
    verbose = base.place.pg_dump(base.name, "--verbose")
    assert b"-- TOC entry" in verbose
    assert compared(verbose, base.dump).equal
    found = verdict(stripped(base.dump), base.again, base.again)
    assert (named(found), found.equal) == ([], True)


ODDITIES = """
CREATE SCHEMA o; SET search_path = o;
CREATE TABLE t (a int, c varchar(10), d numeric, e float8 DEFAULT -1, g varchar(5),
    CHECK (c BETWEEN 'a' AND 'z' AND a > 0 OR d IN (1, 2.5)), CHECK (a > -(1::int)),
    CHECK (coalesce(c, 'x') IN ('x', 'y')),
    CHECK (c NOT IN ('p', 'q') OR c LIKE 'a%'), CHECK (CASE c WHEN 'a' THEN true WHEN 'b' THEN c IN ('p', 'q') END));
CREATE INDEX i ON t ((c || 'x'), lower(c)) WHERE c IN ('a', 'b') AND a > -(1::int);
CREATE STATISTICS st ON (c || 'x'), (a + -(1::int)) FROM t;
CREATE TABLE u (a int, c varchar(10), z text);
CREATE VIEW v AS SELECT t.a, u.z, 'lit' AS lit, -(1::int) AS neg FROM t JOIN u USING (a, c) WHERE u.c IN ('a', 'b');
CREATE VIEW w AS WITH x AS (SELECT a, c FROM t UNION ALL SELECT 1, 'x') SELECT x.*, (SELECT count(*) FROM v) FROM x;
CREATE VIEW grouped AS SELECT a, e FROM t GROUP BY a, e HAVING max(c) IN ('a', 'b') ORDER BY 1 DESC NULLS LAST;
ALTER TABLE u RENAME z TO zz; ALTER TABLE u ADD COLUMN d int; ALTER TABLE u RENAME TO uu;
CREATE RULE r AS ON UPDATE TO uu DO INSTEAD
    (UPDATE t SET a = NEW.a WHERE c IN ('a', 'b'); DELETE FROM t WHERE a = OLD.a);
CREATE POLICY p ON t USING (c IN ('a', 'b') AND a > -(1::int)) WITH CHECK (g IN ('x', 'y'));
CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER tr BEFORE UPDATE ON t FOR EACH ROW WHEN (NEW.c IN ('a', 'b') AND OLD.* IS DISTINCT FROM NEW.*)
    EXECUTE FUNCTION tf();
CREATE FUNCTION fa(p varchar DEFAULT 'x', q int DEFAULT -(1)) RETURNS int BEGIN ATOMIC
    SELECT a FROM t WHERE c IN ('a', p) OR c BETWEEN 'a' AND 'b' AND a > 0;
    SELECT count(*) FROM uu WHERE uu.c IN ('a', 'b'); END;
CREATE PUBLICATION pp FOR TABLE t WHERE (a IN (1, 2) AND a > -(1::int));
CREATE MATERIALIZED VIEW mv AS SELECT * FROM w WHERE c IN ('a', 'b');
CREATE TABLE base (a int, c varchar(5) CHECK (c IN ('a', 'b')));
CREATE TABLE late (c varchar(5), own int, a int, CONSTRAINT base_c_check CHECK (c IN ('a', 'b')),
    CHECK (own > -(1::int)));
ALTER TABLE late INHERIT base; ALTER TABLE late ALTER own SET STATISTICS 5, ALTER a SET STATISTICS 6;
INSERT INTO late VALUES ('a', 1, 2), (NULL, 3, 4);
CREATE DOMAIN dom AS varchar(9) DEFAULT 'on' CHECK (VALUE IN ('on', 'off'));
ALTER TABLE t ADD CONSTRAINT ex EXCLUDE USING btree (a WITH =, (c || 'x') WITH =) WHERE (c IN ('a', 'b'));
"""


def test_every_kind_of_expression_that_a_server_rewrites_is_equal(local: Place) -> None:
    with local.database() as name:
        local.psql(name, ODDITIES.encode())
        before = local.pg_dump(name)
    after = local.loaded(before)
    found = verdict(before, after, local.loaded(before))
    assert found.differences == []
    rewritten = " ".join(item.what for item in found.rewritten)
    assert all(
        kind in rewritten for kind in ("TABLE", "VIEW", "MATERIALIZED", "INDEX", "RULE", "POLICY", "FUNCTION", "DOMAIN")
    )
    assert (found.equal, found.rows_compared) == (True, 2)


def test_a_nasty_database_is_equal_after_a_reload(local: Place, roles: None) -> None:
    with local.database() as name:
        local.psql(name, NASTY.read_bytes())
        before = local.pg_dump(name)
    after = local.loaded(before)
    found = verdict(before, after, after)
    assert (found.differences, found.complete, found.equal) == ([], True, True)
    assert [item.what for item in found.rewritten] == [
        "TABLE nasty.late_child",
        "TABLE nasty.normalised",
        "VIEW nasty.normalised_view",
    ]
    assert sum(rows.rows or 0 for rows in read(before).rows.values()) == found.rows_compared > 4000


# Between versions


class WithoutTimeOut(Handler):
    """A script without the setting that 17 has and 15 has not."""

    def __init__(self) -> None:
        self.script = b""

    def text(self, data: bytes, line: int) -> None:
        self.script += data.replace(b"SET transaction_timeout = 0;\n", b"")

    def copy_data(self, data: bytes) -> None:
        self.script += data


@pytest.fixture(scope="module")
def old(stack: Stack) -> Place:
    """PostgreSQL 15."""

    def pg_dump(database: str, *options: str) -> bytes:
        return run_docker("exec", stack.container, "pg_dump", "-U", "postgres", *options, database).encode()

    return Place(lambda database, script: stack.psql(script.decode(), database).encode(), pg_dump)


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
