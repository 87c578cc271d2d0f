"""Parcels: how many hours each will take, and by which door it comes in: a label that is a number, and one of three classes."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

import penstock as ps
from penstock.event import to_micros
from penstock.log import Send, partition_of
from penstock.log.memory import MemoryLog
from penstock.publish import FOREVER
from penstock.records import Clock, Cohort, Decision, Prediction, Statistic
from penstock.runtime.lane import FROM, SEQUENCE
from penstock.services.embedded import Embedded, Event, slices
from penstock.services.monitoring.service import lanes
from penstock.store.memory import MemoryStore
from penstock.topics import Topics

START = datetime(2026, 3, 2, tzinfo=UTC)
DOORS = ("front", "back", "gate")


@ps.event("sent")
class Sent:
    parcel: ps.Id[str]
    depot: ps.Key[str]
    distance: float
    weight: float | None
    sent_at: ps.EventTime


@ps.event("delivered")
class Delivered:
    parcel: ps.Key[str]
    hours: float | None
    door: str
    at: ps.EventTime


@ps.features(by=Sent.depot)
class Depot:
    parcels_24h = ps.count(Sent, over="24h")


POLICY: dict[str, Any] = {
    "scores": Sent,
    "features": [Sent.distance, Sent.weight, Depot],
    "monitors": [ps.skill(floor=0.0, over="3d", every="1d", least=50), ps.fairness(Sent.depot, gap=0.1)],
    "explain": 0.3,
    "retrain": ps.every("4d", first="4d"),
    "rollout": [ps.shadow("1d")],
}


@ps.model(label=ps.label(Delivered.hours, within="36h"), gates=[ps.no_worse(by=0.5, least=50)], **POLICY)  # type: ignore[arg-type]  # may be blank
def hours() -> ps.Learner:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return ps.Learner(batch=HistGradientBoostingRegressor(max_iter=30, early_stopping=False))


@ps.model(label=ps.label(Delivered.hours, within="36h", quantile=0.9), gates=[ps.no_worse(by=0.5, least=50)], **POLICY)  # type: ignore[arg-type]
def at_most() -> ps.Learner:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return ps.Learner(batch=HistGradientBoostingRegressor(loss="quantile", quantile=0.9, max_iter=30, early_stopping=False))


@ps.model(label=ps.label(Delivered.door, within="36h", classes=DOORS), gates=[ps.no_worse(by=0.05, least=50)], **POLICY)
def door() -> ps.Learner:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return ps.Learner(batch=make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()))


project = ps.Project("parcels", [hours, at_most, door])


def history(days: int = 14, a_day: int = 120, seed: int = 0) -> list[Event]:
    """Hours grow with distance, the door follows from distance and weight; one in twenty never arrives. Of the depot d2 hours
    vary more, and three of ten doors are anyone's."""
    rng, own, found = random.Random(seed), random.Random(seed + 1), list[tuple[datetime, str, dict[str, Any]]]()
    for number in range(days * a_day):
        at, name = START + timedelta(days=number / a_day), f"p{number:05}"
        distance, weight = rng.uniform(1, 50), rng.uniform(0, 10)
        took = 1.0 + 0.3 * distance + rng.gauss(0, 1)
        chosen = "gate" if weight > 7 else "front" if distance + rng.gauss(0, 5) < 25 else "back"
        if number % 3 == 2:
            took += own.gauss(0, 1.3)
            chosen = own.choice(DOORS) if own.random() < 0.3 else chosen
        found.append((at, "sent", {
            "parcel": name, "depot": f"d{number % 3}", "distance": distance,
            "weight": None if number % 10 == 0 else weight, "sent_at": at,
        }))  # fmt: skip
        if rng.random() > 0.05:
            came = at + timedelta(hours=max(took, 0.1))
            found.append((came, "delivered", {"parcel": name, "hours": took, "door": chosen, "at": came}))
    return lines(found)


