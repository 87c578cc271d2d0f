"""How far a reader is behind what it reads, in records and in seconds. Records bear no time of arrival here, but whoever looks
at the ends of topics now and then knows when each record was first seen to be there."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final

from ..log import Partition

__all__ = ["LOOK", "Behind"]

LOOK: Final = 5.0
"""Seconds between two looks, which is how exact the seconds are. Each is one request to the broker for all lanes of a process."""
KEPT: Final = 720
"""Looks remembered of a partition: an hour. Beyond, newer records count as old as the last look kept: never too young."""


class Behind:
    """Remembers when the ends of partitions were where."""

    def __init__(self) -> None:
        self._seen: dict[Partition, deque[tuple[float, int]]] = {}

    def look(self, now: float, ends: Mapping[Partition, int], done: Mapping[Partition, int]) -> tuple[int, float]:
        """Of the partitions in `done`, which says where each reads on: the records not done yet, and for how many seconds the
        oldest of them is known to have been there (0: there is none).

        >>> a, behind = Partition("trips", 0), Behind()
        >>> behind.look(100.0, {a: 7}, {a: 7}), behind.look(105.0, {a: 9}, {a: 7}), behind.look(110.0, {a: 20}, {a: 8})
        ((0, 0.0), (2, 0.0), (12, 5.0))
        >>> behind.look(115.0, {a: 20}, {a: 9})  # what is left came with the look at 110
        (11, 5.0)
        """
        self._seen = {partition: self._seen.get(partition, deque()) for partition in done}
        records, since = 0, now
        for partition, seen in self._seen.items():
            at, end = done[partition], ends.get(partition, done[partition])
            if not seen or seen[-1][1] < end:
                if len(seen) < KEPT:
                    seen.append((now, end))
                else:
                    seen[-1] = (seen[-1][0], end)
            while seen and seen[0][1] <= at:
                seen.popleft()
            if seen:
                since = min(since, seen[0][0])
            records += max(end - at, 0)
        return records, now - since
