"""Every aggregate equals its plain definition, for any stream, any window edge, any tie, any batch borders, any restart."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

import penstock as ps
from penstock.aggregate import hop_of
from penstock.duration import micros
from penstock.feature import view_of
from penstock.windows.kernel import run as plain
from penstock.windows.panes import Panes, Shape

from .staged import START, Deposit, Login, expected, run, stream


@ps.features(by=[Deposit.account, Login.account])
class Plain:
    n_1m = ps.count(Deposit, over="1m")
    n_10m = ps.count(Deposit, over="10m")
    n_5y = ps.count(Deposit, over="1827d")
    n_ever = ps.count(Login)
    sum_7m = ps.sum(Deposit.amount, over="7m")
    sum_24h = ps.sum(Deposit.amount, over="24h")
    sum_ever = ps.sum(Deposit.amount)
    mean_2y = ps.mean(Deposit.fee, over="730d")
    mean_ever = ps.mean(Deposit.fee)
    min_90m = ps.min(Deposit.amount, over="90m")
    max_ever = ps.max(Deposit.fee)
    var_7d = ps.var(Deposit.amount, over="7d")
    std_1h = ps.std(Deposit.amount, over="1h")
    std_ever = ps.std(Deposit.fee)
    idle = ps.since_last(Login)


@ps.features(by=[Deposit.account, Login.account])
class Ordered:
    first_1h = ps.first(Deposit.amount, over="1h")
    first_30d = ps.first(Deposit.fee, over="30d")
    first_ever = ps.first(Deposit.shop)
    last_5m = ps.last(Deposit.amount, over="5m")
    last_ever = ps.last(Deposit.shop)
    recent = ps.last_k(Deposit.amount, 4)
    recent_shops = ps.last_k(Deposit.shop, 3, over="2h")
    one = ps.last_k(Deposit.fee, 1)


@ps.features(by=[Deposit.account, Login.account])
class Sketched:
    shops_24h = ps.distinct(Deposit.shop, over="24h")
    shops_ever = ps.distinct(Deposit.shop)
    median_7d = ps.quantile(Deposit.amount, 0.5, over="7d")
    p99_7d = ps.quantile(Deposit.amount, 0.99, over="7d")
    least_30d = ps.quantile(Deposit.amount, 0.0, over="30d")
    most_30d = ps.quantile(Deposit.amount, 1.0, over="30d")
    favourites = ps.top(Deposit.shop, 3, over="30d")
    kinds = ps.top(Deposit.kind, 2)


@ps.features(by=[Deposit.account, Login.account])
class Decayed:
    n = ps.decayed_count(Deposit, half_life="1h")
    slow = ps.decayed_count(Deposit, half_life="30d")
    total = ps.decayed_sum(Deposit.amount, half_life="1d")
    mean = ps.decayed_mean(Deposit.fee, half_life="12h")


@ps.features(by=[Deposit.account, Login.account])
class Conditional:
    large_24h = ps.count(Deposit, over="24h", where=lambda d: d.amount > 120)
    dear_7d = ps.mean(Deposit.amount, over="7d", where=lambda d: d.fee > 0.5)
    food_shops = ps.distinct(Deposit.shop, over="7d", where=lambda d: d.kind == "food")
    by_kind = ps.sum(Deposit.amount, over="24h", per=ps.among(Deposit.kind, "food", "fuel"))
    by_shop = ps.count(Deposit, over="30d", where=lambda d: d.amount > 80, per=ps.among(Deposit.shop, "shop-1", "shop-2"))
    newest_by_kind = ps.last(Deposit.amount, per=ps.among(Deposit.kind, "food", "rent"))
    share = ps.ratio(ps.count(Deposit, over="7d", where=lambda d: d.amount > 120), ps.count(Deposit, over="7d"))
    per_login = ps.ratio(ps.sum(Deposit.amount, over="24h"), ps.count(Login, over="24h"))


@ps.features(by=[Deposit.account, Login.account], lateness="6h", ttl="40d")
class Bounded:
    n_30d = ps.count(Deposit, over="30d")
    newest = ps.last(Deposit.fee)
    first = ps.first(Deposit.amount)
    seen = ps.since_last(Login)


VIEWS = [Plain, Ordered, Sketched, Decayed, Conditional, Bounded]
SHAPES: dict[Any, Shape] = {view: Shape([view_of(view)]) for view in VIEWS}
TOGETHER = Shape([view_of(view) for view in VIEWS])
EXACT = {"count", "min", "max", "first", "last", "last_k", "since_last", "distinct", "quantile", "top"}


def same(view: type, got: np.ndarray[Any, Any], want: np.ndarray[Any, Any], events: list[Any]) -> None:
    kinds = [(name, f.kind) for f in view_of(view).features for name in f.columns]
    assert got.shape == want.shape == (len(events), len(kinds))
    for i, (name, kind) in enumerate(kinds):
        close = 0.0 if kind in EXACT else 1e-9
        differs = ~np.isclose(got[:, i], want[:, i], rtol=close, atol=close, equal_nan=True)
        first = int(np.argmax(differs))
        assert not differs.any(), f"{name} at event {first} ({events[first]}): {got[first, i]} is not {want[first, i]}"


@pytest.mark.parametrize("late", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("view", VIEWS, ids=lambda v: v.__name__)
def test_an_aggregate_equals_its_definition(view: type, late: float) -> None:
    for seed in (1, 2, 3):
        events = stream(seed, 500, late)
        same(view, run(SHAPES[view], events, 97, Panes(SHAPES[view])), expected(view, events), events)


@pytest.mark.parametrize("view", VIEWS, ids=lambda v: v.__name__)
def test_rows_have_the_same_bits_for_any_batch_borders_after_restarts_and_after_leaving_memory(view: type) -> None:
    for late in (0.0, 0.3):
        events, shape = stream(7, 600, late, entities=9), SHAPES[view]
        whole = run(shape, events, len(events), Panes(shape)).tobytes()
        for borders in (1, 13, 250):
            assert run(shape, events, borders, Panes(shape, capacity=1)).tobytes() == whole, f"batches of {borders}"
        assert run(shape, events, 37, Panes(shape), restart=True).tobytes() == whole, "restored from the store after each batch"
        assert run(shape, events, 5, Panes(shape), room=4).tobytes() == whole, "at most four entities in memory"


@pytest.mark.parametrize("view", VIEWS, ids=lambda v: v.__name__)
def test_machine_code_and_plain_python_give_the_same_bits(view: type) -> None:
    events, shape = stream(11, 150, 0.2), SHAPES[view]
    with np.errstate(over="ignore"):
        slow = run(shape, events, 50, Panes(shape, run=plain))
    assert run(shape, events, 50, Panes(shape)).tobytes() == slow.tobytes()


def test_views_by_one_key_do_not_touch_each_other() -> None:
    events = stream(5, 400, 0.2)
    together = run(TOGETHER, events, 61, Panes(TOGETHER))
    alone = np.concatenate([run(SHAPES[view], events, 61, Panes(SHAPES[view])) for view in VIEWS], axis=1)
    assert together.tobytes() == alone.tobytes()


@pytest.mark.parametrize("over", ["1m", "9m", "10m", "59m", "1h", "11h", "12h", "11d", "12d", "364d", "365d", "1830d"])
def test_at_every_edge_of_a_window_an_event_is_in_it_or_not_as_the_definition_says(over: str) -> None:
    length, hop = micros(over), hop_of(micros(over))
    assert hop * 10 <= length, "a hop is at most a tenth of its window"

    class Edge:
        n = ps.count(Deposit, over=over)
        newest = ps.last(Deposit.amount, over=over)

    view = ps.features(by=[Deposit.account, Login.account])(Edge)
    shape = Shape([view_of(view)])
    for phase, past in itertools.product((0, 1, hop // 2, hop - 1), (-hop - 1, -hop, -hop + 1, -1, 0, 1)):
        now = START + timedelta(days=2000, microseconds=phase)
        then = now - timedelta(microseconds=length - past)
        events = [Deposit("a", 1.0, None, None, "food", then), Deposit("a", 2.0, None, None, "food", now)]
        same(view, run(shape, events, 2, Panes(shape)), expected(view, events), events)


@pytest.mark.parametrize("over", ["61s", "61m", "1000m", "365d"])
def test_a_window_that_is_no_multiple_of_its_hop_ends_where_the_definition_says_at_every_moment(over: str) -> None:
    length, hop = micros(over), hop_of(micros(over))
    assert length % hop, "else its tail moves together with its head"

    class Uneven:
        n = ps.count(Deposit, over=over)

    view = ps.features(by=[Deposit.account, Login.account])(Uneven)
    shape = Shape([view_of(view)])
    events = [Deposit("a", 1.0, None, None, "food", START + timedelta(microseconds=i * hop // 7)) for i in range(200)]
    same(view, run(shape, events, 50, Panes(shape)), expected(view, events), events)


def test_a_decayed_mean_is_still_a_mean_when_all_of_it_is_very_old() -> None:
    @ps.features(by=[Deposit.account, Login.account])
    class Old:
        usual = ps.decayed_mean(Deposit.amount, "1m")
        weight = ps.decayed_count(Deposit, "1m")

    events: list[Any] = [Deposit("a", x, None, None, "food", START + timedelta(minutes=i)) for i, x in enumerate((1.0, 4.0))]
    events.append(Login("a", START + timedelta(days=365)))
    shape = Shape([view_of(Old)])
    got = run(shape, events, 3, Panes(shape))
    same(Old, got, expected(Old, events), events)
    assert got[2].tolist() == [3.0, 0.0]


def test_conditions_that_differ_in_what_they_take_from_around_them_count_different_events() -> None:
    def above(limit: float) -> Any:
        return ps.count(Deposit, where=lambda d: d.amount > limit)

    class Limits:
        low, high = above(80), above(120)
        middle, highest = (above(limit) for limit in (100, 150))

    view = ps.features(by=[Deposit.account, Login.account])(Limits)
    events, shape = stream(5, 200, 0.0), Shape([view_of(view)])
    got = run(shape, events, 200, Panes(shape))
    same(view, got, expected(view, events), events)
    assert all(
        got[-1, shape.columns.index(f"Limits.{less}")] > got[-1, shape.columns.index(f"Limits.{more}")]
        for less, more in itertools.pairwise(("low", "middle", "high", "highest"))
    )


def test_state_of_an_older_definition_is_recognised_and_never_misread() -> None:
    @ps.features(by=Deposit.account)
    class Old:
        value = ps.max(Deposit.amount, over="1h")

    @ps.features(by=Deposit.account)
    class New:
        value = ps.min(Deposit.amount, over="1h")

    old, new = Shape([view_of(Old)]), Shape([view_of(New)])
    assert old.words == new.words, "only the fingerprint tells them apart"
    panes = Panes(old)
    run(old, [e for e in stream(3, 50, 0.0) if isinstance(e, Deposit)], 50, panes)
    first = stream(3, 50, 0.0)
    panes = Panes(old)
    deposits = [e for e in first if isinstance(e, Deposit)]
    values = np.concatenate([old.values(old.events[0], [e]) for e in deposits])
    slots = np.array([panes.slot(e.account) for e in deposits], np.int64)
    times = np.arange(len(deposits), dtype=np.int64) + 10**15
    panes.apply(slots, times, np.zeros(len(deposits), np.int64), values, np.zeros(len(deposits), np.int64))
    heads, tails, _ = panes.pack()
    with pytest.raises(ValueError, match="another version"):
        Panes(new).restore("a0", heads["a0"], tails.get("a0", b""))
