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
from ..windows.kernel import SIZE, kernel, run
from ..windows.machine_code import machine_code
from ..windows.packing import taken
from ..windows.shape import Shape
from . import freshness
from .freshness import limits, status_of

__all__ = ["Answering"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int8]


def answered(
    words: Floats, ends: Ints, index: Ints, order: Ints, moments: Ints, row: Floats, merged: Floats, head: int,
    slot: Ints, kind: Ints, value: Floats, want: Ints, log: Ints,
    tag: float, tracks: Ints, decays: Ints, rings: Ints, windows: Ints, features: Ints, arguments: Floats,
    own: Ints, until: Ints, promised: Ints, out: Floats, effective: Ints, newest: Ints, codes: Codes,
) -> int:  # fmt: skip
    """Answer the rows `order`, which come by entity: row i is about entity `index[i]`, whose head and tail end in `words` at
    `ends[2 * entity]` and the one after (no bytes: nobody that is known), as of `moments[i]`.

    `row` and `merged` are one row each to work in, empty; `slot` to `log` what one read is to the kernel, `tag` to `arguments`
    the tables of the shape; `own[:until[v]]` and on are where view v finds the times of its events, `promised[v]` its `limits`.
    Writes `out[i]`, `effective[i]`, and by view `newest[i]` and `codes[i]`. Returns the first entity that is of another layout,
    or -1.
    """
    before, where = -1, np.empty(rings[:, SIZE].sum(), np.int64)
    for i in order:
        entity = index[i]
        if entity != before:
            if before >= 0:
                merged[:] = 0.0
            before = entity
            begin = ends[2 * entity - 1] if entity > 0 else 0
            end, last = ends[2 * entity], ends[2 * entity + 1]
            if end == begin:
                row[:] = 0.0
            elif taken(row[0], words, begin, end, last, head, rings, tag, False, where) < 0:
                return int(entity)
        run(
            row, merged, slot, moments[i : i + 1], kind, value, want, 0, tag, tracks, decays, rings, windows, features,
            arguments, out[i : i + 1], effective[i : i + 1], log,
        )  # fmt: skip
        first = 0
        for v in range(len(until)):
            latest = -1
            for at in own[first : until[v]]:
                if row[0, at] > 0.0:
                    latest = max(latest, int(row[0, at + 1]))
            first, newest[i, v] = until[v], latest
            codes[i, v] = status_of(latest, moments[i], effective[i], promised[v, 0], promised[v, 1])
    return -1


_MATRIX, _FLOATS, _TABLE, _INTS = "float64[:,::1]", "float64[::1]", "int64[:,::1]", "int64[::1]"
_SIGNATURE = [
    _FLOATS, _INTS, _INTS, _INTS, _INTS, _MATRIX, _MATRIX, "int64", _INTS, _INTS, _MATRIX, _INTS, _TABLE,
    "float64", *[_TABLE] * 5, _FLOATS, _INTS, _INTS, _TABLE, _MATRIX, _INTS, _TABLE, "int8[:,::1]",
]  # fmt: skip


def machine_code_of(sketches: bool) -> Callable[..., int]:
    """`answered` in machine code: 3 s the first time on a machine, besides the kernel's."""
    names = {**vars(packing), **vars(freshness), **globals(), "run": kernel(sketches)}
    parts = (status_of, taken, names["run"], answered)
    made: Callable[..., int] = machine_code(answered, f"int64({','.join(_SIGNATURE)})", parts, names)
    return made


class Answering:
    """Answers for `views`, which are of one hop, from states of `shape`. Holds nothing of a read: threads may share it."""

    def __init__(self, shape: Shape, views: Sequence[View]) -> None:
        self._shape, self._answered = shape, machine_code_of(shape.sketches)
        own = [np.unique(shape.track_table[shape.tracks_of(view), 1]) for view in views]
        self._views = np.concatenate(own), np.cumsum([len(places) for places in own]), np.array([limits(view) for view in views])
        tracks = max(len(shape.tracks), 1)
        one = np.zeros(1, np.int64)
        self._read = one, one - 1, np.full((1, tracks), np.nan), one + 1, np.empty((1, 3), np.int64)
        """What a read is to the kernel: of slot 0, of no kind, without values, with a row; nothing is logged."""

    def __call__(
        self, heads: Sequence[bytes], tails: Sequence[bytes], index: Ints, moments: Ints
    ) -> tuple[Floats, Ints, Ints, Codes]:
        """Of every row: its window values (n, columns), when its windows end (n,), and by view its newest event and its code of
        `STATUSES` (n, views). Row i is about entity `index[i]` of `heads` and `tails` (which may be empty, where
        there are no windows), at `moments[i]`. ValueError when a state is of another version of the views."""
        n, shape, views = len(moments), self._shape, len(self._views[1])
        states = list(chain.from_iterable(zip(heads, tails, strict=True))) if tails else heads
        ends = np.fromiter(map(len, states), np.int64, len(states)).cumsum() // 8
        if not tails:
            ends = ends.repeat(2)
        out, effective = np.empty((n, max(len(shape.features), 1))), np.empty(n, np.int64)
        newest, codes = np.empty((n, views), np.int64), np.empty((n, views), np.int8)
        wrong = self._answered(
            np.frombuffer(bytearray().join(states)), ends, index, _by_entity(index, len(heads)), moments,
            np.zeros((1, shape.words)), np.zeros((1, shape.merged_words)), shape.head,
            *self._read, *shape.tables, *self._views, out, effective, newest, codes,
        )  # fmt: skip
        if wrong >= 0:
            raise ValueError(f"state {wrong} belongs to another version of the views")
        return out[:, : len(shape.columns)], effective, newest, codes


def _by_entity(index: Ints, entities: int) -> Ints:
    """The order of rows in which each entity is unpacked once."""
    if len(index) == entities and (entities == 1 or bool((index[1:] > index[:-1]).all())):
        return index  # most often: a row for each
    return np.argsort(index, kind="stable")
