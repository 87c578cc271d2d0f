"""The outlet of a lane: what its shards send goes out here, so that it knows where the topics end."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..log import Log, Send
from ..records import Clock
from .outbox import Ends
from .patience import Patient

__all__ = ["Outlet"]


class Outlet:
    """`writes` are the topics of which it must know the ends, before shards open."""

    def __init__(self, log: Log, writes: Sequence[str], clock: str, patient: Patient) -> None:
        self._log, self._clock, self._patient = log, clock, patient
        self.writes = tuple(dict.fromkeys(writes))
        self._ends: Ends = {}

    async def look(self) -> Ends:
        """Ask the log where the topics end; that is known from here on."""
        found: Ends = {topic: {} for topic in self.writes}
        for partition, end in (await self._patient(lambda: self._log.ends(self.writes))).items():
            found[partition.topic][partition.number] = end
        self._ends = found
        return self.ends

    @property
    def ends(self) -> Ends:
        """Where the topics end, as far as this lane knows."""
        return {topic: dict(self._ends[topic]) for topic in self.writes}

    async def send(self, sends: Sequence[Send]) -> set[str]:
        """Publish; the topics that it went to."""
        touched = set()
        if sends:
            for partition, end in (await self._patient(lambda: self._log.send(sends))).items():
                ends = self._ends.setdefault(partition.topic, {})
                ends[partition.number] = max(end, ends.get(partition.number, 0))  # shards send at once
                touched.add(partition.topic)
        return touched

    async def close(self, before: int, name: str, topics: Sequence[str]) -> None:
        """Say on the clock topic that all before a time is out on these topics."""
        said = Clock(publisher=name, before=before, ends={topic: self._ends[topic] for topic in topics})
        await self._patient(lambda: self._log.send([Send(self._clock, name.encode(), msgspec.json.encode(said))]))
