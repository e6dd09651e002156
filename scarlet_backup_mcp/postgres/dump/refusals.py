"""Refuse statements that don't belong in a dump.

A restore runs a script as a superuser. What pg_dump writes for *one* database creates and fills objects inside it;
anything else in a script is damage, an edit, or an attempt to act outside the database. So `RULES` lists what pg_dump
(10 to 18, any option but -C) writes, with exceptions that deserve their own reason, and everything not listed is
refused.

This is no sandbox. A superuser's SQL can't be filtered completely: what a function, default, trigger, view, check or
event trigger does when it runs can't be judged by its text, nor could a DO block (refused, because pg_dump writes
none). A script from an untrusted source belongs into a sandbox server first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ...redaction import printable
from .events import Handler
from .lexer import TOKEN, tokens, unquote
from .script import RESTRICT_LINE
from .shortcuts import COPY

RULES_VERSION = 1
"""Rises when `RULES`, or how a script is read, may refuse a script that earlier ones let pass: manifests record it."""

MOST = 100
"""Number of refusals to keep; `Refusals.count` counts them all."""

EXCERPT = 120
"""Characters of a refused statement to show."""

_NAME = r"""(?:[A-Z_\x80-\xff][A-Z0-9_$\x80-\xff]*|"[^"]*")"""
_OUTSIDE = "(?:DATABASE|ROLE|USER|GROUP|TABLESPACE)"
_ENCODINGS = (
    "UTF8|SQL_ASCII|EUC_JP|EUC_CN|EUC_KR|EUC_TW|EUC_JIS_2004|LATIN[1-9]|LATIN10|WIN125[0-8]|WIN866|WIN874|"
    "ISO_8859_[5-8]|KOI8[RU]|MULE_INTERNAL"
)
_SETTINGS = (
    "STATEMENT_TIMEOUT|LOCK_TIMEOUT|IDLE_IN_TRANSACTION_SESSION_TIMEOUT|TRANSACTION_TIMEOUT|CHECK_FUNCTION_BODIES|"
    "XMLOPTION|CLIENT_MIN_MESSAGES|ROW_SECURITY|ESCAPE_STRING_WARNING|SEARCH_PATH|DEFAULT_TABLESPACE|"
    "DEFAULT_TABLE_ACCESS_METHOD|DEFAULT_TOAST_COMPRESSION|DEFAULT_WITH_OIDS"
)
_CREATED = (
    "ACCESS METHOD|AGGREGATE|CAST|COLLATION|(?:DEFAULT )?CONVERSION|DOMAIN|EVENT TRIGGER|EXTENSION|"
    "FOREIGN DATA WRAPPER|FOREIGN TABLE|FUNCTION|PROCEDURE|(?:UNIQUE )?INDEX|(?:TRUSTED )?(?:PROCEDURAL )?LANGUAGE|"
    "OPERATOR|POLICY|PUBLICATION|RULE|SCHEMA|SEQUENCE|SERVER|STATISTICS|(?:UNLOGGED )?(?:TABLE|SEQUENCE)|"
    "TEXT SEARCH|TRANSFORM|(?:CONSTRAINT )?TRIGGER|TYPE|USER MAPPING (?:IF EXISTS )?FOR|"
    "(?:RECURSIVE |MATERIALIZED )?VIEW"
)
_ALTERED = (
    "ACCESS METHOD|AGGREGATE|COLLATION|CONVERSION|DEFAULT PRIVILEGES|DOMAIN|EVENT TRIGGER|EXTENSION|"
    "FOREIGN DATA WRAPPER|FOREIGN TABLE|FUNCTION|PROCEDURE|ROUTINE|INDEX|(?:PROCEDURAL )?LANGUAGE|LARGE OBJECT|"
    "MATERIALIZED VIEW|OPERATOR|POLICY|PUBLICATION|RULE|SCHEMA|SEQUENCE|SERVER|STATISTICS|TABLE|TEXT SEARCH|"
    "TRIGGER|TYPE|VIEW"
)
_OF_A_LARGE_OBJECT = re.compile(r"SELECT PG_CATALOG \. (?:LO_OPEN|LOWRITE|LO_CLOSE) \(")
# A value in pg_dump's INSERT statements (`dumpTableData_insert` in pg_dump.c): never a function or a cast.
_VALUE = r"(?:NULL|DEFAULT|TRUE|FALSE|[+-]? ?[0-9.][0-9.eE+-]*|[BEX]?'[^']*')"
_ROW = rf"\( {_VALUE}(?: , {_VALUE})* \)"
_COMMAND = re.compile(rb"\\(?:[A-Za-z_]+|.)?")
_OF_GRANTS = re.compile(r"(?:GRANT|REVOKE|SET SESSION AUTHORIZATION|RESET SESSION AUTHORIZATION)\b")
_BY_NAME = re.compile(rf"SET SESSION AUTHORIZATION (?!DEFAULT$){_NAME}$")
_CATALOGUE = r"""(?:PG_[A-Z0-9_]*|INFORMATION_SCHEMA|"pg_[^"]*"|"information_schema")"""

