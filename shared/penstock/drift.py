"""The word `drift` in a project: `ps.drift(...)` declares a monitor, `ps.drift.compare(...)` asks the same of two tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import update_wrapper
from os import PathLike
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeAlias

from . import policy

if TYPE_CHECKING:
    from .comparison.result import Comparison

__all__ = ["Frame", "Rows", "drift"]

P = ParamSpec("P")


class Frame(Protocol):
    """A pandas DataFrame, or what can become one (`to_pandas`): a pyarrow Table. No name of theirs is needed to check types."""

    @property
    def columns(self) -> Any: ...

    def __len__(self) -> int: ...


Rows: TypeAlias = Frame | str | PathLike[str]
"""A frame, a table, or the path of a .parquet or .csv file."""


class _Drift(Generic[P]):
    def __init__(self, declared: Callable[P, policy.Drift]) -> None:
        self._declared = declared
        update_wrapper(self, declared)

    def __call__(self, *inputs: P.args, **options: P.kwargs) -> policy.Drift:
        return self._declared(*inputs, **options)

    def compare(
        self,
        reference: Rows,
        current: Rows,
        *,
        columns: Sequence[str] | None = None,
        like: str | Sequence[str] = (),
        alpha: float = 0.01,
        floor: float | None = None,
        multivariate: bool = False,
    ) -> Comparison:
        """Has the current table drifted from the reference? See `penstock.comparison.compare.compare`.

        `columns`: which to compare (all). `like`: columns whose equal values belong together; a column of times stands for
        its hour of the week. `alpha`: how often a table in which nothing has changed may be called drifted. `floor`: the
        least distance of a distribution that matters (0 to 1); without it, what the reference does to itself, and 0.05 at
        least. `multivariate`: also whether a classifier can tell the two apart by all columns together (needs scikit-learn).
        """
        from .comparison.compare import compare

        return compare(
            reference, current, columns=columns, like=like, alpha=alpha, floor=floor, multivariate=multivariate
        )  # fmt: skip


drift = _Drift(policy.drift)
