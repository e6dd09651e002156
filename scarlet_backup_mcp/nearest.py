"""Suggest existing names in place of one that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

from .wording import shortened


def nearest(sought: str, names: Iterable[str]) -> str:
    """List the names most like the one sought, as text: "a, b, c and 4 more", or "none"."""
    near = sorted(names, key=lambda name: (-SequenceMatcher(None, sought, name).ratio(), name))
    return shortened(near) or "none"
