"""Find the code in a script: what runs while it is loaded, and what will run afterwards."""

from __future__ import annotations

from collections.abc import Iterator

from ...wording import shortened
from .encodings import codec_set_by
from .events import Handler
from .lexer import tokens, unquote

_MODIFIERS = frozenset(
    {b"OR", b"REPLACE", b"UNIQUE", b"UNLOGGED", b"CONSTRAINT", b"RECURSIVE", b"ONLY", b"IF", b"NOT", b"EXISTS"}
)

_TWO_WORDS = frozenset({b"EVENT", b"MATERIALIZED"})
_LISTED = {
    b"FUNCTION": "functions",
    b"PROCEDURE": "procedures",
    b"TRIGGER": "triggers",
    b"EVENT TRIGGER": "event triggers",
    b"RULE": "rules",
    b"MATERIALIZED VIEW": "materialised views",
}


class BroughtCode(Handler):
    """Collects functions, triggers, rules and materialised views, and the tables, domains and indexes that call such a
    function. Functions called through a cast or an operator, or by another function, are only listed as functions.
    """

    def __init__(self) -> None:
        self._codec = "utf-8"
        self._calls: dict[str, set[str]] = {}
        self._found: dict[str, list[str]] = {}

    def statement(self, sql: bytes, line: int) -> None:
        """Note what the statement creates."""
        self._codec = codec_set_by(sql) or self._codec
        if not sql[:12].upper().startswith((b"CREATE ", b"ALTER TABLE ", b"ALTER DOMAIN")):
            return
        words = tokens(sql)
        keys = [word.upper() for word in words]
        at = next((at for at in range(1, len(keys)) if keys[at] not in _MODIFIERS), 1)
        kind, at = (keys[at] + b" " + keys[at + 1], at + 2) if keys[at] in _TWO_WORDS else (keys[at], at + 1)
        while at < len(keys) and keys[at] in _MODIFIERS:
            at += 1
        if kind in _LISTED:
            self._found.setdefault(_LISTED[kind], []).append(self._name(words, at) + self._on(words, keys, kind))
        elif kind in (b"TABLE", b"DOMAIN", b"INDEX"):
            of = f"the index {self._name(words, at)}" if kind == b"INDEX" else self._name(words, at)
            self._calls.setdefault(of, set()).update(self._called(words))

    def warnings(self) -> list[str]:
        """Describe the code in sentences; [] if there is none."""
        functions = self._found.get(_LISTED[b"FUNCTION"], [])
        runs = [
            f"{', '.join(sorted(used))} for {of}" for of, names in self._calls.items() if (used := names & {*functions})
        ]
        runs += [f"materialised view {name}" for name in self._found.get(_LISTED[b"MATERIALIZED VIEW"], [])]
        kept = [f"{what} {shortened(names)}" for what, names in self._found.items() if what != "materialised views"]
        return [
            *([f"Its own code runs while it is loaded: {shortened(runs)}."] if runs else []),
            *([f"It has code that runs for everyone who uses the database: {'; '.join(kept)}."] if kept else []),
        ]

    def _name(self, words: list[bytes], at: int) -> str:
        parts = words[at : at + 3] if words[at + 1 : at + 2] == [b"."] else words[at : at + 1]
        return ".".join(unquote(part, self._codec) for part in parts if part != b".")

    def _on(self, words: list[bytes], keys: list[bytes], kind: bytes) -> str:
        """Return " on " and the table of a trigger or rule."""
        preposition = {b"TRIGGER": b"ON", b"RULE": b"TO"}.get(kind)
        if preposition is None or preposition not in keys:
            return ""
        return f" on {self._name(words, keys.index(preposition) + 1)}"

    def _called(self, words: list[bytes]) -> Iterator[str]:
        for at in range(1, len(words)):
            if words[at] == b"(":
                begin = at - 3 if words[at - 2 : at - 1] == [b"."] else at - 1
                yield self._name(words, max(begin, 0))
