from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scarlet_backup_mcp.cli.demo.embedded import wheel_bin_dir
from scarlet_backup_mcp.errors import ProgramMissing
from scarlet_backup_mcp.postgres.dump import refusals, roles, script
from scarlet_backup_mcp.postgres.dump.digests import BlockDigests, RowDigests
from scarlet_backup_mcp.postgres.dump.filters import strip_restrict
from scarlet_backup_mcp.postgres.dump.lexer import tokens, unquote
from scarlet_backup_mcp.postgres.dump.refusals import Refusals
from scarlet_backup_mcp.postgres.dump.roles import Roles
from scarlet_backup_mcp.postgres.dump.script import (
    Handler,
    ScriptDamaged,
    ScriptReader,
    Summary,
    Target,
    read_script,
)

from ..helpers.psql_as_oracle import COPY, Sent, sent_by_psql
from .test_script import DUMP


class Quiet(Handler):
    """All events except comments in one list, in a form that does not depend on how text and data were cut."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.text_seen = b""

    def text(self, data: bytes, line: int) -> None:
        assert line == self.text_line
        self.text_seen += data

    def volatile_text(self, data: bytes, line: int) -> None:
        self.text(data, line)
        self.events.append(("its line", data))

    @property
    def text_line(self) -> int:
        rows = sum(data.count(b"\n") for kind, data, *_ in self.events if kind == "data")
        return self.text_seen.count(b"\n") + rows + 1

    def statement(self, sql: bytes, line: int) -> None:
        self.events.append(("statement", sql, line))

    def meta_command(self, command: bytes, line: int) -> None:
        self.events.append(("command", command, line))

    def copy_begin(self, target: Target, line: int) -> None:
        assert line == self.text_line
        self.events.append(("begin", target, line))
        self.events.append(("data", b""))

    def copy_data(self, data: bytes) -> None:
        assert data
        self.events[-1] = ("data", self.events[-1][1] + data)

    def copy_end(self, rows: int) -> None:
        self.events.append(("end", rows))


class Recorder(Quiet):
    """Comments, too."""

    def comment(self, data: bytes, line: int) -> None:
        self.events.append(("comment", data, line))


def outcome(chunks: Iterable[bytes], recorder: Quiet | None = None) -> tuple[Any, ...]:
    """Everything that reading a script gives, or the damage and what was told before it."""
    recorder = recorder or Recorder()
    blocks, rows, refused, named = BlockDigests(), RowDigests(), Refusals(), Roles()
    end: Summary | tuple[str, int]
    try:
        end = read_script(chunks, recorder, blocks, rows, refused, named)
    except ScriptDamaged as damaged:
        return recorder.events, (damaged.message, damaged.line)
    return (
        recorder.events,
        end,
        recorder.text_seen,
        blocks.blocks,
        blocks.rest_sha256,
        rows.rows,
        refused.found,
        named.names,
    )


VOLATILE = re.compile(rb"(?m)^\\(un)?restrict nGd1Xk\n|^-- Dumped (from database|by pg_dump) version 1\d.*\n")
"""The lines of DUMP that no digest sees."""


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    chunks: list[bytes] = []
    for size in sizes:
        chunks.append(data[:size])
        data = data[size:]
    return [*chunks, data]


# Scripts of pieces whose reading is known

names = st.text(st.sampled_from("aZ_0$ \"'.,();\\-\n:ü漢/*"), min_size=1, max_size=6)


def quoted(name: str) -> bytes:
    return b'"%s"' % name.replace('"', '""').encode()


def literal(text: bytes) -> bytes:
    return b"'%s'" % text.replace(b"'", b"''")


def escaped(text: bytes) -> bytes:
    return b"E'%s'" % text.replace(b"\\", b"\\\\").replace(b"'", b"\\'")


@st.composite
def dollar_quoted(draw: st.DrawFn) -> bytes:
    tag = draw(st.sampled_from([b"$$", b"$a$", b"$_1$", b"$\xc3\xbc$"]))
    body = draw(nasty).replace(tag, b"")
    return b"$z%s%s$z%s" % (tag[1:], body.replace(b"$", b"$$"), tag[1:])


TRAPS = [b"\n\\.\n", b"\nCOPY t FROM stdin;\n", b"\n-- PostgreSQL database dump complete\n", b"\n\\restrict a\n"]
nasty = st.lists(
    st.sampled_from(
        [*rb"; ' -- /* */ $a$ $ ( ) x BEGIN END".split(), b'"', b"\\", b"\n", b"\r\n", b" ", b"\xff", *TRAPS]
    ),
    max_size=8,
).map(b"".join)
pieces = st.one_of(
    nasty.map(literal),
    nasty.map(escaped),
    names.map(quoted),
    dollar_quoted(),
    nasty.map(lambda body: b"(%s)" % literal(body)),
    nasty.map(lambda body: b"/*%s*/" % body.replace(b"/", b"").replace(b"*", b"")),
    st.sampled_from(
        [b"x", b"a$b$", b"1", b"1.5e+3", b"$1", b"(;)", b"+", b"-", b"::", b",", b"[1:2]", b"\xc3\xbc", b"U&'\\'"]
    ),
    st.sampled_from([b"begin", b"end", b"case", b"copy", b"from", b"--;'\n", b"\n", b"/**/"]),
)
statements = st.lists(pieces, max_size=6).map(lambda found: b"SELECT " + b" , ".join(found) + b" ;")
rows = st.lists(
    st.sampled_from(
        [b"", b"\\N", b"1\t2", b"\\\\.", b"\\.x", b" \\.", b"';$$", b"SELECT 1;", b"\\restrict a", b"\xff\r"]
    ),
    max_size=6,
)


@st.composite
def copies(draw: st.DrawFn) -> tuple[Target, bytes, bytes]:
    schema, table, columns = draw(names), draw(names), draw(st.lists(names, max_size=3))
    listed = b"(%s)" % b", ".join(map(quoted, columns)) if columns else b""
    sql = b"COPY %s.%s %s FROM stdin;" % (quoted(schema), quoted(table), listed)
    return Target(schema, table, tuple(columns)), sql, b"".join(row + b"\n" for row in draw(rows))


between = st.sampled_from([b"\n", b"\n\n", b"\n-- ;' comment\n", b" /* ; */\n", b"\n  ", b" "])
parts = st.lists(st.tuples(st.one_of(statements, copies()), between), max_size=6)


@given(parts)
def test_a_script_of_pieces_gives_the_pieces_back(
    parts: list[tuple[bytes | tuple[Target, bytes, bytes], bytes]],
) -> None:
    text, expected = b"", list[tuple[Any, ...]]()
    for part, gap in parts:
        line = text.count(b"\n") + 1
        if isinstance(part, bytes):
            text += part + gap
            expected.append(("statement", part, line))
        else:
            target, sql, data = part
            text += sql + b"\n" + data + b"\\.\n" + gap
            first = line + sql.count(b"\n") + 1
            expected += [("statement", sql, line), ("begin", target, first), ("data", data), ("end", data.count(b"\n"))]
    recorder = Recorder()
    summary = read_script([text], recorder)
    assert [event for event in recorder.events if event[0] not in ("comment", "its line")] == expected
    assert summary.statements == len(parts)
    assert summary.bytes == len(text)


@given(parts, st.lists(st.integers(0, 40), max_size=30))
def test_events_do_not_depend_on_the_chunks(
    parts: list[tuple[bytes | tuple[Target, bytes, bytes], bytes]], sizes: list[int]
) -> None:
    text = b"\\restrict a\n" + b"".join(
        part + gap if isinstance(part, bytes) else part[1] + b"\n" + part[2] + b"\\.\n" + gap for part, gap in parts
    )
    assert outcome(cut(text, sizes)) == outcome([text])


@given(st.integers(0, len(DUMP)), st.lists(st.integers(0, 60), max_size=40))
def test_a_dump_cut_anywhere_reads_the_same_in_any_chunks(length: int, sizes: list[int]) -> None:
    text = DUMP[:length]
    assert outcome(cut(text, sizes)) == outcome([text]) == outcome(text[at : at + 1] for at in range(length))


@given(st.integers(0, len(DUMP) - 1), st.binary(max_size=3), st.lists(st.integers(0, 60), max_size=20))
def test_a_changed_dump_reads_the_same_in_any_chunks_and_is_never_the_same(
    place: int, instead: bytes, sizes: list[int]
) -> None:
    text = DUMP[:place] + instead + DUMP[place + 1 :]
    result = outcome(cut(text, sizes))
    assert result == outcome([text])
    volatile = any(line.start() <= place < line.end() for line in VOLATILE.finditer(DUMP))
    if isinstance(result[1], Summary) and text != DUMP and not volatile:
        assert result[3:5] != outcome([DUMP])[3:5]


soup = st.lists(
    st.sampled_from(
        [
            *rb"""' E' " $$ $a$ /* */ -- \ ; ( ) 1 . a : , stdin begin create function copy binary from""".split(),
            *(
                b"\n",
                b"\r",
                b" ",
                b"\0",
                b"\xff",
                b"\xef\xbb\xbf",
                b"\\.\n",
                b"COPY t FROM stdin;\n",
                b"\\restrict a\n",
            ),
            *(
                b"GRANT ",
                b"REVOKE ",
                b"TO ",
                b"ON ",
                b"OWNER ",
                b"ALTER ",
                b"SET ",
                b"OPTION ",
                b"CREATE POLICY ",
                b"end ",
            ),
            *(
                b"ALTER DEFAULT PRIVILEGES FOR ROLE",
                b"SET SESSION AUTHORIZATION ",
                b"-- PostgreSQL database dump complete\n",
            ),
        ]
    ),
    max_size=30,
).map(b"".join)


