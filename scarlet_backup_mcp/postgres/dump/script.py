"""Read a plain pg_dump script: bytes in, events out, with constant memory.

The reader keeps in step with psql (see `lexer`): both have to agree on where statements, strings and COPY data begin
and end, or a refused statement could pass as data. It relies on psql stopping at the first error (`ON_ERROR_STOP`),
which a restore has to ensure: after a COPY statement that failed, psql takes the data for SQL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NoReturn

from .encodings import codec_set_by
from .events import Handler, ScriptDamaged, Summary, Target
from .lexer import QUOTED, TOKEN, Quote, Statement, tokens, unquote
from .shortcuts import COPY, NAMES, PLAIN, QUIET

LONGEST = 256 << 20
"""Longest line or statement outside COPY data, in bytes; beyond it a script counts as damaged."""
STEP = 256 << 10
"""Bytes to read at a time: every pass over them then finds them in the processor's cache."""
PIECE = 1 << 20
"""A COPY row that is longer than this is passed on in pieces. In bytes."""

HEADER = b"-- PostgreSQL database dump"
TRAILER = b"-- PostgreSQL database dump complete"
RESTRICT_LINE = re.compile(rb"\\(?:un)?restrict [A-Za-z0-9]+\n?")
"""The line with which pg_dump (from 15.14, 16.10, 17.6, 18) encloses a script against injected backslash commands."""

VOLATILE_LINE = re.compile(rb"(?:%b|-- Dumped (?:from database|by pg_dump) version .*\n?)" % RESTRICT_LINE.pattern)
"""A line that differs between two dumps of the same database: a random token, or the versions of programs."""

_VERSION = re.compile(rb"-- Dumped (from database|by pg_dump) version (.+)")
_REST_OF_COPY_LINE = re.compile(rb"[ \t\f\v]*(?:\n|\Z)")
_AFTER_TRAILER = "text after the trailer"
_CARRIAGE_RETURN = (
    "a carriage return outside quotes: the file has Windows line ends, as PowerShell or `docker exec -t` writes them"
)


