"""Find the dumps in a script with more than one database's contents: `pg_dump -C`, `pg_dumpall`, concatenated files.

`Layout` lists the dumps and the database of each; `Part` extracts some of them as one plain dump, without statements
about the databases themselves, roles and tablespaces: a restore creates the database itself. Forms as seen in files of
15.20 and 18.6, with and without --clean and --if-exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ...models.manifest import Role
from .encodings import codec_set_by
from .events import Handler, Target
from .lexer import tokens, unquote
from .refusals import excerpt, readable
from .script import HEADER, RESTRICT_LINE, TRAILER, ScriptReader

CLUSTER = b"-- PostgreSQL database cluster dump"
"""The first comment of pg_dumpall."""
MARK = b"\xef\xbb\xbf"
"""A byte order mark, which editors put before UTF-8."""
Name = tuple[str, str]
"""Schema ("" if none is given) and name."""

_OPENS = re.compile(
    rb"(?:CREATE|ALTER|DROP|COMMENT|SECURITY|GRANT|REVOKE|UPDATE|SET|RESET|SELECT|INSERT)\b", re.IGNORECASE
)
_IDENTIFIER = r'(?:[^\s".]+|"[^"]*")'
_MAKES = re.compile(r"(?:CREATE|DROP) DATABASE ")
_OF_DATABASE = re.compile(
    r"(?:ALTER|COMMENT ON|SECURITY LABEL (?:FOR \S+ )?ON) DATABASE |(?:GRANT|REVOKE) [A-Z, ]+ ON DATABASE "
    rf"|ALTER ROLE {_IDENTIFIER} IN DATABASE "
)
_MARKS_TEMPLATE = re.compile(r"UPDATE PG_CATALOG \. PG_DATABASE SET DATISTEMPLATE = FALSE WHERE DATNAME = '[^']*'$")
_SETTING = re.compile(r"SET (?!SESSION AUTHORIZATION)|SELECT PG_CATALOG \. SET_CONFIG ")
_VARIABLE = re.compile(r"SET (?!SESSION AUTHORIZATION)(?:SESSION )?(\w+) |SELECT PG_CATALOG \. SET_CONFIG \( '(\w+)'")
# Supabase's tools change pg_dump's statements like this. In an empty database both do the same.
_IDEMPOTENT = re.compile(
    rb"(CREATE )(?:((?:UNLOGGED )?TABLE |SEQUENCE |SCHEMA )IF NOT EXISTS "
    rb"|OR REPLACE ((?:FUNCTION|PROCEDURE|TRIGGER|VIEW) ))"
)
_PUBLIC = re.compile(rb'CREATE SCHEMA IF NOT EXISTS "?public"?;')
_CONNECT = re.compile(
    rb"""\\c(?:onnect)?[ \t]+(?:-reuse-previous=on[ \t]+"dbname='((?:[^'\\]|\\.)+)'\"|"""
    rb"""\"((?:[^"]|"")+)"|([^\s"'=:/-][^\s"'=:/]*))[ \t]*"""
)
_ENCODING = re.compile(rb"\\encoding[ \t]+\w+[ \t]*")
_NAMED = rb'((?:"(?:[^"]|"")+"|[^\s.("]+)\s*\.\s*)?("(?:[^"]|"")+"|[^\s.("]+)'
_TABLE = re.compile(rb"CREATE (?:(?:UNLOGGED|FOREIGN) )?TABLE (?:IF NOT EXISTS )?" + _NAMED, re.IGNORECASE)
_SCHEMA = re.compile(rb'CREATE SCHEMA (?:IF NOT EXISTS )?("(?:[^"]|"")+"|[^\s;]+)', re.IGNORECASE)
_EXTENSION = re.compile(rb"CREATE EXTENSION\b", re.IGNORECASE)
_INSERT = re.compile(rb"INSERT\s+INTO\s+" + _NAMED, re.IGNORECASE)
_REFERS = re.compile(rb"ALTER TABLE .*\bFOREIGN KEY \([^)]*\) REFERENCES " + _NAMED, re.IGNORECASE | re.DOTALL)


