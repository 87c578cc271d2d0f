"""Punctuality: do labels come as they used to, as soon and as many? Pure.

A cohort is judged once, when the monitor's time has passed for all its answers. Its answers are laid out by how long their
label took, those without a label last, and compared with the cohorts before it: the distance is how far the share of answers
labelled by some delay has fallen below theirs, at the delay where that is most (Smirnov 1948, one-sided). It alarms when the
distance is above what chance gives as often as the budget allows, sqrt(-ln(alpha) / 2 (1/n + 1/m)), above the monitor's
`material`, and above what this feed is used to (see `habit_of`). Labels that come sooner than before are no alarm.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import log, sqrt
from typing import Any

import msgspec

from penstock.policy import Labels
from penstock.records import Scored
from penstock.statistics.habit import habit_of
from penstock.statistics.quality import added
from penstock.statistics.shift import budget_of

__all__ = ["Custom", "punctual"]

REMEMBERED = 28
"""Cohorts that are the custom; those that alarmed are not among them."""
ENOUGH = 7
"""After so many in a row that alarmed, they are the custom: what lasts is how it is now."""
LEAST_COHORTS, LEAST_ANSWERS = 3, 50
"""Fewer cohorts, or answers in one, say nothing."""


class Custom(msgspec.Struct):
    """What a feed of labels is used to: the newest cohorts by delay, answers without a label last, and their distances. `edges`
    are those of the delays; under others, of a project that was changed, nothing is known yet."""

    edges: list[int] = []
    cohorts: list[list[int]] = []
    distances: list[float] = []
    odd: list[list[int]] = []
    """The newest in a row that alarmed."""


def punctual(
    monitor: Labels, scored: Scored, edges: Sequence[int], length: int, custom: Custom
) -> tuple[bool | None, dict[str, Any]]:
    """Whether the labels of a cohort of `length` microseconds came later or fewer than is custom (None: nothing can be said),
    with the evidence; `edges` are of its bins of delays, up to the horizon. `custom` learns from it."""
    bins = sum(edge <= (monitor.within or edges[-1]) for edge in edges)
    if custom.edges != list(edges[:bins]):
        custom.edges, custom.cohorts, custom.distances, custom.odd = list(edges[:bins]), [], [], []
    labels = added(scored.delays, [0] * len(edges))[:bins]
    now = [*labels, max(scored.answers - sum(labels), 0)]
    n = sum(now)
    if n < LEAST_ANSWERS:
        return None, {}
    bad: bool | None = None
    evidence: dict[str, Any] = {}
    distance = 0.0
    if len(custom.cohorts) >= LEAST_COHORTS:
        before = [sum(each) for each in zip(*custom.cohorts, strict=True)]
        m = sum(before)
        falls = [then / m - this / n for this, then in zip(accumulate(now), accumulate(before), strict=True)]
        distance = max(falls)
        alpha = budget_of(monitor.false_alarms_per_month, length)
        critical = sqrt(-log(alpha) / 2 * (1 / n + 1 / m))
        floor = max(monitor.material, habit_of(custom.distances))
        bad = distance > max(critical, floor)
        evidence = {
            "labelled": sum(labels) / n,
            "usually": 1 - before[-1] / m,
            "within_seconds": edges[bins - 1] / 1e6,
            "median_delay_seconds": _median(labels, edges),
            "usual_median_delay_seconds": _median(before[:-1], edges),
            "distance": distance,
            "critical": critical,
            "floor": floor,
            "answers": n,
        }
    if bad:
        custom.odd = [*custom.odd, now]
        if len(custom.odd) == ENOUGH:
            custom.cohorts, custom.distances, custom.odd = custom.odd, [], []
    else:
        custom.cohorts, custom.odd = [*custom.cohorts, now][-REMEMBERED:], []
        if bad is not None:
            custom.distances = [*custom.distances, max(distance, 0.0)][-REMEMBERED:]
    return bad, evidence


def _median(labels: Sequence[int], edges: Sequence[int]) -> float | None:
    """The edge by which half of the labels had come."""
    half = sum(labels) / 2
    return next((edge / 1e6 for edge, so_far in zip(edges, accumulate(labels), strict=False) if half and so_far >= half), None)
