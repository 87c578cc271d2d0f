"""Derived features over columns: the same bodies that `replay` calls row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..event import Event
from ..feature import Derived
from .panes import Shape, numbers

__all__ = ["Plan"]

Floats = npt.NDArray[np.float64]


class Plan:
    """Derived features of the views of one hop, from window columns to all columns, in rows' order."""

    def __init__(self, shape: Shape) -> None:
        self._shape, self._derived = shape, any(view.derived for view in shape.views)
        self.columns = tuple(name for view in shape.views for name in view.columns)

    def complete(self, windows: Floats, event: Event, decoded: Sequence[Any]) -> Floats:
        """(n, windows) -> (n, all columns) for rows of one event; a derived feature of another event is NaN."""
        if not self._derived:
            return windows
        index = {name: i for i, name in enumerate(self._shape.columns)}
        parts = []
        for view in self._shape.views:
            row = _Columns({})
            for feature in view.features:
                own = [windows[:, index[name]] for name in feature.columns]
                parts += own
                feature.put(row.__dict__, own)
            for item in view.derived:
                parts.append(_evaluate(item, row, event, decoded, len(windows)))
                row.__dict__[item.name] = parts[-1]
        return np.ascontiguousarray(np.stack(parts, 1))


class _Columns:
    """Arrays by attribute, for bodies of derived features."""

    def __init__(self, columns: dict[str, Floats]) -> None:
        self.__dict__.update(columns)


def _evaluate(item: Derived[float], row: _Columns, event: Event, decoded: Sequence[Any], n: int) -> Floats:
    if item.wants_event:
        if item.event_hint not in (event.type, event.type.__name__):
            return np.full(n, np.nan)
        numeric = [c for c in event.columns.values() if c.kind == "number"]
        now = _Columns({column.name: numbers(column, decoded) for column in numeric})
        arguments: tuple[Any, ...] = (row, now)
    else:
        arguments = (row,)
    with np.errstate(all="ignore"):
        found = np.asarray(item.body(*arguments), float)
    found = np.broadcast_to(found, (n,)).copy()
    found[~np.isfinite(found)] = np.nan
    return found
