"""Compare two tables: a verdict for each column and for the whole, with what it was made from.

    compare(reference, current)                    pandas frames, pyarrow tables, .parquet or .csv files
    compare(..., like="at")                        each hour of the week with the same hour of the week

The rows of the reference are taken to be in order of time: parts of it, as long as the current table, teach how far it moves by
itself. In no order they are all alike, and teach nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import PenstockError
from ..mistake import nearest
from ..statistics.drift import ALPHA, FLOORS, Column, Counted, Floors, judged, learnt
from ..statistics.reference import Cells, Levels, Numbers, Reference
from .columns import Kind, Values, as_kind, common, values_of
from .likeness import Likeness
from .result import Comparison

if TYPE_CHECKING:
    import pandas as pd

    from ..drift import Rows

__all__ = ["compare"]

FEWEST_PARTS: Final = 8
MOST_PARTS: Final = 20
"""Of the reference, from which its habit is learnt: fewer say nothing, more only cost time."""
IDENTIFIES: Final = 0.5
"""Different levels per row from which on a column of texts names its rows, so that no two tables are alike."""
WORDS: Final = {"numbers": "numbers", "levels": "texts", "bool": "truth values", "times": "times"}
FEW: Final = 20
"""So few different levels are never taken for names of rows."""


def compare(
    reference: Rows,
    current: Rows,
    *,
    columns: Sequence[str] | None = None,
    like: str | Sequence[str] = (),
    alpha: float = ALPHA,
    floor: float | None = None,
    multivariate: bool = False,
) -> Comparison:
    """Has `current` drifted from `reference`? A column that only one of them has, or that is numbers in one and text in the
    other, has a verdict, too.

    PenstockError: no such file or column, two columns of one name, `alpha` or `floor` that is no share.

    >>> import pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> then = pd.DataFrame({"age": rng.normal(40, 9, 5000), "city": rng.choice(["Rome", "Bari"], 5000)})
    >>> now = pd.DataFrame({"age": rng.normal(44, 9, 500), "city": rng.choice(["Rome", "Bari"], 500)})
    >>> found = compare(then, now)
    >>> found.verdict, found.drifted, found["city"].verdict
    ('drift', ('age',), 'steady')
    """
    if not 0 < alpha < 1 or (floor is not None and not 0 < floor < 1):
        raise PenstockError(f"alpha={alpha}, floor={floor}: shares lie between 0 and 1", "compare(..., alpha=0.01, floor=0.05)")
    then, now = _frame(reference, "reference"), _frame(current, "current")
    likes = [like] if isinstance(like, str) else list(like)
    names = list(dict.fromkeys([*then.columns, *now.columns])) if columns is None else list(columns)
    for name in [*likes, *names]:
        if name not in then.columns and name not in now.columns:
            raise PenstockError(f"neither table has a column {name!r}", nearest(name, [*then.columns, *now.columns]))
    for name in likes:
        if name not in then.columns or name not in now.columns:
            raise PenstockError(f"like={name!r}: only one of the tables has it", "name a column that both have")
    sides = _Sides(then, now, Likeness(then, now, likes) if likes and len(then) and len(now) else None)
    settled = dict[str, Column]()
    counted = dict[str, Counted]()
    for name in names:
        found = _counted(name, sides, floor) if name not in likes else _unknown(name, "levels", "the rows are compared within it")
        if isinstance(found, Column):
            settled[name] = found
        else:
            counted[name] = found
    settled |= {column.name: column for column in judged(list(counted.values()), alpha)}
    together = None
    if multivariate:
        from .together import told_apart

        together = told_apart({name: (sides.then[name], sides.now[name]) for name in counted}, alpha)
    return Comparison(
        columns=tuple(settled[name] for name in names),
        counted=counted,
        rows_then=len(then),
        rows_now=len(now),
        like=tuple(likes),
        alpha=alpha,
        together=together,
    )


def _frame(rows: Any, side: str) -> pd.DataFrame:
    from os import PathLike

    import pandas as pd

    if isinstance(rows, (str, PathLike)):
        from pathlib import Path

        from ..frames.tabular import frame_of

        rows = frame_of(Path(rows))
    elif not isinstance(rows, pd.DataFrame) and hasattr(rows, "to_pandas"):
        rows = rows.to_pandas()
    if not isinstance(rows, pd.DataFrame):
        raise PenstockError(
            f"the {side} is a {type(rows).__name__}, no table",
            "a DataFrame, a pyarrow Table, or the path of a .parquet or .csv file",
        )
    made = rows.set_axis([str(name) for name in rows.columns], axis="columns")
    if not made.columns.is_unique:
        twice = made.columns[made.columns.duplicated()][0]
        raise PenstockError(f"the {side} has two columns called {twice!r}", "rename one: frame.columns = [...]")
    return made


class _Sides(NamedTuple):
    then: pd.DataFrame
    now: pd.DataFrame
    likeness: Likeness | None


def _counted(name: str, sides: _Sides, floor: float | None) -> Counted | Column:
    """The column counted on both sides, or what there is to say instead."""
    if name not in sides.now.columns:
        return Column(name=name, kind="gone", verdict="drift", why="the current table has no such column")
    if name not in sides.then.columns:
        return Column(name=name, kind="new", verdict="unknown", why="the reference has no such column")
    then, now = values_of(sides.then[name]), values_of(sides.now[name])
    kind = common(then.kind, now.kind)
    if kind is None:
        return Column(name=name, kind=now.kind, verdict="drift", why=f"it was of {WORDS[then.kind]}, and is of {WORDS[now.kind]}")
    if kind == "times":
        return _unknown(name, kind, "times move by themselves: compare an hour, a weekday or an age instead")
    if kind == "empty":
        kind = "numbers"
    then, now = as_kind(then, kind), as_kind(now, kind)
    names_rows = _names_rows(then, kind)
    if names_rows:
        return _unknown(name, kind, names_rows)
    reference, cells_then, cells_now, used = _cells(then, now, kind)
    before = reference.own.astype(np.float64)
    if sides.likeness is not None:
        slots = sides.likeness.then[used]
        before = _vector(reference, cells_then, then, used, sides.likeness.weights(slots, sides.likeness.now))
    floors: Floors = FLOORS
    if floor is not None:
        floors = {**FLOORS, "distribution": floor}
    elif len(cells_now):
        floors = learnt(reference, _parts(reference, cells_then, then, used, len(cells_now), sides.likeness))
    now_counts = reference.count(now.numbers) if isinstance(reference, Numbers) else reference.count_codes(now.codes, now.levels)
    return Counted(name, reference, now_counts, before, floors)


def _unknown(name: str, kind: str, why: str) -> Column:
    return Column(name=name, kind=kind, verdict="unknown", why=why)


def _names_rows(values: Values, kind: Kind) -> str:
    """Why a column cannot be compared, as it has another value in every row."""
    if kind == "numbers":
        rises = values.numbers[1:] > values.numbers[:-1]
        if len(rises) >= FEW and bool(rises.all()):
            return "it rises from row to row, as a number of the row or a time does"
        return ""
    codes = values.codes[values.codes >= 0]
    there, distinct = len(codes), int(np.count_nonzero(np.bincount(codes)))
    if distinct > max(FEW, IDENTIFIES * there):
        return f"it names rows: {distinct:,} different values in {there:,} rows"
    return ""


def _cells(then: Values, now: Values, kind: Kind) -> tuple[Reference, npt.NDArray[np.intp], npt.NDArray[np.intp], slice]:
    """The reference, the cell of each of its rows and of the current ones, and which rows of the reference these are."""
    if kind == "numbers":
        numbers = Numbers.of(then.numbers)
        return numbers, numbers.cells(then.numbers), numbers.cells(now.numbers), slice(None)
    levels = Levels.of_codes(then.codes, then.levels)
    used = levels.rows
    return levels, levels.cells(then.codes[used], then.levels), levels.cells(now.codes, now.levels), used


def _vector(
    reference: Reference, cells: npt.NDArray[np.intp], values: Values, used: slice, weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Weighted counts in the layout of the reference; sums of values are left out."""
    made = np.zeros(reference.width)
    made[: reference.missing_cell + 1] = np.bincount(cells, weights, reference.missing_cell + 1)
    if isinstance(reference, Numbers):
        made[-3] = float(weights[np.isinf(values.numbers[used])].sum())
    return made


def _parts(
    reference: Reference, cells: npt.NDArray[np.intp], values: Values, used: slice, window: int, likeness: Likeness | None
) -> Iterator[tuple[Cells, Cells]]:
    """Parts of the reference from its second third on, each with all that came before it, weighted to be like the part: what the
    reference would have shown on the way. A trend shows in it, which leaving a part out of the middle would hide."""
    rows = len(cells)
    parts = int(np.clip(rows // max(window, 1), FEWEST_PARTS, MOST_PARTS))
    if rows < parts:
        return
    part_of = np.arange(rows) * parts // rows
    for part in range(parts // 3, parts):
        inside, before = part_of == part, part_of < part
        weights = before.astype(np.float64)
        if likeness is not None:
            slots = likeness.then[used]
            weights[before] = likeness.weights(slots[before], slots[inside])
        now = _vector(reference, cells, values, used, inside.astype(np.float64))
        yield now, _vector(reference, cells, values, used, weights)
