"""Probe: the code in a project file is tried. Do models return learners, and do derived features mean the same for one row
as for many? Do the functions around models answer at all?

Services evaluate a derived feature on arrays, `replay` row by row; a body with `if`, `math.sqrt` or `max` works on one of
the two only. Both are tried on drawn rows, with missing values (NaN), zeros and large numbers among them, and compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from ..mistake import Mistake, stopped
from ..model import Learner

if TYPE_CHECKING:
    from ..event import Event
    from ..feature import Derived, View
    from ..project import Project

__all__ = ["functions", "learners", "probe"]

DRAWN: Final = 64
"""Rows; the first few hold the values that go wrong most often."""

AWKWARD: Final = (0.0, 1.0, -1.0, math.nan, 1e12, 1e-9)

SEED: Final = 7

NUMPY: Final = "write it with numpy arithmetic, such as np.where(...) instead of if"


def probe(project: Project) -> list[Mistake]:
    """What is wrong with the derived features of a project."""
    found = []
    for view in (view for hop in project.topology.hops for view in hop.views):
        for item in view.derived:
            events = _events(project, view, item)
            problem = next(filter(None, (_difference(view, item, event) for event in events)), "")
            if not events:
                problem = f"asks for {item.event_hint}, but no row of that event reads {view.name}: it is always missing"
            if problem:
                found.append(_at(item.body, f"{item!r} {problem}"))
    return found


def learners(project: Project) -> tuple[dict[str, Learner], list[Mistake]]:
    """What the models return, by name, and what is wrong with it. A model that needs a package which is not installed here is
    left out."""
    made: dict[str, Learner] = {}
    wrong = []
    for model in project.models:
        try:
            learner: object = model.build()
        except ModuleNotFoundError:
            continue
        except Exception as error:
            wrong.append(stopped(error))
            continue
        if isinstance(learner, Learner):
            made[model.name] = learner
        else:
            wrong.append(_at(model.build, f"{model.name}() returns no learner; end it with: return ps.Learner(batch=...)"))
    return made, wrong


def functions(project: Project) -> list[Mistake]:
    """What is wrong with functions before and after models: those that fail on each of a few rows without missing values. One
    that refuses rows, or fails on some, may be right to."""
    import numpy as np
    from structlog.testing import capture_logs

    from ..errors import PenstockError
    from ..scoring.around import Functions, Plan
    from ..scoring.process import FunctionFailed

    wrong = []
    for model in project.models:
        if (either := model.before or model.after) is None:
            continue
        names, classes, opened = model.inputs, len(model.label.classes), Functions(Plan.of(model))
        rows = np.repeat(np.array([[0.5], [1.0], [2.0]], np.float32), len(names), axis=1)
        scores = np.full((len(rows), classes) if classes else len(rows), 1.0 / (classes or 2))
        try:
            with capture_logs():  # what fails is told below
                around = opened.declared(model.label.task)
                assert around is not None
                for made, why in (
                    (model.before, around.seen(names, rows)[1]),
                    (model.after, around.said(names, rows, scores)[1]),
                ):
                    if made is not None and len(failed := [e for e in why.values() if isinstance(e, FunctionFailed)]) == len(
                        rows
                    ):
                        wrong.append(_at(made, f"model {model.name}: {failed[0].why}, on every row tried"))
        except PenstockError as error:
            wrong.append(_at(either, f"model {model.name}: {error}; {error.fix}"))
        finally:
            opened.close()
    return wrong


def _at(body: Callable[..., object], what: str) -> Mistake:
    return Mistake(body.__code__.co_filename, body.__code__.co_firstlineno, what)


def _events(project: Project, view: View, item: Derived[float]) -> list[Event | None]:
    """The events that the body is given: those whose rows read the view, if it asks for one."""
    if not item.wants_event:
        return [None]
    return [e for e, views in project.topology.reads.items() if view in views and item.event_hint in (e.type, e.type.__name__)]


def _difference(view: View, item: Derived[float], event: Event | None) -> str:
    import numpy as np

    random = np.random.default_rng(SEED)
    earlier = view.derived[: view.derived.index(item)]  # a body may use those above it
    row: dict[str, Any] = {}
    for feature in view.features:
        feature.put(row, [_drawn(random) for _ in feature.parts])
    row |= {derived.name: _drawn(random) for derived in earlier}
    now = {c.name: _drawn(random) for c in event.columns.values() if c.kind == "number"} if event is not None else None
    with np.errstate(all="ignore"):
        try:
            many = np.broadcast_to(np.asarray(_call(item, row, now), float), (DRAWN,))
        except Exception as error:
            return f"fails on arrays: {type(error).__name__}: {error}; {NUMPY}"
        for index in range(DRAWN):
            one = {name: _nth(values, index) for name, values in row.items()}
            this = None if now is None else {name: float(values[index]) for name, values in now.items()}
            try:
                single = float(_call(item, one, this))
            except (ZeroDivisionError, OverflowError, ValueError):
                single = math.nan  # what numpy calls NaN or infinite, and services therefore call missing
            except Exception as error:
                return f"fails on one row: {type(error).__name__}: {error}"
            if not _same(single, float(many[index])):
                return f"is {single:.6g} for one row and {many[index]:.6g} among many, for {one | (this or {})}; {NUMPY}"
    return ""


def _nth(values: Any, index: int) -> Any:
    """One row's value of a feature: a number, a tuple or a mapping of numbers."""
    if isinstance(values, tuple):
        return tuple(_nth(each, index) for each in values)
    if isinstance(values, dict):
        return {name: _nth(each, index) for name, each in values.items()}
    return float(values[index])


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
