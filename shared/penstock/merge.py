"""Stream-time merge: first-in-first-out sources become one ordered stream, the same for any arrival order.

Every record has an own time, and an *effective* one, E: the running maximum within its source (so E never falls, and a late
record keeps its place). A source's *frontier* says that nothing with a smaller E will come from it: its newest E, or a
closed time that somebody published. Records with E strictly below the least frontier of all sources are released, ordered by
(E, rank, id); strictly, because ties must all be known before their order is. So how records were batched, delayed or spread
over partitions does not show, as long as each source is in order of time. What is late is counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .log import Partition
from .records import Clock

__all__ = ["NEVER", "TRUSTED_SECONDS", "Frontiers", "Merge", "Released"]

NEVER = -(1 << 62)
TRUSTED_SECONDS = 60.0
"""A publisher that closes times is waited for this long: it may pause, or its broker; what waits meanwhile is in order."""
Times = npt.NDArray[np.int64]


class Released:
    """What a merge let go: parallel columns in order. `source` indexes the merge's sources."""

    __slots__ = ("ids", "items", "ranks", "times")

    def __init__(self, times: Times, ranks: npt.NDArray[np.int64], ids: list[str], items: list[Any]) -> None:
        self.times, self.ranks, self.ids, self.items = times, ranks, ids, items

    def __len__(self) -> int:
        return len(self.items)


class _Source:
    """A queue of columns. `seen` is its newest E, `closed` the newest published closing time."""

    __slots__ = ("closed", "idle", "ids", "items", "offsets", "ranks", "seen", "times")

    def __init__(self) -> None:
        self.seen = self.closed = NEVER
        self.idle = False
        self.times: Times = np.empty(0, np.int64)
        self.ranks: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self.ids: list[str] = []
        self.items: list[Any] = []
        self.offsets: list[int] = []

    @property
    def frontier(self) -> int:
        return max(self.seen, self.closed)


class Merge:
    """Merges named sources.

    >>> merge = Merge(["a", "b"])
    >>> merge.push("a", np.array([10, 30]), np.array([0, 0]), ["x", "y"], [0, 1], ["a10", "a30"])
    >>> merge.push("b", np.array([20]), np.array([0]), ["z"], [0], ["b20"])
    >>> merge.release().items
    ['a10']
    >>> merge.close("b", 40)
    >>> merge.release().items
    ['b20']
    """

    def __init__(self, sources: Iterable[str], released: int = NEVER) -> None:
        self._sources = {name: _Source() for name in sources}
        self.released = released
        """Everything with a smaller E has been released; what still comes with one is late and takes this as its E."""
        self.late = 0
        self._waiting = 0.0, released
        """Since when, and at which released time, records have been waiting."""

    def push(
        self,
        source: str,
        times: Times,
        ranks: npt.NDArray[np.int64],
        ids: list[str],
        offsets: list[int],
        items: list[Any],
    ) -> None:
        """Append records of a source, in its order. `times` are own times in microseconds."""
        if not len(times):
            return
        queue = self._sources[source]
        floor = max(queue.seen, self.released)
        effective = np.maximum.accumulate(np.maximum(times, floor))
        self.late += int(np.count_nonzero(times < effective))
        queue.seen = int(effective[-1])
        queue.idle = False
        queue.times = np.concatenate([queue.times, effective])
        queue.ranks = np.concatenate([queue.ranks, ranks])
        queue.ids += ids
        queue.items += items
        queue.offsets += offsets

    def close(self, source: str, before: int) -> None:
        """Nothing earlier than `before` will come from this source."""
        queue = self._sources[source]
        queue.closed = max(queue.closed, before)

    def idle(self, source: str, idle: bool) -> None:
        """Pass a source, or do not; what comes from it while it is passed may be late."""
        self._sources[source].idle = idle

    def silent(self, source: str, heard: float, now: float, after: float) -> None:
        """Decide whether a source last heard at second `heard` is passed: only when others have waited for it, and it has been
        silent, for `after` seconds where nobody closes its times, for TRUSTED_SECONDS at least where somebody does (who may
        pause). Waiting begins when there is something to wait with, so that a quiet start passes nobody."""
        if not self.pending or self._waiting[1] != self.released:
            self._waiting = now, self.released
        queue = self._sources[source]
        limit = after if queue.closed == NEVER else max(after, TRUSTED_SECONDS)
        waited = now - max(heard, self._waiting[0])
        queue.idle = waited > limit and self.pending > len(queue.items) and queue.frontier <= self.released

    def resume(self, source: str, seen: int) -> None:
        """Restore a source's newest E after a restart."""
        self._sources[source].seen = max(self._sources[source].seen, seen)

    def seen(self) -> dict[str, int]:
        """The newest E *released or pending* per source that has one; saved with the position."""
        return {name: int(q.times[0]) if len(q.times) else q.seen for name, q in self._sources.items() if q.seen > NEVER}

    def closings(self, sources: Iterable[str]) -> dict[str, int]:
        """The closed time of each source, as far as it holds when its pending records are read again."""
        found = {}
        for name in sources:
            queue = self._sources[name]
            if queue.closed > NEVER:
                found[name] = min(queue.closed, int(queue.times[0])) if len(queue.times) else queue.closed
        return found

    @property
    def frontier(self) -> int:
        """The least frontier of the sources that are not idle; when all are, just past the newest record."""
        awake = [q.frontier for q in self._sources.values() if not q.idle]
        if awake or not self._sources:
            return min(awake, default=NEVER)
        newest = max(q.frontier for q in self._sources.values())
        return newest + 1 if newest > NEVER else NEVER

    def first_pending(self, source: str) -> int | None:
        """The offset of the oldest record not released; None when the queue is empty."""
        offsets = self._sources[source].offsets
        return offsets[0] if offsets else None

    @property
    def pending(self) -> int:
        return sum(len(q.items) for q in self._sources.values())

    def release(self) -> Released:
        """Everything strictly below the frontier, in order."""
        before = self.frontier
        if before > self.released:
            self.released = before
        times, ranks, ids, items = [], [], [], []
        for queue in self._sources.values():
            cut = int(np.searchsorted(queue.times, before, "left"))
            if cut:
                times.append(queue.times[:cut])
                ranks.append(queue.ranks[:cut])
                ids += queue.ids[:cut]
                items += queue.items[:cut]
                queue.times, queue.ranks = queue.times[cut:], queue.ranks[cut:]
                del queue.ids[:cut], queue.items[:cut], queue.offsets[:cut]
        if not times:
            return Released(np.empty(0, np.int64), np.empty(0, np.int64), [], [])
        when, rank = np.concatenate(times), np.concatenate(ranks)
        if len(when) > 1:
            order = _order(when, rank, ids)
            if order is not None:
                when, rank = when[order], rank[order]
                places = order.tolist()
                ids, items = [ids[i] for i in places], [items[i] for i in places]
        return Released(when, rank, ids, items)


