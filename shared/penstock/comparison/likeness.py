"""Like with like: the reference weighted so that it has as much of each slot as the current rows.

A slot is what is alike in some columns: an hour of the week, a shop, a day and an hour. Where the reference has too few rows of a
slot, those of a coarser one stand in: hour of a working or free day, hour of the day; then without the column that was named
first; then all rows. So a table of one Sunday is compared with Sundays, and a quiet Sunday is no drift.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ..errors import PenstockError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LEAST_ROWS", "Likeness"]

LEAST_ROWS: Final = 5
"""Of the reference in a slot, else a coarser one is taken. A few are enough: what counts is the sum over all slots."""
FREE: Final = 5
"""The first free day of the week, counted from Monday as 0."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Likeness:
    """The slot of each row of both sides, and how slots are joined to coarser ones."""

    def __init__(self, then: pd.DataFrame, now: pd.DataFrame, names: Sequence[str]) -> None:
        chains = [_chain(then[name], now[name]) for name in names]
        coarser: list[Ints] = []
        kept = [chain[0] for chain in chains]
        for at, chain in enumerate(chains):
            for step in [*chain[1:], np.zeros(len(then) + len(now), np.int64)]:
                kept[at] = step
                coarser.append(_joined(kept))
        fine = _joined([chain[0] for chain in chains])
        first = np.unique(fine, return_index=True)[1]
        self.then, self.now = fine[: len(then)], fine[len(then) :]
        self.slots = len(first)
        self._groups = [np.arange(self.slots), *(_joined([step])[first] for step in coarser)]

    def weights(self, then: Ints, now: Ints) -> Floats:
        """A weight for each row of the reference, given the slots of both sides. They add up to the number of rows of equal
        weight that would be worth as much (Kish 1965)."""
        sizes, wanted = np.bincount(then, minlength=self.slots), np.bincount(now, minlength=self.slots) / max(len(now), 1)
        value, open_ = np.zeros(self.slots), wanted > 0
        for group in self._groups:
            held = np.bincount(group, sizes)
            served = open_ & (held[group] >= (LEAST_ROWS if group.any() else 1))
            with np.errstate(divide="ignore", invalid="ignore"):
                share = np.nan_to_num(np.bincount(group, np.where(served, wanted, 0.0)) / held, posinf=0.0)
            value += share[group]
            open_ &= ~served
        weights: Floats = value[then]
        squares = float(weights @ weights)
        return weights * (float(weights.sum()) / squares) if squares else weights


def _chain(then: pd.Series[Any], now: pd.Series[Any]) -> list[Ints]:
    """Codes of a column from fine to coarse, of the rows of both; missing is a value like any other."""
    import pandas as pd
    from pandas.api import types

    times = [types.is_datetime64_any_dtype(series.dtype) for series in (then, now)]
    if not any(times):
        both = pd.concat([then, now], ignore_index=True).astype(object)
        return [np.asarray(pd.factorize(both.where(both.notna(), None), use_na_sentinel=False)[0], np.int64)]
    if not all(times):
        raise PenstockError(f"like={then.name!r}: it is of times in one table only", "write it alike in both")
    parts = [(series.dt.hour, series.dt.dayofweek) for series in (then, now)]
    hour, day = (
        np.concatenate([side[at].fillna(-1).to_numpy(np.int64) for side in parts]) for at in (0, 1)
    )  # in the time zone of each
    return [day * 24 + hour, np.where(day >= FREE, 100, 0) + hour, hour]


def _joined(codes: Sequence[Ints]) -> Ints:
    """One code of several, 0, 1, 2, ..."""
    found = np.zeros(len(codes[0]), np.int64)
    for each in codes:
        places = np.unique(each, return_inverse=True)[1]
        found = np.unique(found * (int(places.max(initial=0)) + 1) + places, return_inverse=True)[1]
    return found.astype(np.int64)
