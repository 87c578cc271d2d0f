"""The project, versions and doors that the tests of inference share: flights that leave, and two models of them."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
from fastapi import FastAPI

import penstock as ps
from penstock.artefact import Artefacts
from penstock.event import Event, event_of
from penstock.inputs import squashed
from penstock.log import Batch, Headers, Partition, Send
from penstock.log.memory import MemoryLog
from penstock.online.readings import Readings
from penstock.records import Artefact, Candidate, Decision, Prediction, Row
from penstock.runtime.lane import FROM, SEQUENCE, Effects
from penstock.services.inference.gateway.api import gateway
from penstock.services.inference.meters import Meters
from penstock.services.inference.sessions import Sessions
from penstock.services.inference.shard import ScoringShard
from penstock.snapshot import dump_river
from penstock.store import Saved
from penstock.topics import Topics


@ps.event("flights")
class Flight:
    flight: ps.Id[str]
    origin: ps.Key[str]
    distance: float
    seats: int | None
    night: bool
    at: ps.EventTime


@ps.event("arrivals")
class Arrival:
    flight: ps.Key[str]
    late: bool
    at: ps.EventTime


@ps.features(by=Flight.origin)
class Origin:
    flights_1h = ps.count(Flight, over="1h")
    mean_distance = ps.mean(Flight.distance, over="30d")


LABEL = ps.label(Arrival.late, within="48h")


@ps.model(scores=Flight, features=[Origin, Flight.distance, Flight.night, Flight.seats], label=LABEL)
def late() -> ps.Learner:
    raise NotImplementedError


@ps.model(scores=Flight, features=[Flight.distance], label=LABEL)
def long() -> ps.Learner:
    raise NotImplementedError


PROJECT = ps.Project("air", [late, long])
TOPICS = Topics(PROJECT, 1)
ROWS = Partition(TOPICS.rows(event_of(Flight)), 0)
MODELS, CLOCK = Partition(TOPICS.models, 0), Partition(TOPICS.clock, 0)
START = datetime(2024, 1, 1, tzinfo=UTC)


# --- versions ---------------------------------------------------------------------------------------------------------


def fitted(width: int, seed: int) -> tuple[Any, bytes]:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.ensemble import HistGradientBoostingClassifier

    drawn = np.random.default_rng(seed)
    inputs = drawn.normal(size=(400, width)).astype(np.float32) * 100
    inputs[drawn.random(inputs.shape) < 0.1] = np.nan
    labels = np.nan_to_num(inputs[:, 0]) + drawn.normal(size=400) * 50 > 0
    model = HistGradientBoostingClassifier(max_iter=8, random_state=seed).fit(inputs, labels)
    exported = to_onnx(
        model, initial_types=[("X", FloatTensorType([None, width]))], options={id(model): {"zipmap": False}},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )  # fmt: skip
    return model, exported.SerializeToString()


def learnt(names: Sequence[str], seed: int = 0) -> Any:
    from river import compose, linear_model, optim, preprocessing

    model = compose.Pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression(optimizer=optim.SGD(0.05)))
    drawn = random.Random(seed)
    for _ in range(200):
        x = {name: drawn.gauss(0, 2) for name in names}
        model.learn_one(x, x[names[0]] > 0)
    return model


class World:
    """Artefacts fitted once for all tests, and the decisions about them."""

    def __init__(self, folder: Path) -> None:
        self.artefacts = Artefacts(folder)
        self.models: dict[str, Any] = {}
        self.stored: dict[str, Artefact] = {}
        for seed, version in enumerate(("v1", "v2", "v3")):
            self.models[version], data = fitted(len(late.inputs), seed)
            self.stored[version] = self.artefacts.put(data, "onnx")
        self.models["online-1"] = learnt(late.inputs)
        self.stored["online-1"] = self.artefacts.put(dump_river(self.models["online-1"]), "river")

    def decision(self, version: str, kind: str = "champion", share: float = 1.0, **fields: Any) -> Decision:
        candidate = Candidate(
            id=f"c-{version}", model=fields.get("model", "late"), version=version, kind="full", at=START,
            artefact=fields.get("artefact") or self.stored[version], inputs=list(fields.get("inputs", late.inputs)),
            weights=fields.get("weights", {}), edges={}, reference={}, metrics={}, run="r", fingerprint="f",
        )  # fmt: skip
        return Decision(
            id=f"{kind}-{version}", model=candidate.model, kind=kind, version=version, at=START, actor="registry",
            reason="", share=share, expected="", evidence={}, candidate=candidate,
        )  # fmt: skip

    def said(self, alias: str, version: str | None, kind: str = "champion", share: float = 1.0, **fields: Any) -> Send:
        value = None if version is None else msgspec.json.encode(self.decision(version, kind, share, **fields))
        return Send(TOPICS.models, f"{fields.get('model', 'late')}/{alias}".encode(), value)

    def answer(self, version: str, values: Sequence[float | None]) -> float:
        """What a version answers for values of its inputs, by the library that fitted it."""
        matrix = np.array([[np.nan if v is None else float(v) for v in values]], np.float32)
        if version.startswith("online"):
            x = dict(zip(late.inputs, squashed(matrix)[0].tolist(), strict=True))
            return float(self.models[version].predict_proba_one(x)[True])
        return float(self.models[version].predict_proba(matrix)[0, 1])

    def expected(self, version: str, sent: Send) -> float:
        """The same for a row as it was sent."""
        row = msgspec.json.decode(sent.value or b"", type=Row)
        event, features = json.loads(bytes(row.event)), json.loads(bytes(row.features))
        return self.answer(version, [features[n] if n in features else event.get(n.partition(".")[2]) for n in late.inputs])


# --- the stream -------------------------------------------------------------------------------------------------------


def flight(n: int, **changes: Any) -> Send:
    """A finished row as the feature store publishes it."""
    drawn = random.Random(n)
    event: dict[str, Any] = {
        "flight": f"f{n}", "origin": f"o{n % 40}", "distance": round(drawn.uniform(-300, 300), 1),
        "night": drawn.random() < 0.5, "at": (START + timedelta(minutes=n)).isoformat(), "unknown": {"x": [1]},
    }  # fmt: skip
    if n % 3:
        event["seats"] = drawn.choice([None, drawn.randrange(400)])
    features = {
        "Origin.mean_distance": None if n % 5 == 0 else drawn.uniform(-99, 99),
        "Origin.flights_1h": float(n % 7),
    }
    row = Row(
        id=f"f{n}", time=START + timedelta(minutes=n), event=msgspec.Raw(msgspec.json.encode(event | changes)),
        features=msgspec.Raw(msgspec.json.encode(features)), cursor={"source": [0, n]},
    )  # fmt: skip
    headers: Headers = ((FROM, b"feature_store.0"), (SEQUENCE, b"%d" % n))
    if n % 10 == 0:
        headers = (("traceparent", b"00-%032x-%016x-01" % (n + 1, n + 1)), *headers)
    return Send(ROWS.topic, event["origin"].encode(), msgspec.json.encode(row), headers)


def batch(partition: Partition, first: int, sends: Sequence[Send]) -> Batch:
    return Batch(
        partition, range(first, first + len(sends)), [s.key for s in sends], [s.value for s in sends],
        [s.headers for s in sends],
    )  # fmt: skip


def answers(sends: Sequence[Send], model: str = "late") -> list[Prediction]:
    found = [s for s in sends if s.topic == TOPICS.predictions(model)]
    return [msgspec.json.decode(s.value or b"", type=Prediction) for s in found]


class Driven:
    """A shard driven by hand, with a store that is written at once."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.saved = Saved()
        self.sent: list[Send] = []
        self.closed: list[int] = []
        self.counts = {ROWS: 0, MODELS: 0, CLOCK: 0}
        self.open()

    def open(self) -> dict[Partition, int]:
        self.meters = Meters()
        self.shard = ScoringShard(TOPICS, 0, Sessions(self.world.artefacts, self.meters), self.meters, ["feature_store.0"])
        return dict(self.shard.open(self.saved))

    def take(self, *sends: Send, now: float = 0.0) -> list[Send]:
        """One turn with new records, in the order in which a lane hands them over."""
        batches = []
        for partition in (MODELS, CLOCK, ROWS):
            if mine := [s for s in sends if s.topic == partition.topic]:
                batches.append(batch(partition, self.counts[partition], mine))
                self.counts[partition] += len(mine)
        self.shard.take(batches, now)
        effects = self.shard.step([])
        return [] if effects is None else self.write(effects)

    def write(self, effects: Effects) -> list[Send]:
        table = {**self.saved.table}
        for key, value in effects.change.table.items():
            table.pop(key, None)
            if value is not None:
                table[key] = value
        self.saved = Saved(self.saved.version + 1, effects.change.position, b"", table)
        self.sent += effects.sends
        if effects.closed is not None:
            self.closed.append(effects.closed)
        return effects.sends