USUAL = [
    *(b"CREATE TABLE ", b"ALTER TABLE ONLY ", b"CREATE", b"COPY ", b"SET ", b"OR", b"FUNCTION", b"f", b"BEGIN", b"END"),
    *(
        b"a.b",
        b'"c d"',
        b'"e""',
        b"'f'",
        b"'g''",
        b"E",
        b"U&",
        b"::",
        b":",
        b"1",
        b"2.5",
        b".",
        b"e5",
        b"$",
        b"\xc3\xa9",
    ),
    *(
        b"(",
        b")",
        b"(a",
        b") ",
        b", ",
        b" ",
        b"\n",
        b";",
        b";\n",
        b";\n\n",
        b"-",
        b"/",
        b"/*",
        b"*/",
        b"\\",
        b"\r",
        b"=",
    ),
    *(b"\n--\n-- Name: x; Type: TABLE\n--\n\n", b"-- PostgreSQL database dump\n", b"-- Dumped by pg_dump version 1\n"),
    *(b'COPY a.b (c, "d, e") FROM stdin;\n1\t2\n\\.\n', b"COPY a.b  FROM stdin;\n\\.\n", b"\n\\restrict a\n"),
    *(
        b"ALTER TABLE a.b OWNER TO c;\n",
        b"CREATE TABLE a.b (\n    c integer DEFAULT nextval('d'::e) NOT NULL\n);\n\n\n",
    ),
    *(b"-- PostgreSQL database dump complete\n", b"BEGIN;\n", b"COMMIT;\n", b"SELECT pg_catalog.lo_create('1');\n"),
    *(b"SELECT pg_catalog.lo_open('1', 131072);\n", b"SELECT pg_catalog.lowrite(0, '\\x616263');\n", b":HOST", b":'x'"),
    *(
        b"SELECT pg_catalog.lo_close(0);\n",
        b"SELECT pg_catalog.setval('a.b', 1, true);\n",
        b"SELECT pg_catalog.setval('",
    ),
    *(b"SET SESSION AUTHORIZATION a;\n", b"COMMENT ON TABLE ", b"OWNER TO ", b"a;\n", b"ALTER DEFAULT PRIVILEGES "),
]
SHORTCUTS = [
    *((script, name) for name in ("PLAIN", "COPY", "QUIET")),
    *((refusals, name) for name in ("_USUAL", "_USUAL_OF_A_LARGE_OBJECT")),
    *((roles, name) for name in ("_NAMES_NONE", "_NAMES_OWNER")),
]
usual = st.lists(st.sampled_from(USUAL), max_size=25).map(b"".join)
NOTHING = re.compile(rb"(?!)")