RULES: tuple[tuple[str, str | None], ...] = (
    # What acts outside the database.
    (
        rf"(?:CREATE|ALTER|DROP) (?!USER MAPPING (?:IF EXISTS )?FOR ){_OUTSIDE}\b",
        "creates, changes or drops a database or role",
    ),
    (r"ALTER SYSTEM\b", "changes the server's configuration"),
    (r"DROP OWNED\b", "drops what a role owns and its rights elsewhere"),
    (r"(?:GRANT|REVOKE) .*? ON (?:DATABASE|TABLESPACE|PARAMETER)\b", "changes rights outside the database"),
    (r"(?:GRANT|REVOKE) (?!.* ON )", "changes the membership of a role"),
    (rf"COMMENT ON {_OUTSIDE}\b", "comments on something outside the database"),
    (rf"SECURITY LABEL (?:FOR \S+ )?ON {_OUTSIDE}\b", "labels something outside the database"),
    (r"CREATE SUBSCRIPTION (?!.*\bCONNECT = FALSE\b)", "subscribes to another server"),
    (r"ALTER SUBSCRIPTION (?!.* OWNER TO \S+$)", "subscribes to another server"),
    (r"LOAD\b", "loads a library into the server"),
    (r"DO\b", "runs a block of code"),
    # What makes psql or the server read the rest differently.
    (r"SET CLIENT_ENCODING = '(?:" + _ENCODINGS + r")'$", None),
    (r"SET STANDARD_CONFORMING_STRINGS = ON$", None),
    (r"SET .*?\bSTANDARD_CONFORMING_STRINGS\b", "changes how strings are read"),
    (r"SET .*?\bCLIENT_ENCODING\b|SET NAMES\b", "sets an encoding in which psql may read the text differently"),
    (
        r"(?:BEGIN|START|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT|RELEASE|PREPARE TRANSACTION)\b",
        "begins or ends a transaction",
    ),
    # What pg_dump writes. COPY, and BEGIN and COMMIT around a large object, are handled before this table.
    (rf"SET (?:{_SETTINGS}) = ", None),
    (r"SET SESSION_REPLICATION_ROLE = '?(?i:REPLICA|ORIGIN)'?$", None),  # what some tools put before data-only dumps
    (rf"SET SESSION AUTHORIZATION (?:{_NAME}|'[^']*')$|RESET SESSION AUTHORIZATION$", None),
    (r"SELECT PG_CATALOG \. SET_CONFIG \( 'search_path' , '[^']*' , FALSE \)$", None),
    (r"SELECT PG_CATALOG \. (?:SETVAL|LO_CREATE|LO_OPEN|LOWRITE|LO_CLOSE|LO_UNLINK) \( [^()]* \)$", None),
    (
        r"SELECT PG_CATALOG \. LO_UNLINK \( OID \) FROM PG_CATALOG \. PG_LARGEOBJECT_METADATA WHERE OID = '\d+'$",
        None,
    ),
    (r"SELECT \* FROM PG_CATALOG \. PG_RESTORE_(?:RELATION|ATTRIBUTE|EXTENDED)_STATS \( [^()]* \)$", None),
    (
        rf"INSERT INTO (?!{_CATALOGUE} \.){_NAME} \. {_NAME} (?:\( [^()]* \) )?"
        rf"(?:OVERRIDING SYSTEM VALUE )?(?:DEFAULT VALUES|VALUES {_ROW}(?: , {_ROW})*(?: ON CONFLICT DO NOTHING)?)$",
        None,
    ),
    (rf"CREATE (?:OR REPLACE )?(?:{_CREATED})\b", None),
    (r"CREATE SUBSCRIPTION\b|ALTER SUBSCRIPTION\b", None),
    (rf"ALTER (?:{_ALTERED})\b", None),
    (rf"DROP (?:{_CREATED}|SUBSCRIPTION)\b", None),
    (r"(?:GRANT|REVOKE|COMMENT ON|SECURITY LABEL|REFRESH MATERIALIZED VIEW)\b", None),
)
"""(what a statement begins with, why it is refused or None): the first match decides.

The statement is in `readable` form: no comments, one space between tokens, words in upper case.
"""

_RULES = tuple((re.compile(pattern, re.DOTALL), reason) for pattern, reason in RULES)
NOT_WRITTEN = "is not a statement that pg_dump writes"

