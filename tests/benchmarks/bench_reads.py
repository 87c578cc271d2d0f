"""Reading features from Redis, beside the bare packed read on the same machine in the same run.

Work: 1, 10 and 100 of 2,000 entities, keys drawn at random, as of now; p50 of each over all rounds, in milliseconds.

    20 features    the newest values of 20 columns: their state has no tiles
    24 windows     4 windows (1h, 24h, 7d, 30d) x 6 aggregates over 45 days of events: 16 kB of tiles each

    bare           one MGET of 20 float32 and a time, packed, names made before -> numpy (and, of 24 windows, of the same states)
    redis          ps.FeatureClient on redis://, in process: keys -> values, with status and age of each view
    http           ps.FeatureClient on http://, to a service in a process of its own: JSON for few entities, Arrow for 100
    http json      the same read as JSON, by httpx

Feast 0.67.0 (SDK, Redis, 20 floats) took 0.39 / 1.13 / 8.4 ms on such a machine; recorded, not run here. The ways take turns,
each after the same pause, and every round in another order: a call finds caches and clocks as the one before it has left them.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import redis

import penstock as ps
from penstock.event import event_of, to_micros
from penstock.feature import view_of
from penstock.local import port as ports
from penstock.local.redis import LocalRedis
from penstock.log import partition_of
from penstock.online.lookup import state_key
from penstock.store import LIVE, STATUS, Change
from penstock.store.redis import RedisStore
from penstock.topics import Topics
from penstock.windows.panes import Panes, Shape

from .figure import Figure

ENTITIES, PARTITIONS = 2_000, 4
FEAST = {1: 0.39, 10: 1.13, 100: 8.4}
PAUSE = 0.0005
"""Seconds."""
START = 180.0
"""Seconds that the service has until it answers: on a machine that is new, or busy, it compiles its machine code first."""
PACKED = np.dtype([("t", "<i8"), ("v", "<f4", (20,))])
COLUMNS = [f"c{i}" for i in range(20)]

Wide: Any = ps.event("wide")(
    type("Wide", (), {"__annotations__": {"card": ps.Key[str], **dict.fromkeys(COLUMNS, float), "at": ps.EventTime}})
)
Newest: Any = ps.features(by=Wide.card)(type("Newest", (), {c: ps.last(getattr(Wide, c)) for c in COLUMNS}))


@ps.event("narrow")
class Narrow:
    payer: ps.Key[str]
    amount: float
    at: ps.EventTime


AGGREGATES: dict[str, Callable[[str], Any]] = {
    "count": lambda over: ps.count(Narrow, over=over),
    "sum": lambda over: ps.sum(Narrow.amount, over=over),
    "mean": lambda over: ps.mean(Narrow.amount, over=over),
    "min": lambda over: ps.min(Narrow.amount, over=over),
    "max": lambda over: ps.max(Narrow.amount, over=over),
    "std": lambda over: getattr(ps, "std", ps.mean)(Narrow.amount, over=over),
}
Windows: Any = ps.features(by=Narrow.payer)(
    type("Windows", (), {f"{n}_{w}": make(w) for n, make in AGGREGATES.items() for w in ("1h", "24h", "7d", "30d")})
)
CASES = {"20 features": (Wide, Newest), "24 windows": (Narrow, Windows)}
PROJECT = ps.Project("bench-reads", rows={Wide: [Newest], Narrow: [Windows]})
NAMES = [f"card-{n:06d}" for n in range(ENTITIES)]


def states(event: type, view: type, days: int, now: int) -> dict[str, tuple[bytes, bytes]]:
    """Heads and tails of all entities after six events of each every half day."""
    shape, rng = Shape([view_of(view)]), np.random.default_rng(0)
    panes, n, half = Panes(shape), 6 * ENTITIES, 43_200 * 1_000_000
    kind, slots = shape.events.index(event_of(event)), np.array([panes.slot(name) for name in NAMES], np.int64)
    stored: dict[str, tuple[bytes, bytes]] = {}
    for turn in range(2 * days, 0, -1):
        times = np.sort(now - turn * half + rng.integers(0, half, n))
        values = rng.random((n, len(shape.tracks)))
        panes.apply(slots[rng.integers(0, ENTITIES, n)], times, np.full(n, kind), values, np.zeros(n, np.int64))
        heads, tails, cut = panes.pack()
        for name, head in heads.items():
            stored[name] = head, (b"" if name in cut else stored.get(name, (b"", b""))[1]) + tails.get(name, b"")
    return stored


async def fill(url: str, cases: dict[str, dict[str, tuple[bytes, bytes]]]) -> None:
    """What the feature store would have written, and the bare values."""
    store, position = RedisStore(url, PROJECT.name), msgspec.msgpack.encode({"partitions": PARTITIONS})
    for shard in range(PARTITIONS):
        mine = [n for n in NAMES if partition_of(n.encode(), PARTITIONS) == shard]
        version = await store.write(Topics(PROJECT).shard(shard), 0, Change(position, heads={STATUS: LIVE}))
        for case, stored in cases.items():
            hop = view_of(CASES[case][1]).key
            for first in range(0, len(mine), 200):
                some = mine[first : first + 200]
                heads = {state_key(hop, n): stored[n][0] for n in some}
                tails = {state_key(hop, n): stored[n][1] for n in some if stored[n][1]}
                version = await store.write(Topics(PROJECT).shard(shard), version, Change(position, heads=heads, tails=tails))
    await store.close()
    with redis.Redis.from_url(url) as client:
        for n, name in enumerate(NAMES):
            client.set(f"bare:{name}", np.array((n, np.arange(20)), PACKED).tobytes())


def serve(url: str, port: int) -> None:
    """The feature store's HTTP side, as its process runs it."""
    import gc

    from penstock.online.reader import OnlineFeatures
    from penstock.runtime.server import server
    from penstock.services.feature_store.api import app

    gc.set_threshold(100_000, 50, 100)  # as services/__main__.py does
    online = OnlineFeatures(Topics(PROJECT, PARTITIONS), RedisStore(url, PROJECT.name))
    online.warm(streams=True)
    asyncio.run(server(app(online, ["Newest", "Windows"], str), ports.LOOPBACK, port).serve())


