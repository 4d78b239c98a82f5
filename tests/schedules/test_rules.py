"""When schedules are due: by clocks that jump, each time once, and the same whenever it is asked."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kasaga.schedules import Calendar, Cron, Every, ScheduleInvalid, When, rule_of
from kasaga.schedules.rules import dues

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Asia/Kathmandu",
    "Africa/Cairo",
    "Pacific/Apia",
]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def between(rule: When, since: str, until: str) -> list[str]:
    return [due.strftime("%d %H:%M") for due in dues(rule, utc(since), utc(until), 1000)]


def test_a_fixed_time_that_is_skipped_is_due_at_the_first_minute_after() -> None:
    rule = Cron("30 2 * * *", "Europe/Berlin")
    assert between(rule, "2026-03-28T00:00", "2026-03-31T00:00") == ["28 01:30", "29 01:00", "30 00:30"]


def test_a_fixed_time_that_comes_twice_is_due_once() -> None:
    rule = Cron("30 2 * * *", "Europe/Berlin")
    assert between(rule, "2026-10-24T12:00", "2026-10-26T12:00") == ["25 00:30", "26 01:30"]
    assert rule.after(utc("2026-10-25T00:45")) == utc(
        "2026-10-26T01:30"
    )  # asked in the hour that comes twice
    assert rule.after(utc("2026-10-25T01:15")) == utc("2026-10-26T01:30")


def test_a_wildcard_goes_on_through_both() -> None:
    rule = Cron("*/30 * * * *", "Europe/Berlin")
    for day in ("2026-03-29", "2026-10-25"):
        found = list(dues(rule, utc(f"{day}T00:00"), utc(f"{day}T04:00"), 100))
        assert found == [utc(f"{day}T00:00") + timedelta(minutes=30 * n) for n in range(1, 9)]


def test_a_calendar_moves_what_is_skipped_and_takes_the_first_of_two() -> None:
    rule = Calendar([time(2, 30)], zone="Europe/Berlin")
    assert between(rule, "2026-03-28T00:00", "2026-03-31T00:00") == ["28 01:30", "29 01:30", "30 00:30"]
    assert between(rule, "2026-10-24T12:00", "2026-10-26T12:00") == ["25 00:30", "26 01:30"]


def test_a_calendars_days() -> None:
    last = Calendar([time(18), time(6)], days=[-1], except_on=[date(2026, 2, 28)])
    assert between(last, "2026-01-30T00:00", "2026-04-01T00:00") == ["31 06:00", "31 18:00"] * 2
    friday = Calendar([time(0)], weekdays=[5], days=[13], months=[3])
    assert friday.after(utc("2026-01-01T00:00")) == utc("2026-03-13T00:00")


def test_an_interval_is_due_at_multiples() -> None:
    assert between(Every(900, offset=60), "2026-01-01T00:01", "2026-01-01T00:40") == ["01 00:16", "01 00:31"]


rules = st.one_of(
    st.builds(Every, st.floats(1, 1e6)),
    st.builds(
        Cron,
        st.builds(
            "{} {} * * {}".format,
            st.sampled_from(["0", "30", "*/20", "5,35", "59"]),
            st.sampled_from(["0", "1", "2", "3", "*", "*/2", "1-3", "23"]),
            st.sampled_from(["*", "SUN", "6,7"]),
        ),
        st.sampled_from(ZONES),
    ),
    st.builds(
        Calendar,
        st.lists(st.times().map(lambda at: at.replace(second=0, microsecond=0)), min_size=1, max_size=3).map(
            tuple
        ),
        weekdays=st.sampled_from([(), (7,), (1, 6)]),
        zone=st.sampled_from(ZONES),
    ),
)
moments = st.datetimes(datetime(2005, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))


@settings(deadline=None)
@given(rules, moments)
def test_each_due_time_comes_once_however_it_is_asked(rule: When, moment: datetime) -> None:
    """In order, and the same from whichever moment between two of them."""
    first = rule.after(moment)
    assert first is not None
    assert first > moment
    for _ in range(5):
        following = rule.after(first)
        assert following is not None
        assert following > first
        assert rule.after(first + (following - first) / 2) == following
        assert rule.after(following - timedelta(microseconds=1)) == following
        first = following


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(ZONES), st.integers(0, 23), st.integers(0, 59), moments)
def test_a_fixed_time_is_due_once_a_day(zone: str, hour: int, minute: int, moment: datetime) -> None:
    """Over four hundred days, by cron and by calendar, but for a day that a zone leaves out."""
    day = moment.replace(hour=12, minute=0, second=0, microsecond=0)
    for rule in (Cron(f"{minute} {hour} * * *", zone), Calendar([time(hour, minute)], zone=zone)):
        found = list(dues(rule, day, day + timedelta(days=400), 1000))
        assert len(found) in (399, 400, 401)
        gaps = [after - before for before, after in pairwise(found)]
        assert all(timedelta(hours=21) < gap < timedelta(hours=27) for gap in gaps) or zone == "Pacific/Apia"


@given(rules)
def test_a_rule_is_read_as_it_was_written(rule: When) -> None:
    now = utc("2026-01-01T00:00")
    read = rule_of(rule.form())
    assert read.after(now) == rule.after(now)
    assert str(read) == str(rule)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Cron("* * * *"), "five fields"),
        (lambda: Cron("61 * * * *"), "Bad minute"),
        (lambda: Cron("0 0 30 2 *"), "Bad day"),
        (lambda: Cron("* * * * *", "Mars/Base"), "zone 'Mars/Base' is not known"),
        (lambda: Cron("* * * * *", "../etc"), "is not known"),
        (lambda: Every(0.5), "Every"),
        (lambda: Every(float("nan")), "Every"),
        (lambda: Every(60, offset=60), "offset"),
        (lambda: Calendar([]), "0 times"),
        (lambda: Calendar([time(3)], weekdays=[0]), "weekdays"),
        (lambda: Calendar([time(3)], days=[31], months=[2]), "never due"),
        (lambda: Calendar([time(3, tzinfo=UTC)]), "times"),
        (lambda: rule_of({"kind": "moon"}), "can't be read"),
    ],
)
def test_what_cant_be_is_refused_by_its_field(make: object, said: str) -> None:
    assert callable(make)
    with pytest.raises(ScheduleInvalid, match=said) as refused:
        make()
    assert refused.value.code == "KSG-280"
    assert refused.value.remedy
