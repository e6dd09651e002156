"""Word lists for sentences."""

from __future__ import annotations

from collections.abc import Iterable


def shortened(items: Iterable[object], shown: int = 5, separator: str = ", ") -> str:
    """Write out the first few: "a, b, c and 4 more"."""
    names = [str(item) for item in items]
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return separator.join(names[:shown]) + more
