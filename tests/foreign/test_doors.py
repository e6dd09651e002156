"""What pg_dump does not write in that form is refused, and how it is shown gives no secret away."""

from __future__ import annotations

import gzip
import io
import logging
import re
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime

import click
import pytest
import zstandard

from scarlet_backup_mcp.cli.bar import PipedProgress
from scarlet_backup_mcp.cli.rendering import print_on_stderr, print_result
from scarlet_backup_mcp.cli.runner import ask, errors
from scarlet_backup_mcp.errors import BackupToolError, ConfirmationNeeded
from scarlet_backup_mcp.logs import log_to_stderr
from scarlet_backup_mcp.models.audit import AuditEntry, Client
from scarlet_backup_mcp.models.common import Packing
from scarlet_backup_mcp.models.results import Kept, Listed, Listing
from scarlet_backup_mcp.postgres.dump.headings import Headings
from scarlet_backup_mcp.postgres.dump.refusals import Refusals
from scarlet_backup_mcp.postgres.dump.script import read_script
from scarlet_backup_mcp.redaction import printable
from scarlet_backup_mcp.store.reading import CompressionDamaged, decompress
from scarlet_backup_mcp.summaries import describe


def refused(script: bytes) -> Refusals:
    found = Refusals()
    read_script([script], found)
    found.ended()
    return found


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE USER mapping SUPERUSER;",
        "CREATE USER MAPPING LOGIN PASSWORD 'x';",
        "ALTER USER mapping SUPERUSER;",
        "ALTER USER MAPPING FOR a SERVER b OPTIONS (SET password 'x');",
        "DROP USER mapping;",
        "INSERT INTO s.t VALUES (pg_read_file('/etc/passwd'));",
        "INSERT INTO s.t (a, b) VALUES (1, (SELECT 2));",
        "INSERT INTO s.t VALUES (1) RETURNING pg_sleep(1);",
        "INSERT INTO s.t VALUES ('a'::text);",
        "INSERT INTO s.t VALUES (1 + 1);",
        "INSERT INTO s.t VALUES ('a' || 'b');",
        "INSERT INTO s.t VALUES (CURRENT_USER);",
        "INSERT INTO s.t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = pg_sleep(1);",
        "INSERT INTO s.t SELECT 1;",
        "SET SESSION AUTHORIZATION app; CREATE TABLE s.t (a integer);",
        "SET SESSION AUTHORIZATION app; GRANT ALL ON TABLE s.t TO b; DROP TABLE s.t;",
        "BEGIN;",
        "BEGIN; SELECT pg_catalog.lo_open('1', 131072);",
    ],
)
def test_what_pg_dump_does_not_write_in_that_form(statement: str) -> None:
    assert refused(f"SET lock_timeout = 0;\n{statement}\n".encode()).count == 1


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE USER MAPPING FOR app SERVER far OPTIONS (password 'x');",
        "DROP USER MAPPING IF EXISTS FOR app SERVER far;",
        "INSERT INTO s.t VALUES (1, -2.5e+10, NULL, true, 'it''s', E'a\\\\b', B'01', DEFAULT, '{1,2}');",
        "INSERT INTO s.t (a, b) OVERRIDING SYSTEM VALUE VALUES (1, 'x'), (-2, 'y') ON CONFLICT DO NOTHING;",
        "INSERT INTO s.t DEFAULT VALUES;",
        "SET SESSION AUTHORIZATION 'app'; CREATE TABLE s.t (a integer);",
        "SET SESSION AUTHORIZATION app; GRANT ALL ON TABLE s.t TO b; RESET SESSION AUTHORIZATION; DROP TABLE s.t;",
        "BEGIN;\nSELECT pg_catalog.lo_open('1', 131072);\nCOMMIT;",
    ],
)
def test_what_pg_dump_writes(statement: str) -> None:
    assert refused(f"{statement}\n".encode()).found == []


@pytest.mark.parametrize(
    ("script", "shown"),
    [
        (b"ALTER ROLE app WITH LOGIN PASSWORD 'sk-hidden';\n", "ALTER ROLE app WITH LOGIN PASSWORD"),
        (b"INSERT INTO s.keys (id, key) VALUES (1, lower('sk-hidden'));\n", "INSERT INTO s.keys"),
        (b"COPY s.t FROM PROGRAM 'curl -H sk-hidden';\n", "COPY s.t FROM PROGRAM"),
        (b"DO $$ BEGIN PERFORM 'sk-hidden'; END $$;\n", "DO"),
        (b"\\! curl sk-hidden\n", "\\!"),
        (b"\\connect postgresql://a:sk-hidden@b/c\n", "\\connect"),
        (b'DROP ROLE "\x1b[2J\xe2\x80\xaea\nb";\n', 'DROP ROLE "\\x1b[2J\\u202ea\\nb"'),
    ],
)
def test_an_excerpt_is_the_kind_of_statement_and_its_object(script: bytes, shown: str) -> None:
    [refusal] = refused(script).found
    assert refusal.excerpt == shown