def _order(when: Times, rank: npt.NDArray[np.int64], ids: list[str]) -> npt.NDArray[np.intp] | None:
    """The stable order by (E, rank, id), or None when it is that already. Only ties look at ids."""
    ahead, behind = when[:-1], when[1:]
    tied = ahead == behind
    sorted_already = bool((ahead <= behind).all()) and bool((rank[:-1][tied] < rank[1:][tied]).all())
    if sorted_already:
        return None
    order = np.lexsort((rank, when))
    when, rank = when[order], rank[order]
    same = np.flatnonzero((when[:-1] == when[1:]) & (rank[:-1] == rank[1:]))
    if len(same):
        breaks = np.flatnonzero(np.diff(same) > 1)
        starts = same[np.concatenate([[0], breaks + 1])]
        stops = same[np.concatenate([breaks, [len(same) - 1]])] + 2
        places = order.tolist()
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            places[start:stop] = sorted(places[start:stop], key=ids.__getitem__)
        order = np.array(places, np.intp)
    return order


class Frontiers:
    """Which times have been closed for which partition, from the records of the clock topic.

    For a user's topic any publisher may close a time. For a topic of ours, `writers` names the publishers that all must.
    `only` are the topics listened to (None: all).

    >>> closed = Frontiers({})
    >>> closed.hear(Clock(publisher="me", before=100, ends={"payments": {0: 7}}))
    >>> closed.at(Partition("payments", 0), 6) == NEVER, closed.at(Partition("payments", 0), 7)
    (True, 100)
    """

    def __init__(self, writers: Mapping[str, Sequence[str]], only: Collection[str] | None = None) -> None:
        self._writers, self._only = writers, only
        self._heard: dict[Partition, dict[str, list[tuple[int, int]]]] = {}

    def hear(self, clock: Clock) -> None:
        for topic, ends in clock.ends.items():
            if self._only is not None and topic not in self._only:
                continue
            for number, end in ends.items():
                history = self._heard.setdefault(Partition(topic, number), {}).setdefault(clock.publisher, [])
                if not history or clock.before > history[-1][1]:
                    history.append((end, clock.before))

    def at(self, partition: Partition, position: int) -> int:
        """The newest time closed for a reader that has read up to `position`."""
        heard = self._heard.get(partition, {})
        reached = {}
        for publisher, history in heard.items():
            while len(history) > 1 and history[1][0] <= position:
                history.pop(0)
            if history[0][0] <= position:
                reached[publisher] = history[0][1]
        if partition.topic in self._writers:
            return min((reached.get(writer, NEVER) for writer in self._writers[partition.topic]), default=NEVER)
        return max(reached.values(), default=NEVER)
