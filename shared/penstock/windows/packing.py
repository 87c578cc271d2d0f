"""Entity states between the matrix in memory and the bytes in the store.

    head    the words of the head, then for each ring its open tile (of the hop of E)
    tail    closed tiles, as they closed or were corrected: [ring, tile] after [ring, tile]; the latest of a hop number wins

A tile is written as [how many words, the words], without zeros at its end, because most sketches are nearly empty. Heads replace
and tails are appended to: a batch writes what changed, not the state.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .kernel import HOP, RING_AT, SIZE, WIDTH
from .machine_code import machine_code

__all__ = ["heads_of", "put", "restored_by", "tails_of", "taken", "whole_of"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def written(row: Floats, at: int, width: int, out: Floats, place: int) -> int:
    """Write one tile; returns where the next one goes."""
    used = width
    while used > 0 and row[at + used - 1] == 0.0:
        used -= 1
    out[place] = used
    out[place + 1 : place + 1 + used] = row[at : at + used]
    return place + 1 + used


def heads(state: Floats, slots: Ints, head: int, rings: Ints, out: Floats, ends: Ints) -> None:
    """Write the heads of slots; `ends[i]` is where the i-th ends in `out`."""
    place = 0
    for i in range(len(slots)):
        row = state[slots[i]]
        out[place : place + head] = row[:head]
        place += head
        for r in range(len(rings)):
            number = int(row[1]) // rings[r, HOP]
            place = written(row, rings[r, RING_AT] + number % rings[r, SIZE] * rings[r, WIDTH], rings[r, WIDTH], out, place)
        ends[i] = place


def tails(state: Floats, entries: Ints, rings: Ints, out: Floats, ends: Ints) -> None:
    """Write the tiles of (slot, ring, hop number); one that a newer hop has overwritten since is in no window any more."""
    place = 0
    for i in range(len(entries)):
        slot, r, number = entries[i, 0], entries[i, 1], entries[i, 2]
        at = rings[r, RING_AT] + number % rings[r, SIZE] * rings[r, WIDTH]
        if state[slot, at] == number + 1:
            out[place] = r
            place = written(state[slot], at, rings[r, WIDTH], out, place + 1)
        ends[i] = place


def whole(row: Floats, rings: Ints, out: Floats) -> int:
    """Write all tiles of an entity that a window can still reach; returns how many words."""
    place = 0
    for r in range(len(rings)):
        oldest = int(row[1]) // rings[r, HOP] + 1 - rings[r, SIZE]
        for tile in range(rings[r, SIZE]):
            at = rings[r, RING_AT] + tile * rings[r, WIDTH]
            if row[at] > max(oldest, 0):
                out[place] = r
                place = written(row, at, rings[r, WIDTH], out, place + 1)
    return place


def put(row: Floats, words: Floats, place: int, rings: Ints, r: int, reach: int) -> int:
    """Take one written tile into its ring, unless a newer one lies there, or no window at `reach` or later begins before its end
    (0: whatever it is); returns where the next one begins."""
    used = int(words[place])
    if used > 0:
        number, size = int(words[place + 1]), rings[r, SIZE]
        if (number - 1 + size) * rings[r, HOP] > reach or reach == 0:
            tile = rings[r, RING_AT] + (number - 1) % size * rings[r, WIDTH]
            if number >= row[tile]:
                for word in range(used):
                    row[tile + word] = words[place + 1 + word]
                for word in range(used, rings[r, WIDTH]):
                    row[tile + word] = 0.0
    return place + 1 + used


def taken(row: Floats, words: Floats, begin: int, end: int, last: int, head: int, rings: Ints, tag: float, old: bool) -> int:
    """Read an entity into an empty row: its head is `words[begin:end]`, its tail goes on to `last`. With `old` also tiles that no
    window reaches. Returns how many entries the tail has, -1 if the entity is of another layout."""
    if end - begin < head or words[begin + 2] != tag:
        return -1
    count, place = 0, end
    row[:head] = words[begin : begin + head]
    reach = 0 if old else int(row[1])
    while place < last:
        place = put(row, words, place + 1, rings, int(words[place]), reach)
        count += 1
    place = begin + head
    for r in range(len(rings)):
        place = put(row, words, place, rings, r, reach)
    return count if place == end else -1


def restored(state: Floats, slots: Ints, words: Floats, bounds: Ints, head: int, rings: Ints, tag: float, counts: Ints) -> int:
    """Read entities into empty rows; `bounds` are the ends of (head, tail) of each in `words`. Counts their tail entries.
    Returns the first that is of another layout, or -1."""
    begin = 0
    for i in range(len(slots)):
        counts[i] = 0
        if bounds[i, 0] > begin:
            counts[i] = taken(state[slots[i]], words, begin, bounds[i, 0], bounds[i, 1], head, rings, tag, True)
            if counts[i] < 0:
                return i
        begin = bounds[i, 1]
    return -1


_ROWS, _WORDS, _INTS, _TABLE = "float64[:,::1]", "float64[::1]", "int64[::1]", "int64[:,::1]"


def heads_of() -> Any:
    """`heads` in machine code; likewise the others."""
    return machine_code(heads, f"void({_ROWS},{_INTS},int64,{_TABLE},{_WORDS},{_INTS})", (written, heads), globals())


def tails_of() -> Any:
    return machine_code(tails, f"void({_ROWS},{_TABLE},{_TABLE},{_WORDS},{_INTS})", (written, tails), globals())


def whole_of() -> Any:
    return machine_code(whole, f"int64({_WORDS},{_TABLE},{_WORDS})", (written, whole), globals())


def restored_by() -> Any:
    signature = f"int64({_ROWS},{_INTS},{_WORDS},{_TABLE},int64,{_TABLE},float64,{_INTS})"
    return machine_code(restored, signature, (put, taken, restored), globals())
