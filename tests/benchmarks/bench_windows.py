"""Twenty window features per event, beside Kafka Streams on the same broker in the same run.

Workload W of the peer's harness (../shared/bench/windows; its README has the method and the other engines): 208-byte JSON events
of 100,000 cards on 4 partitions, keyed by card, Zipf or uniform, 360 ms of stream time apart; for each one row to a topic with
1h, 24h, 7d, 30d x count, sum, mean, min, max. The input lies on the topic beforehand.

    ours            a view by card: Kafka in, rows to Kafka, states to redis-server; all counted exactly once
    Kafka Streams   Processor API, tiles packed by hand in one key-value store with a changelog; in RocksDB exactly once
                    (exactly_once_v2, as ours), and at least once in RocksDB or in memory. Its rows include their own event,
                    ours are strictly before it

Engines are pinned to one core, broker and Redis to the other. Both are measured from the 40th percent of the events on (compiled
code, warm JIT): events per CPU second of the engine's process, all its threads, and per second of wall clock. Of ours the CPU of
redis-server is in the details, as Kafka Streams keeps its state in its own process. Pathway and Quix are recorded, not run.

Why not 100,000: no part is left that would give it. Of the engine's samples (py-spy, Zipf) 16 % fetch (12 in aiokafka, record by
record), 18 % intake (decode 5, ids, keys and places 8, merge 4), 6 % are the window kernel, 13 % rows as JSON, 16 % batches and
produce requests, 15 % state and outbox (pack 6, Redis 6, outbox 3), 16 % loop, lane and garbage collection.

Why uniform cards stay behind Kafka Streams: nearly every event is of another card than those around it, so that one state goes to
Redis with each, where Kafka Streams changes it in its own process and tells the broker. The kernel waits for memory (10 % of the
samples, Zipf 6), packing and Redis take 18 %; rows 10, intake 11, fetch 9 and batches 11 stay what they are. By the clock, Redis
and the broker share the other core.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

import penstock as ps
from penstock.event import event_of
from penstock.local import kafka
from penstock.local.kafka import LocalKafka
from penstock.local.process import end_group, last_words, launch
from penstock.local.redis import LocalRedis
from penstock.log import Send, Topic
from penstock.log.kafka import KafkaLog
from penstock.records import Clock
from penstock.services.feature_store.service import lanes
from penstock.store.redis import RedisStore
from penstock.topics import Topics

from .figure import Figure

PEER: Final = Path(__file__).parents[2].parent / "shared" / "bench" / "windows" / "ks"
CARDS, PARTITIONS, STEP_MS, START_MS = 100_000, 4, 360, 1_794_960_000_000
STORES: Final = {
    "Kafka Streams, exactly once": ("rocks", "on"),
    "Kafka Streams, RocksDB": ("rocks", "off"),
    "Kafka Streams, in memory": ("mem", "off"),
}
RECORDED: Final = {"zipf": {"Pathway 0.33": 6_300.0, "Quix 3.28, by hand": 12_100.0}, "unif": {"Pathway 0.33": 4_700.0}}
"""The best of each, events a second of wall clock on one core. Pathway's rows held later events of their card."""
PEER_SECONDS: Final = 180.0
LOOK: Final = 8
"""Turns between two looks at how far the rows are; a look is a request to the broker."""


@ps.event("payments")
class Payment:
    id: ps.Id[str]
    card: ps.Key[str]
    amount: float
    at: ps.EventTime


@ps.features(by=Payment.card)
class Card:
    count_1h, count_24h, count_7d, count_30d = (ps.count(Payment, over=o) for o in ("1h", "24h", "7d", "30d"))
    sum_1h, sum_24h, sum_7d, sum_30d = (ps.sum(Payment.amount, over=o) for o in ("1h", "24h", "7d", "30d"))
    mean_1h, mean_24h, mean_7d, mean_30d = (ps.mean(Payment.amount, over=o) for o in ("1h", "24h", "7d", "30d"))
    min_1h, min_24h, min_7d, min_30d = (ps.min(Payment.amount, over=o) for o in ("1h", "24h", "7d", "30d"))
    max_1h, max_24h, max_7d, max_30d = (ps.max(Payment.amount, over=o) for o in ("1h", "24h", "7d", "30d"))


