"""Training data does not depend on how partitions interleave or how far was read; corrections count from when they came."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest

import penstock as ps
from penstock.event import to_micros
from penstock.log import Batch, Partition
from penstock.records import Outcome, Quarantine
from penstock.services.trainer.examples import Examples, Rows

START = datetime(2013, 1, 1, tzinfo=UTC)
NAMES = ("Ride.distance", "Car.rides_1d")


def moment(hours: float) -> int:
    return to_micros(START + timedelta(hours=hours))


def outcome(number: int, hours: float, label: bool, corrects: bool | None = None, **more: Any) -> Outcome:
    """Ride `number` began at hour `number`; its label was known at `hours`."""
    said: dict[str, Any] = {
        "id": f"r{number}", "key": "c", "model": "late", "time": START + timedelta(hours=number),
        "labelled": START + timedelta(hours=hours), "label": label, "answered": True,
        "inputs": msgspec.Raw(b'{"Car.rides_1d":%d,"Ride.distance":null,"other":1}' % number), "score": 0.5,
        "scores": {"v1": 0.25, "online-3": 0.75}, "version": "v1", "variant": "champion", "corrects": corrects,
    }  # fmt: skip
    return Outcome(**(said | more))


def batch(partition: int, outcomes: list[Outcome], first: int = 0, headers: Any = ()) -> Batch:
    values = [msgspec.json.encode(o) for o in outcomes]
    numbers = range(first, first + len(values))
    return Batch(Partition("p.outcomes.late", partition), numbers, [b""] * len(values), values, headers)


def same(a: Rows, b: Rows) -> bool:
    return a.digest == b.digest and a.positions == b.positions and np.array_equal(a.time, b.time)


def test_inputs_come_in_the_models_order_and_missing_ones_are_nan() -> None:
    examples = Examples(NAMES)
    examples.add(batch(0, [outcome(7, 8, True)]))
    rows = examples.window(moment(9), 0)
    assert rows.X.dtype == np.float32
    np.testing.assert_array_equal(rows.X, [[np.nan, 7.0]])
    assert (rows.batch.tolist(), rows.online.tolist(), rows.label.tolist()) == ([0.25], [0.75], [True])


def test_a_row_counts_from_when_its_label_was_known_and_as_long_as_its_event_is_recent() -> None:
    examples = Examples(NAMES)
    examples.add(batch(0, [outcome(n, n + 2, True) for n in range(20)]))
    assert len(examples.window(moment(12), 0)) == 10
    assert examples.window(moment(12), moment(5) - moment(0)).time.min() == moment(7)


def test_a_label_that_came_before_its_event_counts_from_the_event_on() -> None:
    examples = Examples(NAMES)
    examples.add(batch(0, [outcome(9, 4, True)]))
    assert len(examples.window(moment(9), 0)) == 0, "there was no such row yet, and whether it was read follows from no log"
    assert len(examples.window(moment(9.1), 0)) == 1


def test_a_correction_replaces_the_label_from_when_it_came() -> None:
    examples = Examples(NAMES)
    examples.add(batch(0, [outcome(1, 2, True), outcome(2, 3, True), outcome(1, 5, False, corrects=True)]))
    assert examples.window(moment(4), 0).label.tolist() == [True, True]
    assert examples.window(moment(6), 0).label.tolist() == [True, False]
    assert examples.window(moment(4), 0).label.tolist() == [True, True]
    assert len(examples.rows(examples.known(moment(6)))) == 3


def test_a_redelivered_outcome_counts_once() -> None:
    examples, headers = Examples(NAMES), ((("ce_source", b"monitoring.0"), ("ce_id", b"5")),)
    examples.add(batch(0, [outcome(1, 2, True)], headers=headers))
    examples.add(batch(0, [outcome(1, 2, True)], first=1, headers=headers))
    assert examples.known(moment(9)) == slice(0, 1)


def test_what_is_no_outcome_is_refused_and_the_others_stay() -> None:
    examples = Examples(NAMES)
    whole = batch(0, [outcome(n, n + 1, True) for n in range(4)])
    values = list(whole.values)
    values[1] = b"{}"
    values[3] = msgspec.json.encode(outcome(3, 4, True, inputs=msgspec.Raw(b'{"Ride.distance":"far"}')))
    refused = examples.add(Batch(whole.partition, whole.offsets, whole.keys, values))
    assert [at for at, _ in refused] == [1, 3]
    assert {refusal.reason for _, refusal in refused} == {"schema"}
    assert len(examples.window(moment(99), 0)) == 2


@ps.event("ends")
class Ended:
    ride: ps.Key[str]
    delay: float
    how: str
    at: ps.EventTime


@pytest.mark.parametrize("task", ["binary", "regression", "multiclass"])
def test_outcomes_of_another_kind_of_label_are_counted_and_neither_learned_nor_refused(task: str) -> None:
    label = {"binary": None, "regression": ps.label(Ended.delay, within="1h")}.get(
        task, ps.label(Ended.how, within="1h", classes=["in time", "late"])
    )
    examples = Examples(NAMES, label=label)
    told = [
        outcome(1, 2, True),
        outcome(2, 3, False, truth=2.5),
        outcome(3, 4, False, truth="late"),
        outcome(4, 5, False, truth="a class of then"),
    ]
    assert examples.add(batch(0, told)) == []
    assert examples.window(moment(9), 0).offset.tolist() == [{"binary": 0, "regression": 1, "multiclass": 2}[task]]
    assert [examples.unlike(moment(hours)) for hours in (0, 2.5, 9)] == [0, int(task != "binary"), 3]


@pytest.mark.parametrize("seed", range(20))
def test_neither_interleaving_nor_reading_ahead_changes_what_a_job_learns(seed: int) -> None:
    rng = random.Random(seed)
    partitions: list[list[Outcome]] = [[], [], []]
    for number in range(200):
        hours = number + rng.choice([1.0, 3.0, 3.0, 30.0])
        at = partitions[number % 3]
        at.append(outcome(number, hours, rng.random() < 0.5))
        if rng.random() < 0.1:
            at.append(outcome(number, hours + 40, True, corrects=False))
    for at in partitions:
        at.sort(key=lambda o: o.labelled)
    oracle = Examples(NAMES)
    for number, at in enumerate(partitions):
        oracle.add(batch(number, at))
    oracle.known(moment(10_000))
    live, given = Examples(NAMES), [0, 0, 0]
    for job in (50, 100, 150, 260):
        for number in rng.sample(range(3), 3):  # at least all that was known by then, and some more
            at, first = partitions[number], given[number]
            due = sum(o.labelled < START + timedelta(hours=job) for o in at)
            last = min(len(at), max(due, first) + rng.randint(0, 20))
            cut = rng.randint(first, last)
            live.add(batch(number, at[first:cut], first))
            live.add(batch(number, at[cut:last], cut))
            given[number] = last
        assert same(live.window(moment(job), 0), oracle.window(moment(job), 0))
        assert same(live.window(moment(job), 20 * 3_600_000_000), oracle.window(moment(job), 20 * 3_600_000_000))
        assert same(live.rows(live.known(moment(job))), oracle.rows(oracle.known(moment(job))))


def test_a_window_agrees_with_a_plain_filter() -> None:
    rng = random.Random(4)
    told = [outcome(n, n + rng.uniform(0.5, 30), rng.random() < 0.5) for n in range(300)]
    told.sort(key=lambda o: o.labelled)
    examples = Examples(NAMES)
    examples.add(batch(0, told))
    before, length = START + timedelta(hours=200), timedelta(hours=48)
    plain = [o for o in told if o.labelled < before and o.time >= before - length]
    rows = examples.window(to_micros(before), int(length.total_seconds() * 1e6))
    assert rows.time.tolist() == [to_micros(o.time) for o in sorted(plain, key=lambda o: (o.labelled, o.id))]


def test_what_is_left_out_is_counted_as_of_any_time_and_takes_bytes() -> None:
    rng, examples = random.Random(3), Examples(NAMES, caps={"shop": 0.1, "web": 0.2})
    told = [outcome(n, n + 2, True, source=rng.choice(["bank", "shop", "web"])) for n in range(600)]
    examples.add(batch(0, told))
    examples.known(moment(1_000))
    kept = set(examples.rows(slice(0, len(examples))).time.tolist())
    gone = [o for o in told if to_micros(o.time) not in kept]
    for hours in (0, 100, 301.5, 602, 1_000):
        naive = Counter(o.source for o in gone if to_micros(o.labelled) < moment(hours))
        assert examples.left_out(moment(hours)) == dict(sorted(naive.items()))
    assert {len(times.tobytes()) / len(times) for times in examples._left_out.values()} == {8.0}


@pytest.mark.parametrize("seed", range(5))
def test_what_no_fit_asks_for_is_forgotten_and_changes_none(seed: int) -> None:
    rng = random.Random(seed)
    told = [outcome(n, n + rng.uniform(0.5, 30), rng.random() < 0.5, source=rng.choice("ab")) for n in range(600)]
    told += [
        msgspec.structs.replace(o, labelled=o.labelled + timedelta(hours=5), label=not o.label) for o in rng.sample(told, 60)
    ]
    told.sort(key=lambda o: o.labelled)
    whole, trimmed, length = Examples(NAMES), Examples(NAMES), moment(48) - moment(0)
    for each in (whole, trimmed):
        each.add(batch(0, told))
    sizes, said = [], [held(source="b")]
    for hours in range(20, 640, 20):
        trimmed.known(moment(hours))
        trimmed.trim(moment(hours) - 2 * length)
        for quarantines in ([], said):
            one, other = (each.window(moment(hours), length, quarantines) for each in (whole, trimmed))
            assert same(one, other) and one.quarantined == other.quarantined
        sizes.append(len(trimmed))
    assert max(sizes) < 300 < len(whole)


# --- quarantines ---------------------------------------------------------------------------------------------------------


def held(**what: Any) -> Quarantine:
    return Quarantine(id="q", model="late", at=START, actor="ada", **what)


@pytest.mark.parametrize("horizon", [None, 10 * 3_600_000_000])
def test_where_the_newest_label_is_held_the_one_before_holds_again(horizon: int | None) -> None:
    examples = Examples(NAMES, horizon)
    told = [
        outcome(1, 2, True, source="bank"),
        outcome(1, 4, False, corrects=True, source="shop"),
        outcome(1, 5, True, corrects=False, source="shop"),
        outcome(2, 5, True, source="shop"),
    ]
    examples.add(batch(0, told))
    assert examples.window(moment(30), 0).offset.tolist() == [2, 3]
    rows = examples.window(moment(30), 0, [held(source="shop")])
    assert (rows.offset.tolist(), rows.quarantined) == ([0], {"q": 2})
    stop = examples.known(moment(30))
    assert examples.rows(stop, [held(source="shop")]).offset.tolist() == [0]
    assert examples.rows(stop).offset.tolist() == ([2, 3] if horizon else [0, 1, 2, 3]), "one by one, each when it was known"


@pytest.mark.parametrize("seed", range(5))
def test_caps_hold_for_what_quarantines_leave(seed: int) -> None:
    rng, examples = random.Random(seed), Examples(NAMES, caps={"shop": 0.2})
    told = [outcome(n, n + 2, True, source=rng.choice(["bank", "shop"]), key=rng.choice("ab")) for n in range(600)]
    examples.add(batch(0, told))
    said = [held(key="a", source="bank")]
    whole = examples.window(moment(1_000), 0)
    rows = examples.window(moment(1_000), 0, said)
    assert len(rows) + sum(rows.quarantined.values()) + sum(rows.beyond.values()) == len(whole)
    shop = sum(told[offset].source == "shop" for offset in rows.offset.tolist())
    assert 0.15 < shop / len(rows) <= 0.2 and rows.beyond == {"shop": sum(told[o].source == "shop" for o in whole.offset) - shop}
    assert same(examples.rows(examples.known(moment(1_000)), said), rows)
    assert same(examples.window(moment(1_000), 0, [held(key="nobody")]), whole), "what holds nothing changes nothing"


@pytest.mark.parametrize("seed", range(10))
def test_a_window_with_quarantines_agrees_with_a_world_in_which_nothing_of_it_was_said(seed: int) -> None:
    rng = random.Random(seed)
    told = [outcome(n, n + rng.uniform(1, 20), rng.random() < 0.5, source=rng.choice("abc")) for n in range(80)]
    for first in rng.sample(told, 40):
        later = first.labelled + timedelta(hours=rng.uniform(0, 9))
        told.append(msgspec.structs.replace(first, labelled=later, label=not first.label, source=rng.choice("abc")))
    told.sort(key=lambda o: o.labelled)
    horizon = rng.choice([None, 12 * 3_600_000_000])
    said = [held(source=source, since=START + timedelta(hours=20)) for source in rng.sample("abc", rng.randrange(1, 3))]
    free = [o for o in told if not any(o.source == q.source and o.time >= q.since for q in said if q.since)]
    examples, bare = Examples(NAMES, horizon), Examples(NAMES, horizon)
    examples.add(batch(0, told))
    bare.add(batch(0, free))
    for hours in (30, 60, 200):
        found, without = examples.window(moment(hours), 0, said), bare.window(moment(hours), 0)
        assert sorted(told[o].labelled for o in found.offset) == sorted(free[o].labelled for o in without.offset)
        taught, plain = examples.rows(examples.known(moment(hours)), said), bare.rows(bare.known(moment(hours)))
        assert [told[o].labelled for o in taught.offset] == [free[o].labelled for o in plain.offset]
