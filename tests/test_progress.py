"""The bar that faces draw: how much of the whole call is done."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest

from scarlet_backup_mcp import progress as module
from scarlet_backup_mcp.procedures import durations
from scarlet_backup_mcp.progress import Progress

MB = 1_000_000


class Watched(Progress):
    """Keeps every fraction that could have been seen."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def show(self, state: module.State) -> None:
        self.seen.append(self.fraction)


Stage = tuple[str, int | None, float | None]


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def run(self, progress: Watched, stages: Iterable[Stage]) -> None:
        """Do stages, each of these bytes, which take as long as expected."""
        for title, total, seconds in stages:
            progress.stage(title, total, seconds)
            for tenth in range(1, 11):
                self.now += progress.state.seconds / 10
                progress.seen.append(progress.fraction)
                if total:
                    progress.report(total * tenth / 10)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def of_backup(size: int) -> list[Stage]:
    return [
        ("looking at the container", None, None),
        ("taking a snapshot", None, None),
        ("dumping", size, durations.of_dumping(size)),
        ("counting", None, durations.of_reading(size)),
        ("reading", size, None),
    ]


def of_drill(size: int) -> list[Stage]:
    return [
        ("reading", size, None),
        ("starting a sandbox server", None, durations.SANDBOX),
        ("restoring", size, durations.of_loading(size)),
        ("amcheck", None, None),
        ("dumping what was restored", size, durations.of_dumping(size)),
    ]


def assert_even(seen: list[float], most: float = 1) -> None:
    assert seen == sorted(seen)
    assert seen[0] < 0.1
    assert seen[-1] <= 1
    jumps = [later - earlier for earlier, later in itertools.pairwise(seen)]
    assert max(jumps) < most, seen


@pytest.mark.parametrize("size", [MB, 100 * MB, 5000 * MB])
def test_bar_of_an_expected_backup_comes_to_its_end_by_its_stages(size: int, clock: Clock) -> None:
    progress = Watched()
    progress.expect(durations.of_backup(size, drills=True))
    clock.run(progress, of_backup(size))
    written = progress.fraction
    clock.run(progress, of_drill(size))
    assert_even(progress.seen, 0.3)
    drill = durations.of_verification(size, "drill") / durations.of_backup(size, drills=True)
    assert written == pytest.approx(1 - drill, abs=0.2)
    assert progress.fraction > 0.65


def test_what_is_expected_anew_divides_the_rest_of_the_bar(clock: Clock) -> None:
    """A backup that turns out to need a drill."""
    progress, size = Watched(), 1000 * MB
    progress.expect(durations.of_backup(size, drills=False))
    clock.run(progress, of_backup(size))
    written = progress.fraction
    assert written > 0.85
    progress.expect(durations.of_verification(size, "drill"))
    assert progress.fraction == written
    clock.run(progress, of_drill(size))
    assert_even(progress.seen)
    assert progress.fraction > written + 0.8 * (1 - written)


def test_unexpectedly_long_stage_leaves_half_of_the_rest(clock: Clock) -> None:
    """The first backup of a large database."""
    progress = Watched()
    clock.run(progress, of_backup(1000 * MB)[:3])
    assert 0.4 < progress.fraction < 0.7
    clock.run(progress, [("once more", 1000 * MB, None)] * 20)
    assert_even(progress.seen)
    assert progress.fraction < 1


def test_bar_moves_by_time_where_a_stage_has_no_measure(clock: Clock) -> None:
    progress = Progress()
    progress.expect(10)
    progress.stage("checking", seconds=5)
    seen: list[float] = []
    for _ in range(60):
        seen.append(progress.fraction)
        clock.now += 1
    assert seen == sorted(set(seen))
    assert 0.25 < seen[5] < 0.4
    assert seen[-1] < 0.5


def test_waiting_for_another_call_moves_nothing(clock: Clock) -> None:
    progress = Watched()
    progress.expect(10)
    clock.run(progress, [("dumping", MB, 2.0)])
    before = progress.fraction
    clock.run(progress, [("waiting for another call", None, 0)] * 100)
    assert progress.fraction == before
    clock.run(progress, [("dumping", MB, 2.0)])
    assert progress.fraction == pytest.approx(before + 0.2)


def test_bar_never_falls_whatever_is_reported() -> None:
    progress = Watched()
    progress.stage("dumping", 100)
    for done in (10, 5, 90, 0, 500, 20):
        progress.report(done)
    assert_even(progress.seen)
