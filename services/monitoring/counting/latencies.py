"""Latencies: how long answers took, counted in eighths of doublings of a microsecond, which add over partitions and windows.

A quantile read from them is too high by 9 % at most (2**(1/8)), as of DDSketch (Masson, Rim & Lee 2019).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate
from math import ceil, log2

from penstock.records import Latency

__all__ = ["bin_of", "latency_of"]

EIGHTHS = 8
LONGEST = 64 * EIGHTHS
"""2**64 microseconds: what is longer counts as so long, and what is less than one as none."""


def bin_of(seconds: float) -> int:
    """The bin of a latency.

    >>> [bin_of(s) for s in (0.0, 1e-6, 0.001, 0.002, -1.0)]
    [0, 0, 80, 88, 0]
    """
    micros = seconds * 1e6
    return min(ceil(EIGHTHS * log2(micros)), LONGEST) if micros > 1.0 else 0


def latency_of(counts: Mapping[int, int]) -> Latency | None:
    """Quantiles of what was counted; None of nothing.

    >>> found = latency_of({80: 98, 88: 2})
    >>> round(found.p50, 6), round(found.p99, 6)
    (0.001024, 0.002048)
    """
    n = sum(counts.values())
    if n <= 0:
        return None
    p50, p90, p99 = (_quantile(counts, ceil(share * n)) for share in (0.5, 0.9, 0.99))
    return Latency(n=n, p50=p50, p90=p90, p99=p99, counts=dict(sorted(counts.items())))


def _quantile(counts: Mapping[int, int], rank: int) -> float:
    """The upper end of the bin that holds the answer of a rank, from 1; 0 of the first bin."""
    places = sorted(counts)
    place = places[bisect_left(list(accumulate(counts[each] for each in places)), rank)]
    return float(2.0 ** (place / EIGHTHS) * 1e-6 if place else 0.0)
