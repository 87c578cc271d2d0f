"""Stream-time merge: first-in-first-out sources become one ordered stream, the same for any arrival order.

Every record has an own time, and an *effective* one, E: the running maximum within its source (so E never falls). A source's
*frontier* says that nothing with a smaller E will come from it: its newest E, or a closed time that somebody published. Records
with E strictly below the least frontier of all sources are released, in the order that `penstock.order` states; strictly, because
ties must all be known before their order is. So how records were batched, delayed or spread over partitions does not show, as
long as each source is in order of time. What is late is counted, and `passed` says where the source alone does not tell E.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from ..log import Batch
from ..order import kinds_of, order_of
from ..records import Clock

__all__ = ["NEVER", "TRUSTED_SECONDS", "Column", "Frontiers", "Merge", "Released", "column"]

NEVER = -(1 << 62)
TRUSTED_SECONDS = 60.0
"""A publisher that closes times is waited for this long: it may pause, or its broker; what waits meanwhile is in order. It counts
from when he wrote the closing (by his clock), so that whoever reads it again after a restart waits no longer for it."""
MOST = 1 << 16
"""Records that are released at once, but for those of one instant: what has waited long for a silent source goes in parts."""
Times = npt.NDArray[np.int64]

_clock = msgspec.json.Decoder(Clock).decode


Column = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Released:
    """What a merge let go, in order: effective times, ranks, ids, and the columns that were pushed beside them."""

    times: Times
    ranks: Times
    ids: Column
    columns: tuple[Column, ...]

    def __len__(self) -> int:
        return len(self.times)


class _Chunk(NamedTuple):
    """Records of one source that came together. `marks[i]` says where record i lies in its source, `places[i]` in its topic."""

    times: Times
    late: npt.NDArray[np.bool_]
    ranks: Times
    ids: Column
    places: npt.NDArray[np.int64]
    marks: npt.NDArray[np.int64]
    columns: tuple[Column, ...]

    def part(self, rows: slice) -> _Chunk:
        return _Chunk._make([*(words[rows] for words in self[:-1]), tuple(c[rows] for c in self.columns)])


class _Source:
    """A queue of chunks. `seen` is its newest E, `closed` the newest published closing time, the last one told at `told`."""

    __slots__ = ("chunks", "closed", "idle", "pending", "seen", "told")

    def __init__(self) -> None:
        self.seen = self.closed = NEVER
        self.idle, self.told = False, -math.inf
        self.chunks: deque[_Chunk] = deque()
        self.pending = 0

    @property
    def frontier(self) -> int:
        return max(self.seen, self.closed)

    @property
    def first(self) -> int | None:
        """The E of the oldest record that waits."""
        return int(self.chunks[0].times[0]) if self.chunks else None

    def before(self, time: int) -> list[_Chunk]:
        """Take what has a smaller E."""
        taken = []
        while self.chunks and self.chunks[0].times[0] < time:
            chunk = self.chunks.popleft()
            cut = int(np.searchsorted(chunk.times, time, "left"))
            if cut < len(chunk.times):
                self.chunks.appendleft(chunk.part(slice(cut, None)))
            taken.append(chunk.part(slice(cut)))
            self.pending -= cut
        return taken


class Merge:
    """Merges named sources.

    >>> merge = Merge(["a", "b"])
    >>> merge.push("a", [10, 30], 0, ["x", "y"], [0, 1], ["a10", "a30"])
    >>> merge.push("b", [20], 0, ["z"], [0], ["b20"])
    >>> merge.release().columns[0].tolist()
    ['a10']
    >>> merge.close("b", 40)
    >>> merge.release().columns[0].tolist()
    ['b20']
    """

    def __init__(self, sources: Iterable[str], released: int = NEVER) -> None:
        self._sources = {name: _Source() for name in sources}
        self.released = released
        """Everything with a smaller E has been released; what still comes with one is late and takes this as its E."""
        self.late = 0
        self.done: dict[str, tuple[int, ...]] = {}
        """Per source the mark of the newest record released."""
        self._waiting = 0.0, released
        """Since when, and at which released time, records have been waiting."""

    def push(
        self,
        source: str,
        times: npt.ArrayLike,
        ranks: npt.ArrayLike,
        ids: Sequence[str] | Column,
        marks: npt.ArrayLike,
        *columns: Sequence[Any] | Column,
        own: Times | None = None,
        places: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Append records of a source, in its order: times in microseconds, a rank each (or one for all), ids, where they lie in
        the source (numbers; the first is an offset), and any columns. Where the times are effective ones already, `own` has the
        records' own; `places` has their (partition, offset) where that is not what the marks say."""
        when = np.asarray(times, np.int64)
        n = len(when)
        if not n:
            return
        queue = self._sources[source]
        effective = np.maximum.accumulate(np.maximum(when, max(queue.seen, self.released)))
        self.late += int(np.count_nonzero(when < effective))
        queue.seen = int(effective[-1])
        queue.idle = False
        queue.pending += n
        marked = np.asarray(marks, np.int64).reshape(n, -1)
        ranked = np.broadcast_to(np.asarray(ranks, np.int64), n)
        late = (when if own is None else own) < effective
        where = marked[:, :1] if places is None else places
        queue.chunks.append(_Chunk(effective, late, ranked, column(ids), where, marked, tuple(map(column, columns))))

    def passed(self, source: str, time: int) -> bool:
        """Whether a record of this time, pushed now, gets an E that its source alone does not give it: `released`."""
        return time < self.released > self._sources[source].seen

    def close(self, source: str, before: int, told: float = -math.inf) -> None:
        """Nothing earlier than `before` will come from this source; at second `told` somebody last closed one of its times."""
        queue = self._sources[source]
        queue.closed, queue.told = max(queue.closed, before), max(queue.told, told)

    def idle(self, source: str, idle: bool) -> None:
        """Pass a source, or do not; what comes from it while it is passed may be late."""
        self._sources[source].idle = idle

    def silent(self, source: str, heard: float, now: float, after: float, ahead: int = NEVER) -> None:
        """Decide whether a source last heard at second `heard` is passed: only when records wait (its own newest ones may be
        those), and it has been silent for `after` seconds, and none of its times was closed for TRUSTED_SECONDS (whoever closes
        times may pause). Waiting begins when there is something to wait with, so that a quiet start passes nobody. Where no
        record is here, others may wait for this merge itself, which have come to `ahead`: it goes on to there."""
        if not (self.pending or ahead > self.released) or self._waiting[1] != self.released:
            self._waiting = now, self.released
        queue = self._sources[source]
        waited, trusted = now - max(heard, queue.told, self._waiting[0]), now - queue.told <= TRUSTED_SECONDS
        silent = waited > after and not trusted and queue.frontier <= self.released
        queue.idle = silent and self.pending > 0
        if silent and not self.pending:
            queue.closed = max(queue.closed, ahead)

    def resume(self, source: str, seen: int) -> None:
        """Restore a source's newest E after a restart."""
        self._sources[source].seen = max(self._sources[source].seen, seen)

    def seen(self) -> dict[str, int]:
        """The newest E *released or pending* per source that has one; saved with the position."""
        found = {name: q.seen if q.first is None else q.first for name, q in self._sources.items()}
        return {name: seen for name, seen in found.items() if seen > NEVER}

    def closings(self, sources: Iterable[str]) -> dict[str, int]:
        """The closed time of each source, as far as it holds when its pending records are read again."""
        found = {}
        for name in sources:
            queue = self._sources[name]
            if queue.closed > NEVER:
                found[name] = queue.closed if queue.first is None else min(queue.closed, queue.first)
        return found

    @property
    def frontier(self) -> int:
        """The least frontier of the sources that are not idle; when all are, just past the newest record."""
        awake = [q.frontier for q in self._sources.values() if not q.idle]
        if awake or not self._sources:
            return min(awake, default=NEVER)
        newest = max(q.frontier for q in self._sources.values())
        return newest + 1 if newest > NEVER else NEVER

    def ahead(self, sources: Iterable[str]) -> int:
        """How far what is here has come, whoever holds it: the newest frontier, and past it where these sources are idle."""
        newest = max(q.frontier for q in self._sources.values())
        passed = [self._sources[source].idle for source in sources]
        return newest + (self.pending > 0 and bool(passed) and all(passed))

    def first_pending(self, source: str) -> int | None:
        """The offset of the oldest record not released; None when the queue is empty."""
        chunks = self._sources[source].chunks
        return int(chunks[0].marks[0, 0]) if chunks else None

    @property
    def pending(self) -> int:
        return sum(q.pending for q in self._sources.values())

    def release(self, most: int = MOST) -> Released:
        """What lies strictly below the frontier, in order: all, or of more than `most` records the first."""
        before = self._bounded(self.frontier, most)
        self.released = max(self.released, before)
        chunks: list[_Chunk] = []
        for name, queue in self._sources.items():
            taken = queue.before(before)
            if taken:
                self.done[name] = tuple(taken[-1].marks[-1].tolist())
                chunks += taken
        if not chunks:
            return NOTHING
        times, late, ranks, ids, places = (_joined(parts) for parts in zip(*(chunk[:5] for chunk in chunks), strict=True))
        columns = tuple(map(_joined, zip(*(chunk.columns for chunk in chunks), strict=True)))
        if _ordered(times, kinds_of(ranks, late)):
            return Released(times, ranks, ids, columns)
        order = order_of(times, late, ranks, ids.__getitem__, tuple(places.T))
        return Released(times[order], ranks[order], ids[order], tuple(c[order] for c in columns))

    def _bounded(self, before: int, most: int) -> int:
        """A time below which at most so many records wait (or those of the first instant), `before` at the latest."""
        if self.pending <= most:
            return before
        parts = [c.times[: np.searchsorted(c.times, before)] for q in self._sources.values() for c in q.chunks]
        times = np.concatenate(parts)
        if len(times) <= most:
            return before
        times.partition(most)
        return max(int(times[most]), int(times[:most].min()) + 1)


