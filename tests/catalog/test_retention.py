"""The policy of retention, over years of simulated schedules. No file and no server: it looks at neither."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scarlet_backup_mcp.models.common import Kind
from scarlet_backup_mcp.procedures.catalog.retention import BEFORE_SHRINK, MARKED, PROVED, Candidate, Rules, decide

DAY = timedelta(days=1)
BEGIN = datetime(2024, 1, 1, 3, tzinfo=UTC)
ROME = ZoneInfo("Europe/Rome")
RULES = Rules()
FORMS = {"daily": "%Y-%m-%d", "weekly": "%G-W%V", "monthly": "%Y-%m"}
SPAN = {"daily": DAY, "weekly": 7 * DAY, "monthly": 31 * DAY}


def backup(at: datetime, kind: Kind = "sql", **facts: object) -> Candidate:
    return replace(Candidate(f"{kind}_{at:%Y%m%d_%H%M%S}", kind, at), **facts)  # type: ignore[arg-type]


def daily(days: int, begin: datetime = BEGIN) -> list[Candidate]:
    return [backup(begin + n * DAY) for n in range(days)]


def kept(candidates: Iterable[Candidate], rules: Rules = RULES, zone: ZoneInfo = ROME) -> list[Candidate]:
    candidates = list(candidates)
    verdicts = decide(candidates, rules, zone)
    return [one for one in candidates if verdicts[one.name].fate != "remove"]


def slots(candidates: Sequence[Candidate], rules: Rules = RULES) -> dict[str, str]:
    """Slot to name, but for the last ones."""
    verdicts = decide(candidates, rules, ROME)
    return {slot: name for name, found in verdicts.items() for slot in found.slots if not slot.startswith("last")}


STEPS = st.one_of(st.integers(1, 72), st.sampled_from([24, 24 * 7, 24 * 30, 24 * 100]))


@st.composite
def schedules(draw: st.DrawFn, facts: bool = False) -> list[Candidate]:
    """Backups hours, days or months apart, regular for a while and then otherwise; up to some years of them."""
    at, found = BEGIN, list[Candidate]()
    last_full: str | None = None
    for _ in range(draw(st.integers(1, 6))):
        step, number = draw(STEPS), draw(st.integers(1, 60))
        shrunk = facts and draw(st.booleans())
        for _ in range(number):
            at += timedelta(hours=step)
            one = backup(at, draw(st.sampled_from(["sql", "sql", "volume"])) if facts else "sql")
            if facts:
                odd = draw(st.integers(0, 30))
                one = replace(
                    one,
                    shrunk=shrunk,
                    cold=one.kind == "volume" and not shrunk and odd < 10,
                    proved=odd == 11,
                    marked=odd == 12,
                    left_alone="damaged" if odd in (13, 14) else "",
                    last_full=last_full,
                )
            if one.full and not one.left_alone and one.kind == "sql":
                last_full = one.name
            found.append(one)
    return found


SOME_RULES = st.builds(Rules, st.integers(1, 5), st.integers(0, 9), st.integers(0, 6), st.integers(0, 15))
BOUNDED = settings(max_examples=60, deadline=None, database=None)


# Rules over years


def test_three_years_of_daily_backups_leave_what_the_table_says() -> None:
    found = [f"{one.created_at:%Y-%m-%d}" for one in reversed(kept(daily(1060)))]  # up to 2026-11-25, a Wednesday
    assert found == [
        *(f"2026-11-{day}" for day in range(25, 17, -1)),  # the newest, and the 7 days before
        "2026-11-15",
        "2026-11-08",
        "2026-11-01",  # Sundays; the 22nd is among the days
        "2026-10-31",
        "2026-09-30",
        "2026-08-31",
    ]


def test_slots_have_the_names_of_the_policy() -> None:
    verdicts = decide(daily(1060), RULES, ROME)
    assert verdicts["sql_20261125_030000"].reason == "last 3"
    assert verdicts["sql_20261122_030000"].slots == ("daily 2026-11-22", "weekly 2026-W47")
    assert verdicts["sql_20261031_030000"].slots == ("monthly 2026-10",)
    assert verdicts["sql_20261117_030000"].reason == "no rule keeps it"


@BOUNDED
@given(schedules(), SOME_RULES)
@example(daily(800), RULES)
def test_newest_of_each_of_the_last_periods_is_kept(taken: list[Candidate], rules: Rules) -> None:
    staying = {one.name for one in kept(taken, rules)}
    assert {one.name for one in taken[-rules.last :]} <= staying
    for rule, number in (("daily", rules.daily), ("weekly", rules.weekly), ("monthly", rules.monthly)):
        newest = {one.created_at.astimezone(ROME).strftime(FORMS[rule]): one.name for one in taken}
        assert set(list(newest.values())[-1 - number :]) <= staying


@BOUNDED
@given(schedules(), SOME_RULES)
def test_number_kept_is_bounded_and_each_slot_is_filled_once(taken: list[Candidate], rules: Rules) -> None:
    assert len(kept(taken, rules)) <= rules.last + rules.daily + rules.weekly + rules.monthly
    filled = [slot for found in decide(taken, rules, ROME).values() for slot in found.slots]
    for rule, number in (("daily", rules.daily), ("weekly", rules.weekly), ("monthly", rules.monthly)):
        of_rule = [slot for slot in filled if slot.startswith(rule)]
        assert len(of_rule) == len(set(of_rule)) <= number


@BOUNDED
@given(st.integers(120, 500), st.integers(0, 23), st.integers(1, 3))
def test_no_gap_of_a_regular_schedule_grows_beyond_its_period(days: int, hour: int, step: int) -> None:
    """Neighbours are as far apart as the finest rule that reaches there says, or as the schedule's own step."""
    taken = daily(days * step, BEGIN.replace(hour=hour))[::step]
    staying = kept(taken)
    newest = staying[-1].created_at
    for earlier, later in pairwise(staying):
        age = newest - later.created_at
        finest = "daily" if age < 7 * DAY else "weekly" if age < 21 * DAY else "monthly"
        assert later.created_at - earlier.created_at <= SPAN[finest] + (step - 1) * DAY
    assert newest - staying[0].created_at >= 60 * DAY


