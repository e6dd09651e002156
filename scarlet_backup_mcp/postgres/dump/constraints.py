"""Load a dump whose data violate constraints, and find out which ones.

A dump contains what was there. Data can violate their own constraints after `session_replication_role = replica`, a
change in the catalogue, or through a corrupt index. Foreign keys and checks then become NOT VALID; a unique index is
left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from ...errors import QueryFailed
from ..server.quoting import literal, qualified
from ..server.session import Session
from .encodings import codec_set_by
from .lexer import spans, tokens, unquote

VIOLATIONS = frozenset({"23503", "23505", "23514", "23P01"})
"""SQLSTATEs of data that violate a foreign key, a unique index, a check, or an exclusion constraint."""
KEYS = 5
KEY_LENGTH = 80

Kind = Literal["check", "foreign key", "unique index"]
Key = tuple[str, str, frozenset[str]]
"""Schema and name of a table, and columns in SQL, in any order."""
_CHECK: Kind = "check"
_FOREIGN_KEY: Kind = "foreign key"
_UNIQUE: Kind = "unique index"
# A domain in arrays or rows can't be checked afterwards; a parent's check can't be valid if a child's is not.
_NOT_CHECKED = ("check_violation", "feature_not_supported", "invalid_object_definition")
_BROKEN = {_CHECK: "check_violation", _FOREIGN_KEY: "foreign_key_violation"}
# Statements that fail if a unique index was left out.
_ABOUT_AN_INDEX = (
    [b"COMMENT", b"ON", b"CONSTRAINT"],
    [b"COMMENT", b"ON", b"INDEX"],
    [b"ALTER", b"INDEX"],
)


@dataclass(frozen=True)
class Constraint:
    """A constraint that is valid in a script. `of` is the name of its table or domain in `schema`; `columns` are SQL,
    for a unique constraint; `refers` is the `key` that a foreign key refers to."""

    kind: Kind
    schema: str
    of: str
    name: str
    columns: str = ""
    refers: Key | None = None

    @property
    def key(self) -> Key:
        """What identifies a unique constraint to a foreign key."""
        return self.schema, self.of, frozenset(column.strip() for column in self.columns.split(","))


@dataclass(frozen=True)
class Broken:
    """A constraint that the data violate. `keys` are primary keys of the first rows that do; `rows` is their number,
    None if unknown. `lacks` is the unique constraint that a foreign key needs and that was left out, too: it is unknown
    whether rows violate the foreign key."""

    constraint: Constraint
    left_out: bool
    lacks: str = ""
    rows: int | None = None
    keys: tuple[str, ...] = ()


class Relaxed:
    """Rewrites a script so that it loads even if its data violate constraints; collects these in `constraints`. Checks
    come after the data. A constraint that the data satisfy is created as written; others become NOT VALID, if the
    server supports that, or are left out."""

    def __init__(self) -> None:
        self.constraints: list[Constraint] = []
        self._checks: list[bytes] = []
        self._comments: list[bytes] = []
        self._codec = "utf-8"

    def rewrite(self, sql: bytes) -> Iterator[bytes]:
        """Rewrite a statement (see `rewriting.rewritten`); the statements of `last` come after all others."""
        self._codec = codec_set_by(sql) or self._codec
        places = list(spans(sql))
        words = [sql[start:end] for start, end in places[:24]]
        if words[:2] == [b"CREATE", b"TABLE"] or words[:3] == [b"CREATE", b"UNLOGGED", b"TABLE"]:
            yield self._without_checks(sql, places, words.index(b"TABLE") + 1, b"TABLE")
        elif words[:2] == [b"CREATE", b"DOMAIN"]:
            yield self._without_checks(sql, places, 2, b"DOMAIN")
        elif words[:3] == [b"CREATE", b"UNIQUE", b"INDEX"]:
            table = words.index(b"ON") + 1
            table += words[table : table + 1] == [b"ONLY"]
            self._note(_UNIQUE, words, table, words[3], _plain_columns(tokens(sql)))
            yield _trying(sql, "unique_violation")
        elif words[:2] == [b"ALTER", b"TABLE"] and b"ADD" in words:
            yield from self._added(sql, places, words)
        elif words[:3] == [b"COMMENT", b"ON", b"CONSTRAINT"]:
            self._comments.append(_trying(sql, "undefined_object"))
        elif words[:3] in _ABOUT_AN_INDEX or words[:2] in _ABOUT_AN_INDEX or _names_an_index(words):
            yield _trying(sql, "undefined_object OR undefined_table")
        else:
            yield sql

    def last(self) -> Iterator[bytes]:
        """Yield what has to come after the rest of the script. Partitions come before their parents, so that a parent's
        check merges with theirs; the other way round theirs is refused ("already exists", seen on 18.6)."""
        yield from reversed(self._checks)
        yield from self._comments

    def _note(
        self,
        kind: Kind,
        words: list[bytes],
        table: int,
        name: bytes,
        columns: bytes = b"",
        refers: Key | None = None,
    ) -> None:
        schema, of, name_ = (unquote(word, self._codec) for word in (words[table], words[table + 2], name))
        self.constraints.append(Constraint(kind, schema, of, name_, columns.decode(self._codec, "replace"), refers))

    def _referred(self, words: list[bytes]) -> Key:
        """Return the key that a foreign key refers to."""
        at = words.index(b"REFERENCES") + 1
        columns = b"".join(words[at + 4 : words.index(b")", at)]).decode(self._codec, "replace")
        schema, of = (unquote(word, self._codec) for word in (words[at], words[at + 2]))
        return Constraint(_UNIQUE, schema, of, "", columns).key

    def _without_checks(self, sql: bytes, places: list[tuple[int, int]], table: int, kind: bytes) -> bytes:
        """Remove the checks from a CREATE TABLE or DOMAIN statement, and defer them."""
        words = [sql[start:end] for start, end in places]
        if len(words) < table + 4 or words[table + 3] == b"OF":
            return sql
        name = sql[places[table][0] : places[table + 2][1]]
        kept, upto = bytearray(), 0
        for first, after in _checks(words, in_table=kind == b"TABLE"):
            begin, end = places[first][0], places[after - 1][1]
            self._note(_CHECK, words, table, words[first + 1])
            add = b"ALTER %b %b ADD %b" % (kind, name, sql[begin:end])
            self._checks.append(_trying(add, *_NOT_CHECKED, then=add + b" NOT VALID"))
            if kind == b"TABLE":  # with the comma before it, or else the one after it
                before, behind = words[first - 1] == b",", words[after : after + 1] == [b","]
                begin = places[first - 1][0] if before else begin
                end = places[after][1] if behind and not before else end
            kept += sql[upto:begin]
            upto = end
        return bytes(kept) + sql[upto:]

    def _added(self, sql: bytes, places: list[tuple[int, int]], words: list[bytes]) -> Iterator[bytes]:
        """Rewrite a statement that adds a constraint to a table after its data."""
        at = words.index(b"ADD")
        table = 3 if words[2] == b"ONLY" else 2
        kind = words[at + 3 : at + 4]
        if words[at + 1 : at + 2] != [b"CONSTRAINT"] or [sql[s:e] for s, e in places[-3:-1]] == [b"NOT", b"VALID"]:
            yield sql
        elif kind == [b"FOREIGN"] or kind == [b"CHECK"]:
            what = _FOREIGN_KEY if kind == [b"FOREIGN"] else _CHECK
            refers = self._referred(tokens(sql)) if what == _FOREIGN_KEY else None
            self._note(what, words, table, words[at + 2], refers=refers)
            not_valid = sql[: places[-1][0]] + b" NOT VALID"
            yield _trying(sql, _BROKEN[what], then=not_valid, or_else="OTHERS", lacking="invalid_foreign_key")
        elif kind in ([b"PRIMARY"], [b"UNIQUE"], [b"EXCLUDE"]):
            columns = sql[places[at + 3][0] : places[-1][0]] if kind != [b"EXCLUDE"] else b""
            columns = columns[columns.find(b"(") + 1 : columns.find(b")")]
            self._note(_UNIQUE, words, table, words[at + 2], columns)
            yield _trying(sql, "unique_violation OR exclusion_violation")
        else:
            yield sql


def _checks(words: list[bytes], *, in_table: bool) -> Iterator[tuple[int, int]]:
    """Find each `CONSTRAINT name CHECK (…)` among a statement's words: where it begins, and the word after it. A
    table's are items of its list, a domain's follow each other."""
    depth, at = 0, 0
    level = 1 if in_table else 0
    while at < len(words):
        depth += (words[at] == b"(") - (words[at] == b")")
        if in_table and at and depth == 0 and words[at] == b")":
            return
        if depth == level and words[at] == b"CONSTRAINT" and words[at + 2 : at + 3] == [b"CHECK"]:
            inside, end = 0, at + 3
            while end < len(words):
                inside += (words[end] == b"(") - (words[end] == b")")
                end += 1
                if not inside:
                    break
            while in_table and words[end : end + 1] not in ([b","], [b")"]):
                end += 1  # NO INHERIT
            yield at, end
            at = end
        else:
            at += 1


def _plain_columns(words: list[bytes]) -> bytes:
    """Return the columns of a CREATE INDEX statement; b"" if it has expressions, or is partial."""
    begin = words.index(b"(")
    end = words.index(b")", begin)
    columns = b" ".join(word for word in words[begin + 1 : end] if word not in (b"ASC", b"DESC"))
    plain = all(len(item.split()) == 1 for item in columns.split(b","))
    return columns if plain and b"WHERE" not in words and b"(" not in words[begin + 1 : end] else b""


def _names_an_index(words: list[bytes]) -> bool:
    return words[:2] == [b"ALTER", b"TABLE"] and (b"CLUSTER" in words or b"REPLICA" in words)


def _trying(sql: bytes, *broken: str, then: bytes = b"", or_else: str = "", lacking: str = "") -> bytes:
    """Return SQL that runs `sql`. If that raises one of the conditions `broken`, it runs `then` instead, and nothing if
    that raises `or_else`; if it raises `lacking`, it runs nothing."""
    second = _execute(then) if then else "NULL;"
    if or_else:
        second = f"BEGIN {second} EXCEPTION WHEN {or_else} THEN NULL; END;"
    ignored = f" WHEN {lacking} THEN NULL;" if lacking else ""
    # Bytes of any encoding pass through.
    body = f"BEGIN {_execute(sql)} EXCEPTION WHEN {' OR '.join(broken)} THEN {second}{ignored} END"
    return f"DO {_quoted(body)};".encode("utf-8", "surrogateescape")


def _execute(sql: bytes) -> str:
    return f"EXECUTE {_quoted(sql.decode('utf-8', 'surrogateescape'))};"


def _quoted(text: str) -> str:
    number = 0
    while f"$q{number}$" in text:
        number += 1
    return f"$q{number}${text}$q{number}$"


# -- after the load --------------------------------------------------------------------------------------------------


def broken(session: Session, made: list[Constraint]) -> list[Broken]:
    """List those of a script's constraints that are NOT VALID or missing in the database it was loaded into."""
    valid = {
        (row["schema"], row["of"], row["name"]): row["valid"]
        for row in session.rows(
            """SELECT n.nspname AS schema, coalesce(r.relname, t.typname) AS of, c.conname AS name,
                      c.convalidated AS valid
               FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
               LEFT JOIN pg_class r ON r.oid = c.conrelid LEFT JOIN pg_type t ON t.oid = c.contypid
               UNION ALL
               SELECT n.nspname, r.relname, i.relname, true FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
               JOIN pg_class r ON r.oid = x.indrelid JOIN pg_namespace n ON n.oid = r.relnamespace"""
        )
    }
    states = [(one, valid.get((one.schema, one.of, one.name))) for one in made]
    found = [Broken(one, left_out=state is None) for one, state in states if not state]
    gone = {item.constraint.key: item.constraint.name for item in found if item.constraint.kind == _UNIQUE}
    referring = {item.constraint: item.constraint.refers for item in found if item.left_out}
    return [
        replace(item, lacks=gone[key]) if (key := referring.get(item.constraint)) in gone else item for item in found
    ]


