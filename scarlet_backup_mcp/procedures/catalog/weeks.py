"""How safe the memory was, week by week: when usable backups were made, and which of them a drill proved."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

from ...models.manifest import ManifestHead
from ...models.results import Safety, Week
from ..context import BackupContext
from .records import BackupRecord, ours

SHOWN = 12
"""Weeks."""


def weeks(context: BackupContext, items: Iterable[BackupRecord[ManifestHead]], today: date | None = None) -> list[Week]:
    """Return the last weeks, oldest first: the first one has the oldest usable backup, or is the twelfth last.

    A backup is usable if it is good, of the configured database and of no kind of loss. Days are UTC."""
    usable = [
        item for item, head in ours(context, items, ("sql", "volume")) if item.state == "good" and not head.shrunk
    ]
    today = today or datetime.now(UTC).date()
    days: dict[date, Safety] = {}
    for item in usable:
        day = item.created_at.date()
        days[day] = "proved" if item.proved_at or days.get(day) == "proved" else "good"
    monday, first = _monday(today), _monday(min(days, default=today))
    count = min(SHOWN, max(0, (monday - first).days // 7) + 1)
    mondays = [monday - timedelta(weeks=back) for back in reversed(range(count))]
    return [
        Week(week=f"{first:%G-W%V}", days=[_safety(days, first + timedelta(days=day), today) for day in range(7)])
        for first in mondays
    ]


def _monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


def _safety(days: dict[date, Safety], day: date, today: date) -> Safety:
    return days.get(day, "missing" if day <= today else "to come")