@BOUNDED
@given(schedules())
def test_every_backup_within_reach_has_one_kept_at_most_a_period_later(taken: list[Candidate]) -> None:
    staying = kept(taken)
    for rule, number in (("daily", 7), ("weekly", 4), ("monthly", 3)):
        for one in taken:
            if taken[-1].created_at - one.created_at <= (number - 1) * SPAN[rule]:
                later = next(other for other in staying if other.created_at >= one.created_at)
                assert later.created_at - one.created_at <= SPAN[rule] + timedelta(hours=1)  # the end of summer time


# Stability


@BOUNDED
@given(schedules(facts=True), SOME_RULES)
def test_pruning_twice_is_pruning_once(taken: list[Candidate], rules: Rules) -> None:
    once = kept(taken, rules)
    assert kept(once, rules) == once
    before, after = decide(taken, rules, ROME), decide(once, rules, ROME)
    assert {one.name: before[one.name] for one in once} == after


@settings(max_examples=25, deadline=None, database=None)
@given(schedules(), SOME_RULES)
@example(daily(400), RULES)
def test_pruning_after_every_backup_starves_no_slot(taken: list[Candidate], rules: Rules) -> None:
    """What is left is what one look at all there ever was would leave."""
    there: list[Candidate] = []
    for one in taken:
        there = kept([*there, one], rules)
    assert there == kept(taken, rules)


@settings(max_examples=25, deadline=None, database=None)
@given(schedules(facts=True), SOME_RULES)
def test_no_pruning_takes_what_is_protected(taken: list[Candidate], rules: Rules) -> None:
    there: list[Candidate] = []
    for one in taken:
        there = kept([*there, one], rules)
        assert one in there
    good = [one for one in taken if not one.left_alone]
    expected = [one for one in taken if one.marked or one.left_alone]
    expected += [one for one in good if one.name in {other.last_full for other in good if other.shrunk}]
    for kind in ("sql", "volume"):
        expected += [one for one in good if one.kind == kind and one.full][-1:]
        expected += [one for one in good if one.kind == kind and one.full and one.proved][-1:]
    assert set(expected) <= set(there)


def test_backup_under_a_clock_that_ran_ahead_costs_one_slot_of_each_rule() -> None:
    before = kept(daily(200))
    staying = kept([*before, backup(BEGIN.replace(year=2036))])
    assert len(before) - len([one for one in staying if one in before]) <= 3


def test_rare_backups_are_not_lost_to_rules_for_frequent_ones() -> None:
    monthly = [backup(datetime(2025, month, 2, tzinfo=UTC)) for month in range(1, 13)]
    assert [one.created_at.month for one in kept(monthly)] == list(range(5, 13))


# Calendar


def test_days_are_those_of_the_place() -> None:
    """Half past midnight in Rome is another day than in UTC."""
    taken = [backup(datetime(2026, 7, day, 22, 30, tzinfo=UTC)) for day in range(1, 20)]
    assert "daily 2026-07-20" not in slots(taken)
    assert slots(taken)["daily 2026-07-19"] == "sql_20260718_223000"


@pytest.mark.parametrize(
    "begin", [datetime(2026, 3, 20, 0, 30), datetime(2026, 10, 16, 2, 30), datetime(2026, 12, 24, 23)]
)
def test_change_of_the_clocks_and_of_the_year_skips_no_day(begin: datetime) -> None:
    taken = [backup((begin + n * DAY).replace(tzinfo=ROME).astimezone(UTC)) for n in range(12)]
    days = sorted(slot.removeprefix("daily ") for slot in slots(taken) if slot.startswith("daily"))
    assert days == [f"{begin + n * DAY:%Y-%m-%d}" for n in range(4, 11)]