NOTHING = Released(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, object), ())


def column(values: Sequence[Any] | Column) -> Column:
    """Values as an array of objects, unless they are an array."""
    return values if isinstance(values, np.ndarray) else np.fromiter(values, object, len(values))


def _joined(parts: Sequence[Column]) -> Column:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _ordered(when: Times, kinds: Times) -> bool:
    """Whether records lie in order without a look at ids and places."""
    return bool(((when[:-1] < when[1:]) | (when[:-1] == when[1:]) & (kinds[:-1] < kinds[1:])).all())


class Frontiers:
    """Which times have been closed for partition `number` of `topics`, from the records of the clock topic.

    For a user's topic any publisher may close a time. For a topic of ours, `writers` names the publishers that all must.

    >>> closed = Frontiers(["payments"], number=0)
    >>> closed.hear(Clock(publisher="me", before=100, ends={"payments": {0: 7}}))
    >>> closed.at("payments", 6) == NEVER, closed.at("payments", 7)
    (True, 100)
    """

    def __init__(self, topics: Iterable[str], number: int, writers: Mapping[str, Sequence[str]] | None = None) -> None:
        self._number, self._writers = number, writers or {}
        self._told = dict.fromkeys(topics, -math.inf)
        self._heard: dict[str, dict[str, list[tuple[int, int]]]] = {topic: {} for topic in self._told}
        """Per topic and publisher (position, time) pairs that grow; the first may be reached already."""

    def follow(self, batch: Batch) -> None:
        """Hear what a batch of the clock topic says; what is no Clock is passed by."""
        for value, stamp in zip_longest(batch.values, batch.stamps):
            with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                self.hear(_clock(value or b""), -math.inf if stamp is None else stamp / 1000)

    def hear(self, clock: Clock, told: float = -math.inf) -> None:
        """What was written at second `told`."""
        for topic, publishers in self._heard.items():
            end = clock.ends.get(topic, {}).get(self._number)
            history = publishers.setdefault(clock.publisher, []) if end is not None else []
            if end is not None and (not history or clock.before > history[-1][1]):
                history.append((end, clock.before))
                self._told[topic] = max(self._told[topic], told)

    def told(self, topic: str) -> float:
        """The second at which somebody last closed a new time, whether the reader has come to its end or not."""
        return self._told[topic]

    def at(self, topic: str, position: int) -> int:
        """The newest time closed for a reader that has read up to `position`."""
        reached = {}
        for publisher, history in self._heard[topic].items():
            while len(history) > 1 and history[1][0] <= position:
                history.pop(0)
            if history[0][0] <= position:
                reached[publisher] = history[0][1]
        if topic in self._writers:
            return min((reached.get(writer, NEVER) for writer in self._writers[topic]), default=NEVER)
        return max(reached.values(), default=NEVER)
