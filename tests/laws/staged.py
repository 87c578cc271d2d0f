"""What the laws of aggregates are tried on: accounts, a stream with everything awkward in it, and the kernel in batches."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

import penstock as ps
from penstock.event import event_of, to_micros
from penstock.feature import view_of
from penstock.windows.panes import Panes, Shape

START = datetime(2026, 3, 1, tzinfo=UTC)


@ps.event("deposits")
class Deposit:
    account: ps.Key[str]
    amount: float
    fee: float | None
    shop: str | None
    kind: str
    at: ps.EventTime


@ps.event("logins")
class Login:
    account: ps.Key[str]
    at: ps.EventTime


def stream(seed: int, n: int, late: float, entities: int = 4, kinds: Sequence[str] = ("food", "fuel", "rent")) -> list[Any]:
    """Events with gaps from nothing to days, ties, hop borders hit exactly, missing values, and a share of late ones."""
    rng = np.random.default_rng(seed)
    moment, events = START, list[Any]()
    for _ in range(n):
        gap = rng.choice(
            [0, 1, 5, 60, 240, 300, 3600, 7200, 86400, 20 * 86400], p=[0.2, 0.1, 0.05, 0.1, 0.15, 0.15, 0.13, 0.07, 0.04, 0.01]
        )
        moment += timedelta(seconds=int(gap))
        if rng.random() < 0.1:
            moment += timedelta(seconds=-(moment.timestamp() % 300)) + timedelta(seconds=300)
        at = moment - timedelta(seconds=float(rng.exponential(86400 * 3))) if rng.random() < late else moment
        account = f"a{rng.integers(entities)}"
        if rng.random() < 0.3:
            events.append(Login(account=account, at=at))
        else:
            fee = None if rng.random() < 0.3 else float(rng.normal())
            shop = None if rng.random() < 0.2 else f"shop-{rng.zipf(1.5) % 40}"
            amount = float(np.round(rng.normal(100, 50), 2))
            events.append(Deposit(account, amount, fee, shop, str(rng.choice([*kinds, "never named"])), at))
    return events


def run(
    shape: Shape, events: list[Any], borders: int, panes: Panes, restart: bool = False, room: int = 0
) -> np.ndarray[Any, Any]:
    """The kernel's rows, in batches of `borders`; after every batch restored from what was packed, or shed, if asked."""
    rows = []
    stored: dict[str, tuple[bytes, bytes]] = {}
    panes.room = room or panes.room
    for first in range(0, len(events), borders):
        batch = events[first : first + borders]
        values = np.concatenate([shape.values(event_of(type(e)), [e]) for e in batch])
        if restart:
            panes = Panes(shape, capacity=1, run=panes._run)
        for name in panes.unknown(e.account for e in batch):
            panes.restore(name, *stored.get(name, (b"", b"")))
        slots = np.array([panes.slot(e.account) for e in batch], np.int64)
        times = np.array([to_micros(e.at) for e in batch], np.int64)
        kinds = np.array(
            [shape.events.index(event_of(type(e))) if event_of(type(e)) in shape.events else -1 for e in batch], np.int64
        )
        rows.append(panes.apply(slots, times, kinds, values, np.ones(len(batch), np.int64))[0])
        heads, tails, cut = panes.pack()
        for name, head in heads.items():
            tail = b"" if name in cut else stored.get(name, (b"", b""))[1]
            stored[name] = (head, tail + tails.get(name, b""))
        panes.shed()
    return np.concatenate(rows)


def expected(view: type, events: list[Any]) -> np.ndarray[Any, Any]:
    """What `ps.replay` says, column by column."""
    rows = []
    row: Any
    for row in ps.replay(view, events):
        flat: list[float] = []
        for feature in view_of(view).features:
            found: Any = row.__dict__[feature.name]
            flat += found if isinstance(found, tuple) else found.values() if isinstance(found, dict) else [found]
        rows.append(flat)
    return np.array(rows)
