"""Summaries of values that merge: numbers by an adaptive histogram, texts by their most frequent, both by how many differ.

Nothing here is random, and nothing here depends on how values were cut into batches. Numbers and Distinct are associative and
commutative to the byte: any split, any order, the same state. Texts are that while at most FREQUENT values differ; beyond, they
are a function of the order of the values, and a merged count is low by at most `lost`.

(The sketches of window tiles are others, with the reason: see `sketch`.)

    Distinct   how many values differ: exact below SMALLEST, else 3 % standard error
    Numbers    moments (exact), least, greatest, quantiles and histogram (to a bound that is stated)
    Texts      most frequent values, lengths
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .exact import CHUNK, Moments

__all__ = ["BUCKETS", "CLIP", "FREQUENT", "SMALLEST", "Distinct", "Numbers", "Texts"]

SMALLEST: Final = 1024
"""Hashes that Distinct keeps: the standard error is 1 / sqrt(SMALLEST - 2), 3.1 %, in 8 kB."""
BUCKETS: Final = 1024
"""Buckets that Numbers keeps at most. 1,024 different numbers or fewer are kept exactly."""
FREQUENT: Final = 256
"""Texts that are counted one by one: whatever makes up more than 1/257 of the values is among them."""
CLIP: Final = 80
"""Characters of a text that are kept; a longer one is told apart by a hash at its end."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

_PRIME: Final = (1 << 64) - 59
_FIRST: Final = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)
"""Masks of the first n bytes of a word."""
_EXACT: Final = 1 << 53
"""Integers beyond this are not all float64."""


class Distinct:
    """How many values differ, by the least hashes seen (KMV: Bar-Yossef et al. 2002; Beyer et al. 2007).

    >>> some = Distinct()
    >>> some.add_texts(["a", "b", "a"])
    >>> some.count
    2
    """

    __slots__ = ("hashes",)

    def __init__(self, hashes: Hashes | None = None) -> None:
        self.hashes: Hashes = np.empty(0, np.uint64) if hashes is None else hashes

    def add_bits(self, bits: Hashes) -> None:
        """Values as 64 bits each, mixed here."""
        self._keep(_mixed(bits))

    def add_texts(self, values: Sequence[str]) -> None:
        self.add_bits(_folded(values))

    def _keep(self, hashes: Hashes) -> None:
        if len(self.hashes) == SMALLEST:
            hashes = hashes[hashes < self.hashes[-1]]
        if len(hashes) > 8 * SMALLEST:  # most of them cannot be kept: do not sort them
            least = np.unique(np.partition(hashes, 4 * SMALLEST)[: 4 * SMALLEST])
            hashes = least if len(least) >= SMALLEST else hashes
        if len(hashes):
            self.hashes = np.union1d(self.hashes, hashes)[:SMALLEST]

    def merge(self, other: Distinct) -> Distinct:
        return Distinct(np.union1d(self.hashes, other.hashes)[:SMALLEST])

    @property
    def exact(self) -> bool:
        return len(self.hashes) < SMALLEST

    @property
    def count(self) -> int:
        if self.exact:
            return len(self.hashes)
        return round((SMALLEST - 1) / ((int(self.hashes[-1]) + 1) / 2.0**64))


