from __future__ import annotations

import hashlib
import re
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import xxhash

from scarlet_backup_mcp.postgres.dump import script
from scarlet_backup_mcp.postgres.dump.digests import BlockDigests, RowDigests
from scarlet_backup_mcp.postgres.dump.filters import strip_restrict
from scarlet_backup_mcp.postgres.dump.script import (
    Handler,
    ScriptDamaged,
    ScriptReader,
    Target,
    read_script,
)

DUMP = r"""--
-- PostgreSQL database dump
--

\restrict nGd1Xk

-- Dumped from database version 15.20 (Debian 15.20-0+deb12u1)
-- Dumped by pg_dump version 18.6

SET statement_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);

--
-- Name: trick(); Type: FUNCTION; Schema: public; Owner: postgres
--

CREATE FUNCTION public.trick() RETURNS text
    LANGUAGE plpgsql
    AS $_$
BEGIN
COPY public.one (a) FROM stdin;
\.
-- PostgreSQL database dump complete
\restrict abc
-- Dumped from database version 1
  RETURN '; $$ "';
END$_$;


CREATE TABLE public.one (
    a text DEFAULT 'it''s; \'::text
);

COPY public.one (a) FROM stdin;
first
\\.
-- PostgreSQL database dump complete
COPY public.one (a) FROM stdin;
\restrict abc
\N
\.


COPY "My ""odd"" schema"."t (a, b).c" ("col, one", "ü", plain) FROM stdin;
1	2	3
\.


COPY public.zero  FROM stdin;

\.


COPY public.none (a) FROM stdin;
\.


BEGIN;

SELECT pg_catalog.lo_open('99991', 131072);
SELECT pg_catalog.lowrite(0, '\x68656c6c6f');
SELECT pg_catalog.lo_close(0);

COMMIT;

COPY public.one (a) FROM stdin;
last
\.

--
-- PostgreSQL database dump complete
--

\unrestrict nGd1Xk

""".encode()
ONE = Target("public", "one", ("a",))
ODD = Target('My "odd" schema', "t (a, b).c", ("col, one", "ü", "plain"))


@dataclass
class Events(Handler):
    """Writes down what it is told."""

    texts: list[tuple[bytes, int]] = field(default_factory=list[tuple[bytes, int]])
    comments: list[tuple[bytes, int]] = field(default_factory=list[tuple[bytes, int]])
    statements: list[tuple[bytes, int]] = field(default_factory=list[tuple[bytes, int]])
    commands: list[tuple[bytes, int]] = field(default_factory=list[tuple[bytes, int]])
    blocks: list[tuple[Target, int, bytes, int]] = field(default_factory=list[tuple[Target, int, bytes, int]])
    pieces: list[bytes] = field(default_factory=list[bytes])
    _begun: tuple[Target, int] | None = None

    def text(self, data: bytes, line: int) -> None:
        self.texts.append((data, line))

    def comment(self, data: bytes, line: int) -> None:
        self.comments.append((data, line))

    def statement(self, sql: bytes, line: int) -> None:
        self.statements.append((sql, line))

    def meta_command(self, command: bytes, line: int) -> None:
        self.commands.append((command, line))

    def copy_begin(self, target: Target, line: int) -> None:
        self._begun, self.pieces = (target, line), []

    def copy_data(self, data: bytes) -> None:
        self.pieces.append(data)

    def copy_end(self, rows: int) -> None:
        assert self._begun is not None
        self.blocks.append((*self._begun, b"".join(self.pieces), rows))

    @property
    def sql(self) -> list[bytes]:
        return [sql for sql, _ in self.statements]


def events(text: bytes) -> Events:
    seen = Events()
    read_script([text], seen)
    return seen


def damage(text: bytes) -> ScriptDamaged:
    with pytest.raises(ScriptDamaged) as caught:
        events(text)
    return caught.value


def line_of(part: bytes, text: bytes = DUMP) -> int:
    return text[: text.index(part)].count(b"\n") + 1


# What is in a dump


