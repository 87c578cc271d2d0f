"""The order of events: one rule, by which the stream, its hops, a frame, and the proof lay what happened in one line.

    (E, late, rank, id, place)

E      the *effective* time: the greatest time that the event's source (its topic partition) has shown so far, and never less than
       what the stream had released already when the event was read. So E never falls within a source
late   whether its own time is less than E. What is late comes after all whose own time E is: the stream may have processed those
rank   of its kind, as the project declares them
id     of events on time. Late ones have no such word: among them the place decides, which is the order of arrival
place  (partition, offset) in its topic

What is released together at an E is all that has this E, so the rule does not depend on how records were batched, or through how
many partitions they came, as long as each source is in order of time. E follows from the events of a source alone, but for one
thing: that the stream had passed the source (it was silent, or somebody closed a time and then published earlier events). The
feature store tells that on `<p>.passed`, so E, and with it the order of a whole log, is known from what is archived.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["kinds_of", "order_of"]

Ints = npt.NDArray[np.int64]
Column = npt.NDArray[Any]

_LATE: Final = 1 << 32
"""More than any rank."""


def kinds_of(ranks: Ints, late: npt.NDArray[np.bool_]) -> Ints:
    """(late, rank) as one number."""
    return np.asarray(ranks + late * _LATE, np.int64)


def order_of(
    effective: Ints,
    late: npt.NDArray[np.bool_],
    ranks: Ints,
    ids: Callable[[Ints], Column],
    places: tuple[Ints, ...],
    whose: Ints | None = None,
) -> Ints:
    """The permutation (n,) that lays events in order; with `whose`, one entity after the other. Effective times are integer
    microseconds; `ids` gives the ids of events by number, and is asked only for those that tie; `places` has the greater part
    of a place first.

    >>> ids, offsets = np.array(["b", "a", "z", "c"]), np.arange(4)
    >>> order_of(np.array([9, 9, 9, 9]), np.array([False, False, True, True]), np.zeros(4, int), ids.__getitem__, (offsets,))
    array([1, 0, 2, 3])
    """
    words = (kinds_of(ranks, late), effective) if whose is None else (kinds_of(ranks, late), effective, whose)
    order = np.lexsort(words)
    tied = np.ones(max(len(order) - 1, 0), bool)
    for word in words:
        tied &= word[order[1:]] == word[order[:-1]]
    if not tied.any():
        return order
    run = np.cumsum(np.append(True, ~tied))
    within = np.append(tied, False) | np.append(False, tied)
    rows = order[within]
    names, named = np.zeros(len(rows), np.int64), ~late[rows]
    names[named] = _numbered(ids(rows[named]))
    order[within] = rows[np.lexsort((*(place[rows] for place in reversed(places)), names, run[within]))]
    return order


def _numbered(names: Column) -> Column:
    """Numbers in the order of names."""
    if names.dtype != object:
        return np.unique(names, return_inverse=True)[1]
    place = {name: i for i, name in enumerate(sorted(set(names.tolist())))}
    return np.fromiter(map(place.__getitem__, names.tolist()), np.int64, len(names))
