"""The window kernel equals the naive replay, for any stream, any batch borders, any restart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

import penstock as ps
from penstock.event import event_of, to_micros
from penstock.feature import view_of
from penstock.kernel import kernel
from penstock.kernel import run as plain
from penstock.window import Panes, Shape


@ps.event("deposits")
class Deposit:
    account: ps.Key[str]
    amount: float
    fee: float | None
    at: ps.EventTime


@ps.event("logins")
class Login:
    account: ps.Key[str]
    at: ps.EventTime


@ps.features(by=[Deposit.account, Login.account])
class Account:
    deposits_1h = ps.count(Deposit, over="1h")
    deposits_30d = ps.count(Deposit, over="30d")
    amount_1h = ps.sum(Deposit.amount, over="1h")
    amount_24h = ps.sum(Deposit.amount, over="24h")
    amount_7d = ps.mean(Deposit.amount, over="7d")
    least_90m = ps.min(Deposit.amount, over="90m")
    most_30d = ps.max(Deposit.amount, over="30d")
    fee_24h = ps.mean(Deposit.fee, over="24h")
    newest_fee = ps.last(Deposit.fee)
    logins_3h = ps.count(Login, over="3h")
    idle = ps.since_last(Login)


START = datetime(2026, 3, 1, tzinfo=UTC)
VIEW = view_of(Account)
SHAPE = Shape([VIEW])


def stream(seed: int, n: int, late: float, entities: int = 4) -> list[Any]:
    """Events with gaps from nothing to days, ties, hop borders hit exactly, missing fees, and a share of late ones."""
    rng = np.random.default_rng(seed)
    moment, events = START, list[Any]()
    for _ in range(n):
        gap = rng.choice([0, 1, 240, 300, 3600, 7200, 86400, 20 * 86400], p=[0.2, 0.2, 0.2, 0.15, 0.13, 0.07, 0.04, 0.01])
        moment += timedelta(seconds=int(gap))
        if rng.random() < 0.1:
            moment += timedelta(seconds=-(moment.timestamp() % 300)) + timedelta(seconds=300)
        at = moment - timedelta(seconds=float(rng.exponential(86400 * 3))) if rng.random() < late else moment
        account = f"a{rng.integers(entities)}"
        if rng.random() < 0.3:
            events.append(Login(account=account, at=at))
        else:
            fee = None if rng.random() < 0.3 else float(rng.normal())
            events.append(Deposit(account=account, amount=float(np.round(rng.normal(100, 50), 2)), fee=fee, at=at))
    return events


def run(events: list[Any], borders: int, panes: Panes, restart: bool = False) -> np.ndarray[Any, Any]:
    """The kernel's rows, in batches of `borders`, restoring from what was packed after every batch if asked."""
    rows = []
    stored: dict[str, tuple[bytes, bytes]] = {}
    for first in range(0, len(events), borders):
        batch = events[first : first + borders]
        values = np.concatenate([SHAPE.values(event_of(type(e)), [e]) for e in batch])
        if restart:
            panes = Panes(SHAPE, capacity=1, run=panes._run)
            for name in {e.account for e in batch}:
                panes.restore(name, *stored.get(name, (b"", b"")))
        slots = np.array([panes.slot(e.account) for e in batch], np.int64)
        times = np.array([to_micros(e.at) for e in batch], np.int64)
        kinds = np.array([SHAPE.events.index(event_of(type(e))) for e in batch], np.int64)
        rows.append(panes.apply(slots, times, kinds, values, np.ones(len(batch), np.int64))[0])
        heads, tails, cut = panes.pack()
        for name, head in heads.items():
            tail = b"" if name in cut else stored.get(name, (b"", b""))[1]
            stored[name] = (head, tail + tails.get(name, b""))
    return np.concatenate(rows)


def expected(events: list[Any]) -> np.ndarray[Any, Any]:
    return np.array([[getattr(row, f.name) for f in VIEW.features] for row in ps.replay(Account, events)])


@pytest.mark.parametrize("late", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_kernel_equals_the_naive_replay(seed: int, late: float) -> None:
    events = stream(seed, 600, late)
    got, want = run(events, 97, Panes(SHAPE)), expected(events)
    for i, f in enumerate(VIEW.features):
        exact = f.kind in ("count", "min", "max", "last", "since_last")
        assert np.allclose(got[:, i], want[:, i], rtol=0 if exact else 1e-9, atol=0 if exact else 1e-9, equal_nan=True), (
            f"{f!r} differs first at event {np.flatnonzero(got[:, i] != want[:, i])[:1]}"
        )


@pytest.mark.parametrize("late", [0.0, 0.3])
def test_rows_have_the_same_bits_for_any_batch_borders_and_after_restarts(late: float) -> None:
    events = stream(7, 800, late)
    whole = run(events, len(events), Panes(SHAPE)).tobytes()
    for borders in (1, 13, 250):
        assert run(events, borders, Panes(SHAPE, capacity=1)).tobytes() == whole, f"batches of {borders}"
    assert run(events, 37, Panes(SHAPE), restart=True).tobytes() == whole, "restored from the store after each batch"


def test_machine_code_and_plain_python_give_the_same_bits() -> None:
    events = stream(11, 300, 0.2)
    assert run(events, 50, Panes(SHAPE, run=kernel())).tobytes() == run(events, 50, Panes(SHAPE, run=plain)).tobytes()


def test_a_read_changes_nothing() -> None:
    events = stream(5, 200, 0.1)
    panes = Panes(SHAPE)
    run(events, 50, panes)
    before = panes._state.tobytes()
    slots, kinds = np.zeros(1, np.int64), np.full(1, -1, np.int64)
    panes.apply(
        slots,
        np.array([to_micros(START) + 10**14]),
        kinds,
        np.full((1, len(SHAPE.tracks)), np.nan),
        np.ones(1, np.int64),
        keep=False,
    )
    assert panes._state.tobytes() == before and panes.pack() == ({}, {}, [])


def test_an_empty_window_counts_zero_and_has_no_mean() -> None:
    panes = Panes(SHAPE)
    row, _ = panes.apply(
        np.array([panes.slot("new")]),
        np.array([to_micros(START)]),
        np.full(1, -1),
        np.full((1, len(SHAPE.tracks)), np.nan),
        np.ones(1, np.int64),
    )
    said = dict(zip(SHAPE.columns, row[0], strict=True))
    assert said["Account.deposits_1h"] == 0 and said["Account.amount_1h"] == 0
    assert np.isnan(said["Account.amount_7d"]) and np.isnan(said["Account.idle"])
