"""Reading from Kafka in batches: chosen partitions (`KafkaReader`), or a group's share of them (`KafkaMember`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError, OffsetOutOfRangeError

from . import Batch, Gap, LogError, Partition, gap
from ._kafka_wait import DEADLINE, failed, quietly, within

__all__ = ["KafkaMember", "KafkaReader"]

_ABSENT: Final = 5.0
"""Seconds between two reads after which silence is counted anew: the reader was away, not the broker."""


class _Source:
    """One aiokafka consumer with what it lacks: turns, a position after failures, and an ear for silence."""

    def __init__(self, consumer: Any, bootstrap: str) -> None:
        self.consumer = consumer
        self.at: dict[TopicPartition, int] = {}
        """Where to read on, per partition: after the last record returned, or where `seek` said."""
        self._bootstrap = bootstrap
        self._answers: dict[TopicPartition, tuple[int | None, float]] = {}
        self._looked = 0.0

    async def take(self, max_records: int, wait: float) -> list[Batch]:
        """What is there, else what comes first within `wait` seconds."""
        try:
            found = await self.consumer.getmany(timeout_ms=int(wait * 1000), max_records=max_records)
        except OffsetOutOfRangeError as error:
            self._recover()
            raise await self._gap(error) from error
        except (KafkaError, OSError) as error:
            self._recover()
            raise failed("reading", self._bootstrap, error) from error
        except asyncio.CancelledError:
            self.mend()
            raise
        # Whoever was served goes to the end of the queue; aiokafka itself empties the first partition first.
        queue = self.consumer._fetcher._records
        batches = []
        for place, records in found.items():
            batch = _columns(place, records)
            self.at[place] = batch.next
            if place in queue:
                queue.move_to_end(place)
            batches.append(batch)
        return batches

    def seek(self, place: TopicPartition, offset: int) -> None:
        if place in self.at:
            self.at[place] = offset
            self._answers.clear()
            if place in self.consumer.assignment():
                self.consumer.seek(place, offset)

    def flow(self) -> None:
        """Let everything be fetched that was held back."""
        self._answers.clear()
        self.consumer.resume(*(self.at.keys() & self.consumer.assignment()))

    def listen(self) -> None:
        """LogError when the broker has said nothing about a partition for DEADLINE seconds, not even that it is empty.

        To be called after reads that found nothing; aiokafka itself retries in silence.
        """
        now = time.monotonic()
        if now - self._looked > _ABSENT:
            self._answers.clear()
        self._looked = now
        for place in self.consumer.assignment():
            answer = self.consumer.last_poll_timestamp(place)
            known, heard = self._answers.get(place, (None, now))
            if answer != known:
                heard = now
            elif now - heard > DEADLINE:  # and again at every look, until it says something
                raise LogError(
                    f"{place.topic}/{place.partition}: Kafka at {self._bootstrap} is silent for {DEADLINE:.0f} s; "
                    "look with: penstock doctor"
                )
            self._answers[place] = answer, heard

    def mend(self) -> None:
        """aiokafka counts who is inside `getmany`, and does not count out whom an exception or a cancellation took out.
        Uncorrected, a member that hangs later keeps its partitions for ever: `max_poll_interval_ms` never passes."""
        state = self.consumer._subscription
        state._fetch_count = 0
        state._last_fetch_ended = time.monotonic()

    def _recover(self) -> None:
        """An exception loses the records that aiokafka took from other partitions in the same call: back to ours."""
        self.mend()
        for place in self.consumer.assignment() & self.at.keys():
            self.consumer.seek(place, self.at[place])

    async def _gap(self, error: OffsetOutOfRangeError) -> LogError:
        place, at = next(iter(error.args[0].items()))
        doing = f"looking up the bounds of {place.topic}/{place.partition}"
        begin = await within(self.consumer.beginning_offsets([place]), doing, self._bootstrap)
        end = await within(self.consumer.end_offsets([place]), doing, self._bootstrap)
        return Gap(gap(Partition(*place), at, begin[place], end[place]))

    async def close(self) -> None:
        if not await quietly(self.consumer.stop(), "closing a reader"):
            await quietly(self.consumer._client.close(), "closing a reader's connections")


def _columns(place: TopicPartition, records: Sequence[Any]) -> Batch:
    first, last = records[0].offset, records[-1].offset
    whole = last - first + 1 == len(records)
    headers = [r.headers for r in records]
    return Batch(
        Partition(place.topic, place.partition),
        range(first, last + 1) if whole else [r.offset for r in records],
        [r.key for r in records],
        [r.value for r in records],
        headers if any(headers) else (),
        [r.timestamp for r in records],
    )


class KafkaReader:
    """Reads chosen partitions; see `Reader`."""

    def __init__(self, consumer: Any, bootstrap: str, positions: Mapping[Partition, int]) -> None:
        self._source = _Source(consumer, bootstrap)
        self._closed = False
        places = {TopicPartition(*partition): offset for partition, offset in positions.items()}
        if places:
            consumer.assign(list(places))
        self._source.at = dict(places)
        for place, offset in places.items():
            consumer.seek(place, offset)

    async def read(self, max_records: int, wait: float) -> list[Batch]:
        await asyncio.sleep(0)  # what is at hand comes without a pause: let fetches run
        if self._closed or max_records < 1:
            return []
        if not self._source.at:
            await asyncio.sleep(wait)
            return []
        batches = await self._source.take(max_records, wait)
        if not batches:
            self._source.listen()
        return batches

    def seek(self, partition: Partition, offset: int) -> None:
        self._source.seek(TopicPartition(*partition), offset)

    async def close(self) -> None:
        self._closed = True
        await self._source.close()


class KafkaMember(ConsumerRebalanceListener):  # type: ignore[misc]
    """A group's share of partitions, and whole topics beside them; see `Member`.

    New partitions stay paused until the caller has had the chance to seek; so nothing is fetched from a wrong place.
    The positions that `commit` leaves with the broker are never read: each new partition is sought explicitly.
    """

    def __init__(self, shared: Any, follows: KafkaReader | None, bootstrap: str) -> None:
        self._shared = _Source(shared, bootstrap) if shared is not None else None
        self._follows = follows
        self._bootstrap = bootstrap
        self._generation = 0 if shared is not None else 1
        self._assigned: frozenset[int] = frozenset()
        self._born = 0
        """Number of the group's last distribution, as the broker counts them."""
        self._seen = self._generation
        """The generation that the caller knows about since the last read."""
        self._unplaced: set[TopicPartition] = set()
        self._shut = True
        self._moving = True
        self._moved = asyncio.Event()
        self._turn = 0
        self._closed = False

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def assigned(self) -> frozenset[int]:
        return self._assigned

    def on_partitions_revoked(self, revoked: object) -> None:
        """Called by aiokafka when the group begins to distribute anew; until that ends nothing shared is read."""
        self._moving = True

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Called by aiokafka, before anything of the new distribution can have been fetched."""
        assert self._shared is not None
        numbers = frozenset(place.partition for place in assigned)
        born = self._shared.consumer._coordinator.generation
        # The same numbers in two consecutive distributions: nobody else can have had them in between, so read on.
        kept = not self._shut and numbers == self._assigned and born == self._born + 1
        self._moving, self._born = False, born
        if not kept:
            self._assigned, self._shut = numbers, True
            self._shared.at = dict.fromkeys(assigned, 0)
            self._unplaced = set(assigned)
            self._generation += 1
            self._moved.set()
        for place, offset in self._shared.at.items():
            if self._shut:
                self._shared.consumer.pause(place)
            self._shared.consumer.seek(place, offset)

    def ready(self) -> None:
        """The caller gets the member now and looks at `generation` first."""
        self._seen = self._generation
        self._moved.clear()

    async def read(self, max_records: int, wait: float) -> list[Batch]:
        await asyncio.sleep(0)  # what is at hand comes without a pause: let heartbeats and fetches run
        if self._closed or max_records < 1:
            return []
        if self._seen != self._generation:
            self.ready()
            return []
        batches = await self._at_hand(max_records)
        if not batches and wait > 0:
            batches = await self._first(max_records, wait)
        if not batches:
            self._listen()
        return batches

    async def _at_hand(self, max_records: int) -> list[Batch]:
        """What was fetched already. Shared and followed topics take turns in being first."""
        sources = [self._shared] if self._shared is not None and await self._open(self._shared) else []
        if self._follows is not None:
            sources.append(self._follows._source)
        self._turn ^= 1
        batches: list[Batch] = []
        for source in sources[:: -1 if self._turn else 1]:
            left = max_records - sum(map(len, batches))
            try:
                batches += await source.take(left, 0) if left else []
            except LogError:
                if not batches:  # else what was taken is returned first, and the failure comes again
                    raise
        return batches

    async def _open(self, shared: _Source) -> bool:
        """Let the new partitions flow. False while there are none to read."""
        if self._moving:
            shared.mend()  # we are reading, even if there is nothing to read: do not count as hanging
            return False
        if self._shut:
            if self._unplaced:
                asked = self._generation
                begins = await within(shared.consumer.beginning_offsets(list(self._unplaced)), "joining a group", self._bootstrap)
                if self._moving or asked != self._generation:
                    return False
                for place in list(self._unplaced):
                    shared.seek(place, begins[place])
                self._unplaced.clear()
            shared.flow()
            self._shut = False
        return True

    async def _first(self, max_records: int, wait: float) -> list[Batch]:
        """Whatever comes first: shared records, followed ones, or a new distribution (which returns nothing)."""
        sources = [s for s in (self._shared, self._follows._source if self._follows else None) if s is not None]
        before = [(source, dict(source.at)) for source in sources]
        asked = self._generation
        takes = [asyncio.ensure_future(source.take(max_records, wait)) for source in sources]
        moved = asyncio.ensure_future(self._moved.wait())
        try:
            await asyncio.wait([*takes, moved], timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self._end(takes, moved)
            self._rewind(before, asked)
            raise
        found = await self._end(takes, moved)
        if asked != self._generation:
            self._rewind(before, asked)
            self.ready()
            return []
        batches: list[Batch] = []
        for result, was in zip(found, before, strict=True):
            if isinstance(result, BaseException):
                continue
            if sum(map(len, batches)) + sum(map(len, result)) > max_records:  # both at once: the other one next time
                self._rewind([was], asked)
            else:
                batches += result
        for result in found:
            if isinstance(result, LogError) and not batches:  # beside records it waits: it comes again
                raise result
        return batches

    async def _end(self, takes: list[asyncio.Task[list[Batch]]], moved: asyncio.Task[bool]) -> list[Any]:
        for task in (*takes, moved):
            task.cancel()
        results = await asyncio.gather(*takes, moved, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, LogError | asyncio.CancelledError):
                raise result
        return results[:-1]

    def _rewind(self, before: Sequence[tuple[_Source, Mapping[TopicPartition, int]]], generation: int) -> None:
        """Records were taken that will not be returned: read them again. A new generation has positions of its own."""
        for source, positions in before:
            if source is self._shared and generation != self._generation:
                continue
            for place, offset in positions.items():
                if source.at.get(place, offset) != offset:
                    source.seek(place, offset)

    def _listen(self) -> None:
        if self._shared is not None and not self._moving:
            self._shared.listen()
        if self._follows is not None:
            self._follows._source.listen()

    def seek(self, partition: Partition, offset: int) -> None:
        place = TopicPartition(*partition)
        self._unplaced.discard(place)
        if self._shared is not None:
            self._shared.seek(place, offset)
        if self._follows is not None:
            self._follows.seek(partition, offset)

    async def commit(self, positions: Mapping[Partition, int]) -> None:
        if self._shared is None:
            return
        mine = self._shared.consumer.assignment()
        offsets = {place: at for p, at in positions.items() if (place := TopicPartition(*p)) in mine}
        if not offsets or self._moving:
            return  # whoever holds them next commits
        try:
            async with asyncio.timeout(DEADLINE):
                await self._shared.consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError):
            return  # a new distribution has begun meanwhile; likewise
        except TimeoutError:
            raise LogError(
                f"committing: Kafka at {self._bootstrap} gave no answer within {DEADLINE:.0f} s; look with: penstock doctor"
            ) from None
        except (KafkaError, OSError) as error:
            raise failed("committing", self._bootstrap, error) from error

    async def close(self) -> None:
        self._closed = True
        if self._shared is not None:
            await self._shared.close()
        if self._follows is not None:
            await self._follows.close()
