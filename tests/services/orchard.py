"""An orchard of which monitoring watches everything that it can: a model of yes and no with segments, fairness, novelty, sources,
reviews and explanations, and beside it one of numbers and one of classes; a history of answers, labels and words about them; and
monitoring alone over it, for any partitions and restarts."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import penstock as ps
from penstock.artefact import Artefacts
from penstock.contributions.explainer import dumped
from penstock.contributions.linear import Linear
from penstock.duration import DAY, HOUR, MINUTE
from penstock.event import from_micros, to_micros
from penstock.log import Send, partition_of
from penstock.log.memory import MemoryLog
from penstock.records import Artefact, Candidate, Clock, Decision, Flag, Prediction, Review
from penstock.runtime.lane import FROM, SEQUENCE, Lane
from penstock.services.monitoring.service import lanes
from penstock.statistics.hours import customs_of, hours_of
from penstock.statistics.novelty import profile_of
from penstock.statistics.reference import Numbers
from penstock.statistics.segmented import segmented
from penstock.store import Change
from penstock.store.memory import MemoryStore
from penstock.topics import Topics

START = to_micros(datetime(2026, 3, 2, tzinfo=UTC))
WITHIN = 12 * HOUR
INPUTS = ["Picked.weight", "Picked.sugar"]
KINDS = ("juice", "market", "cider")
SOURCES = {"grader": 1.0, "reviewers": 0.5, "shop": 0.2}


@ps.event("picked")
class Picked:
    crate: ps.Id[str]
    tree: ps.Key[str]
    weight: float
    sugar: float | None
    variety: str | None
    age: float | None
    at: ps.EventTime


@ps.event("graded")
class Graded:
    crate: ps.Key[str]
    rotten: bool
    by: str | None
    at: ps.EventTime


@ps.event("sold")
class Sold:
    crate: ps.Key[str]
    price: float | None
    kind: str | None
    by: str | None
    at: ps.EventTime


VARIETY, AGE = ps.segment(Picked.variety), ps.segment(Picked.age, edges=(10, 30))
WATCHED: list[Any] = [
    ps.drift(every="1d", false_alarms_per_month=5), ps.drift(Picked.weight, every="12h"), ps.novelty(every="1d"),
    ps.skill(0.0, over="3d", every="1d", least=20), ps.labels(), ps.labels(within="6h"),
]  # fmt: skip


@ps.model(
    scores=Picked,
    features=[Picked.weight, Picked.sugar],
    label=ps.label(Graded.rotten, within="12h", sources=ps.sources(Graded.by, SOURCES, others=0.1)),
    monitors=[*WATCHED, ps.fairness(VARIETY, every="1d"), ps.fairness(AGE, every="3d", against="< 10")],
    explain=0.5,
    segments=[VARIETY, AGE],
    review=ps.review(near=0.2, sample=0.3, pairs=0.3, most=8),
    value=ps.value(true_positive=2, false_positive=-1, above=0.3),
)
def rotten() -> ps.Learner:
    raise NotImplementedError


@ps.model(
    scores=Picked,
    features=[Picked.weight, Picked.sugar],
    label=ps.label(Sold.price, within="12h", sources=ps.sources(Sold.by, {"grader": 1, "shop": 0.2})),  # type: ignore[arg-type]
    monitors=WATCHED,
    explain=0.3,
)
def price() -> ps.Learner:
    raise NotImplementedError


@ps.model(
    scores=Picked,
    features=[Picked.weight, Picked.sugar],
    label=ps.label(Sold.kind, within="12h", otherwise="juice", classes=KINDS),  # type: ignore[arg-type]
    monitors=WATCHED,
)
def kind() -> ps.Learner:
    raise NotImplementedError


project = ps.Project("orchard", [rotten, price, kind])

Said = tuple[int, str, Any]
"""When it is published, by whom it is keyed, and what."""


def history(days: int = 20, a_day: int = 60, seed: int = 1) -> list[Said]:
    """From half of the days on a second version answers; then the weights grow, one variety is favoured, and the shop turns."""
    rng, found = random.Random(seed), list[Said]()
    for number in range(days * a_day):
        at, name, tree = START + number * DAY // a_day, f"c{number:05}", f"t{rng.randrange(9)}"
        late = number >= days * a_day * 3 // 4
        version = "none" if number < a_day else "v2" if number >= days * a_day // 2 else "v1"
        weight = round(rng.gauss(3.0 + 0.8 * late, 1.0), 3) if rng.random() < 0.98 else 99.0
        inputs = {"Picked.weight": weight, "Picked.sugar": None if rng.random() < 0.1 else round(rng.random(), 3)}
        variety = f"v{number % 90}" if rng.random() < 0.3 else rng.choice(["gala", "elstar", "missing"])
        levels = {VARIETY.name: variety, AGE.name: AGE.level(rng.uniform(0, 50) if rng.random() < 0.9 else None)}
        rate = 0.6 if late and variety == "gala" else 0.25
        answers = [
            answered(
                "rotten", name, tree, at, version, inputs, {v: round(rng.betavariate(2, 3), 3) for v in ("v1", "v2")}, levels
            ),
            answered("price", name, tree, at, version, inputs, {v: round(rng.gauss(20, 5), 2) for v in ("v1", "v2")}),
            answered("kind", name, tree, at, version, inputs, {v: round(rng.random(), 3) for v in ("v1", "v2")}),
        ]
        found += [(at, tree, answer) for answer in answers]
        truth, who = rng.random() < rate, rng.choice(["grader", "grader", "shop", "stranger", None])
        if late and who == "shop":
            truth = not truth
        for again in range(rng.choice([0, 1, 1, 1, 2, 2])):
            came = at + rng.randrange(-HOUR, WITHIN + 2 * HOUR) // MINUTE * MINUTE
            graded = {
                "crate": name,
                "rotten": truth ^ (again == 1),
                "by": who if not again else "grader",
                "at": from_micros(came),
            }
            cost = rng.choice([None, 1e300, 0.0]) if rng.random() < 0.05 else round(rng.gauss(20, 6), 2)
            chosen = rng.choice([*KINDS, *KINDS, None, "pie"])
            sold = {"crate": name, "price": cost, "kind": chosen, "by": who, "at": from_micros(came)}
            found += [(came, name, ("graded", graded)), (came, name, ("sold", sold))]
    return sorted(found, key=lambda said: said[0])


def answered(
    model: str,
    name: str,
    tree: str,
    at: int,
    version: str,
    inputs: dict[str, Any],
    scores: dict[str, float],
    levels: Any = msgspec.UNSET,
) -> Prediction:
    known, more = version != "none", dict[str, Any]()
    scores = scores if known else {}
    if model == "kind" and known:
        each = {v: {"juice": p / 2, "market": 1 - p, "cider": p / 2} for v, p in scores.items()}
        named = {v: max(sorted(said), key=said.__getitem__) for v, said in each.items()}
        scores, more = {v: each[v][named[v]] for v in each}, {"probabilities": each, "answer": named[version]}
    return Prediction(
        id=name, key=tree, model=model, time=from_micros(at), inputs=msgspec.Raw(msgspec.json.encode(inputs)),
        score=scores.get(version, 0.5), scores=scores, weights={version: 1.0} if known else {}, bucket=7, version=version,
        variant="champion" if known else "none", digest="abc" if known else "", latency=0.001 * (1 + at // MINUTE % 7),
        segments=levels, **more,
    )  # fmt: skip


def words(answers: Sequence[Said], seed: int = 2) -> list[Said]:
    """Flags and reviews of some of the answers to be reviewed, and of some that nobody gave."""
    rng, found = random.Random(seed), list[Said]()
    for at, _, answer in answers:
        if isinstance(answer, Prediction) and answer.model == "rotten" and rng.random() < 0.3:
            name = answer.id if rng.random() < 0.9 else f"nobody's {answer.id}"
            for _ in range(rng.randrange(1, 4)):
                then, by = at + rng.randrange(WITHIN), rng.choice(["ada", "bob", "cyd", "dan"])
                told: dict[str, Any] = {"prediction": name, "model": "rotten", "by": by, "at": from_micros(then)}
                yes = rng.random() < 0.5
                found.append((then, name, Flag(**told, says=yes) if rng.random() < 0.4 else Review(**told, says=yes)))
    return found


def decisions(artefacts: Artefacts) -> list[Send]:
    """Two versions of each model, with all that is known of one."""
    rng = np.random.default_rng(3)
    times = START - 21 * DAY + np.sort(rng.integers(0, 21 * DAY, 3_000))
    rows = np.stack([rng.normal(3, 1, 3_000), rng.random(3_000)], 1).astype(np.float32)
    rows[rng.random(3_000) < 0.1, 1] = np.nan
    numbers = {name: Numbers.of(rows[:, at]) for at, name in enumerate(INPUTS)}
    places = {name: each.cells(rows[:, at]) for at, (name, each) in enumerate(numbers.items())}
    widths = {name: len(each.edges) + 2 for name, each in numbers.items()}
    customs = customs_of(times, places, widths, [HOUR * 12 * n for n in (1, 2, 4, 8, 16, 32)])
    hours = artefacts.put(hours_of(times, places, widths).dumped(), "npz")
    levels = {
        VARIETY.name: [["gala", "elstar", "missing", "v7"][place] for place in rng.choice(4, 3_000, p=[0.5, 0.4, 0.09, 0.01])],
        AGE.name: [AGE.level(age) for age in rng.uniform(0, 50, 3_000)],
    }
    segments = artefacts.put(segmented(times, places, widths, levels, customs).dumped(), "levels")
    explainer = artefacts.put(dumped(Linear(np.array([0.3, -1.1]), 0.0, np.array([3.0, 0.5]))), "npz")
    found = []
    for model in project.models:
        for version in ("v1", "v2"):
            score = [20.0, 0.0625] if model.name == "price" else [0.5, 2.0**-10]
            candidate = Candidate(
                id=version, model=model.name, version=version, kind="full", at=from_micros(START), inputs=INPUTS, weights={},
                artefact=Artefact(uri="", sha256="", size=0, format="onnx"), metrics={}, run="", fingerprint="",
                edges={name: list(each.edges) for name, each in numbers.items()},
                reference={name: np.bincount(places[name], minlength=widths[name]).tolist() for name in INPUTS},
                explainer=explainer, hours=hours if version == "v1" else None, spread=customs.get(DAY, {}), customs=customs,
                grid={"score": score} | {name: [each.centre, each.unit] for name, each in numbers.items()},
                scores=[15.0, 20.0, 25.0] if model.name == "price" else [0.25, 0.5, 0.75], profile=profile_of(INPUTS, rows),
                task=model.label.task, classes=list(model.label.classes),
                segments=segments if model.segments and version == "v1" else None,
            )  # fmt: skip
            decision = Decision(
                id=version, model=model.name, kind="champion", version=version, at=from_micros(START), actor="", reason="",
                share=1.0, expected="", evidence={}, candidate=candidate,
            )  # fmt: skip
            found.append(Send(Topics(project, 1).models, f"{model.name}/{version}".encode(), msgspec.json.encode(decision)))
    return found


class _Store(MemoryStore):
    writes = 0

    async def write(self, shard: str, seen: int, change: Change) -> int:
        self.writes += 1
        return await super().write(shard, seen, change)


def watched(
    said: Sequence[Said],
    folder: Path,
    partitions: int = 1,
    seed: int | None = None,
    restarts: bool = False,
) -> dict[str, list[tuple[Any, ...]]]:
    """What monitoring publishes, by topic, in order of partition. `seed`: read in pieces of many sizes (else in one);
    `restarts`: and started anew from what it saved after each write."""
    topics, rng, artefacts = Topics(project, partitions), random.Random(seed), Artefacts(folder)
    log, store = MemoryLog(), _Store()
    writers = [f"inference.{number}" for number in range(partitions)]
    numbers, waiting = dict.fromkeys(writers, 0), sorted(said, key=lambda each: each[0])
    running = list[Lane]()

    def sent(key: str, what: Any) -> Send:
        if isinstance(what, Flag | Review):
            topic = topics.flags if isinstance(what, Flag) else topics.reviews
            return Send(topic, key.encode(), msgspec.json.encode(what))
        if not isinstance(what, Prediction):
            return Send(what[0], key.encode(), msgspec.json.encode(what[1]))
        writer = writers[partition_of(key.encode(), partitions)]
        numbers[writer] += 1
        headers = ((FROM, writer.encode()), (SEQUENCE, b"%d" % numbers[writer]))
        return Send(topics.predictions(what.model), what.id.encode(), msgspec.json.encode(what), headers)

    def start() -> list[Lane]:
        log._groups.clear()
        return lanes(project, topics, log, store, math.inf, artefacts=artefacts)

    async def closed(before: int) -> None:
        for publisher, read in (
            ("users", ["graded", "sold"]), *((w, [topics.predictions(m.name) for m in project.models]) for w in writers),
        ):  # fmt: skip
            ends: dict[str, dict[int, int]] = {}
            for at, end in (await log.ends(read)).items():
                ends.setdefault(at.topic, {})[at.number] = end
            clock = Clock(publisher=publisher, before=before, ends=ends)
            await log.send([Send(topics.clock, publisher.encode(), msgspec.json.encode(clock))])

    async def settle() -> None:
        nonlocal running
        moved = True
        while moved:
            moved = False
            for at in range(len(running)):
                written = store.writes
                moved |= await running[at].turn(0)
                if restarts and store.writes > written:
                    running = start()

    async def go() -> dict[str, list[tuple[Any, ...]]]:
        await log.create(topics.all())
        await log.send(decisions(artefacts))
        running.extend(start())
        while waiting:
            size = len(waiting) if seed is None else rng.choice([40, 200, 700])
            batch, waiting[:size] = waiting[:size], []
            for kinds in (Prediction | tuple, Flag, Review):  # what a docket finds follows from which topic is read first
                await log.send([sent(key, what) for _, key, what in batch if isinstance(what, kinds)])
                await settle()
            await closed(waiting[0][0] if waiting else START + 40 * DAY)
            await settle()
        found: dict[str, list[tuple[Any, ...]]] = {}
        for partition, kept in sorted(log._stores.items()):
            found.setdefault(partition.topic, []).extend(zip(kept.keys, kept.values, kept.headers, strict=True))
        return found

    return asyncio.run(go())
