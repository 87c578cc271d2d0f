"""Who is on duty, with scorers in hand: what the models topic says, less what cannot be loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec
import structlog

from penstock.errors import Refused, Unreachable
from penstock.log import Batch, Log, Partition
from penstock.model import Model
from penstock.records import Decision
from penstock.runtime.lane import now as clock
from penstock.runtime.patience import patiently
from penstock.scoring.answers import Serving
from penstock.scoring.around import Plan
from penstock.scoring.roster import ALIASES, Roster, Rosters
from penstock.topics import Topics

from .meters import Meters
from .sessions import RETRY_SECONDS, Member, Sessions

__all__ = ["Duties", "Duty", "Follower"]

_SERVED = b"/served"
_decode = msgspec.json.Decoder(Decision).decode
_encode = msgspec.json.Encoder().encode


class Duty:
    """Follows one model's roster.

    A version that cannot be loaded never takes over: the champion or online learner before it goes on, and a challenger
    that cannot be loaded answers nobody. Where there is nobody else, whoever is in charge answers though it misses canaries
    (they were declared after it was offered): a canary keeps a version from taking over, and takes nobody out of service."""

    def __init__(self, model: Model, sessions: Sessions) -> None:
        self.model, self._sessions, self._plan = model, sessions, Plan.of(model)
        self.roster = Roster()
        self.serving = Serving()
        self.served: Decision | None = None
        """The decision behind `serving.champion`; kept with the shard's state, so that a restart falls back on it. None where the
        champion answers for want of another, so that others are looked for again."""
        self._retry: float | None = None

    def follow(self, roster: Roster, now: float) -> None:
        """Take over a changed roster at once; `now` is the wall clock in seconds."""
        self._retry, before = None, self.serving
        champion, served = self._lead(roster, now)
        online, weight = self._load(roster.online, now), roster.online_weight
        if online is None and roster.online is not None:
            online, weight = before.online, before.online_weight
            if online is None and champion is None:
                online, weight = self._load(roster.online, now, alone=True), roster.online_weight
        challenger = self._load(roster.challenger, now)
        serving = Serving(
            champion, challenger, roster.share if challenger else 0.0, self._load(roster.probation, now), online, weight,
            self._load(roster.first, now) if self.model.keep_first else None,
        )  # fmt: skip
        self.roster, self.served, self.serving = roster, served, serving  # together: the gateway reads them in another thread
        self._load(roster.waiting, now)  # opened ahead of need
        duties = {name: member.version for name in ALIASES if (member := getattr(self.serving, name)) is not None}
        self._sessions.announce(self.model.name, duties)

    def _lead(self, roster: Roster, now: float) -> tuple[Member | None, Decision | None]:
        """Who leads, and by which decision: the champion, else whoever did, else who was champion before."""
        if roster.champion is None:
            return None, None
        if champion := self._load(roster.champion, now):
            return champion, roster.champion
        if self.serving.champion is not None and self.served is not None:
            return self.serving.champion, self.served
        for decision in (self.served, roster.probation, roster.earlier):
            if champion := self._load(decision, now):
                return champion, decision
        champion = self._load(roster.champion, now, alone=True)
        return champion, None if champion else self.served

    def retry(self, now: float) -> None:
        """Look again for files that could not be read, when it is time."""
        if self._retry is not None and now >= self._retry:
            self.follow(self.roster, now)

    def _load(self, decision: Decision | None, now: float, alone: bool = False) -> Member | None:
        """The version of a decision; None when it cannot answer, or misses canaries and is not `alone`."""
        if decision is None:
            return None
        try:
            return self._sessions.member(
                decision, self.model.inputs, self.model.label, self.model.canaries, alone=alone, plan=self._plan
            )
        except Unreachable:
            self._retry = now + RETRY_SECONDS
            return None


class Duties:
    """Everybody's duties, by model, as of the newest record heard; `heard` is the position after it."""

    def __init__(self, topics: Topics, sessions: Sessions, meters: Meters) -> None:
        self.of = {model.name: Duty(model, sessions) for model in topics.project.models}
        self.heard = 0
        self._rosters = Rosters()
        self._meters = meters
        self._logger = structlog.get_logger(service="inference")

    def hear(self, batch: Batch, now: float) -> bool:
        """Take records of the models topic; whether any was new. Only the last word on a model is followed."""
        before, changed = self.heard, set[str]()
        for offset, key, value in zip(batch.offsets, batch.keys, batch.values, strict=True):
            if offset < self.heard:
                continue
            self.heard = offset + 1
            try:
                changed.add(self._rosters.hear(key, value))
            except Refused as refusal:
                self._meters.decisions.inc()
                self._logger.error("decision refused", offset=offset, cause=str(refusal), meaning="the roster stays as it is")
        for name, duty in self.of.items():
            if name in changed:
                duty.follow(self._rosters.of(name), now)
        return self.heard > before

    def retry(self, now: float) -> None:
        for duty in self.of.values():
            duty.retry(now)

    def table(self) -> dict[bytes, bytes]:
        """What a restart must know: the aliases, and the champion in fact serving where the roster names another."""
        table = dict(self._rosters.aliases)
        for name, duty in self.of.items():
            if duty.served is not None and duty.served != duty.roster.champion:
                table[name.encode() + _SERVED] = _encode(duty.served)
        return table

    def restore(self, table: Mapping[bytes, bytes], heard: int, now: float) -> None:
        """Go on as `table` says, with the records from `heard` on."""
        self.heard = heard
        self._rosters = Rosters.restored({key: value for key, value in table.items() if not key.endswith(_SERVED)})
        for name, duty in self.of.items():
            kept = table.get(name.encode() + _SERVED)
            duty.served = _decode(kept) if kept else None
            duty.follow(self._rosters.of(name), now)


class Follower:
    """Follows the models topic for the gateway: the same duties as the shards', without a partition of its own. Models are opened
    in a thread; who serves is one reference, which is exchanged. `ready` once everything that was there has been taken in."""

    def __init__(self, topics: Topics, log: Log, sessions: Sessions, meters: Meters) -> None:
        self.duties = Duties(topics, sessions, meters)
        self.ready = not self.duties.of
        self._models, self._log = Partition(topics.models, 0), log

    async def run(self) -> None:
        """Follow until cancelled. A log that is away is waited for; what was heard stays in force meanwhile."""
        if self.duties.of:
            await patiently(self._follow, structlog.get_logger(service="inference"))

    async def _follow(self) -> None:
        duties, topic = self.duties, self._models.topic
        begin, end = (await self._log.begins([topic]))[self._models], (await self._log.ends([topic]))[self._models]
        duties.heard = max(begin, duties.heard)
        reader = await self._log.reader({self._models: duties.heard})
        me = asyncio.current_task()
        try:
            while me is None or not me.cancelling():  # a client below may drop the cancellation, see Lane.run
                self.ready = self.ready or duties.heard >= end
                for batch in await reader.read(1000, 0.25):
                    await asyncio.to_thread(duties.hear, batch, clock())  # opening a model takes as long as many answers
                await asyncio.to_thread(duties.retry, clock())
        finally:
            await reader.close()
