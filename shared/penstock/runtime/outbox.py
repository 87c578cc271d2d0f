"""What a shard publishes: numbered, stored with the write that made it until it is out, and found again in the log.

A shard numbers its writes, and by them all that it sends; numbers only grow, so a number that does not is a repeat, which
readers drop (`Redelivered`). What a write has still to publish is stored with it (`Outbox`), beside where the topics ended before
it was published. From there on whoever opens the shard reads its records in the log, and so knows

    which part of the outbox is out    the rest is published; a kill leaves no repeat behind
    whether the store is behind        records of later writes: the store has lost these writes (its last second, or all)

A store that is behind loses nothing, as positions lie beside the state: the shard does the lost work again. But it may cut it
into other steps, so that numbers do not tell what was published. The records themselves do: the shard hears them (`recall`), and
holds what it sends anew against them (`Said`; the feature store, whose blocks hold many events, has its own).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter

import msgspec

from ..log import Batch, Headers, Numbered, Numbers, Partition, Send

__all__ = [
    "FROM",
    "SEQUENCE",
    "Ends",
    "Loss",
    "Outbox",
    "Redelivered",
    "Said",
    "letter_of",
    "numbered",
    "numbers_of",
    "stamped",
    "write_of",
]

FROM, SEQUENCE = "ce_source", "ce_id"
"""Source and id name a CloudEvent; who has had both may drop it. Lanes use them so: their shard's name, and a number that
grows. (The sources of others hold a slash.)"""

PLACES = 20
"""Bits of a number that say the place in its write: 2**20 records a step is far above what a read of 4,096, or a release of
`merge.MOST` in each of a dozen hops, can produce."""


def numbered(headers: Headers) -> tuple[str, int] | None:
    """The shard that sent a record and the number that it gave it; None for records of others.

    >>> numbered((("ce_type", b"penstock.row.v1"), ("ce_source", b"feature_store.3"), ("ce_id", b"17")))
    ('feature_store.3', 17)
    """
    source = number = None
    for name, value in headers:
        if name == FROM and value and b"/" not in value:
            source = value.decode("utf-8", "replace")
        elif name == SEQUENCE and value and value.isdigit():
            number = int(value)
    return None if source is None or number is None else (source, number)


def write_of(number: int) -> int:
    """The write that a number belongs to.

    >>> write_of(numbers_of(7)[3])
    7
    """
    return number >> PLACES


def numbers_of(write: int) -> range:
    """The numbers that a write may give."""
    return range(write << PLACES, (write + 1) << PLACES)


class Redelivered:
    """Drops records that a shard has had before: sources number what they send, so a number that does not grow is a repeat.
    For records of one topic: a source's numbers grow in each of its topics, but not from one to the other."""

    def __init__(self, seen: Mapping[str, int] | None = None) -> None:
        self.seen = dict(seen or {})

    def new(self, headers: Headers) -> bool:
        """Whether a record with these headers is new; records that nobody numbered always are."""
        found = numbered(headers)
        if found is None:
            return True
        source, number = found
        if number <= self.seen.get(source, -1):
            return False
        self.seen[source] = number
        return True


def stamped(shard: str, write: int, sends: Sequence[Send]) -> Sequence[Send]:
    """The sends of a shard's write, numbered; the same write gives the same numbers. Dead letters go as they are, with the
    headers of whoever published them: the position they come from is their name. ValueError for more than a write may hold."""
    if len(sends) > len(numbers_of(write)):
        raise ValueError(f"{shard} sends {len(sends):,} records in one write, and can number {len(numbers_of(write)):,}")
    source = (FROM, shard.encode())
    if not any(topic[-4:] == ".dlq" for topic in set(map(itemgetter(0), sends))):
        return Numbered(sends, Numbers(source, SEQUENCE, numbers_of(write)[0]))
    return [
        Send(topic, key, value, (*headers, source, (SEQUENCE, b"%d" % number)), partition)
        if topic[-4:] != ".dlq"
        else Send(topic, key, value, headers, partition)
        for number, (topic, key, value, headers, partition) in zip(numbers_of(write), sends, strict=False)
    ]


