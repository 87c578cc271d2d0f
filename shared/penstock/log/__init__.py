"""The seam to Kafka: batches of records with positions. In memory (`memory`) and on aiokafka (`kafka`); one conformance
suite for both.

A service reads *batches* (one per topic partition and call, columns instead of objects), sends records in one
acknowledged call, and decides itself where to start: positions live with its state, not with the broker. What it
commits to the broker serves lag tools only.

    Log       create, describe, identities, begins, ends, send, join, reader; the part of it that only reads is Readable
    Reader    read, seek, close
    Member    a Reader whose partitions are shared with the other members of its group

All times are event-loop seconds; offsets and partitions count from 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, overload

__all__ = [
    "Batch",
    "Gap",
    "Headers",
    "Log",
    "LogError",
    "Member",
    "Numbered",
    "Numbers",
    "Partition",
    "Readable",
    "Reader",
    "Send",
    "TooLarge",
    "Topic",
    "partition_of",
]

Headers = tuple[tuple[str, bytes], ...]


class LogError(Exception):
    """The log cannot do what was asked now: broker away, topic missing. The message says what to type.

    After a failed `send` nobody knows which of its records were written; sending them again may write some twice.
    """


class Gap(LogError):
    """A position is outside the log: records were deleted unread, or the log lost its end. Waiting does not help."""


class TooLarge(LogError):
    """A record exceeds its topic's `max_bytes`; nothing of the call was written. Waiting does not help."""


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: str
    number: int


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as declared: how many partitions, whether only the newest record per key is kept."""

    name: str
    partitions: int
    compacted: bool = False
    max_bytes: int = 1_048_576
    retention_ms: int = -1


@dataclass(slots=True)
class Batch:
    """Consecutive records of one partition, as columns of equal length.

    `offsets` ascend and may have gaps (compaction); `next` is the position after the batch. `headers` is empty when no
    record of the batch has any. `stamps` say when each was written, in milliseconds since 1970 by the clock of whoever wrote it
    (or the broker, where its topic is set so); empty where nobody knows, as of records that are not read from a log.
    """

    partition: Partition
    offsets: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Headers] = field(default_factory=tuple)
    stamps: Sequence[int] = field(default_factory=tuple)

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def next(self) -> int:
        return self.offsets[-1] + 1

    def record(self, at: int) -> tuple[int, bytes | None, bytes | None, Headers]:
        """Offset, key, value and headers of one record."""
        return self.offsets[at], self.keys[at], self.values[at], self.headers[at] if self.headers else ()


class Send(NamedTuple):
    """A record to write. Without `partition`, murmur2 of the key chooses it (as every Java client does)."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None


class Numbers(NamedTuple):
    """Two headers: `source`, which is the same for all records, and one called `name` with the next number from `first` on."""

    source: tuple[str, bytes]
    name: str
    first: int


class Numbered(Sequence[Send]):
    """Records to write that have two headers more (`Numbers`); made only where they are looked at.

    >>> list(Numbered([Send("rows", b"a", b"{}")] * 2, Numbers(("from", b"s"), "number", 9)))[1].headers
    (('from', b's'), ('number', b'10'))
    """

    def __init__(self, plain: Sequence[Send], numbers: Numbers) -> None:
        self.plain, self.numbers = plain, numbers

    def __len__(self) -> int:
        return len(self.plain)

    @overload
    def __getitem__(self, at: int) -> Send: ...
    @overload
    def __getitem__(self, at: slice) -> list[Send]: ...
    def __getitem__(self, at: int | slice) -> Send | list[Send]:
        if isinstance(at, slice):
            return [self[i] for i in range(len(self))[at]]
        topic, key, value, headers, partition = self.plain[at]
        source, name, first = self.numbers
        number = b"%d" % (first + range(len(self))[at])
        return Send(topic, key, value, (*headers, source, (name, number)), partition)