def test_summary_of_a_dump() -> None:
    summary = read_script([DUMP])
    assert summary == script.Summary(
        header=True,
        trailer=True,
        bytes=len(DUMP),
        lines=DUMP.count(b"\n"),
        statements=16,
        blocks=5,
        rows=6 + 1 + 1 + 0 + 1,
        server_version="15.20 (Debian 15.20-0+deb12u1)",
        pg_dump_version="18.6",
    )


def test_blocks_of_a_dump() -> None:
    seen = events(DUMP)
    assert [(target, rows) for target, _, _, rows in seen.blocks] == [
        (ONE, 6),
        (ODD, 1),
        (Target("public", "zero", ()), 1),
        (Target("public", "none", ("a",)), 0),
        (ONE, 1),
    ]
    _, line, data, _ = seen.blocks[0]
    assert data.startswith(b"first\n\\\\.\n")
    assert data.endswith(b"\\restrict abc\n\\N\n")
    assert line == line_of(b"first\n")
    assert seen.blocks[2][2] == b"\n"


def test_statements_of_a_dump_and_their_lines() -> None:
    seen = events(DUMP)
    assert seen.sql[0] == b"SET statement_timeout = 0;"
    assert seen.sql[4].startswith(b"CREATE FUNCTION public.trick()")
    assert seen.sql[4].endswith(b"END$_$;")
    assert seen.sql[5].endswith(b"DEFAULT 'it''s; \\'::text\n);")
    for sql, line in seen.statements:
        assert DUMP.split(b"\n")[line - 1].startswith(sql.split(b"\n")[0])
    assert seen.commands == [
        (b"\\restrict nGd1Xk", 5),
        (b"\\unrestrict nGd1Xk", line_of(b"\\unrestrict nG")),
    ]


def test_text_and_data_are_the_whole_script() -> None:
    class Everything(Handler):
        def __init__(self) -> None:
            self.out = b""

        def text(self, data: bytes, line: int) -> None:
            assert line == self.out.count(b"\n") + 1
            self.out += data

        def copy_data(self, data: bytes) -> None:
            self.out += data

    everything = Everything()
    read_script([DUMP], everything)
    assert everything.out == DUMP


def test_lines_that_differ_between_dumps_come_alone() -> None:
    class Volatile(Handler):
        def __init__(self) -> None:
            self.lines: list[bytes] = []

        def volatile_text(self, data: bytes, line: int) -> None:
            assert DUMP.splitlines(keepends=True)[line - 1] == data
            self.lines.append(data)

    volatile = Volatile()
    read_script([DUMP], volatile)
    assert volatile.lines == [
        b"\\restrict nGd1Xk\n",
        b"-- Dumped from database version 15.20 (Debian 15.20-0+deb12u1)\n",
        b"-- Dumped by pg_dump version 18.6\n",
        b"\\unrestrict nGd1Xk\n",
    ]


@pytest.mark.parametrize("length", range(0, len(DUMP) - 30, 7))
def test_a_cut_dump_is_damaged_or_has_no_trailer(length: int) -> None:
    text = DUMP[:length]
    reader = ScriptReader()
    reader.feed(text)
    try:
        trailer = reader.finish().trailer
    except ScriptDamaged as damaged:
        trailer = False
        if damaged.line != text.count(b"\n") + 1:
            raise
    assert trailer == (length >= DUMP.rindex(b" complete") + len(b" complete"))


def test_a_script_without_pg_dumps_comments() -> None:
    summary = read_script([b"-- my own\nSELECT 1;\n-- PostgreSQL database dump\n"])
    assert (summary.header, summary.trailer, summary.server_version) == (False, False, None)
    assert read_script([b""]) == script.Summary(False, False, 0, 0, 0, 0, 0, None, None)


# Where psql sees statements, strings and data begin and end