class ScriptReader:
    """Reads a script in chunks of any size and sends its events to `handlers`.

    With `several` it may contain more than one dump: text may follow a trailer.
    """

    def __init__(self, *handlers: Handler, several: bool = False) -> None:
        self._handlers = handlers
        self._on_text = [handler.text for handler in handlers if type(handler).text is not Handler.text]
        self._on_comment = [handler.comment for handler in handlers if type(handler).comment is not Handler.comment]
        self._on_statement = [handler.statement for handler in handlers]
        self._several = several
        self._held: list[bytes] = []
        self._held_size = 0
        self._bytes = 0
        self._line = 1
        self._counted = 0
        self._told = 0
        self._told_line = 1
        self._statement = Statement()
        self._statements = 0
        self._codec = "utf-8"
        self._after_copy = False
        self._target: Target | None = None
        self._within_row = False
        self._block_rows = 0
        self._blocks = 0
        self._rows = 0
        self._header: bool | None = None
        self._trailer = False
        self._versions: dict[bytes, str] = {}

    def feed(self, chunk: bytes) -> None:
        """Read the next chunk. Raises ScriptDamaged, after which the reader can't be used any more."""
        for at in range(0, len(chunk), STEP):
            self._feed(chunk[at : at + STEP])

    def _feed(self, chunk: bytes) -> None:
        nul = chunk.find(b"\0")
        if nul < 0:
            self._take(chunk)
            return
        self._take(chunk[:nul])
        self._damaged("a NUL byte: the file is damaged, binary, or UTF-16 as Windows PowerShell writes it")

    @property
    def line(self) -> int:
        """The 1-based line that the reader has reached."""
        return self._line

    @property
    def rows_of_block(self) -> int:
        """Number of rows of the present COPY block, or of the last one, as far as it was read."""
        return self._block_rows

    @property
    def header(self) -> bool:
        """Whether pg_dump's first comment was seen."""
        return self._header is True

    def finish(self) -> Summary:
        """End the script; return its summary. Raises ScriptDamaged if it ends in the middle of something."""
        if self._target is None:
            rest = b"".join(self._held)
            self._read(rest, len(rest))
        if self._target is not None:
            self._damaged(f"the script ends inside the COPY data of {self._target.name}")
        statement = self._statement
        if statement.quote is not None:
            what = {"block": "a comment", "name": "a quoted name"}.get(statement.quote.kind, "a string")
            self._damaged(f"the script ends inside {what}")
        if statement.begun:
            self._damaged(f"the script ends inside the statement that begins on line {statement.line}")
        return Summary(
            header=self.header,
            trailer=self._trailer,
            bytes=self._bytes,
            lines=self._line - 1 + bool(self._held),
            statements=self._statements,
            blocks=self._blocks,
            rows=self._rows,
            server_version=self._versions.get(b"from database"),
            pg_dump_version=self._versions.get(b"by pg_dump"),
        )

    def _take(self, chunk: bytes) -> None:
        self._bytes += len(chunk)
        whole = chunk.rfind(b"\n") + 1
        if whole:
            data = b"".join((*self._held, chunk))
            end = len(data) - (len(chunk) - whole)
            self._held, self._held_size = [], 0
            self._read(data, end)
            chunk = chunk[whole:]
        if chunk:
            self._hold(chunk)

    def _hold(self, part: bytes) -> None:
        self._held.append(part)
        self._held_size += len(part)
        if self._target is not None and self._held_size > PIECE:
            self._copy_data(b"".join(self._held))
            self._within_row = True
            self._held, self._held_size = [], 0
        elif self._held_size > LONGEST:
            self._damaged(f"a line longer than {LONGEST >> 20} MiB")

    def _read(self, data: bytes, end: int) -> None:
        """Read data[:end]: whole lines, except perhaps a script's last one."""
        if self._line == 1 and data.startswith(b"\xef\xbb\xbf"):
            self._damaged("a byte order mark: the file was written by PowerShell or an editor, not by pg_dump")
        self._counted = self._told = pos = 0
        while pos < end:
            pos = self._read_script(data, pos, end) if self._target is None else self._read_copy(data, pos, end)

    # SQL

    def _read_script(self, data: bytes, pos: int, end: int) -> int:
        """Read SQL up to `end` or the first byte of COPY data; return where that is."""
        begin = pos
        while pos < end:
            statement = self._statement
            if not statement.begun and statement.quote is None:
                pos = self._read_usual(data, pos, end)
                if self._target is not None:
                    return self._begin_copy(data, pos, end)
                if pos == end:
                    break
            if statement.quote is not None:
                close = statement.quote.end(data, pos, end)
                if close < 0:
                    break
                statement.after_escape_string = statement.quote.kind == "escape"
                statement.quote = None
                pos = close
                continue
            token = TOKEN.match(data, pos, end)
            assert token is not None, "every byte begins a token"
            kind, start, pos = str(token.lastgroup), pos, token.end()
            if kind == "space":
                continue
            if kind == "comment":
                self._comment(data, start, pos, end)
                continue
            self._refuse_disagreement(kind, token[0], data, start)
            if kind == "backslash":
                pos = self._meta_command(data, start, end)
                continue
            if self._trailer and not self._several:
                self._damaged(_AFTER_TRAILER, data, start)
            if kind == "block":
                statement.quote = Quote(kind, token[0])
                continue
            if not statement.begun:
                begin, statement.line = start, self._line_at(data, start)
            statement.token(kind, token[0])
            if kind in QUOTED:
                statement.quote = Quote(kind, token[0])
            elif kind == "semicolon" and not statement.parentheses and not statement.bodies:
                statement.add(data[begin:pos])
                if self._after_copy and not statement.worded:
                    # psql from 15.19, 16.15, 17.11 and 18.6 takes it for another COPY and skips what follows.
                    self._damaged("a statement without a word after COPY data: versions of psql disagree", data, start)
                if self._end_statement():
                    return self._begin_copy(data, pos, end)
        if self._statement.begun:
            self._statement.add(data[begin:end])
            if self._statement.size > LONGEST:
                self._damaged(f"a statement longer than {LONGEST >> 20} MiB", data, end)
        self._tell(data, end)
        return end

    def _read_usual(self, data: bytes, pos: int, end: int) -> int:
        """Read what `shortcuts` recognise, at most up to the end of a COPY statement; return where that is."""
        while self._target is None:
            found = PLAIN.match(data, pos, end) or COPY.match(data, pos, end)
            if found is None:
                if self._header is None or self._on_comment:
                    break
                quiet = QUIET.match(data, pos, end)
                if quiet is None or quiet.end() == pos:
                    break
                pos = quiet.end()
                continue
            start, pos = found.span("sql")
            if self._trailer and not self._several:
                self._damaged(_AFTER_TRAILER, data, start)
            self._after_copy = found.re is COPY
            self._pass_on(data[start:pos], self._line_at(data, start))
            if self._after_copy:
                names = (found["schema"], found["table"], *NAMES.findall(found["columns"] or b""))
                schema, table, *columns = (unquote(name, self._codec) for name in names)
                self._target = Target(schema, table, tuple(columns))
        return pos

    def _refuse_disagreement(self, kind: str, token: bytes, data: bytes, start: int) -> None:
        if kind == "cr":
            self._damaged(_CARRIAGE_RETURN, data, start)
        if kind == "junk":
            self._damaged("a number or variable that runs into a word or quote: versions of psql disagree", data, start)
        if token == b"'" and self._statement.after_escape_string:
            self._damaged("a continued E'' string: psql and the server disagree on its end", data, start)

    def _comment(self, data: bytes, start: int, stop: int, end: int) -> None:
        if self._statement.begun or (start and data[start - 1] != 0x0A):
            return
        comment = data[start:stop]
        if self._header is None and comment != b"--":
            self._header = comment == HEADER
        if not self._statements and (version := _VERSION.fullmatch(comment)):
            self._versions.setdefault(version[1], version[2].decode("utf-8", "replace"))
        self._trailer = self._trailer or comment == TRAILER
        line = self._line_at(data, start)
        for take in self._on_comment:
            take(comment, line)
        if VOLATILE_LINE.fullmatch(comment):
            self._tell_volatile(data, start, min(stop + 1, end))

    def _meta_command(self, data: bytes, start: int, end: int) -> int:
        stop = data.find(b"\n", start, end)
        stop = stop if stop >= 0 else end
        command = data[start:stop]
        if command.endswith(b"\r"):
            self._damaged(_CARRIAGE_RETURN, data, start)
        if self._statement.begun:
            inside = f"the statement that begins on line {self._statement.line}"
            self._damaged(f"a backslash command inside {inside}", data, start)
        if command == b"\\.":
            self._damaged("the end of COPY data without a COPY statement before it", data, start)
        ends = command.startswith(b"\\unrestrict ") and RESTRICT_LINE.fullmatch(command)
        if self._trailer and not self._several and not ends:
            self._damaged(_AFTER_TRAILER, data, start)
        begin, after = data.rfind(b"\n", 0, start) + 1, min(stop + 1, end)
        self._tell(data, begin)
        for handler in self._handlers:
            handler.meta_command(command, self._told_line)
        if VOLATILE_LINE.fullmatch(data, begin, after):
            self._tell_volatile(data, begin, after)
        return after

    def _end_statement(self) -> bool:
        """Pass the statement on; True if COPY data follow it."""
        statement, self._statement = self._statement, Statement()
        self._after_copy = statement.copy_in
        sql = b"".join(statement.pieces)
        self._pass_on(sql, statement.line)
        if statement.copy_in:
            self._target = _target(sql, self._codec)
        return statement.copy_in

    def _pass_on(self, sql: bytes, line: int) -> None:
        self._statements += 1
        self._header = self._header is True
        for take in self._on_statement:
            take(sql, line)
        self._codec = codec_set_by(sql) or self._codec

    def _tell(self, data: bytes, upto: int) -> None:
        if upto > self._told:
            for take in self._on_text:
                take(data[self._told : upto], self._told_line)
        self._told, self._told_line = upto, self._line_at(data, upto)

    def _tell_volatile(self, data: bytes, begin: int, upto: int) -> None:
        self._tell(data, begin)
        for handler in self._handlers:
            handler.volatile_text(data[begin:upto], self._told_line)
        self._told, self._told_line = upto, self._line_at(data, upto)

    def _line_at(self, data: bytes, pos: int) -> int:
        self._line += data.count(b"\n", self._counted, pos)
        self._counted = pos
        return self._line

    def _damaged(self, message: str, data: bytes = b"", pos: int = 0) -> NoReturn:
        raise ScriptDamaged(message, self._line_at(data, pos) if data else self._line)

    # COPY data

    def _begin_copy(self, data: bytes, pos: int, end: int) -> int:
        rest = _REST_OF_COPY_LINE.match(data, pos, end)
        if rest is None:
            # psql would read the data first, and the rest of this line afterwards.
            cr = data.find(b"\r", pos, pos + 1) >= 0
            self._damaged(_CARRIAGE_RETURN if cr else "text after a COPY statement on its line", data, pos)
        self._tell(data, rest.end())
        self._block_rows, self._within_row = 0, False
        assert self._target is not None
        for handler in self._handlers:
            handler.copy_begin(self._target, self._line)
        return rest.end()

    def _read_copy(self, data: bytes, pos: int, end: int) -> int:
        """Read COPY data up to `end` or their last line; return the first byte not read."""
        stop = self._end_of_copy(data, pos, end)
        if stop > pos:
            self._copy_data(data[pos:stop])
            self._within_row = False
        self._counted = self._told = stop
        self._told_line = self._line
        if stop == end:
            return end
        self._target = None
        self._blocks += 1
        self._rows += self._block_rows
        for handler in self._handlers:
            handler.copy_end(self._block_rows)
        self._tell(data, stop + len(b"\\.\n"))
        return self._told

    def _end_of_copy(self, data: bytes, pos: int, end: int) -> int:
        """Find the beginning of the `\\.` line; `end` if it does not come before that."""
        first = data.find(b"\n", pos, end) + 1 if self._within_row else pos
        stop = _find_line(b"\\.\n", data, first, end)
        # Data contain a carriage return only as \r, so this costs next to nothing.
        if data.find(b"\r", first, stop) >= 0 and (damaged := _find_line(b"\\.\r\n", data, first, stop)) < stop:
            self._line += data.count(b"\n", pos, damaged)
            self._damaged("a carriage return after the end of COPY data: the file has Windows line ends, or is damaged")
        return stop

    def _copy_data(self, data: bytes) -> None:
        rows = data.count(b"\n")
        self._block_rows += rows
        self._line += rows
        for handler in self._handlers:
            handler.copy_data(data)


