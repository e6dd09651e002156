"""Two dumps compared as databases: what differs is named, and what is equal is not refused."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from scarlet_backup_mcp.postgres.dump.contents import Contents, compare, confirm
from scarlet_backup_mcp.postgres.dump.definitions import Definition, alike
from scarlet_backup_mcp.postgres.dump.script import read_script

from ..helpers.contents import COMMENT, GRANT, LARGE, TABLE, VALUE, compared, entry, named, read, stripped

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


KEY = entry("t t_pkey", "CONSTRAINT", "ALTER TABLE ONLY s.t\n    ADD CONSTRAINT t_pkey PRIMARY KEY (a);")

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


@pytest.mark.long
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
