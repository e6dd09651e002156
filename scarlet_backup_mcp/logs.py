"""The log on stderr, which may be a terminal: control characters from files and servers are escaped."""

from __future__ import annotations

import logging
import sys

from .redaction import printable


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def log_to_stderr(form: str) -> None:
    """Log warnings and errors to stderr in that format of `logging.Formatter`, unless logging is set up already."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable(form))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
