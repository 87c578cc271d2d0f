"""The gateway under load: events answered with features from Redis, each answer recorded in Kafka before it leaves.

Model: 100 boosted trees of 20 inputs, 4 of the event and 16 windows (1h, 6h, 24h, 7d x count, sum, mean, max) of 2,000 cards with
a week of events. The whole inference service on core 0; Kafka, Redis and wrk (one thread, keep-alive, closed loop) on core 1.
Every request is another event. Where others work on the machine, requests per CPU second of the server say more than the clock.

    predict          POST /predict/m, one event
    predict, list    POST /predict/m, 50 events, 8 connections: rows per second
    traced           predict while 1 % of the requests carry a sampled traceparent and spans go to a collector
    publish          POST /events/cards, one event of bare JSON
    tensors          POST /v2/models/m/infer on the same server: no features, no record; what HTTP and the model cost
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec
import numpy as np

import penstock as ps
from penstock.artefact import Artefacts
from penstock.event import event_of, to_micros
from penstock.feature import view_of
from penstock.local import port as ports
from penstock.local.kafka import LocalKafka
from penstock.local.redis import LocalRedis
from penstock.log import Send, partition_of
from penstock.log.kafka import KafkaLog
from penstock.online.lookup import state_key
from penstock.records import Candidate, Decision
from penstock.store import LIVE, STATUS, Change
from penstock.store.redis import RedisStore
from penstock.topics import Topics
from penstock.windows.panes import Panes, Shape

from .bench_serve import Server, fitted
from .figure import Figure

CARDS, PARTITIONS, LIST = 2_000, 4, 50
NAMES = [f"card-{n:05d}" for n in range(CARDS)]
CONNECTIONS: Final = 64
FEW: Final = 8
"""Connections for lists."""


@ps.event("cards")
class Paid:
    paid_id: ps.Id[str]
    card: ps.Key[str]
    a: float
    b: float
    c: float
    d: float
    at: ps.EventTime


@ps.event("chargebacks")
class Chargeback:
    paid_id: ps.Key[str]
    fraud: bool
    at: ps.EventTime


AGGREGATES: dict[str, Any] = {"count": None, "sum": ps.sum, "mean": ps.mean, "max": ps.max}
FEATURES = {
    f"{name}_{over}": ps.count(Paid, over=over) if make is None else make(Paid.a, over=over)
    for name, make in AGGREGATES.items()
    for over in ("1h", "6h", "24h", "7d")
}
Card: Any = ps.features(by=Paid.card)(type("Card", (), dict(FEATURES)))


@ps.model(
    scores=Paid, features=[Paid.a, Paid.b, Paid.c, Paid.d, Card], label=ps.label(Chargeback.fraud, within="30d", otherwise=False)
)
def m() -> ps.Learner:
    raise NotImplementedError


project = ps.Project("bench-gateway", [m])

SCRIPT: Final = """
local heads, tails, n, i, run = {}, {}, 0, 0, os.getenv("RUN")
function init(args)
  for line in io.lines(os.getenv("BODIES")) do
    local at = line:find("@", 1, true); n = n + 1; heads[n] = line:sub(1, at - 1); tails[n] = line:sub(at + 1)
  end
  wrk.method = "POST"