def test_week_over_new_year_is_one_week() -> None:
    taken = daily(30, datetime(2025, 12, 20, 3, tzinfo=UTC))
    assert slots(taken)["weekly 2026-W01"] == "sql_20260104_030000"


# Who fills a slot


def test_seven_bad_days_push_no_good_backup_out() -> None:
    good = daily(60)
    bad = [replace(one, left_alone="damaged") for one in daily(7, BEGIN + 60 * DAY)]
    assert kept([*good, *bad]) == [*kept(good), *bad]


@pytest.mark.parametrize("facts", [{"shrunk": True}, {"cold": True}])
@pytest.mark.parametrize("number", [7, 400])
def test_backups_that_hold_less_push_no_full_one_out(facts: dict[str, bool], number: int) -> None:
    full = [replace(one, kind="volume") for one in daily(60)]
    less = [replace(one, kind="volume", **facts) for one in daily(number, BEGIN + 60 * DAY)]  # type: ignore[arg-type]
    staying = kept([*full, *less])
    assert [one for one in staying if one.full] == kept(full)
    assert len(staying) - len(kept(full)) == min(number, len(kept(less)))


def test_kinds_have_slots_of_their_own() -> None:
    sql = daily(60)
    volumes = [backup(one.created_at + timedelta(hours=1), "volume") for one in sql]
    assert kept([*sql, *volumes]) == [*kept(sql), *kept(volumes)]


def test_a_server_made_anew_lets_nothing_go_of_the_old_one() -> None:
    old = [replace(one, cluster="old") for one in daily(60)]
    anew = [replace(one, cluster="new") for one in daily(60, BEGIN + 60 * DAY)]
    assert kept([*old, *anew]) == [*kept(old), *kept(anew)]


# Protected


def test_last_full_one_before_a_shrink_stays_for_ever() -> None:
    full = daily(10)
    last = full[-1]
    shrunk = [replace(one, shrunk=True, last_full=last.name) for one in daily(300, BEGIN + 10 * DAY)]
    again = daily(900, BEGIN + 310 * DAY)
    more = [replace(one, shrunk=True, last_full=again[-1].name) for one in daily(300, BEGIN + 1210 * DAY)]
    there: list[Candidate] = []
    for one in [*full, *shrunk, *again, *more]:
        there = kept([*there, one])
    verdicts = decide(there, RULES, ROME)
    assert verdicts[last.name].reason == verdicts[again[-1].name].reason.split("; ")[-1] == BEFORE_SHRINK
    assert last.name in verdicts[shrunk[-1].name].reason


def test_last_full_one_is_found_by_time_when_the_one_named_is_gone() -> None:
    full = daily(10)
    shrunk = [replace(one, shrunk=True, last_full="gone.sql") for one in daily(1, BEGIN + 10 * DAY)]
    again = daily(300, BEGIN + 11 * DAY)
    assert decide([*full, *shrunk, *again], RULES, ROME)[full[-1].name].reason == BEFORE_SHRINK


def test_shrunk_one_that_is_damaged_still_protects() -> None:
    full = daily(10)
    shrunk = replace(backup(BEGIN + 10 * DAY), shrunk=True, last_full=full[-1].name, left_alone="damaged")
    again = daily(300, BEGIN + 11 * DAY)
    assert full[-1] in kept([*full, shrunk, *again])


def test_newest_proved_one_stays_whatever_its_age() -> None:
    taken = daily(400)
    taken[3], taken[9] = replace(taken[3], proved=True), replace(taken[9], proved=True)
    verdicts = decide(taken, RULES, ROME)
    assert (verdicts[taken[9].name].reason, verdicts[taken[3].name].fate) == (PROVED, "remove")


def test_marked_one_stays() -> None:
    taken = daily(400)
    taken[3] = replace(taken[3], marked=True)
    assert decide(taken, RULES, ROME)[taken[3].name].reason == MARKED


def test_last_good_one_stays_whatever_the_rules() -> None:
    taken = [*daily(3), replace(backup(BEGIN + 900 * DAY), left_alone="damaged")]
    assert [one.name for one in kept(taken, Rules(1, 0, 0, 0))] == [taken[2].name, taken[3].name]


@pytest.mark.parametrize("numbers", [(0, 7, 4, 3), (3, -1, 4, 3)])
def test_rules_that_would_give_up_the_newest_are_refused(numbers: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="always kept"):
        Rules(*numbers)


def test_nothing_is_decided_of_nothing() -> None:
    assert decide([], RULES) == {}
