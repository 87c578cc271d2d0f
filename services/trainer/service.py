"""Trainer: turns alarms, schedules and commands into fitted versions.

reads    <p>.statistics.<model>   closed windows: the clock of all schedules
         <p>.commands             retrain
         <p>.alarms               a refit is asked for while one stands; read until those that a window names are there
         <p>.quarantines          what is not; read up to its end when a job starts
         <p>.outcomes.<model>     what is learned; read up to its end when a job starts (a window's end is published
                                  after every outcome that was known before it)
follows  <p>.runs, <p>.statistics.<model>
writes   <p>.alarms               what is fitted no longer knows its canaries, or does again
         <p>.candidates           the fitted version, then
         <p>.runs                 what went in and what came out: the job is done
state    follows from those topics; the online learner is taught again after a restart

Jobs follow from the windows of a model alone, and from what these name: the same statistics, alarms and outcomes give
the same jobs, candidates and runs, however the topics come interleaved. Only a command takes effect where it is read: among
which windows that was is not in the topics, so a replay may number its version differently, and may fit it at the newest
window then closed where its own time lies ahead of that. A quarantine holds for fits from its time on, which lies after the
windows that were closed when it was said; runs say which held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from penstock.artefact import Artefacts
from penstock.errors import Refused
from penstock.label import Sources
from penstock.log import Batch, Log, LogError, Send
from penstock.records import Alarm, Command, Quarantine, Run, Statistic
from penstock.runtime.control import Tail
from penstock.runtime.deadletter import cause_of, dead_letter
from penstock.topics import Topics

from .desk import Desk, Made, Numbers
from .triggers import Job, Triggers

__all__ = ["LONGEST", "Trainer"]

LONGEST = 900.0
"""Seconds that a fit may take before the trainer counts as hung."""


class Trainer:
    """The control of this service (see penstock.runtime.control). With `background`, fits run in a thread, so that the event
    loop goes on meanwhile; without, a job is done when the turn is (simulate). `threads`, `seed` and `clock`: see Desk."""

    def __init__(
        self,
        topics: Topics,
        log: Log,
        artefacts: Artefacts,
        background: bool = False,
        threads: int = 1,
        seed: int = 0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._topics, self._background = topics, background
        self._working: asyncio.Future[Made] | None = None
        self.desks = {model.name: Desk(model, topics.project, artefacts, threads, seed, clock) for model in topics.project.models}
        self._statistics = tuple(topics.statistics(name) for name in self.desks)
        self._aside: list[Send] = []
        self._outcomes = {
            name: Source(log, topics.outcomes(name), desk.examples.add, self._aside) for name, desk in self.desks.items()
        }
        self._alarms, self._heard = Source(log, topics.alarms, self._hear, self._aside), set[str]()
        self._quarantines = Source(log, topics.quarantines, self._keep, self._aside)
        self.reads: tuple[str, ...] = (*self._statistics, topics.commands)
        self.follows: tuple[str, ...] = (topics.runs, *self._statistics)

    def recall(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        record: Run | Statistic
        if topic == self._topics.runs:
            record = msgspec.json.decode(value or b"", type=Run)
        else:
            try:
                record = msgspec.json.decode(value or b"", type=Statistic)
            except msgspec.MsgspecError:
                return  # refused when it is read
        desk = self.desks.get(record.model)
        if desk is None:
            return  # a model that the project no longer has
        desk.triggers = desk.triggers.recall(record)
        if isinstance(record, Run):
            desk.numbers = desk.numbers.seen(record)
            desk.forgetting, _ = desk.forgetting.take(record)

    async def apply(self, topic: str, key: bytes | None, value: bytes | None) -> list[Send]:
        record = self._decoded(topic, value or b"")
        if record is None:
            return []
        desk = self.desks.get(record.model)
        if desk is None:
            raise Refused("unknown", f"no model {record.model!r}; the project has {', '.join(self.desks)}")
        await self._alarms.read()
        if isinstance(record, Statistic) and (missing := sorted(set(record.alarms) - self._heard)):
            raise LogError(f"the window {record.id} names alarms that {self._topics.alarms} does not show yet: {missing}")
        before = desk.triggers
        after, jobs = before.take(desk.model, record)
        numbers, forgetting, sends = desk.numbers, desk.forgetting, list[Send]()
        for job in jobs:
            if self._working is not None:  # of a call that was cancelled (a rebalance): threads cannot be
                await asyncio.wait((self._working,))
            await self._quarantines.read()
            await self._outcomes[desk.model.name].read()
            made = await self._work(desk, job, before, numbers)
            numbers = numbers.seen(made.run)
            forgetting, alarm = forgetting.take(made.run)
            if alarm is not None:
                sends.append(Send(self._topics.alarms, alarm.model.encode(), msgspec.json.encode(alarm)))
            sends += self._said(job, made)
        desk.triggers, desk.numbers, desk.forgetting = after, numbers, forgetting
        sends += self._aside
        self._aside.clear()
        return sends

    async def _work(self, desk: Desk, job: Job, before: Triggers, numbers: Numbers) -> Made:
        if not self._background:
            return desk.work(job, before, numbers)
        self._working = asyncio.ensure_future(asyncio.to_thread(desk.work, job, before, numbers))
        return await asyncio.shield(self._working)

    def _decoded(self, topic: str, value: bytes) -> Statistic | Command | None:
        if topic in self._statistics:
            return msgspec.json.decode(value, type=Statistic)
        try:
            command = msgspec.json.decode(value, type=Command)
        except msgspec.MsgspecError:
            return None  # the registry reads commands too, and refuses it
        return command if command.action == "retrain" else None

    def _hear(self, batch: Batch) -> list[tuple[int, Refused]]:
        refused = []
        for at, value in enumerate(batch.values):
            try:
                alarm = msgspec.json.decode(value or b"", type=Alarm)
            except msgspec.MsgspecError as error:
                refused.append((at, Refused("schema", f"not an alarm: {error}")))
                continue
            self._heard.add(alarm.id)
            if desk := self.desks.get(alarm.model):
                desk.triggers = desk.triggers.recall(alarm)
                if alarm.signal == Sources.signal:
                    desk.alarms[alarm.id] = alarm
        return refused

    def _keep(self, batch: Batch) -> list[tuple[int, Refused]]:
        refused = []
        for at, value in enumerate(batch.values):
            try:
                said = msgspec.json.decode(value or b"", type=Quarantine)
            except msgspec.MsgspecError as error:
                refused.append((at, Refused("schema", f"not a quarantine: {error}")))
                continue
            if desk := self.desks.get(said.model):
                desk.quarantines[said.id] = said
        return refused

    def _said(self, job: Job, made: Made) -> list[Send]:
        run = Send(self._topics.runs, job.id.encode(), msgspec.json.encode(made.run))
        if made.candidate is None:
            return [run]
        return [Send(self._topics.candidates, job.model.encode(), msgspec.json.encode(made.candidate)), run]


class Source:
    """A topic that is read up to its present end when it is needed. `take` returns what it refuses, by index in the batch;
    it goes `aside` as dead letters to send, once: a trainer that begins anew looks for those sent before."""

    def __init__(self, log: Log, topic: str, take: Callable[[Batch], list[tuple[int, Refused]]], aside: list[Send]) -> None:
        self._tail, self._take, self._aside = Tail(log, [topic]), take, aside
        self._dead, self._refused = Tail(log, [Topics.dead_letters(topic)]), dict[tuple[str, str], Send]()

    async def read(self) -> None:
        async for batch in self._tail.news():
            for at, refusal in self._take(batch):
                place = str(batch.partition.number), str(batch.offsets[at])
                self._refused[place] = dead_letter(batch.partition, *batch.record(at), refusal, "trainer")
        if self._refused:  # whoever begins anew reads them again
            async for batch in self._dead.news():
                for headers in batch.headers:
                    cause = cause_of(headers)
                    if cause.get("dlq.service") == "trainer":
                        self._refused.pop((cause["dlq.partition"], cause["dlq.offset"]), None)
            self._aside += self._refused.values()
            self._refused.clear()
