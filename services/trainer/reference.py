"""The reference of a version: how its training rows fall at each hour of the week, and how much each input moves by its own
custom.

Monitoring holds answers against it; like with like (see penstock.statistics.hours).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.inputs import Matrix, places_of
from penstock.statistics.hours import Hours, Ints, customs_of, hours_of
from penstock.statistics.shift import SPANS

__all__ = ["reference"]


def reference(
    names: Sequence[str],
    X: Matrix,  # noqa: N803
    times: Ints,
    edges: Mapping[str, Sequence[float]],
    periods: Sequence[int],
) -> tuple[Hours, dict[int, dict[str, float]]]:
    """Of rows `X` (rows, inputs) at `times` (rows,) microseconds; customs are of the spans of windows of each of `periods`
    microseconds."""
    places = {name: places_of(X[:, i], edges[name]) for i, name in enumerate(names)}
    widths = {name: len(edges[name]) + 2 for name in names}
    return hours_of(times, places, widths), customs_of(
        times, places, widths, [every * span for every in periods for span in SPANS]
    )
