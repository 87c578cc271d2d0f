"""What is earlier than the log: records that it no longer keeps, from wherever they were archived. Lanes read through it."""

from __future__ import annotations

from typing import Protocol

from ..log import Batch, Partition

__all__ = ["Earlier"]


class Earlier(Protocol):
    """Earlier records of some topics, under the offsets that they had. Calls block: they are made in threads."""

    def end(self, partition: Partition) -> int:
        """The offset from which on the archive has nothing (0: it never had anything); the log is read on from there."""
        ...

    def read(self, partition: Partition, first: int, most: int) -> Batch | None:
        """At most so many records from an offset on, in order; None when there are no more. Offsets may have gaps where
        records were refused."""
        ...