@pytest.mark.parametrize(
    "sql",
    [
        b"SELECT 'a;b' ;",
        b"SELECT 'it''s; \\' ;",
        b"SELECT E'\\'; ''; \\\\' ;",
        b"SELECT e'\n\\\n';",
        b"SELECT E'\\\\' || '; -- ' ;",
        b"SELECT U&'\\0041;\\' , U&\"a;\" , B'0;' , x'\\' , N';\\' ;",
        b'SELECT "a;""b\n;" ;',
        b"SELECT 1 -- ; ' \" $$ /*\n;",
        b"SELECT 1 /* ; /* ; */ ; ' */;",
        b"SELECT 1 /* -- */;",
        b"SELECT 1 /*/ ; */;",
        b"SELECT 2*/**/3 +-- ;\n 1;",
        b"SELECT $$;'\"--/*$$;",
        b"SELECT $a$ $b$ ; $$ a$ $aa$ ;$a$;",
        b"SELECT $\xc3\xbc1$;$\xc3\xbc1$;",
        b"SELECT a$b$, c FROM d$b$;",
        b"SELECT $1, $2 ;",
        b"SELECT 1 $$;$$, 1e5, 1., .5, 1e+20, 1..2, 1-1;",
        b"SELECT (1; 2);",
        b"CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT ';)'; DELETE FROM x);",
        b"SELECT a[1:n], b[m:'x'], c[lo:\"hi;\"], d::text, f(x := 1);",
        b"SELECT :a$b FROM e'x;\\\\';".replace(b":a$b", b":a, $$;$$"),
        b"CREATE FUNCTION f(a int) RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE a WHEN 1 THEN 2 END; END;",
        b"create or replace procedure p() begin atomic insert into t values (1); end;",
        b"CREATE FUNCTION f(begin int) RETURNS int LANGUAGE sql AS 'BEGIN;';",
        b"CREATE TABLE begin (a int);",
        b'CREATE FUNCTION "begin"() RETURNS int LANGUAGE sql AS $$ END; $$;',
        b"SELECT ')' , 1);",
        b"COPY t TO STDOUT;",
        b"COPY (SELECT a FROM stdin) TO STDOUT;",
        b"SELECT a FROM stdin;",
        b"CREATE VIEW copy AS SELECT 1 FROM stdin;",
        b";",
    ],
)
def test_one_statement(sql: bytes) -> None:
    seen = events(b"/* first */ -- ;\n  " + sql + b" SELECT 'next';-- last\n")
    assert seen.statements == [(sql, 2), (b"SELECT 'next';", 2 + sql.count(b"\n"))]
    assert not seen.blocks


@pytest.mark.parametrize(
    ("copy", "target"),
    [
        (b"COPY public.t (a, b) FROM stdin;", Target("public", "t", ("a", "b"))),
        (b"COPY public.t  FROM stdin;", Target("public", "t", ())),
        (b'copy "T".t(A,"B""c")from\nstdin ;', Target("T", "t", ("a", 'B"c'))),
        (b'COPY "a.b"."c (d)" ("e, f", ")") FROM stdin;', Target("a.b", "c (d)", ("e, f", ")"))),
        (b"CoPy /* from */ t -- x\n from/**/StdIn;", Target("", "t", ())),
        (b"COPY t FROM STDOUT;", Target("", "t", ())),
        (b"COPY t FROM stdin WITH (FORMAT csv, NULL ';');", Target("", "t", ())),
        (b"COPY t FROM stdin WHERE a > 1;", Target("", "t", ())),
        (b"COPY BINARY t FROM stdin;", Target("", "t", ())),
        (b"COPY db.s.t FROM stdin;", Target("s", "t", ())),
        (b'COPY s."\xff\xc3\xbc" FROM stdin;', Target("s", "\udcffü", ())),
        (b"COPY stdin.copy (begin) FROM stdin;", Target("stdin", "copy", ("begin",))),
    ],
)
def test_copy_data_follow(copy: bytes, target: Target) -> None:
    seen = events(copy + b"  \n'; \\.\n \\.\n\\.x\n\\. \n\\.\nSELECT 1;\n")
    assert seen.sql == [copy, b"SELECT 1;"]
    assert seen.blocks == [(target, copy.count(b"\n") + 2, b"'; \\.\n \\.\n\\.x\n\\. \n", 4)]


