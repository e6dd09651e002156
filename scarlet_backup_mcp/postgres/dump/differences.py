"""Differences between two dumps' definitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .definitions import OUTSIDE, Definition, ObjectKey, alike, same

SHOWN = 500
"""About how many characters of a definition to show."""


@dataclass(frozen=True)
class DumpDifference:
    """Something that differs. `what` is, for example, "rows of letta.messages" or "INDEX letta.agents_name_idx";
    `before` and `after` are what each has, "" if it has nothing."""

    what: str
    before: str
    after: str

    @property
    def same_number(self) -> bool:
        """For rows: whether only their content differs, not their number."""
        return self.after.startswith(f"{self.before}, ")

    def __str__(self) -> str:
        """Describe the difference in one line or, with definitions, several."""
        return f"{self.what}: {self.before or 'nothing'} in the backup, {self.after or 'nothing'} in the restored copy"


@dataclass(frozen=True)
class Rewritten(DumpDifference):
    """A definition with a different text, but one that a server may have rewritten it to."""

    key: ObjectKey


def differing(
    before: dict[ObjectKey, list[Definition]], after: dict[ObjectKey, list[Definition]], same_version: bool
) -> Iterator[DumpDifference]:
    """Yield each object that differs; a Rewritten if it has to be confirmed."""
    for key in {**before, **after}:
        ones, others = unequal(before.get(key, []), after.get(key, []))
        match = alike if same_version or key == OUTSIDE else _of_another_version
        pairs, ones, others = _pairs(ones, others, match)
        for one, other in pairs:
            yield Rewritten(str(key), *shown(str(one), str(other)), key)
        for at in range(max(len(ones), len(others))):
            texts = [str(side[at]) if at < len(side) else "" for side in (ones, others)]
            yield DumpDifference(str(key), *shown(*texts))


def unequal(ones: list[Definition], others: list[Definition]) -> tuple[list[Definition], list[Definition]]:
    """Return what each list has in excess of the other."""
    left, right = Counter(ones), Counter(others)
    rest, other_rest = list((left - right).elements()), list((right - left).elements())
    _, rest, other_rest = _pairs(rest, other_rest, same)
    return rest, other_rest


def _pairs(
    ones: list[Definition], others: list[Definition], match: Callable[[Definition, Definition], bool]
) -> tuple[list[tuple[Definition, Definition]], list[Definition], list[Definition]]:
    """Return the pairs that match, and what is left of both lists."""
    pairs: list[tuple[Definition, Definition]] = []
    rest, left = list[Definition](), list(others)
    for one in ones:
        found = next((at for at, other in enumerate(left) if match(one, other)), None)
        if found is None:
            rest.append(one)
        else:
            pairs.append((one, left.pop(found)))
    return pairs, rest, left


def _of_another_version(one: Definition, other: Definition) -> bool:
    """Tell whether only spelling may differ: not the owner, a sequence's value, or quoted strings."""
    return one.owner == other.owner and not one.sets_value and one.literals == other.literals


def shown(one: str, other: str) -> tuple[str, str]:
    """Shorten both texts around the first place where they differ."""
    shared = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    begin = max(0, shared - SHOWN // 4)

    def cut(text: str) -> str:
        shown = text[begin : begin + SHOWN]
        return f"{'…' if begin and shown else ''}{shown}{'…' if begin + SHOWN < len(text) else ''}"

    return (cut(one), cut(other)) if one and other else (one[:SHOWN], other[:SHOWN])
