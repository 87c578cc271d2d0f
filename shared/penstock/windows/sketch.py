"""Sketches in fixed numbers of float64 words, so that a tile is a slice of an array: distinct values, quantiles, common values.

Each has `add`, `fold` (merge another one in) and `value`. All are deterministic: state is a function of the values and of
their order, and no bit is drawn at random. Compiled with the kernel; written so that plain Python gives the same bits.

Profiles have sketches of their own (`summary`), for another purpose: they take arrays, may grow to what they need, and must come
out alike for any order and any split. A tile lies in a fixed number of words, takes one value at a time, and its entity's events
have an order.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = [
    "COMMON_LEAST", "DISTINCT_EXACT", "DISTINCT_WORDS", "PARTS", "QUANTILE_EXACT", "QUANTILE_WORDS", "distinct_add",
    "distinct_fold", "distinct_value", "quantile_add", "quantile_fold", "quantile_value", "top_add", "top_fold", "top_value",
]  # fmt: skip

Floats = npt.NDArray[np.float64]

DISTINCT_EXACT = 128
"""Up to so many distinct values are kept themselves and the count is exact."""
REGISTERS = 8 * DISTINCT_EXACT
"""Beyond, HyperLogLog in the same words: 1,024 registers of 6 bits, 8 to a word. Standard error 1.04 / 32 = 3.3 %."""
DISTINCT_WORDS = 1 + DISTINCT_EXACT
"""How many values are kept, or -1; then the values, or the registers."""

QUANTILE_EXACT = 256
"""Up to so many values are kept themselves and quantiles are exact."""
LEVELS = 24
"""A value at level h stands for 2**h. The highest is full after a thousand million values; every second one of its values is then
dropped, so that beyond, older values count for less."""
QUANTILE_WORDS = 2 + LEVELS + QUANTILE_EXACT
"""How many values came, how many are kept, how many of them at each level; then the values, highest level first."""
TOP_CAPACITY = 64.0
"""Values kept at the highest level; 2/3 of it at the next, and so on: 3 x 64 + 2 x LEVELS <= QUANTILE_EXACT, so that of a
full sketch some level is over its capacity."""

COMMON_LEAST = 32
"""Counters of the most common values at least; with m counters, a count is too small by n / (m + 1) at most."""


def mixed(value: float) -> np.uint64:
    """64 well-mixed bits of a value (the finaliser of splitmix64; Steele, Lea, Flood 2014)."""
    bits = np.float64(value + 0.0).view(np.uint64)
    bits ^= bits >> np.uint64(30)
    bits *= np.uint64(0xBF58476D1CE4E5B9)
    bits ^= bits >> np.uint64(27)
    bits *= np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


# --- distinct values: themselves, then HyperLogLog (Flajolet, Fusy, Gandouet, Meunier 2007; estimator of Ertl 2017) ---


def registered(row: Floats, at: int, register: int, rank: int) -> None:
    """Raise a register to `rank`."""
    word, shift = at + 1 + register // 8, 6 * (register % 8)
    packed = int(row[word])
    old = (packed >> shift) & 63
    if rank > old:
        row[word] = packed + ((rank - old) << shift)


def hashed(row: Floats, at: int, value: float) -> None:
    """Take a value into the registers."""
    bits = mixed(value)
    register, rank = int(bits >> np.uint64(54)), 1
    bits <<= np.uint64(10)
    while rank < 55 and bits >> np.uint64(63) == np.uint64(0):
        bits <<= np.uint64(1)
        rank += 1
    registered(row, at, register, rank)


def dense(row: Floats, at: int) -> None:
    """From the values themselves to registers."""
    kept = row[at + 1 : at + 1 + int(row[at])].copy()
    row[at : at + DISTINCT_WORDS] = 0.0
    row[at] = -1.0
    for value in kept:
        hashed(row, at, value)


def distinct_add(row: Floats, at: int, value: float) -> None:
    """Take one value."""
    if row[at] >= 0.0:
        n = int(row[at])
        for word in range(at + 1, at + 1 + n):
            if row[word] == value:
                return
        if n < DISTINCT_EXACT:
            row[at + 1 + n] = value
            row[at] += 1.0
            return
        dense(row, at)
    hashed(row, at, value)


def distinct_fold(into: Floats, at: int, row: Floats, tile: int) -> None:
    """The union. Commutative and associative."""
    if row[tile] >= 0.0:
        for word in range(tile + 1, tile + 1 + int(row[tile])):
            distinct_add(into, at, row[word])
        return
    if into[at] >= 0.0:
        dense(into, at)
    for register in range(REGISTERS):
        packed = int(row[tile + 1 + register // 8])
        registered(into, at, register, (packed >> (6 * (register % 8))) & 63)


def distinct_value(row: Floats, at: int) -> float:
    """How many distinct values there were."""
    if row[at] >= 0.0:
        return row[at]
    counts = np.zeros(56)
    for register in range(REGISTERS):
        packed = int(row[at + 1 + register // 8])
        counts[(packed >> (6 * (register % 8))) & 63] += 1.0
    x = 1.0 - counts[55] / REGISTERS
    total = 0.0
    if 0.0 < x < 1.0:
        y, total, last = 1.0, 1.0 - x, -1.0
        while total != last:
            x, last, y = math.sqrt(x), total, y * 0.5
            total -= (1.0 - x) * (1.0 - x) * y
        total /= 3.0
    total *= REGISTERS
    for rank in range(54, 0, -1):
        total = 0.5 * (total + counts[rank])
    x = counts[0] / REGISTERS
    y, empty, last = 1.0, x, -1.0
    while empty != last:
        x, last = x * x, empty
        empty += x * y
        y += y
    return REGISTERS * REGISTERS / (2.0 * math.log(2.0) * (total + REGISTERS * empty))


# --- quantiles: KLL (Karnin, Lang, Liberty 2016); which half of a level goes up is told by a hash of the count ---


def compacted(row: Floats, at: int) -> None:
    """Halve the lowest level that is over its capacity: its sorted values, every second one, go up."""
    sizes, items = at + 2, at + 2 + LEVELS
    top = LEVELS - 1
    while top > 0 and row[sizes + top] == 0.0:
        top -= 1
    level = 0
    while level < top:
        capacity = TOP_CAPACITY
        for _ in range(top - level):
            capacity *= 2.0 / 3.0
        if row[sizes + level] >= max(2.0, capacity):
            break
        level += 1
    begin = items
    for above in range(level + 1, LEVELS):
        begin += int(row[sizes + above])
    size, end = int(row[sizes + level]), items + int(row[at + 1])
    ordered = np.sort(row[begin : begin + size])
    coin = mixed(row[at] * LEVELS + level)
    spare = size % 2
    skip = spare if (coin & np.uint64(2)) == np.uint64(2) else 0
    left = ordered[0] if skip else ordered[size - 1]
    half = size // 2
    for i in range(half):
        row[begin + i] = ordered[skip + 2 * i + int(coin & np.uint64(1))]
    if spare:
        row[begin + half] = left
    for place in range(begin + size, end):
        row[place - half] = row[place]
    row[end - half : end] = 0.0
    if level + 1 < LEVELS:
        row[sizes + level + 1] += half
        row[sizes + level] = spare
    else:
        row[sizes + level] = half + spare
    row[at + 1] -= half


def quantile_add(row: Floats, at: int, value: float) -> None:
    """Take one value."""
    if row[at + 1] == QUANTILE_EXACT:
        compacted(row, at)
    row[at + 2 + LEVELS + int(row[at + 1])] = value
    row[at] += 1.0
    row[at + 1] += 1.0
    row[at + 2] += 1.0


def quantile_fold(into: Floats, at: int, row: Floats, tile: int) -> None:
    """Take another sketch. Exact while all values fit; else ranks keep their error bound, not their bits."""
    both = np.zeros(QUANTILE_WORDS + QUANTILE_EXACT)
    both[0], both[1] = into[at] + row[tile], into[at + 1] + row[tile + 1]
    place, left, right = 2 + LEVELS, at + 2 + LEVELS, tile + 2 + LEVELS
    for level in range(LEVELS - 1, -1, -1):
        a, b = int(into[at + 2 + level]), int(row[tile + 2 + level])
        both[2 + level] = a + b
        both[place : place + a] = into[left : left + a]
        both[place + a : place + a + b] = row[right : right + b]
        place, left, right = place + a + b, left + a, right + b
    while both[1] > QUANTILE_EXACT:
        compacted(both, 0)
    into[at : at + QUANTILE_WORDS] = both[:QUANTILE_WORDS]


def quantile_value(row: Floats, at: int, q: float) -> float:
    """The least value whose rank is at least q n."""
    kept, items = int(row[at + 1]), at + 2 + LEVELS
    weights = np.empty(kept)
    place = 0
    for level in range(LEVELS - 1, -1, -1):
        for _ in range(int(row[at + 2 + level])):
            weights[place] = 2.0**level
            place += 1
    values = row[items : items + kept]
    order = np.argsort(values)
    rank, wanted = 0.0, q * weights.sum()
    for place in range(kept - 1):
        rank += weights[order[place]]
        if rank >= wanted:
            return values[order[place]]
    return values[order[kept - 1]]


# --- common values: counters (Misra, Gries 1982), merged as by Agarwal et al. 2012 ---


def top_add(row: Floats, at: int, room: int, value: float) -> None:
    """Take one value: count it, or give it a free counter, or lower all."""
    free = -1
    for place in range(at, at + 2 * room, 2):
        if row[place + 1] == 0.0:
            free = place
        elif row[place] == value:
            row[place + 1] += 1.0
            return
    if free >= 0:
        row[free], row[free + 1] = value, 1.0
        return
    for place in range(at, at + 2 * room, 2):
        row[place + 1] -= 1.0
        if row[place + 1] == 0.0:
            row[place] = 0.0


def top_best(row: Floats, at: int, room: int, nth: int) -> int:
    """Where the counter lies that has the n-th greatest count (of equal ones the smaller value first); -1 where there is none."""
    for place in range(at, at + 2 * room, 2):
        if row[place + 1] > 0.0:
            better = 0
            for other in range(at, at + 2 * room, 2):
                if row[other + 1] > row[place + 1] or (row[other + 1] == row[place + 1] and row[other] < row[place]):
                    better += 1
            if better == nth:
                return place
    return -1


def top_fold(into: Floats, at: int, row: Floats, tile: int, room: int) -> None:
    """Take another sketch. Commutative; exact while all values fit."""
    both = np.zeros(4 * room)
    both[: 2 * room] = into[at : at + 2 * room]
    for place in range(tile, tile + 2 * room, 2):
        if row[place + 1] > 0.0:
            free = 0
            for other in range(0, 4 * room, 2):
                if both[other + 1] == 0.0:
                    free = other
                elif both[other] == row[place]:
                    both[other + 1] += row[place + 1]
                    free = -1
                    break
            if free >= 0:
                both[free], both[free + 1] = row[place], row[place + 1]
    beyond = top_best(both, 0, 2 * room, room)
    less = both[beyond + 1] if beyond >= 0 else 0.0
    into[at : at + 2 * room] = 0.0
    for nth in range(room):
        place = top_best(both, 0, 2 * room, nth)
        if place < 0 or both[place + 1] <= less:
            break
        into[at + 2 * nth], into[at + 2 * nth + 1] = both[place], both[place + 1] - less


def top_value(row: Floats, at: int, room: int, nth: int) -> float:
    """The value with the n-th greatest count; NaN where there are fewer values."""
    place = top_best(row, at, room, nth)
    return row[place] if place >= 0 else np.nan


PARTS = (
    mixed, registered, hashed, dense, distinct_add, distinct_fold, distinct_value, compacted, quantile_add, quantile_fold,
    quantile_value, top_add, top_best, top_fold, top_value,
)  # fmt: skip
"""All of them, callees first, for who compiles them."""
