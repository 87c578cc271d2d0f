"""The window kernel equals the naive replay, for any stream, any batch borders, any restart."""

from __future__ import annotations

import numpy as np
import pytest

import penstock as ps
from penstock.event import to_micros
from penstock.feature import view_of
from penstock.windows import panes
from penstock.windows.kernel import kernel
from penstock.windows.kernel import run as plain
from penstock.windows.panes import Panes, Shape

from .staged import START, Deposit, Login, expected, run, stream


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


VIEW = view_of(Account)
SHAPE = Shape([VIEW])


@pytest.mark.parametrize("late", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_kernel_equals_the_naive_replay(seed: int, late: float) -> None:
    events = stream(seed, 600, late)
    got, want = run(SHAPE, events, 97, Panes(SHAPE)), expected(Account, events)
    for i, f in enumerate(VIEW.features):
        exact = f.kind in ("count", "min", "max", "last", "since_last")
        assert np.allclose(got[:, i], want[:, i], rtol=0 if exact else 1e-9, atol=0 if exact else 1e-9, equal_nan=True), (
            f"{f!r} differs first at event {np.flatnonzero(got[:, i] != want[:, i])[:1]}"
        )


@pytest.mark.parametrize("late", [0.0, 0.3])
def test_rows_have_the_same_bits_for_any_batch_borders_and_after_restarts(late: float) -> None:
    events = stream(7, 800, late)
    whole = run(SHAPE, events, len(events), Panes(SHAPE)).tobytes()
    for borders in (1, 13, 250):
        assert run(SHAPE, events, borders, Panes(SHAPE, capacity=1)).tobytes() == whole, f"batches of {borders}"
    assert run(SHAPE, events, 37, Panes(SHAPE), restart=True).tobytes() == whole, "restored from the store after each batch"


def test_memory_grows_by_copying_where_the_system_cannot_remap_it(monkeypatch: pytest.MonkeyPatch) -> None:
    events = stream(7, 800, 0.1)
    whole = run(SHAPE, events, 97, Panes(SHAPE)).tobytes()
    monkeypatch.setattr(panes, "REMAPS", False)
    assert run(SHAPE, events, 97, Panes(SHAPE, capacity=1)).tobytes() == whole


def test_machine_code_and_plain_python_give_the_same_bits() -> None:
    events = stream(11, 300, 0.2)
    assert (
        run(SHAPE, events, 50, Panes(SHAPE, run=kernel())).tobytes() == run(SHAPE, events, 50, Panes(SHAPE, run=plain)).tobytes()
    )


def test_a_read_changes_nothing() -> None:
    events = stream(5, 200, 0.1)
    panes = Panes(SHAPE)
    run(SHAPE, events, 50, panes)
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
