"""A shop whose late payments are predicted: its project, a history of it, and monitoring run over that history on the log in
memory, whole, in pieces, or killed at chosen moments."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import msgspec

import penstock as ps
from penstock.artefact import Artefacts
from penstock.duration import DAY, HOUR, MINUTE
from penstock.event import from_micros, to_micros
from penstock.log import Headers, Partition, Send, partition_of
from penstock.log.memory import MemoryLog
from penstock.records import Alarm, Artefact, Candidate, Clock, Cohort, Decision, Outcome, Partial, Prediction, Statistic
from penstock.runtime.deadletter import cause_of
from penstock.runtime.lane import FROM, SEQUENCE, Lane
from penstock.segment import Segment
from penstock.services.monitoring.service import lanes
from penstock.store import Change
from penstock.store.memory import MemoryStore
from penstock.topics import Topics


@ps.event("orders")
class Order:
    order_id: ps.Id[str]
    shop: ps.Key[str]
    amount: float
    weight: float | None
    at: ps.EventTime
    region: str | None
    age: float | None


REGION, AGE = ps.segment(Order.region), ps.segment(Order.age, edges=(30, 60))


@ps.event("paid")
class Paid:
    order_id: ps.Key[str]
    late: bool
    at: ps.EventTime


def declared(otherwise: bool | None, every: str = "12h", explain: float = 0.0, segments: Sequence[Segment] = ()) -> ps.Project:
    @ps.model(
        scores=Order,
        features=[Order.amount, Order.weight],
        label=ps.label(Paid.late, within="6h", otherwise=otherwise),
        monitors=[ps.drift(every="1d", false_alarms_per_month=5), ps.skill(0.0, over="2d", every=every, least=20)],
        explain=explain,
        segments=segments,
    )
    def late() -> ps.Learner:
        raise NotImplementedError

    return ps.Project("shop", [late])


WITHIN = 6 * HOUR
LENGTH = 12 * HOUR
START = to_micros(datetime(2026, 3, 1, 7, tzinfo=UTC))
END = START + 9 * DAY
EDGES = {"Order.amount": [10.0, 20.0, 30.0], "Order.weight": [1.0]}
REFERENCE = {"Order.amount": [250, 250, 250, 250, 0], "Order.weight": [400, 400, 200]}


FATES = ["in time"] * 6 + ["early", "repeated", "corrected", "late", "never", "on the dot", "twice early"]


@dataclass
class World:
    """A history: who answered what, which labels came, in order of time."""

    predictions: list[Prediction] = field(default_factory=list)
    labels: list[tuple[int, str, bool]] = field(default_factory=list)


def world(n: int = 300, seed: int = 1) -> World:
    """Orders over four days, every fate that a label can have, two changes of version; half of all times are tied."""
    rng = random.Random(seed)
    made = World()
    minute = 0
    for i in range(n):
        minute += rng.choice([0, 0, 5, 30, 60])
        if i == n // 2:
            minute += 2 * 24 * 60  # nothing for two days: windows without anything
        time = START + minute * MINUTE
        name = f"o{i}"
        version = "none" if i < n // 10 else "v1" if i < n // 2 else "v2"
        scores = {v: round(rng.random(), 3) for v in ("v1", "v2") if version != "none"}
        weight = None if rng.random() < 0.2 else round(rng.uniform(0, 2), 2)
        inputs = {"Order.amount": round(rng.uniform(0, 40), 2), "Order.weight": weight}
        made.predictions.append(prediction(name, f"s{rng.randrange(7)}", time, scores, version, inputs))
        truth = rng.random() < 0.4
        fate = rng.choice(FATES)
        delay = {"late": WITHIN + MINUTE, "on the dot": WITHIN, "early": -30 * MINUTE, "twice early": -20 * MINUTE}.get(
            fate, rng.randrange(WITHIN // MINUTE) * MINUTE
        )
        if fate != "never":
            made.labels.append((time + delay, name, truth))
        if fate in ("repeated", "corrected", "twice early"):
            made.labels.append((time + delay + 7 * MINUTE, name, truth if fate == "repeated" else not truth))
        if rng.random() < 0.05:
            made.labels.append((time, f"unknown{i}", truth))
    made.labels.sort(key=lambda label: (label[0], label[1]))
    return made


def prediction(name: str, shop: str, time: int, scores: dict[str, float], version: str, inputs: dict[str, Any]) -> Prediction:
    known = version != "none"
    return Prediction(
        id=name, key=shop, model="late", time=from_micros(time), inputs=msgspec.Raw(msgspec.json.encode(inputs)),
        score=scores[version] if known else 0.5, scores=scores, weights={version: 1.0} if known else {}, bucket=7,
        version=version, variant="champion" if known else "none", digest="abc" if known else "", latency=0.001 * (1 + len(name)),
    )  # fmt: skip


def decision(version: str, edges: dict[str, list[float]], reference: dict[str, list[int]], model: str = "late") -> bytes:
    candidate = Candidate(
        id=version, model=model, version=version, kind="full", at=from_micros(START),
        artefact=Artefact(uri="", sha256="", size=0, format="onnx"), inputs=list(edges),
        weights={}, edges=edges, reference=reference, metrics={}, run="", fingerprint="",
        grid={"score": [0.5, 2.0**-10]} | {name: [10.0, 2.0**-7] for name in edges}, scores=[0.25, 0.5, 0.75],
    )  # fmt: skip
    return msgspec.json.encode(
        Decision(
            id=version, model=model, kind="champion", version=version, at=from_micros(START), actor="", reason="",
            share=1.0, expected="", evidence={}, candidate=candidate,
        )
    )  # fmt: skip


# --- running it -------------------------------------------------------------------------------------------------------


class Crash(Exception):
    """Kills the process of a test at a chosen point."""


class Fragile:
    """Counts the moments at which a process may die, and dies at those chosen."""

    def __init__(self, at: Container[int]) -> None:
        self.at, self.passed = at, 0

    def __call__(self) -> None:
        self.passed += 1
        if self.passed - 1 in self.at:
            raise Crash


class FragileLog(MemoryLog):
    fragile = staticmethod(lambda: None)

    async def send(self, records: Sequence[Send]) -> dict[Partition, int]:
        self.fragile()
        half = len(records) // 2
        await super().send(records[:half])
        self.fragile()
        ends = await super().send(records[half:])
        self.fragile()
        return ends


class FragileStore(MemoryStore):
    fragile = staticmethod(lambda: None)

    async def write(self, shard: str, seen: int, change: Change) -> int:
        self.fragile()
        version = await super().write(shard, seen, change)
        self.fragile()
        return version


@dataclass
class Result:
    outcomes: dict[tuple[str, bool | None], bytes]
    statistics: list[bytes]
    alarms: list[bytes]
    dead: int = 0
    passed: int = 0
    cohorts: list[bytes] = field(default_factory=list)
    dead_labels: list[dict[str, str]] = field(default_factory=list)
    """Their causes."""

    @property
    def restated(self) -> list[Cohort]:
        return [msgspec.json.decode(value, type=Cohort) for value in self.cohorts]

    @property
    def windows(self) -> list[Statistic]:
        return [msgspec.json.decode(value, type=Statistic) for value in self.statistics]

    @property
    def settled(self) -> dict[tuple[str, bool | None], Outcome]:
        return {key: msgspec.json.decode(value, type=Outcome) for key, value in self.outcomes.items()}

    @property
    def counts(self) -> Counter[str]:
        """All windows together."""
        return sum((Counter(window.counts) for window in self.windows), Counter())

    @property
    def signals(self) -> set[str]:
        return {msgspec.json.decode(value, type=Alarm).signal for value in self.alarms}

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Result)
        mine = (self.outcomes, self.statistics, self.alarms, self.cohorts)
        return mine == (other.outcomes, other.statistics, other.alarms, other.cohorts)


def run(
    made: World,
    partitions: int = 1,
    seed: int | None = None,
    die_at: Container[int] = (),
    otherwise: bool | None = False,
    max_records: int = 4096,
    extra: Sequence[Send] = (),
    sizes: Sequence[int] = (1, 3, 40),
    explain: float = 0.0,
    explained: Mapping[str, bytes] = MappingProxyType({}),
    artefacts: Artefacts | None = None,
    segments: Sequence[Segment] = (),
) -> Result:
    """Publish a history (with a seed: in pieces, in any order that keeps each source's own) and read what comes out. `explained`
    are decisions in place of those that name no artefact."""

    async def go() -> Result:
        project = declared(otherwise, explain=explain, segments=segments)
        topics = Topics(project, partitions)
        log, store, fragile = FragileLog(), FragileStore(), Fragile(die_at)
        await log.create(topics.all())
        log_send = MemoryLog.send

        def start() -> list[Lane]:
            made = lanes(project, topics, log, store, artefacts=artefacts)
            for lane in made:
                lane.max_records = max_records
            return made

        running = start()

        async def settle() -> None:
            nonlocal running
            log.fragile = store.fragile = fragile
            moved = True
            while moved:
                try:
                    moved = False
                    for lane in running:
                        moved |= await lane.turn(0)
                except Crash:
                    moved = True
                    log._groups.clear()
                    running = start()
            log.fragile = store.fragile = lambda: None

        known = {version: explained.get(version) or decision(version, EDGES, REFERENCE) for version in ("v1", "v2")}
        await log_send(log, [Send(topics.models, b"late/v1", known["v1"]), *extra])
        await log_send(log, [Send(topics.models, b"late/v2", known["v2"])])
        rng = random.Random(seed)
        queues = sources(made, topics, rng)
        while any(queues.values()):
            if seed is None:
                name = next(name for name, queue in queues.items() if queue)
                size = len(queues[name])
            else:
                name = rng.choice([name for name, queue in queues.items() if queue])
                size = rng.choice(sizes)
            batch, queues[name] = queues[name][:size], queues[name][size:]
            await log_send(log, batch)
            if seed is not None and rng.random() < 0.3:
                waiting = [send for queue in queues.values() for send in queue if AGAIN not in send.headers]
                before = min(map(moment_of, waiting), default=END)
                await close(log, topics, before)
                await settle()
        await close(log, topics, END)
        await settle()
        return await read(log, topics, fragile.passed)

    return asyncio.run(go())


AGAIN = ("again", b"1")


def sources(made: World, topics: Topics, rng: random.Random) -> dict[str, list[Send]]:
    """What each writer sends, in its order: users their labels, in order of time; every shard of inference its answers,
    numbered, some sent twice, and shuffled within hours, as rows come from many partitions."""
    queues: dict[str, list[Send]] = {}
    for p in sorted(made.predictions, key=lambda p: (to_micros(p.time) // (3 * HOUR), rng.random())):
        writer = f"inference.{partition_of(p.key.encode(), topics.partitions)}"
        queue = queues.setdefault(writer, [])
        sequence = sum(AGAIN not in send.headers for send in queue)
        headers: Headers = ((FROM, writer.encode()), (SEQUENCE, b"%d" % sequence))
        queue.append(Send(topics.predictions("late"), p.id.encode(), msgspec.json.encode(p), headers))
        if rng.random() < 0.1:  # a crash: the outbox is published again
            queue += [send._replace(headers=(AGAIN, *send.headers[-2:])) for send in queue[-rng.randrange(1, 5) :]]
    for moment, name, label in made.labels:
        value = msgspec.json.encode({"order_id": name, "late": label, "at": from_micros(moment)})
        part = f"labels.{partition_of(name.encode(), topics.partitions)}"
        queues.setdefault(part, []).append(Send("paid", name.encode(), value))
    return queues


def moment_of(send: Send) -> int:
    said = msgspec.json.decode(send.value or b"")
    return to_micros(datetime.fromisoformat(said.get("at") or said["time"]))


async def close(log: MemoryLog, topics: Topics, before: int) -> None:
    """Everybody says that everything before a time is out."""
    said = []
    for topic, publishers in (
        ("paid", ["users"]),
        (topics.predictions("late"), [f"inference.{q}" for q in range(topics.partitions)]),
    ):
        ends = {topic: {p.number: end for p, end in (await log.ends([topic])).items()}}
        for publisher in publishers:
            clock = Clock(publisher=publisher, before=before, ends=ends)
            said.append(Send(topics.clock, publisher.encode(), msgspec.json.encode(clock)))
    await MemoryLog.send(log, said)


async def read(log: MemoryLog, topics: Topics, passed: int) -> Result:
    """What came out. A record that was published again has the same bytes under the same number."""
    seen: dict[tuple[bytes, bytes], bytes | None] = {}

    async def values(topic: str) -> list[Any]:
        found = []
        for partition in await log.ends([topic]):
            store = log._stores[partition]
            for value, headers in zip(store.values, store.headers, strict=True):
                named = {name: text for name, text in headers if name.startswith(("ce_", "dlq."))}
                number = (named.get("dlq.topic", named.get(FROM, b"")), named.get("dlq.offset", named.get(SEQUENCE, b"")))
                if number not in seen:
                    found.append(value)
                assert seen.setdefault(number, value) == value
        return found

    outcomes: dict[tuple[str, bool | None], bytes] = {}
    for value in await values(topics.outcomes("late")):
        outcome = msgspec.json.decode(value, type=Outcome)
        assert (outcome.id, outcome.corrects) not in outcomes, f"{outcome.id} came out twice"
        outcomes[outcome.id, outcome.corrects] = value
    partials = [msgspec.json.decode(v, type=Partial) for v in await values(topics.partials)]
    reports = Counter((p.shard, p.start, p.part) for p in partials if p.start < p.end)
    assert max(reports.values(), default=1) == 1, "a shard reported a window twice"
    dead = await values(topics.dead_letters(topics.predictions("late")))
    statistics, alarms, cohorts = [await values(t) for t in (topics.statistics("late"), topics.alarms, topics.cohorts("late"))]
    labels = [cause_of(headers) for p in await log.ends([topics.dead_letters("paid")]) for headers in log._stores[p].headers]
    return Result(outcomes, statistics, alarms, len(dead), passed, cohorts, labels)


WORLD = world()
WHOLE = run(WORLD)