end
local list, path, trace = tonumber(os.getenv("LIST")), os.getenv("WHERE"), os.getenv("TRACE")
local plain, traced = {}, {["traceparent"] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
function body() i = i + 1; local k = i % n + 1; return heads[k] .. run .. i .. tails[k] end
function request()
  if list == 1 then return wrk.format(nil, path, (trace and i % 100 == 0) and traced or plain, body()) end
  local all = {}
  for k = 1, list do all[k] = body() end
  return wrk.format(nil, path, plain, "[" .. table.concat(all, ",") .. "]")
end
function done(s, lat, req)
  local e = s.errors
  print(string.format("RESULT rate=%.1f p50=%d p99=%d n=%d bad=%d", s.requests / (s.duration / 1e6), lat:percentile(50),
    lat:percentile(99), s.requests, e.status + e.connect + e.read + e.write + e.timeout))
end
"""


async def fill(url: str) -> None:
    """A week of events of every card, as the feature store would have written it."""
    shape, rng, now = Shape([view_of(Card)]), np.random.default_rng(0), to_micros(datetime.now(UTC))
    panes, n = Panes(shape), 60 * CARDS
    kind, slots = shape.events.index(event_of(Paid)), np.array([panes.slot(name) for name in NAMES], np.int64)
    times = np.sort(now - rng.integers(0, 7 * 86_400 * 1_000_000, n))
    values = rng.random((n, len(shape.tracks)))
    panes.apply(slots[rng.integers(0, CARDS, n)], times, np.full(n, kind), values, np.zeros(n, np.int64))
    heads, tails, _ = panes.pack()
    store, position = RedisStore(url, project.name), msgspec.msgpack.encode({"partitions": PARTITIONS})
    hop = view_of(Card).key
    for shard in range(PARTITIONS):
        mine = [n for n in NAMES if partition_of(n.encode(), PARTITIONS) == shard]
        version = await store.write(Topics(project).shard(shard), 0, Change(position, heads={STATUS: LIVE}))
        for first in range(0, len(mine), 200):
            some = mine[first : first + 200]
            state = {state_key(hop, n): heads[n] for n in some}, {state_key(hop, n): tails[n] for n in some if tails.get(n)}
            change = Change(position, heads=state[0], tails=state[1])
            version = await store.write(Topics(project).shard(shard), version, change)
    await store.close()


async def begin(bootstrap: str, models: Path) -> None:
    """The topics, and a version on duty."""
    log, topics = KafkaLog(bootstrap), Topics(project, PARTITIONS)
    await log.create(topics.all())
    place = models / "fitted.onnx"
    models.mkdir(parents=True)
    fitted(place)
    at = datetime.now(UTC)
    candidate = Candidate(
        id="c", model="m", version="v1", kind="full", at=at, artefact=Artefacts(models).put(place.read_bytes(), "onnx"),
        inputs=list(m.inputs), weights={}, edges={}, reference={}, metrics={}, run="r", fingerprint="f",
    )  # fmt: skip
    decision = Decision(
        id="d", model="m", kind="champion", version="v1", at=at, actor="registry", reason="", share=1.0, expected="", evidence={},
        candidate=candidate,
    )  # fmt: skip
    await log.send([Send(topics.models, b"m/champion", msgspec.json.encode(decision))])
    await log.close()


def bodies(folder: Path) -> dict[str, Path]:
    """Events with a place for their id, and tensors."""
    rng, at = np.random.default_rng(3), datetime.now(UTC).isoformat()
    events, tensors = list[str](), list[str]()
    for name in rng.choice(NAMES, 512):
        own = {c: round(float(v), 6) for c, v in zip("abcd", rng.normal(size=4), strict=True)}
        events.append(json.dumps({"paid_id": "@", "card": name, **own, "at": at}, separators=(",", ":")))
        tensor = {"name": "X", "shape": [1, 20], "datatype": "FP32", "data": [round(float(v), 6) for v in rng.normal(size=20)]}
        tensors.append(json.dumps({"id": "@", "inputs": [tensor]}, separators=(",", ":")))
    found = {"events": folder / "events", "tensors": folder / "tensors"}
    for name, lines in zip(found, (events, tensors), strict=True):
        found[name].write_text("\n".join(lines) + "\n")
    return found


CASES: Final[dict[str, tuple[str, str, int, str]]] = {
    "predict": ("events", "/predict/m", 1, ""),
    "predict, list": ("events", "/predict/m", LIST, ""),
    "traced": ("events", "/predict/m", 1, "1"),
    "publish": ("events", "/events/cards", 1, ""),
    "tensors": ("tensors", "/v2/models/m/infer", 1, ""),
}


def turn(server: Server, case: str, found: dict[str, Path], script: Path, seconds: float, number: int) -> dict[str, float]:
    kind, where, size, trace = CASES[case]
    before = server.cpu
    env = {
        "BODIES": str(found[kind]),
        "WHERE": where,
        "LIST": str(size),
        "RUN": f"r{number}-",
        **({"TRACE": "1"} if trace else {}),
    }
    connections = CONNECTIONS if size == 1 else FEW
    wrk = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "10s", "--latency", "-s", str(script), server.url]
    said = subprocess.run(wrk, capture_output=True, text=True, timeout=seconds + 30, check=True, env={**os.environ, **env}).stdout
    result = {k: float(v) for k, v in (p.split("=") for p in re.findall(r"\w+=[\d.]+", said.partition("RESULT")[2]))}
    if result["bad"]:
        raise RuntimeError(f"{case}: {result['bad']:.0f} of {result['n']:.0f} requests were answered wrongly")
    result["per_cpu_second"] = result["n"] / max(server.cpu - before, 0.01)
    return result


class _Collector(BaseHTTPRequestHandler):
    """Takes spans, and forgets them."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


def run(quick: bool) -> Iterator[Figure]:
    if shutil.which("wrk") is None:
        raise RuntimeError("there is no wrk here: apt-get install wrk")
    rounds, seconds, chance = (1, 1.0, Random(0)) if quick else (5, 3.0, Random(0))
    os.sched_setaffinity(0, {1})  # and so of all that is started here, but the gateway
    collector = ThreadingHTTPServer((ports.LOOPBACK, 0), _Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as name:
        folder, script = Path(name), Path(name) / "post.lua"
        script.write_text(SCRIPT)
        found = bodies(folder)
        with LocalKafka(folder / "kafka") as kafka, LocalRedis(folder / "redis") as redis:
            asyncio.run(fill(redis.url))
            asyncio.run(begin(kafka.bootstrap, folder / "data" / "models"))
            port = ports.free()
            os.environ |= {
                "PENSTOCK_PROJECT": "tests.benchmarks.bench_gateway", "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
                "REDIS_URL": redis.url, "PENSTOCK_DATA": str(folder / "data"), "PENSTOCK_HTTP_PORT": str(port),
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{ports.LOOPBACK}:{collector.server_port}", "PENSTOCK_TRACE_SAMPLE": "0",
            }  # fmt: skip
            server = Server("gateway", [sys.executable, "-m", "penstock.services", "inference"], port, folder / "gateway.log")
            try:
                taken: dict[str, list[dict[str, float]]] = {case: [] for case in CASES}
                number = 0
                for lap in range(rounds + 1):  # the first is not counted
                    for case in chance.sample(list(CASES), len(CASES)):
                        number += 1
                        took = turn(server, case, found, script, seconds, number)
                        if lap:
                            taken[case].append(took)
                memory = server.memory
            except BaseException:
                print((folder / "gateway.log").read_text()[-2000:], file=sys.stderr)
                raise
            finally:
                server.end()
                collector.shutdown()
    middle = {case: {k: statistics.median(t[k] for t in laps) for k in laps[0]} for case, laps in taken.items()}
    floor = {"tensors, unrecorded": middle["tensors"]["rate"]}
    one, listed = middle["predict"], middle["predict, list"]["rate"] * LIST
    yield Figure(
        name="predict, 64 connections", unit="req/s", better="higher", ours=one["rate"], beside=floor, goal=5_000, detail=middle
    )
    yield Figure(
        name="predict, per CPU second", unit="req/s", better="higher", ours=one["per_cpu_second"],
        beside={"tensors, unrecorded": middle["tensors"]["per_cpu_second"]}, goal=5_000,
    )  # fmt: skip
    yield Figure(name="predict, p99", unit="ms", better="lower", ours=one["p99"] / 1e3)
    yield Figure(
        name=f"predict, lists of {LIST}, {FEW} connections", unit="rows/s", better="higher", ours=listed,
        beside={"one by one": one["rate"]},
    )  # fmt: skip
    yield Figure(
        name="predict, 1 % traced", unit="req/s", better="higher", ours=middle["traced"]["per_cpu_second"],
        beside={"none traced": one["per_cpu_second"]}, goal_ratio=0.9,
    )  # fmt: skip
    yield Figure(name="publish, 64 connections", unit="req/s", better="higher", ours=middle["publish"]["rate"], beside=floor)
    yield Figure(name="memory after all", unit="MB", better="lower", ours=memory, goal=150.0)


if __name__ == "__main__":
    began = time.monotonic()
    for figure in run("--quick" in sys.argv):
        print(figure.name, round(figure.ours, 1), figure.unit, figure.beside, figure.detail)
    print(f"{time.monotonic() - began:.0f} s")
