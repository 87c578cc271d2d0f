"""How far the kernel and `replay` may be apart: not at all, but for numbers that are added up, by the order of additions."""

from __future__ import annotations

import numpy as np
import pytest

import penstock as ps
from penstock.event import to_micros
from penstock.feature import view_of
from penstock.proof.recompute import start_of
from penstock.proof.running import TOLERANCE
from penstock.windows.panes import Panes, Shape

from .staged import Deposit, Login, expected, run, stream

HOUR, WEEK = 3_600_000_000, 7 * 86_400_000_000


@ps.features(by=[Deposit.account, Login.account])
class Taken:
    count = ps.count(Deposit, over="7d")
    least = ps.min(Deposit.amount, over="7d")
    most = ps.max(Deposit.fee, over="1h")
    first = ps.first(Deposit.amount, over="7d")
    last = ps.last(Deposit.fee)
    newest = ps.last_k(Deposit.fee, 3)
    idle = ps.since_last(Login)
    kinds = ps.distinct(Deposit.kind, over="7d")
    low = ps.quantile(Deposit.amount, 0.3, over="1d")
    usual = ps.top(Deposit.kind, 2, over="7d")
    logins = ps.ratio(ps.count(Deposit), ps.count(Login))


@ps.features(by=[Deposit.account, Login.account])
class Summed:
    hour = ps.sum(Deposit.amount, over="1h")
    week = ps.sum(Deposit.amount, over="7d")
    hourly = ps.mean(Deposit.amount, over="1h")
    weekly = ps.mean(Deposit.amount, over="7d")


@ps.features(by=[Deposit.account, Login.account])
class Spread:
    var = ps.var(Deposit.amount, over="30d")
    std = ps.std(Deposit.fee, over="30d")
    warm = ps.decayed_count(Deposit, "1h")
    warmth = ps.decayed_sum(Deposit.amount, "6h")
    weighed = ps.decayed_mean(Deposit.amount, "6h")
    share = ps.ratio(ps.sum(Deposit.amount, over="7d"), ps.count(Login))


def both(view: type, seed: int) -> tuple[np.ndarray, np.ndarray]:
    shape, events = Shape([view_of(view)]), stream(seed, 400, 0.2, entities=1)
    return run(shape, events, 100, Panes(shape)), expected(view, events)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_not_added_up_is_the_same_to_the_last_bit(seed: int) -> None:
    got, want = both(Taken, seed)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("seed", range(3))
def test_sums_are_as_close_as_two_orders_of_addition_are(seed: int) -> None:
    """Of n numbers they differ by n * 2^-52 of the sum of their magnitudes at most (Higham 2002, section 4.2)."""
    got, want = both(Summed, seed)
    events, effective = stream(seed, 400, 0.2, entities=1), 0
    for i, event in enumerate(events):
        effective = max(effective, to_micros(event.at))
        for column, over in enumerate((HOUR, WEEK)):
            since = start_of(over, effective)
            inside = [abs(e.amount) for e in events[:i] if isinstance(e, Deposit) and to_micros(e.at) >= since]
            bound = (len(inside) + 1) * 2.0**-52 * sum(inside)
            assert abs(got[i, column] - want[i, column]) <= bound
            if inside:
                assert abs(got[i, column + 2] - want[i, column + 2]) <= bound / len(inside)


@pytest.mark.parametrize("seed", range(3))
def test_deviations_and_decays_are_as_close_as_verification_asks(seed: int) -> None:
    got, want = both(Spread, seed)
    np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=0.0)
