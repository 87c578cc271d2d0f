"""Reading: one partition, in order, each of its records once: not what the state has, nor what a shard has sent again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import repeat
from typing import Any

from penstock.log import Batch, Headers, Partition
from penstock.runtime.lane import Redelivered

__all__ = ["Reading"]


class Reading:
    """Where a shard is in a partition: it reads from offset `begin` on, and `next` is where it reads on; `seen` has the numbers
    of the shards that write there.

    >>> reading = Reading(Partition("alarms", 0), 1)
    >>> numbers: list[Headers] = [(("ce_source", b"judge.0"), ("ce_id", n)) for n in (b"1", b"2", b"2", b"3")]
    >>> batch = Batch(reading.at, [0, 1, 2, 3], [None] * 4, [b"a", b"b", b"b", b"c"], numbers)
    >>> [value for _, _, value, _ in reading.new(batch)], reading.next, reading.moved(), reading.moved()
    ([b'b', b'c'], 4, True, False)
    """

    def __init__(self, at: Partition, begin: int = 0, seen: Mapping[str, int] | None = None) -> None:
        self.at, self.next, self._moved = at, begin, False
        self._repeats = Redelivered(seen)

    @property
    def seen(self) -> dict[str, int]:
        return self._repeats.seen

    @property
    def positions(self) -> dict[Partition, int]:
        return {self.at: self.next}

    def new(self, batch: Batch) -> Iterator[tuple[int, bytes | None, bytes | None, Headers]]:
        """Offset, key, value and headers of each record of a batch of the partition that is new."""
        headers: Any = batch.headers or repeat(())
        for offset, key, value, head in zip(batch.offsets, batch.keys, batch.values, headers, strict=False):
            if offset >= self.next:
                self.next, self._moved = offset + 1, True
                if self._repeats.new(head):
                    yield offset, key, value, head

    def moved(self) -> bool:
        """Whether anything was read since this was last asked."""
        moved, self._moved = self._moved, False
        return moved
