"""Quota: how many labels of each source count, so that none has more than its share.

    sums       a window's labels are thinned: each falls on a level by a hash of its id, half of all on level 0, half of the rest
               on level 1, and so on. The levels of a source that are taken, from the rarest on, hold no more than its quota.
               So partitions may count by themselves, and the choice is made when all their counts are there
    rows       labels in order, one by one: each is taken if its source stays within its share of those taken, faded

Only what is taken is in the whole of which a share is: who floods does not make more room for himself.
"""

from __future__ import annotations

from collections.abc import Mapping
from zlib import crc32

__all__ = ["LEVELS", "Quota", "allowed", "level_of", "taken"]

LEVELS = 12
"""The rarest level holds one label of 2048."""
HALF_LIFE = 10_000
"""Labels after which a label counts half in the whole of a Quota: long silence saves up no right to a flood."""


def allowed(counts: Mapping[str, int], caps: Mapping[str, float]) -> dict[str, int]:
    """How many labels of each source with a cap may count, beside all of the others: the greatest numbers with which each stays
    within its share of what counts.

    >>> allowed({"bank": 80, "merchant": 900, "web": 5}, {"merchant": 0.2, "web": 0.1})
    {'merchant': 21, 'web': 5}
    """
    counts = {name: max(count, 0) for name, count in counts.items()}
    free = sum(count for name, count in counts.items() if name not in caps)
    held = {name: counts[name] for name in caps if name in counts}
    while True:
        whole = free + sum(held.values())
        least = {name: min(count, int(caps[name] * whole + 1e-9)) for name, count in held.items()}
        if least == held:
            return held
        held = least


def level_of(name: str) -> int:
    """The level of an id, 0 to LEVELS - 1."""
    found = crc32(name.encode()) | 1 << (LEVELS - 1)
    return (found & -found).bit_length() - 1


def taken(levels: Mapping[int, int], most: int) -> list[int]:
    """Of the counts of a source by level, the levels that are taken: from the rarest on, while they hold no more than `most`.

    >>> taken({0: 8, 1: 4, 2: 3}, 8), taken({0: 8, 1: 4, 2: 3}, 15)
    ([2, 1], [2, 1, 0])
    """
    found, held = [], 0
    for level in sorted(levels, reverse=True):
        held += max(levels[level], 0)
        if held > most:
            break
        found.append(level)
    return found


class Quota:
    """Takes labels one by one; the same in the same order gives the same.

    >>> quota = Quota({"merchant": 0.25})
    >>> [quota.take(name) for name in ("merchant", *["bank"] * 4, "merchant", "merchant")]
    [False, True, True, True, True, True, False]
    """

    def __init__(self, caps: Mapping[str, float]) -> None:
        self._caps, self._fade = caps, 2.0 ** (-1.0 / HALF_LIFE)
        self._whole, self._held = 0.0, dict.fromkeys(caps, 0.0)

    def take(self, source: str) -> bool:
        """Whether one more label of a source counts."""
        cap = self._caps.get(source)
        if cap is not None and self._held[source] + 1.0 > cap * (self._whole + 1.0) + 1e-9:
            return False
        self._whole = self._whole * self._fade + 1.0
        for name in self._held:
            self._held[name] = self._held[name] * self._fade + (name == source)
        return True