def payments(cards: str, n: int) -> Iterator[Send]:
    """The peer's events; where it had a place there is the time as text, which ours reads and the peer skips."""
    drawn, rng = np.random.default_rng(7), np.random.default_rng(11)
    weights = 1.0 / np.arange(1, CARDS + 1) ** 1.1
    who = drawn.integers(0, CARDS, n) if cards == "unif" else drawn.choice(CARDS, n, p=weights / weights.sum())
    amounts, numbers = rng.lognormal(3.5, 1.0, n).round(2).tolist(), rng.integers(0, 2**62, n).tolist()
    for i, (card, amount, number) in enumerate(zip(who.tolist(), amounts, numbers, strict=True)):
        t = START_MS + i * STEP_MS
        said = {"id": f"{number:016x}", "card": f"c{card}", "t": t, "amount": amount, "at": datetime.fromtimestamp(t / 1e3, UTC)}
        said |= {"merchant": f"m{number % 5003}", "mcc": 1000 + number % 800, "country": "DE", "channel": "pos"}
        yield Send("payments", f"c{card}".encode(), msgspec.json.encode(said | {"device": "android-14", "currency": "EUR"}))


def pin(core: int) -> None:
    """Keep this process, all its threads and the children to come on one core; nothing where there is but one."""
    if (os.cpu_count() or 1) > 1:
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), {core})


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def filled(bootstrap: str, cards: str, n: int, topics: Topics) -> KafkaLog:
    log, waiting = KafkaLog(bootstrap), list[Send]()
    await log.create(topics.all())
    for send in payments(cards, n):
        waiting.append(send)
        if len(waiting) == 20_000:
            await log.send(waiting)
            waiting = []
    await log.send(waiting)
    ends = {place.number: end for place, end in (await log.ends(["payments"])).items()}
    said = Clock(publisher="bench", before=1 << 60, ends={"payments": ends})
    await log.send([Send(topics.clock, b"bench", msgspec.json.encode(said))])
    return log


async def ours(log: KafkaLog, server: LocalRedis, topics: Topics, n: int) -> dict[str, float]:
    store = RedisStore(server.url, topics.prefix)
    (lane,), rows = lanes(topics, log, store, None), topics.rows(event_of(Payment))
    marks, done = [(0, time.perf_counter(), time.process_time(), cpu_of(server.pid))], 0
    while done < n:
        for _ in range(LOOK):
            if not await lane.turn(0.02):
                break
        done = sum((await log.ends([rows])).values())
        marks.append((done, time.perf_counter(), time.process_time(), cpu_of(server.pid)))
    await lane.close()
    await store.close()
    assert done == n, f"{done} rows of {n} events"
    first, last = next((mark for mark in marks[:-1] if mark[0] >= 0.4 * n), marks[0]), marks[-1]  # few events: all of them
    count, wall, cpu, redis = (b - a for a, b in zip(first, last, strict=True))
    return {"events_per_second": count / wall, "events_per_cpu_second": count / cpu, "redis_us": redis / count * 1e6}


def unfit() -> str:
    """Why Kafka Streams cannot be run beside ours; empty when it can."""
    if not (PEER / "src" / "Windows.java").exists():
        return f"no peer's harness in {PEER}"
    absent = [program for program in ("mvn", "javac") if shutil.which(program) is None]
    return f"no {' and no '.join(absent)} on PATH" if absent else ""


