"""Which alarms people are told of, in stream time."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from penstock.alarm import Watch
from penstock.duration import DAY, HOUR
from penstock.event import from_micros, to_micros
from penstock.records import Alarm, Notice, Silence
from penstock.services.monitoring.notices import Board

START = datetime(2013, 2, 8, tzinfo=UTC)


def alarm(hour: float, state: str, signal: str = "drift", model: str = "late") -> Alarm:
    at = START + timedelta(hours=hour)
    return Alarm(id=f"{model}/{signal}/{at.isoformat()}/{state}", model=model, signal=signal, state=state, at=at, evidence={})


def silence(since: float, until: float, subject: str = "late", cause: str = "") -> Silence:
    first, last = START + timedelta(hours=since), START + timedelta(hours=until)
    return Silence(subject=subject, cause=cause, since=first, until=last, actor="ada")


def told(said: list[Alarm], board: Board | None = None, window: int = HOUR, repeat: int = 7 * DAY) -> list[Notice]:
    board = board or Board()
    return [notice for each in said if (notice := board.hear(each, window, repeat)) is not None]


def states(notices: list[Notice]) -> list[list[tuple[str, str]]]:
    return [[(each.signal, each.state) for each in notice.alarms] for notice in notices]


def test_an_alarm_is_told_when_it_begins_and_when_it_is_over_and_not_in_between() -> None:
    said = [alarm(0, "raised"), alarm(1, "held"), alarm(2, "held"), alarm(3, "cleared")]
    assert states(told(said)) == [[("drift", "raised")], [("drift", "cleared")]]


def test_what_lasts_is_told_again_now_and_then_and_never_where_nobody_wants_it() -> None:
    said = [alarm(0, "raised"), *(alarm(hour, "held") for hour in range(1, 60))]
    assert [n.alarms[0].at.day for n in told(said, repeat=DAY)] == [8, 9, 10]
    assert len(told(said, repeat=0)) == 1


def test_alarms_of_one_window_are_told_one_by_one_for_the_courier_to_join_and_later_ones_together() -> None:
    names = [f"quality/trips/rule {number}" for number in range(4)]
    said = [alarm(0, "raised", name, model="") for name in names[:2]]
    said += [alarm(0.5, "raised", name, model="") for name in names[2:]]
    said += [alarm(1, "held", name, model="") for name in names]
    found = told(said)
    assert states(found) == [[(names[0], "raised")], [(names[1], "raised")], [(names[2], "held"), (names[3], "raised")]]
    assert {(n.subject, n.cause) for n in found} == {("trips", "quality")}


def test_causes_and_models_do_not_wait_for_each_other() -> None:
    said = [alarm(0, "raised"), alarm(0.1, "raised", "skill"), alarm(0.2, "raised", model="fares")]
    assert [(n.subject, n.cause) for n in told(said)] == [("late", "drift"), ("late", "skill"), ("fares", "drift")]


def test_an_alarm_that_came_and_went_within_the_window_is_a_number_in_the_next_notice() -> None:
    flapping = [alarm(hour / 10, ("raised", "cleared")[hour % 2]) for hour in range(8)]
    found = told([*flapping, alarm(5, "raised")])
    assert states(found) == [[("drift", "raised")], [("drift", "cleared")], [("drift", "raised")]]
    assert [n.missed for n in found] == [0, 0, 3]


def test_in_a_silence_nothing_is_told_and_what_lasts_is_told_when_it_ends_by_itself() -> None:
    board = Board()
    board.silence("late", "", silence(0, 2))
    found = told([alarm(0, "raised"), alarm(1, "held"), alarm(2, "held"), alarm(3, "held")], board)
    assert [(n.alarms[0].state, n.alarms[0].at.hour) for n in found] == [("held", 2)]


def test_a_silence_is_for_one_cause_or_all_of_one_subject_only() -> None:
    board = Board()
    board.silence("late", "drift", silence(0, 9, cause="drift"))
    said = [alarm(0, "raised"), alarm(0, "raised", "skill"), alarm(0, "raised", model="fares")]
    assert [(n.subject, n.cause) for n in told(said, board)] == [("late", "skill"), ("fares", "drift")]


def test_whoever_was_told_of_an_alarm_is_told_of_its_end_silence_or_not() -> None:
    board = Board()
    first = told([alarm(0, "raised")], board)
    board.silence("late", "", silence(1, 9))
    assert states(first + told([alarm(1, "held"), alarm(2, "cleared"), alarm(3, "raised"), alarm(4, "cleared")], board)) == [
        [("drift", "raised")],
        [("drift", "cleared")],
    ]


def test_a_silence_that_is_taken_back_is_over() -> None:
    board = Board()
    board.silence("late", "", silence(0, 9))
    board.silence("late", "", None)
    assert len(told([alarm(0, "raised")], board)) == 1


STEPS = st.lists(st.tuples(st.integers(1, 90), st.lists(st.booleans(), min_size=3, max_size=3)), max_size=60)


@given(STEPS)
def test_whatever_alarms_do_people_learn_of_each_that_lasts_and_are_never_flooded(steps: list[tuple[int, list[bool]]]) -> None:
    watches = {name: Watch() for name in ("quality/trips/a", "quality/trips/b", "quality/trips/c")}
    board, known, beginnings, minute = Board(), set[str](), list[int](), 0
    for step, bad in steps:
        minute += step
        at = to_micros(START) + minute * 60_000_000
        for (name, watch), worse in zip(watches.items(), bad, strict=True):
            word = watch.hear({0: worse}, at)
            if word is None:
                continue
            said = Alarm(id=f"{name}/{at}/{word}", model="", signal=name, state=word, at=from_micros(at), evidence={})
            notice = board.hear(said, HOUR, 0)
            for each in notice.alarms if notice is not None else ():
                (known.discard if each.state == "cleared" else known.add)(each.signal)
                if each.state != "cleared":
                    beginnings.append(at)
        lasting = {name for name, watch in watches.items() if watch.active}
        assert known <= lasting
        if lasting and any(watches[name].since <= at - HOUR for name in lasting):
            assert {name for name in lasting if watches[name].since <= at - HOUR} <= known
    moments = sorted(set(beginnings))
    assert all(later - earlier >= HOUR for earlier, later in itertools.pairwise(moments))


@given(STEPS, st.integers(0, 60))
def test_a_restart_anywhere_changes_nothing(steps: list[tuple[int, list[bool]]], at: int) -> None:
    said = [
        alarm(minute / 10, state, name) for minute, (_, bad) in enumerate(steps)
        for name, state in zip(("drift", "skill", "drift"), ("raised" if bad[0] else "cleared", "held", "raised"), strict=True)
    ]  # fmt: skip
    board = Board()
    first = told(said[:at], board)
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(board), type=Board)
    assert first + told(said[at:], again) == told(said)
