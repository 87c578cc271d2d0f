"""Generations: definitions of the views, side by side. One is in charge: its rows are the rows. The others are shadows.

`Topology.generation` names what a project file means. The feature store of that file keeps its states, blocks and consumer group
under that name, so a state of another definition is never misread, and a reader finds what its own file defines.

    build    a feature store that finds another generation in charge begins anew: from the archive as far as Kafka no longer keeps
             the events, then from Kafka, at the very offset where the tables end. Reads say `rebuilding` until it is up to date
    shadow   what it would send goes to its shadow topic, from the time on that was closed when it began
    swap     one record on `<p>.generations` (`Charge`). The generation that is now in charge fences the other's shards, publishes
             what these still owe, and of its own shadow what the other has not sent: each event has one row, whoever made it
    undo     the other one is a shadow now, as long as its feature store runs: swap again. Stopped, its state stays what it was:
             LIVE says that it was built, not that it is fresh; readers of its file see the age of what they read

What is here is pure; services/feature_store/succession.py does it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from ..log import Headers, Send
from ..records import Charge

__all__ = ["AT", "MARK", "OF", "Mark", "charges", "counted", "in_charge", "meant", "meant_for"]

OF, AT = "shadow.of", "shadow.at"
"""Headers of a shadow record: the topic it was meant for; its event's effective time (microseconds) where its own is another."""

MARK: Final = b"\0charge"
"""The key of a shard whose head is its Mark. (No entity has it: names of hops do not begin with a NUL.)"""


class Mark(msgspec.Struct, array_like=True, frozen=True):
    """How far a shard has followed the swaps."""

    number: int = 0
    """The newest swap that it has done its part in: as the one in charge, or by being fenced."""
    until: int = 0
    """In charge: others have sent rows of effective times up to this one (microseconds)."""
    owed: bytes = b""
    """An outbox: of what the shard has shown, what it is sending on. All, some or none of it is out."""

    @classmethod
    def unpack(cls, stored: bytes) -> Mark:
        return msgspec.msgpack.decode(stored, type=cls) if stored else cls()

    def pack(self) -> bytes:
        return msgspec.msgpack.encode(self)


def counted(records: Iterable[Charge], since: Charge | None = None) -> list[Charge]:
    """The records that count, of all that were written, in order; or of those written after `since`, which counted then. The last
    one says who is in charge, the others who was to be: each may still believe it until it is fenced.

    >>> first, second = Charge(number=1, generation="a"), Charge(number=2, generation="b", previous="a")
    >>> [said.generation for said in counted([first, second, Charge(number=2, generation="c", previous="a")])]
    ['a', 'b']
    """
    found: list[Charge] = [] if since is None else [since]
    for said in records:
        number, generation = (found[-1].number, found[-1].generation) if found else (0, "")
        if said.number == number + 1 and said.previous == generation:
            found.append(said)
    return found


def in_charge(records: Iterable[Charge], since: Charge | None = None) -> Charge | None:
    """The last record that counts."""
    return next(reversed(counted(records, since)), None)


def charges(values: Iterable[bytes | None]) -> list[Charge]:
    """The records among values of the topic; what is none is passed by."""
    found = []
    for value in values:
        try:
            found.append(_charge(value or b""))
        except msgspec.MsgspecError:
            continue
    return found


_charge = msgspec.json.Decoder(Charge).decode


def meant(send: Send) -> tuple[Send, int | None] | None:
    """What a shadow record was meant to be, under the number that it has, and its event's effective time (None: its own time);
    None for other records. Dead letters go with the headers of whoever published them.

    >>> headers = (("ce_type", b"penstock.row.v1"), (AT, b"60"), (OF, b"cabs.rows.rides"), ("ce_id", b"7"))
    >>> meant(Send("cabs.shadow.1a2b3c4d", b"z1", b"{}", headers, 0))  # doctest: +NORMALIZE_WHITESPACE
    (Send(topic='cabs.rows.rides', key=b'z1', value=b'{}',
    headers=(('ce_type', b'penstock.row.v1'), ('ce_id', b'7')), partition=0), 60)
    """
    topic = meant_for(send.headers)
    if topic is None:
        return None
    names = [name for name, _ in send.headers]
    headers = send.headers[: names.index(OF)] if topic[-4:] == ".dlq" else send.headers
    at = next((int(value or b"") for name, value in headers if name == AT), None)
    return send._replace(topic=topic, headers=tuple(h for h in headers if h[0] not in (OF, AT))), at


def meant_for(headers: Headers) -> str | None:
    """The topic that a shadow record was meant for; None for other records."""
    for name, value in headers:
        if name == OF and value is not None:
            return value.decode()
    return None