def with_keys(session: Session, found: list[Broken]) -> list[Broken]:
    """Add the rows that violate each constraint, as far as they can be found. Call it on a sandbox server only: it
    evaluates users' expressions."""
    return [_with_keys(session, item) for item in found]


def _with_keys(session: Session, item: Broken) -> Broken:
    constraint = item.constraint
    condition = _CONDITIONS[constraint.kind](session, constraint)
    if condition is None:
        return item
    table = qualified(constraint.schema, constraint.of)
    row = session.rows(
        f"""SELECT (SELECT json_agg(quote_ident(a.attname) ORDER BY k.n) FROM pg_index x,
                    LATERAL unnest(x.indkey) WITH ORDINALITY AS k (att, n), pg_attribute a
                    WHERE x.indrelid = c.oid AND x.indisprimary AND a.attrelid = c.oid AND a.attnum = k.att) AS keys
            FROM pg_class c WHERE c.oid = {literal(table)}::regclass"""
    )[0]
    own = ", ".join(row["keys"] or []) or constraint.columns
    key = f"left(concat_ws(', ', {own}), {KEY_LENGTH})" if own else "NULL"
    try:
        rows = session.rows(
            f"""SELECT {key} AS key, count(*) OVER () AS rows FROM {table} AS t WHERE {condition} LIMIT {KEYS}"""
        )
    except QueryFailed:
        return item
    keys = dict.fromkeys(row["key"] for row in rows if row["key"] is not None)
    return replace(item, rows=rows[0]["rows"] if rows else None, keys=tuple(keys))


