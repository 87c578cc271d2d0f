"""Panes: the window state of all entities of one hop partition, in memory, and what of it has to be stored."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import packing
from .kernel import kernel
from .shape import Shape, numbers

__all__ = ["Panes", "Shape", "numbers"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MEMORY = 1 << 30
"""Bytes of words after which the entities that have been quiet longest leave memory (they are in the store)."""


REMAPS = sys.platform == "linux"
"""Whether memory can grow in place (mremap)."""


class _Growing:
    """Zeroed float64 rows in anonymous memory that doubles by remapping its pages, or by a copy where the system has no such
    call. No view may live across `grown`."""

    def __init__(self, rows: int, words: int) -> None:
        self._words = words
        self._memory: Any = np.zeros(rows * words)
        if REMAPS:
            self._memory = mmap.mmap(-1, rows * words * 8, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def matrix(self) -> Floats:
        return np.frombuffer(self._memory, np.float64).reshape(-1, self._words)

    def grown(self) -> Floats:
        if REMAPS:
            self._memory.resize(2 * len(self._memory))
        else:
            before, self._memory = self._memory, np.zeros(2 * len(self._memory))
            self._memory[: len(before)] = before
        return self.matrix()


class Panes:
    """`slot` numbers entities as they come; matrices grow by remapping (Linux), so that no word is copied, and none costs
    memory before it is used. `pack` gives what changed since the last call as (head, tail) bytes per entity (see `packing`);
    `restore` is its inverse. Entities that were packed may leave memory (`shed`) and are restored when they are needed."""

    def __init__(self, shape: Shape, capacity: int = 256, run: Callable[..., int] | None = None) -> None:
        self.shape = shape
        self._run = run or kernel(shape.sketches)
        self._slots: dict[str, int] = {}
        self._names: list[str] = []
        self._free: list[int] = []
        self._states, self._merges = _Growing(capacity, shape.words), _Growing(capacity, shape.merged_words)
        self._state, self._merged = self._states.matrix(), self._merges.matrix()
        self._tails = np.zeros(capacity, np.int64)
        """How many entries lie in each stored tail."""
        self._touched: list[Ints] = []
        self._log: list[Ints] = []
        self.room = max(MEMORY // (8 * (shape.words + shape.merged_words)), 1024)

    def __len__(self) -> int:
        return len(self._slots)

    def unknown(self, entities: Iterable[str | None]) -> list[str]:
        """Those that are not in memory, each once; None is nobody."""
        return sorted(e for e in set(entities).difference(self._slots) if e is not None)

    def slots(self, entities: Sequence[Any]) -> Ints:
        """The slots of entities that are in memory."""
        return np.fromiter(map(self._slots.__getitem__, entities), np.int64, len(entities))

    def slot(self, entity: str) -> int:
        """The slot of an entity, a new one if it is not in memory."""
        found = self._slots.get(entity)
        if found is None:
            if self._free:
                found = self._free.pop()
                self._names[found] = entity
            else:
                found = len(self._names)
                self._names.append(entity)
            self._slots[entity] = found
            if found == len(self._state):
                del self._state, self._merged
                self._state, self._merged = self._states.grown(), self._merges.grown()
                self._tails = np.concatenate([self._tails, np.zeros_like(self._tails)])
        return found

    def apply(self, slots: Ints, times: Ints, kinds: Ints, values: Floats, want: Ints, keep: bool = True) -> tuple[Floats, Ints]:
        """Rows (n, columns) and effective times of events in order; with `keep` False a read that changes nothing."""
        n, shape = len(slots), self.shape
        out = np.full((n, max(len(shape.features), 1)), np.nan)
        effective = np.empty(n, np.int64)
        log = np.empty((n * len(shape.rings) * 2 + 1, 3), np.int64)
        logged = self._run(
            self._state, self._merged, slots, times, kinds, np.ascontiguousarray(values), want, int(keep),
            *shape.tables, out, effective, log,
        )  # fmt: skip
        if keep and n:
            self._touched.append(slots)
            if logged:
                self._log.append(log[:logged].copy())
        return out[:, : len(shape.columns)], effective

    def pack(self) -> tuple[dict[str, bytes], dict[str, bytes], list[str]]:
        """Heads and tails by entity since the last pack, and the entities whose tail must be cut first (compacted)."""
        shape, heads, tails, cut = self.shape, dict[str, bytes](), dict[str, bytes](), list[str]()
        if not self._touched:
            return heads, tails, cut
        touched = np.unique(np.concatenate(self._touched))
        ends, out = np.empty(len(touched), np.int64), np.empty(len(touched) * (shape.head + int((shape.rings[:, 3] + 1).sum())))
        packing.heads_of()(self._state, touched, shape.head, shape.rings, out, ends)
        heads = dict(zip((self._names[s] for s in touched.tolist()), _cut(out, ends), strict=True))
        if self._log:
            entries = np.concatenate(self._log)
            entries = entries[np.lexsort(entries.T[::-1])]
            entries = entries[np.append(True, (entries[1:] != entries[:-1]).any(axis=1))]
            ends, out = np.empty(len(entries), np.int64), np.empty(int((shape.rings[entries[:, 1], 3] + 2).sum()))
            packing.tails_of()(self._state, entries, shape.rings, out, ends)
            lasts = np.flatnonzero(np.diff(entries[:, 0], append=-1))
            slots = entries[lasts, 0]
            self._tails[slots] += np.diff(lasts, prepend=-1)
            tails = {self._names[s]: tail for s, tail in zip(slots.tolist(), _cut(out, ends[lasts]), strict=True) if tail}
            most = 2 * shape.rings[:, 1].sum()
            for slot in slots[self._tails[slots] > most].tolist():
                words = np.empty(int((shape.rings[:, 1] * (shape.rings[:, 3] + 2)).sum()))
                used = packing.whole_of()(self._state[slot], shape.rings, words)
                cut.append(self._names[slot])
                tails[self._names[slot]] = words[:used].tobytes()
                self._tails[slot] = 0  # not counted again: an upper bound is all that is needed
        self._touched, self._log = [], []
        return heads, tails, cut

    def restore(self, entity: str, head: bytes, tail: bytes) -> None:
        """Load an entity as `pack` wrote it; empty bytes: a new one."""
        self.restore_all(np.array([self.slot(entity)]), [head], [tail])

    def restore_all(self, slots: Ints, heads: Sequence[bytes], tails: Sequence[bytes] = ()) -> None:
        """Load entities as `pack` wrote them into slots, whatever was there before; empty bytes: a new one. ValueError when one
        is of another version of the views."""
        if not len(slots):
            return
        self._state[slots[self._state[slots, 0] > 0]] = 0.0
        self._merged[slots] = 0.0  # those of nobody, too: a read of them has left what it found
        pairs = [part for pair in zip(heads, tails or [b""] * len(heads), strict=True) for part in pair]
        words = np.frombuffer(bytearray().join(pairs), np.float64)
        bounds = np.cumsum(np.fromiter(map(len, pairs), np.int64, len(pairs)) // 8).reshape(-1, 2)
        counts, shape = np.zeros(len(slots), np.int64), self.shape
        wrong = packing.restored_by()(self._state, slots, words, bounds, shape.head, shape.rings, shape.tag, counts)
        if wrong >= 0:
            raise ValueError(f"the stored state of {self._names[slots[wrong]]!r} belongs to another version of the views")
        self._tails[slots] = counts

    def forget(self, entities: Iterable[str]) -> None:
        """Let entities go whose changes were packed; their slots are used again."""
        slots = [self._slots.pop(entity) for entity in entities if entity in self._slots]
        self._state[slots], self._merged[slots] = 0.0, 0.0
        for slot in slots:
            self._names[slot] = ""
        self._free += slots

    def shed(self) -> None:
        """Let the quieter half go when there are more entities than `room`. Only after `pack`: what is not stored is lost."""
        if len(self._slots) <= self.room:
            return
        slots = np.fromiter(self._slots.values(), np.int64, len(self._slots))
        quiet = slots[np.argsort(self._state[slots, 1], kind="stable")[: len(slots) // 2]]
        self.forget([self._names[slot] for slot in quiet.tolist()])


def _cut(words: Floats, ends: Ints) -> list[bytes]:
    """The bytes between ends."""
    flat, bounds = words[: int(ends[-1]) if len(ends) else 0].tobytes(), (ends * 8).tolist()
    return [flat[begin:end] for begin, end in zip([0, *bounds[:-1]], bounds, strict=True)]
