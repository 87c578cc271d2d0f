"""Trainer: turns alarms, schedules and commands into fitted versions.

reads    <p>.alarms               asks for a refit while it stands
         <p>.statistics.<model>   closed windows: the clock of all schedules
         <p>.commands             retrain
         <p>.outcomes.<model>     what is learned; read up to its end when a job starts (a window's end is published
                                  after every outcome that was known before it)
follows  <p>.runs, <p>.alarms, <p>.statistics.<model>
writes   <p>.candidates           the fitted version, then
         <p>.runs                 what went in and what came out: the job is done
state    follows from those topics; the online learner is taught again after a restart
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from penstock.artefact import Artefacts
from penstock.deadletter import dead_letter
from penstock.errors import Refused
from penstock.log import Batch, Log, LogError, Partition, Reader, Send
from penstock.records import Alarm, Command, Run, Statistic
from penstock.topics import Topics

from .desk import Desk, Made, Numbers
from .triggers import Job, Triggers

__all__ = ["Trainer"]

_ALARM = msgspec.json.Decoder(Alarm)
_COMMAND = msgspec.json.Decoder(Command)
_RUN = msgspec.json.Decoder(Run)
_STATISTIC = msgspec.json.Decoder(Statistic)

READ = 20_000
EMPTY_READS = 30
"""Reads of a second without a record although the log says that there is one; then the log is asked anew."""


class Trainer:
    """The control of this service (see penstock.control). With `background`, fits run in a thread, so that the event
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
        self.desks = {
            model.name: Desk(model, topics.project, topics.outcomes(model.name), artefacts, threads, seed, clock)
            for model in topics.project.models
        }
        self._statistics = {topics.statistics(name): desk for name, desk in self.desks.items()}
        self._outcomes = {name: _Outcomes(desk, topics, log) for name, desk in self.desks.items()}
        self.reads: tuple[str, ...] = (topics.alarms, *self._statistics, topics.commands)
        self.follows: tuple[str, ...] = (topics.runs, topics.alarms, *self._statistics)

    def recall(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        record: Run | Alarm | Statistic
        if topic == self._topics.runs:
            record = _RUN.decode(value or b"")
        else:
            try:  # what is not one is refused when it is read
                record = (_ALARM if topic == self._topics.alarms else _STATISTIC).decode(value or b"")
            except msgspec.MsgspecError:
                return
        desk = self.desks.get(record.model)
        if desk is None:
            return  # a model that the project no longer has
        desk.triggers = desk.triggers.recall(record)
        if isinstance(record, Run):
            desk.numbers = desk.numbers.seen(record)

    async def apply(self, topic: str, key: bytes | None, value: bytes | None) -> list[Send]:
        record = self._decoded(topic, value or b"")
        if record is None:
            return []
        desk = self.desks.get(record.model)
        if desk is None:
            raise Refused("unknown", f"no model {record.model!r}; the project has {', '.join(self.desks)}")
        before = desk.triggers
        after, jobs = before.take(desk.model, record)
        numbers, sends = desk.numbers, list[Send]()
        for job in jobs:
            if self._working is not None:  # of a call that was cancelled (a rebalance): threads cannot be
                await asyncio.wait((self._working,))
            sends += await self._outcomes[desk.model.name].read()
            made = await self._work(desk, job, before, numbers)
            numbers = numbers.seen(made.run)
            sends += self._said(job, made)
        desk.triggers, desk.numbers = after, numbers
        return sends

    async def _work(self, desk: Desk, job: Job, before: Triggers, numbers: Numbers) -> Made:
        if not self._background:
            return desk.work(job, before, numbers)
        self._working = asyncio.ensure_future(asyncio.to_thread(desk.work, job, before, numbers))
        return await asyncio.shield(self._working)

    def _decoded(self, topic: str, value: bytes) -> Statistic | Alarm | Command | None:
        if topic in self._statistics:
            return _STATISTIC.decode(value)
        if topic == self._topics.alarms:
            return _ALARM.decode(value)
        try:
            command = _COMMAND.decode(value)
        except msgspec.MsgspecError:
            return None  # the registry reads commands too, and refuses it
        return command if command.action == "retrain" else None

    def _said(self, job: Job, made: Made) -> list[Send]:
        run = Send(self._topics.runs, job.id.encode(), msgspec.json.encode(made.run))
        if made.candidate is None:
            return [run]
        return [Send(self._topics.candidates, job.model.encode(), msgspec.json.encode(made.candidate)), run]

    async def close(self) -> None:
        for outcomes in self._outcomes.values():
            await outcomes.close()


class _Outcomes:
    """The outcomes topic of one model, read up to its present end whenever a job starts. The cursor is in memory."""

    def __init__(self, desk: Desk, topics: Topics, log: Log) -> None:
        self._desk, self._log, self._topic = desk, log, desk.outcomes
        self._dead_letters = topics.dead_letters(desk.outcomes)
        self._cursor: dict[Partition, int] = {}
        self._reader: Reader | None = None
        self._dead: list[Send] = []

    async def read(self) -> list[Send]:
        """Read on; the dead letters to send."""
        try:
            await self._read()
        except LogError:
            await self.close()
            raise
        dead, self._dead = self._dead, []
        return dead

    async def _read(self) -> None:
        ends = await self._log.ends([self._topic])
        if not self._cursor:
            self._cursor = await self._log.begins([self._topic])
        if self._reader is None:
            self._reader = await self._log.reader(self._cursor)
        empty = 0
        while any(self._cursor[partition] < end for partition, end in ends.items()):
            batches = await self._reader.read(READ, 1.0)
            empty = 0 if batches else empty + 1
            if empty >= EMPTY_READS:
                raise LogError(f"{self._topic} says that it has more records than it gives")
            for batch in batches:
                self._dead += [self._refused(batch, at, refusal) for at, refusal in self._desk.examples.add(batch)]
                self._cursor[batch.partition] = batch.next

    def _refused(self, batch: Batch, at: int, refusal: Refused) -> Send:
        headers = batch.headers[at] if batch.headers else ()
        key, value = batch.keys[at], batch.values[at]
        return dead_letter(self._dead_letters, batch.partition, batch.offsets[at], key, value, headers, refusal, "trainer")

    async def close(self) -> None:
        if self._reader is not None:
            await self._reader.close()
            self._reader = None
