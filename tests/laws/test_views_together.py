"""Views of one key are kept together and share what they can; each is still what `replay` says of it alone, in any batches."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

import penstock as ps
from penstock.feature import view_of
from penstock.windows.panes import Panes, Shape

from .staged import START, Deposit, Login, expected, run

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@ps.features(by=[Deposit.account, Login.account], ttl="2d", lateness="3h")
class Forgetful:
    count_1h = ps.count(Deposit, over="61m")
    count = ps.count(Deposit)
    mean = ps.mean(Deposit.fee, over="100m")
    last = ps.last(Deposit.fee)
    last_1h = ps.last(Deposit.fee, over="1h")
    newest = ps.last_k(Deposit.amount, 3)
    newest_2h = ps.last_k(Deposit.fee, 2, over="2h")
    warmth = ps.decayed_sum(Deposit.fee, "1h")
    per_login = ps.ratio(ps.sum(Deposit.fee), ps.count(Login))
    first = ps.first(Deposit.amount)
    first_shop = ps.first(Deposit.shop, over="13h")
    idle = ps.since_last(Login)
    shops = ps.distinct(Deposit.shop, over="7h")
    low = ps.quantile(Deposit.amount, 0.3, over="65m")
    usual = ps.top(Deposit.shop, 3, over="77m")


@ps.features(by=[Deposit.account, Login.account])
class Lasting:
    count_1h = ps.count(Deposit, over="61m")
    logins = ps.count(Login)
    spread = ps.var(Deposit.fee, over="100m")
    by_shop = ps.count(Deposit, per=ps.among(Deposit.shop, "s1", "s2"))
    gained = ps.sum(Deposit.amount, where=lambda d: (d.fee or 0.0) > 0)
    gained_last = ps.last(Deposit.amount, where=lambda d: (d.fee or 0.0) > 0, over="1h")
    least = ps.min(Deposit.fee)
    most = ps.max(Deposit.amount, over="365d")
    recent = ps.decayed_mean(Deposit.amount, "5m")
    warm = ps.decayed_count(Login, "5m")
    idle = ps.since_last(Deposit, where=lambda d: d.amount > 1)


@ps.features(by=[Deposit.account, Login.account], lateness="10m")
class Strict:
    count = ps.count(Deposit)
    fees = ps.sum(Deposit.fee, over="12m")
    last = ps.last(Deposit.amount)


VIEWS = [Forgetful, Lasting, Strict]
SHAPE = Shape([view_of(view) for view in VIEWS])


def history(seed: int, count: int = 150) -> list[Any]:
    """Events of two accounts with ties, gaps of up to two days, and a third of them late, by seconds to a day; every third
    history begins with the first of all moments."""
    rng, events = random.Random(seed), list[Any]()
    moment = EPOCH if seed % 3 == 0 else START
    for _ in range(count):
        moment += timedelta(seconds=rng.choice([0, 0, 1, 59, 300, 777, 3600, 40_000, 200_000]))
        late = rng.choice([0, 0, 0, 0, 5, 600, 3 * 3600, 24 * 3600]) if rng.random() < 0.3 else 0
        at, account = max(moment - timedelta(seconds=late), EPOCH), rng.choice("ab")
        if rng.random() < 0.3:
            events.append(Login(account, at))
        else:
            fee = None if rng.random() < 0.3 else float(rng.randint(-2, 4))
            events.append(Deposit(account, float(rng.randint(-3, 9)), fee, rng.choice([None, "s1", "s2", "s3"]), "food", at))
    return events


@pytest.mark.parametrize("seed", range(12))
def test_views_that_are_kept_together_are_each_what_replay_says(seed: int) -> None:
    events = history(seed)
    whole = run(SHAPE, events, len(events), Panes(SHAPE))
    for borders, restart in ((7, False), (5, True)):
        assert run(SHAPE, events, borders, Panes(SHAPE), restart).tobytes() == whole.tobytes(), "to the last bit"
    want = np.hstack([expected(view, events) for view in VIEWS])
    for i, name in enumerate(SHAPE.columns):
        off = ~np.isclose(whole[:, i], want[:, i], rtol=1e-9, atol=1e-9, equal_nan=True)
        assert not off.any(), f"{name} of event {np.flatnonzero(off)[0]}: {whole[off, i][0]}, not {want[off, i][0]}"
