"""How fast features are computed on DataFrames, and values joined as of a time.

    compute  1,000,000 payments of 100,000 cards (Zipf), 5 windows (1 h count, 3 h min, 24 h sum, 7 d mean, 30 d max)
        floor     the same keys and times sorted and grouped by pandas, and nothing computed
        ours      ps.compute(Card, {Payment: frame}, at=Payment): a row for each payment, the bits of the stream
        asked     the same features at 1,000,000 other rows of (key, time)
    as of    1,000,000 rows x 3 frames x 10 columns over 2,000,001 rows, values of at most 7 days
        floor     pandas.merge_asof on event time alone, which must sort the rows and leaves them so
        ours      ps.as_of on event time and the time of knowledge, rows in their order
        late      the same where everything became known 3 days after its time

Memory is the peak of a process of its own, less what its input and imports had taken. Feast 0.67 (recorded on such a machine,
not run here: DuckDB offline store, the same rows and columns): 38.6 s, 3,585 MB.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

import penstock as ps

from .figure import Figure

DAY = 86_400_000_000
START = 1_767_225_600_000_000
FRAMES, COLUMNS, USERS = ("a", "b", "c"), 10, 10_000


@ps.event("payments")
class Payment:
    card: ps.Key[str]
    amount: float
    at: ps.EventTime


@ps.features(by=Payment.card)
class Card:
    payments_1h = ps.count(Payment, over="1h")
    least_3h = ps.min(Payment.amount, over="3h")
    spend_24h = ps.sum(Payment.amount, over="24h")
    usual_7d = ps.mean(Payment.amount, over="7d")
    most_30d = ps.max(Payment.amount, over="30d")


def moments(micros: Any) -> Any:
    return pd.to_datetime(micros, unit="us", utc=True).as_unit("us")


def payments(n: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    cards = (rng.zipf(1.1, n) - 1) % 100_000
    at = START + np.sort(rng.integers(0, 30 * DAY, n))
    return pd.DataFrame({"card": np.char.add("card-", cards.astype(str)), "amount": rng.gamma(2, 20, n), "at": moments(at)})


def values(number: int, n: int, late: int) -> pd.DataFrame:
    rng = np.random.default_rng(100 + number)
    at = START + np.sort(rng.integers(0, 30 * DAY, n))
    columns = {f"v{i}": rng.standard_normal(n) for i in range(COLUMNS)}
    head = {"user": rng.integers(0, USERS, n), "event_time": moments(at), "known_at": moments(at + late)}
    return pd.DataFrame({**head, **columns})


def spine(n: int) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    return pd.DataFrame({"user": rng.integers(0, USERS, n), "event_time": moments(START + rng.integers(0, 30 * DAY, n))})


def grouped(n: int) -> Callable[[], Any]:
    frame = payments(n)
    return lambda: frame.sort_values(["card", "at"]).groupby("card", sort=False)["amount"].count()


def computed(n: int) -> Callable[[], Any]:
    frame = payments(n)
    ps.compute(Card, {Payment: frame[:10]}, at=Payment)  # loads the compiled kernel
    return lambda: ps.compute(Card, {Payment: frame}, at=Payment)


def asked(n: int) -> Callable[[], Any]:
    frame, rows = payments(n), payments(n)[["card", "at"]].sample(frac=1, random_state=1)
    ps.compute(Card, {Payment: frame[:10]}, at=rows[:10])
    return lambda: ps.compute(Card, {Payment: frame}, at=rows)


def merged(n: int) -> Callable[[], Any]:
    rows = spine(n)
    frames = [values(i, 2 * n // 3 + 1, 0).drop(columns="known_at").add_suffix(f".{name}") for i, name in enumerate(FRAMES)]

    def run() -> Any:
        found = rows.sort_values("event_time")
        for name, frame in zip(FRAMES, frames, strict=True):
            own = frame.rename(columns={f"user.{name}": "user", f"event_time.{name}": "event_time"})
            found = pd.merge_asof(found, own, on="event_time", by="user", tolerance=pd.Timedelta(days=7))
        return found

    return run


def joined(n: int, late: int = 1_000_000) -> Callable[[], Any]:
    rows, frames = spine(n), {name: values(i, 2 * n // 3 + 1, late) for i, name in enumerate(FRAMES)}
    ps.as_of(rows[:10], {name: frame[:10] for name, frame in frames.items()}, by="user")
    return lambda: ps.as_of(rows, frames, by="user", within="7d")


def joined_late(n: int) -> Callable[[], Any]:
    return joined(n, 3 * DAY)


CASES: dict[str, dict[str, Callable[[int], Callable[[], Any]]]] = {
    "compute": {"floor": grouped, "ours": computed, "asked": asked},
    "as of": {"floor": merged, "ours": joined, "late": joined_late},
}


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one(made: Callable[[int], Callable[[], Any]], n: int, rounds: int, answer: Any) -> None:
    """Run a case in this process: seconds (of the processor and by the clock) and megabytes."""
    work = made(n)
    before, wall, cpu = peak(), list[float](), list[float]()
    for _ in range(rounds):
        began, used = time.perf_counter(), time.process_time()
        rows = len(work())
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - used)
    found = {"seconds": float(np.median(wall)), "cpu_seconds": float(np.median(cpu))}
    answer.put({**found, "extra_mb": peak() - before, "peak_mb": peak(), "rows": rows})


def run(quick: bool) -> Iterator[Figure]:
    n, rounds = (50_000, 1) if quick else (1_000_000, 3)
    context, found = multiprocessing.get_context("spawn"), dict[str, dict[str, Any]]()
    for name, cases in CASES.items():
        found[name] = {}
        for case, made in cases.items():
            answer = context.Queue()
            process = context.Process(target=one, args=(made, n, rounds, answer))
            process.start()
            found[name][case] = answer.get(timeout=300)
            process.join(20)
    detail = {"rows": n, "rounds": rounds}
    for name, case, title, floor in (
        ("compute", "ours", "5 windows at their own rows", "pandas sort and group alone"),
        ("compute", "asked", "5 windows at other rows", "pandas sort and group alone"),
        ("as of", "ours", "as-of join, 3 frames x 10", "pandas.merge_asof, event time alone"),
        ("as of", "late", "as-of join, known 3 days late", "pandas.merge_asof, event time alone"),
    ):
        joins, took, bare = name == "as of", found[name][case], found[name]["floor"]
        yield Figure(
            name=f"{n:,} rows: {title}",
            unit="s",
            better="lower",
            ours=took["seconds"],
            beside={floor: bare["seconds"]},
            recorded={"Feast 0.67.0, 1,000,000 rows": 38.6} if joins and case == "ours" else {},
            goal=3.0 if case == "ours" else None,
            detail={**detail, "ours": took, "floor": bare},
        )
        if joins and case == "ours":
            yield Figure(
                name=f"{n:,} rows: memory of the as-of join, at its peak",
                unit="MB",
                better="lower",
                ours=took["peak_mb"],
                beside={floor: bare["peak_mb"]},
                recorded={"Feast 0.67.0, 1,000,000 rows": 3585.0},
                goal=1500.0,
                detail=detail,
            )