def test_a_backslash_command_takes_the_rest_of_its_line() -> None:
    seen = events(b"SELECT 1; \\! id; 'x\nSELECT 2;\n  \\connect other")
    assert seen.commands == [(b"\\! id; 'x", 1), (b"\\connect other", 3)]
    assert seen.sql == [b"SELECT 1;", b"SELECT 2;"]


# Damage


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        (b"SELECT 1;\nSELECT 'a\nb", "ends inside a string", 3),
        (b"SELECT E'\\'", "ends inside a string", 1),
        (b"SELECT $a$ $b$", "ends inside a string", 1),
        (b'SELECT "a;', "ends inside a quoted name", 1),
        (b"SELECT 1; /* /* */", "ends inside a comment", 1),
        (b"SELECT 1;\n\nSELECT\n2\n", "ends inside the statement that begins on line 3", 5),
        (b"SELECT (1;\n", "ends inside the statement", 2),
        (b"COPY s.t (a) FROM stdin;\n1\n", "ends inside the COPY data of t", 3),
        (b"COPY s.t (a) FROM stdin;", "ends inside the COPY data of t", 1),
        (b"COPY s.t (a) FROM stdin;\n1\n\\.", "ends inside the COPY data of t", 3),
        (b"SELECT 1;\n\0", "NUL byte", 2),
        (b"COPY t FROM stdin;\n1\n2\x00\n\\.\n", "NUL byte", 3),
        ("-- PostgreSQL\n".encode("utf-16"), "UTF-16", 1),
        (b"\xef\xbb\xbf--\n-- PostgreSQL database dump\n", "PowerShell", 1),
        (b"--\r\n-- PostgreSQL database dump\r\n", "PowerShell", 1),
        (b"SELECT 1;\r\n", "carriage return outside quotes", 1),
        (b"SELECT 1;\n-- a\rDROP DATABASE x;\n", "carriage return outside quotes", 2),
        (b"\\restrict a\r\n", "carriage return outside quotes", 1),
        (b"COPY t FROM stdin;\r\n1\r\n\\.\r\n", "carriage return outside quotes", 1),
        (b"COPY t FROM stdin;\n1\n\\.\r\nSELECT 1;\n\\.\n", "carriage return after the end of COPY data", 3),
        (b"COPY t FROM stdin; SELECT 1;\n1\n\\.\n", "text after a COPY statement", 1),
        (b"COPY t FROM stdin; -- x\n1\n\\.\n", "text after a COPY statement", 1),
        (b"SELECT 1;\n1\t2\n\\.\n", "backslash command inside the statement that begins on line 2", 3),
        (b"SELECT 1;\n\\.\n", "the end of COPY data without a COPY statement", 2),
        (b"SELECT 1 \\gexec\n", "backslash command inside the statement", 1),
        (b"SELECT 1 \\; SELECT 2;\n", "backslash command inside the statement", 1),
        (b"SELECT 1E'\\';\n", "versions of psql disagree", 1),
        (b"SELECT $1a;\n", "versions of psql disagree", 1),
        (b"SELECT :a'b';\n", "versions of psql disagree", 1),
        (b"SELECT E'a'\n  -- x\n 'b\\'; ';\n", "continued E'' string", 3),
        (b"COPY t FROM stdin;\n\\.\n;\nSELECT 1;\n\\.\n", "without a word after COPY data", 3),
        (b"COPY t FROM stdin;\n\\.\n\n(SELECT 1);\n", "without a word after COPY data", 4),
    ],
)
def test_damage(text: bytes, message: str, line: int) -> None:
    error = damage(text)
    assert message in error.message
    assert error.line == line
    assert str(error) == f"line {line}: {error.message}"


TRAILER = b"--\n-- PostgreSQL database dump complete\n--\n\n"


