"""Which cases of a test a plain run takes, and which are left to `.ci/long`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import pytest

T = TypeVar("T")


def sampled(cases: Iterable[T], *kept: T) -> list[object]:
    """All of `cases` as parameters of a test; those that are not `kept` have the marker `long`."""
    every = list(cases)
    assert kept
    assert all(case in every for case in kept)
    return [case if case in kept else pytest.param(case, marks=pytest.mark.long) for case in every]
