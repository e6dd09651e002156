"""Recognise at once what pg_dump writes most: a script has some ten statements and comments per table.

Each pattern takes a part of what the token by token reading of `script.ScriptReader` takes, and ends where that ends.
Whatever could be read in two ways is left to that: quotes after words, backslashes, single colons, dollar quotes,
numbers that run into words, block comments, functions with a body.
"""

from __future__ import annotations

import re

_WITHIN = rb"""(?>
    [ \t\n\f\v,.=<>+*%&|^~!?#@\[\]]++
  | [A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*+ (?!['"])
  | [0-9]++ (?:\.[0-9]++)?+ (?![A-Za-z_$'.\x80-\xff])
  | ' (?:[^'\\]++|'')*+ '
  | " (?:[^"]++|"")*+ "
  | :: | -(?!-) | /(?!\*)
)*+"""


def _with_parentheses(within: bytes) -> bytes:
    return rb"%b(?:\(%b\)%b)*+" % (_WITHIN, within, _WITHIN)


PLAIN = re.compile(
    rb"""[ \t\n\f\v]*+
    (?P<sql>
        (?: (?!COPY\b|CREATE\b)[A-Z]++ | CREATE\ (?!OR\b|FUNCTION\b|PROCEDURE\b)[A-Z]++ ) (?![A-Za-z0-9_$'"\x80-\xff])
        %b ;
    )"""
    % _with_parentheses(_with_parentheses(_with_parentheses(_WITHIN))),
    re.VERBOSE,
)
"""A statement without data, and the white space before it."""

QUIET = re.compile(rb"(?:[ \t\n\f\v]++|^--(?! PostgreSQL| Dumped)[^\r\n]*+\n)*+", re.MULTILINE)
"""White space, and comments that say nothing about the whole script."""

NAME = rb'(?:[a-z_][a-z0-9_]*+|"(?:[^"]++|"")++")'
NAMES = re.compile(NAME)
COPY = re.compile(
    rb"(?P<sql>COPY (?P<schema>%b)\.(?P<table>%b) (?:\((?P<columns>%b(?:, %b)*+)\))? FROM stdin;)" % ((NAME,) * 4)
)
"""A statement with data as pg_dump writes it."""
