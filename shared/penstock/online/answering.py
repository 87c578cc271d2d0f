"""From the bytes of entities in the store to answers about them, in one loop of machine code: unpack, put windows together by the
kernel that the stream uses, say how each view stands.

One entity at a time lies in the workspace, a row that stays in the processor's nearest cache, however many are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from ..feature import View
from ..windows import packing
from ..windows.kernel import READING, SIZE, parts_of, valued
from ..windows.machine_code import machine_code
from ..windows.packing import taken
from ..windows.shape import Shape
from . import freshness
from .freshness import limits, status_of

__all__ = ["Answering"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int8]

_TOGETHER = 512 << 10
"""Bytes of states that are put together at a time: the processor's cache holds them, and the allocator keeps such a piece, where
the pages of a large one are given back to the system after each read and cost more than all else when they come anew."""


def answered(
    words: Floats, ends: Ints, before: int, index: Ints, order: Ints, moments: Ints, row: Floats, merged: Floats,
    scratch: Floats, head: int, tag: float, tracks: Ints, decays: Ints, rings: Ints, windows: Ints, features: Ints,
    arguments: Floats, own: Ints, until: Ints, promised: Ints, out: Floats, effective: Ints, newest: Ints, codes: Codes,
) -> int:  # fmt: skip
    """Answer the rows `order`, which come by entity: row i is about entity `index[i]`, as of `moments[i]`. Head and tail of the
    n-th entity after `before` others end in `words` at `ends[2 * n]` and the one after (no bytes: nobody that is known).

    `row`, `merged` and `scratch` are to work in; `tag` to `arguments` the tables of the shape; `own[:until[v]]` and on
    are where view v finds the times of its events, `promised[v]` its `limits`. Writes `out[i]`, `effective[i]`, and by view
    `newest[i]` and `codes[i]`. Returns the first entity that is of another layout, or -1.
    """
    known, where = -1, np.empty(rings[:, SIZE].sum(), np.int64)
    for i in order:
        entity = index[i] - before
        if entity != known:
            known = entity
            merged[:] = 0.0
            begin = ends[2 * entity - 1] if entity > 0 else 0
            end, last = ends[2 * entity], ends[2 * entity + 1]
            if end == begin:
                row[:] = 0.0
            elif taken(row, words, begin, end, last, head, rings, tag, False, where) < 0:
                return int(entity + before)
        moment = moments[i]
        if row[0] > 0.0:
            moment = max(moment, int(row[1]))
        effective[i] = moment
        valued(row, merged, scratch, moment, tracks, decays, rings, windows, features, arguments, out[i])
        first = 0
        for v in range(len(until)):
            latest = -1
            for at in own[first : until[v]]:
                if row[at] > 0.0:
                    latest = max(latest, int(row[at + 1]))
            first, newest[i, v] = until[v], latest
            codes[i, v] = status_of(latest, moments[i], moment, promised[v, 0], promised[v, 1])
    return -1


_MATRIX, _FLOATS, _TABLE, _INTS = "float64[:,::1]", "float64[::1]", "int64[:,::1]", "int64[::1]"
_SIGNATURE = [
    _FLOATS, _INTS, "int64", _INTS, _INTS, _INTS, *[_FLOATS] * 3, "int64", "float64", *[_TABLE] * 5, _FLOATS,
    _INTS, _INTS, _TABLE, _MATRIX, _INTS, _TABLE, "int8[:,::1]",
]  # fmt: skip


def machine_code_of(sketches: bool) -> Callable[..., int]:
    """`answered` in machine code, which takes 5 s (15 s with sketches) the first time on a machine."""
    parts, names = parts_of((*READING, status_of, taken, answered), sketches)
    names = {**vars(packing), **vars(freshness), **names, **globals()}
    made: Callable[..., int] = machine_code(answered, f"int64({','.join(_SIGNATURE)})", parts, names)
    return made


class Answering:
    """Answers for `views`, which are of one hop, from states of `shape`. Holds nothing of a read: threads may share it."""

    def __init__(self, shape: Shape, views: Sequence[View]) -> None:
        self._shape, self._answered = shape, machine_code_of(shape.sketches)
        own = [np.unique(shape.track_table[shape.tracks_of(view), 1]) for view in views]
        self._views = np.concatenate(own), np.cumsum([len(places) for places in own]), np.array([limits(view) for view in views])

    def __call__(
        self, heads: Sequence[bytes], tails: Sequence[bytes], index: Ints, moments: Ints
    ) -> tuple[Floats, Ints, Ints, Codes]:
        """Of every row: its window values (n, columns), when its windows end (n,), and by view its newest event and its code of
        `STATUSES` (n, views). Row i is about entity `index[i]` of `heads` and `tails` (which may be empty, where
        there are no windows), at `moments[i]`. ValueError when a state is of another version of the views."""
        n, shape, views = len(moments), self._shape, len(self._views[1])
        out, effective = np.empty((n, max(len(shape.features), 1))), np.empty(n, np.int64)
        newest, codes = np.empty((n, views), np.int64), np.empty((n, views), np.int8)
        work = np.empty(shape.words), np.empty(shape.merged_words), np.empty(shape.merged_words), shape.head
        entities = step = len(heads)
        if tails and (size := sum(map(len, tails))) > _TOGETHER:
            step = max(entities * _TOGETHER // size, 1)
        whole = step == entities
        order = np.arange(n) if whole and n <= entities else np.argsort(index, kind="stable")  # each entity is unpacked once
        for first in range(0, entities, max(step, 1)):
            states: Sequence[bytes] = heads[first : first + step]
            rows = order if whole else order[slice(*np.searchsorted(index, (first, first + step), sorter=order))]
            if tails:
                states = list(chain.from_iterable(zip(states, tails[first : first + step], strict=True)))
            ends = np.fromiter(map(len, states), np.int64, len(states)).cumsum() // 8
            wrong = self._answered(
                np.frombuffer(bytearray().join(states)), ends if tails else ends.repeat(2), first, index, rows, moments, *work,
                *shape.tables, *self._views, out, effective, newest, codes,
            )  # fmt: skip
            if wrong >= 0:
                raise ValueError(f"state {wrong} belongs to another version of the views")
        return out[:, : len(shape.columns)], effective, newest, codes