@given(st.one_of(usual, soup, parts.map(lambda found: b"".join(p if isinstance(p, bytes) else p[1] for p, _ in found))))
def test_shortcuts_change_nothing(text: bytes) -> None:
    handlers: list[Callable[[], Quiet]] = [Quiet, Recorder]
    short = [outcome([text], handler()) for handler in handlers]
    with ExitStack() as patched:
        for module, name in SHORTCUTS:
            patched.enter_context(mock.patch.object(module, name, NOTHING))
        assert [outcome([text], handler()) for handler in handlers] == short


@given(st.one_of(st.binary(max_size=200), soup), st.lists(st.integers(0, 10), max_size=20))
def test_any_bytes_are_read_or_damaged_the_same_in_any_chunks(text: bytes, sizes: list[int]) -> None:
    whole = outcome([text])
    assert outcome(cut(text, sizes)) == whole
    if isinstance(whole[1], Summary):
        kept = b"".join(strip_restrict(cut(text, sizes)))
        assert kept == b"".join(strip_restrict([text]))
        assert len(text) - len(kept) == 12 * sum(event == ("its line", b"\\restrict a\n") for event in whole[0])


@given(names, nasty)
def test_names_and_literals_are_unquoted(name: str, text: bytes) -> None:
    assert unquote(quoted(name)) == name
    assert unquote(literal(text)).encode("utf-8", "surrogateescape") == text
    assert tokens(quoted(name) + b"/*x*/" + literal(text) + b"--x") == [quoted(name), literal(text)]


