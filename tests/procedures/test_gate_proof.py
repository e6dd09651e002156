"""A backup opens the gate only where a drill has proved that its definitions load, and `backup` makes that drill."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from scarlet_backup_mcp.models.results import Backup, Gate
from scarlet_backup_mcp.models.verification import Drill
from scarlet_backup_mcp.postgres.dump.definitions_digest import Called, called_functions
from scarlet_backup_mcp.postgres.dump.sample import sampled
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.drill import sql as drills
from scarlet_backup_mcp.procedures.gate import gate
from scarlet_backup_mcp.procedures.sandbox import lifecycle
from scarlet_backup_mcp.procedures.sandbox.lifecycle import sandbox_server
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import Settings
from scarlet_backup_mcp.store.names import VERIFIED
from scarlet_backup_mcp.summaries import describe

from ..helpers.drill import Databases, drill, listed, take

pytestmark = pytest.mark.usefixtures("shared")
"""One throw-away server for all drills here."""

AGENTS = """
CREATE SEQUENCE counted;
CREATE TABLE agents (id int PRIMARY KEY, name text NOT NULL, picture oid);
CREATE TABLE notes (id int PRIMARY KEY, agent int NOT NULL REFERENCES agents, body text);
COMMENT ON CONSTRAINT notes_agent_fkey ON notes IS 'whose';
INSERT INTO agents SELECT nextval('counted'), 'agent', lo_from_bytea(0, 'abc') FROM generate_series(1, 3);
INSERT INTO notes VALUES (1, 1, 'x');
"""
UNQUALIFIED = """
CREATE FUNCTION norm(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN lower_case($1); END';
CREATE FUNCTION lower_case(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT pg_catalog.lower($1)';
CREATE TABLE names (name text);
CREATE MATERIALIZED VIEW normed AS SELECT norm(name) AS name FROM names;
"""
"""From 17 on a materialised view is filled with a safe search_path, in which `norm` does not find `lower_case` as soon
as there is a row: no search_path of a load helps."""


@pytest.fixture
def letta(databases: Databases) -> Settings:
    return databases.make(AGENTS, gate_level="full")


def ask(settings: Settings, **more: Any) -> Gate:
    with BackupContext(settings.model_copy(update=more)) as context:
        return gate(context)


def not_proved(found: Gate | Backup) -> str:
    """What a gate that is shut for want of a drill says."""
    assert not found.safe_to_proceed
    return next(reason for reason in found.reasons if reason.startswith("not_proved:"))


def drilled(made: Backup) -> Drill:
    assert made.drill is not None
    return made.drill


def definitions(settings: Settings, name: str) -> str:
    with BackupContext(settings) as context:
        head = context.directory.manifest_head(name)
    assert head is not None
    assert head.definitions_sha256 is not None
    return head.definitions_sha256


def edit_outcome(settings: Settings, name: str, **changes: str | None) -> None:
    assert settings.dir is not None
    path = settings.dir / (name + VERIFIED)
    outcome = json.loads(path.read_bytes())
    outcome["drilled"].update(changes)
    path.write_text(json.dumps(outcome), encoding="utf-8")


# The digest


def test_rows_a_sequence_and_a_large_object_leave_the_definitions_as_they_are(
    databases: Databases, letta: Settings
) -> None:
    before = definitions(letta, take(letta, verify="full").name)
    databases.psql(
        """INSERT INTO agents SELECT nextval('counted'), 'new', lo_from_bytea(0, 'more') FROM generate_series(1, 9);
           UPDATE notes SET body = repeat('y', 9000); SELECT lo_unlink(picture) FROM agents WHERE id = 1; ANALYZE""",
        letta.database,
    )
    assert definitions(letta, take(letta, verify="full").name) == before


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE notes ADD COLUMN more int",
        "CREATE INDEX ON notes (body)",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem TO ''5MB''', current_database()); END $$",
        "DROP SCHEMA public CASCADE; CREATE SCHEMA other; CREATE TABLE other.agents AS SELECT 1 AS id",
    ],
)
def test_a_change_of_definitions_or_of_the_databases_settings_changes_them(
    databases: Databases, letta: Settings, statement: str
) -> None:
    before = definitions(letta, take(letta, verify="full").name)
    databases.psql(statement, letta.database)
    assert definitions(letta, take(letta, verify="full", accept_smaller=True).name) != before


FUNCTION = "CREATE FUNCTION own(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1'; CREATE TABLE t (n int);"


@pytest.mark.parametrize(
    ("statements", "own"),  # None: an extension's
    [
        ("CREATE TABLE t (n int CHECK (abs(n) > 0)); CREATE INDEX ON t (abs(n))", False),
        ("CREATE EXTENSION vector; CREATE TABLE t (v vector(2)); CREATE INDEX ON t ((vector_norm(v)))", None),
        ("CREATE EXTENSION vector; CREATE TABLE t (v vector(2)); CREATE INDEX ON t USING hnsw (v vector_l2_ops)", None),
        ("CREATE EXTENSION vector; CREATE TABLE t (v vector(2), n int); CREATE INDEX ON t (n)", False),
        (f"{FUNCTION} ALTER TABLE t ALTER n SET DEFAULT own(1); CREATE VIEW v AS SELECT own(n) FROM t", False),
        (f"{FUNCTION} CREATE INDEX ON t (own(n))", True),
        (f"{FUNCTION} CREATE INDEX ON t (n) WHERE own(n) > 0", True),
        (f"{FUNCTION} ALTER TABLE t ADD CHECK (own(n) > 0)", True),
        (f"{FUNCTION} ALTER TABLE t ADD COLUMN g int GENERATED ALWAYS AS (own(n)) STORED", True),
        (f"{FUNCTION} CREATE VIEW v AS SELECT own(n) FROM t; CREATE MATERIALIZED VIEW m AS SELECT * FROM v", True),
        (f"{FUNCTION} CREATE DOMAIN d AS int CHECK (own(VALUE) > 0)", True),
        (f"{FUNCTION} CREATE OPERATOR @@@ (FUNCTION = own, RIGHTARG = int); CREATE INDEX ON t ((@@@ n))", True),
        (
            """CREATE TABLE t (n int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
               CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()""",
            True,
        ),
    ],
)
def test_functions_of_a_users_that_a_load_would_call_are_found(
    databases: Databases, statements: str, own: bool | None
) -> None:
    settings = databases.make(statements)
    with BackupContext(settings) as context, context.server.session(context.database) as session:
        assert called_functions(session) == Called(own=own is True, any=own is not False)


# What `backup` drills by itself


def test_first_backup_of_new_definitions_is_drilled_and_later_ones_rest_on_that(
    databases: Databases, letta: Settings
) -> None:
    first = take(letta)
    assert (drilled(first).proved, drilled(first).proved_by, first.proved_by) == (True, "full", "full")
    assert first.safe_to_proceed, first.reasons
    databases.psql("INSERT INTO notes VALUES (2, 2, 'y')", letta.database)
    second = take(letta)
    assert (second.drill, second.proved, second.proved_by, second.safe_to_proceed) == (None, None, "full", True)
    assert any("A drill with all rows proved" in reason for reason in second.reasons)
    assert any("A drill with all rows proved" in reason for reason in ask(letta).reasons)
    databases.psql("CREATE INDEX ON notes (body)", letta.database)
    assert drilled(take(letta)).proved


def test_full_verification_alone_shuts_the_gate_until_a_drill(letta: Settings) -> None:
    made = take(letta, verify="full")
    assert (made.good, made.drill, made.proved_by) == (True, None, None)
    assert "verify it with level drill" in not_proved(made)
    assert "SCARLET_BACKUP_BIN_DIR" in not_proved(ask(letta))
    assert "drill on the live server" in not_proved(ask(letta, gate_level="proved"))
    unproved = ask(letta, gate_level="unproved")
    assert unproved.safe_to_proceed
    assert any("SCARLET_BACKUP_GATE_LEVEL=unproved" in reason for reason in unproved.reasons)
    drill(letta, made.name)
    assert ask(letta).safe_to_proceed
    assert ask(letta, gate_level="proved").safe_to_proceed
    later = take(letta, verify="full")
    assert later.safe_to_proceed, later.reasons
    (letta.dir / made.name).unlink() if letta.dir else None
    assert "No restore drill has proved" in not_proved(ask(letta, gate_level="proved"))


def test_drill_on_the_live_server_opens_it(letta: Settings) -> None:
    made = take(letta, verify="full")
    drill(letta, made.name, on_live_server=True)
    assert ask(letta).safe_to_proceed


def test_backup_that_does_not_load_is_there_but_does_not_open_the_gate(databases: Databases) -> None:
    """`full` says that it is valid, and so it is; but neither psql nor `restore` can load it as it stands."""
    settings = databases.make(AGENTS + UNQUALIFIED + "INSERT INTO names VALUES ('x')", gate_level="full")
    made = take(settings)
    assert (drilled(made).proved_by, made.proved_by) == (None, None)
    for found in (made, ask(settings)):
        assert not found.safe_to_proceed
        assert any("function lower_case(text) does not exist" in reason for reason in found.reasons)
    assert "or another backup with the same definitions" in not_proved(take(settings, verify="full"))


def test_gate_says_how_to_drill_where_a_drill_came_to_no_verdict(letta: Settings) -> None:
    made, lacks = take(letta), "there is no extension letta_only"
    edit_outcome(letta, made.name, by=None, verdict="unknown", detail=f"It could not be told: {lacks}.")
    told = not_proved(ask(letta))
    assert f"{lacks}. Fix that, then verify it with level drill" in told
    assert "or drill on the live server" in told
    edit_outcome(letta, made.name, verdict="will_not_load")
    assert not_proved(ask(letta)).endswith(f"{lacks}. Fix that, then take a new backup.")


def test_functions_that_no_row_has_called_are_not_proved(databases: Databases) -> None:
    settings = databases.make(AGENTS + UNQUALIFIED, gate_level="full")
    assert take(settings).safe_to_proceed
    databases.psql("INSERT INTO names VALUES ('x')", settings.database)
    made = take(settings)
    assert (drilled(made).proved_by, drilled(made).verdict, made.safe_to_proceed) == (None, "will_not_load", False)


def test_full_drill_is_due_again_after_some_days(letta: Settings) -> None:
    made = take(letta)
    old = (made.created_at - timedelta(days=8)).isoformat()
    edit_outcome(letta, made.name, at=old)
    assert ask(letta).safe_to_proceed
    assert drilled(take(letta)).proved_by == "full"
    assert take(letta).drill is None
    assert take(letta.model_copy(update={"drill_days": 0})).drill is not None


def test_proof_holds_on_its_own_image_only_and_until_a_later_drill_fails(letta: Settings) -> None:
    made = take(letta)
    edit_outcome(letta, made.name, on="PostgreSQL 15.1")
    assert "or another backup with the same definitions, on PostgreSQL 18" in not_proved(ask(letta))
    second = take(letta)
    assert drilled(second).proved_by == "full"
    third = take(letta)
    assert third.safe_to_proceed
    edit_outcome(letta, second.name, by=None)
    not_proved(ask(letta))


def test_drill_that_can_not_be_made_fails_no_backup(
    letta: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = take(without_a_sandbox_server(letta, monkeypatch, tmp_path))
    assert (made.good, made.drill, made.safe_to_proceed) == (True, None, False)
    not_proved(made)
    assert "The drill could not be done" in made.reasons[-1]
    assert "SCARLET_BACKUP_BIN_DIR" in made.reasons[-1]


def test_drill_that_was_only_due_again_and_can_not_be_made_leaves_the_proof_of_before(
    letta: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = take(letta)
    edit_outcome(letta, first.name, at=(first.created_at - timedelta(days=8)).isoformat())
    made = take(without_a_sandbox_server(letta, monkeypatch, tmp_path))
    assert (made.good, made.drill, made.proved_by, made.safe_to_proceed) == (True, None, "full", True)
    since = f"{first.created_at - timedelta(days=8):%Y-%m-%d %H:%M} UTC"
    stands = f"The proof of these definitions from {since} still holds; the full drill that was due could not be done: "
    assert made.reasons[-1].startswith(stands)


def without_a_sandbox_server(letta: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """Where there are only clients' programs."""
    monkeypatch.setattr(drills, "sandbox_server", sandbox_server)
    clients = tmp_path / "bin"
    clients.mkdir()
    assert letta.bin_dir is not None
    for program in ("psql", "pg_dump", "pg_isready"):
        (clients / program).symlink_to(letta.bin_dir / program)
    monkeypatch.setattr(lifecycle, "_likeness", nothing_known)
    return letta.model_copy(update={"bin_dir": clients})


def nothing_known(context: BackupContext, progress: Progress) -> lifecycle._Likeness:  # pyright: ignore[reportPrivateUsage]
    """Of a live server on another machine: where its programs are."""
    return lifecycle._Likeness()  # pyright: ignore[reportPrivateUsage]


def test_unproved_needs_no_drill(letta: Settings) -> None:
    made = take(letta.model_copy(update={"gate_level": "unproved"}))
    assert (made.drill, made.safe_to_proceed) == (None, True)
    assert any("unproved" in reason for reason in made.reasons)


# Samples

MANY = f"""{AGENTS}
INSERT INTO agents SELECT n, 'agent ' || n FROM generate_series(100, 2500) AS n;
INSERT INTO notes SELECT n, 2600 - n, repeat('x', n) FROM generate_series(100, 2500) AS n;
CREATE INDEX ON notes (lower(body));
CREATE MATERIALIZED VIEW told AS SELECT count(*) AS notes FROM notes;
"""
"""The first thousand notes are of agents that are not among the first thousand."""


def test_large_dump_gets_a_sample_which_proves_its_definitions_and_not_its_rows(databases: Databases) -> None:
    settings = databases.make(MANY, gate_level="full", drill_bytes=1000)
    made = take(settings)
    found = drilled(made)
    assert (found.proved, found.proved_by, found.rows_compared, found.differences) == (None, "sample", 2000, [])
    assert (made.proved, made.proved_by, made.good, made.safe_to_proceed) == (None, "sample", True, True), made.reasons
    assert listed(settings, made.name).proved_at is None
    own_words = "its definitions load, and the first 1,000 rows of each table came back"
    assert (found.sound, found.verdict, found.detail) == (None, "unknown", own_words)
    assert describe(made).count(own_words) == 1
    with BackupContext(settings) as context:
        read = verify(context, Progress(), made.name)
    assert (read.valid, read.verdict, read.proved, read.drill) == (True, None, None, None)
    assert "No restore drill has proved" in not_proved(ask(settings, gate_level="proved"))
    assert any("A drill with a sample of the rows" in reason for reason in ask(settings).reasons)
    assert take(settings).drill is None
    edit_outcome(settings, made.name, at=(made.created_at - timedelta(days=8)).isoformat())
    assert drilled(take(settings)).proved_by == "full"


def test_no_sample_where_a_function_of_a_users_is_called(databases: Databases) -> None:
    own = f"{FUNCTION} CREATE INDEX ON notes (own(id));"
    settings = databases.make(MANY + own, gate_level="full", drill_bytes=1000)
    assert (drilled(take(settings)).proved_by, drilled(take(settings, verify="drill")).rows_compared) == ("full", 4806)


def test_where_only_a_part_of_the_rows_does_not_load_all_are_loaded(databases: Databases) -> None:
    part = "CREATE MATERIALIZED VIEW half AS SELECT 1 / (count(*) - 1000) AS n FROM notes"
    settings = databases.make(MANY + part, gate_level="full", drill_bytes=1000)
    made = take(settings)
    assert (drilled(made).proved, made.proved_by, made.safe_to_proceed) == (True, "full", True)


SCRIPT = b"""--
-- PostgreSQL database dump
--

\\restrict aBc

CREATE TABLE s.t (n int);
--
-- Data for Name: t; Type: TABLE DATA; Schema: s; Owner: o
--

COPY s.t (n) FROM stdin;
1
2
3
\\.


--
-- Name: t "it's"; Type: FK CONSTRAINT; Schema: s; Owner: o
--

ALTER TABLE ONLY s.t
    ADD CONSTRAINT "it's" FOREIGN KEY (n) REFERENCES s.u(n);


--
-- Name: CONSTRAINT "it's" ON t; Type: COMMENT; Schema: s; Owner: o
--

COMMENT ON CONSTRAINT "it's" ON s.t IS 'a FOREIGN KEY (n)';

--
-- Name: CONSTRAINT c ON t; Type: COMMENT; Schema: s; Owner: o
--

COMMENT ON CONSTRAINT c ON s.t IS 'ALTER TABLE s.t ADD CONSTRAINT x FOREIGN KEY (n)';
SELECT pg_catalog.lowrite(0, '\\x00');
--
-- PostgreSQL database dump complete
--

"""


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_sample_has_the_first_rows_and_no_foreign_keys(size: int) -> None:
    chunks = [SCRIPT[at : at + size] for at in range(0, len(SCRIPT), size)]
    found = b"".join(sampled(chunks, 2)).decode()
    assert "\n1\n2\n\\.\n" in found
    assert "ADD CONSTRAINT x" in found
    assert found.endswith("-- PostgreSQL database dump complete\n--\n")
    assert not [left for left in ("3", "it's", "restrict", "lowrite") if left in found]
    assert "\n1\n" not in b"".join(sampled(chunks, 0)).decode()


def test_sample_of_long_rows_takes_little_memory_and_cuts_between_rows() -> None:
    row = b"x" * (5 << 20) + b"\n"
    script = b"COPY t (a) FROM stdin;\n" + row * 3 + b"\\.\n"
    chunks = (script[at : at + 65536] for at in range(0, len(script), 65536))
    assert b"".join(sampled(chunks, 2)) == b"COPY t (a) FROM stdin;\n" + row * 2 + b"\\.\n"
