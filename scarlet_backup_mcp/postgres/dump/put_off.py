"""Rewrite a script for a role that is no superuser: defer statements that need one and run no code of users."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from .encodings import codec_set_by
from .lexer import tokens, unquote
from .refusals import readable

_OWNER = re.compile(r"ALTER [^,]* OWNER TO \S+$", re.DOTALL)
_ARGUMENTS = re.compile(r"\([^()]*\)")
# Privileges and comments; and what acts by itself once it exists, or sends rows to others.
_PUT_OFF = re.compile(
    r"ALTER DEFAULT PRIVILEGES |GRANT |REVOKE |(?:RE)?SET SESSION AUTHORIZATION|COMMENT ON |"
    r"SECURITY LABEL |(?:CREATE|ALTER) (?:PUBLICATION|SUBSCRIPTION) ",
    re.DOTALL,
)
_LAST = re.compile(r"(?:CREATE|ALTER) EVENT TRIGGER |COMMENT ON EVENT TRIGGER ", re.DOTALL)


class PutOff:
    """Rewrites a script so that a role can load it that owns the database, its extensions and their `schemas`; keeps
    what a superuser has to do afterwards."""

    def __init__(self, schemas: Collection[str]) -> None:
        self._schemas = {*schemas}
        self.owners: list[bytes] = []
        """Statements that give objects to their owners; they come first."""
        self._afterwards: list[bytes] = []
        self._last: list[bytes] = []
        self._codec = "utf-8"

    @property
    def statements(self) -> list[bytes]:
        """What is left to do then, in the order of the script, except event triggers, which come last."""
        return [*self._afterwards, *self._last]

    def rewrite(self, sql: bytes) -> Iterator[bytes]:
        """Rewrite a statement (see `rewriting.rewritten`)."""
        if codec := codec_set_by(sql):
            self._codec = codec
            self.owners.append(sql)  # names are in the script's encoding
            self._afterwards.append(sql)
        words = tokens(sql) if sql[:1] in b"ACGRS" else []
        form = readable(words)
        if _LAST.match(form):
            self._last.append(sql)
        elif _PUT_OFF.match(form):
            self._afterwards.append(sql)
        # Only this one action: a second one, after a comma, could run users' code.
        elif _OWNER.match(_ARGUMENTS.sub("", form)):
            self.owners.append(sql)
        elif not (form.startswith("CREATE EXTENSION ") or self._exists(words)):
            yield sql

    def _exists(self, words: list[bytes]) -> bool:
        return words[:2] == [b"CREATE", b"SCHEMA"] and unquote(words[2], self._codec) in self._schemas
