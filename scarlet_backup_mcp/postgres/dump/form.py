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
_NEEDLESSLY_QUOTED = re.compile(rb'"[a-z_][a-z0-9_]*"')


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
        """Note a table's or schema's name, and whether it and a table's first column are quoted without need.

        A key word needs quotes, too, but it is unlikely that all these names are key words.
        """
        end = _end_of_name(words)
        for word in (*words[:end:2], *words[end + 1 : end + 2]):
            self._bare = self._bare or _BARE.match(word) is not None
            self._needless = self._needless or _NEEDLESSLY_QUOTED.fullmatch(word) is not None
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
