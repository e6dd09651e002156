"""What there is, where a name that was given is not."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

from .wording import shortened


def nearest(sought: str, names: Iterable[str]) -> str:
    """The names that are most like the one that was sought, in words: "a, b, c and 4 more", or "none"."""
    near = sorted(names, key=lambda name: (-SequenceMatcher(None, sought, name).ratio(), name))
    return shortened(near) or "none"
