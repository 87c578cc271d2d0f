"""A recorder: what happened is in the log, or in a spill that outlives a crash, before anyone is told that it did.

records of one turn -> queue (bounded) -> one send for all that waits -> acknowledged: told
                                              `- the log is away: spill, fsync: told ... replayed in order when it is back

One send is under way at a time, and what comes in meanwhile is the next one: the busier, the larger, and always in order. While
a spill holds anything, all that is new goes behind it. Before a spill is replayed, the log itself is asked which of its records
are there already (a send that was never acknowledged may have been written), so each is there once; a send that a broker takes
only after it was asked is the one exception, and `ce_source` and `ce_id` tell readers of that.

Without a spill (strict) nothing is told that the log has not acknowledged: LogError.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Final, NamedTuple

import structlog

from penstock.log import Gap, Log, LogError, Partition, Send, TooLarge
from penstock.runtime.outbox import FROM, SEQUENCE
from penstock.runtime.patience import RETRY_SECONDS, patiently

from ..meters import Meters
from .spill import Full, Spill

__all__ = ["Full", "Recorder", "Written"]

QUEUE: Final = 20_000
"""Records that may wait for a send: 20 MB of answers."""
HELD: Final = 64 << 20
"""And their bytes, about: an event that is published may have 1 MiB."""
AT_ONCE: Final = 2_000
"""Records of one send."""
BYTES: Final = 192 * 1024
"""And their bytes, about: they make one batch a partition (`_kafka_send.BATCH_BYTES`), whose records follow each other."""
PATIENCE: Final = 1.0
"""Seconds that a send may take before the log counts as away; an election of a leader may take longer, and is spilled through."""
FRESH: Final = 60.0
"""Seconds after which the log is asked anew where it ends: a replay reads what others wrote since, and no more."""
OVERHEAD: Final = 400
"""Bytes of a record's headers."""


class Written:
    """A send that the log has acknowledged."""

    def __init__(self, sends: Sequence[Send], ends: Mapping[Partition, int]) -> None:
        self._sends, self._ends = sends, ends

    @cached_property
    def offsets(self) -> list[int | None]:
        """Where each of the records is in its partition, for records that name theirs; None where the broker did not say (it
        took a repetition for what it was)."""
        ends, found = dict(self._ends), list[int | None]()
        for send in reversed(self._sends):
            place = Partition(send.topic, send.partition or 0)
            ends[place] -= 1
            found.append(ends[place] if self._ends[place] >= 0 else None)
        return found[::-1]


class Safe(NamedTuple):
    """Where records are now: `written` from index `first` on, None for a spill."""

    written: Written | None
    first: int


class _Waiting(NamedTuple):
    sends: Sequence[Send]
    size: int
    """Bytes, about."""
    told: asyncio.Future[Safe]