def paused(call: Callable[[int], object], turn: int) -> float:
    """Milliseconds of a call after a pause in which this process stays awake and the server does not."""
    until = time.perf_counter() + PAUSE
    while time.perf_counter() < until:
        pass
    began = time.perf_counter()
    call(turn)
    return (time.perf_counter() - began) * 1e3


def measure(url: str, port: int, rounds: int) -> dict[str, Any]:
    bare, place = redis.Redis.from_url(url), f"http://{ports.LOOPBACK}:{port}"
    plain = httpx.Client(base_url=place)
    with bare, plain, ps.FeatureClient(url, PROJECT) as near, ps.FeatureClient(place) as far:
        return {
            f"{case}, {n}": measured(case, view, n, rounds, bare, near, far, plain)
            for case, (_, view) in CASES.items()
            for n in (1, 10, 100)
        }


def measured(
    case: str, view: type, n: int, rounds: int, bare: Any, near: ps.FeatureClient, far: ps.FeatureClient, plain: httpx.Client
) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    drawn = [[NAMES[i] for i in rng.choice(ENTITIES, n, replace=False)] for _ in range(200)]
    packed = [[f"bare:{name}" for name in names] for names in drawn]
    whole = [stored_names(view, names) for names in drawn]
    body = [msgspec.json.encode({"views": [view_of(view).name], "keys": names}) for names in drawn]
    ways: dict[str, Callable[[int], Any]] = {
        "bare": lambda i: np.frombuffer(b"".join(bare.mget(packed[i])), PACKED)["v"],
        "bare, same states": lambda i: np.frombuffer(b"".join(bare.mget(whole[i])), np.float64),
        "redis": lambda i: near.read(view, drawn[i]),
        "http": lambda i: far.read(view, drawn[i]),
        "http json": lambda i: plain.post("/features", content=body[i]).json(),
    }
    taken: dict[str, list[float]] = {way: [] for way in ways}
    order = list(ways)
    for turn in range(rounds + 20):  # the first twenty are not counted
        rng.shuffle(order)  # not only rotated: every way follows every other
        for way in order:
            taken[way].append(paused(ways[way], turn % 200))
    quantiles = {way: statistics.quantiles(times[20:], n=100) for way, times in taken.items()}
    p50 = {way: found[49] for way, found in quantiles.items()}
    return {
        "p50": p50,
        "p10": {way: found[9] for way, found in quantiles.items()},
        "p99": {way: found[98] for way, found in quantiles.items()},
    }


def stored_names(view: type, names: list[str]) -> list[bytes]:
    """The names of heads, and of tails where there are some, as the store calls them."""
    from penstock.store._redis_names import Names

    places = [(Topics(PROJECT).shard(partition_of(n.encode(), PARTITIONS)), state_key(view_of(view).key, n)) for n in names]
    packed = Names(PROJECT.name).gathering(places, len(places) if view is Windows else 0).commands[0]
    return packed.split(b"\r\n")[4:-1:2]


def all_of(rounds: int) -> tuple[dict[str, Any], dict[str, float]]:
    """What each read took, and the bytes an entity has."""
    now = to_micros(datetime.now(UTC))
    cases = {case: states(event, view, 45 if case == "24 windows" else 1, now) for case, (event, view) in CASES.items()}
    port = ports.free()
    with tempfile.TemporaryDirectory() as folder, LocalRedis(Path(folder)) as server:
        service = multiprocessing.get_context("spawn").Process(target=serve, args=(server.url, port))
        try:
            asyncio.run(fill(server.url, cases))
            service.start()
            until = time.monotonic() + START
            while not asyncio.run(ports.http_ok(port, "/healthz")):
                assert service.is_alive(), f"the service ended with code {service.exitcode}"
                assert time.monotonic() < until, f"the service did not start in {START:.0f} s"
                time.sleep(0.1)
            size = {case: statistics.mean(len(head) + len(tail) for head, tail in kept.values()) for case, kept in cases.items()}
            return measure(server.url, port, rounds), size
        finally:
            service.terminate()
            service.join(10)


def run(quick: bool) -> Iterator[Figure]:
    found, size = all_of(40 if quick else 300)
    for case in CASES:
        for n in (1, 10, 100):
            took, wide = found[f"{case}, {n}"], case == "24 windows"
            said = f"{case}, {n} {'entity' if n == 1 else 'entities'}"
            floor = took["p50"]["bare, same states" if wide else "bare"]
            detail = {**took, "bytes_per_entity": size[case]}
            for way, title, goal in (("redis", "in process", 2.0), ("http", "HTTP", 3.0)):
                yield Figure(
                    name=f"{said}, {title}",
                    unit="ms",
                    better="lower",
                    ours=took["p50"][way],
                    beside={"bare MGET of the same bytes" if wide else "bare packed MGET": floor},
                    recorded={} if wide else {"Feast 0.67.0": FEAST[n]},
                    goal=goal if wide and n == 100 else None,
                    goal_ratio=1.5 if not wide and way == "redis" else None,
                    detail=detail if way == "redis" else {},
                )
