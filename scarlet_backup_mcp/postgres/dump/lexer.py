"""Split SQL text into tokens and statements like psql.

psql itself decides, line by line, where a statement ends; the server never sees the script. So these rules follow
psql's scanner (PostgreSQL's source, `src/fe_utils/psqlscan.l`, versions 14 to 18), with `standard_conforming_strings`
on and an encoding whose multi-byte characters contain no ASCII bytes. If versions of psql, or psql and the server,
read the same bytes differently, the token is `junk`: pg_dump never writes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

TOKEN = re.compile(
    rb"""
    (?P<space>      [ \t\n\f\v]+ )
  | (?P<cr>         \r )
  | (?P<comment>    --[^\r\n]* )
  | (?P<block>      /\* )
  | (?P<escape>     [eE]' )
  | (?P<string>     (?: [bBnNxX] | [uU]& )?' )
  | (?P<name>       (?: [uU]& )?" )
  | (?P<dollar>     \$ (?: [A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]* )? \$ )
  | (?P<word>       [A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]* )
  | (?P<junk>       (?> \$[0-9]+ | (?: [0-9]+\.?[0-9]* | \.[0-9]+ ) (?: [eE][+-]?[0-9]+ )? ) (?= [A-Za-z_$'\x80-\xff] )
                  | (?> :[A-Za-z0-9_\x80-\xff]+ ) (?= [$'] ) )
  | (?P<number>     \$[0-9]+ | (?: [0-9]+\.?[0-9]* | \.[0-9]+ ) (?: [eE][+-]?[0-9]+ )? )
  | (?P<variable>   :[A-Za-z0-9_\x80-\xff]+ | :'[A-Za-z0-9_\x80-\xff]+' | :"[A-Za-z0-9_\x80-\xff]+"
                  | :\{\?[A-Za-z0-9_\x80-\xff]+\} )
  | (?P<backslash>  \\ )
  | (?P<semicolon>  ; )
  | (?P<open>       \( )
  | (?P<close>      \) )
  | (?P<other>      :: | := | . )
    """,
    re.VERBOSE | re.DOTALL,
)
"""A token, or the opening of a quoted one. Only quoted tokens span lines."""

QUOTED = frozenset({"block", "escape", "string", "name", "dollar"})
"""Kinds of token that open a quote or a block comment; `Quote` finds its end."""

_REST = {
    "string": re.compile(rb"(?:[^']++|'')*+'"),
    "escape": re.compile(rb"(?:[^'\\]++|\\.|'')*+'", re.DOTALL),
    "name": re.compile(rb'(?:[^"]++|"")*+"'),
}
_COMMENT_EDGE = re.compile(rb"/\*|\*/")
_INSIGNIFICANT = frozenset({"space", "cr", "comment", "block"})


class Quote:
    """An open string, quoted name, dollar quote or block comment. `kind` is one of `QUOTED`."""

    __slots__ = ("_depth", "kind", "opening")

    def __init__(self, kind: str, opening: bytes) -> None:
        self.kind, self.opening = kind, opening
        self._depth = 1

    def end(self, text: bytes, start: int, stop: int) -> int:
        """Return the index just after its end; -1 if it is still open at `stop`, which must be the end of a line."""
        if self.kind == "dollar":
            found = text.find(self.opening, start, stop)
            return found + len(self.opening) if found >= 0 else -1
        if self.kind == "block":
            for edge in _COMMENT_EDGE.finditer(text, start, stop):
                self._depth += 1 if edge[0] == b"/*" else -1
                if not self._depth:
                    return edge.end()
            return -1
        rest = _REST[self.kind].match(text, start, stop)
        return rest.end() if rest else -1


class Statement:
    """What psql's scanner knows about the current statement.

    `line` is the 1-based line of its first token, 0 before that; `quote` is the open quote or comment; `parentheses`
    and `bodies` are the depths at which a ';' does not end it; `copy_in`: COPY data follow it.
    """

    def __init__(self) -> None:
        self.line = 0
        self.pieces: list[bytes] = []
        self.size = 0
        self.quote: Quote | None = None
        self.parentheses = 0
        self.bodies = 0
        self.copy_in = False
        self.after_escape_string = False
        self._before = b""
        self._words: list[bytes] = []

    @property
    def begun(self) -> bool:
        """Whether its first token was seen; comments before it don't count."""
        return self.line > 0

    @property
    def worded(self) -> bool:
        """Whether it has a word outside parentheses and quotes."""
        return bool(self._words)

    @property
    def routine(self) -> bool:
        """Whether it creates a function or procedure, which may have a body of statements (BEGIN ATOMIC … END)."""
        words = self._words[:1] + self._words[3:] if self._words[1:3] == [b"OR", b"REPLACE"] else self._words
        return words[:1] == [b"CREATE"] and words[1:2] in ([b"FUNCTION"], [b"PROCEDURE"])

    def add(self, piece: bytes) -> None:
        """Add a piece of its text."""
        self.pieces.append(piece)
        self.size += len(piece)

    def token(self, kind: str, text: bytes) -> None:
        """Note a token that is neither white space nor a comment."""
        if kind == "open":
            self.parentheses += 1
        elif kind == "close":
            self.parentheses = max(0, self.parentheses - 1)
        elif kind == "word" and not self.parentheses:
            self._word(text.upper())
        self.after_escape_string = False

    def _word(self, word: bytes) -> None:
        if len(self._words) < 4:
            self._words.append(word)
        # The server's grammar accepts STDOUT for STDIN here, and so does psql.
        if self._words[0] == b"COPY" and self._before == b"FROM" and word in (b"STDIN", b"STDOUT"):
            self.copy_in = True
        self._before = word
        if self.routine:
            if word == b"BEGIN" or (word == b"CASE" and self.bodies):
                self.bodies += 1
            elif word == b"END" and self.bodies:
                self.bodies -= 1


def tokens(sql: bytes) -> list[bytes]:
    """Return the tokens of one statement as written, without white space and comments. Never raises."""
    return [sql[start:end] for start, end in spans(sql)]


def spans(sql: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each of a statement's tokens begins and ends."""
    pos, stop = 0, len(sql)
    while token := TOKEN.match(sql, pos):
        kind, end = str(token.lastgroup), token.end()
        if kind in QUOTED:
            end = Quote(kind, token[0]).end(sql, end, stop)
            end = end if end >= 0 else stop
        if kind not in _INSIGNIFICANT:
            yield pos, end
        pos = end


def unquote(token: bytes, codec: str = "utf-8") -> str:
    """Return the name that a word or a quoted name stands for, or the text of a plain string literal.

    Bytes that the codec can't decode become lone surrogates (`surrogateescape`), so nothing is lost.
    """
    if token[:1] in (b'"', b"'"):
        quote = token[:1]
        token = token[1:-1].replace(quote + quote, quote)
    else:
        token = token.lower()
    return token.decode(codec, "surrogateescape")
