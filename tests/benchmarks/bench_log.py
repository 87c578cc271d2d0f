"""How fast the log on Kafka writes and reads, beside aiokafka as its documentation uses it, on the same broker.

Thousand records of 200 bytes a second of wall clock, median of three laps, 8 partitions; this process's CPU in the details.

    ours    Log.send of 4,000 records a call, Member.read
    bare    AIOKafkaProducer.send of each record (its lingering tuned as ours is), AIOKafkaConsumer.getmany
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from penstock.local.kafka import LocalKafka
from penstock.log import Headers, Log, Send, Topic
from penstock.log.kafka import KafkaLog

from .figure import Figure

CALL, PARTITIONS = 4_000, 8
VALUE = b"v" * 200
STAMPED: Headers = (("ce_source", b"feature_store.3"), ("ce_id", b"123456789"))
CASES: dict[str, tuple[bool, Headers]] = {
    "partition given": (False, ()),
    "partition given, 2 headers": (False, STAMPED),
    "every key new (murmur2)": (True, ()),
}

Lap = dict[str, float]
"""Thousand records a second and CPU microseconds a record, of writing and of reading."""


def lap_of(records: int, write: tuple[float, float], read: tuple[float, float]) -> Lap:
    return {
        "write": records / write[0] / 1e3,
        "read": records / read[0] / 1e3,
        "write_us": write[1] / records * 1e6,
        "read_us": read[1] / records * 1e6,
    }


async def ours(log: Log, name: str, records: int, keyed: bool, headers: Headers) -> Lap:
    sends = [
        Send(name, b"event-%d" % n if keyed else None, VALUE, headers, None if keyed else n % PARTITIONS) for n in range(records)
    ]
    await log.send(sends[:1])
    wall, cpu = time.perf_counter(), time.process_time()
    for at in range(1, records, CALL):
        await log.send(sends[at : at + CALL])
    write = (time.perf_counter() - wall, time.process_time() - cpu)
    member = await log.join(name, [name])
    wall, cpu, count = time.perf_counter(), time.process_time(), 0
    while count < records:
        count += sum(map(len, await member.read(CALL, 1.0)))
    read = (time.perf_counter() - wall, time.process_time() - cpu)
    await member.close()
    return lap_of(records, write, read)


async def bare(bootstrap: str, name: str, records: int, keyed: bool, headers: Headers) -> Lap:
    said = list(headers)
    keys = [b"event-%d" % n if keyed else None for n in range(records)]
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=5, max_batch_size=1 << 18) as producer:
        await producer.send_and_wait(name, VALUE, keys[0], 0)
        wall, cpu = time.perf_counter(), time.process_time()
        for n in range(1, records):
            await producer.send(name, VALUE, keys[n], None if keyed else n % PARTITIONS, headers=said)
        await producer.flush()
        write = (time.perf_counter() - wall, time.process_time() - cpu)
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False) as consumer:
        consumer.assign([TopicPartition(name, number) for number in range(PARTITIONS)])
        await consumer.seek_to_beginning()
        wall, cpu, count = time.perf_counter(), time.process_time(), 0
        while count < records:
            count += sum(map(len, (await consumer.getmany(timeout_ms=1_000, max_records=CALL)).values()))
        read = (time.perf_counter() - wall, time.process_time() - cpu)
    return lap_of(records, write, read)


async def all_of(bootstrap: str, records: int, laps: int) -> dict[str, dict[str, Lap]]:
    log, found = KafkaLog(bootstrap), dict[str, dict[str, Lap]]()
    for title, (keyed, headers) in CASES.items():
        taken: dict[str, list[Lap]] = {"ours": [], "bare": []}
        for number in range(laps):
            for way in ("ours", "bare") if number % 2 == 0 else ("bare", "ours"):
                name = f"bench-{way}-{uuid.uuid4().hex[:8]}"
                await log.create([Topic(name, PARTITIONS)])
                if way == "ours":
                    taken[way].append(await ours(log, name, records, keyed, headers))
                else:
                    taken[way].append(await bare(bootstrap, name, records, keyed, headers))
        found[title] = {w: {k: statistics.median(lap[k] for lap in runs) for k in runs[0]} for w, runs in taken.items()}
    await log.close()
    return found


def run(quick: bool) -> Iterator[Figure]:
    records, laps = (20_000, 1) if quick else (200_000, 3)
    with tempfile.TemporaryDirectory() as folder, LocalKafka(Path(folder)) as broker:
        found = asyncio.run(all_of(broker.bootstrap, records, laps))
    for title, ways in found.items():
        for verb in ("write", "read"):
            yield Figure(
                name=f"{verb}, {title}",
                unit="1000 records/s",
                better="higher",
                ours=ways["ours"][verb],
                beside={"aiokafka, record by record" if verb == "write" else "aiokafka, getmany": ways["bare"][verb]},
                detail={"records": records, "laps": laps, **ways},
            )
