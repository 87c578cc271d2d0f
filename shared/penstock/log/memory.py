"""The log in memory: the same semantics as Kafka in one process, with crash points. A product of its own (embedded runs
and tests), not a mock: it passes the conformance suite that the Kafka log passes.

Nothing here waits for a timer except `Reader.read`, so a program that awaits in a fixed order runs in a fixed order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from uuid import uuid4

from . import Batch, Gap, Headers, LogError, Partition, Send, TooLarge, Topic, gap, partition_of

__all__ = ["MemoryLog"]


class _Store:
    """One partition: columns, and the offset of their first element (retention trims from the left)."""

    __slots__ = ("base", "headers", "keys", "stamps", "values")

    def __init__(self) -> None:
        self.base = 0
        self.keys: list[bytes | None] = []
        self.values: list[bytes | None] = []
        self.headers: list[Headers] = []
        self.stamps: list[int] = []

    @property
    def end(self) -> int:
        return self.base + len(self.keys)


class MemoryLog:
    """Topics in memory.

    >>> import asyncio
    >>> async def turn() -> list[bytes | None]:
    ...     log = MemoryLog()
    ...     await log.create([Topic("payments", 1)])
    ...     await log.send([Send("payments", b"c1", b"{}")])
    ...     reader = await log.reader({Partition("payments", 0): 0})
    ...     return [v for batch in await reader.read(10, 0) for v in batch.values]
    >>> asyncio.run(turn())
    [b'{}']
    """

    def __init__(self) -> None:
        self._topics: dict[str, Topic] = {}
        self._ids: dict[str, str] = {}
        self._stores: dict[Partition, _Store] = {}
        self._groups: dict[tuple[str, tuple[str, ...]], list[_Member]] = {}
        self._news = asyncio.Event()
        self.committed: dict[tuple[str, Partition], int] = {}

    async def create(self, topics: Sequence[Topic]) -> list[str]:
        made = []
        for topic in topics:
            known = self._topics.get(topic.name)
            if known is None:
                self._topics[topic.name] = topic
                self._ids[topic.name] = uuid4().hex  # chance, as Kafka's: no other log in memory has the same records
                for number in range(topic.partitions):
                    self._stores[Partition(topic.name, number)] = _Store()
                made.append(topic.name)
            elif known.partitions != topic.partitions:
                raise LogError(
                    f"topic {topic.name} has {known.partitions} partitions, the project declares {topic.partitions}: "
                    "partition counts are fixed at creation; use the old count or another project name"
                )
        return made

    async def describe(self) -> dict[str, int]:
        return {name: topic.partitions for name, topic in self._topics.items()}

    async def identities(self, topics: Sequence[str]) -> dict[str, str]:
        return {name: self._ids[self._known(name)] for name in topics}

    async def ends(self, topics: Sequence[str]) -> dict[Partition, int]:
        return {p: self._stores[p].end for name in topics for p in self._partitions(name)}

    async def begins(self, topics: Sequence[str]) -> dict[Partition, int]:
        return {p: self._stores[p].base for name in topics for p in self._partitions(name)}

    async def send(self, records: Sequence[Send]) -> dict[Partition, int]:
        records = list(records)
        placed = [self._place(record) for record in records]  # all or nothing: what cannot be placed raises here
        touched: dict[Partition, int] = {}
        now = int(time.time() * 1000)
        for partition, (_, key, value, headers, _) in zip(placed, records, strict=True):
            store = self._stores[partition]
            store.keys.append(key)
            store.values.append(value)
            store.headers.append(headers)
            store.stamps.append(now)
            touched[partition] = store.end
        if touched:
            self._news.set()
        return touched

    def _place(self, record: Send) -> Partition:
        topic, key, value, headers, number = record
        declared = self._topics.get(topic)
        if declared is None:
            raise LogError(f"topic {topic} does not exist; create it with: penstock topics apply")
        count = declared.partitions
        if number is None:
            number = partition_of(key, count) if key is not None else 0
        elif not 0 <= number < count:
            raise LogError(f"topic {topic} has no partition {number}, only {count}; look with: penstock topics list")
        size = len(key or b"") + len(value or b"") + sum(len(name) + len(text) for name, text in headers)
        if size > declared.max_bytes:
            raise TooLarge(f"topic {topic} takes {declared.max_bytes:,} bytes, not {size:,}; declare more as max_bytes")
        return Partition(topic, number)

    async def join(self, group: str, shared: Sequence[str], follows: Sequence[str] = ()) -> _Member:
        counts = {name: len(self._partitions(name)) for name in shared}
        if len(set(counts.values())) > 1:
            raise LogError(f"topics read together need equal partition counts, got {counts}")
        member = _Member(self, group, tuple(shared), tuple(follows), next(iter(counts.values()), 0))
        members = self._groups.setdefault((group, tuple(shared)), [])
        members.append(member)
        self._rebalance(members)
        member._seen = member.generation
        return member

    async def members(self, group: str) -> int:
        return sum(len(members) for (name, _), members in self._groups.items() if name == group)

    async def reader(self, positions: Mapping[Partition, int]) -> _Reader:
        for partition in positions:
            if partition not in self._partitions(partition.topic):
                raise LogError(f"there is no partition {partition}; look with: penstock topics list")
        return _Reader(self, positions)

    async def close(self) -> None:
        self._groups.clear()

    async def delete(self, topics: Sequence[str]) -> None:
        for name in self._topics.keys() & set(topics):
            for partition in self._partitions(name):
                del self._stores[partition]
            del self._topics[name], self._ids[name]

    def trim(self, partition: Partition, before: int) -> None:
        """Forget records before an offset, as retention does."""
        store = self._stores[partition]
        cut = min(before, store.end) - store.base
        if cut > 0:
            del store.keys[:cut], store.values[:cut], store.headers[:cut], store.stamps[:cut]
            store.base += cut

    def _partitions(self, name: str) -> list[Partition]:
        return [Partition(name, n) for n in range(self._topics[self._known(name)].partitions)]

    def _known(self, name: str) -> str:
        if name not in self._topics:
            raise LogError(f"topic {name} does not exist; create it with: penstock topics apply")
        return name

    def _rebalance(self, members: list[_Member]) -> None:
        """Contiguous ranges in order of joining, as Kafka's range assignor deals them."""
        if not members:
            return
        share, rest = divmod(members[0].count, len(members))
        start = 0
        for index, member in enumerate(members):
            size = share + (index < rest)
            member.assign(frozenset(range(start, start + size)))
            start += size
        self._news.set()

    def leave(self, member: _Member) -> None:
        members = self._groups.get((member.group, member.shared), [])
        if member in members:
            members.remove(member)
            self._rebalance(members)