@pytest.mark.parametrize("rest", [b"", b"\\unrestrict abc\n\n", b"-- more\n\n  \n", b"\\unrestrict abc"])
def test_what_may_follow_the_trailer(rest: bytes) -> None:
    assert read_script([TRAILER + rest]).trailer


@pytest.mark.parametrize(
    "rest", [b"SELECT 1;\n", b";\n", b"\\restrict abc\n", b"\\! id\n", b"/* x */\n", b"garbage", b"\\unrestrict a b\n"]
)
def test_what_may_not_follow_the_trailer(rest: bytes) -> None:
    assert damage(TRAILER + rest).message == "text after the trailer"


def test_a_trailer_inside_a_statement_is_none() -> None:
    assert not read_script([b"SELECT 1\n-- PostgreSQL database dump complete\n;\nSELECT 2;\n"]).trailer


def test_carriage_returns_inside_quotes_are_data() -> None:
    text = b"CREATE FUNCTION f() AS $$a\r\nb;\r\n$$;\nCOMMENT ON x IS 'a\r\n\r';\nCOPY t FROM stdin;\na\r\n\\.\n"
    assert len(events(text).statements) == 3


def test_absurdly_long_lines_and_statements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "LONGEST", 1 << 20)
    with pytest.raises(ScriptDamaged, match="a line longer than 1 MiB"):
        read_script([b"-", b"-" * (1 << 20)])
    with pytest.raises(ScriptDamaged, match="a statement longer than 1 MiB"):
        read_script(b"'%s\n" % (b"x" * 1000) for _ in range(2001))
    assert read_script([b"COPY t FROM stdin;\n", b"x" * (3 << 20), b"\n\\.\n"]).rows == 1


def test_a_row_longer_than_a_piece_comes_in_pieces() -> None:
    row = b"\\." + b"x" * (3 * script.PIECE)
    data = row + b"\n\\N\n"
    seen = Events()
    digests = RowDigests()
    text = b"COPY t FROM stdin;\n" + data + b"\\.\n"
    read_script((text[at : at + 65536] for at in range(0, len(text), 65536)), seen, digests)
    assert max(map(len, seen.pieces)) < 2 * script.PIECE
    assert seen.blocks[0][2:] == (data, 2)
    total = xxhash.xxh3_128_intdigest(row) + xxhash.xxh3_128_intdigest(b"\\N")
    assert digests.rows[0].digest == f"{total % 2**128:032x}"


def test_the_end_of_data_is_not_seen_inside_a_row_in_pieces() -> None:
    seen = Events()
    reader = ScriptReader(seen)
    for chunk in (b"COPY t FROM stdin;\n", b"x" * (script.PIECE + 1), b"\\.\n", b"\\.\n"):
        reader.feed(chunk)
    reader.finish()
    assert seen.blocks[0][3] == 1
    assert seen.blocks[0][2].endswith(b"x\\.\n")


def test_memory_does_not_grow_with_the_dump() -> None:
    row = b"7\t" + b"0.1234567," * 50 + b"\n"
    block = row * 2000

    tracemalloc.start()
    chunks = [b"COPY public.t (a) FROM stdin;\n", *[block] * 100, b"\\.\n"]
    summary = read_script(chunks, BlockDigests(), RowDigests())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert summary.rows == 200_000
    assert peak < 6 * len(block)


# Digests


@pytest.mark.parametrize(("sha256", "hash_of"), [(False, xxhash.xxh3_128), (True, hashlib.sha256)])
def test_block_digests(sha256: bool, hash_of: Callable[[bytes], Any]) -> None:
    digests = BlockDigests(sha256=sha256)
    read_script([DUMP], digests)
    first, odd, zero, none = digests.blocks
    data = re.findall(rb"COPY public.one \(a\) FROM stdin;\n((?:.*\n)*?)\\\.\n", DUMP[DUMP.index(b"CREATE TABLE") :])
    assert first.target == ONE
    assert first.rows == 7
    assert first.bytes == len(b"".join(data))
    assert first.digest == hash_of(b"".join(data)).hexdigest()
    assert odd.target == ODD
    assert (zero.rows, zero.bytes) == (1, 1)
    assert (none.rows, none.bytes, none.digest) == (0, 0, hash_of(b"").hexdigest())


