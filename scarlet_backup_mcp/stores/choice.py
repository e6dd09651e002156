"""Which services are stores by the user's word: the setting `stores`."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Named:
    """A service that a user names: with `path`, where it keeps its data."""

    service: str
    path: str | None = None


@dataclass(frozen=True)
class Choice:
    """Which services are stores besides those known by their images, and which of those are not."""

    also: tuple[Named, ...] = ()
    without: frozenset[str] = frozenset()


def choice_of(setting: str | None) -> Choice:
    """Read `service`, `service:/path` and `-service`, separated by commas. Raises ValueError."""
    also, without = list[Named](), set[str]()
    for word in filter(None, (word.strip() for word in (setting or "").split(","))):
        service, colon, path = word.removeprefix("-").partition(":")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", service) or (colon and not path.startswith("/")):
            raise ValueError(f"{word!r} is neither a service, nor `service:/path`, nor `-service`")
        if word.startswith("-") and colon:
            raise ValueError(f"{word!r} leaves a service out, which needs no path")
        if word.startswith("-"):
            without.add(service)
        else:
            also.append(Named(service, path or None))
    return Choice(tuple(also), frozenset(without))
