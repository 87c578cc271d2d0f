"""The reference of a version: how its training rows fall at each hour of the week, and how much each input moves by its own
custom.

Monitoring holds answers against it; like with like (see penstock.statistics.hours).
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock.inputs import Matrix
from penstock.statistics.hours import Hours, Ints, hours_of, spreads_of
from penstock.statistics.reference import Numbers

__all__ = ["reference"]


def reference(
    X: Matrix,  # noqa: N803
    times: Ints,
    columns: Mapping[str, Numbers],
    every: int,
) -> tuple[Hours, dict[str, float]]:
    """Of rows `X` (rows, inputs) at `times` (rows,) microseconds, counted as `columns` say, in their order; customs are of
    windows of `every` microseconds."""
    places = {name: column.cells(X[:, i]) for i, (name, column) in enumerate(columns.items())}
    widths = {name: column.missing_cell + 1 for name, column in columns.items()}
    return hours_of(times, places, widths), spreads_of(times, places, widths, every)