def rest(text: bytes) -> str:
    digests = BlockDigests()
    read_script([text], digests)
    return digests.rest_sha256


def test_the_rest_is_the_text_less_its_volatile_lines() -> None:
    text = re.sub(rb"(?m)^(first|\\\\\.|\\N|last|1\t2\t3)\n", b"", DUMP)
    before, after = text.split(b"CREATE TABLE public.one", 1)
    after = after.replace(
        b"-- PostgreSQL database dump complete\nCOPY public.one (a) FROM stdin;\n\\restrict abc\n", b""
    )
    after = after.replace(b"FROM stdin;\n\n\\.", b"FROM stdin;\n\\.")
    kept = before + b"CREATE TABLE public.one" + after
    kept = re.sub(rb"(?m)^\\(un)?restrict nGd1Xk\n|^-- Dumped (from|by) .* version 1[58].*\n", b"", kept)
    assert rest(DUMP) == hashlib.sha256(kept).hexdigest()


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        (b"nGd1Xk", b"Other1", True),
        (b"15.20 (Debian 15.20-0+deb12u1)", b"16.1", True),
        (b"version 18.6", b"version 15.20", True),
        (b"first\n", b"second\n", True),
        (b"\\restrict abc\n-- Dumped", b"\\restrict abd\n-- Dumped", False),
        (b"database version 1\n  RETURN", b"database version 2\n  RETURN", False),
        (b"statement_timeout = 0", b"statement_timeout = 1", False),
        (b"\n--\n-- Name", b"\n--\n-- name", False),
    ],
)
def test_what_the_digest_of_the_rest_sees(old: bytes, new: bytes, same: bool) -> None:
    assert old in DUMP
    assert (rest(DUMP) == rest(DUMP.replace(old, new))) is same


def rows(*data: bytes) -> list[tuple[str, int, str]]:
    digests = RowDigests()
    read_script([b"".join(b"COPY public.t (a) FROM stdin;\n" + block + b"\\.\n" for block in data)], digests)
    return [(row.target.name, row.rows, row.digest) for row in digests.rows]


def test_row_digests_see_rows_and_not_their_order() -> None:
    assert rows(b"a\nb\n\n") == rows(b"\nb\na\n") == rows(b"b\n", b"", b"\na\n")
    assert rows(b"") == [("t", 0, "0" * 32)]
    assert rows(b"\n") == [("t", 1, f"{xxhash.xxh3_128_intdigest(b''):032x}")]
    different = [rows(data) for data in (b"a\nb\n", b"a\n", b"a\nb\nb\n", b"ab\n\n", b"a\nB\n", b"a\tb\n", b"ab\n")]
    assert len({str(one) for one in different}) == len(different)


# Without pg_dump's own restriction


def test_strip_restrict_takes_only_the_scripts_own_lines() -> None:
    lines = (b"\\restrict nGd1Xk\n", b"\\unrestrict nGd1Xk\n")
    stripped = DUMP.replace(lines[0], b"").replace(lines[1], b"")
    assert b"".join(strip_restrict([DUMP])) == stripped
    assert b"".join(strip_restrict(DUMP[at : at + 1] for at in range(len(DUMP)))) == stripped
    assert stripped.count(b"\\restrict abc\n") == 2


@pytest.mark.parametrize(
    "text", [b"SELECT 1; \\restrict a\n", b" \\restrict a\n", b"\\restrict a b\n", b"\\restrict\n"]
)
def test_strip_restrict_leaves_what_pg_dump_does_not_write(text: bytes) -> None:
    assert b"".join(strip_restrict([text])) == text


def test_strip_restrict_raises_at_the_end_of_a_cut_script() -> None:
    stream = strip_restrict([b"SELECT 1;\n", b"SELECT"])
    assert next(stream) == b"SELECT 1;\n"
    with pytest.raises(ScriptDamaged):
        list(stream)
