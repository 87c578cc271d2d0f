"""What an entity of a 20-feature view takes in Redis, beside the bare packed value of the same features.

The newest values of 20 columns of one event, for 1,000,000 entities:

    ours    states as the feature store writes them: Panes.apply and pack, RedisStore.write, 4 shards
    bare    one string of 20 float32 and a time per entity, SET by hand

Growth of `used_memory` of a redis-server of its own, divided by the entities: values, names and tables of names, allocator slack.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import redis

from penstock.event import event_of
from penstock.feature import view_of
from penstock.local.redis import LocalRedis
from penstock.log import partition_of
from penstock.online.lookup import state_key
from penstock.store import Change
from penstock.store.redis import RedisStore
from penstock.windows.panes import Panes, Shape

from .bench_reads import PACKED, Newest, Wide
from .figure import Figure

PARTITIONS, PART, BATCH = 4, 50_000, 2_000
START = 1_767_225_600_000_000


def states(shape: Shape, names: list[str], rng: np.random.Generator) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Heads and tails of new entities after one event of each."""
    panes, n = Panes(shape), len(names)
    slots = np.array([panes.slot(name) for name in names], np.int64)
    kind, times = shape.events.index(event_of(Wide)), START + np.sort(rng.integers(0, 86_400_000_000, n))
    panes.apply(slots, times, np.full(n, kind), rng.random((n, len(shape.tracks))), np.zeros(n, np.int64))
    heads, tails, _ = panes.pack()
    return heads, tails


async def ours(url: str, entities: int) -> None:
    shape, hop, rng = Shape([view_of(Newest)]), view_of(Newest).key, np.random.default_rng(0)
    store, position = RedisStore(url, "bench"), msgspec.msgpack.encode({"partitions": PARTITIONS})
    versions = dict.fromkeys(range(PARTITIONS), 0)
    for first in range(0, entities, PART):
        names = [f"card-{n:07d}" for n in range(first, min(first + PART, entities))]
        heads, tails = states(shape, names, rng)
        for shard in versions:
            mine = [name for name in names if partition_of(name.encode(), PARTITIONS) == shard]
            for at in range(0, len(mine), BATCH):
                some = mine[at : at + BATCH]
                change = Change(
                    position,
                    heads={state_key(hop, name): heads[name] for name in some},
                    tails={state_key(hop, name): tails[name] for name in some if name in tails},
                )
                versions[shard] = await store.write(f"feature_store-00000000.{shard}", versions[shard], change)
    await store.close()


def bare(url: str, entities: int) -> None:
    values = np.random.default_rng(0).random(20).astype("<f4")
    with redis.Redis.from_url(url) as client:
        for first in range(0, entities, PART):
            line = client.pipeline(transaction=False)
            for n in range(first, min(first + PART, entities)):
                line.set(f"bare:card-{n:07d}", np.array((START + n, values), PACKED).tobytes())
            line.execute()


def used(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return int(client.info("memory")["used_memory"])


def run(quick: bool) -> Iterator[Figure]:
    entities = 20_000 if quick else 1_000_000
    taken, seconds = dict[str, float](), dict[str, float]()
    for name in ("ours", "bare"):
        with tempfile.TemporaryDirectory() as folder, LocalRedis(Path(folder)) as server:
            before, began = used(server.url), time.perf_counter()
            if name == "ours":
                asyncio.run(ours(server.url, entities))
            else:
                bare(server.url, entities)
            taken[name], seconds[name] = (used(server.url) - before) / entities, time.perf_counter() - began
    yield Figure(
        name=f"20 features of {entities:,} entities, in Redis",
        unit="bytes/entity",
        better="lower",
        ours=taken["ours"],
        beside={"bare packed string": taken["bare"]},
        goal=400.0,
        detail={"entities": entities, "megabytes": {k: v * entities / 1e6 for k, v in taken.items()}, "seconds": seconds},
    )
