"""When a model is fitted: schedules, alarms, increments and commands, in stream time, once per cause."""

from __future__ import annotations

import pytest
from tests.rides import START, a_model, alarm, command, window

import penstock as ps
from penstock.event import from_micros
from penstock.model import Model
from penstock.records import Alarm, Command, Run, Statistic
from penstock.services.trainer.triggers import Job, Triggers

Record = Statistic | Alarm | Command


def days(jobs: list[Job]) -> list[tuple[str, float]]:
    """Cause and day of each job."""
    origin = START.timestamp() * 1e6
    return [(job.cause.partition(":")[0], (job.at - origin) / 86_400e6) for job in jobs]


def taken(model: Model, records: list[Record]) -> tuple[Triggers, list[Job]]:
    """All records, each of them twice."""
    triggers, jobs = Triggers(), list[Job]()
    for record in records:
        triggers, found = heard(triggers, model, record)
        triggers, again = heard(triggers, model, record)
        assert again == []
        jobs += found
    return triggers, jobs


def heard(triggers: Triggers, model: Model, record: Record) -> tuple[Triggers, list[Job]]:
    """As the trainer does it: alarms are heard, windows and commands taken."""
    return (triggers.recall(record), []) if isinstance(record, Alarm) else triggers.take(model, record)


def run_of(job: Job) -> Run:
    return Run(
        id=job.id, model="late", kind=job.kind, cause=job.cause, at=from_micros(job.at), parameters={}, seed=0,
        data={}, code="", environment={}, metrics={}, seconds=0.0,
    )  # fmt: skip


WEEKLY = a_model(retrain=ps.every("7d", on="60d", first="3d"))
ON_ALARM = a_model(retrain=ps.every("30d") | ps.on_alarm(at_most_every="3d", on="30d"))
ALL = a_model(retrain=ps.every("7d") | ps.on_alarm(at_most_every="3d") | ps.incremental("2d"))


def test_a_schedule_starts_at_its_first_moment_and_then_every_period() -> None:
    _, jobs = taken(WEEKLY, [window(day) for day in range(1, 20)])
    assert days(jobs) == [("schedule.0", 3), ("schedule.0", 10), ("schedule.0", 17)]
    assert {job.window for job in jobs} == {ps.micros("60d")}
    assert {job.kind for job in jobs} == {"full"}


def test_a_window_that_passes_several_moments_starts_one_job() -> None:
    _, jobs = taken(WEEKLY, [window(1), window(30), window(31), window(32)])
    assert days(jobs) == [("schedule.0", 30), ("schedule.0", 31)]


def test_an_alarm_starts_a_fit_when_its_window_closes_however_early_it_was_heard() -> None:
    late: list[Record] = [window(1), alarm(2), window(2)]
    early: list[Record] = [alarm(2), window(1), window(2)]
    for records in (late, early):
        _, jobs = taken(ON_ALARM, [*records, window(3)])
        assert days(jobs) == [("alarm", 2)]


def test_an_alarm_within_the_cool_down_waits_and_is_answered_if_it_still_stands() -> None:
    records: list[Record] = [alarm(1), window(1), alarm(2, signal="skill"), window(2), window(3), window(4), window(5)]
    _, jobs = taken(ON_ALARM, records)
    assert days(jobs) == [("alarm", 1), ("alarm", 4)]
    _, jobs = taken(ON_ALARM, [*records[:4], alarm(3, "cleared", "skill"), *records[4:]])
    assert days(jobs) == [("alarm", 1)]


def test_an_alarm_that_a_scheduled_fit_has_answered_starts_no_second_one() -> None:
    _, jobs = taken(a_model(retrain=ps.every("7d") | ps.on_alarm("1d")), [window(1), alarm(7), window(7), window(8)])
    assert days(jobs) == [("schedule.0", 7)]


def test_held_and_cleared_alarms_start_nothing() -> None:
    _, jobs = taken(ON_ALARM, [alarm(1, "held"), window(1), alarm(2, "cleared"), window(2), window(3)])
    assert jobs == []


def test_snapshots_come_every_period() -> None:
    _, jobs = taken(a_model(retrain=ps.incremental("2d")), [window(day) for day in range(1, 8)])
    assert days(jobs) == [("increment", 2), ("increment", 4), ("increment", 6)]
    assert {job.kind for job in jobs} == {"incremental"}


def test_a_model_refitted_on_alarms_only_gets_a_first_fit() -> None:
    _, jobs = taken(a_model(retrain=ps.on_alarm("3d")), [window(day) for day in range(1, 40)])
    assert days(jobs) == [("schedule.0", 3)]


def test_a_command_starts_a_fit_once_and_never_of_the_future() -> None:
    _, jobs = taken(WEEKLY, [window(1), window(2), command("retrain", day=1.5), command("retrain", day=999)])
    assert days(jobs) == [("command", 1.5), ("command", 2)]


@pytest.mark.parametrize("cut", range(0, 60, 3))
def test_runs_recall_what_was_started_wherever_the_trainer_was_restarted(cut: int) -> None:
    """After a restart the log is replayed; records after the last acknowledged one come again."""
    records: list[Record] = []
    for day in range(1, 40):
        if day % 5 == 0:
            records.append(alarm(day))
        if day % 7 == 0:
            records.append(alarm(day, "cleared"))
        records.append(window(day))
        if day == 11:
            records.append(command("retrain", day=11.5))
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
        restarted, more = heard(restarted, ALL, record)
        found += more
    assert [job.id for job in found] == [job.id for job in jobs]
    assert found == jobs


def test_alarms_read_ahead_of_their_windows_give_the_same_jobs() -> None:
    """Catching up: all alarms are read first, then all windows."""
    live: list[Record] = []
    for day in range(1, 30):
        if day in (2, 9, 12, 20):
            live.append(alarm(day))
        if day in (6, 14):
            live.append(alarm(day, "cleared"))
        live.append(window(day))
    caught_up = sorted(live, key=lambda record: isinstance(record, Statistic))
    assert taken(ON_ALARM, caught_up)[1] == taken(ON_ALARM, live)[1]
