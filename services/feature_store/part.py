"""What a partition tells the assessor; internal to this service, on <p>.hops.quality."""

from __future__ import annotations

import msgspec

__all__ = ["Part"]


class Part(msgspec.Struct, frozen=True):
    """A partition's share of a day of an event, which starts at `start` (microseconds); without a survey where it had no record.
    The partition has told everything before `until`."""

    event: str
    shard: int
    start: int
    until: int
    survey: bytes = b""