class Recorder:
    """Records what it is given in topics of the log. Use it from one event loop; `run` does the work.

    `source` is the `ce_source` of the records that a spill may hold; `patience` is seconds.
    """

    def __init__(
        self,
        log: Log,
        topics: Sequence[str],
        meters: Meters,
        spill: Spill | None = None,
        source: bytes = b"",
        patience: float = PATIENCE,
    ) -> None:
        self._log, self._topics, self._meters, self._spill = log, list(topics), meters, spill
        self._source, self._patience = source, patience
        self._queue: deque[_Waiting] = deque()
        self._waiting = self._held = 0
        self._looked = 0.0
        """When the log was last asked where it ends (monotonic)."""
        self._news = asyncio.Event()
        self._replaying: asyncio.Task[None] | None = None
        self._refusing = ""
        """Why nothing can be recorded now."""
        self.ready = spill is None or not spill.empty
        self._logger = structlog.get_logger(service="inference")

    def record(self, sends: Sequence[Send]) -> asyncio.Future[Safe]:
        """Put records behind all that were given before. The future is done when they are safe; it raises LogError when the log
        is away (strict), or Full. Raises these at once when that is known."""
        if self._refusing:
            raise LogError(self._refusing)
        size = sum(len(send.value or b"") + OVERHEAD for send in sends)
        if self._waiting and (self._waiting + len(sends) > QUEUE or self._held + size > HELD):
            raise Full("records wait too long already for the log")
        told: asyncio.Future[Safe] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(sends, size, told))
        self._waiting += len(sends)
        self._held += size
        self._news.set()
        return told

    async def run(self) -> None:
        """Record until cancelled; what is left then in a spill is replayed by whoever opens it next."""
        spill = self._spill
        try:
            if spill is not None and not spill.empty:
                self._logger.info("spill found", bytes=spill.size, torn=spill.cut)
                self._meters.spill.set(spill.size)
                self._replaying = asyncio.create_task(self._replay(spill, None, 0))
            elif spill is not None:
                spill.ends = await patiently(lambda: self._log.ends(self._topics), self._logger)
                self._looked = time.monotonic()
            self.ready = True
            while True:
                await self._news.wait()
                self._news.clear()
                while self._queue:
                    await self._next()
        finally:
            if self._replaying is not None:
                self._replaying.cancel()
            if spill is not None:
                spill.close()
            _fail(self._queue, LogError("this process ends"))

    async def _look(self) -> None:
        """Ask where the log ends, now that nothing of ours is under way."""
        self._looked, spill = time.monotonic(), self._spill
        if spill is not None and self._replaying is None and spill.empty:
            with contextlib.suppress(LogError, TimeoutError):
                async with asyncio.timeout(self._patience):
                    spill.ends = await self._log.ends(self._topics)

    async def _next(self) -> None:
        """Make the oldest that wait safe."""
        if time.monotonic() - self._looked > FRESH:
            await self._look()
        await self._secure(*self._take())

    async def _secure(self, batch: list[_Waiting], sends: Sequence[Send]) -> None:
        """Make these safe, or say why not. One that is larger than its topic takes fails by itself."""
        spill = self._spill
        try:
            if spill is not None and (self._replaying is not None or not spill.empty):
                await self._keep(spill, sends)
                _tell(batch, None)
                return
            sending = asyncio.ensure_future(self._log.send(sends))
            try:
                await asyncio.wait((sending,), timeout=self._patience)
            except asyncio.CancelledError:
                sending.cancel()
                raise
            if sending.done() and not isinstance(error := sending.exception(), LogError):
                if error is not None:
                    raise error
                ends = sending.result()
                if spill is not None:
                    spill.ends = {**spill.ends, **{place: end for place, end in ends.items() if end >= 0}}
                _tell(batch, Written(sends, ends))
            elif sending.done() and isinstance(error, TooLarge) and len(batch) > 1:
                for one in batch:
                    await self._secure([one], one.sends)
            elif sending.done() and isinstance(error, TooLarge):
                raise error
            elif spill is None:
                await self._refuse(batch, sending)
            else:
                self._logger.warning("Kafka is away: records go to the spill", path=str(spill.path))
                kept = 0
                try:
                    kept = await self._keep(spill, sends)
                finally:
                    self._replaying = asyncio.create_task(self._replay(spill, sending, kept))
                _tell(batch, None)
        except Exception as error:  # whatever it is, those who wait hear it, and the next are served
            _fail(batch, error)
        except asyncio.CancelledError:
            _fail(batch, LogError("this process ends"))
            raise

    def _take(self) -> tuple[list[_Waiting], list[Send]]:
        batch, sends, size = list[_Waiting](), list[Send](), 0
        while self._queue and len(sends) < AT_ONCE:
            one = self._queue[0]
            size += one.size
            if batch and size > BYTES:
                break
            self._queue.popleft()
            self._waiting -= len(one.sends)
            self._held -= one.size
            batch.append(one)
            sends += one.sends
        return batch, sends

    async def _refuse(self, batch: list[_Waiting], sending: asyncio.Future[dict[Partition, int]]) -> None:
        """Strict: while a send is under way that may still be written, nothing is recorded, so that order stays plain."""
        if sending.done() and (error := sending.exception()) is not None:
            _fail(batch, error)
            return
        self._refusing = "it has not said whether it took the record; what has an id may be sent again, and counts once"
        waiting, self._queue, self._waiting, self._held = list(self._queue), deque(), 0, 0
        _fail([*batch, *waiting], LogError(self._refusing))
        await asyncio.wait((sending,))
        sending.exception()
        self._refusing = ""

    async def _keep(self, spill: Spill, sends: Sequence[Send]) -> int:
        """Spill records, so that they outlive a crash; the byte after them. Raises Full."""
        before = spill.size
        try:
            spill.append(sends)
            after = spill.size
            await asyncio.to_thread(spill.sync)
        except Full:
            raise Full(f"Kafka is away and {spill.path} is full") from None
        except OSError as error:
            spill.cut_back(before)
            raise Full(f"Kafka is away and {spill.path} cannot be written: {error.strerror}") from error
        self._meters.spilled.inc(len(sends))
        self._meters.spill.set(spill.size)
        return after

    async def _replay(self, spill: Spill, sending: asyncio.Future[dict[Partition, int]] | None, kept: int) -> None:
        """Bring all of the spill into the log. `sending` is a send under way, of what the spill holds up to byte `kept` (0: of
        nothing there)."""
        if sending is not None:
            with contextlib.suppress(LogError):
                ends = await sending
                if kept:
                    self._out(spill, kept, ends)
        there: set[tuple[str, bytes]] | None = None
        failures = 0
        while True:
            try:
                records, after = spill.read()
                if not records:
                    break
                if there is None:
                    there = await self._there(spill.ends)
                new = [record for record in records if self._name(record) not in there]
                try:
                    ends = await self._log.send(new)
                except TooLarge:
                    ends = await self._apart(new)
            except Exception as error:  # whatever it is: who gave up would leave all of it, and all that comes, to the spill
                if not failures:
                    passing = isinstance(error, LogError | OSError)
                    self._logger.warning("waiting", cause=str(error) or type(error).__name__, exc_info=None if passing else error)
                there = None  # this send, too, may have been written
                await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                failures += 1
                continue
            failures = 0
            self._out(spill, after, ends)
            self._meters.replayed.inc(len(records))
        self._out(spill, after, {})
        self._logger.info("the spill is replayed")
        self._replaying = None

    async def _apart(self, records: Sequence[Send]) -> dict[Partition, int]:
        """Send one after the other, without what its topic will never take: behind that all others would wait for ever."""
        ends: dict[Partition, int] = {}
        for record in records:
            try:
                ends |= await self._log.send([record])
            except TooLarge as error:
                self._logger.error("record lost", topic=record.topic, key=str(record.key), cause=str(error))
        return ends

    def _out(self, spill: Spill, after: int, ends: Mapping[Partition, int]) -> None:
        with contextlib.suppress(OSError, Full):
            spill.mark(after, ends)
        self._meters.spill.set(spill.size)

    async def _there(self, since: Mapping[Partition, int]) -> set[tuple[str, bytes]]:
        """Which records of ours lie in the log behind these positions: topic and `ce_id`."""
        begins, ends = await self._log.begins(self._topics), await self._log.ends(self._topics)
        places = {place: max(since.get(place, 0), begins[place]) for place in ends}
        left = {place: at for place, at in places.items() if at < ends[place]}
        found: set[tuple[str, bytes]] = set()
        if not left:
            return found
        reader = await self._log.reader(left)
        try:
            while left:
                batches = await reader.read(10_000, 5.0)
                if not batches:
                    raise LogError(f"{len(left)} partitions do not say what they hold")
                for batch in batches:
                    topic = batch.partition.topic
                    said = (dict(headers) for headers in batch.headers)
                    found.update((topic, head.get(SEQUENCE, b"")) for head in said if head.get(FROM) == self._source)
                    if batch.next >= ends[batch.partition]:
                        left.pop(batch.partition, None)
        except Gap as gap:
            raise LogError(str(gap)) from gap
        finally:
            await reader.close()
        return found

    def _name(self, record: Send) -> tuple[str, bytes]:
        return record.topic, next((value for name, value in record.headers if name == SEQUENCE), b"")


def _tell(batch: Sequence[_Waiting], written: Written | None) -> None:
    first = 0
    for one in batch:
        if not one.told.done():  # who asked may have gone
            one.told.set_result(Safe(written, first))
        first += len(one.sends)


def _fail(batch: Iterable[_Waiting], error: BaseException) -> None:
    for one in batch:
        if not one.told.done():
            one.told.set_exception(error)
            one.told.exception()
