"""Writing to Kafka in ready-made batches, where aiokafka's `send` takes 13 us a record."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from . import LogError, Numbered, Partition, Send, TooLarge, partition_of
from ._kafka_records import Bodies, Records, bodies
from ._kafka_wait import DEADLINE, failed, quietly

__all__ = ["LARGEST", "Sender", "deal"]

BATCH_BYTES: Final = 256 * 1024
"""Bytes of a batch before compression. Larger ones gain nothing measurable; below the usual topic limit of 1 MiB."""

LARGEST: Final = 16 * 1024 * 1024
"""Bytes of the largest record that is sent at all; several brokers hold it in memory at once."""

_place = lru_cache(maxsize=65_536)(partition_of)  # entities repeat: 0.1 us instead of 3

Lanes = dict[tuple[str, int], Bodies]
"""By topic and partition, in order."""


def deal(records: Sequence[Send], counts: Mapping[str, int], limits: Mapping[str, int]) -> Lanes:
    """Records by topic and partition, in order, encoded. What cannot be sent raises before anything is."""
    plain, numbers = (records.plain, records.numbers) if isinstance(records, Numbered) else (records, None)
    dealt: dict[tuple[str, int], tuple[list[Send], list[int]]] = {}
    first = 0
    for (topic, number), group in groupby(plain, itemgetter(0, 4)):
        run = list(group)
        places = range(first, first + len(run))
        first += len(run)
        if number is None:
            for record, at in zip(run, places, strict=True):
                key = record.key
                lane = dealt.setdefault((topic, _place(key, counts[topic]) if key is not None else 0), ([], []))
                lane[0].append(record)
                lane[1].append(at)
            continue
        if not 0 <= number < counts[topic]:
            raise LogError(f"topic {topic} has no partition {number}, only {counts[topic]}; look with: penstock topics list")
        lane = dealt.setdefault((topic, number), ([], []))
        lane[0].extend(run)
        lane[1].extend(places)
    lanes = {place: bodies(lane, numbers, places) for place, (lane, places) in dealt.items()}
    for (topic, _), found in lanes.items():
        largest = Records.size_of(max(found.sizes))
        if largest > limits[topic]:
            raise _too_large(topic, limits[topic], largest)
    return lanes


def _too_large(topic: str, limit: int, size: int) -> TooLarge:
    return TooLarge(f"topic {topic} takes {limit:,} bytes, not {size:,}; declare more as max_bytes")


def _heard(answer: asyncio.Future[Any]) -> None:
    """Marks a failure as seen: when several batches of a call fail, the first one is raised."""
    if not answer.cancelled():
        answer.exception()


class Sender:
    """An idempotent producer that is thrown away after any failure, for two reasons. aiokafka repeats an idempotent
    batch for ever, so records reported as failed would still appear behind their repetition. And a refused batch has
    used up its sequence number, so the broker would refuse all later ones of that partition."""

    def __init__(self, bootstrap: str, settings: Mapping[str, Any]) -> None:
        self._bootstrap, self._settings = bootstrap, settings
        self._producer: Any = None
        self._starting = asyncio.Lock()

    async def send(self, lanes: Lanes, limits: Mapping[str, int]) -> dict[Partition, int]:
        """Write all lanes at once, each in order. An end of -1 is one that the broker did not say."""
        producer = await self._started()
        stamp = time.time_ns() // 1_000_000
        writes = [
            asyncio.ensure_future(self._write(producer, topic, number, lane, limits[topic], stamp))
            for (topic, number), lane in lanes.items()
        ]
        try:
            ends = await asyncio.gather(*writes)
        except (KafkaError, OSError, TimeoutError, TooLarge) as error:
            await self._drop(producer, writes)
            if isinstance(error, TooLarge):
                raise
            if isinstance(error, TimeoutError):
                what = f"no acknowledgement from Kafka at {self._bootstrap} within {DEADLINE:.0f} s"
                raise LogError(f"{what}; look with: penstock doctor") from None
            raise failed(f"sending to {', '.join(sorted({t for t, _ in lanes}))}", self._bootstrap, error) from error
        return {Partition(*lane): end for lane, end in zip(lanes, ends, strict=True)}

    async def _write(self, producer: Any, topic: str, number: int, lane: Bodies, limit: int, stamp: int) -> int:
        """Returns when the last batch is acknowledged. The next batch is built while the one before is under way."""
        acknowledged: list[tuple[asyncio.Future[Any], int]] = []
        for part in lane.parts(min(limit, BATCH_BYTES)):
            async with asyncio.timeout(DEADLINE):
                under_way = await producer.send_batch(Records(part, stamp), topic, partition=number)
            under_way.add_done_callback(_heard)
            acknowledged.append((under_way, len(part.sizes)))
        end = -1
        for under_way, size in acknowledged:
            async with asyncio.timeout(DEADLINE):
                base = (await under_way).offset
            end = base + size if base >= 0 else -1
        return end

    async def _started(self) -> Any:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._bootstrap,
                    enable_idempotence=True,
                    acks="all",
                    max_request_size=LARGEST,
                    request_timeout_ms=int(DEADLINE * 1000),
                    **self._settings,
                )
                try:
                    async with asyncio.timeout(DEADLINE):
                        await producer.start()
                except TimeoutError:
                    await quietly(producer.stop(), "closing a producer that did not start")
                    what = f"Kafka at {self._bootstrap} gave no producer id within {DEADLINE:.0f} s"
                    raise LogError(f"{what}; look with: penstock doctor") from None
                except (KafkaError, OSError) as error:
                    await quietly(producer.stop(), "closing a producer that did not start")
                    raise failed("starting a producer", self._bootstrap, error) from error
                self._producer = producer
        return self._producer

    async def _drop(self, producer: Any, writes: Sequence[asyncio.Future[int]]) -> None:
        if self._producer is producer:
            self._producer = None
        # Fail what is queued, or `stop` waits for a broker that may never come back (aiokafka #1101).
        producer._message_accumulator.fail_all(KafkaError("given up together with a batch that failed"))
        for write in writes:
            write.cancel()
        await asyncio.gather(*writes, return_exceptions=True)
        await self._stop(producer)

    async def _stop(self, producer: Any) -> None:
        if not await quietly(producer.stop(), "closing the producer"):
            await quietly(producer.client.close(), "closing the producer's connections")

    async def close(self) -> None:
        """Every `send` has returned its answer by then, so nothing is left to write."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer._message_accumulator.fail_all(KafkaError("the log was closed"))
            await self._stop(producer)
