"""Publishing events: with CloudEvents headers, in acknowledged batches, and with the times that are closed behind them.

A closed time ("everything before T is out, up to these positions") lets the services go on without waiting for sources
that are silent; without it they wait `idle_after` seconds. Any Kafka client may publish bare JSON instead; the headers
are for people, viewers and traces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b

import msgspec

from .errors import DefinitionError
from .event import Event, from_micros
from .log import Headers, Log, Partition, Send
from .records import Clock
from .runtime.telemetry import Tracing, trace_of
from .topics import Topics

__all__ = ["FOREVER", "Kind", "Publisher", "Record", "sampled"]

FOREVER = 1 << 60
"""Closes a stream for good: no event lies after it (the year 38,505, in microseconds)."""

Record = tuple[bytes, bytes, int]
"""Key, JSON value, time in microseconds since 1970."""

_RANDOM_BITS = 56
"""W3C Trace Context level 2 asks the last 7 bytes of a trace id to be evenly distributed, for samplers to look at."""


def sampled(share: float) -> Callable[[str], str | None]:
    """A sampler: the `traceparent` (W3C Trace Context, version 00) of a named event, or None when it is not traced.

    Ids are a digest of the name, so publishing the same event again continues the same trace, and the share that is
    traced is the same on every machine.

    >>> sampled(1.0)("flights/scheduled#F1")
    '00-0f1e7555ff88cc7fc2cc24b39770e15a-4c47756288bf44bc-01'
    >>> sampled(0.0)("flights/scheduled#F1") is None
    True
    """
    bound = int(share * (1 << _RANDOM_BITS))

    def trace(name: str) -> str | None:
        if not bound:
            return None
        digest = blake2b(name.encode(), digest_size=24).digest()
        if int.from_bytes(digest[9:16]) >= bound:
            return None
        return f"00-{digest[:16].hex()}-{digest[16:].hex()}-01"

    return trace


class Publisher:
    """Publishes events of a project. Not for concurrent use: two calls at once would mix their order.

    `name` is the publisher's name in the clock topic, one for each process that publishes at the same time. `trace`
    chooses which events start a trace and gives their `traceparent` (see `sampled`); by default none does. `tracing` takes
    the first span of each such trace.

    >>> import asyncio
    >>> from penstock.log.memory import MemoryLog
    >>> from penstock.project import load
    >>> async def turn() -> dict[Partition, int]:
    ...     log, topics = MemoryLog(), Topics(load("penstock.examples.flights"))
    ...     await log.create(topics.all())
    ...     publisher = Publisher(log, topics)
    ...     value = b'{"origin": "JFK", "observed_at": "1970-01-01T00:00:00Z"}'
    ...     ends = await publisher.send("weather", [(b"JFK", value, 0)])
    ...     await publisher.close(1)
    ...     return ends
    >>> asyncio.run(turn())
    {Partition(topic='weather', number=0): 1}
    """

    def __init__(
        self,
        log: Log,
        topics: Topics,
        name: str = "publisher",
        trace: Callable[[str], str | None] | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.log, self.topics, self.name = log, topics, name
        self.tracing = tracing or Tracing(name)
        self.sent = 0
        self._trace = trace
        self._kinds = {event.topic: Kind(topics.prefix, event) for event in topics.project.events}
        self._ends: dict[str, dict[int, int]] = {}

    async def send(self, event: str, records: Sequence[Record]) -> dict[Partition, int]:
        """Publish events of one kind (named by its topic) in order; returns the new end of each partition touched.

        The values are sent as they are: check what you did not make yourself with `codec.EventDecoder` first. LogError
        says that it is not known which of them were written; sending all again is safe where events have ids, as a
        repeated id is dead-lettered (reason `duplicate`) and counted once.
        """
        headers = self._kind(event).headers
        sends = [Send(event, key, value, headers(key, value, time, self._trace)) for key, value, time in records]
        if self.tracing.on:
            for send in sends:
                self.tracing.start(trace_of(send.headers), "send", event)
        ends = await self.log.send(sends)
        self.sent += len(sends)
        for partition, end in ends.items():
            if partition.topic in self._ends:
                self._ends[partition.topic][partition.number] = end
        return ends

    async def close(self, before: int, events: Sequence[str] | None = None) -> None:
        """Say that everything before `before` (microseconds) is out, for these kinds of events (None: all)."""
        names = list(self._kinds) if events is None else [self._kind(name).event.topic for name in events]
        unknown = [name for name in names if name not in self._ends]
        for partition, end in (await self.log.ends(unknown)).items() if unknown else ():
            self._ends.setdefault(partition.topic, {})[partition.number] = end
        said = Clock(publisher=self.name, before=before, ends={name: dict(self._ends[name]) for name in names})
        await self.log.send([Send(self.topics.clock, self.name.encode(), msgspec.json.encode(said))])

    def _kind(self, event: str) -> Kind:
        found = self._kinds.get(event)
        if found is None:
            raise DefinitionError(f"no event has the topic {event!r}", f"one of: {', '.join(self._kinds)}")
        return found


class Kind:
    """What the headers of one kind of event have in common."""

    def __init__(self, project: str, event: Event) -> None:
        self.event = event
        self._source, self.type = f"{project}/{event.topic}", f"{project}.{event.topic}.v1"
        self._fixed: Headers = (
            ("ce_specversion", b"1.0"),
            ("ce_source", self._source.encode()),
            ("ce_type", self.type.encode()),
            ("content-type", b"application/json"),
        )
        self._id = None
        if event.id is not None:
            named = msgspec.defstruct("Id", [("id", event.id.type)], rename={"id": event.id.name})
            self._id = msgspec.json.Decoder(named).decode

    def headers(self, key: bytes, value: bytes, time: int, trace: Callable[[str], str | None] | None) -> Headers:
        """CloudEvents 1.0, Kafka binding, binary mode; an event without an id is named by a digest of what it says."""
        name = blake2b(key + b"\0" + value, digest_size=16).hexdigest() if self._id is None else str(self._id(value).id)  # type: ignore[attr-defined]
        stamp = from_micros(time).isoformat().encode()
        headers: Headers = (*self._fixed, ("ce_id", name.encode()), ("ce_time", stamp), ("ce_partitionkey", key))
        parent = trace(f"{self._source}#{name}") if trace is not None else None
        return headers if parent is None else (*headers, ("traceparent", parent.encode()))
