"""What is earlier than the log: records that it no longer keeps, from wherever they were archived. Lanes read through it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from ..log import Batch, Log, Member, Partition
from .patience import Patient

__all__ = ["Earlier", "Past"]


class Earlier(Protocol):
    """Earlier records of some topics, under the offsets that they had. Calls block: they are made in threads."""

    def end(self, partition: Partition) -> int:
        """The offset from which on the archive has nothing (0: it never had anything); the log is read on from there."""
        ...

    def read(self, partition: Partition, first: int, most: int) -> Batch | None:
        """At most so many records from an offset on, in order; None when there are no more. Offsets may have gaps where
        records were refused."""
        ...


class Past:
    """The partitions whose log begins later than their shard has come: their history is read in place of the log, and where it
    ends, the log is."""

    def __init__(self, history: Earlier, log: Log, patient: Patient, logger: Any) -> None:
        self._history, self._log, self._patient, self._logger = history, log, patient, logger
        self._at: dict[Partition, int] = {}
        """Where to read on in the history."""

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._at)

    async def begin(self, member: Member, topics: Sequence[str], positions: Mapping[Partition, int]) -> None:
        """Find them, of shards that have come to these positions."""
        begins = await self._patient(lambda: self._log.begins(topics))
        self._at = {partition: at for partition, at in positions.items() if at < begins.get(partition, 0)}
        if self._at:
            ends = await self._patient(lambda: self._log.ends(topics))
            for partition in self._at:  # until its history is read nothing of it is wanted
                member.seek(partition, ends[partition])

    async def instead(self, member: Member, batches: Sequence[Batch], most: int) -> list[Batch]:
        """Batches of the log, and of the history in place of what lies after it."""
        found = [batch for batch in batches if batch.partition not in self._at]
        for partition, at in list(self._at.items()):
            read = partial(asyncio.to_thread, self._history.read, partition, at, most)
            batch = await self._patient(read)
            if batch is not None:
                found.append(batch)
                self._at[partition] = batch.next
                continue
            at = max(at, await self._patient(partial(asyncio.to_thread, self._history.end, partition)))
            member.seek(partition, at)
            del self._at[partition]
            self._logger.info("history read", partition=str(partition), meaning=f"the log is read on at {at}")
        return found