def built(folder: Path) -> str:
    """The class path of the peer's program. Its jars are fetched once."""
    jars = kafka.fetch().parent / f"kafka-streams-{kafka.VERSION}"
    if not any(jars.glob("kafka-streams-*.jar")):
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={jars}"]
        subprocess.run(["mvn", "-B", "-q", "-f", str(PEER / "pom.xml"), *goal], timeout=300, check=True)
    source = str(PEER / "src" / "Windows.java")
    subprocess.run(["javac", "-cp", f"{jars}/*", "-d", str(folder), source], timeout=120, check=True)
    return f"{folder}:{jars}/*"


async def peer(log: KafkaLog, bootstrap: str, classes: str, store: str, eos: str, n: int, folder: Path) -> dict[str, float]:
    name, core = f"streams-{store}-{eos}", ["taskset", "-c", "0"] if (os.cpu_count() or 1) > 1 else []
    out, said = f"{name}-out", folder / f"{name}.log"
    await log.create([Topic(out, PARTITIONS)])
    options = {"app": name, "boot": bootstrap, "dir": folder / name, "out": out, "in": "payments", "mode": "papi"}
    options |= {"store": store, "eos": eos, "log": "on", "n": n, "warm": n * 2 // 5}
    java = [kafka.java() or "java", "-Xms2g", "-Xmx2g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", classes]
    child = launch([*core, *java, "Windows", *(f"{name}={value}" for name, value in options.items())], log=said)
    try:
        await asyncio.to_thread(child.wait, PEER_SECONDS)
    finally:
        end_group(child.pid, 2.0)
    words = said.read_text().strip().splitlines()
    assert child.returncode == 0 and words, f"Kafka Streams ended with {child.returncode}: {last_words(said.read_text())}"
    found = msgspec.json.decode(words[-1])
    rows = sum((await log.ends([out])).values())
    assert rows == n or (eos == "on" and rows > n), f"Kafka Streams wrote {rows} rows of {n} events"
    return {"events_per_second": found["eps_steady"], "events_per_cpu_second": 1e6 / found["cpu_us"], "rss_mb": found["rss_mb"]}


async def measure(cards: str, n: int, rounds: int, peers: bool, folder: Path) -> dict[str, list[dict[str, float]]]:
    topics = [Topics(ps.Project(f"windows{number}", rows={Payment: [Card]}), PARTITIONS) for number in range(rounds)]
    classes = built(folder / "classes") if peers else ""
    pin(1)
    found: dict[str, list[dict[str, float]]] = {"ours": [], **({name: [] for name in STORES} if peers else {})}
    with LocalKafka(folder / "kafka") as broker, LocalRedis(folder / "redis") as server:
        pin(0)
        for number in range(rounds):
            log = await filled(broker.bootstrap, cards, n if number == 0 else 0, topics[number])
            found["ours"].append(await ours(log, server, topics[number], n))
            if number == 0:  # the peer is heavy, and its rounds agree within the ranges of its README
                for name, (store, eos) in STORES.items() if peers else ():
                    found[name].append(await peer(log, broker.bootstrap, classes, store, eos, n, folder))
            await log.close()
    return found


def run(quick: bool) -> Iterator[Figure]:
    gc.set_threshold(100_000, 50, 100)  # as services/__main__.py does
    n, rounds = (40_000, 2) if quick else (500_000, 2)
    missing = unfit()
    for cards, title in (("zipf", "Zipf"), ("unif", "uniform")):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "classes").mkdir()
            found = asyncio.run(measure(cards, n, rounds, not missing, Path(folder)))
        for unit, measured in (("events/CPU s", "events_per_cpu_second"), ("events/s", "events_per_second")):
            median: dict[str, Any] = {name: float(np.median([each[measured] for each in runs])) for name, runs in found.items()}
            yield Figure(
                name=f"20 windows, {title} cards",
                unit=unit,
                better="higher",
                ours=median.pop("ours"),
                beside=median,
                recorded=RECORDED[cards] if unit == "events/s" else {},
                goal=100_000 if unit == "events/CPU s" else None,
                note=f"Kafka Streams was not run beside it: {missing}" if missing else "",
                detail={"events": n, "runs": found},
            )
