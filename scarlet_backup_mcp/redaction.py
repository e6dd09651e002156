"""Secrets taken out of what is kept in a log or handed to another program."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import cast

from pydantic import JsonValue

HIDDEN = "***"
LONGEST = 2000
"""Characters that are kept of one text."""
# Also the marks that turn the direction of what is written after them ("Trojan Source", CVE-2021-42574).
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SECRET_NAME = re.compile(r"dsn|passw|pwd|passphrase|secret|token|api_?key|credential", re.IGNORECASE)
# What comes before the last "@" of a URI's first word: libpq ends the credentials at the first one, but a password that
# holds one unescaped is a secret all the same.
_CREDENTIALS = re.compile(r"(?<=://)[^\s'\"]*@")
_ASSIGNED = re.compile(
    r"((?:passw(?:or)?d|pwd|passphrase|secret|token|api_?key)\w*[\"']?\s*[=:]\s*)"
    r"('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s,;&]+)",
    re.IGNORECASE,
)


def redact(value: object, secrets: Collection[str] = ()) -> JsonValue:
    """`value` as JSON without what is or looks like a secret.

    Hidden are the known `secrets`, a URI's credentials, what follows `password=` and the like (PGPASSWORD, tokens, API
    keys), and whatever a mapping has under such a name or under "dsn". Too much is hidden rather than too little.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        pairs = cast(Mapping[object, object], value).items()
        return {
            text(str(name), secrets): HIDDEN
            if content is not None and _SECRET_NAME.search(str(name))
            else redact(content, secrets)
            for name, content in pairs
        }
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [redact(item, secrets) for item in cast(Sequence[object], value)]
    return text(str(value), secrets)


def printable(value: str) -> str:
    """A text of a file or a server as it may be shown: control characters, with which it could move the cursor or hide
    what stands before it, as they are written in Python; line ends and tabs stay."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), value)


def printable_json(value: str) -> str:
    """The same for JSON, in whose strings alone such characters stand: it means what it meant."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", value)


def text(value: str, secrets: Collection[str] = ()) -> str:
    """The same for a text, which is cut after `LONGEST` characters."""
    value = value[: 4 * LONGEST]
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        value = value.replace(secret, HIDDEN)
    value = _ASSIGNED.sub(rf"\1{HIDDEN}", _CREDENTIALS.sub(f"{HIDDEN}@", value))
    value = value.encode(errors="replace").decode()  # a path may hold bytes that are no UTF-8
    return value if len(value) <= LONGEST else value[: LONGEST - 1] + "…"