def lines(said: Sequence[tuple[datetime, str, dict[str, Any]]]) -> list[Event]:
    """In order of time, as they are published."""
    key = {"sent": "depot", "delivered": "parcel"}
    ordered = sorted(said, key=lambda each: each[0])
    return [(topic, each[key[topic]].encode(), msgspec.json.encode(each), to_micros(at)) for at, topic, each in ordered]


def delivered(events: Sequence[Event], folder: Path, partitions: int = 1, project: ps.Project = project) -> Embedded:
    """The services after all of it, day by day, so that a version that was fitted answers what comes later."""
    embedded = Embedded(project, folder, partitions, tables=folder / "tables")

    async def run() -> None:
        await embedded.start()
        for some, before in slices(events, 6 * 3_600_000_000):
            await embedded.publish(some, before)
            await embedded.settle()
        assert embedded.archive is not None
        await embedded.archive.flush()
        await embedded.close()

    asyncio.run(run())
    return embedded


def records(embedded: Embedded, topic: str, kind: type[Any]) -> list[Any]:
    """What lies in a topic, over all its partitions."""
    return asyncio.run(_read(embedded.log, topic, kind))


async def _read(log: MemoryLog, topic: str, kind: type[Any]) -> list[Any]:
    found = []
    reader = await log.reader(dict.fromkeys(await log.ends([topic]), 0))
    while batches := await reader.read(10_000, 0.0):
        for batch in batches:
            found += [msgspec.json.decode(value, type=kind) for value in batch.values if value is not None]
    return found


def monitored(
    decisions: Sequence[Decision], answers: Sequence[Prediction], events: Sequence[Event], partitions: int, seed: int
) -> dict[str, list[Any]]:
    """Statistics and cohorts by model, when monitoring alone reads these answers and the labels among the events: in pieces of
    any size, and started anew from its saved state after each."""
    topics, rng = Topics(project, partitions), random.Random(seed)
    log, store = MemoryLog(), MemoryStore()
    writers = [f"inference.{number}" for number in range(partitions)]
    waiting = sorted(
        [(to_micros(p.time), p.key, p) for p in answers] + [(at, "", e) for *e, at in events if e[0] == "delivered"],
        key=lambda each: each[0],
    )
    numbers = dict.fromkeys(writers, 0)

    def sent(key: str, said: Any) -> Send:
        if not isinstance(said, Prediction):
            return Send(*said)
        writer = writers[partition_of(key.encode(), partitions)]
        numbers[writer] += 1
        headers = ((FROM, writer.encode()), (SEQUENCE, b"%d" % numbers[writer]))
        return Send(topics.predictions(said.model), said.id.encode(), msgspec.json.encode(said), headers)

    async def go() -> dict[str, list[Any]]:
        await log.create(topics.all())
        known = {f"{d.model}/{d.version}".encode(): msgspec.json.encode(d) for d in decisions}
        await log.send([Send(topics.models, key, value) for key, value in known.items()])
        while waiting:
            size = rng.choice([3, 100, 700])
            batch, waiting[:size] = waiting[:size], []
            await log.send([sent(key, said) for _, key, said in batch])
            before = waiting[0][0] if waiting else FOREVER
            for publisher, read in [
                ("users", ["delivered"]),
                *((w, [topics.predictions(m.name) for m in project.models]) for w in writers),
            ]:
                ends: dict[str, dict[int, int]] = {}
                for at, end in (await log.ends(read)).items():
                    ends.setdefault(at.topic, {})[at.number] = end
                clock = Clock(publisher=publisher, before=before, ends=ends)
                await log.send([Send(topics.clock, publisher.encode(), msgspec.json.encode(clock))])
            running = lanes(project, topics, log, store, math.inf)
            while any([await lane.turn(0) for lane in running]):
                pass
            log._groups.clear()
        kinds = {topics.statistics: Statistic, topics.cohorts: Cohort}
        return {
            model.name: [each for topic, kind in kinds.items() for each in await _read(log, topic(model.name), kind)]
            for model in project.models
        }

    return asyncio.run(go())
