"""The log on stderr, which may be a terminal: what it tells of files and servers moves no cursor there."""

from __future__ import annotations

import logging
import sys

from .redaction import printable


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def log_to_stderr(form: str) -> None:
    """Warnings and errors, in that form of `logging.Formatter`; nothing where a log is set up already."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable(form))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
