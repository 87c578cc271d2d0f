"""Moments: how many, mean, variance and range of inputs and scores, from sums that add exactly over batches and partitions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.records import Moments, Summed
from penstock.statistics.reference import Numbers

__all__ = ["added_sums", "moments_of", "summed"]


def summed(numbers: Numbers, vector: npt.NDArray[np.int64], values: npt.NDArray[np.floating[Any]]) -> Summed:
    """The sums of a batch, (rows,), that `numbers` counted as `vector`."""
    finite = values[np.isfinite(values)]
    return Summed(
        n=len(finite),
        steps=int(vector[-2]),
        squares=int(vector[-1]),
        least=float(finite.min()) if len(finite) else None,
        greatest=float(finite.max()) if len(finite) else None,
        centre=numbers.centre,
        unit=numbers.unit,
    )


def added_sums(a: Mapping[str, Summed], b: Mapping[str, Summed]) -> dict[str, Summed]:
    """Two shares of a window as one, by input; they are of one version, and so of one grid."""
    both = {**a, **b, **{name: _together(a[name], b[name]) for name in a.keys() & b.keys()}}
    return dict(sorted(both.items()))


def _together(a: Summed, b: Summed) -> Summed:
    ends = [end for end in (a.least, b.least, a.greatest, b.greatest) if end is not None]
    return Summed(
        n=a.n + b.n,
        steps=a.steps + b.steps,
        squares=a.squares + b.squares,
        least=min(ends, default=None),
        greatest=max(ends, default=None),
        centre=a.centre,
        unit=a.unit,
    )


def moments_of(found: Summed) -> Moments | None:
    """None where no value is finite.

    >>> moments_of(Summed(n=2, steps=6, squares=20, least=1.0, greatest=2.0, centre=0.0, unit=0.5))
    Moments(n=2, mean=1.5, variance=0.5, least=1.0, greatest=2.0)
    """
    n = found.n
    if n <= 0 or found.least is None or found.greatest is None:
        return None
    above = (n * found.squares - found.steps**2) / (n * (n - 1)) if n > 1 else None
    return Moments(
        n=n,
        mean=found.centre + found.unit * (found.steps / n),
        variance=None if above is None else above * found.unit**2,
        least=found.least,
        greatest=found.greatest,
    )
