"""Compare two tables: a verdict for each column and for the whole, with what it was made from.

    compare(reference, current)                    pandas frames, pyarrow tables, .parquet or .csv files
    compare(..., like="at")                        each hour of the week with the same hour of the week

The rows of the reference are taken to be in order of time: parts of it, as long as the current table, teach how far it moves by
itself. In no order they are all alike, and teach nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from ..errors import PenstockError
from ..mistake import nearest
from ..statistics.drift import ALPHA, FLOORS, Column, Counted, judged, learnt
from ..statistics.reference import Levels, Numbers, Reference
from .columns import Kind, Values, as_kind, common, values_of
from .likeness import Likeness
from .past import Past
from .result import Comparison

if TYPE_CHECKING:
    import pandas as pd

    from ..drift import Rows

__all__ = ["compare"]

IDENTIFIES: Final = 0.5
"""Different levels per row from which on a column of texts names its rows, so that no two tables are alike."""
WORDS: Final = {"numbers": "numbers", "levels": "texts", "bool": "truth values", "times": "times"}
FEW: Final = 20
"""So few different levels are never taken for names of rows."""


class _Pair(NamedTuple):
    then: Values
    now: Values


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
    likeness = Likeness(then, now, likes) if likes and len(then) and len(now) else None
    past = Past(len(then), len(now), likeness)
    settled = dict[str, Column]()
    pairs = dict[str, _Pair]()
    for name in names:
        found = _pair(name, then, now) if name not in likes else _unknown(name, "levels", "the rows are compared within it")
        if isinstance(found, Column):
            settled[name] = found
        else:
            pairs[name] = found
    counted = {name: _counted(name, pair, past, floor) for name, pair in pairs.items()}
    settled |= {column.name: column for column in judged(list(counted.values()), alpha)}
    together = None
    if multivariate:
        from .together import told_apart

        together = told_apart([(pair.then, pair.now) for pair in pairs.values()], alpha)
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


def _pair(name: str, then: pd.DataFrame, now: pd.DataFrame) -> _Pair | Column:
    """Both sides of a column as of one kind, or what there is to say instead."""
    if name not in now.columns:
        return Column(name=name, kind="gone", verdict="drift", why="the current table has no such column")
    if name not in then.columns:
        return Column(name=name, kind="new", verdict="unknown", why="the reference has no such column")
    past, present = values_of(then[name]), values_of(now[name])
    kind = common(past.kind, present.kind)
    if kind is None:
        why = f"it was of {WORDS[past.kind]}, and is of {WORDS[present.kind]}"
        return Column(name=name, kind=present.kind, verdict="drift", why=why)
    if kind == "times":
        return _unknown(name, kind, "times move by themselves: compare an hour, a weekday or an age instead")
    if kind == "empty":
        kind = "numbers"
    pair = _Pair(as_kind(past, kind), as_kind(present, kind))
    names_rows = _names_rows(pair.then, kind) if len(now) else ""  # no rows are told first
    return _unknown(name, kind, names_rows) if names_rows else pair


def _counted(name: str, pair: _Pair, past: Past, floor: float | None) -> Counted:
    then, now = pair
    reference: Reference
    if then.kind == "numbers":
        reference = Numbers.of(then.numbers)
        counts = reference.count(now.numbers)
    else:
        reference = Levels.of_codes(then.codes, then.levels)
        counts = reference.count_codes(now.codes, now.levels)
    floors = learnt(reference, past.went(reference, then)) if floor is None else {**FLOORS, "distribution": floor}
    return Counted(name, reference, counts, past.counts(reference, then), floors)


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
