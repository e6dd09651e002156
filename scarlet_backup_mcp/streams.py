"""The standard streams, so that none of them can stop the work: one may be closed, full, or without some letters."""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

ESCAPE = "scarlet-escape"
"""An error handler that writes what an encoding lacks as JSON does, which is JSON still."""


class _Unfailing(io.FileIO):
    """A file that notes in `failure` that it can't be written, instead of raising it."""

    failure: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            while (written := super().write(data)) is None:  # a pipe that does not block and is full
                select.select([], [self], [], 1.0)
            return written
        except OSError as error:
            self.failure = self.failure or error
            return memoryview(data).nbytes


def prepare() -> None:
    """Open those standard streams that are closed to nothing, and let none of the others raise.

    A closed one's number would go to the next file that is opened, and programs started from here would write into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number
    codecs.register_error(ESCAPE, _escape)
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115
    sys.stdout = _unfailing(sys.stdout, 1)
    sys.stderr = _unfailing(sys.stderr, 2)


def in_utf_8() -> None:
    """Begin again in Python's UTF-8 mode if file names are ASCII only: then é would be no letter of any backup's name.

    That is so in a C locale with PYTHONUTF8=0; without it Python does this by itself (PEP 540).
    """
    if os.name == "posix" and sys.getfilesystemencoding() == "ascii" and not sys.flags.utf8_mode:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def lost() -> str:
    """Say why not all of the output could be written; "" if it could, or its reader has gone, as `head` does."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    failure = raw.failure if isinstance(raw, _Unfailing) else None
    return "" if failure is None or failure.errno == errno.EPIPE else failure.strerror or str(failure)


def _unfailing(stream: TextIO | None, number: int) -> TextIO:
    if stream is None:  # closed, or Windows' pythonw.exe
        return open(os.devnull, "w", encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    if os.name == "nt" and stream.isatty():  # which is no file to Windows
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(_Unfailing(number, "w", closefd=False)),
        encoding=stream.encoding,
        errors=ESCAPE,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    words = [units[at : at + 2].hex() for at in range(0, len(units), 2)]
    return "".join(f"\\u{word}" for word in words), error.end
