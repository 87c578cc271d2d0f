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

__all__ = ["heads_of", "restored_by", "tails_of", "taken", "whole_of"]

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


def taken(
    row: Floats, words: Floats, begin: int, end: int, last: int, head: int, rings: Ints, tag: float, old: bool, where: Ints
) -> int:
    """Read an entity into a row: its head is `words[begin:end]`, its tail goes on to `last`; with `old` also tiles that no window
    can reach any more. `where` is to work in, a number for each tile of each ring. Of a tile that the entity does not have only
    the first word is written, a zero. Returns how many entries the tail has, -1 if the entity is of another layout.

    What is written last of a place in a ring is what lies there: tiles replace older ones only. Most entries of a tail are
    replaced or out of reach, so first it is found which are not: no branch depends on them, and nothing is copied.
    """
    if end - begin < head or words[begin + 2] != tag:
        return -1
    row[:head], where[:] = words[begin : begin + head], 0
    count, place = 0, end
    while place < last:
        first, r = 0, int(words[place])
        for before in range(r):
            first += rings[before, SIZE]
        where[first + (int(words[place + 2]) - 1) % rings[r, SIZE]] = place + 1
        place += 2 + int(words[place + 1])
        count += 1
    first, place = 0, begin + head
    for r in range(len(rings)):
        used, size, width = int(words[place]), rings[r, SIZE], rings[r, WIDTH]
        if used > 0:
            where[first + (int(words[place + 1]) - 1) % size] = place
        place += 1 + used
        oldest = 0 if old else int(row[1]) // rings[r, HOP] + 1 - size
        tile = rings[r, RING_AT]
        for found in where[first : first + size]:
            row[tile] = 0.0
            if found > 0 and words[found + 1] > oldest:
                for word in range(int(words[found])):
                    row[tile + word] = words[found + 1 + word]
                for word in range(int(words[found]), width):
                    row[tile + word] = 0.0
            tile += width
        first += size
    return count if place == end else -1


def restored(state: Floats, slots: Ints, words: Floats, bounds: Ints, head: int, rings: Ints, tag: float, counts: Ints) -> int:
    """Read entities into empty rows; `bounds` are the ends of (head, tail) of each in `words`. Counts their tail entries.
    Returns the first that is of another layout, or -1."""
    begin, where = 0, np.empty(rings[:, SIZE].sum(), np.int64)
    for i in range(len(slots)):
        counts[i] = 0
        if bounds[i, 0] > begin:
            counts[i] = taken(state[slots[i]], words, begin, bounds[i, 0], bounds[i, 1], head, rings, tag, True, where)
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
    return machine_code(restored, signature, (taken, restored), globals())
