"""event -> row -> online store, beside the bare loop on the same machine in the same run.

Work: 208-byte JSON payments of 100,000 cards (zipf 1.1) on one partition of a real Kafka, 360 ms of stream time apart; for each
one row to a topic, and the card's state to redis-server. Two views by one key: the three windows of the README's example, and
twenty (1h, 24h, 7d, 30d x count, sum, mean, min, max).

    bare   the same bytes in and out with nothing in between: read, decode, encode a row of the same columns, send it, write a
           state of the same size per card
    ours   the feature store's lane as it runs in production: validation, dead letters, ids, merge, windows, positions, outbox

Events per second of CPU of the process (its core), client threads included; Kafka and Redis run on the other core.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
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
from penstock.records import Clock, Row
from penstock.services.feature_store.row import CLOUD_EVENT
from penstock.services.feature_store.service import lanes
from penstock.store import Change
from penstock.store.redis import RedisStore
from penstock.topics import Topics
from penstock.windows.panes import Shape

from .figure import Figure


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
    payments_1h = ps.count(Payment, over="1h")
    spend_24h = ps.sum(Payment.amount, over="24h")
    usual_amount = ps.mean(Payment.amount, over="30d")


@ps.features(by=Payment.card)
class Twenty:
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
    event = event_of(Payment)
    decode: Any = msgspec.json.Decoder(EventDecoder(event).struct).decode
    encode = msgspec.json.Encoder().encode
    reader = await log.reader({Partition("payments", 0): 0})
    columns, shape = topics.project.topology.columns(event), Shape(topics.project.topology.reads[event])
    numbers = np.random.default_rng(0).gamma(2, 20, len(columns)).tolist()
    features = msgspec.defstruct("Features", [(name.replace(".", "_"), float) for name in columns])
    row = msgspec.defstruct("Row", [(name, Any) for name in Row.__struct_fields__ if name not in ("late", "as_of")], gc=False)
    rows, seen, done = topics.rows(event), 0, 0
    state = b"x" * 8 * (shape.head + int((shape.rings[:, 3] + 1).sum()))
    while done < n:
        for batch in await reader.read(BATCH, 1.0):
            sends, heads = [], {}
            for key, value in zip(batch.keys, batch.values, strict=True):
                e = decode(value)
                made = encode(row(e.payment_id, e.at, msgspec.Raw(value or b""), features(*numbers), {"source": [0, 1]}, {}))
                sends.append(Send(rows, key, made, CLOUD_EVENT, 0))
                heads[e.card.encode()] = state
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


async def measure(view: type, made: list[tuple[bytes, bytes]], rounds: int, folder: Path) -> dict[str, Any]:
    n, topics = len(made), [Topics(ps.Project(f"bench{number}", rows={Payment: [view]}), 1) for number in range(rounds + 1)]
    kafka, redis = LocalKafka(folder / "kafka"), LocalRedis(folder / "redis")
    kafka.start()
    redis.start()
    try:
        log = KafkaLog(kafka.bootstrap)
        await log.create(list(dict.fromkeys(topic for each in topics for topic in each.all())))
        for first in range(0, n, 20_000):
            await log.send([Send("payments", k, v) for k, v in made[first : first + 20_000]])
        said = Clock(publisher="bench", before=1 << 60, ends={"payments": {0: n}})
        await log.send([Send(each.clock, b"bench", msgspec.json.encode(said)) for each in topics])
        found: dict[str, list[dict[str, float]]] = {"bare": [], "ours": []}
        for number in range(rounds + 1):  # each a project of its own; the first round warms up and does not count
            for name, what in (("bare", bare), ("ours", ours)):
                store = RedisStore(redis.url, f"{name}{number}")
                took = await measured(what, log, store, topics[number], n)
                found[name] += [took] if number else []
                await store.wipe()
                await store.close()
        await log.close()
    finally:
        kafka.stop()
        redis.stop()
    return {name: {k: float(np.median([r[k] for r in runs])) for k in runs[0]} for name, runs in found.items()}


def run(quick: bool) -> Iterator[Figure]:
    gc.set_threshold(100_000, 50, 100)  # as services/__main__.py does
    n, rounds = (20_000, 1) if quick else (300_000, 3)
    made = payments(n)
    for name, view, goal in (("3 windows", Card, None), ("20 windows", Twenty, 100_000)):
        with tempfile.TemporaryDirectory() as folder:
            found = asyncio.run(measure(view, made, rounds, Path(folder)))
        yield Figure(
            name=f"event to row of {name}, Kafka to Redis",
            unit="events/CPU s",
            better="higher",
            ours=found["ours"]["events_per_cpu_second"],
            beside={"bare loop, the same bytes": found["bare"]["events_per_cpu_second"]},
            goal=goal,
            detail={"events": n, "rounds": rounds, **found},
        )
