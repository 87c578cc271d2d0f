"""The window kernel: one sequential loop that turns events into rows of window features, in numba and in plain Python.

Meaning (see `feature`): a row covers the entity's events processed before it whose event time is at least
`floor(E - length, hop)`. State per entity is one row of float64 words, all zero when the entity is new:

    [ events processed, E ] [ per track: n, last time, last value ] [ per ring: tiles ]

A *track* is one column of one event (or the event itself, for counts). A *ring* holds the track's tiles of one hop, each
`[hop number + 1, n, sum, min, max]`, at index `hop number mod size`; `size = longest window / hop + 1`, as the tail is
floored. A second matrix, never stored, holds per window the merged closed tiles, valid for one hop number; it is recomputed
from tiles (never subtracted), so that values are a function of tiles only and the same for any batch borders.

Bounds: times are microseconds since 1970 and exact in float64 until the year 2255. No fastmath, no reordering: numba and
Python give the same bits.
"""

from __future__ import annotations

import functools
import mmap
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from .event import Column, Event
from .feature import Feature, View, hop_of

__all__ = ["Panes", "Shape", "numbers"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

TILE = 5
COUNT, SUM, MEAN, MIN, MAX, LAST, SINCE = range(7)
_KINDS = {"count": COUNT, "sum": SUM, "mean": MEAN, "min": MIN, "max": MAX, "last": LAST, "since_last": SINCE}


def _apply(
    state: Floats, merged: Floats, slots: Ints, times: Ints, kinds: Ints, values: Floats, want: Ints, keep: int,
    track_event: Ints, track_at: Ints, ring_track: Ints, ring_hop: Ints, ring_size: Ints, ring_at: Ints,
    window_ring: Ints, window_length: Ints, feature_kind: Ints, feature_of: Ints,
    out: Floats, effective: Ints, log: Ints,
) -> int:  # fmt: skip
    """Process events in order; return how many tiles were logged into `log` as (slot, ring, hop number).

    `kinds[i]` is the index of the event's kind (-1: it changes nothing), `values[i, track]` its columns (NaN: missing),
    `want[i]` whether a row is written to `out[i]`. With `keep` 0 nothing is changed: a read.
    """
    logged = 0
    nan = np.nan
    rings, windows, features, tracks = len(ring_at), len(window_ring), len(feature_kind), len(track_at)
    for i in range(len(slots)):
        slot, time = slots[i], times[i]
        before = state[slot, 1]
        fresh = state[slot, 0] == 0.0
        moment = time if fresh or time > before else np.int64(before)
        effective[i] = moment
        if want[i] == 1:
            for w in range(windows):
                r = window_ring[w]
                hop, size, at, base = ring_hop[r], ring_size[r], ring_at[r], w * TILE
                head = moment // hop
                if merged[slot, base] != head + 1:
                    n, total, least, most = 0.0, 0.0, np.inf, -np.inf
                    first = (moment - window_length[w]) // hop
                    tile, end = at + (first % size) * TILE, at + size * TILE  # a division per tile would cost more than the rest
                    for k in range(first, min(head, np.int64(before) // hop + 1)):  # nothing is newer than the newest event
                        if state[slot, tile] == k + 1:
                            n += state[slot, tile + 1]
                            total += state[slot, tile + 2]
                            least = min(least, state[slot, tile + 3])
                            most = max(most, state[slot, tile + 4])
                        tile += TILE
                        if tile == end:
                            tile = at
                    merged[slot, base] = head + 1
                    merged[slot, base + 1], merged[slot, base + 2] = n, total
                    merged[slot, base + 3], merged[slot, base + 4] = least, most
            for f in range(features):
                kind, of = feature_kind[f], feature_of[f]
                if kind >= LAST:
                    at = track_at[of]
                    if state[slot, at] == 0.0:
                        out[i, f] = nan
                    elif kind == LAST:
                        out[i, f] = state[slot, at + 2]
                    else:
                        out[i, f] = (moment - state[slot, at + 1]) / 1e6
                    continue
                r, base = window_ring[of], of * TILE
                n, total = merged[slot, base + 1], merged[slot, base + 2]
                least, most = merged[slot, base + 3], merged[slot, base + 4]
                head = moment // ring_hop[r]
                tile = ring_at[r] + (head % ring_size[r]) * TILE
                if state[slot, tile] == head + 1:
                    n += state[slot, tile + 1]
                    total += state[slot, tile + 2]
                    least = min(least, state[slot, tile + 3])
                    most = max(most, state[slot, tile + 4])
                if kind == COUNT:
                    out[i, f] = n
                elif kind == SUM:
                    out[i, f] = total
                elif n == 0.0:
                    out[i, f] = nan
                elif kind == MEAN:
                    out[i, f] = total / n
                elif kind == MIN:
                    out[i, f] = least
                else:
                    out[i, f] = most
        if keep == 0:
            continue
        if not fresh:
            for r in range(rings):
                hop = ring_hop[r]
                was = np.int64(before) // hop
                if was != moment // hop:
                    tile = ring_at[r] + (was % ring_size[r]) * TILE
                    if state[slot, tile] == was + 1:
                        log[logged, 0], log[logged, 1], log[logged, 2] = slot, r, was
                        logged += 1
        state[slot, 0] += 1.0
        state[slot, 1] = moment
        kind = kinds[i]
        if kind < 0:
            continue
        for t in range(tracks):
            value = values[i, t]
            if track_event[t] != kind or value != value:
                continue
            at = track_at[t]
            if state[slot, at] == 0.0 or time >= state[slot, at + 1]:
                state[slot, at + 1], state[slot, at + 2] = time, value
            state[slot, at] += 1.0
            for r in range(rings):
                if ring_track[r] != t:
                    continue
                hop = ring_hop[r]
                k = time // hop
                tile = ring_at[r] + (k % ring_size[r]) * TILE
                number = state[slot, tile]
                if number == k + 1:
                    state[slot, tile + 1] += 1.0
                    state[slot, tile + 2] += value
                    state[slot, tile + 3] = min(state[slot, tile + 3], value)
                    state[slot, tile + 4] = max(state[slot, tile + 4], value)
                elif number < k + 1:
                    state[slot, tile], state[slot, tile + 1], state[slot, tile + 2] = k + 1, 1.0, value
                    state[slot, tile + 3], state[slot, tile + 4] = value, value
                if k != moment // hop:
                    log[logged, 0], log[logged, 1], log[logged, 2] = slot, r, k
                    logged += 1
                    for w in range(windows):
                        if window_ring[w] == r:
                            merged[slot, w * TILE] = 0.0
    return logged


def _compiled() -> Callable[..., int]:
    """The loop in machine code when numba is installed. The signature is explicit: another one would compile in mid-stream."""
    try:
        import numba
    except ImportError:
        return _apply
    matrix, ints = "float64[:,::1]", "int64[::1]"
    given = [matrix, matrix, ints, ints, ints, matrix, ints, "int64", *[ints] * 10, matrix, ints, "int64[:,::1]"]
    signature = f"int64({','.join(given)})"
    compiled: Callable[..., int] = numba.njit(signature, cache=True, nogil=True)(_apply)
    return compiled


_kernel: Callable[..., int] | None = None


def kernel() -> Callable[..., int]:
    """The compiled loop, compiled once on first use (about 2 s, then from numba's cache)."""
    global _kernel
    if _kernel is None:
        _kernel = _compiled()
    return _kernel


class Shape:
    """The layout that a set of views by one key needs: where tracks, rings and windows lie in an entity's row."""

    def __init__(self, views: Sequence[View]) -> None:
        self.views = tuple(views)
        features = [f for view in views for f in view.features]
        self.events: list[Event] = list(dict.fromkeys(f.event for f in features))
        self.tracks: list[tuple[Event, Column | None]] = []
        for feature in features:
            track = self._track(feature, features)
            if track not in self.tracks:
                self.tracks.append(track)
        of = [self.tracks.index(self._track(f, features)) for f in features]
        rings: dict[tuple[int, int], int] = {}
        for track_index, f in zip(of, features, strict=True):
            if f.over:
                key = (track_index, hop_of(f.over))
                rings[key] = max(rings.get(key, 0), f.over)
        windows = list(dict.fromkeys((t, f.over) for t, f in zip(of, features, strict=True) if f.over))
        self.ring_track = np.array([t for t, _ in rings], np.int64)
        self.ring_hop = np.array([h for _, h in rings], np.int64)
        self.ring_size = np.array([longest // h + 1 + (longest % h > 0) for (_, h), longest in rings.items()], np.int64)
        self.track_event = np.array([self.events.index(e) for e, _ in self.tracks], np.int64)
        self.track_at = 2 + 3 * np.arange(len(self.tracks), dtype=np.int64)
        self.head = 2 + 3 * len(self.tracks)
        self.ring_at = self.head + TILE * np.concatenate([[0], np.cumsum(self.ring_size)[:-1]]).astype(np.int64)[: len(rings)]
        self.words = int(self.head + TILE * self.ring_size.sum())
        ring_index = {key: i for i, key in enumerate(rings)}
        self.window_ring = np.array([ring_index[t, hop_of(w)] for t, w in windows], np.int64)
        self.window_length = np.array([w for _, w in windows], np.int64)
        self.feature_kind = np.array([_KINDS[f.kind] for f in features], np.int64)
        self.feature_of = np.array(
            [windows.index((t, f.over)) if f.over else t for t, f in zip(of, features, strict=True)], np.int64
        )
        self.columns = [f"{f.view}.{f.name}" for f in features]
        self.view_tracks = [
            np.array([t for t, f in zip(of, features, strict=True) if f.view == view.name], np.int64) for view in views
        ]
        """By view, the track behind each of its features; the newest of them is the view's newest event."""

    @staticmethod
    def _track(feature: Feature[float], features: Sequence[Feature[float]]) -> tuple[Event, Column | None]:
        """Counts share the track of a column that is never missing, so they cost nothing beside it."""
        if feature.column is not None:
            return feature.event, feature.column
        for other in features:
            if other.event is feature.event and other.column is not None and not other.column.optional:
                return feature.event, other.column
        return feature.event, None

    @property
    def arguments(self) -> tuple[Ints, ...]:
        return (
            self.track_event, self.track_at, self.ring_track, self.ring_hop, self.ring_size, self.ring_at,
            self.window_ring, self.window_length, self.feature_kind, self.feature_of,
        )  # fmt: skip

    def values(self, event: Event, decoded: Sequence[Any]) -> Floats:
        """The track values of events of one kind, (n, tracks), NaN where missing or of another kind."""
        matrix = np.full((len(decoded), max(len(self.tracks), 1)), np.nan)
        for t, (kind, column) in enumerate(self.tracks):
            if kind is event:
                matrix[:, t] = 1.0 if column is None else numbers(column, decoded)
        return matrix


def numbers(column: Column, decoded: Sequence[Any]) -> Floats:
    """A column of events as float64, NaN where missing."""
    values = map(attrgetter(column.name), decoded)
    return np.fromiter((np.nan if v is None else v for v in values) if column.optional else values, np.float64, len(decoded))


def _load_tiles(
    state: Floats, merged: Floats, slots: Ints, heads: Floats, tails: Floats, ends: Ints, counts: Ints, head: int,
    ring_at: Ints, ring_size: Ints, ring_width: Ints,
) -> None:  # fmt: skip
    """Unpack entities into rows `slots` of the state: `heads` (n, words) and `tails` one after the other, entity i's up to
    `ends[i]`. `counts[i]` becomes how many tiles its tail has. A cell's entries come in the order of their hop numbers."""
    at = 0
    for i in range(len(slots)):
        row = state[slots[i]]
        row[:] = 0.0
        row[:head] = heads[i, :head]
        merged[slots[i], :] = 0.0
        counts[i], end = 0, ends[i]
        while at < end:
            ring = np.int64(tails[at])
            width = ring_width[ring]
            cell = ring_at[ring] + np.int64(tails[at + 1] - 1.0) % ring_size[ring] * width
            for word in range(width):
                row[cell + word] = tails[at + 1 + word]
            counts[i] += 1
            at += 1 + width
        opened = head
        for r in range(len(ring_at)):
            width = ring_width[r]
            if heads[i, opened] > 0.0:
                cell = ring_at[r] + np.int64(heads[i, opened] - 1.0) % ring_size[r] * width
                for word in range(width):
                    row[cell + word] = heads[i, opened + word]
            opened += width


def _newest_of(state: Floats, slots: Ints, track_at: Ints, out: Ints) -> None:
    for i in range(len(slots)):
        for t in range(len(track_at)):
            at = track_at[t]
            out[i, t] = np.int64(state[slots[i], at + 1]) if state[slots[i], at] > 0.0 else -1


@functools.cache
def _load() -> Callable[..., None]:
    matrix, ints = "float64[:,::1]", "int64[::1]"
    return _machine(_load_tiles, matrix, matrix, ints, matrix, "float64[::1]", ints, ints, "int64", ints, ints, ints)


@functools.cache
def _newest() -> Callable[..., None]:
    return _machine(_newest_of, "float64[:,::1]", "int64[::1]", "int64[::1]", "int64[:,::1]")


def _machine(function: Callable[..., None], *types: str) -> Callable[..., None]:
    """The function in machine code when numba is installed."""
    try:
        import numba
    except ImportError:
        return function
    compiled: Callable[..., None] = numba.njit(f"void({','.join(types)})", cache=True, nogil=True)(function)
    return compiled


class _Growing:
    """Zeroed float64 rows in anonymous memory that doubles by remapping its pages. No view may live across `grown`."""

    def __init__(self, rows: int, words: int) -> None:
        self._words = words
        self._memory = mmap.mmap(-1, rows * words * 8, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def matrix(self) -> Floats:
        return np.frombuffer(self._memory, np.float64).reshape(-1, self._words)

    def grown(self) -> Floats:
        self._memory.resize(2 * len(self._memory))
        return self.matrix()


class Panes:
    """The window state of all entities of one hop partition.

    `slot` numbers entities as they come; matrices grow by remapping, so that no word is copied and none costs memory before it
    is used. `pack` gives what changed since the last call as
    (head, tail) bytes per entity: the head and its open tiles replace, closed tiles are appended; `restore` is its inverse.
    """

    def __init__(self, shape: Shape, capacity: int = 256, run: Callable[..., int] | None = None) -> None:
        self.shape = shape
        self._run = run or kernel()
        self._names: list[str] = []
        self._slots: dict[str, int] = {}
        self._free: list[int] = []
        width = max(TILE * len(shape.window_ring), 1)
        self._states, self._merges = _Growing(capacity, shape.words), _Growing(capacity, width)
        self._state, self._merged = self._states.matrix(), self._merges.matrix()
        self._tails = np.zeros(capacity, np.int64)
        self._touched: list[Ints] = []
        self._log: list[Ints] = []

    def __len__(self) -> int:
        return len(self._slots)

    def unknown(self, entities: Iterable[str | None]) -> list[str]:
        """Those that are not in memory, each once; None is nobody."""
        return sorted(e for e in set(entities).difference(self._slots) if e is not None)

    def slots(self, entities: Sequence[Any]) -> Ints:
        """The slots of entities that are in memory."""
        return np.fromiter(map(self._slots.__getitem__, entities), np.int64, len(entities))

    def slot(self, entity: str) -> int:
        found = self._slots.get(entity)
        if found is None and self._free:
            found = self._slots[entity] = self._free.pop()
            self._names[found] = entity
        elif found is None:
            found = self._slots[entity] = len(self._names)
            self._names.append(entity)
            if found == len(self._state):
                del self._state, self._merged
                self._state, self._merged = self._states.grown(), self._merges.grown()
                self._tails = np.concatenate([self._tails, np.zeros_like(self._tails)])
        return found

    def apply(self, slots: Ints, times: Ints, kinds: Ints, values: Floats, want: Ints, keep: bool = True) -> tuple[Floats, Ints]:
        """Rows (n, features) and effective times of events in order; with `keep` False a read that changes nothing."""
        n = len(slots)
        out = np.full((n, max(len(self.shape.feature_kind), 1)), np.nan)
        effective = np.empty(n, np.int64)
        rings = len(self.shape.ring_at)
        log = np.empty((n * rings * 2 + 1, 3), np.int64)
        logged = self._run(
            self._state, self._merged, slots, times, kinds, np.ascontiguousarray(values), want, int(keep),
            *self.shape.arguments, out, effective, log,
        )  # fmt: skip
        if keep and n:
            self._touched.append(slots)
            if logged:
                self._log.append(log[:logged].copy())
        return out[:, : len(self.shape.feature_kind)], effective

    def pack(self) -> tuple[dict[str, bytes], dict[str, bytes], list[str]]:
        """Heads and tails by entity since the last pack, and the entities whose tail must be cut first (compacted)."""
        heads: dict[str, bytes] = {}
        tails: dict[str, bytes] = {}
        cut: list[str] = []
        if not self._touched:
            return heads, tails, cut
        shape, touched = self.shape, np.unique(np.concatenate(self._touched))
        open_at = shape.ring_at + (self._state[touched, 1].astype(np.int64)[:, None] // shape.ring_hop % shape.ring_size) * TILE
        cells = np.empty((len(touched), shape.head + TILE * len(shape.ring_at)), np.int64)
        cells[:, : shape.head] = np.arange(shape.head)
        cells[:, shape.head :] = (open_at[:, :, None] + np.arange(TILE)).reshape(len(touched), -1)
        cells += touched[:, None] * shape.words
        size, flat = cells.shape[1] * 8, self._state.ravel().take(cells).tobytes()
        names = [self._names[s] for s in touched.tolist()]
        heads = dict(zip(names, [flat[i : i + size] for i in range(0, len(flat), size)], strict=True))
        if self._log:
            entries = np.concatenate(self._log)
            entries = entries[np.lexsort(entries.T[::-1])]
            entries = entries[np.append(True, (entries[1:] != entries[:-1]).any(axis=1))]
            body = self._entries(entries)
            keep = body[:, 1] == entries[:, 2] + 1  # a tile overwritten since by a newer hop is in no window any more
            entries, body = entries[keep], body[keep]
            starts = np.flatnonzero(np.diff(entries[:, 0], prepend=-1))
            slots, counts = entries[starts, 0], np.diff(starts, append=len(entries))
            self._tails[slots] += counts
            tiles, width = body.tobytes(), body.shape[1] * 8
            names = [self._names[s] for s in slots.tolist()]
            tails = {
                name: tiles[at : at + count * width]
                for name, at, count in zip(names, (starts * width).tolist(), counts.tolist(), strict=True)
            }
            for slot in slots[self._tails[slots] > 2 * shape.ring_size.sum()].tolist():
                whole = self._whole(slot)
                cut.append(self._names[slot])
                self._tails[slot] = len(whole)
                tails[self._names[slot]] = whole.tobytes()
        self._touched, self._log = [], []
        return heads, tails, cut

    def _entries(self, entries: Ints) -> Floats:
        """(ring, tile) of each logged (slot, ring, hop number)."""
        ring, number = entries[:, 1], entries[:, 2]
        at = self.shape.ring_at[ring] + number % self.shape.ring_size[ring] * TILE
        tiles = self._state[entries[:, 0][:, None], at[:, None] + np.arange(TILE)]
        return np.concatenate([ring[:, None].astype(np.float64), tiles], 1)

    def _whole(self, slot: int) -> Floats:
        """All tiles of an entity that are not empty."""
        shape = self.shape
        found = []
        for r in range(len(shape.ring_at)):
            tiles = self._state[slot, shape.ring_at[r] : shape.ring_at[r] + TILE * shape.ring_size[r]].reshape(-1, TILE)
            tiles = tiles[tiles[:, 0] > 0]
            found.append(np.concatenate([np.full((len(tiles), 1), float(r)), tiles], 1))
        return np.concatenate(found) if found else np.empty((0, TILE + 1))

    def restore_all(self, slots: Ints, heads: Sequence[bytes], tails: Sequence[bytes]) -> None:
        """Load entities as `pack` wrote them into slots, whatever was there before; empty bytes: a new one. `tails` may be left
        out where the shape has no rings. ValueError when one is of another shape."""
        shape, n = self.shape, len(slots)
        widths = np.full(len(shape.ring_at), TILE, np.int64)
        size = 8 * (shape.head + int(widths.sum()))
        if not all(heads):
            heads = [head or bytes(size) for head in heads]
        if set(map(len, heads)) - {size}:
            raise ValueError("a stored state has another layout: it belongs to another version of the views")
        ends = np.fromiter(map(len, tails), np.int64, n).cumsum() // 8 if tails else np.zeros(n, np.int64)
        counts = np.empty(n, np.int64)
        _load()(
            self._state, self._merged, slots, np.frombuffer(bytearray().join(heads)).reshape(n, -1),
            np.frombuffer(bytearray().join(tails)), ends, counts, shape.head, shape.ring_at, shape.ring_size, widths,
        )  # fmt: skip
        self._tails[slots] = counts

    def forget(self, entities: Iterable[str]) -> None:
        """Let entities go whose changes were packed; their slots are used again."""
        slots = [self._slots.pop(entity) for entity in entities if entity in self._slots]
        for state in (self._state, self._merged, self._tails):
            state[slots] = 0
        self._free += slots

    def newest(self, slots: Ints) -> Ints:
        """By entity and track, the time of the newest event (microseconds; -1: there was none)."""
        found = np.empty((len(slots), len(self.shape.track_at)), np.int64)
        _newest()(self._state, slots, self.shape.track_at, found)
        return found

    def restore(self, entity: str, head: bytes, tail: bytes) -> None:
        """Load an entity as `pack` wrote it; empty bytes: a new one."""
        slot, shape = self.slot(entity), self.shape
        if not head:
            return
        words = np.frombuffer(head, np.float64)
        if len(words) != shape.head + TILE * len(shape.ring_at):
            raise ValueError(f"the stored state of {entity!r} has another layout: it belongs to another version of the views")
        row = self._state[slot]
        row[:] = 0.0
        row[: shape.head] = words[: shape.head]
        entries = np.frombuffer(tail, np.float64).reshape(-1, TILE + 1)
        self._tails[slot] = len(entries)
        opened = np.concatenate(
            [np.arange(len(shape.ring_at), dtype=np.float64)[:, None], words[shape.head :].reshape(-1, TILE)], 1
        )
        for entry in np.concatenate([entries, opened]):
            if entry[1] > 0:
                ring = int(entry[0])
                at = shape.ring_at[ring] + int(entry[1] - 1) % shape.ring_size[ring] * TILE
                if entry[1] >= row[at]:
                    row[at : at + TILE] = entry[1:]
        self._merged[slot] = 0.0
