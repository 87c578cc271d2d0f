"""The flights with labels that are numbers: three weeks of minutes of delay, from the first fit to the answers."""

from __future__ import annotations

import asyncio

import pytest

from penstock.examples.delays import project
from penstock.examples.flights.data import events
from penstock.services.simulate import simulate


@pytest.mark.slow
def test_minutes_of_delay_are_answered_better_than_by_recent_delays_alone() -> None:
    """Some 40 s: the fit comes after two weeks of flights, whose labels are needed."""
    run = asyncio.run(simulate(project, list(events(20))))
    found = run.audit
    assert (found.lost, found.counted_twice, found.complaints) == (0, 0, [])
    assert set(found.losses) == {"delay, squared error", "at_worst, pinball loss"}
    for each in found.losses.values():
        assert each["served"] < each["prior"]
