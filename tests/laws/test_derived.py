"""A derived feature is the same number for one row (replay) and for many (the stream), also where something is missing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

import penstock as ps
from penstock.event import event_of
from penstock.feature import view_of
from penstock.windows.panes import Panes, Shape
from penstock.windows.plan import Plan

from .staged import run


@ps.event("tolls")
class Toll:
    account: ps.Key[str]
    amount: int
    fee: float | None
    at: ps.EventTime


@ps.features(by=Toll.account)
class Driver:
    n_1h = ps.count(Toll, over="1h")
    spread_1h = ps.std(Toll.amount, over="1h")
    recent = ps.last_k(Toll.amount, 2)

    @ps.derived
    def divided(self, now: Toll) -> float:
        return now.amount / self.n_1h

    @ps.derived
    def undone(self) -> float:
        return 1.0 / (1.0 / self.n_1h)

    @ps.derived
    def deviation(self) -> float:
        return self.recent[0] / self.spread_1h

    @ps.derived
    def share(self, now: Toll) -> float:
        assert now.fee is not None
        return now.fee / now.amount

    @ps.derived
    def power(self, now: Toll) -> float:
        return (self.n_1h - now.amount) ** 0.5

    @ps.derived
    def upon(self) -> float:
        return self.divided + self.deviation


def test_replay_and_stream_agree_on_divisions_by_zero_and_on_what_is_missing() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    amounts, fees = [3, 0, -2, 5, 0, 7], [None, 1.0, None, 0.0, 2.0, 1.0]
    events = [
        Toll("a", amount, fee, start + timedelta(minutes=40 * i))
        for i, (amount, fee) in enumerate(zip(amounts, fees, strict=True))
    ]
    view = view_of(Driver)
    shape = Shape([view])
    many = Plan(shape).complete(run(shape, events, 6, Panes(shape)), event_of(Toll), events)
    names = [repr(item) for item in view.derived]
    stream = many[:, [Plan(shape).columns.index(name) for name in names]]
    one = np.array([[getattr(row, item.name) for item in view.derived] for row in ps.replay(Driver, events)])
    np.testing.assert_array_equal(one, stream)
    assert np.isnan(one[0]).sum() == 5 and one[0, names.index("Driver.undone")] == 0.0, "1 / (1 / 0) is 0 in IEEE 754"
