"""What drift costs: rows into counts, the verdict from counts, and whole tables beside scipy on the same values.

CPU seconds of this process, the best of five, since the machine may be shared. 20 columns: 15 of numbers, 5 of levels. The
floor is scipy: ks_2samp for each column of numbers, chi2_contingency for each of levels, from the values.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from scipy import stats

import penstock as ps
from penstock.comparison.columns import values_of
from penstock.records import Group
from penstock.statistics import groups as segments
from penstock.statistics.drift import Counted, judged
from penstock.statistics.fairness import gaps, treated
from penstock.statistics.reference import Levels, Numbers

from .figure import Figure

NUMBERS, TEXTS = 15, 5
LEVELS = [f"level {i}" for i in range(30)]
BATCH = 1_000
"""Rows at once, as monitoring gets them from a topic."""
EVIDENTLY = {10_000: 1.50, 100_000: 6.57}
"""Seconds of Evidently 0.7.23 for such a table, measured on such a machine on 20 November 2026."""


def made(rows: int, rng: np.random.Generator) -> pd.DataFrame:
    columns: dict[str, object] = {f"number {i}": rng.normal(size=rows) for i in range(NUMBERS)}
    return pd.DataFrame(columns | {f"text {i}": rng.choice(LEVELS, rows) for i in range(TEXTS)})


def cpu(work: Callable[[], object]) -> float:
    def once() -> float:
        began = time.process_time()
        work()
        return time.process_time() - began

    return min(once() for _ in range(5))


def floor(then: pd.DataFrame, now: pd.DataFrame) -> None:
    for name in then.columns:
        if name.startswith("number"):
            stats.ks_2samp(then[name], now[name])
        else:
            table = pd.concat([then[name].value_counts(), now[name].value_counts()], axis=1).fillna(0)
            stats.chi2_contingency(table.to_numpy().T)


def grouped(rows: int, rng: np.random.Generator) -> dict[str, Group]:
    """Answers to twenty groups, all of them labelled."""
    counted = segments.Levels()
    for at, score, drawn in zip(
        rng.integers(20, size=rows).tolist(), rng.random(rows).tolist(), rng.random(rows).tolist(), strict=True
    ):
        counted.answer(f"group {at}", score, 100)
        counted.judge(f"group {at}", score, drawn < score, 1)
    return counted.frozen()


def run(quick: bool) -> Iterator[Figure]:
    rng = np.random.default_rng(0)
    rows = 20_000 if quick else 200_000
    then, now = made(10_000, rng), made(rows, rng)
    columns = [values_of(now[name]) for name in now.columns]
    references = [
        Numbers.of(v.numbers) if v.kind == "numbers" else Levels.of_codes(v.codes, v.levels)
        for v in (values_of(then[name]) for name in then.columns)
    ]

    def count() -> list[object]:
        total = [np.zeros(reference.width, np.int64) for reference in references]
        for start in range(0, rows, BATCH):
            part = slice(start, start + BATCH)
            for sums, reference, values in zip(total, references, columns, strict=True):
                if isinstance(reference, Numbers):
                    sums += reference.count(values.numbers[part])
                else:
                    sums += reference.count_codes(values.codes[part], values.levels)
        return [*total]

    yield Figure(
        name=f"rows into counts, 20 columns, batches of {BATCH:,}",
        unit="rows/CPU s",
        better="higher",
        ours=rows / cpu(count),
        goal=500_000,
    )
    for size in (10_000, rows):
        counted = [
            Counted(
                name,
                reference,
                reference.count(values.numbers[:size])
                if isinstance(reference, Numbers)
                else reference.count_codes(values.codes[:size], values.levels),
                reference.own,
            )
            for name, reference, values in zip(now.columns, references, columns, strict=True)
        ]
        yield Figure(
            name=f"verdict of 20 columns from counts of {size:,} rows",
            unit="CPU ms",
            better="lower",
            ours=cpu(lambda counted=counted: judged(counted)) * 1e3,  # type: ignore[misc]
            goal=10,
        )
    groups = grouped(100_000, rng)
    yield Figure(
        name="gaps of 20 groups in 5 measures, with intervals and chances, from counts",
        unit="CPU ms",
        better="lower",
        ours=cpu(lambda: gaps({level: treated(group) for level, group in groups.items()})) * 1e3,
        goal=5,
    )
    for size in (2_000,) if quick else (10_000, 100_000):
        then, now = made(size, rng), made(size, rng)
        recorded = {"Evidently 0.7.23": EVIDENTLY[size]} if size in EVIDENTLY else {}
        yield Figure(
            name=f"ps.drift.compare, {size:,} rows beside {size:,}, 20 columns",
            unit="CPU s",
            better="lower",
            ours=cpu(lambda then=then, now=now: ps.drift.compare(then, now)),  # type: ignore[misc]
            beside={"scipy ks_2samp, chi2_contingency": cpu(lambda then=then, now=now: floor(then, now))},  # type: ignore[misc]
            recorded=recorded,
        )