def _find_line(line: bytes, data: bytes, first: int, end: int) -> int:
    """Find `line` in data[first:end], which begins with a line; `end` if it is not there."""
    if data.startswith(line, first):
        return first
    newline = data.find(b"\n" + line, first, end)
    return newline + 1 if newline >= 0 else end


def _target(sql: bytes, codec: str) -> Target:
    """Return the target of a COPY … FROM stdin statement; a guess if pg_dump does not write that form."""
    parts = tokens(sql)[1:]
    if len(parts) > 1 and parts[0].upper() == b"BINARY" and parts[1] not in (b".", b"("):
        del parts[0]
    names = [parts.pop(0)]
    while len(parts) > 1 and parts[0] == b".":
        names.append(parts[1])
        del parts[:2]
    columns = parts[1 : parts.index(b")")] if parts[:1] == [b"("] and b")" in parts else []
    return Target(
        schema=unquote(names[-2], codec) if len(names) > 1 else "",
        name=unquote(names[-1], codec),
        columns=tuple(unquote(column, codec) for column in columns if column != b","),
    )


def read_script(chunks: Iterable[bytes], *handlers: Handler) -> Summary:
    """Read a whole script. Raises ScriptDamaged, and what `chunks` and `handlers` raise."""
    reader = ScriptReader(*handlers)
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish()