class _Reader:
    def __init__(self, log: MemoryLog, positions: Mapping[Partition, int]) -> None:
        self._log = log
        self._positions = dict(positions)
        self._turn = 0

    async def read(self, max_records: int, wait: float) -> list[Batch]:
        clock = asyncio.get_running_loop()
        deadline = clock.time() + wait
        await asyncio.sleep(0)  # readers that always find something would never let anybody else run
        if self._moved():
            return []
        batches = self._take(max_records)
        while not batches and (left := deadline - clock.time()) > 0:
            self._log._news.clear()
            try:
                async with asyncio.timeout(left):
                    await self._log._news.wait()
            except TimeoutError:
                break
            if self._moved():
                return []
            batches = self._take(max_records)
        return batches

    def _moved(self) -> bool:
        """Whether what may be read changed since the caller last looked."""
        return False

    def _take(self, max_records: int) -> list[Batch]:
        batches: list[Batch] = []
        partitions = sorted(self._positions)
        if not partitions:
            return batches
        self._turn = (self._turn + 1) % len(partitions)
        left = max_records
        for partition in partitions[self._turn :] + partitions[: self._turn]:
            if left <= 0:
                break
            store = self._log._stores[partition]
            at = self._positions[partition]
            if at == store.end:
                continue
            if not store.base <= at < store.end:
                if batches:  # what was taken is returned first; the next call meets the gap again
                    break
                raise Gap(gap(partition, at, store.base, store.end))
            low = at - store.base
            high = min(low + left, len(store.keys))
            headers = store.headers[low:high]
            batches.append(
                Batch(
                    partition,
                    range(at, at + high - low),
                    store.keys[low:high],
                    store.values[low:high],
                    headers if any(headers) else (),
                    store.stamps[low:high],
                )
            )
            self._positions[partition] = at + high - low
            left -= high - low
        return batches

    def seek(self, partition: Partition, offset: int) -> None:
        if partition in self._positions:
            self._positions[partition] = offset

    async def close(self) -> None:
        self._positions.clear()


class _Member(_Reader):
    def __init__(self, log: MemoryLog, group: str, shared: tuple[str, ...], follows: tuple[str, ...], count: int) -> None:
        super().__init__(log, {p: log._stores[p].base for name in follows for p in log._partitions(name)})
        self.group, self.shared, self.follows, self.count = group, shared, follows, count
        self.generation = 0
        self.assigned: frozenset[int] = frozenset()
        self._seen = 0

    async def read(self, max_records: int, wait: float) -> list[Batch]:
        batches = [] if self._moved() else await super().read(max_records, wait)
        self._seen = self.generation
        return batches

    def _moved(self) -> bool:
        return self._seen != self.generation

    def assign(self, numbers: frozenset[int]) -> None:
        if numbers == self.assigned and self.generation:
            return
        kept = {p: at for p, at in self._positions.items() if p.topic in self.follows}
        for name in self.shared:
            for number in numbers:
                partition = Partition(name, number)
                kept[partition] = self._log._stores[partition].base
        self._positions = kept
        self.assigned = numbers
        self.generation += 1

    async def commit(self, positions: Mapping[Partition, int]) -> None:
        for partition, offset in positions.items():
            self._log.committed[self.group, partition] = offset

    async def close(self) -> None:
        self._log.leave(self)
        await super().close()
