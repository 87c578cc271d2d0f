"""An agenda: what is to happen when, taken in order of time and name.

What is added mostly comes in order, by kind: then it waits in line, at 16 bytes an item beside the name. A heap has the rest.
"""

from __future__ import annotations

import heapq
from array import array
from collections import deque

__all__ = ["FAR", "Agenda"]

FAR = (1 << 63) - 1
"""A time after all others."""
STALE = 1 << 16
"""So many moments that were taken may be kept at the head of a line."""


class _Line:
    """Items of one kind, in order."""

    def __init__(self) -> None:
        self.names: deque[str] = deque()
        self.moments, self.at = array("q"), 0

    def takes(self, moment: int, name: str) -> bool:
        """Whether an item is not before the last."""
        return not self.names or (self.moments[-1], self.names[-1]) <= (moment, name)

    def add(self, moment: int, name: str) -> None:
        self.moments.append(moment)
        self.names.append(name)

    def pop(self) -> tuple[int, str]:
        moment = self.moments[self.at]
        self.at += 1
        if self.at >= STALE and 2 * self.at >= len(self.moments):
            del self.moments[: self.at]
            self.at = 0
        return moment, self.names.popleft()


class Agenda:
    """
    >>> agenda = Agenda()
    >>> for item in ((3, "b", 0), (4, "a", 0), (1, "c", 0), (3, "a", 1)):
    ...     agenda.add(*item)
    >>> [agenda.pop() for _ in range(len(agenda))], agenda.next == FAR
    ([(1, 'c', 0), (3, 'a', 1), (3, 'b', 0), (4, 'a', 0)], True)
    """

    def __init__(self) -> None:
        self._lines: dict[int, _Line] = {}
        self._heap: list[tuple[int, str, int]] = []
        self.next = FAR
        """The moment of the next item."""

    def __len__(self) -> int:
        return len(self._heap) + sum(len(line.names) for line in self._lines.values())

    def add(self, moment: int, name: str, kind: int) -> None:
        line = self._lines.get(kind)
        if line is None:
            line = self._lines[kind] = _Line()
        if line.takes(moment, name):
            line.add(moment, name)
        else:
            heapq.heappush(self._heap, (moment, name, kind))
        self.next = min(self.next, moment)

    def pop(self) -> tuple[int, str, int]:
        """The next item: its moment, name and kind. There is one."""
        heads = [(line.moments[line.at], line.names[0], kind) for kind, line in self._lines.items() if line.names]
        found = min([*heads, *self._heap[:1]])
        if self._heap and found is self._heap[0]:
            heapq.heappop(self._heap)
        else:
            self._lines[found[2]].pop()
        ahead = [line.moments[line.at] for line in self._lines.values() if line.names]
        self.next = min([FAR, *ahead, *(moment for moment, _, _ in self._heap[:1])])
        return found