# --- HTTP -------------------------------------------------------------------------------------------------------------

EVENT = {"flight": "f1", "origin": "JFK", "distance": 100.5, "seats": 200, "night": True, "at": "2024-01-01T00:00:00Z"}


class WatchedLog(MemoryLog):
    """Remembers what was sent, and fails to record answers when there is `trouble`."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Send] = []
        self.trouble: Exception | None = None

    async def send(self, records: Sequence[Send]) -> dict[Partition, int]:
        if self.trouble is not None:
            raise self.trouble
        self.sent += records
        return await super().send(records)


class Door:
    """A gateway on the log in memory, with what stands around it under the test's control."""

    def __init__(self, world: World) -> None:
        self.world, self.log, self.meters = world, WatchedLog(), Meters()
        self.said = world.said
        self.sessions = Sessions(world.artefacts, self.meters)
        self.looked: list[Any] = []
        self.trouble: Exception | None = None

    async def look(self, event: Event, decoded: Sequence[Any]) -> Readings:
        if self.trouble is not None:
            raise self.trouble
        self.looked += [(event.topic, one.origin) for one in decoded]
        n, columns = len(decoded), ("Origin.flights_1h", "Origin.mean_distance")
        never = np.zeros((n, 1), np.int64)
        return Readings(columns, np.array([[3.0, np.nan]] * n), ("Origin",), never.astype(np.int8), never, never)

    @property
    def recorded(self) -> list[Send]:
        return [record for record in self.log.sent if record.topic == TOPICS.predictions("late")]

    def app(self, **options: Any) -> FastAPI:
        return gateway(TOPICS, self.log, self.sessions, self.meters, self.look, **options)

    @asynccontextmanager
    async def opened(self, *decisions: Send, app: FastAPI | None = None) -> AsyncIterator[httpx.AsyncClient]:
        await self.log.create(TOPICS.all())
        await self.log.send(decisions)
        async with talking(app or self.app()) as client:
            yield client

    def run(self, talk: Callable[[httpx.AsyncClient], Awaitable[None]], *decisions: Send) -> None:
        async def whole() -> None:
            async with self.opened(*decisions) as client:
                await talk(client)

        asyncio.run(whole())


@asynccontextmanager
async def talking(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a started application that is ready."""
    async with app.router.lifespan_context(app), client_of(app) as client:
        for _ in range(1000):
            if (await client.get("/readyz")).status_code == 200:
                break
            await asyncio.sleep(0)
        yield client


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://penstock")


def said_wrong(answer: httpx.Response) -> str:
    """The one sentence of a refusal."""
    body = answer.json()
    assert set(body) == {"error"}, body
    sentence = body["error"]
    assert sentence
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    assert 'File "' not in sentence
    return str(sentence)