@dataclass
class Dump:
    """One dump in a script. `database` None: the one it is loaded into. `headed`: it has pg_dump's comments, so that
    `complete` can show its end. `left_out` are excerpts of statements about the database itself.

    It creates `tables`, `schemas` and `extensions`, has rows of `filled` tables, and its foreign keys refer to the
    tables in `referred`.
    """

    database: str | None
    headed: bool
    line: int
    complete: bool = False
    content: bool = False
    left_out: list[str] = field(default_factory=list[str])
    tables: set[Name] = field(default_factory=set[Name])
    schemas: set[str] = field(default_factory=set[str])
    extensions: bool = False
    filled: set[Name] = field(default_factory=set[Name])
    referred: set[Name] = field(default_factory=set[Name])


class _Walk(Handler):
    """Follows a script and assigns each piece to a dump: see `Layout` and `_Taker`."""

    def __init__(self) -> None:
        self.dumps: list[Dump] = []
        self.cluster = False
        self.comments = False
        self.codec = "utf-8"
        self.changed = False
        """Whether another program changed what pg_dump wrote."""
        self._connected: str | None = None
        self._inside = False

    def piece(self, data: bytes, line: int) -> None:
        """Take a statement or command that belongs to the last of `dumps`."""

    def note(self, data: bytes, line: int) -> None:
        """Take a comment before the next piece, which belongs to the last of `dumps`."""

    def leave_out(self) -> None:
        """Leave out a statement and the comments before it."""

    def between(self, data: bytes, line: int) -> None:
        """Take a setting before the next dump, outside of any."""

    def everywhere(self, sql: bytes) -> None:
        """Take a statement for the whole cluster."""

    def comment(self, data: bytes, line: int) -> None:
        self.comments = self.comments or data != b"--"
        if data == CLUSTER:
            self.cluster = True
        elif data == HEADER:
            self._begin(self._connected, headed=True, line=line)
        elif data == TRAILER and self._inside:
            self.dumps[-1].complete = True
            self._inside = False
        elif self._inside:
            self.note(data, line)

    def meta_command(self, command: bytes, line: int) -> None:
        if RESTRICT_LINE.fullmatch(command) or (self._outside_content and _ENCODING.fullmatch(command)):
            return
        within = self._inside and self.dumps[-1].headed and self.dumps[-1].content
        if not within and (found := _CONNECT.fullmatch(command)):  # within a dump pg_dump writes it nowhere
            self._connect(_database(found, self.codec), line)
        else:
            self._in_a_dump(line)
            self.piece(command, line)

    def statement(self, sql: bytes, line: int) -> None:
        self.codec = codec_set_by(sql) or self.codec
        form = readable(tokens(sql)) if _OPENS.match(sql) and not _INSERT.match(sql) else ""
        if (form == "RESET ALL" and not (self._inside and self.dumps[-1].headed)) or _PUBLIC.fullmatch(sql):
            self.changed = True
            return
        if _IDEMPOTENT.match(sql) and not (sql.startswith(b"CREATE OR REPLACE VIEW") and self.comments):
            self.changed = True
            sql = _IDEMPOTENT.sub(rb"\1\2\3", sql, count=1)
        if not self._inside and self._outside(sql, form, line):
            return
        self._in_a_dump(line)
        dump = self.dumps[-1]
        if self._is_of_the_database(dump, sql, form):
            dump.left_out.append(excerpt(tokens(sql)))
            self.leave_out()
            return
        if not _SETTING.match(form):
            dump.content = True
            self._note(dump, sql)
        self.piece(sql, line)

    def copy_begin(self, target: Target, line: int) -> None:
        self.dumps[-1].filled.add((target.schema, target.name))

    @property
    def _outside_content(self) -> bool:
        return not self._inside or not self.dumps[-1].content

    def _begin(self, database: str | None, *, headed: bool, line: int) -> None:
        self.dumps.append(Dump(database, headed, line))
        self._inside = True

    def _in_a_dump(self, line: int) -> None:
        if not self._inside:
            self._begin(self._connected, headed=False, line=line)

    def _connect(self, database: str, line: int) -> None:
        self._connected = database
        if not self._inside:
            return
        dump = self.dumps[-1]
        if not dump.content:
            dump.database = database
        elif dump.database != database:
            self._begin(database, headed=False, line=line)

    def _outside(self, sql: bytes, form: str, line: int) -> bool:
        """Handle a statement outside of any dump; False if it begins one."""
        if self.cluster:
            self.everywhere(sql)
            return True
        if _SETTING.match(form) and self.dumps and self.dumps[-1].headed:
            self.between(sql, line)
            return True
        return False

    def _is_of_the_database(self, dump: Dump, sql: bytes, form: str) -> bool:
        words = tokens(sql) if "DATABASE" in form else []
        if _MAKES.match(form) and not dump.content:
            dump.database = self._named_database(words)
            return True
        if _MARKS_TEMPLATE.match(form):
            return not dump.content
        return _OF_DATABASE.match(form) is not None and dump.database == self._named_database(words)

    def _named_database(self, words: list[bytes]) -> str:
        at = [word.upper() for word in words].index(b"DATABASE") + 1
        if [word.upper() for word in words[at : at + 2]] == [b"IF", b"EXISTS"]:
            at += 2
        return unquote(words[at], self.codec)

    def _note(self, dump: Dump, sql: bytes) -> None:
        if found := _INSERT.match(sql):
            dump.filled.add(self._name(found))
        elif found := _TABLE.match(sql):
            dump.tables.add(self._name(found))
        elif found := _REFERS.match(sql):
            dump.referred.add(self._name(found))
        elif found := _SCHEMA.match(sql):
            dump.schemas.add(unquote(found[1], self.codec))
        elif _EXTENSION.match(sql):
            dump.extensions = True

    def _name(self, found: re.Match[bytes]) -> Name:
        schema = unquote(found[1].rstrip(b". \t\n"), self.codec) if found[1] else ""
        return schema, unquote(found[2], self.codec)


