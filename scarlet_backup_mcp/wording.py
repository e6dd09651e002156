"""Numbers and lists for sentences."""

from __future__ import annotations

from collections.abc import Iterable


def number_of(number: int | None, noun: str) -> str:
    """Write a number with its noun: "1 backup", "1,200 backups"; None: "an unknown number of backups"."""
    many = f"{noun}s"
    return f"an unknown number of {many}" if number is None else f"{number:,} {noun if number == 1 else many}"


def size(count: int) -> str:
    """Write bytes for people: "512 B", "4.2 MB"."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{count} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


def shortened(items: Iterable[object], shown: int = 5, separator: str = ", ") -> str:
    """Write out the first few: "a, b, c and 4 more"."""
    names = [str(item) for item in items]
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return separator.join(names[:shown]) + more
