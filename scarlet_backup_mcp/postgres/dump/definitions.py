"""The definitions in a plain dump: the statements of each object, and whether two definitions mean the same.

Nothing here queries a server. Two texts that differ only in what a server is known to rewrite are `alike`, not equal.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from .lexer import TOKEN, tokens

HEADING = re.compile(rb"-- (?:Data for |Statistics for )?Name: (.*); Type: ([A-Z ]+); Schema: (.*?); Owner: (.*)")
"""The comment that pg_dump writes before an object (`_printTocEntry` in its pg_backup_archiver.c)."""
_ABOUT = re.compile(r"([A-Z]+(?: [A-Z]+)*) (.+)", re.DOTALL)
_TABLESPACE = re.compile(r"; Tablespace: .*\Z")

_HOLDS_EXPRESSIONS = re.compile(
    rb"CREATE (?:OR REPLACE )?(?:(?:UNLOGGED|FOREIGN|UNIQUE|MATERIALIZED|RECURSIVE|CONSTRAINT) )*"
    rb"(?:TABLE|VIEW|RULE|POLICY|INDEX|DOMAIN|TRIGGER|FUNCTION|PROCEDURE|STATISTICS|PUBLICATION) "
    rb"|ALTER (?:(?:FOREIGN )?TABLE|DOMAIN|PUBLICATION) "
)
_HOLDS_QUERIES = re.compile(
    rb"CREATE (?:OR REPLACE )?(?:(?:MATERIALIZED|RECURSIVE) )?(?:VIEW|RULE|FUNCTION|PROCEDURE) "
)
_NEGATIVE = re.compile(rb"'(-)([0-9.]+(?:[eE][+-]?[0-9]+)?)'")
_TWO_WORDS = {b"CHARACTER": b"VARYING", b"BIT": b"VARYING", b"DOUBLE": b"PRECISION"}
_INTERVAL_FIELDS = frozenset({b"YEAR", b"MONTH", b"DAY", b"HOUR", b"MINUTE", b"SECOND", b"TO"})


class ObjectKey(NamedTuple):
    """An object's type (in pg_dump's terms), schema ("" for those without) and name.

    Several objects can share a key, such as grants on a type and on a table of the same name. A statement that belongs
    to no object has the type "".
    """

    type: str
    schema: str
    name: str

    def __str__(self) -> str:
        """Return it for people: "TABLE letta.agents"; for a statement of no object, the statement's beginning."""
        if not self.type:
            return self.name or "statements outside any object"
        kind, name = self.type, self.name
        if kind in ("ACL", "COMMENT", "SECURITY LABEL") and (about := _ABOUT.fullmatch(name)):
            kind, name = f"{kind} ON {about[1]}", about[2]
        return f"{kind} {self.schema}.{name}" if self.schema else f"{kind} {name}"


OUTSIDE = ObjectKey("", "", "")
"""The key of statements that belong to no object."""


@dataclass(frozen=True)
class Definition:
    """An object's owner ("" if the dump does not name one) and its statements as written."""

    owner: str
    statements: tuple[bytes, ...]

    @property
    def sets_value(self) -> bool:
        """Whether it sets a sequence's value."""
        return any(sql.startswith(b"SELECT ") for sql in self.statements)

    @property
    def literals(self) -> list[bytes]:
        """Its strings, in quotes or dollar quotes, sorted; without negative numbers (see `alike`)."""
        kinds = ("string", "escape", "dollar")
        words = (word for sql in self.statements for word in tokens(sql))
        found = (word for word in words if (token := TOKEN.match(word)) and token.lastgroup in kinds)
        return sorted(word for word in found if not _NEGATIVE.fullmatch(word))

    def __str__(self) -> str:
        owner = (f"-- owner: {self.owner}",) if self.owner else ()
        return "\n".join((*owner, *(sql.decode("utf-8", "replace") for sql in self.statements)))


def heading(comment: bytes, codec: str) -> tuple[ObjectKey, str] | None:
    """Return the object that a comment introduces, and its owner; None for any other comment. A name that contains
    "; Type: " may be cut in the wrong place, but always in the same one."""
    found = HEADING.fullmatch(comment)
    if found is None:
        return None
    name, kind, schema, owner = (part.decode(codec, "surrogateescape") for part in found.groups())
    named = _TABLESPACE.sub("", owner)
    return ObjectKey(kind, "" if schema == "-" else schema, name), "" if named == "-" else named


def beginning(sql: bytes) -> str:
    """Return a statement up to its first parenthesis or AS, which usually shows what it is about."""
    words = tokens(sql)
    ends = (at for at, word in enumerate(words) if at and (word in (b"(", b";") or word.upper() == b"AS"))
    return b" ".join(words[: next(ends, len(words))]).decode("utf-8", "replace").replace(" . ", ".")


def partitioned(sql: bytes) -> bool:
    """Tell whether a CREATE TABLE statement creates a partitioned table, which has no storage of its own."""
    words = tokens(sql)
    return any(word == b"PARTITION" and words[at + 1] == b"BY" for at, word in enumerate(words[:-1]))


def same(one: Definition, other: Definition) -> bool:
    """Tell whether both are equal except for white space and comments between words."""
    if one == other:
        return True
    return one.owner == other.owner and [*map(_words, one.statements)] == [*map(_words, other.statements)]