class Layout(_Walk):
    """The dumps in a script, and the roles that it creates. For a `ScriptReader` with `several`."""

    def __init__(self) -> None:
        super().__init__()
        self._roles: dict[str, Role] = {}

    @property
    def plain(self) -> bool:
        """Whether it is one plain dump that can be read as it is."""
        alone = len(self.dumps) == 1 and not self.cluster and self._connected is None
        return alone and self.dumps[0].headed and not self.dumps[0].left_out and not self.changed

    @property
    def roles(self) -> list[Role]:
        """The roles that a dump of a cluster creates, without passwords and settings."""
        return list(self._roles.values())

    def everywhere(self, sql: bytes) -> None:
        """Note a role, or a role's membership."""
        words = tokens(sql)
        keys = [word.upper() for word in words]
        if keys[:2] in ([b"CREATE", b"ROLE"], [b"ALTER", b"ROLE"]) and b"SET" not in keys[2:5]:
            name, given = unquote(words[2], self.codec), {key.decode("latin-1") for key in keys[3:]}
            self._roles[name] = _role(name, given, self._roles.get(name))
        elif keys[:1] == [b"GRANT"] and keys[2:3] == [b"TO"] and len(words) > 3:
            member = self._roles.get(unquote(words[3], self.codec))
            if member is not None:
                member.member_of.append(unquote(words[1], self.codec))


def _role(name: str, given: set[str], before: Role | None) -> Role:
    return Role(
        name=name,
        superuser="SUPERUSER" in given,
        inherit="NOINHERIT" not in given,
        createrole="CREATEROLE" in given,
        createdb="CREATEDB" in given,
        login="LOGIN" in given,
        replication="REPLICATION" in given,
        bypassrls="BYPASSRLS" in given,
        connection_limit=-1,
        valid_until=None,
        member_of=before.member_of if before else [],
        settings=[],
    )


