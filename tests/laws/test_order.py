"""One order of events, on every path: whatever comes late, after whatever silence, in whatever batches and partitions, rows
are those of a plain replay in the order that `penstock.order` states, and a verification finds a cause for every difference."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest.mock import patch

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.laws.served import ASK, PROJECT, START, Ask, Every, Sale, Street, Visit, archived, ask, sale, sent, visit

import penstock as ps
from penstock.event import event_of, to_micros
from penstock.log.memory import MemoryLog
from penstock.records import Passed
from penstock.replay import replay
from penstock.services.embedded import Embedded
from penstock.services.feature_store.service import lanes
from penstock.topics import Topics

IDLE_AFTER: Final = 5.0
LATER: Final = 1.9e9
"""A wall clock at which none of the events lies in the future."""
SILENCES: Final = 12
"""So many let everything go: one for each hop, and one for each of the newest events that it hands on."""


@ps.features(by=[Ask.shop, Sale.shop, Visit.shop], ttl="3h")
class Fading:
    asks_1h = ps.count(Ask, over="1h")
    newest = ps.last(Sale.paid)
    recent = ps.last_k(Visit.length, 2)


@ps.features(by=[Ask.buyer, Sale.buyer, Visit.buyer], lateness="30m")
class Strict:
    asks_1d = ps.count(Ask, over="1d")
    paid_1d = ps.sum(Sale.paid, over="1d")
    newest = ps.last(Visit.length)


WIDE: Final = ps.Project("wide", rows={Ask: [Every, Fading, Strict]})
"""Its views of one key count the same events: where the windows of late rows end is a matter of the key, not of the view."""


class Step(NamedTuple):
    """Events that are published together, in this order; then a time is closed (minutes), or nobody says anything for long."""

    events: Sequence[Any]
    closes: int | None = None
    silent: bool = False


async def published(project: ps.Project, folder: Path, steps: Sequence[Step], partitions: int, most: int) -> MemoryLog:
    """Run the feature store with a wall clock of our own; `most` are the records of a turn."""
    machine, clock = Embedded(project, folder, partitions, tables=folder / "tables"), [LATER]
    machine.lanes[0] = lanes(machine.topics, machine.log, machine.store, IDLE_AFTER)[0]
    machine.lanes[0].max_records = most
    with patch("penstock.runtime.lane.now", lambda: clock[0]):
        await machine.start()
        for events, closes, silent in steps:
            closed = 0 if closes is None else to_micros(START) + closes * 60_000_000
            await machine.publish([sent(event) for event in events], closed)
            await machine.settle()
            for _ in range(SILENCES * silent):
                clock[0] += 100.0
                await machine.settle()
        await machine.close()
    return machine.log


def lines(topics: Topics, log: MemoryLog) -> list[Any]:
    """The events of a log in the order that is stated, plainly: (E, late, rank, id if on time, partition, offset)."""
    passed, placed = dict[tuple[str, int, int], int](), []
    for partition, stored in log._stores.items():
        if partition.topic == topics.passed:
            for value in stored.values:
                told = msgspec.json.decode(value or b"", type=Passed)
                passed[told.event, told.partition, told.offset] = told.before
    for rank, event in enumerate(topics.project.topology.events):
        for number in range(topics.partitions):
            effective = 0
            stored = next(s for p, s in log._stores.items() if (p.topic, p.number) == (event.topic, number))
            for offset, value in enumerate(stored.values):
                said: Any = msgspec.json.decode(value or b"", type=event.type, strict=False)
                time = to_micros(said.at)
                effective = max(effective, time, passed.get((event.topic, number, offset), 0))
                name = str(getattr(said, (event.id or event.key).name))
                late = time < effective
                placed.append(((effective, late, rank, "" if late else name, number, offset), said))
    return [said for _, said in sorted(placed, key=lambda pair: pair[0])]


def agree(street: Street, ordered: Sequence[Any]) -> None:
    """Every served value is the one that a replay in this order gives."""
    (served,) = street.served
    place = {name: i for i, name in enumerate(served.ids)}
    assert sorted(place) == sorted(e.ask_id for e in ordered if event_of(type(e)) is ASK), "each has its row"
    for view in {view for hop in street.project.topology.hops for view in hop.views}:
        known = [e for e in ordered if event_of(type(e)) in view.by]
        row: Any
        for event, row in zip(known, replay(view.type, known), strict=True):
            if event_of(type(event)) is ASK:
                want: dict[str, float] = {repr(item): row.__dict__[item.name] for item in view.derived}
                for feature in view.features:
                    found = row.__dict__[feature.name]
                    each = found.values() if isinstance(found, dict) else found if isinstance(found, tuple) else [found]
                    want |= dict(zip(feature.columns, each, strict=True))
                for column, value in want.items():
                    told = served.columns[column][place[event.ask_id]]
                    assert np.isclose(told, value, rtol=1e-9, atol=1e-9, equal_nan=True), f"{event.ask_id} {column}"


names = st.integers(0, 10_000)


@st.composite
def histories(draw: st.DrawFn) -> list[Step]:
    """Steps of events whose times mostly grow, with ties, some out of order, and some long over."""
    taken, steps, now = set[int](), list[Step](), 0
    for _ in range(draw(st.integers(1, 6))):
        events = list[Any]()
        for _ in range(draw(st.integers(0, 6))):
            now += draw(st.sampled_from([0, 0, 1, 7, 60]))
            minute = max(0, now - draw(st.sampled_from([0, 0, 0, 1, 7, 30, 200])))
            shop, buyer, price = draw(st.sampled_from("ab")), draw(st.sampled_from(["x", "y", None])), draw(st.integers(-2, 3))
            name = draw(names.filter(lambda n: n not in taken))
            taken.add(name)
            match draw(st.sampled_from("aasv")):
                case "a":
                    events.append(ask(f"q{name}", minute, shop, buyer, float(price)))
                case "s":
                    events.append(sale(f"s{name}", minute, shop, buyer, float(price)))
                case _:
                    events.append(visit(minute, shop, buyer or "w", float(price)))
        closes = draw(st.none() | st.integers(max(0, now - 60), now + 60))
        steps.append(Step(events, closes, draw(st.booleans())))
    return [*steps, Step([ask("q", now + 300)], None, silent=True)]


@pytest.mark.parametrize("project", [PROJECT, WIDE], ids=lambda project: project.name)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=histories(), partitions=st.integers(1, 3), most=st.sampled_from([1, 5, 1000]))
def test_rows_are_those_of_the_stated_order_and_a_verification_explains_them(
    project: ps.Project, steps: list[Step], partitions: int, most: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("order")
    log = asyncio.run(published(project, folder, steps, partitions, most))
    street = archived(folder, partitions, project)
    agree(street, lines(Topics(project, partitions), log))
    report = street.verify()
    assert set(report.causes) <= {"late", "expiry"}, report.differences[:3]
