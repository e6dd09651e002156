"""Find out which options of pg_dump gave a script its form."""

from __future__ import annotations

import re
from collections.abc import Collection

from .definitions import partitioned
from .lexer import tokens, unquote

AUTHORIZATION = re.compile(rb"SET SESSION AUTHORIZATION (?:('(?:[^']|'')*')|DEFAULT);")
"""What `--use-set-session-authorization` writes before an owner's objects (`_doSetSessionAuth` in pg_dump's
pg_backup_archiver.c). Around grants by another role pg_dump has it too, but with that role's name as an identifier."""
STANDARD_COMMENT = b"COMMENT ON SCHEMA \"public\" IS 'standard public schema';"
"""Every new database has it, so pg_dump leaves it out, but not with `--quote-all-identifiers` (seen on 15.20 and 18.6):
a database without the schema then differs in it from one that was created from its dump."""

_CREATE = re.compile(rb"CREATE (?:SCHEMA|(?:UNLOGGED )?TABLE) ")
_ATTACH = re.compile(rb"ALTER TABLE [^;]*? ATTACH PARTITION ")
_BARE = re.compile(rb"[a-z_]")
_NEEDLESSLY_QUOTED = re.compile(rb'"([a-z_][a-z0-9_]*)"')
_KEY_WORDS = frozenset(
    b"""
    all analyse analyze and any array as asc asymmetric authorization between bigint binary bit boolean both case cast
    char character check coalesce collate collation column concurrently constraint create cross current_catalog
    current_date current_role current_schema current_time current_timestamp current_user dec decimal default
    deferrable desc distinct do else end except exists extract false fetch float for foreign freeze from full grant
    greatest group grouping having ilike in initially inner inout int integer intersect interval into is isnull join
    json json_array json_arrayagg json_exists json_object json_objectagg json_query json_scalar json_serialize
    json_table json_value lateral leading least left like limit localtime localtimestamp merge_action national natural
    nchar none normalize not notnull null nullif numeric offset on only or order out outer overlaps overlay placing
    position precision primary real references returning right row select session_user setof similar smallint some
    substring symmetric system_user table tablesample then time timestamp to trailing treat trim true union unique
    user using values varchar variadic verbose when where window with xmlattributes xmlconcat xmlelement xmlexists
    xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable
    """.split()
)
"""What pg_dump quotes by itself: `pg_get_keywords()` without the unreserved ones, of PostgreSQL 18."""


class Form:
    """Learns from statements which options pg_dump was given.

    `role` is the owner of what follows, if the script says so in advance.
    """

    def __init__(self) -> None:
        self.role = ""
        self._authorizes = self._bare = self._needless = False
        self._partitioned: set[tuple[str, str]] = set()
        self._partitions: set[tuple[str, str]] = set()

    def take(self, sql: bytes, codec: str) -> None:
        """Learn from a statement of any kind; `codec` is that of its names."""
        if created := _CREATE.match(sql):
            self._created(sql, tokens(sql[created.end() :]), codec)
        elif attach := _ATTACH.match(sql):
            self._partitions.add(_table(tokens(sql[attach.end() :]), codec))
        elif authorization := AUTHORIZATION.fullmatch(sql):
            self._authorizes = True
            self.role = unquote(authorization[1], codec) if authorization[1] else ""

    def options(self, filled: Collection[tuple[str, str]], owners_are_told: bool) -> list[str]:
        """Return pg_dump's options for the same form.

        `filled` are the tables (schema, name) that the script has rows of. `owners_are_told`: its comments name owners.
        If not, scripts that set the same authorizations for different objects could not be told apart.

        A table partitioned by the hash of an enum is loaded via its root even without the option
        (`forcePartitionRootLoad` in pg_dump.c), so all partitions count together: if none is filled under its own name,
        the option would not have changed a script that was written without it.
        """
        via_root = not self._partitioned.isdisjoint(filled) and self._partitions.isdisjoint(filled)
        return [
            *(["--quote-all-identifiers"] if self._needless and not self._bare else []),
            *(["--use-set-session-authorization"] if self._authorizes and owners_are_told else []),
            *(["--load-via-partition-root"] if via_root else []),
        ]

    def _created(self, sql: bytes, words: list[bytes], codec: str) -> None:
        """Note a table's or schema's name, and whether it and a table's first column are quoted without need."""
        end = _end_of_name(words)
        for word in (*words[:end:2], *words[end + 1 : end + 2]):
            self._bare = self._bare or _BARE.match(word) is not None
            quoted = _NEEDLESSLY_QUOTED.fullmatch(word)
            self._needless = self._needless or (quoted is not None and quoted[1] not in _KEY_WORDS)
        if words[end : end + 2] == [b"PARTITION", b"OF"]:
            self._partitions.add(_table(words, codec))
        elif b"PARTITION BY" in sql and partitioned(sql):
            self._partitioned.add(_table(words, codec))


def _end_of_name(words: list[bytes]) -> int:
    """Find the end of the name that the words begin with."""
    end = 1
    while words[end : end + 1] == [b"."]:
        end += 2
    return end


def _table(words: list[bytes], codec: str) -> tuple[str, str]:
    """Return schema ("" if there is none) and name of the table that the words begin with."""
    names = [unquote(word, codec) for word in words[: _end_of_name(words) : 2]]
    return "".join(names[:-1]), "".join(names[-1:])