class _Taker(_Walk):
    """Collects the dumps with these numbers as one, each on its original lines."""

    def __init__(self, wanted: frozenset[int], headed: bool, whole: bool) -> None:
        super().__init__()
        self.out: list[bytes] = []
        self._notes: list[tuple[bytes, int]] = []
        self._wanted, self._headed, self._whole = wanted, headed, whole
        self._set: dict[str, bytes] = {}
        self._at = 1
        self._begun = False

    def piece(self, data: bytes, line: int) -> None:
        if self._takes(len(self.dumps) - 1) and not self._is_set(data):
            self._put(data, line)

    def _is_set(self, sql: bytes) -> bool:
        """Tell whether a setting is in force already: each dump, and each `\\connect`, begins with the same ones."""
        found = _VARIABLE.match(readable(tokens(sql))) if sql[:3] in (b"SET", b"SEL") else None
        if found is None:
            return False
        name = (found[1] or found[2]).upper()
        known, self._set[name] = self._set.get(name), sql
        return known == sql

    def note(self, data: bytes, line: int) -> None:
        if self._takes(len(self.dumps) - 1):
            self._notes.append((data, line))

    def leave_out(self) -> None:
        self._notes.clear()

    def between(self, data: bytes, line: int) -> None:
        if self._takes(len(self.dumps)):
            self._put(data, line)

    def end(self) -> None:
        """Write pg_dump's last comment after the last of the dumps, which may end with somebody's own statements."""
        if self._whole:
            self._put(b"--\n" + TRAILER + b"\n--", self._at)

    def copy_data(self, data: bytes) -> None:
        if self._takes(len(self.dumps) - 1):
            self.out.append(data)
            self._at += data.count(b"\n")

    def copy_end(self, rows: int) -> None:
        if self._takes(len(self.dumps) - 1):
            self.out.append(b"\\.\n")
            self._at += 1

    def _takes(self, number: int) -> bool:
        return number in self._wanted

    def _put(self, data: bytes, line: int) -> None:
        if not self._begun and self._headed:
            self._write(b"--\n" + HEADER + b"\n--", line - 3)
        self._begun = True
        notes, self._notes = self._notes, []
        for note, at in (*notes, (data, line)):
            self._write(note, at)

    def _write(self, data: bytes, line: int) -> None:
        padded = b"\n" * max(0, line - self._at) + data + b"\n"
        self.out.append(padded)
        self._at += padded.count(b"\n")


@dataclass(frozen=True)
class Part:
    """Some of the dumps in a script, by their numbers. `headed`: they have pg_dump's comments; `whole`: also its last.

    Called with the script's bytes it yields these dumps as one plain dump. Raises ScriptDamaged, at the latest after
    the last chunk.
    """

    numbers: frozenset[int]
    headed: bool
    whole: bool

    def __call__(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the dump's bytes. Raises ScriptDamaged."""
        taker = _Taker(self.numbers, self.headed, self.whole)
        reader = ScriptReader(taker, several=True)
        for chunk in without_mark(chunks):
            reader.feed(chunk)
            if taker.out:
                yield b"".join(taker.out)
                taker.out.clear()
        reader.finish()
        taker.end()
        if taker.out:
            yield b"".join(taker.out)


def without_mark(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Remove a byte order mark from the beginning of a stream."""
    held: bytes | None = b""
    for chunk in chunks:
        if held is not None:
            chunk, held = held + chunk, None
            if len(chunk) < len(MARK):
                held = chunk
                continue
            chunk = chunk.removeprefix(MARK)
        yield chunk
    if held:
        yield held


def _database(found: re.Match[bytes], codec: str) -> str:
    """Return the name in `\\connect`, quoted by pg_dump or pg_dumpall (`appendPsqlMetaConnect` in string_utils.c)."""
    if found[1] is not None:
        return re.sub(rb"\\(.)", rb"\1", found[1]).decode(codec, "surrogateescape")
    return unquote(b'"%b"' % found[2] if found[2] is not None else b'"%b"' % found[3], codec)
