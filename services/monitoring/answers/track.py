"""The track of one partition: which of its records have been applied, when they are not applied in order of offset.

The position to read on from is the oldest record that is not applied. What was applied beyond it is kept as ranges of
offsets, and the sequence numbers are kept as they were at the position, so that a second reading finds the same repeats.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec

from penstock.log import Headers
from penstock.runtime.lane import Redelivered

__all__ = ["SavedTrack", "Track"]


class SavedTrack(msgspec.Struct, array_like=True):
    """What is saved: `applied` are ranges (first, after the last) of offsets beyond the position."""

    position: int = 0
    applied: list[tuple[int, int]] = []
    numbers: dict[str, int] = {}


class Track:
    """Follows records from being read to being applied.

    >>> track = Track(SavedTrack())
    >>> [track.read(offset, ()) for offset in (0, 1, 2)]
    [True, True, True]
    >>> track.apply(1)
    >>> track.position, track.saved().applied
    (0, [(1, 2)])
    >>> again = Track(track.saved())
    >>> [again.read(offset, ()) for offset in (0, 1, 2)]
    [True, False, True]
    """

    def __init__(self, saved: SavedTrack) -> None:
        self.next = saved.position
        """The position after the newest record that was read."""
        self._read, self._passed = Redelivered(saved.numbers), Redelivered(saved.numbers)
        self._under_way: deque[tuple[int, Headers]] = deque()
        self._applied = {offset for first, end in saved.applied for offset in range(first, end)}

    def read(self, offset: int, headers: Headers) -> bool:
        """Take note of the next record; whether it is still to be applied: neither applied before nor a repeat."""
        self.next = offset + 1
        number = headers[-2:]  # a lane numbers at the end
        self._under_way.append((offset, number))
        if not self._read.new(number):
            self._applied.add(offset)
        return offset not in self._applied

    def apply(self, offset: int) -> None:
        self._applied.add(offset)

    @property
    def position(self) -> int:
        """The oldest record that is not applied."""
        under_way, applied = self._under_way, self._applied
        while under_way and under_way[0][0] in applied:
            offset, number = under_way.popleft()
            applied.discard(offset)
            self._passed.new(number)
        return under_way[0][0] if under_way else self.next

    def saved(self) -> SavedTrack:
        return SavedTrack(self.position, _ranges(sorted(self._applied)), dict(self._passed.seen))


def _ranges(offsets: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending offsets as ranges."""
    found: list[tuple[int, int]] = []
    for offset in offsets:
        if found and found[-1][1] == offset:
            found[-1] = (found[-1][0], offset + 1)
        else:
            found.append((offset, offset + 1))
    return found