def _of_check(session: Session, constraint: Constraint) -> str | None:
    found = session.rows(
        f"""SELECT pg_get_expr(c.conbin, c.conrelid) AS expression {_NAMED.format(**_names(constraint))}"""
    )
    return f"({found[0]['expression']}) IS FALSE" if found else None


def _of_foreign_key(session: Session, constraint: Constraint) -> str | None:
    found = session.rows(
        f"""SELECT c.confrelid::regclass::text AS parent,
                   (SELECT json_agg(json_build_array(quote_ident(a.attname), quote_ident(b.attname),
                                                     format('OPERATOR(%I.%s)', n.nspname, o.oprname)) ORDER BY k.n)
                    FROM unnest(c.conkey, c.confkey, c.conpfeqop) WITH ORDINALITY AS k (child, parent, op, n)
                    JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.child
                    JOIN pg_attribute b ON b.attrelid = c.confrelid AND b.attnum = k.parent
                    JOIN pg_operator o ON o.oid = k.op JOIN pg_namespace n ON n.oid = o.oprnamespace) AS columns
            {_NAMED.format(**_names(constraint))}"""
    )
    if not found:
        return None
    columns = found[0]["columns"]
    given = " AND ".join(f"t.{child} IS NOT NULL" for child, _, _ in columns)
    same = " AND ".join(f"p.{parent} {operator} t.{child}" for child, parent, operator in columns)
    return f"{given} AND NOT EXISTS (SELECT FROM {found[0]['parent']} AS p WHERE {same})"


def _of_unique(session: Session, constraint: Constraint) -> str | None:
    if not constraint.columns:
        return None
    table = qualified(constraint.schema, constraint.of)
    grouped = f"SELECT {constraint.columns} FROM {table} GROUP BY {constraint.columns} HAVING count(*) > 1"
    return f"({constraint.columns}) IN ({grouped})"


_NAMED = """FROM pg_constraint c JOIN pg_class r ON r.oid = c.conrelid JOIN pg_namespace n ON n.oid = r.relnamespace
            WHERE n.nspname = {schema} AND r.relname = {of} AND c.conname = {name}"""
_CONDITIONS: dict[Kind, Callable[[Session, Constraint], str | None]] = {
    _CHECK: _of_check,
    _FOREIGN_KEY: _of_foreign_key,
    _UNIQUE: _of_unique,
}


def _names(constraint: Constraint) -> dict[str, str]:
    return {part: literal(getattr(constraint, part)) for part in ("schema", "of", "name")}