# Digests of rows

lines = st.lists(st.binary(max_size=5).map(lambda line: line.translate(None, b"\n\0\\\r")), max_size=8)


def digest(found: list[bytes], sizes: list[int] | None = None) -> list[Any]:
    digests = RowDigests()
    text = b"COPY s.t (a) FROM stdin;\n" + b"".join(line + b"\n" for line in found) + b"\\.\n"
    read_script(cut(text, sizes or []), digests)
    return digests.rows


@given(lines, st.randoms(use_true_random=False), st.lists(st.integers(0, 20), max_size=10))
def test_row_digests_do_not_depend_on_order_or_chunks(
    found: list[bytes], order: random.Random, sizes: list[int]
) -> None:
    shuffled = order.sample(found, len(found))
    assert digest(shuffled, sizes) == digest(found)


@given(lines.filter(bool), st.data())
def test_row_digests_see_a_row_changed_dropped_or_doubled(found: list[bytes], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(found) - 1))
    changed = [*found[:at], found[at] + b"x", *found[at + 1 :]]
    dropped = found[:at] + found[at + 1 :]
    doubled = [*found, found[at]]
    digests = [digest(variant)[0] for variant in (found, changed, dropped, doubled)]
    assert len({one.digest for one in digests}) == 4 - (dropped == [] and digests[0].digest == digests[2].digest)
    assert [one.rows - len(found) for one in digests] == [0, 0, -1, 1]


@given(st.lists(st.binary(min_size=1, max_size=9), min_size=1))
def test_row_digests_of_rows_in_pieces(pieces: list[bytes]) -> None:
    pieces = [piece.replace(b"\0", b"x") for piece in [*pieces, b"\n"]]
    digests = RowDigests()
    target = Target("s", "t", ())
    data = b"".join(pieces)
    digests.copy_begin(target, 1)
    for piece in pieces:
        digests.copy_data(piece)
    digests.copy_end(data.count(b"\n"))
    whole = RowDigests()
    whole.copy_begin(target, 1)
    whole.copy_data(data)
    whole.copy_end(data.count(b"\n"))
    assert digests.rows == whole.rows


