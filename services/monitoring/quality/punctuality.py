"""Punctuality: do labels come as they used to, as soon and as many? Pure.

A cohort is judged once, when the monitor's time has passed for all its answers. Its answers are laid out by how long their
label took, those without a label last, and compared with the cohorts before it: at each delay, how far the share of answers
labelled by then has fallen below theirs. It alarms where a fall is

significant   beyond z(1 - alpha / delays) standard errors of a share (Bonferroni; few labels of many answers are as binding as
              many, and the lower tail of a count is thinner than the normal's)
material      as a part of all labels that should have come, above the monitor's `material` and what this feed is used to
              (see `habit_of`)

Labels that come sooner than before are no alarm. A feed from which nothing comes any more is never custom.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import sqrt
from statistics import NormalDist
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
    before = [sum(each) for each in zip(*custom.cohorts, strict=True)] or [0]
    m = sum(before)
    if len(custom.cohorts) >= LEAST_COHORTS and before[-1] < m:
        usually = 1 - before[-1] / m
        floor = max(monitor.material, habit_of(custom.distances))
        alpha = budget_of(monitor.false_alarms_per_month, length)
        errors = NormalDist().inv_cdf(1 - alpha / bins) * sqrt(1 / n + 1 / m) / usually
        falls = []
        for this, then in zip(accumulate(labels), accumulate(before[:-1]), strict=True):
            share = (then + 0.5) / (m + 1)
            falls.append(((then / m - this / n) / usually, errors * sqrt(share * (1 - share))))
        distance = max(fall for fall, _ in falls)
        worst, critical = max(falls, key=lambda each: each[0] / max(each[1], floor))
        bad = worst > max(critical, floor)
        evidence = {
            "labelled": sum(labels) / n,
            "usually": usually,
            "within_seconds": edges[bins - 1] / 1e6,
            "median_delay_seconds": _median(labels, edges),
            "usual_median_delay_seconds": _median(before[:-1], edges),
            "distance": worst,
            "critical": critical,
            "floor": floor,
            "answers": n,
        }
    if bad:
        custom.odd = [*custom.odd, now][-ENOUGH:]
        if len(custom.odd) == ENOUGH and all(sum(each[:-1]) for each in custom.odd):
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
