"""Remove secrets from what goes into a log or to another program."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from pydantic import JsonValue

HIDDEN = "***"
LONGEST = 2000
"""Characters to keep of one text."""
# Also the marks that reverse the direction of the text after them ("Trojan Source", CVE-2021-42574).
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SECRET_NAME = re.compile(r"dsn|passw|pwd|passphrase|secret|token|api_?key|credential", re.IGNORECASE)
# Everything before the last "@" of a URI's first word: libpq ends the credentials at the first one, but a password that
# contains an unescaped one is a secret all the same.
_CREDENTIALS = re.compile(r"(?<=://)[^\s'\"]*@")
_ASSIGNED = re.compile(
    r"((?:passw(?:or)?d|pwd|passphrase|secret|token|api_?key)\w*[\"']?\s*[=:]\s*)"
    r"('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s,;&]+)",
    re.IGNORECASE,
)


def redact(value: object, secrets: Collection[str] = ()) -> JsonValue:
    """Return `value` as JSON without anything that is or looks like a secret. Hides the known `secrets`, a URI's
    credentials, what follows `password=` and the like (PGPASSWORD, tokens, API keys), and any mapping's value under
    such a name or under "dsn". Hides too much rather than too little."""
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
    """Escape control characters in a text from a file or server, as Python writes them; keep line ends and tabs.

    Otherwise it could move the cursor or hide what precedes it."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), value)


def printable_json(value: str) -> str:
    """Escape control characters in JSON, where only strings can contain them, without changing its meaning."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", value)


def text(value: str, secrets: Collection[str] = ()) -> str:
    """Hide secrets in a text, and cut it after `LONGEST` characters."""
    value = value[: 4 * LONGEST]
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        value = value.replace(secret, HIDDEN)
    value = _ASSIGNED.sub(rf"\1{HIDDEN}", _CREDENTIALS.sub(f"{HIDDEN}@", value))
    value = value.encode(errors="replace").decode()  # a path may contain bytes that are not UTF-8
    return value if len(value) <= LONGEST else value[: LONGEST - 1] + "…"
