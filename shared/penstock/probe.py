"""Does a derived feature mean the same for one row as for many? Services evaluate it on arrays, `replay` row by row.

A body with `if`, `math.sqrt` or `max` works on one of the two only. Both are tried on drawn rows, with missing values
(NaN), zeros and large numbers among them, and compared.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .event import Event
    from .feature import Derived, View
    from .project import Project

__all__ = ["probe"]

DRAWN: Final = 64
"""Rows; the first few hold the values that go wrong most often."""

AWKWARD: Final = (0.0, 1.0, -1.0, math.nan, 1e12, 1e-9)

SEED: Final = 7


def probe(project: Project) -> list[str]:
    """What is wrong with the derived features of a project, in words; empty when nothing is."""
    found = []
    for hop in project.topology.hops:
        for view in hop.views:
            for item in view.derived:
                found += _differences(view, item, _events(project, view, item))
    return found


def _events(project: Project, view: View, item: Derived[float]) -> list[Event | None]:
    """The events that the body is given: those whose rows read the view, if it asks for one."""
    if not item.wants_event:
        return [None]
    return [e for e, views in project.topology.reads.items() if view in views and item.event_hint in (e.type, e.type.__name__)]


def _differences(view: View, item: Derived[float], events: list[Event | None]) -> list[str]:
    if not events:
        return [f"{item!r} asks for {item.event_hint}, but no row of that event reads {view.name}, so it is always missing"]
    for event in events:
        problem = _difference(view, item, event)
        if problem:
            return [f"{item!r} {problem}"]
    return []


def _difference(view: View, item: Derived[float], event: Event | None) -> str:
    import numpy as np

    random = np.random.default_rng(SEED)
    earlier = view.derived[: view.derived.index(item)]  # a body may use those above it
    names = [*(f.name for f in view.features), *(d.name for d in earlier)]
    row = {name: _drawn(random) for name in names}
    now = {c.name: _drawn(random) for c in event.columns.values() if c.kind == "number"} if event is not None else None
    with np.errstate(all="ignore"):
        try:
            many = np.broadcast_to(np.asarray(_call(item, row, now), float), (DRAWN,))
        except Exception as error:
            return f"fails on arrays: {type(error).__name__}: {error}"
        for index in range(DRAWN):
            one = {name: float(values[index]) for name, values in row.items()}
            this = None if now is None else {name: float(values[index]) for name, values in now.items()}
            try:
                single = float(_call(item, one, this))
            except (ZeroDivisionError, OverflowError, ValueError):
                single = math.nan  # what numpy calls NaN or infinite, and services therefore call missing
            except Exception as error:
                return f"fails on one row: {type(error).__name__}: {error}"
            if not _same(single, float(many[index])):
                return f"is {single:.6g} for one row and {many[index]:.6g} among many, for {one | (this or {})}"
    return ""


def _drawn(random: Any) -> Any:
    import numpy as np

    drawn = np.round(random.lognormal(2.0, 1.5, DRAWN), 3)
    places = random.permutation(DRAWN)[: 2 * len(AWKWARD)]
    drawn[places] = np.tile(AWKWARD, 2)
    return drawn


def _call(item: Derived[float], row: dict[str, Any], now: dict[str, Any] | None) -> Any:
    arguments = (SimpleNamespace(**row),) if now is None else (SimpleNamespace(**row), SimpleNamespace(**now))
    return item.body(*arguments)


def _same(one: float, other: float) -> bool:
    """Equal to 1e-9; what is not finite is missing in both."""
    if not math.isfinite(one) or not math.isfinite(other):
        return not math.isfinite(one) and not math.isfinite(other)
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