def _mixed(bits: Hashes) -> Hashes:
    """Well-mixed bits (splitmix64: Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        z = bits + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _folded(texts: Sequence[str]) -> Hashes:
    """64 bits of each text: the number of its bytes, and then eight of them after eight. Python's own hash is random, and
    `aggregate.code`, which rows hold and so must not collide by design of a sender, costs ten times as much."""
    flat = "".join(texts)
    if flat.isascii():
        data, sizes = flat.encode(), np.fromiter(map(len, texts), np.int64, len(texts))
    else:
        parts = [text.encode("utf-8", "surrogatepass") for text in texts]
        data, sizes = b"".join(parts), np.fromiter(map(len, parts), np.int64, len(texts))
    words = np.ndarray(len(data) + 1, "<u8", data + bytes(8), 0, 1)  # one begins at every byte
    begins, bits, longer = np.cumsum(sizes) - sizes, sizes.astype(np.uint64), np.arange(len(sizes))
    for at in range(0, int(sizes.max(initial=0)), 8):
        longer = longer[sizes[longer] > at]
        word = words[begins[longer] + at] & _FIRST[np.minimum(sizes[longer] - at, 8)]
        bits[longer] = _mixed(bits[longer] ^ word)
    return bits


def _number(text: str) -> int:
    """64 bits of a text: its bytes, as one number, modulo a prime (Karp and Rabin 1987)."""
    return int.from_bytes(text.encode("utf-8", "surrogatepass") + b"\1", "little") % _PRIME


class Numbers:
    """Finite numbers; infinite ones are only counted.

    The histogram begins with a bucket per value and halves its resolution (drops the last bit that tells two buckets apart,
    for all of them) whenever more than BUCKETS are in use. What it ends at depends on the set of values alone, because more
    values never need fewer buckets: so merging is exactly associative. Buckets are log-linear, cut from the bits of the float
    itself (circllhist: Hartmann and Schlossnagle 2020; collapsing all alike: UDDSketch, Epicoco et al. 2020).
    """

    __slots__ = ("counts", "distinct", "greatest", "infinite", "keys", "least", "level", "moments", "wide")

    def __init__(self) -> None:
        self.keys: Ints = np.empty(0, np.int64)
        """Buckets in use, ascending: the float's bits without the last `level` ones, with its sign."""
        self.counts: Ints = np.empty(0, np.int64)
        self.level = 0
        self.moments, self.distinct, self.infinite = Moments(), Distinct(), 0
        self.least: float | int | None = None
        self.greatest: float | int | None = None
        self.wide = False
        """Whether there were integers beyond 2**53, which buckets and moments hold rounded."""

    def add(self, values: npt.NDArray[Any]) -> None:
        """Add numbers: float64, int64 or bool, without NaN."""
        for start in range(0, len(values), CHUNK):
            self._add(*_counted(values[start : start + CHUNK]))

    def add_counted(self, values: npt.NDArray[Any], counts: Ints) -> None:
        """Add numbers that all differ, each as often as is said."""
        order = np.argsort(values)
        self._add(values[order], counts[order])

    def _add(self, unique: npt.NDArray[Any], counts: Ints) -> None:
        if unique.dtype.kind == "f":
            finite = np.isfinite(unique)
            if not finite.all():
                self.infinite += int(counts[~finite].sum())
                unique, counts = unique[finite], counts[finite]
        if not len(unique):
            return
        first, last = unique[0].item(), unique[-1].item()
        first, last = (int(first), int(last)) if isinstance(first, bool) else (first, last)
        self.least = first if self.least is None else min(self.least, first)
        self.greatest = last if self.greatest is None else max(self.greatest, last)
        floats: Floats = unique.astype(np.float64) + 0.0  # of -0.0 and 0.0 one value
        bits = floats.view(np.int64)
        told = bits.view(np.uint64)
        if unique.dtype.kind == "i" and (first < -_EXACT or last > _EXACT):
            self.wide = True
            told = np.where(np.abs(floats) < float(_EXACT), told, unique.view(np.uint64))
        self.distinct.add_bits(told)
        self.moments.add(floats, counts)
        self._gather(*_joined(_key(floats, self.level), counts))

    def _gather(self, keys: Ints, counts: Ints) -> None:
        """Add buckets of our level, then coarsen while they are too many."""
        self.keys, self.counts = _sorted(np.concatenate([self.keys, keys]), np.concatenate([self.counts, counts]))
        if len(self.keys) > BUCKETS:
            by = bisect_left(range(64), True, lo=1, key=lambda by: _differing(_coarser(self.keys, by)) <= BUCKETS)
            self.level += by
            self.keys, self.counts = _joined(_coarser(self.keys, by), self.counts)

    def merge(self, other: Numbers) -> Numbers:
        made = Numbers()
        made.level = max(self.level, other.level)
        for part in (self, other):
            made._gather(_coarser(part.keys, made.level - part.level), part.counts)
        made.moments, made.distinct = self.moments.merge(other.moments), self.distinct.merge(other.distinct)
        made.infinite, made.wide = self.infinite + other.infinite, self.wide or other.wide
        made.least = min((v for v in (self.least, other.least) if v is not None), default=None)
        made.greatest = max((v for v in (self.greatest, other.greatest) if v is not None), default=None)
        return made

    @property
    def exact(self) -> bool:
        """Whether every value is kept, so that quantiles, counts and the most frequent are exact."""
        return self.level == 0 and not self.wide

    @property
    def error(self) -> float:
        """How far a quantile may be off, as a share of its size: half the width of a bucket. 0 where all is exact."""
        return 0.0 if self.exact else 2.0 ** (self.level - 53)

    def values(self) -> Floats:
        """One value for each bucket: its middle, within what was seen."""
        low, high = self._bounds()
        with np.errstate(over="ignore"):
            middle = low + (high - low) / 2
        if self.least is None or self.greatest is None:
            return middle
        return np.clip(middle, float(self.least), float(self.greatest))

    def _bounds(self) -> tuple[Floats, Floats]:
        """Where each bucket begins and ends, the lesser first; both the value itself where buckets are single values."""
        size = np.abs(self.keys)
        near = (size << self.level).view(np.float64)
        far = np.minimum((size + (self.level > 0)) << self.level, _GREATEST).view(np.float64)
        sign = np.where(self.keys < 0, -1.0, 1.0)
        near, far = near * sign, far * sign
        middle = self.keys == 0
        near = np.where(middle, -far, near)
        return np.minimum(near, far), np.maximum(near, far)

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """The least value with at least this share of all values at or below it (numpy's "inverted_cdf"); [] of none."""
        if not len(self.keys):
            return []
        below, values = np.cumsum(self.counts), self.values()
        ranks = np.maximum(np.ceil(np.round(np.asarray(shares) * int(below[-1]), 9)), 1)
        return [float(values[place]) for place in np.searchsorted(below, ranks)]

    def histogram(self, bins: int = 20) -> tuple[list[float], list[int]]:
        """Edges and counts of bins of equal width; few whole numbers have a bin each. A bucket counts where its middle lies."""
        if self.least is None or self.greatest is None:
            return [], []
        least, greatest = float(self.least), float(self.greatest)
        if least == greatest:
            return [least, greatest], [int(self.counts.sum())]
        values = self.values()
        if self.exact and greatest - least < 2 * bins and (values == np.rint(values)).all():
            bins = round(greatest - least) + 1
        share = np.arange(bins + 1) / bins
        edges = least * (1 - share) + greatest * share
        edges[-1] = greatest
        places = np.clip(np.searchsorted(edges, values, "right") - 1, 0, bins - 1)
        return edges.tolist(), np.bincount(places, self.counts, bins).astype(np.int64).tolist()

    def frequent(self, n: int = 10) -> list[tuple[float, int]]:
        """The most frequent values, of equal ones the least first; [] where values are not kept one by one."""
        if not self.exact:
            return []
        order = np.argsort(-self.counts, kind="stable")[:n]
        values = self.values()
        return [(float(values[i]), int(self.counts[i])) for i in order]

    def state(self) -> list[Any]:
        packed = [self.keys.astype("<i8").tobytes(), self.counts.astype("<i8").tobytes()]
        hashes = self.distinct.hashes.astype("<u8").tobytes()
        return [*packed, self.level, self.moments.state(), hashes, self.infinite, self.least, self.greatest, self.wide]

    @classmethod
    def of_state(cls, state: list[Any]) -> Numbers:
        made = cls()
        keys, counts, made.level, moments, hashes, made.infinite, made.least, made.greatest, made.wide = state
        made.keys, made.counts = np.frombuffer(keys, "<i8").astype(np.int64), np.frombuffer(counts, "<i8").astype(np.int64)
        made.moments, made.distinct = Moments.of_state(moments), Distinct(np.frombuffer(hashes, "<u8").astype(np.uint64))
        return made


