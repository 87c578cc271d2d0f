"""Follows the models topic for the gateway: the same rosters as the shards', without a partition of its own."""

from __future__ import annotations

import structlog

from penstock.errors import Refused
from penstock.lane import now
from penstock.log import Batch, Log, Partition
from penstock.patience import patiently
from penstock.topics import Topics

from .duty import Duty
from .meters import Meters
from .roster import Rosters
from .sessions import Sessions

__all__ = ["Follower"]


class Follower:
    """`duties` by model, kept up to date while `run` runs. `ready` once everything that was there has been taken in."""

    def __init__(self, topics: Topics, log: Log, sessions: Sessions, meters: Meters) -> None:
        self._topics, self._log, self._meters = topics, log, meters
        self.duties = {model.name: Duty(model, sessions, meters) for model in topics.project.models}
        self._rosters = Rosters()
        self._position: dict[Partition, int] = {}
        self.ready = not self.duties
        self._logger = structlog.get_logger(service="inference")

    def hear(self, key: bytes | None, value: bytes | None, now: float) -> None:
        """Take one record of the models topic."""
        try:
            name = self._rosters.hear(key, value)
        except Refused as refusal:
            self._meters.decisions.inc()
            self._logger.error("decision refused", cause=str(refusal), meaning="the roster stays as it is")
            return
        if name in self.duties:
            self.duties[name].follow(self._rosters.of(name), now)

    async def run(self) -> None:
        """Follow until cancelled. A log that is away is waited for; what was heard stays in force meanwhile."""
        if self.duties:
            await patiently(self._follow, self._logger)

    async def _follow(self) -> None:
        topic = self._topics.models
        begins, ends = await self._log.begins([topic]), await self._log.ends([topic])
        position = {p: max(begin, self._position.get(p, 0)) for p, begin in begins.items()}
        self._position = position
        reader = await self._log.reader(position)
        try:
            while True:
                self.ready = self.ready or all(position[p] >= end for p, end in ends.items())
                for batch in await reader.read(1000, 0.25):
                    self._take(batch)
                for duty in self.duties.values():
                    duty.retry(now())
        finally:
            await reader.close()

    def _take(self, batch: Batch) -> None:
        self._position[batch.partition] = batch.next
        for key, value in zip(batch.keys, batch.values, strict=True):
            self.hear(key, value, now())
