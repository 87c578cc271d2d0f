"""Rows of real flights are what a plain recomputation from the archived events gives: all of them, and nothing is left over."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

import penstock as ps
from penstock.event import event_of
from penstock.examples import flights
from penstock.examples.flights.data import events
from penstock.offline import Tables
from penstock.proof.archive import past_of, served_of
from penstock.proof.verify import Report, verify
from penstock.services.embedded import Embedded, slices
from penstock.topics import Topics

DAY = 86_400_000_000
VIEWS = [flights.Origin, flights.Carrier, flights.Destination, flights.Aircraft, flights.Path]
PROJECT = ps.Project("proof", rows={flights.Scheduled: VIEWS})


def recomputed(folder: Path, days: int, partitions: int, late: float = 0.0) -> Report:
    """The report on all rows of so many days. `late` of the events are published a day after their time was closed."""

    async def run() -> None:
        machine, rng = Embedded(PROJECT, folder, partitions=partitions, tables=folder / "tables"), random.Random(2013)
        await machine.start()
        held: list[tuple[str, bytes, bytes, int]] = []
        for part, before in slices(list(events(days)), DAY):
            on_time = [event for event in part if rng.random() >= late]
            await machine.publish([*held, *on_time], before)
            held = sorted(set(part) - set(on_time), key=lambda event: event[3])
            await machine.settle()
        await machine.publish(held, 1 << 55)
        await machine.settle()
        await machine.close()

    asyncio.run(run())
    topics, tables = Topics(PROJECT, partitions), Tables(folder / "tables")
    rows = [served_of(topics, tables, event_of(flights.Scheduled))]
    return verify(PROJECT.topology, past_of(topics, tables), rows)


@pytest.mark.slow
def test_a_hundred_thousand_rows_have_no_difference(tmp_path: Path) -> None:
    report = recomputed(tmp_path, 112, 1)
    assert report.rows == report.of > 100_000
    assert report.same == report.values == 29 * report.rows, report.differences[:3]


def test_ten_days_in_four_partitions_have_no_difference(tmp_path: Path) -> None:
    report = recomputed(tmp_path, 10, 4)
    assert report.rows > 8_000
    assert report.same == report.values, report.differences[:3]


def test_events_that_come_a_day_late_explain_every_difference(tmp_path: Path) -> None:
    report = recomputed(tmp_path, 4, 2, late=0.002)
    assert set(report.causes) == {"late"}, [d for d in report.differences if d.cause != "late"][:3]
    assert all(difference.events for difference in report.differences)
    assert report.same > 0.7 * report.values
