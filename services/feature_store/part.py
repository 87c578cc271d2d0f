"""What a partition tells the assessor; internal to this service, on <p>.hops.quality."""

from __future__ import annotations

from collections.abc import Hashable

import msgspec

__all__ = ["Part", "part_of"]


class Part(msgspec.Struct, frozen=True):
    """A partition's share of a day of an event, which starts at `start` (microseconds); without a survey where it had no record.
    The partition has told everything before `until`."""

    event: str
    shard: int
    start: int
    until: int
    survey: bytes = b""


def part_of(value: bytes | None) -> Hashable:
    """What names a part among all: what it is about, whatever it says of it."""
    part = msgspec.msgpack.decode(value or b"", type=Part)
    return part.event, part.shard, part.start, 0 if part.survey else part.until
