from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.postgres.server.quoting import identifier, literal, qualified
from scarlet_backup_mcp.postgres.server.session import Session
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.settings import load_settings

ANY_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=80)
TRICKY = st.text("'\"\\;:$-/*eEuU&x{}\n\r\t ?@`%", max_size=20)
SHARED_SERVER = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)


@pytest.fixture(scope="module")
def session(embedded: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    configured = load_settings(
        **{
            "via": "local",
            "dsn": embedded.dsn(),
            "bin_dir": embedded.bin_dir,
            "dir": tmp_path_factory.mktemp("quoting"),
        }
    )
    with BackupContext(configured) as context, context.server.session("postgres") as opened:
        yield opened


@SHARED_SERVER
@given(text=ANY_TEXT | TRICKY)
@example(text="\\")
@example(text="\\'; DROP TABLE agents; --")
@example(text=":DBNAME :'DBNAME' :\"DBNAME\"")
@example(text="a\n\\! echo\n\\q\n")
@example(text="\x1a\x7f\u0085\u2028")
def test_literal_means_its_text(session: Session, text: str) -> None:
    assert session.rows(f"SELECT {literal(text)} AS text") == [{"text": text}]


@SHARED_SERVER
@given(text=TRICKY)
def test_literal_means_its_text_without_standard_conforming_strings(session: Session, text: str) -> None:
    """psql follows that setting of the server when it looks for a string's end, so both have to agree."""
    session.execute("SET standard_conforming_strings = off")
    try:
        assert session.rows(f"SELECT {literal(text)} AS text") == [{"text": text}]
    finally:
        session.execute("SET standard_conforming_strings = on")


@SHARED_SERVER
@given(name=(ANY_TEXT | TRICKY).filter(lambda name: 1 <= len(name.encode()) <= 63))
@example(name='a"b')
@example(name='x" FROM pg_database; --')
@example(name=":DBNAME")
@example(name="Città e caffè 🌹")
def test_identifier_means_its_name(session: Session, name: str) -> None:
    assert session.rows(f"SELECT 1 AS {identifier(name)}") == [{name: 1}]


def test_qualified_name_reaches_a_table_whatever_it_is_called(session: Session) -> None:
    for schema, table in (("a.b", 'c"d'), ("Scarlet", "agents; DROP"), ("sch ema", "è")):
        session.execute(f"CREATE SCHEMA {identifier(schema)}")
        try:
            session.execute(f"CREATE TABLE {qualified(schema, table)} AS SELECT 7 AS n")
            assert session.rows(f"SELECT n FROM {qualified(schema, table)}") == [{"n": 7}]
        finally:
            session.execute(f"DROP SCHEMA {identifier(schema)} CASCADE")


def test_nothing_is_null() -> None:
    assert literal(None) == "NULL"
    assert literal("NULL") == "'NULL'"


@pytest.mark.parametrize("quote", [identifier, literal])
def test_nul_is_refused(quote: Callable[[str], str]) -> None:
    with pytest.raises(ValueError, match="NUL"):
        quote("a\0b")


def test_setting_values_survive_the_way_a_restore_takes(session: Session) -> None:
    """A quoted list is one value for set_config and several names for the server."""
    value = '"$user", public, "My ""odd"" schema"'
    session.execute(f"SELECT set_config('search_path', {literal(value)}, false)")
    try:
        assert session.rows("SELECT current_setting('search_path') AS value") == [{"value": value}]
    finally:
        session.execute("RESET search_path")
