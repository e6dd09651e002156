"""What a reader of a dump script reports: to a handler while it reads, and as a summary at the end."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """What a COPY block fills. Names are unquoted, and decoded with the script's client_encoding; invalid bytes are
    lone surrogates."""

    schema: str
    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """The summary of a whole script.

    `header` and `trailer` say whether pg_dump's first and last comment are there: a script without its trailer was cut
    off. `bytes` and `lines` count the whole script, `statements` include the COPY statements, `rows` are lines of COPY
    data in `blocks` COPY blocks. The versions are spelled as in the header's comments.
    """

    header: bool
    trailer: bool
    bytes: int
    lines: int
    statements: int
    blocks: int
    rows: int
    server_version: str | None
    pg_dump_version: str | None


class ScriptDamaged(Exception):
    """The rest of the script can't be read. `message` says why, `line` is 1-based."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(f"line {line}: {message}")
        self.message, self.line = message, line


class Handler:
    """Receives a script's events in order. Each method does nothing until overridden."""

    def text(self, data: bytes, line: int) -> None:
        """Take whole lines outside COPY data, with their newlines, including COPY statements and `\\.` lines.

        Called after the events of what ends on those lines, and before `copy_begin` of a block that follows them.
        """

    def volatile_text(self, data: bytes, line: int) -> None:
        """Take a line outside COPY data that differs between two dumps of the same database; by default as any text.

        It is a command or comment (see `script.VOLATILE_LINE`), and comes after that event.
        """
        self.text(data, line)

    def comment(self, data: bytes, line: int) -> None:
        """Take a `--` comment between statements that begins in a line's first column, without its newline."""

    def statement(self, sql: bytes, line: int) -> None:
        """Take a statement as psql would send it, from its first token to its ';'. `line` is its first line."""

    def meta_command(self, command: bytes, line: int) -> None:
        """Take a backslash command, to the end of its line, without the newline."""

    def copy_begin(self, target: Target, line: int) -> None:
        """Begin COPY data, whose first line is `line`."""

    def copy_data(self, data: bytes) -> None:
        """Take a piece of COPY data: whole rows with their newlines, or a part of a row longer than `script.PIECE`."""

    def copy_end(self, rows: int) -> None:
        """End COPY data."""
