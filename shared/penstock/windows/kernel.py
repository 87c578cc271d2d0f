"""The window kernel: one sequential loop that turns events into rows of window features, in numba and in plain Python.

Meaning (see `aggregate`): a row covers the entity's events processed before it whose event time is at least
`floor(E - length, hop)`. State per entity is one row of float64 words, all zero when the entity is new (`shape` says where):

    [ events processed, E, tag ] [ per group: n, last time ] [ per track: last value, newest, decayed ] [ per ring: tiles ]

A *track* is one column of one event (or the event itself, for counts), of those events that meet one condition. Tracks whose
values always come together are a group; the last of them keeps its two words (OWNS). A *ring*
holds the track's tiles of one hop, tile `hop number` at index `hop number mod size`; `size = longest window / hop + 1`, as
the tail is floored. A tile is `[hop number + 1, n, and the words that its aggregates ask for]`. A lifetime is a ring of one
tile, whose hop never ends. A second matrix, never stored, holds per window the merged closed
tiles, valid for one first and one last hop number; it is recomputed from tiles (never subtracted), so that values are a function
of tiles only and the same for any batch borders.

Bounds: times are microseconds since 1970 and exact in float64 until the year 2255. No fastmath, no reordering: numba and
Python give the same bits. Sketches are the functions of `sketch`, compiled into the loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import sketch
from .machine_code import machine_code
from .sketch import (
    distinct_add,
    distinct_fold,
    distinct_value,
    quantile_add,
    quantile_fold,
    quantile_value,
    top_add,
    top_fold,
    top_value,
)  # fmt: skip

__all__ = ["KINDS", "READING", "kernel", "parts_of", "run", "valued"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

KINDS = (
    "count", "sum", "min", "max", "first", "mean", "var", "std", "distinct", "quantile", "top",
    "last", "last_k", "since_last", "decayed_count", "decayed_sum", "decayed_mean", "ratio",
)  # fmt: skip
(
    COUNT, SUM, MIN, MAX, FIRST, MEAN, VAR, STD, DISTINCT, QUANTILE, TOP,
    LAST, LAST_K, SINCE, DECAYED_COUNT, DECAYED_SUM, DECAYED_MEAN, RATIO,
) = range(len(KINDS))  # fmt: skip
"""Up to FIRST a word of a tile, before LAST made from a tile, RATIO from other columns, the rest from the head."""

HEAD = 3
"""Events processed, E, and the tag of the layout."""
NEVER = 1 << 62
"""A lateness, or an age, that nothing has."""

# Columns of the tables that `Shape` makes. Of rings, those from TOTAL on are offsets in a tile, 0 where it is not kept.
EVENT, AT, LATE, NEWEST, NEWEST_AT, DECAY_FROM, DECAY_TO, RING_FROM, RING_TO, VALUE, OWNS = range(11)
HOP, SIZE, RING_AT, WIDTH, ROOM, TOTAL, LEAST, MOST, SPREAD, EARLIEST, SET, RANKS, COMMON = range(13)
RING, LENGTH, MERGED_AT = range(3)
KIND, OF, OVER, OVER_HOP, BASE, PLACE, FEATURE_ROOM, TRACK, TTL = range(9)


def opened(row: Floats, at: int, rings: Ints, r: int, number: float) -> None:
    """Make the tile at `at` an empty one of hop `number - 1`."""
    row[at : at + rings[r, WIDTH]] = 0.0
    row[at] = number
    if rings[r, LEAST]:
        row[at + rings[r, LEAST]] = np.inf
    if rings[r, MOST]:
        row[at + rings[r, MOST]] = -np.inf
    if rings[r, EARLIEST]:
        row[at + rings[r, EARLIEST]] = np.inf


def added(row: Floats, at: int, rings: Ints, r: int, time: float, value: float) -> None:
    """Take one value into a tile."""
    row[at + 1] += 1.0
    if rings[r, TOTAL]:
        row[at + rings[r, TOTAL]] += value
    if rings[r, LEAST]:
        row[at + rings[r, LEAST]] = min(row[at + rings[r, LEAST]], value)
    if rings[r, MOST]:
        row[at + rings[r, MOST]] = max(row[at + rings[r, MOST]], value)
    if rings[r, SPREAD]:  # Welford 1962
        spread = at + rings[r, SPREAD]
        away = value - row[spread]
        row[spread] += away / row[at + 1]
        row[spread + 1] += away * (value - row[spread])
    if rings[r, EARLIEST]:
        earliest = at + rings[r, EARLIEST]
        if time < row[earliest]:
            row[earliest], row[earliest + 1] = time, value
    if rings[r, SET]:
        distinct_add(row, at + rings[r, SET], value)
    if rings[r, RANKS]:
        quantile_add(row, at + rings[r, RANKS], value)
    if rings[r, COMMON]:
        top_add(row, at + rings[r, COMMON], rings[r, ROOM], value)


def fold(into: Floats, at: int, row: Floats, tile: int, rings: Ints, r: int) -> None:
    """Merge the tile at `row[tile]` into the one at `into[at]`. Commutative and associative, except for the last bits of sums
    and of spreads, for the ranks of quantiles and for the counts of common values, which keep their bounds instead."""
    if row[tile + 1] == 0.0:
        return
    before = into[at + 1]
    into[at + 1] += row[tile + 1]
    if rings[r, TOTAL]:
        into[at + rings[r, TOTAL]] += row[tile + rings[r, TOTAL]]
    if rings[r, LEAST]:
        into[at + rings[r, LEAST]] = min(into[at + rings[r, LEAST]], row[tile + rings[r, LEAST]])
    if rings[r, MOST]:
        into[at + rings[r, MOST]] = max(into[at + rings[r, MOST]], row[tile + rings[r, MOST]])
    if rings[r, SPREAD]:  # Chan, Golub, LeVeque 1979
        left, right = at + rings[r, SPREAD], tile + rings[r, SPREAD]
        share = row[tile + 1] / into[at + 1]
        away = row[right] - into[left]
        into[left] += away * share
        into[left + 1] += row[right + 1] + away * away * before * share
    if rings[r, EARLIEST]:
        left, right = at + rings[r, EARLIEST], tile + rings[r, EARLIEST]
        if row[right] < into[left]:
            into[left], into[left + 1] = row[right], row[right + 1]
    if rings[r, SET]:
        distinct_fold(into, at + rings[r, SET], row, tile + rings[r, SET])
    if rings[r, RANKS]:
        quantile_fold(into, at + rings[r, RANKS], row, tile + rings[r, RANKS])
    if rings[r, COMMON]:
        top_fold(into, at + rings[r, COMMON], row, tile + rings[r, COMMON], rings[r, ROOM])


def finished(row: Floats, base: int, place: int, kind: int, room: int, argument: float) -> float:
    """The value of an aggregate, from the merged tile at `base`, of which it has the word at `place`."""
    if kind <= SUM:
        return row[place]
    if kind == DISTINCT:
        return distinct_value(row, place)
    if row[base + 1] == 0.0:
        return np.nan
    if kind <= FIRST:
        return row[place]
    if kind == MEAN:
        return row[place] / row[base + 1]
    if kind == VAR:
        return row[place] / row[base + 1]
    if kind == STD:
        return math.sqrt(row[place] / row[base + 1])
    if kind == QUANTILE:
        return quantile_value(row, place, argument)
    return top_value(row, place, room, int(argument))


def unseen(kind: int) -> float:
    """The value of an aggregate of nothing."""
    return 0.0 if kind in (COUNT, SUM, DISTINCT, DECAYED_COUNT, DECAYED_SUM) else np.nan


def remembered(row: Floats, tracks: Ints, features: Ints, f: int, argument: float, decays: Ints, moment: int) -> float:
    """The value of an aggregate, from the head of its track."""
    t = features[f, OF]
    kind, at = features[f, KIND], tracks[t, AT]
    if DECAYED_COUNT <= kind <= DECAYED_MEAN:
        decay = decays[int(argument)]
        weight, total = row[decay[0]], row[decay[0] + 1]
        if kind == DECAYED_MEAN:
            return total / weight if weight > 0.0 else np.nan
        fading = math.exp(-math.log(2.0) * (moment - row[at + 1]) / decay[1])
        return (weight if kind == DECAYED_COUNT else total) * fading
    if row[at] == 0.0:
        return np.nan
    if kind == SINCE:
        return (moment - row[at + 1]) / 1e6
    time, place = at + 1, tracks[t, VALUE]
    if kind == LAST_K:
        if argument >= row[at]:
            return np.nan
        time = tracks[t, NEWEST_AT] + 2 * int(argument)
        place = time + 1
    if features[f, OVER] and row[time] < (moment - features[f, OVER]) // features[f, OVER_HOP] * features[f, OVER_HOP]:
        return np.nan
    return row[place]


def noted(row: Floats, tracks: Ints, t: int, decays: Ints, time: float, value: float) -> None:
    """Take one value into the head of its track."""
    at, n = tracks[t, AT], row[tracks[t, AT]]
    for d in range(tracks[t, DECAY_FROM], tracks[t, DECAY_TO]):
        decay, half = decays[d, 0], decays[d, 1]
        fading = math.exp(-math.log(2.0) * abs(time - row[at + 1]) / half) if n > 0.0 else 1.0
        if time >= row[at + 1] or n == 0.0:
            row[decay] = row[decay] * fading + 1.0
            row[decay + 1] = row[decay + 1] * fading + value
        else:
            row[decay] += fading
            row[decay + 1] += fading * value
    if n == 0.0 or time >= row[at + 1]:
        row[tracks[t, VALUE]] = value
    if tracks[t, NEWEST]:
        first, place = tracks[t, NEWEST_AT], tracks[t, NEWEST_AT] + 2 * min(int(n), tracks[t, NEWEST])
        while place > first and time >= row[place - 2]:
            if place < first + 2 * tracks[t, NEWEST]:
                row[place], row[place + 1] = row[place - 2], row[place - 1]
            place -= 2
        if place < first + 2 * tracks[t, NEWEST]:
            row[place], row[place + 1] = time, value
    if tracks[t, OWNS]:
        if n == 0.0 or time >= row[at + 1]:
            row[at + 1] = time
        row[at] += 1.0


def valued(
    row: Floats, closed: Floats, scratch: Floats, moment: int, tracks: Ints, decays: Ints, rings: Ints, windows: Ints,
    features: Ints, arguments: Floats, out: Floats,
) -> None:  # fmt: skip
    """Write the values that an entity has at `moment`, which is not before its E. `closed` is its row of merged tiles, `scratch`
    one to work in."""
    before = int(row[1])
    for w in range(len(windows)):
        r, base = windows[w, RING], windows[w, MERGED_AT]
        hop, size, at, width = rings[r, HOP], rings[r, SIZE], rings[r, RING_AT], rings[r, WIDTH]
        head, first = moment // hop, (moment - windows[w, LENGTH]) // hop
        # the tail of a window that is no multiple of its hop moves by itself, from one of two tiles to the other
        stamp = 2 * (head + 1) + (head - first) % 2
        if closed[base] != stamp:
            opened(closed, base, rings, r, stamp)
            # a division per tile would cost more than the rest
            tile, end = at + (first % size) * width, at + size * width
            for k in range(first, min(head, before // hop + 1)):  # nothing is newer than the newest event
                if row[tile] == k + 1:
                    fold(closed, base, row, tile, rings, r)
                tile += width
                if tile == end:
                    tile = at
        for word in range(base, base + width):
            scratch[word] = closed[word]
        tile = at + (head % size) * width
        if row[tile] == head + 1:
            fold(scratch, base, row, tile, rings, r)
    for f in range(len(features)):
        kind, track = features[f, KIND], tracks[features[f, TRACK], AT]
        if row[track] > 0.0 and moment - row[track + 1] > features[f, TTL]:
            out[f] = unseen(kind)
        elif kind == LAST and features[f, OVER] == 0:  # as `remembered`, whose call costs four times as much
            out[f] = row[tracks[features[f, OF], VALUE]] if row[track] > 0.0 else np.nan
        elif kind < LAST:
            base, place, room = features[f, BASE], features[f, PLACE], features[f, FEATURE_ROOM]
            out[f] = finished(scratch, base, place, kind, room, arguments[f])
        elif kind < RATIO:
            out[f] = remembered(row, tracks, features, f, arguments[f], decays, moment)
    for f in range(len(features)):
        if features[f, KIND] == RATIO:
            under = out[int(arguments[f])]
            out[f] = out[features[f, OF]] / under if under != 0.0 else np.nan


def run(
    state: Floats, merged: Floats, slots: Ints, times: Ints, kinds: Ints, values: Floats, want: Ints, keep: int, tag: float,
    tracks: Ints, decays: Ints, rings: Ints, windows: Ints, features: Ints, arguments: Floats,
    out: Floats, effective: Ints, log: Ints,
) -> int:  # fmt: skip
    """Process events in order; return how many tiles were logged into `log` as (slot, ring, hop number).

    `kinds[i]` is the index of the event's kind (-1: it changes nothing), `values[i, track]` its columns (NaN: missing or not
    meant), `want[i]` whether a row is written to `out[i]`. With `keep` 0 nothing is changed: a read.
    """
    logged = 0
    scratch = np.zeros(merged.shape[1])
    for i in range(len(slots)):
        slot, time = slots[i], times[i]
        row, closed = state[slot], merged[slot]
        before = int(row[1])
        fresh = row[0] == 0.0
        moment = time if fresh or time > before else before
        effective[i] = moment
        if want[i] == 1:
            valued(row, closed, scratch, moment, tracks, decays, rings, windows, features, arguments, out[i])
        if keep == 0:
            continue
        if not fresh:
            for r in range(len(rings)):
                hop = rings[r, HOP]
                was = before // hop
                if was != moment // hop and row[rings[r, RING_AT] + (was % rings[r, SIZE]) * rings[r, WIDTH]] == was + 1:
                    log[logged, 0], log[logged, 1], log[logged, 2] = slot, r, was
                    logged += 1
        row[0] += 1.0
        row[1], row[2] = moment, tag
        if kinds[i] < 0:
            continue
        for t in range(len(tracks)):
            value = values[i, t]
            if tracks[t, EVENT] != kinds[i] or value != value or time < moment - tracks[t, LATE]:
                continue
            noted(row, tracks, t, decays, time, value)
            for r in range(tracks[t, RING_FROM], tracks[t, RING_TO]):
                hop = rings[r, HOP]
                k = time // hop
                tile = rings[r, RING_AT] + (k % rings[r, SIZE]) * rings[r, WIDTH]
                if row[tile] > k + 1:
                    continue  # too late for any window
                if row[tile] < k + 1:
                    opened(row, tile, rings, r, k + 1)
                added(row, tile, rings, r, time, value)
                if k != moment // hop:
                    log[logged, 0], log[logged, 1], log[logged, 2] = slot, r, k
                    logged += 1
                    for w in range(len(windows)):
                        if windows[w, RING] == r:
                            closed[windows[w, MERGED_AT]] = 0.0
    return logged


_MATRIX, _INTS, _TABLE = "float64[:,::1]", "int64[::1]", "int64[:,::1]"
_SIGNATURE = [
    _MATRIX, _MATRIX, _INTS, _INTS, _INTS, _MATRIX, _INTS, "int64", "float64", *[_TABLE] * 5, "float64[::1]",
    _MATRIX, _INTS, _TABLE,
]  # fmt: skip
READING = (opened, fold, finished, unseen, remembered, valued)


def no_sketch(*_: object) -> float:
    """Stands for the functions of sketches where no view has any: they are two thirds of the machine code."""
    return 0.0


def parts_of(whole: Sequence[Callable[..., Any]], sketches: bool) -> tuple[tuple[Callable[..., Any], ...], dict[str, Any]]:
    """What `machine_code` needs of functions of this module: with those that they call, and the names that they use."""
    if sketches:
        return (*sketch.PARTS, *whole), {**vars(sketch), **globals()}
    return (no_sketch, *whole), globals() | {part.__name__: no_sketch for part in sketch.PARTS}


def kernel(sketches: bool = True) -> Callable[..., int]:
    """`run` in machine code, which takes 6 s (18 s with sketches) the first time on a machine; the plain one without numba."""
    made: Callable[..., int] = machine_code(
        run, f"int64({','.join(_SIGNATURE)})", *parts_of((*READING, added, noted, run), sketches)
    )
    return made