# What `RULES` let pass by these words alone; a script has some ten such statements per table.
_USUAL = re.compile(
    rb"(?:CREATE (?:TABLE|SEQUENCE|INDEX|UNIQUE INDEX)|ALTER (?:TABLE|SEQUENCE|INDEX|LARGE OBJECT)"
    rb"|COMMENT ON (?:TABLE|COLUMN|INDEX|SEQUENCE|CONSTRAINT)) "
    rb"|SELECT pg_catalog\.(?:setval\('[^':()]*', [0-9]+, (?:true|false)\)|lo_create\('[0-9]+'\));\Z"
)
_USUAL_OF_A_LARGE_OBJECT = re.compile(
    rb"SELECT pg_catalog\.(?:lo_open\('[0-9]+', [0-9]+\)|lowrite\([0-9]+, '\\x[0-9a-f]*'\)|lo_close\([0-9]+\));\Z"
)
# psql inserts the values of these ("Variables" in its manual page) and leaves unknown names alone.
_PSQL_VARIABLE = re.compile(
    rb""":(?:\{|['"]?(?:AUTOCOMMIT|COMP_KEYWORD_CASE|DBNAME|ECHO|ECHO_HIDDEN|ENCODING|ERROR|FETCH_COUNT|"""
    rb"""HIDE_TABLEAM|HIDE_TOAST_COMPRESSION|HISTCONTROL|HISTFILE|HISTSIZE|HOST|IGNOREEOF|LASTOID|"""
    rb"""LAST_ERROR_MESSAGE|LAST_ERROR_SQLSTATE|ON_ERROR_ROLLBACK|ON_ERROR_STOP|PIPELINE_[A-Z_]+|PORT|PROMPT[123]|"""
    rb"""QUIET|ROW_COUNT|SERVER_VERSION_NAME|SERVER_VERSION_NUM|SERVICE|SERVICEFILE|SHELL_ERROR|SHELL_EXIT_CODE|"""
    rb"""SHOW_ALL_RESULTS|SHOW_CONTEXT|SINGLELINE|SINGLESTEP|SQLSTATE|USER|VERBOSITY|VERSION|VERSION_NAME|"""
    rb"""VERSION_NUM|WATCH_INTERVAL)(?![a-z0-9_\x80-\xff]))"""
)


@dataclass(frozen=True)
class Refusal:
    """A refused statement. `line` is 1-based; `excerpt` has its kind and its object, but no value: that may be a
    secret."""

    line: int
    reason: str
    excerpt: str


class Refusals(Handler):
    """Records what a plain dump of one database never contains. Raises nothing."""

    def __init__(self) -> None:
        self.found: list[Refusal] = []
        self.count = 0
        self._large_object = False
        self._begun = 0
        self._only_grants = False

    def statement(self, sql: bytes, line: int) -> None:
        """Judge a statement."""
        if self._is_usual(sql):
            return
        words = tokens(sql)
        within = self._large_object
        reason = self._reason(sql, words)
        if self._large_object and not within:
            self._begun = line
        if reason is not None:
            self._refuse(line, reason, excerpt(words))

    def meta_command(self, command: bytes, line: int) -> None:
        """Refuse a command, unless it is pg_dump's own restriction."""
        if not RESTRICT_LINE.fullmatch(command):
            name = _COMMAND.match(command)
            self._refuse(line, "is a command to psql", printable(name[0].decode("utf-8", "replace")) if name else "")

    def ended(self) -> None:
        """End the script; refuse a transaction that it has not ended."""
        if self._large_object:
            self._refuse(self._begun, "begins a transaction that the script does not end", "BEGIN")

    def _is_usual(self, sql: bytes) -> bool:
        """Tell at once that a statement is not refused, without looking at each of its tokens."""
        if self._large_object:
            return _USUAL_OF_A_LARGE_OBJECT.match(sql) is not None
        if self._only_grants or sql.count(b";") != 1 or (b":" in sql and _PSQL_VARIABLE.search(sql)):
            return False
        return _USUAL.match(sql) is not None or _copy_reason(sql, "") is None

    def _reason(self, sql: bytes, words: list[bytes]) -> str | None:
        form = readable(words)
        if self._only_grants and not _OF_GRANTS.match(form):
            return "runs as another role, which pg_dump only uses to grant and revoke"
        if "SESSION AUTHORIZATION" in form[:30]:
            self._only_grants = _BY_NAME.match(form) is not None
        if form in ("BEGIN", "COMMIT") and self._large_object is (form == "COMMIT"):
            self._large_object = form == "BEGIN"
            return None
        if self._large_object and not _OF_A_LARGE_OBJECT.match(form):
            return "is inside a transaction, where pg_dump only writes the data of large objects"
        if any(_PSQL_VARIABLE.match(word) for word in words):
            return "would be changed by psql, which takes part of it for one of its variables"
        if not _one_for_the_server(words):
            return "is one statement for psql but several for the server"
        if form.startswith("COPY "):
            return _copy_reason(sql, form)
        return next((reason for pattern, reason in _RULES if pattern.match(form)), NOT_WRITTEN)

    def _refuse(self, line: int, reason: str, excerpt: str) -> None:
        self.count += 1
        if len(self.found) < MOST:
            self.found.append(Refusal(line, reason, excerpt))


