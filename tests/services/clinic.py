"""A clinic whose readmissions are predicted, and its answers reviewed: the project, its answers, and what people say of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

import penstock as ps
from penstock.log import Partition, Send
from penstock.log.memory import MemoryLog
from penstock.records import Flag, Prediction, Queued, Review, Reviewed
from penstock.topics import Topics

START = datetime(2026, 3, 1, tzinfo=UTC)


@ps.event("discharges")
class Discharge:
    stay_id: ps.Id[str]
    ward: ps.Key[str]
    age: float
    pulse: float | None
    left_at: ps.EventTime


@ps.event("returns")
class Return:
    stay_id: ps.Key[str]
    returned: bool
    reporter: str | None
    reported_at: ps.EventTime


SOURCES = ps.sources(Return.reporter, {"registry": 1, "reviewers": 0.5})


def clinic(partitions: int = 1, sources: Any = SOURCES, **review: Any) -> Topics:
    """Everything uncertain is asked about, of one reviewer, unless said otherwise."""

    @ps.model(
        scores=Discharge,
        features=[Discharge.age, Discharge.pulse],
        label=ps.label(Return.returned, within="30d", sources=sources),
        review=ps.review(**{"sample": 1.0, "pairs": 0.0, **review}),
    )
    def readmission() -> ps.Learner:
        raise NotImplementedError

    return Topics(ps.Project("clinic", [readmission]), partitions)


def answer(name: str, score: float = 0.5, hours: float = 0.0, pulse: float | None = 70.0) -> Prediction:
    inputs = msgspec.Raw(msgspec.json.encode({"Discharge.age": 60.0, "Discharge.pulse": pulse}))
    return Prediction(
        id=name, key="w", model="readmission", time=START + timedelta(hours=hours), inputs=inputs, score=score,
        scores={"v1": score}, weights={"v1": 1.0}, version="v1", variant="champion", digest="abc", bucket=7, latency=0.0,
    )  # fmt: skip


def flag(name: str, by: str = "ann", says: bool | None = None, why: str = "", hours: float = 1.0) -> Flag:
    at = START + timedelta(hours=hours)
    return Flag(prediction=name, model="readmission", by=by, at=at, says=says, why=why)


def review(name: str, by: str = "ada", says: bool = True, hours: float = 2.0) -> Review:
    return Review(prediction=name, model="readmission", by=by, at=START + timedelta(hours=hours), says=says)


def sent(topics: Topics, said: Prediction | Flag | Review) -> Send:
    """As whoever writes it does."""
    topic = {Prediction: topics.predictions("readmission"), Flag: topics.flags, Review: topics.reviews}[type(said)]
    name = said.id if isinstance(said, Prediction) else said.prediction
    return Send(topic, name.encode(), msgspec.json.encode(said))


def values(log: MemoryLog, topic: str, partitions: int = 1) -> list[bytes | None]:
    return [value for number in range(partitions) for value in log._stores[Partition(topic, number)].values]


def reviewed(log: MemoryLog, topics: Topics) -> list[Reviewed]:
    return [msgspec.json.decode(v or b"", type=Reviewed) for v in values(log, topics.reviewed, topics.partitions)]


def labels(log: MemoryLog, topics: Topics) -> list[dict[str, Any]]:
    return [msgspec.json.decode(v or b"") for v in values(log, "returns", topics.partitions)]


def queue(log: MemoryLog, topics: Topics) -> dict[str, Queued]:
    """What waits, by id, in the order in which it was last written."""
    found: dict[str, Queued] = {}
    for number in range(topics.partitions):
        store = log._stores[Partition(topics.queue, number)]
        for key, value in zip(store.keys, store.values, strict=True):
            name = (key or b"").decode().partition("/")[0]
            found.pop(name, None)
            if value is not None:
                found[name] = msgspec.json.decode(value, type=Queued)
    return found
