"""Backups that tests remove."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..helpers.store import Made, Shelf


@pytest.fixture
def here(made: Made, tmp_path: Path) -> Shelf:
    """An empty directory, and rules that keep little: the last one and one of another day."""
    few = {"keep_last": 1, "keep_daily": 1, "keep_weekly": 0, "keep_monthly": 0}
    found = made.shelf.copy(tmp_path / "backups")
    return Shelf(found.settings.model_copy(update=few))
