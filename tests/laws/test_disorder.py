"""Whatever the order in which events come, what is known of an entity in the end is what the events say in order of time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from penstock.event import event_of, to_micros
from penstock.feature import view_of
from penstock.windows.panes import Panes, Shape

from .staged import stream
from .test_aggregates import Bounded, Conditional, Decayed, Ordered, Plain, Sketched

VIEWS = [Plain, Ordered, Conditional, Decayed, Sketched]
SHAPE = Shape([view_of(view) for view in VIEWS])


def known(shape: Shape, events: list[Any], moment: int) -> np.ndarray[Any, Any]:
    """The values of all accounts at a moment, after these events were processed in this order."""
    panes = Panes(shape)
    for event in events:
        kind = event_of(type(event))
        if kind in shape.events:
            slots, times = np.array([panes.slot(event.account)]), np.array([to_micros(event.at)])
            at = np.array([shape.events.index(kind)])
            panes.apply(slots, times, at, shape.values(kind, [event]), np.zeros(1, np.int64))
    slots = np.array([panes.slot(f"a{i}") for i in range(4)], np.int64)
    n, tracks = len(slots), max(len(shape.tracks), 1)
    nothing, nobody = np.full((n, tracks), np.nan), np.full(n, -1, np.int64)
    return panes.apply(slots, np.full(n, moment), nobody, nothing, np.ones(n, np.int64), keep=False)[0]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_any_share_of_disorder_ends_in_the_state_of_the_sorted_stream(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    events = stream(seed, 400, 0.0)
    events = [e for i, e in enumerate(events) if not i or e.at > events[i - 1].at]  # of ties the order of processing decides
    end = to_micros(events[-1].at) + 1
    moved = np.flatnonzero(rng.random(len(events)) < share)
    order = np.arange(len(events))
    order[moved] = rng.permutation(order[moved])
    got, want = known(SHAPE, [events[i] for i in order], end), known(SHAPE, events, end)
    for i, name in enumerate(SHAPE.columns):
        assert np.allclose(got[:, i], want[:, i], rtol=1e-9, atol=1e-9, equal_nan=True), f"{name}: {got[:, i]}, not {want[:, i]}"


def test_what_comes_later_than_a_view_allows_is_as_if_it_had_never_come() -> None:
    shape = Shape([view_of(Bounded)])
    events = stream(9, 300, 0.0)
    end, bound = to_micros(events[-1].at) + 1, 6 * 3_600_000_000
    newest: dict[str, int] = {}
    kept = []
    shuffled = [events[i] for i in np.random.default_rng(9).permutation(len(events))]
    for event in shuffled:
        time = to_micros(event.at)
        newest[event.account] = max(newest.get(event.account, 0), time)
        if time >= newest[event.account] - bound:
            kept.append(event)
    assert 10 < len(kept) < len(events) - 10
    got, want = known(shape, shuffled, end), known(shape, kept, end)
    assert np.allclose(got, want, rtol=1e-12, equal_nan=True)
