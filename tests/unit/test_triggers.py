"""When a model is fitted: schedules, alarms, increments and commands, in stream time, once per cause."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import penstock as ps
from penstock.model import Model
from penstock.records import Alarm, Command, Run, Statistic
from penstock.services.trainer.triggers import Job, Triggers

START = datetime(2013, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
Record = Statistic | Alarm | Command


@ps.event("rides")
class Ride:
    ride_id: ps.Id[str]
    car: ps.Key[str]
    distance: float
    at: ps.EventTime


@ps.event("ends")
class End:
    ride_id: ps.Key[str]
    late: bool
    at: ps.EventTime


def a_model(retrain: Any) -> Model:
    declare: Callable[..., Any] = ps.model(
        scores=Ride, features=[Ride.distance], label=ps.label(End.late, within="1d"), retrain=retrain
    )

    def late() -> ps.Learner:
        raise AssertionError("triggers never build a learner")

    made: Model = declare(late)
    return made


def window(day: int) -> Statistic:
    return Statistic(
        id=f"s-{day}", model="late", start=START + (day - 1) * DAY, end=START + day * DAY, quality={}, paired={},
        log_loss={}, auc={}, prior=None, prior_loss=None, skill=None, drift={}, counts={}, reference="",
    )  # fmt: skip


def alarm(day: int, state: str = "raised", signal: str = "drift") -> Alarm:
    return Alarm(id=f"a-{signal}-{day}", model="late", signal=signal, state=state, at=START + day * DAY, evidence={})


def retrain(day: float) -> Command:
    return Command(id=f"r-{day}", model="late", action="retrain", at=START + day * DAY, actor="ada")


def days(jobs: list[Job]) -> list[tuple[str, float]]:
    """Cause and day of each job."""
    origin = START.timestamp() * 1e6
    return [(job.cause.partition(":")[0], (job.at - origin) / 86_400e6) for job in jobs]


def taken(model: Model, records: list[Record]) -> tuple[Triggers, list[Job]]:
    """All records, each of them twice."""
    triggers, jobs = Triggers(), list[Job]()
    for record in records:
        triggers, found = triggers.take(model, record)
        triggers, again = triggers.take(model, record)
        assert again == []
        jobs += found
    return triggers, jobs


def run_of(job: Job) -> Run:
    return Run(
        id=job.id, model="late", kind=job.kind, cause=job.cause, at=START + timedelta(microseconds=job.at) - (START - _EPOCH),
        parameters={}, seed=0, data={}, code="", environment={}, metrics={}, seconds=0.0,
    )  # fmt: skip


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WEEKLY = a_model(ps.every("7d", on="60d", first="3d"))
ON_ALARM = a_model(ps.every("30d") | ps.on_alarm(at_most_every="3d", on="30d"))
ALL = a_model(ps.every("7d") | ps.on_alarm(at_most_every="3d") | ps.incremental("2d"))


def test_a_schedule_starts_at_its_first_moment_and_then_every_period() -> None:
    _, jobs = taken(WEEKLY, [window(day) for day in range(1, 20)])
    assert days(jobs) == [("schedule.0", 3), ("schedule.0", 10), ("schedule.0", 17)]
    assert {job.window for job in jobs} == {ps.micros("60d")}
    assert {job.kind for job in jobs} == {"full"}


def test_a_window_that_passes_several_moments_starts_one_job() -> None:
    _, jobs = taken(WEEKLY, [window(1), window(30), window(31), window(32)])
    assert days(jobs) == [("schedule.0", 30), ("schedule.0", 31)]


def test_an_alarm_starts_a_fit_when_its_window_has_closed_in_whichever_order_they_are_read() -> None:
    either: list[Record] = [alarm(2), window(2)]
    for order in itertools.permutations(either):
        _, jobs = taken(ON_ALARM, [window(1), *order, window(3)])
        assert days(jobs) == [("alarm", 2)]


def test_an_alarm_within_the_cool_down_waits_and_is_answered_if_it_still_stands() -> None:
    records: list[Record] = [window(1), alarm(1), window(2), alarm(2, signal="skill"), window(3), window(4), window(5)]
    _, jobs = taken(ON_ALARM, records)
    assert days(jobs) == [("alarm", 1), ("alarm", 4)]
    _, jobs = taken(ON_ALARM, [*records[:5], alarm(3, "cleared", "skill"), *records[5:]])
    assert days(jobs) == [("alarm", 1)]


def test_an_alarm_that_a_scheduled_fit_has_answered_starts_no_second_one() -> None:
    either: list[Record] = [alarm(7), window(7)]
    for order in itertools.permutations(either):
        _, jobs = taken(a_model(ps.every("7d") | ps.on_alarm("1d")), [window(1), *order, window(8)])
        assert days(jobs) == [("schedule.0", 7)]


def test_held_and_cleared_alarms_start_nothing() -> None:
    _, jobs = taken(ON_ALARM, [window(1), alarm(1, "held"), alarm(2, "cleared"), window(2), window(3)])
    assert jobs == []


def test_snapshots_come_every_period() -> None:
    _, jobs = taken(a_model(ps.incremental("2d")), [window(day) for day in range(1, 8)])
    assert days(jobs) == [("increment", 2), ("increment", 4), ("increment", 6)]
    assert {job.kind for job in jobs} == {"incremental"}


def test_a_model_refitted_on_alarms_only_gets_a_first_fit() -> None:
    _, jobs = taken(a_model(ps.on_alarm("3d")), [window(day) for day in range(1, 40)])
    assert days(jobs) == [("schedule.0", 3)]


def test_a_command_starts_a_fit_once_and_never_of_the_future() -> None:
    _, jobs = taken(WEEKLY, [window(1), window(2), retrain(1.5), retrain(999)])
    assert days(jobs) == [("command", 1.5), ("command", 2)]


@pytest.mark.parametrize("cut", range(0, 60, 3))
def test_runs_recall_what_was_started_wherever_the_trainer_was_restarted(cut: int) -> None:
    """After a restart the log is replayed; records after the last acknowledged one come again."""
    records: list[Record] = []
    for day in range(1, 40):
        if day % 5 == 0:
            records.append(alarm(day))
        records.append(window(day))
        if day % 7 == 0:
            records.append(alarm(day, "cleared"))
        if day == 11:
            records.append(retrain(11.5))
    jobs = taken(ALL, records)[1]
    assert len(jobs) > 20
    before = taken(ALL, records[:cut])[1]
    restarted = Triggers()
    for job in before:
        restarted = restarted.recall(run_of(job))
    for record in records:
        if not isinstance(record, Command):
            restarted = restarted.recall(record)
    found = list(before)
    for record in records[max(cut - 4, 0) :]:
        restarted, more = restarted.take(ALL, record)
        found += more
    assert [job.id for job in found] == [job.id for job in jobs]
    assert found == jobs


def test_alarms_read_ahead_of_their_windows_give_the_same_jobs() -> None:
    """Catching up: all alarms are read first, then all windows."""
    live: list[Record] = []
    for day in range(1, 30):
        live += [window(day)]
        if day in (2, 9, 12, 20):
            live.append(alarm(day))
        if day in (6, 14):
            live.append(alarm(day, "cleared"))
    caught_up = sorted(live, key=lambda record: isinstance(record, Statistic))
    assert taken(ON_ALARM, caught_up)[1] == taken(ON_ALARM, live)[1]
