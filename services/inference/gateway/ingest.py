"""POST /events/{event}: events published over HTTP, as CloudEvents or as bare JSON (`cloudevents`); a bare ASGI application.

The path says which event it is. A CloudEvent's `type` is its producer's own and goes on as it came; one that names another event
of the project, by its topic, its class or the type that `penstock publish` gives it, was sent to the wrong door, and is refused.

Validated as `penstock publish` does: what the stream could not read is refused here, and its producer hears why; expectations
are the stream's to judge, which counts them. Of a batch all are validated first, and one bad one refuses all of it: 400 with the
index and the reason of each, and nothing is published. (A sender of CloudEvents sees one status for its request, and sends the
whole again.) Then all are published, keyed to their partition in the order given, and the answer is 202 with each position.
When Kafka does not keep up: 503 with Retry-After, from a bounded queue; what has an id may be sent again, and counts once.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from penstock.codec import MAX_BYTES, EventDecoder, entity_of
from penstock.errors import Refused
from penstock.event import Event, to_micros
from penstock.log import Headers, partition_of
from penstock.log import Send as Record
from penstock.publish import Kind
from penstock.runtime.asgi import Receive, Scope, Send
from penstock.runtime.lane import now
from penstock.runtime.refusals import Failed
from penstock.topics import Topics

from .cloudevents import Unsupported, Wrapped, unwrapped
from .recorder import Recorder
from .replies import replied
from .requests import plain_body, traceparent, traceparent_of

__all__ = ["PATIENCE", "PREFIX", "Ingest"]

PREFIX: Final = "/events/"
PATIENCE: Final = 5.0
"""Seconds that a producer waits for Kafka."""
SHOWN: Final = 20
"""Refusals of one batch that are listed."""

_encode = msgspec.json.Encoder().encode


class Ingest:
    """The application; what it publishes goes through `recorder`, which has no spill."""

    def __init__(self, topics: Topics, recorder: Recorder) -> None:
        self._recorder, self._partitions = recorder, topics.partitions
        self._events = {event.topic: _Intake(topics, event) for event in topics.project.events}
        self._classes = {event.type.__name__: event.topic for event in topics.project.events}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def work() -> tuple[int, bytes]:
            name = scope["path"][len(PREFIX) :]
            intake = self._events.get(name)
            if intake is None:
                if topic := self._classes.get(name):
                    raise Failed(404, f"events go to their topic: that of {name} is {PREFIX}{topic}")
                raise Failed(404, f"no event has the topic {name[:80]!r}; there is: {', '.join(self._events)}")
            body = await plain_body(scope, receive, MAX_BYTES)
            try:
                found = unwrapped(scope["headers"], body)
            except Unsupported as error:
                raise Failed(415, str(error)) from None
            return 202, _encode(await self._publish(intake, found, traceparent_of(scope)))

        await replied(scope, send, f"{PREFIX}{{event}}", work)

    async def _publish(self, intake: _Intake, found: list[Wrapped | Refused], trace: str) -> dict[str, Any]:
        records, wrong = list[Record](), list[tuple[int, Refused]]()
        moment = now()
        for index, one in enumerate(found):
            try:
                if isinstance(one, Refused):
                    raise one
                records.append(intake.record(one, moment, self._partitions, trace))
            except Refused as refused:
                wrong.append((index, refused))
        if wrong:
            raise _refused(wrong, len(found))
        offsets: list[int | None] = []
        if records:
            safe = await self._recorder.record(records)
            assert safe.written is not None  # there is no spill
            offsets = safe.written.offsets[safe.first : safe.first + len(records)]
        return {
            "positions": [
                {"topic": record.topic, "partition": record.partition, "offset": offset}
                for record, offset in zip(records, offsets, strict=True)
            ]
        }


def _refused(wrong: list[tuple[int, Refused]], of: int) -> Failed:
    """Why nothing of a request is published."""
    status = 413 if all(refused.reason == "too_large" for _, refused in wrong) else 400
    if any(isinstance(refused, Unsupported) for _, refused in wrong):
        status = 415
    if of == 1:
        return Failed(status, str(wrong[0][1]))
    listed = "; ".join(f"event {index}: {refused}" for index, refused in wrong[:SHOWN])
    more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return Failed(status, f"{len(wrong)} of {of} events cannot be taken, so none was published: {listed}{more}")


class _Intake:
    """Where one kind of event comes in."""

    def __init__(self, topics: Topics, event: Event) -> None:
        self._event, self._decoder, self._kind = event, EventDecoder(event, expectations=False), Kind(topics.prefix, event)
        self._others = {
            name: other.topic
            for other in topics.project.events
            for name in (other.topic, other.type.__name__, Kind(topics.prefix, other).type)
            if other is not event
        }
        """What would be types of other events."""

    def record(self, wrapped: Wrapped, moment: float, partitions: int, trace: str) -> Record:
        """What is published of an event. Raises Refused."""
        event, data, said = self._event, bytes(wrapped.data), wrapped.attributes.get("type", "")
        if other := self._others.get(said):
            raise Refused("schema", f"type {said!r} names another event: POST it to {PREFIX}{other}")
        decoded = self._decoder.decode(data, moment)
        entity = entity_of((event.key,), decoded)
        if entity is None:
            raise Refused("schema", f"{event.key!r}, the key, is missing")
        key = entity.encode()
        if wrapped.attributes:
            headers, trace = _headers(wrapped.attributes, key), traceparent(wrapped.attributes.get("traceparent", trace))
        else:
            headers = self._kind.headers(key, data, to_micros(getattr(decoded, event.time.name)), None)
        if trace:
            headers = (*headers, ("traceparent", trace.encode()))
        return Record(event.topic, key, data, headers, partition_of(key, partitions))


def _headers(attributes: dict[str, str], key: bytes) -> Headers:
    """The attributes as the Kafka binding has them in binary mode; the key says itself."""
    beside = ("datacontenttype", "partitionkey", "traceparent")
    said = tuple((f"ce_{name}", value.encode()) for name, value in attributes.items() if name not in beside)
    return (*said, ("content-type", b"application/json"), ("ce_partitionkey", key))
