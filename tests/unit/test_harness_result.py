"""What is made of a run: which alarms found a change, how soon, and which were false."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from penstock.duration import DAY
from penstock.event import to_micros
from penstock.harness.result import Records, Result, result
from penstock.records import Alarm

FIRST = datetime(2026, 3, 1, tzinfo=UTC)


def day(number: float) -> datetime:
    return FIRST + timedelta(days=number)


def alarm(at: float, state: str = "raised", signal: str = "drift") -> Alarm:
    evidence = {"inputs": [{"input": "b", "excess": 1.2}, {"input": "a", "excess": 0.4}]} if signal == "drift" else {}
    return Alarm(id=f"{signal}{at}{state}", model="fraud", signal=signal, state=state, at=day(at), evidence=evidence)


def seen(*alarms: Alarm, changes: dict[str, float] | None = None, within: int = 10) -> Result:
    known = {name: day(at) for name, at in (changes or {}).items()}
    told = Records(alarms=alarms, statistics=())
    return result("declared", told, to_micros(day(0)), to_micros(day(60)), known, within * DAY)


def test_the_first_alarm_within_reach_of_a_change_has_found_it_and_those_elsewhere_are_false() -> None:
    found = seen(alarm(5), alarm(22), alarm(22.5, "cleared"), alarm(24), alarm(31), changes={"opening": 20})
    (change,) = found.changes
    assert (change.delay, change.signal) == (2 * 86_400, "drift")
    assert [(a.at.day, a.change, a.false) for a in found.alarms] == [
        (6, "", True),
        (23, "opening", False),
        (25, "", False),
        (1, "", True),
    ]
    assert found.false_alarms == 2
    assert found.false_per_month == pytest.approx(2 * 30 / 50)
    assert found.alarms[0].inputs == ["b"], "only what is beyond its limits is named"


def test_without_a_known_change_no_alarm_is_called_false() -> None:
    found = seen(alarm(5), alarm(40))
    assert (found.false_alarms, found.false_per_month, found.alarms_per_month) == (None, None, 1.0)
    assert [a.false for a in found.alarms] == [None, None]


def test_a_change_ends_the_reach_of_the_one_before_and_each_is_found_by_its_own_alarm() -> None:
    found = seen(alarm(24), changes={"first": 20, "second": 23})
    assert [(c.name, c.delay) for c in found.changes] == [("first", None), ("second", 86_400)]


def test_an_alarm_that_stood_when_the_change_came_is_told_with_it() -> None:
    found = seen(alarm(18), changes={"opening": 20})
    assert [(c.delay, c.standing) for c in found.changes] == [(None, True)]
    assert not seen(alarm(18), alarm(19, "cleared"), changes={"opening": 20}).changes[0].standing


def test_alarms_about_labels_or_groups_find_nothing_and_are_not_false() -> None:
    of = {5: "labels", 7: "fairness", 21: "sources", 22: "fairness"}
    found = seen(*(alarm(at, signal=signal) for at, signal in of.items()), changes={"opening": 20})
    assert (found.false_alarms, found.changes[0].delay, [a.false for a in found.alarms]) == (0, None, [None] * 4)


def test_an_alarm_that_stands_when_the_range_begins_is_one_of_it_and_not_false() -> None:
    found = seen(alarm(-3), alarm(-1), alarm(-0.5, "held"), alarm(4, "cleared"), alarm(9), changes={"opening": 20})
    assert [(a.at, a.cleared, a.false) for a in found.alarms] == [(day(-1), day(4), None), (day(9), None, True)]
    assert found.false_alarms == 1


def test_alarms_and_changes_outside_of_the_range_do_not_count() -> None:
    found = seen(alarm(-3), alarm(-2, "cleared"), alarm(61), changes={"before": -5, "after": 70})
    assert (found.alarms, found.changes, found.false_alarms) == ([], [], None)