class Reader(Protocol):
    """Reads chosen partitions from chosen positions."""

    async def read(self, max_records: int, wait: float) -> list[Batch]:
        """At most `max_records` records in all, as soon as there is one, else nothing after `wait` seconds.

        Partitions take turns, so a busy one never starves the others. Raises Gap when a position lies before the start
        of the log (records were deleted that were not read) or after its end: a gap is never skipped in silence.
        """
        ...

    def seek(self, partition: Partition, offset: int) -> None:
        """Read on from here. Without effect for partitions that are not read here (any more)."""
        ...

    async def close(self) -> None: ...


class Member(Reader, Protocol):
    """A reader in a group: topics of equal partition count are shared so that one member holds the same partition
    numbers of all of them. `follows` topics are read whole by every member, from their beginning.

    Compare `generation` before each `read`. When it changed since the last one, `read` returns nothing, once, so that
    no record of a new partition arrives before its position could be sought; unsought ones start at their beginning.
    """

    @property
    def generation(self) -> int:
        """Grows with every change of `assigned`. After a change read positions anew and `seek`."""
        ...

    @property
    def assigned(self) -> frozenset[int]:
        """The partition numbers this member holds of every shared topic."""
        ...

    async def commit(self, positions: Mapping[Partition, int]) -> None:
        """Tell the broker how far we are (for lag tools; never read back)."""
        ...


class Readable(Protocol):
    """A set of topics that can be read."""

    async def describe(self) -> dict[str, int]:
        """Topic name -> partition count."""
        ...

    async def ends(self, topics: Sequence[str]) -> dict[Partition, int]:
        """The position after the newest record of every partition."""
        ...

    async def begins(self, topics: Sequence[str]) -> dict[Partition, int]:
        """The position of the oldest record still kept of every partition."""
        ...

    async def reader(self, positions: Mapping[Partition, int]) -> Reader: ...


class Log(Readable, Protocol):
    """A set of topics that can be read and written."""

    async def create(self, topics: Sequence[Topic]) -> list[str]:
        """Create what is missing and return its names; LogError where a topic exists with another partition count."""
        ...

    async def delete(self, topics: Sequence[str]) -> None:
        """Delete topics with their records; return when they are gone. Those that do not exist are gone already."""
        ...

    async def identities(self, topics: Sequence[str]) -> dict[str, str]:
        """Topic name -> what tells it from any other that ever had or will have its name: a topic that is deleted and made
        again has another. LogError where one does not exist."""
        ...

    async def send(self, records: Sequence[Send]) -> dict[Partition, int]:
        """Write in order per partition; return when all are acknowledged, with the new end of each touched."""
        ...

    async def join(self, group: str, shared: Sequence[str], follows: Sequence[str] = ()) -> Member: ...

    async def members(self, group: str) -> int:
        """How many have joined a group and not left it; 0 for one that nobody ever joined."""
        ...

    async def close(self) -> None: ...


def gap(partition: Partition, at: int, begin: int, end: int) -> str:
    """Says what a position outside the log means and what to do."""
    where = f"{partition.topic}/{partition.number}"
    if at < begin:
        return f"{where}: records {at} to {begin - 1} were deleted unread, keep them longer; look with: penstock topics list"
    return f"{where}: position {at} is past the end {end}, so records were lost; compare with: penstock topics list"


_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2 (Austin Appleby, 2008, seed 0x9747b28c), non-negative as the Java partitioner makes it.

    >>> murmur2(b"21") & 0x7fffffff
    1173551340
    """
    length = len(data)
    h = (0x9747B28C ^ length) & _MASK
    whole = length & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * 0x5BD1E995 & _MASK
        k = (k ^ (k >> 24)) * 0x5BD1E995 & _MASK
        h = (h * 0x5BD1E995 & _MASK) ^ k
    if length & 3:
        h = (h ^ int.from_bytes(data[whole:], "little")) * 0x5BD1E995 & _MASK
    h = (h ^ (h >> 13)) * 0x5BD1E995 & _MASK
    return (h ^ (h >> 15)) & 0x7FFFFFFF


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key, the same as any Java client's default partitioner.

    >>> partition_of(b"JFK", 8)
    5
    """
    return murmur2(key) % partitions if partitions > 1 else 0
