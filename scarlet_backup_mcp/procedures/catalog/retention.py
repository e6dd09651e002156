"""Decide which backups retention keeps: a policy over their times and facts, which reads no file and no clock.

PROC-004's table is the default of `Rules`: the last 3 whatever their age, then one per day for 7 days, one per week for
4 weeks and one per month for 3 months. What no rule keeps and nothing below protects may be removed.

**Series.** Backups of each kind (SQL, volume) and of each cluster have their own slots, and so have, among those, full
ones, shrunk ones (of a database that had lost rows) and cold ones (copies whose rows nobody counted): neither can
replace a full one, and a newly created server's backups displace none of the old server's.

**Slots.** A period is a local calendar day, an ISO week (from Monday) or a calendar month; its newest backup fills it.
While a period lasts, that is the newest backup of all, which the last 3 keep anyway; once it is over, it never changes.
So pruning every day gives the same result as pruning once, and no slot is starved. Therefore the newest backup's period
does not count: 7 days are those before it, and on the first of a month 3 months are the three that are over. With a
daily schedule, neighbouring slots are at most a day, a week or a month apart.

**Periods without a backup don't count.** A rule of 7 days means the last 7 days on which there is one. Time alone
removes nothing, not even a pause in the schedule; and a backup whose clock ran ahead costs no more than its own slots.

**Protected**, besides the slots: what is marked to be kept; the newest one of a series that a drill has proved; the
last full one before each shrink, with the newest later one that records it; and, because `last` is at least 1, the
newest good one whatever its age. What is not a good backup of the configured database is left alone and fills no slot.

So one series has at most last + daily + weekly + monthly backups, besides the marked ones, a proved one and two for
each shrink.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Literal

from ...models.common import Kind

MARKED = "marked to be kept"
PROVED = "the newest one that a restore drill has proved"
BEFORE_SHRINK = "the last full one before the database shrank"
NO_RULE = "no rule keeps it"


@dataclass(frozen=True)
class Rules:
    """How many backups each rule keeps. Raises ValueError for numbers that would give up the newest one."""

    last: int = 3
    daily: int = 7
    weekly: int = 4
    monthly: int = 3

    def __post_init__(self) -> None:
        if self.last < 1 or min(self.daily, self.weekly, self.monthly) < 0:
            raise ValueError("the last one is always kept, and no number is below 0")

    def __str__(self) -> str:
        return (
            f"the last {self.last}, one per day for {self.daily} days, per week for {self.weekly} weeks, "
            f"per month for {self.monthly} months"
        )


@dataclass(frozen=True)
class Candidate:
    """A backup as the policy sees it. `left_alone` says why the rules don't apply; "" for a good backup of the
    configured database. `cluster` is its server's system identifier. `last_full` names the backup that a shrunk one was
    compared with."""

    name: str
    kind: Kind
    created_at: datetime
    cluster: str | None = None
    left_alone: str = ""
    shrunk: bool = False
    cold: bool = False
    proved: bool = False
    marked: bool = False
    last_full: str | None = None

    @property
    def full(self) -> bool:
        """Whether it is known to contain what the database should."""
        return not self.shrunk and not self.cold


@dataclass(frozen=True)
class Fate:
    """What becomes of a backup, and why. Slots: "last 3", "daily 2026-11-22", "weekly 2026-W47", "monthly 2026-10"."""

    fate: Literal["keep", "remove", "leave"]
    reason: str
    slots: tuple[str, ...] = ()


def decide(candidates: Iterable[Candidate], rules: Rules, zone: tzinfo | None = None) -> dict[str, Fate]:
    """Decide the fate of each backup, by name. Days begin at midnight in `zone`; None is this machine's."""
    newest_first = sorted(candidates, key=lambda one: (one.created_at, one.name), reverse=True)
    good = [one for one in newest_first if not one.left_alone]
    slots: dict[str, list[str]] = defaultdict(list)
    reasons: dict[str, list[str]] = defaultdict(list)
    for series in _series(good):
        for name, slot in _slots(series, rules, zone):
            slots[name].append(slot)
        for one in [one for one in series if one.proved][:1]:
            reasons[one.name].append(PROVED)
    for name, reason in _around_shrinks(newest_first, good):
        reasons[name].append(reason)
    for one in good:
        if one.marked:
            reasons[one.name].append(MARKED)
    return {one.name: _verdict(one, slots[one.name], reasons[one.name]) for one in newest_first}


def _verdict(one: Candidate, slots: list[str], reasons: list[str]) -> Fate:
    if one.left_alone:
        return Fate("leave", one.left_alone)
    if slots or reasons:
        return Fate("keep", "; ".join([*slots, *reasons]), tuple(slots))
    return Fate("remove", NO_RULE)


def _series(newest_first: Sequence[Candidate]) -> Iterable[list[Candidate]]:
    found: dict[tuple[object, ...], list[Candidate]] = defaultdict(list)
    for one in newest_first:
        found[one.kind, one.cluster, one.shrunk, one.cold].append(one)
    return found.values()


def _slots(series: Sequence[Candidate], rules: Rules, zone: tzinfo | None) -> Iterator[tuple[str, str]]:
    """Yield the names in a series, newest first, each with a slot that it fills."""
    for one in series[: rules.last]:
        yield one.name, f"last {rules.last}"
    periods = (
        ("daily", rules.daily, "%Y-%m-%d"),
        ("weekly", rules.weekly, "%G-W%V"),
        ("monthly", rules.monthly, "%Y-%m"),
    )
    for rule, number, form in periods:
        newest_of: dict[str, str] = {}
        for one in series:
            newest_of.setdefault(one.created_at.astimezone(zone).strftime(form), one.name)
        for period, name in list(newest_of.items())[1 : 1 + number]:
            yield name, f"{rule} {period}"


def _around_shrinks(newest_first: Sequence[Candidate], good: Sequence[Candidate]) -> Iterator[tuple[str, str]]:
    """Yield the last full backup before each shrink, and the newest good shrunk one that records it: without that one,
    nothing would."""
    full = {one.name: one for one in good if one.full}
    witnessed: set[str] = set()
    protected: set[str] = set()
    for shrunk in (one for one in newest_first if one.shrunk):
        before = (one for one in full.values() if one.kind == shrunk.kind and one.created_at < shrunk.created_at)
        last = full.get(shrunk.last_full or "") or next(before, None)
        if last is None:
            continue
        if last.name not in protected:
            protected.add(last.name)
            yield last.name, BEFORE_SHRINK
        if not shrunk.left_alone and last.name not in witnessed:
            witnessed.add(last.name)
            yield shrunk.name, f"records that {last.name} is {BEFORE_SHRINK}"
