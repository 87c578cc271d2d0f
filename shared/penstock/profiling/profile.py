"""Profiles: what is in the columns of a table, a frame or a stream, as a value that merges.

    profile(frame, label="late")            of a pandas frame
    Profile.of(columns) .merge(other)       batch by batch, partition by partition, day by day

What merging keeps exact, and what it does not, is said in `summary`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from ..errors import PenstockError
from ..mistake import nearest
from ..records import Described

if TYPE_CHECKING:  # `import penstock` stays light
    import pandas as pd

    from .column import ColumnProfile, Values

__all__ = ["Profile", "profile"]

ROWS: Final = 65_536
"""Rows of a frame that are worked on at once: bounds memory, and shows in no result."""


class Profile:
    """Columns by name, over `rows` rows.

    >>> import numpy as np
    >>> one = Profile.of({"amount": ("float", np.array([1.0, 2.0]))})
    >>> two = Profile.of({"amount": ("float", np.array([6.0, np.nan]))})
    >>> found = one.merge(two).described()["amount"]
    >>> found.rows, found.missing, found.mean, found.greatest
    (4, 1, 3.0, 6.0)
    """

    __slots__ = ("columns", "rows")

    def __init__(self) -> None:
        self.rows = 0
        self.columns: dict[str, ColumnProfile] = {}

    @classmethod
    def of(cls, columns: Mapping[str, Values], label: str | None = None) -> Profile:
        """Of one batch. `label` names the column that numbers are correlated with."""
        made = cls()
        made.add(columns, label)
        return made

    def add(self, columns: Mapping[str, Values], label: str | None = None) -> None:
        """Add a batch, in place; columns of equal length. PenstockError where a column changes from numbers to text."""
        import numpy as np

        from .column import ColumnProfile, either, present

        n = len(next(iter(columns.values()))[1]) if columns else 0
        truth = None
        if label is not None:
            if label not in columns or columns[label][0] not in ("bool", "int", "float"):
                fix = nearest(label, [name for name, (kind, _) in columns.items() if kind in ("bool", "int", "float")])
                raise PenstockError(f"{label!r} is no column of numbers", fix)
            truth = np.array(columns[label][1], np.float64)
        for name, (kind, values) in columns.items():
            column = self.columns.get(name)
            if column is None:
                column = self.columns[name] = ColumnProfile()
                column.rows = column.missing = self.rows
            column.kind = either(column.kind, kind, name)
            column.add(values, present(kind, values), None if name == label else truth)
        self.rows += n
        for column in self.columns.values():  # a column that this batch has not
            column.missing += self.rows - column.rows
            column.rows = self.rows

    def merge(self, other: Profile) -> Profile:
        """Of all rows of both; neither is changed."""
        from .column import either

        made = Profile()
        made.rows = self.rows + other.rows
        for name in dict.fromkeys((*self.columns, *other.columns)):
            one, two = (part.columns.get(name) or _absent(part.rows) for part in (self, other))
            either(one.kind, two.kind, name)
            made.columns[name] = one.merge(two)
        return made

    def described(self) -> dict[str, Described]:
        return {name: column.described() for name, column in self.columns.items()}

    def pack(self) -> bytes:
        """As bytes; `unpack` is the inverse. Equal profiles give equal bytes."""
        state = [self.rows, [(name, column.state()) for name, column in self.columns.items()]]
        return msgspec.msgpack.encode(state)

    @classmethod
    def unpack(cls, stored: bytes) -> Profile:
        from .column import ColumnProfile

        made = cls()
        made.rows, columns = msgspec.msgpack.decode(stored)
        made.columns = {name: ColumnProfile.of_state(state) for name, state in columns}
        return made


def profile(frame: pd.DataFrame, label: str | None = None) -> Profile:
    """The profile of a pandas frame. `label` names a column of numbers or truth values that the others are correlated with.

    PenstockError when there is no such column, or when two columns have the same name.
    """
    from .column import columns_of

    if not hasattr(frame, "columns"):
        said = "a file:  penstock profile --file data.csv   a list:  ps.profile(pd.DataFrame(rows))"
        raise PenstockError(f"ps.profile takes a pandas DataFrame, not a {type(frame).__name__}", said)
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise PenstockError(f"two columns are called {twice!r}", "rename one: frame.columns = [...]")
    made = Profile()
    for start in range(0, max(len(frame), 1), ROWS):
        made.add(columns_of(frame.iloc[start : start + ROWS]), label)
    return made


def _absent(rows: int) -> ColumnProfile:
    """A column of which these rows have nothing."""
    from .column import ColumnProfile

    made = ColumnProfile()
    made.rows = made.missing = rows
    return made
