"""The control lane: services of few records and much consequence (trainer, registry), in three shells.

A service brings a *control*: an object that takes one record at a time and answers with the records to send. It is
idempotent (everything that it makes has an id derived from its cause), so at-least-once delivery is enough, and its
state is what it has published: `follows` are replayed whole at the start through `recall`, then `reads` go through
`apply`.

    recall(follows, to their ends) -> read -> apply -> log.send -> acknowledge

A record that cannot be taken goes to `<topic>.dlq` and is acknowledged; a log or disk that is away is waited for. The
shells are `ControlLoop` (any log: simulate, embedded, tests), `penstock.runtime.agents` (Faust on Kafka), and a unit test that
calls `apply`. A control runs once per project: its state is in memory, and topics of one partition are not shared out.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import msgspec
import structlog

from ..errors import Refused
from ..log import Batch, Gap, Headers, Log, LogError, Partition, Reader, Send, TooLarge
from .deadletter import dead_letter
from .patience import patiently
from .telemetry import ControlMeters

__all__ = ["Control", "ControlLoop", "Tail"]

T = TypeVar("T")

EMPTY_READS = 30
"""Reads of a second without a record although the log says that there is one; then the log is asked anew."""


class Control(Protocol):
    """The pure object of a control service. `reads` come in order per topic, at least once; where several topics have
    news at once, the order of `reads` is the order of their turns."""

    reads: tuple[str, ...]
    follows: tuple[str, ...]

    def recall(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        """Rebuild the state from a record that is already there; decide nothing."""
        ...

    def apply(self, topic: str, key: bytes | None, value: bytes | None) -> list[Send] | Awaitable[list[Send]]:
        """Take one record; what to send. The same record again, also after a restart half-way, ends in the same state.

        Raises Refused for a record that cannot be taken. May be awaitable when a decision starts work (a training job);
        calls never overlap. Nothing may be changed when it raises, for a LogError or OSError makes it come again.
        """
        ...


class Tail:
    """Topics read from their beginning (or from `after`) up to their present end, and later on from there. The cursor is in
    memory."""

    def __init__(self, log: Log, topics: Sequence[str], after: Mapping[Partition, int] | None = None) -> None:
        self._log, self._topics = log, topics
        self._at: dict[Partition, int] = dict(after or {})
        self._reader: Reader | None = None

    async def news(self) -> AsyncIterator[Batch]:
        """What is there by now and was not given before. After a LogError the next call goes on where this one stopped."""
        try:
            ends = await self._log.ends(self._topics)
            if self._reader is None:
                self._at = await self._log.begins(self._topics) | self._at
                self._reader = await self._log.reader(self._at)
            empty = 0
            while any(self._at[partition] < end for partition, end in ends.items()):
                batches = await self._reader.read(20_000, 1.0)
                empty = 0 if batches else empty + 1
                if empty >= EMPTY_READS:
                    raise LogError(f"{', '.join(self._topics)}: Kafka says that it has more records than it gives")
                for batch in sorted(batches, key=lambda b: b.partition):
                    self._at[batch.partition] = batch.next
                    yield batch
        except LogError:
            await self.close()
            raise

    async def close(self) -> None:
        if self._reader is not None:
            await self._reader.close()
            self._reader = None


class ControlLoop:
    """Runs a control on any log. Positions live in memory: a new loop replays from the start, which changes nothing.
    `recalled` says whether the state is rebuilt."""

    def __init__(self, control: Control, log: Log, name: str) -> None:
        self.control, self.name, self.recalled = control, name, False
        self.meters = ControlMeters(name)
        self._log, self._tail = log, Tail(log, control.follows)
        self._reader: Reader | None = None
        self._busy = asyncio.Lock()
        self._logger = structlog.get_logger(service=name)

    async def turn(self, wait: float = 0.0) -> bool:
        """One round: read what is there and handle it; whether anything was."""
        await self.recall()
        batches = await self._patient(lambda: self._read(wait))
        for batch in sorted(batches, key=lambda b: (self.control.reads.index(b.partition.topic), b.partition.number)):
            for at in range(len(batch)):
                await self.handle(batch.partition, *batch.record(at))
        return bool(batches)

    async def _read(self, wait: float) -> list[Batch]:
        if self._reader is None:
            self._reader = await self._log.reader(await self._log.begins(self.control.reads))
        return await self._reader.read(500, wait)

    async def recall(self) -> None:
        """Replay what is followed up to its present end, unless that is done. With `recalled` set back to False, what came
        since: whoever had the topics meanwhile may have decided more."""
        async with self._busy:
            await self._recall()

    async def _recall(self) -> None:
        if not self.recalled:
            await self._patient(self._follow)
            await self._tail.close()
            self.recalled = True

    async def _follow(self) -> None:
        async for batch in self._tail.news():
            for key, value in zip(batch.keys, batch.values, strict=True):
                self.control.recall(batch.partition.topic, key, value)

    async def handle(self, source: Partition, offset: int, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Apply one record and send what follows from it. When this returns the record may be acknowledged."""
        async with self._busy:
            await self._recall()
            began = time.time()
            try:
                sends = await self._patient(lambda: self._apply(source.topic, key, value))
                if sends:
                    await self._patient(lambda: self._log.send(sends))
                    self.meters.decisions.inc()
                    self.meters.records_out.inc(len(sends))
            except Gap:
                raise  # bad state, not a bad record
            except Exception as error:
                refusal = _refusal(error)
                why = {"reason": refusal.reason, "cause": str(refusal)}
                self._logger.error("dead-lettered", topic=source.topic, offset=offset, **why)
                dead = dead_letter(source, offset, key, value, headers, refusal, self.name)
                await self._patient(lambda: self._log.send([dead]))
                self.meters.dead_letters.inc()
            done = time.time()
            self.meters.records_in.inc()
            self.meters.seconds.observe(done - began)
            self.meters.newest.set(done)

    async def _apply(self, topic: str, key: bytes | None, value: bytes | None) -> list[Send]:
        sends = self.control.apply(topic, key, value)
        return await sends if inspect.isawaitable(sends) else sends

    async def _patient(self, attempt: Callable[[], Awaitable[T]]) -> T:
        return await patiently(attempt, self._logger, self.meters.waits.inc)


def _refusal(error: Exception) -> Refused:
    if isinstance(error, Refused):
        return error
    for kind, reason in ((msgspec.ValidationError, "schema"), (msgspec.DecodeError, "decode"), (TooLarge, "too_large")):
        if isinstance(error, kind):
            return Refused(reason, str(error))
    return Refused("failed", f"{type(error).__name__}: {error}")
