"""What a profile costs: of a frame beside pandas' own `describe`, and of a stream beside decoding it.

CPU seconds of this process, median of three. The floor of the frame is pandas: `describe(include="all")` and, for what it does
not say, `nunique` and a histogram per number. The floor of the stream is decoding the same events, which the feature
store does anyway.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import pandas as pd

import penstock as ps
from penstock.event import event_of
from penstock.log import Batch, Partition
from penstock.services.feature_store.quality import Day

from .figure import Figure


@ps.event("payments")
class Payment:
    payment_id: ps.Id[str]
    card: ps.Key[str]
    country: str
    amount: float
    fee: float | None
    items: int
    online: bool
    at: ps.EventTime


ps.expect(Payment.amount, between=(0, 10_000))
ps.expect(Payment.country, among=["DE", "FR", "IT", "ES"])


@ps.expect
def fees_are_small(payment: Payment) -> bool:
    return payment.fee <= payment.amount  # type: ignore[operator]


def made(rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "payment_id": [f"p{i}" for i in range(rows)],
            "card": [f"c{i}" for i in rng.integers(0, 5000, rows)],
            "country": rng.choice(["DE", "FR", "IT", "ES"], rows),
            "amount": rng.gamma(2, 40, rows).round(2),
            "fee": np.where(rng.random(rows) < 0.1, np.nan, rng.random(rows)),
            "items": rng.integers(1, 9, rows),
            "online": rng.random(rows) < 0.3,
            "at": pd.date_range("2026-01-01", periods=rows, freq="250ms", tz="UTC").as_unit("us"),
        }
    )


def floor(frame: pd.DataFrame) -> None:
    frame.describe(include="all")
    frame.nunique()
    for name in ("amount", "fee", "items"):
        np.histogram(frame[name].dropna(), 20)


def cpu(work: Callable[[], object]) -> float:
    def once() -> float:
        began = time.process_time()
        work()
        return time.process_time() - began

    return statistics.median(once() for _ in range(3))


def run(quick: bool) -> Iterator[Figure]:
    rows = 20_000 if quick else 100_000
    frame = made(rows)
    ours, theirs = cpu(lambda: ps.profile(frame)), cpu(lambda: floor(frame))
    yield Figure(
        name=f"profile of a frame, {rows:,} x {len(frame.columns)}",
        unit="CPU s",
        better="lower",
        ours=ours,
        beside={"pandas describe, nunique, histogram": theirs},
    )
    plain = frame.assign(at=frame["at"].dt.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    plain["fee"] = plain["fee"].astype(object).where(plain["fee"].notna(), None)
    values = [msgspec.json.encode(row) for row in plain.to_dict("records")]
    batch, now = Batch(Partition("payments", 0), range(rows), (), values), time.time() + 1e8
    surveyed = cpu(lambda: Day(event_of(Payment)).take(batch, now))
    decoded = cpu(lambda: Day(event_of(Payment)).decoder.decode_all(values, now))
    yield Figure(
        name="profile of a stream, decoding included",
        unit="events/CPU s",
        better="higher",
        ours=rows / surveyed,
        beside={"decoding alone": rows / decoded},
        detail={"rows": rows, "survey_us": surveyed / rows * 1e6, "decode_us": decoded / rows * 1e6},
    )