_Group = tuple[str, Headers, list[tuple[bytes | None, bytes | None, int | None]]]


Ends = dict[str, dict[int, int]]
"""Topic -> partition -> the position after its newest record."""


class Loss(msgspec.Struct, array_like=True, frozen=True):
    """Writes that the store has lost: those after `after`, up to `last`. They are done again when all before `inputs` in the
    topics that the shard reads has been processed; the state is what it had been when the time `closed` is closed again."""

    after: int
    last: int
    inputs: dict[str, int]
    closed: int

    def holds(self, write: int) -> bool:
        return self.after < write <= self.last

    def over(self, positions: Mapping[Partition, int]) -> bool:
        return bool(positions) and all(at >= self.inputs.get(partition.topic, 0) for partition, at in positions.items())


class Outbox(msgspec.Struct, array_like=True, frozen=True):
    """What is stored beside a shard's state: the write's number, where the topics that it writes to ended before it published
    anything (absent: unknown), what it sends (that of one topic with the same headers together, for it is much), and the loss
    that is being made good, during which `ends` stays where it was before the loss."""

    write: int = 0
    ends: Ends = {}
    groups: list[_Group] = []
    loss: Loss | None = None

    @classmethod
    def of(cls, write: int, ends: Ends, sends: Sequence[Send], loss: Loss | None = None) -> Outbox:
        groups: list[_Group] = [
            (*of, [(key, value, partition) for _, key, value, _, partition in group])
            for of, group in groupby(sends, key=itemgetter(0, 3))
        ]
        return cls(write, ends, groups, loss)

    @classmethod
    def unpack(cls, stored: bytes) -> Outbox:
        return _decode(stored) if stored else cls()

    def pack(self) -> bytes:
        return _encode(self)

    @property
    def sends(self) -> list[Send]:
        return [Send(topic, key, value, headers, p) for topic, headers, group in self.groups for key, value, p in group]

    def end(self, partition: Partition) -> int:
        return self.ends.get(partition.topic, {}).get(partition.number, 0)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Outbox).decode


class _Named(msgspec.Struct):
    """What names one of our JSON records among all of its topic; absent in most of them."""

    id: msgspec.Raw = msgspec.Raw(b"")
    corrects: msgspec.Raw = msgspec.Raw(b"")
    model: msgspec.Raw = msgspec.Raw(b"")
    start: msgspec.Raw = msgspec.Raw(b"")
    shard: msgspec.Raw = msgspec.Raw(b"")
    part: msgspec.Raw = msgspec.Raw(b"")


_named = msgspec.json.Decoder(_Named).decode


def name_of(value: bytes | None) -> Hashable:
    """What a JSON record of ours is about, whatever it says of it."""
    return tuple(map(bytes, msgspec.structs.astuple(_named(value or b"{}"))))


class Said:
    """Records that were published by writes which the store has lost: sent once more, they are left out, once each.

    >>> said = Said()
    >>> said.recall(Batch(Partition("answers", 0), [7], [None], [b'{"id":"a","score":0.5}']))
    >>> sends = [Send("answers", None, value) for value in (b'{"id":"a","score":0.7}', b'{"id":"b"}')]
    >>> [send.value for send in said.unsaid(sends)]
    [b'{"id":"b"}']
    """

    def __init__(self, name: Callable[[bytes | None], Hashable] = name_of) -> None:
        self._name = name
        self._said: Counter[Hashable] = Counter()

    def recall(self, batch: Batch) -> None:
        for value in batch.values:
            self._said[batch.partition.topic, self._name(value)] += 1

    def unsaid(self, sends: list[Send]) -> list[Send]:
        return [send for send in sends if self._new(send)] if self._said else sends

    def _new(self, send: Send) -> bool:
        if send.topic[-4:] == ".dlq":  # the lane's
            return True
        name = send.topic, self._name(send.value)
        left = self._said.get(name, 0)
        if left > 1:
            self._said[name] = left - 1
        elif left:
            del self._said[name]
        return not left


def letter_of(topic: str, headers: Headers) -> Hashable:
    """What names a dead letter in place of a number: where its record comes from."""
    found = dict(headers)
    return topic, found.get("dlq.partition"), found.get("dlq.offset")
