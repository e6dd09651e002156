"""Numbers and lists in sentences."""

from __future__ import annotations

import pytest

from scarlet_backup_mcp.wording import number_of


@pytest.mark.parametrize(
    ("number", "written"),
    [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1200, "1,200 rows"), (None, "an unknown number of rows")],
)
def test_a_number_agrees_with_its_noun(number: int | None, written: str) -> None:
    assert number_of(number, "row") == written
