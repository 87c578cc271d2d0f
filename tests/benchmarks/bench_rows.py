"""event -> row -> online store, beside the bare loop on the same machine in the same run. `make bench`.

Work: 208-byte JSON payments of 100,000 cards (zipf 1.1) on one partition of a real Kafka, 360 ms of stream time apart; for each
one row of 20 window features (1h, 24h, 7d, 30d x count, sum, mean, min, max) to a topic, and the card's state to redis-server.

    bare   the same I/O with nothing in between: read, decode, one packed state per touched card in one atomic write, encode 20
           numbers per event, send
    ours   the feature store's lane as it runs in production: validation, dead letters, ids, merge, windows, positions, outbox

Events per second of CPU of the process (its core), client threads included; Kafka and Redis run on the other core.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import penstock as ps
from penstock.codec import EventDecoder
from penstock.event import event_of
from penstock.local.kafka import LocalKafka
from penstock.local.redis import LocalRedis
from penstock.log import Partition, Send
from penstock.log.kafka import KafkaLog
from penstock.records import Clock
from penstock.services.feature_store.service import lanes
from penstock.store import Change
from penstock.store.redis import RedisStore
from penstock.topics import Topics


@ps.event("payments")
class Payment:
    payment_id: ps.Id[str]
    card: ps.Key[str]
    country: str
    merchant: str
    amount: float
    at: ps.EventTime


@ps.features(by=Payment.card)
class Card:
    n_1h = ps.count(Payment, over="1h")
    n_24h = ps.count(Payment, over="24h")
    n_7d = ps.count(Payment, over="7d")
    n_30d = ps.count(Payment, over="30d")
    sum_1h = ps.sum(Payment.amount, over="1h")
    sum_24h = ps.sum(Payment.amount, over="24h")
    sum_7d = ps.sum(Payment.amount, over="7d")
    sum_30d = ps.sum(Payment.amount, over="30d")
    mean_1h = ps.mean(Payment.amount, over="1h")
    mean_24h = ps.mean(Payment.amount, over="24h")
    mean_7d = ps.mean(Payment.amount, over="7d")
    mean_30d = ps.mean(Payment.amount, over="30d")
    min_1h = ps.min(Payment.amount, over="1h")
    min_24h = ps.min(Payment.amount, over="24h")
    min_7d = ps.min(Payment.amount, over="7d")
    min_30d = ps.min(Payment.amount, over="30d")
    max_1h = ps.max(Payment.amount, over="1h")
    max_24h = ps.max(Payment.amount, over="24h")
    max_7d = ps.max(Payment.amount, over="7d")
    max_30d = ps.max(Payment.amount, over="30d")


project = ps.Project("bench", rows={Payment: [Card]})
BATCH = 4096


def payments(n: int) -> list[tuple[bytes, bytes]]:
    rng = np.random.default_rng(0)
    cards = (rng.zipf(1.1, n) - 1) % 100_000
    start = datetime(2026, 1, 1, tzinfo=UTC)
    made = []
    for i, card in enumerate(cards.tolist()):
        key = f"card-{card:06d}"
        at = start + timedelta(milliseconds=360 * i)
        value = {"payment_id": f"p-{i:012d}", "card": key, "country": "NZ", "merchant": f"merchant-{i % 977:05d}-with-a-name"}
        made.append(
            (key.encode(), msgspec.json.encode(value | {"amount": round(float(rng.gamma(2, 20)), 2), "at": at, "note": "x" * 20}))
        )
    return made


async def bare(log: KafkaLog, store: RedisStore, topics: Topics, n: int) -> int:
    """The same bytes in and out, and nothing in between."""
    decode: Any = msgspec.json.Decoder(EventDecoder(event_of(Payment)).struct).decode
    encode = msgspec.json.Encoder().encode
    reader = await log.reader({Partition("payments", 0): 0})
    rows, seen, done = topics.rows(event_of(Payment)), 0, 0
    numbers, state = [1.5] * 20, b"x" * 152
    while done < n:
        for batch in await reader.read(BATCH, 1.0):
            events = [decode(v) for v in batch.values]
            heads = {e.card.encode(): state for e in events}
            sends = [Send(rows, k, encode([e.payment_id, numbers]), (), 0) for k, e in zip(batch.keys, events, strict=True)]
            seen = await store.write("bare.0", seen, Change(b"%d" % batch.next, heads=heads))
            await log.send(sends)
            done += len(batch)
    await reader.close()
    return done


async def ours(log: KafkaLog, store: RedisStore, topics: Topics, n: int) -> int:
    lane = lanes(topics, log, store, None)[0]
    rows = topics.rows(event_of(Payment))
    before = (await log.ends([rows]))[Partition(rows, 0)]
    while (await log.ends([rows]))[Partition(rows, 0)] - before < n:
        for _ in range(20):
            await lane.turn(0.05)
    await lane.close()
    return n


async def measured(what: Callable[..., Awaitable[int]], *given: object) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    n = await what(*given)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"events_per_cpu_second": n / cpu, "events_per_second": n / wall}


async def main(n: int, rounds: int) -> dict[str, object]:
    topics = Topics(project, 1)
    with tempfile.TemporaryDirectory() as folder:
        kafka, redis = LocalKafka(Path(folder) / "kafka"), LocalRedis(Path(folder) / "redis")
        kafka.start()
        redis.start()
        try:
            log = KafkaLog(kafka.bootstrap)
            await log.create(topics.all())
            made = payments(n)
            for first in range(0, n, 20_000):
                await log.send([Send("payments", k, v) for k, v in made[first : first + 20_000]])
            said = Clock(publisher="bench", before=1 << 60, ends={"payments": {0: n}})
            await log.send([Send(topics.clock, b"bench", msgspec.json.encode(said))])
            found: dict[str, list[dict[str, float]]] = {"bare": [], "ours": []}
            for number in range(rounds + 1):  # each on a store of its own; the first round warms up and does not count
                for name, what in (("bare", bare), ("ours", ours)):
                    store = RedisStore(redis.url, f"{name}{number}")
                    took = await measured(what, log, store, topics, n)
                    found[name] += [took] if number else []
                    await store.wipe()
                    await store.close()
            await log.close()
        finally:
            kafka.stop()
            redis.stop()
    medians = {name: {k: float(np.median([r[k] for r in runs])) for k in runs[0]} for name, runs in found.items()}
    ratio = medians["ours"]["events_per_cpu_second"] / medians["bare"]["events_per_cpu_second"]
    machine = {"python": platform.python_version(), "cores": os.cpu_count(), "numpy": np.__version__}
    return {"events": n, "rounds": rounds, **medians, "ratio": ratio, "machine": machine}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    gc.set_threshold(100_000, 50, 100)  # as services/__main__.py does
    result = asyncio.run(main(options.events, options.rounds))
    if options.json:
        print(json.dumps(result))
        sys.exit()
    print(f"event -> row of 20 windows -> Kafka and Redis, {options.events:,} events, median of {options.rounds}")
    for name in ("bare", "ours"):
        row = result[name]
        assert isinstance(row, dict)
        rates = f"{row['events_per_cpu_second']:>10,.0f} events per CPU second   {row['events_per_second']:>10,.0f} per second"
        print(f"  {name:5} {rates}")
    print(f"  ratio {result['ratio']:.2f}   {result['machine']}")