_GREATEST: Final = np.array(np.finfo(np.float64).max).view(np.int64).item()


def _counted(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Ints]:
    """The values that differ, ascending, and how often each is there; without sorting where they are a narrow range."""
    if values.dtype.kind == "i" and len(values):
        least = int(values.min())
        if int(values.max()) - least < len(values):
            counts = np.bincount(values - least)
            found = np.flatnonzero(counts)
            return found + least, counts[found]
    unique, counts = np.unique(values, return_counts=True)
    return unique, counts.astype(np.int64)


def _key(floats: Floats, level: int) -> Ints:
    size = np.abs(floats).view(np.int64) >> level
    return np.where(floats < 0, -size, size)


def _coarser(keys: Ints, by: int) -> Ints:
    """Buckets of a lower resolution; both signs towards zero, so that order is kept."""
    return np.sign(keys) * (np.abs(keys) >> by) if by else keys


def _differing(keys: Ints) -> int:
    """How many keys differ, of ascending ones."""
    return 1 + int(np.count_nonzero(keys[1:] != keys[:-1]))


def _sorted(keys: Ints, counts: Ints) -> tuple[Ints, Ints]:
    order = np.argsort(keys, kind="stable")
    return _joined(keys[order], counts[order])


def _joined(keys: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """Equal neighbours as one."""
    if not len(keys):
        return keys, counts
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[starts], np.add.reduceat(counts, starts)


class Texts:
    """Texts: lengths in characters, how many differ, and the most frequent (Misra and Gries 1982; merged as Agarwal et al.,
    "Mergeable Summaries", 2012).

    >>> some = Texts()
    >>> some.add(["DE", "FR", "DE"])
    >>> some.frequent(1), some.distinct.count, some.lengths.greatest
    ([('DE', 2)], 2, 2)
    """

    __slots__ = ("distinct", "lengths", "lost", "top")

    def __init__(self) -> None:
        self.lengths, self.distinct = Numbers(), Distinct()
        self.top: dict[str, int] = {}
        self.lost = 0
        """Every count of `top` is low by at most this; 0 while all values fit."""

    def add(self, values: Sequence[str]) -> None:
        if not self.lost:
            counted = Counter(values)
            new = [text for text in counted if text not in self.top]
            if len(self.top) + len(new) <= FREQUENT:
                self.distinct.add_texts(new)
                self.lengths.add_counted(*_lengths(counted))
                for text, count in counted.items():
                    name = _clipped(text)
                    self.top[name] = self.top.get(name, 0) + count
                return
        self.distinct.add_texts(values)
        sizes = np.fromiter(map(len, values), np.int64, len(values))
        self.lengths.add(sizes)
        if sizes.max(initial=0) > CLIP or not "".join(values).isascii():
            values = list(map(_clipped, values))
        self._count(values)

    def _count(self, names: Sequence[str]) -> None:
        """One after the other: the borders of batches must not show. As many as there are free counters may go at once."""
        top, at = Counter(self.top), 0
        while at < len(names):
            room = FREQUENT - len(top)
            if room:
                top.update(names[at : at + room])
                at += room
                continue
            name, at = names[at], at + 1
            if name in top:
                top[name] += 1
            else:
                self.lost += 1
                top = Counter({known: count - 1 for known, count in top.items() if count > 1})
        self.top = dict(top)

    def merge(self, other: Texts) -> Texts:
        made = Texts()
        made.lengths, made.distinct = self.lengths.merge(other.lengths), self.distinct.merge(other.distinct)
        made.lost = self.lost + other.lost
        made.top = dict(Counter(self.top) + Counter(other.top))
        if len(made.top) > FREQUENT:
            least = sorted(made.top.values(), reverse=True)[FREQUENT]
            made.lost += least
            made.top = {name: count - least for name, count in made.top.items() if count > least}
        return made

    def frequent(self, n: int = 10) -> list[tuple[str, int]]:
        """The most frequent values, of equal ones in order of text; a count is low by at most `lost`, and values that may owe
        their place to that are left out."""
        sure = ((text, count) for text, count in self.top.items() if count > self.lost)
        return sorted(sure, key=lambda item: (-item[1], item[0]))[:n]

    def state(self) -> list[Any]:
        return [self.lengths.state(), self.distinct.hashes.astype("<u8").tobytes(), sorted(self.top.items()), self.lost]

    @classmethod
    def of_state(cls, state: list[Any]) -> Texts:
        made = cls()
        lengths, hashes, top, made.lost = state
        made.lengths, made.distinct = Numbers.of_state(lengths), Distinct(np.frombuffer(hashes, "<u8").astype(np.uint64))
        made.top = dict(map(tuple, top))
        return made


def _lengths(counted: Mapping[str, int]) -> tuple[Ints, Ints]:
    """The lengths that differ, and how many texts have each."""
    sizes = Counter[int]()
    for text, count in counted.items():
        sizes[len(text)] += count
    return np.array(list(sizes), np.int64), np.array(list(sizes.values()), np.int64)


def _clipped(text: str) -> str:
    text = text if text.isascii() else text.encode("utf-8", "replace").decode()  # a lone surrogate is not UTF-8
    return text if len(text) <= CLIP else f"{text[: CLIP - 9]}…{_number(text) & 0xFFFFFFFF:08x}"