def _words(sql: bytes) -> list[bytes]:
    """Return a statement's tokens, with a policy's roles sorted: pg_dump writes them by OID (`getPolicies`)."""
    words = tokens(sql)
    if words[:2] != [b"CREATE", b"POLICY"] or b"TO" not in words[:12]:
        return words
    begin = words.index(b"TO") + 1
    end = begin + 1
    while words[end : end + 1] == [b","]:
        end += 2
    roles = sorted(words[begin:end:2])
    return [*words[:begin], *roles, *words[end:]]


def alike(one: Definition, other: Definition) -> bool:
    """Tell whether they differ only in what a server writes differently once it has read it.

    Seen on 15.20 and 18.6: the cast of an array becomes one of each element (`CHECK (x IN ('a', 'b'))` on a varchar),
    parentheses change (BETWEEN … AND … AND), `- 1` becomes `'-1'::integer`, an unnamed column of a subquery gets a
    name, and the columns change their order if a table was made to inherit from another one after its creation. Any
    other additional or missing cast can mean another operator.
    """
    return (
        one.owner == other.owner
        and sorted(map(_light, one.statements)) == sorted(map(_light, other.statements))
        and _casts(one) == _casts(other)
    )


def _casts(definition: Definition) -> Counter[bytes]:
    """Count its casts to each type, spelled as `format_type` does, except those of negative numbers. The cast of a
    whole `ARRAY[…]` counts once for each of its elements."""
    found: Counter[bytes] = Counter()
    for sql in definition.statements:
        words = _words(sql)
        for at, word in enumerate(words):
            if word != b"::" or (at and _NEGATIVE.fullmatch(words[at - 1])):
                continue
            name = b" ".join(words[at + 1 : _end_of_type(words, at + 1)])
            element = name.removesuffix(b" [ ]")
            elements = _elements(words, at) if element != name else None
            found[name if elements is None else element] += 1 if elements is None else elements
    return found


def _elements(words: list[bytes], end: int) -> int | None:
    """Count the elements of the `ARRAY[…]`, perhaps in parentheses, that ends before `end`; None if none ends there."""
    while words[end - 1 : end] == [b")"]:
        end -= 1
    if words[end - 1 : end] != [b"]"]:
        return None
    depth, commas = 0, 0
    for at in range(end - 1, 0, -1):
        depth += (words[at] in (b"]", b")")) - (words[at] in (b"[", b"("))
        commas += words[at] == b"," and depth == 1
        if not depth:
            return (0 if at == end - 2 else commas + 1) if words[at - 1].upper() == b"ARRAY" else None
    return None


def _light(sql: bytes) -> list[bytes]:
    """Return a statement's words without casts, parentheses and whatever else `alike` ignores."""
    words = _words(sql)
    head = b" ".join(word.upper() for word in words[:6])
    if not _HOLDS_EXPRESSIONS.match(head):
        return words
    if b"INHERITS" in words and b" TABLE " in head:
        return _light_table(words)
    return list(_lighter(words, queries=bool(_HOLDS_QUERIES.match(head))))


def _light_table(words: list[bytes]) -> list[bytes]:
    """Return a CREATE TABLE statement's words with its columns and constraints sorted."""
    begin = words.index(b"(") + 1 if b"(" in words else len(words)
    items: list[list[bytes]] = [[]]
    depth, end = 1, begin
    for end in range(begin, len(words)):
        word = words[end]
        depth += (word == b"(") - (word == b")")
        if not depth:
            break
        if depth == 1 and word == b",":
            items.append([])
        else:
            items[-1].append(word)
    lighter = sorted(list(_lighter(item)) for item in items)
    return [*words[:begin], *(word for item in lighter for word in (*item, b",")), *_lighter(words[end:])]


def _lighter(words: list[bytes], queries: bool = False) -> Iterator[bytes]:
    at = 0
    while at < len(words):
        word = words[at]
        following = words[at + 1] if at + 1 < len(words) else b""
        at += 1
        if word == b"::":
            at = _end_of_type(words, at)
        elif following == b"::" and (number := _NEGATIVE.fullmatch(word)):
            yield from number.groups()
        elif queries and word == b"AS" and _is_name(following):
            at += 1
        elif word not in (b"(", b")"):
            yield word


def _end_of_type(words: list[bytes], at: int) -> int:
    """Find the end of the type that begins at `at`, as `format_type` writes it."""

    def word(position: int) -> bytes:
        return words[position].upper() if position < len(words) else b""

    while word(at + 1) == b".":
        at += 2
    name = word(at)
    at += 1
    if name in _TWO_WORDS and word(at) == _TWO_WORDS[name]:
        at += 1
    while name == b"INTERVAL" and word(at) in _INTERVAL_FIELDS:
        at += 1
    if word(at) == b"(":
        at = words.index(b")", at) + 1 if b")" in words[at:] else at
    if word(at) in (b"WITH", b"WITHOUT") and word(at + 1) == b"TIME":
        at += 3
    while word(at) == b"[" and b"]" in words[at:]:
        at = words.index(b"]", at) + 1
    return at


def _is_name(word: bytes) -> bool:
    token = TOKEN.match(word)
    return token is not None and token.lastgroup in ("word", "name")