def test_control_characters_are_escaped_in_errors_and_texts() -> None:
    assert BackupToolError("a\x1b]0;x\x07b\nc").message == "a\\x1b]0;x\\x07b\nc"
    assert printable("perché\t漢 \x9b31m") == "perché\t漢 \\x9b31m"
    assert describe(Kept(name="\x1b[31mred.sql", keep=True)).startswith("\\x1b[31mred.sql")


CONTROLS = "\x1b]0;owned\x07\x9b31m\u202e"


def told_in_full() -> Listing:
    """A listing whose every text holds control characters, as file names, labels, servers and the audit log may."""
    now = datetime.now(UTC)
    item = Listed.model_construct(
        name=f"{CONTROLS}.sql",
        age_seconds=1.0,
        bytes=1,
        state="foreign",
        rows=1,
        proved_at=None,
        slot=None,
        keep=False,
        shrunk=None,
        repaired_from=None,
        other_database=False,
        label=CONTROLS,
        detail=CONTROLS,
    )
    call = AuditEntry.model_construct(
        time=now,
        tool=f"tool{CONTROLS}",
        client=Client(name=f"client{CONTROLS}"),
        code=None,
        outcome="ok",
        duration_seconds=1.0,
        message=CONTROLS,
        before={},
        after={"backup": CONTROLS},
    )
    return Listing.model_construct(
        directory=f"/{CONTROLS}", backups=[item], undo_points=[], jobs=[], log=[call], warnings=[CONTROLS]
    )


@pytest.mark.parametrize("width", ["200", "80"])
@pytest.mark.parametrize("as_json", [False, True])
def test_no_text_of_others_reaches_a_terminal_with_its_control_characters(
    as_json: bool, width: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    listing = told_in_full().model_copy(update={"total_backups": 1, "total_bytes": 1})
    print_result(Kept(name=CONTROLS, keep=True) if as_json else listing, as_json)
    with PipedProgress(quiet=False) as progress:
        progress.stage(f"dumping {CONTROLS}")
    with pytest.raises(SystemExit), errors(as_json):
        raise BackupToolError(CONTROLS, f"Call it with {CONTROLS}")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)

    def prompt(words: str, **_: object) -> None:
        click.echo(words)

    monkeypatch.setattr(click, "prompt", prompt)
    with pytest.raises(ConfirmationNeeded):
        ask(progress, lambda: print_on_stderr(f"Restore {CONTROLS}?"), f"Type {CONTROLS}", f"restore {CONTROLS}")
    record = logging.LogRecord("x", logging.WARNING, "x", 1, "said %s", (CONTROLS,), None)
    root = logging.Logger("root")
    monkeypatch.setattr(logging, "root", root)
    log_to_stderr("%(message)s")
    root.handle(record)
    shown = capsys.readouterr()
    assert "owned" in shown.out
    assert shown.err.count("owned") >= 5
    assert not re.search("[\x07\x9b\u202e]|\x1b\\]", shown.out + shown.err)
    if as_json:
        assert Kept.model_validate_json(shown.out.partition("\n}")[0] + "}").name == CONTROLS


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_nothing_may_follow_an_archive_in_a_stream_of_its_own(packing: Packing) -> None:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w"):
        pass
    compress = gzip.compress if packing == "gzip" else zstandard.compress
    first, second = compress(tar.getvalue()), compress(bytes(10240))

    def read(*parts: bytes, single: bool) -> bytes:
        chunks: Iterator[bytes] = iter(parts)
        return b"".join(decompress(chunks, packing, single=single))

    assert read(first, single=True) == tar.getvalue()
    assert len(read(first, second, single=False)) == 20480
    for parts in ((first, second), (first + second,)):
        with pytest.raises(CompressionDamaged, match="something follows"):
            read(*parts, single=True)


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_an_error_of_a_load_is_told_with_its_object(size: int) -> None:
    script = (
        b"-- Name: a; Type: TABLE; Schema: s; Owner: x\n--\n\nCREATE TABLE s.a (b text);\n"
        b"COPY s.a (b) FROM stdin;\n-- " + b"x" * 5000 + b"\n\\.\n"
        b"--\n-- Name: plpgsql; Type: EXTENSION; Schema: -; Owner: -\n--\n\nCREATE\n;\n"
        b"-- Name: a_b; Type: INDEX; Schema: s; Owner: x\n--\nCREATE INDEX a_b ON s.a (f(b));\n"
    )
    headings = Headings()
    chunks = [script[at : at + size] for at in range(0, len(script), size)]
    assert b"".join(headings.passing(chunks)) == script
    told = [headings.before(line) for line in range(1, 17)]
    assert told == ["TABLE s.a"] * 8 + ["EXTENSION plpgsql"] * 5 + ["INDEX s.a_b"] * 3
    assert Headings().before(5) == ""
