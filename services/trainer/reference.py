"""The reference of a version: how its training rows fall at each hour of the week, and how much each input moves by its own
custom.

Monitoring holds answers against it; like with like (see penstock.statistics.hours).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from penstock.inputs import Matrix
from penstock.statistics.hours import Hours, Ints, customs_of, hours_of
from penstock.statistics.reference import Numbers
from penstock.statistics.segmented import segmented
from penstock.statistics.shift import SPANS

__all__ = ["by_level", "reference"]


def reference(
    X: Matrix,  # noqa: N803
    times: Ints,
    columns: Mapping[str, Numbers],
    periods: Sequence[int],
) -> tuple[Hours, dict[int, dict[str, float]]]:
    """Of rows `X` (rows, inputs) at `times` (rows,) microseconds, counted as `columns` say, in their order; customs are of the
    spans of windows of each of `periods` microseconds."""
    places, widths = _placed(X, columns)
    lengths = [every * span for every in periods for span in SPANS]
    return hours_of(times, places, widths), customs_of(times, places, widths, lengths)


def by_level(
    X: Matrix,  # noqa: N803
    times: Ints,
    levels: Mapping[str, Sequence[str]],
    columns: Mapping[str, Numbers],
    customs: Mapping[int, Mapping[str, float]],
) -> bytes:
    """The file of the same within each level of segments; `levels` says for each segment the level of each row, `customs` are
    those of the whole."""
    places, widths = _placed(X, columns)
    return segmented(times, places, widths, levels, customs).dumped()


def _placed(X: Matrix, columns: Mapping[str, Numbers]) -> tuple[dict[str, Ints], dict[str, int]]:  # noqa: N803
    """The bin of each value, and how many bins there are, by input."""
    places = {name: column.cells(X[:, i]) for i, (name, column) in enumerate(columns.items())}
    return places, {name: column.missing_cell + 1 for name, column in columns.items()}