class Refused(Exception):
    """A script contains what must not be loaded."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


class Refusing(Refusals):
    """Raises Refused at the first statement that must not be loaded of a file with our manifest."""

    def _refuse(self, line: int, reason: str, excerpt: str) -> None:
        super()._refuse(line, reason, excerpt)
        if found := refused(self.found[-1:], foreign=False):
            raise Refused(found[0])


def refused(found: Iterable[Refusal], *, foreign: bool) -> list[Refusal]:
    """Return the statements that must not be loaded. In a file with our manifest pg_dump wrote them all: there a
    statement is not refused for being unknown, only for what it would do."""
    return [refusal for refusal in found if foreign or refusal.reason != NOT_WRITTEN]


def excerpt(words: list[bytes]) -> str:
    """Return a statement's words and names up to its first value, with control characters escaped."""
    shown = ""
    for word in words:
        token = TOKEN.match(word)
        if token is None or (token.lastgroup not in ("word", "name") and word not in (b".", b",", b"*")):
            break
        if token.lastgroup in ("word", "name") and shown and not shown.endswith("."):
            shown += " "
        shown += printable(word.decode("utf-8", "replace")).replace("\n", "\\n")
    return shown if len(shown) <= EXCERPT else f"{shown[: EXCERPT - 3]}..."


def readable(words: list[bytes]) -> str:
    """Return a statement's tokens as `RULES` sees them, without the ';' at its end. Words are in upper case (ASCII
    letters only). Quoted names and strings keep their content if it consists of letters, digits, '_', '.' and '-', so
    that it can't be taken for anything else; otherwise it is replaced by one '?'."""
    return " ".join(_readable(words[:-1] if words[-1:] == [b";"] else words))


def _readable(words: list[bytes]) -> Iterator[str]:
    for word in words:
        token = TOKEN.match(word)
        kind = token.lastgroup if token else "other"
        if kind == "word":
            yield word.upper().decode("latin-1")
        elif kind == "dollar":
            yield "'?'"
        elif kind in ("string", "escape", "name") and token is not None:
            plain = re.fullmatch(rb"[A-Za-z0-9_.-]*", word[token.end() : -1])
            yield (word if plain else token[0] + b"?" + token[0][-1:]).decode("latin-1")
        else:
            yield word.decode("latin-1")


def _copy_reason(sql: bytes, form: str) -> str | None:
    if canonical := COPY.fullmatch(sql):
        schema = unquote(canonical["schema"])
        catalogue = schema.startswith("pg_") or schema == "information_schema"
        return "fills a system catalogue" if catalogue else None
    outside = re.sub(r"\([^()]*\)", "", form)
    if re.search(r" (?:FROM|TO) PROGRAM\b", outside):
        return "runs a program on the server"
    if re.search(r" (?:FROM|TO) (?:[A-Z]|U&)?'", outside):
        return "reads or writes a file on the server"
    return "is a COPY statement in a form that pg_dump does not write"


def _one_for_the_server(words: list[bytes]) -> bool:
    """Tell whether the server, too, takes these tokens for one statement.

    In CREATE FUNCTION psql counts each BEGIN and END, whatever its meaning, and sends every ';' between them. To the
    server such a ';' is part of the statement only in a body: BEGIN ATOMIC statement; … END. Neither counts what is in
    parentheses.
    """
    depth = 0
    parts: list[list[bytes]] = [[]]
    for word in words[:-1]:
        depth += (word == b"(") - (word == b")")
        if word == b";" and depth <= 0:
            parts.append([])
        else:
            parts[-1].append(word.upper() if depth <= 0 else b"()")
    if len(parts) == 1:
        return True
    bodies = [at for at in range(len(parts[0])) if parts[0][at : at + 2] == [b"BEGIN", b"ATOMIC"]]
    return (
        len(bodies) == 1
        and b"BEGIN" not in parts[0][: bodies[0]]
        and parts[0][bodies[0] + 2 :][:1] != [b"END"]
        and all(part[:1] != [b"END"] for part in parts[1:-1])
        and parts[-1] == [b"END"]
    )
