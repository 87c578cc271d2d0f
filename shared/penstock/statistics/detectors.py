"""Concept drift: detectors of a change in an ordered stream of errors, River's, behind one word.

    adwin         adaptive windowing (Bifet, Gavaldà 2007); sees a fall of the mean, too
    page_hinkley  cumulative sums above the running mean (Page 1954, Hinkley 1971); rises only, unless `mode` says else
    ddm           the error rate three deviations above its lowest (Gama et al. 2004)
    hddm_a        Hoeffding's bound on means, for abrupt changes (Frías-Blanco et al. 2015)
    hddm_w        McDiarmid's bound on weighted means (the same): the quickest here, with the most false alarms

Errors in (0 or 1 for each answer, or a loss for the first two), positions of changes out. They read the order, so a stream
goes to one detector whole, in the order in which its outcomes became known: counts of windows add, these do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, Protocol

from ..errors import PenstockError
from ..mistake import nearest

__all__ = ["DETECTORS", "Detector", "changes", "detector"]

DETECTORS: Final = ("adwin", "ddm", "hddm_a", "hddm_w", "page_hinkley")


class Detector(Protocol):
    """Takes one error after the other; starts anew by itself after a change."""

    @property
    def drift_detected(self) -> bool: ...

    def update(self, x: Any, /) -> Any: ...


def detector(name: str, **settings: Any) -> Detector:
    """A fresh detector; `settings` are River's. PenstockError for another name."""
    from river import drift
    from river.drift import binary

    if name not in DETECTORS:
        raise PenstockError(f"there is no detector {name!r}", nearest(name, DETECTORS))
    if name == "page_hinkley":
        settings = {"mode": "up", **settings}
    kinds = {
        "adwin": drift.ADWIN,
        "ddm": binary.DDM,
        "hddm_a": binary.HDDMA,
        "hddm_w": binary.HDDMW,
        "page_hinkley": drift.PageHinkley,
    }
    found: Detector = kinds[name](**settings)
    return found


def changes(errors: Iterable[float], by: str = "adwin", **settings: Any) -> Iterator[int]:
    """Where the errors changed: positions, from 0, of the errors at which it was seen.

    >>> list(changes([0.0] * 500 + [1.0] * 500))
    [511]
    """
    found = detector(by, **settings)
    for at, error in enumerate(errors):
        found.update(error)
        if found.drift_detected:
            yield at