# psql itself

FRAGMENTS = [
    *rb"""' '' " "" E' e' U&' U&" B' x' N' $$ $a$ $b$ a$a$ $1 1 1. .5 1e5 -- /* */ / * - + ( ) ;""".split(),
    *rb""":: := : :a :'a' :"a" { $ _ abc @ .. create from stdin""".split(),
    *(
        b"\n",
        b"\t",
        b"\x0b",
        b"\x0c",
        b"\xc3\xa9",
        b"\xff",
        b";\n",
        b"-- x",
        b"-- ;\n",
        b"/* ; */",
        b"E'a\\' ; '",
        b"$a$ ; $a$",
    ),
    *(
        b"create function f() ",
        b"CREATE OR REPLACE PROCEDURE p() ",
        b"begin ",
        b"BEGIN ATOMIC ",
        b" case ",
        b" end",
        b" END;",
    ),
    *(b"select 1", b"copy ", b"COPY x TO stdout;", b"\ncopy copymark (a) FROM STDIN;\n\\.\n"),
    *(b";\ncopy copymark from stdin;\n1\t\\N\n\\.x\n'\n\\.\n", b"copy/**/copymark\nfrom --x\n stdout;\n$$\n\\.\n"),
]


def random_script(chance: random.Random) -> bytes:
    some = [*chance.sample(FRAGMENTS, chance.randint(6, 30)), b";", b" ", b"\n"]
    return b"".join(chance.choices(some, [chance.random() ** 2 for _ in some], k=chance.randint(1, 40)))


@pytest.fixture(scope="module")
def psql() -> str:
    try:
        return str(wheel_bin_dir() / "psql")
    except ProgramMissing as missing:
        pytest.skip(missing.message)


def test_psql_sees_the_same_statements_and_data(psql: str, tmp_path: Path) -> None:
    chance = random.Random(20)
    scripts = [random_script(chance) for _ in range(400)]
    paths = [tmp_path / str(number) for number in range(len(scripts))]
    for path, text in zip(paths, scripts, strict=True):
        path.write_bytes(text)
    whole = statements = blocks = 0
    for text, sent in zip(scripts, sent_by_psql([psql], [str(path) for path in paths]), strict=True):
        seen, end = read_as_far_as_possible(text)
        statements += len(seen.statements)
        blocks += len(seen.blocks)
        sent_statements = [found for found in map(tokens, sent.statements) if found]
        seen_statements = [tokens(sql) for sql in seen.statements]
        assert sent_statements[: len(seen_statements)] == seen_statements, text
        if end is None:
            whole += 1
            assert len(sent_statements) == len(seen_statements), text
            # Before 17 psql sent the `\.` line, too.
            assert [data.removesuffix(b"\\.\n") for data in sent.blocks] == seen.blocks, text
        elif "ends inside" in end and "COPY" not in end:
            assert len(sent_statements) <= len(seen_statements) + 1, text
    assert (whole > 20, statements > 300, blocks > 20) == (True, True, True)


def read_as_far_as_possible(text: bytes) -> tuple[Sent, str | None]:
    """The statements and the data of the COPYs that the listening server answers; the damage that ended the reading."""

    class Collector(Handler):
        def __init__(self) -> None:
            self.seen = Sent()
            self._answered = False

        def statement(self, sql: bytes, line: int) -> None:
            self.seen.statements.append(sql)
            self._answered = COPY.fullmatch(sql) is not None

        def copy_begin(self, target: Target, line: int) -> None:
            if self._answered:
                self.seen.blocks.append(b"")

        def copy_data(self, data: bytes) -> None:
            if self._answered:
                self.seen.blocks[-1] += data

    collector = Collector()
    reader = ScriptReader(collector)
    try:
        reader.feed(text)
        reader.finish()
    except ScriptDamaged as damaged:
        return collector.seen, damaged.message
    return collector.seen, None
