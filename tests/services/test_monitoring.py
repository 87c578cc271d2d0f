"""Monitoring on the log in memory: the same outcomes and statistics for any partitions, batches and crashes, compared
with a brute-force recomputation that knows nothing of ledgers, merges or windows."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest

import penstock as ps
from penstock.duration import DAY, HOUR, MINUTE
from penstock.event import from_micros, to_micros
from penstock.inputs import counted
from penstock.lane import FROM, SEQUENCE, Effects, Lane
from penstock.log import Batch, Headers, Partition, Send, partition_of
from penstock.log.memory import MemoryLog
from penstock.records import Alarm, Artefact, Candidate, Clock, Decision, Outcome, Paired, Partial, Prediction, Statistic
from penstock.services.monitoring.pairing import PairingShard
from penstock.services.monitoring.service import lanes
from penstock.store import Change, Saved
from penstock.store.memory import MemoryStore
from penstock.topics import Topics

T = TypeVar("T")


@ps.event("orders")
class Order:
    order_id: ps.Id[str]
    shop: ps.Key[str]
    amount: float
    weight: float | None
    at: ps.EventTime


@ps.event("paid")
class Paid:
    order_id: ps.Key[str]
    late: bool
    at: ps.EventTime


def declared(otherwise: bool | None, every: str = "12h") -> ps.Project:
    @ps.model(
        scores=Order,
        features=[Order.amount, Order.weight],
        label=ps.label(Paid.late, within="6h", otherwise=otherwise),
        monitors=[ps.drift(every="1d", false_alarms_per_month=5), ps.skill(0.0, over="2d", every=every, least=20)],
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
        made.predictions.append(_prediction(name, f"s{rng.randrange(7)}", time, scores, version, inputs))
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


def _prediction(name: str, shop: str, time: int, scores: dict[str, float], version: str, inputs: dict[str, Any]) -> Prediction:
    known = version != "none"
    return Prediction(
        id=name, key=shop, model="late", time=from_micros(time), inputs=msgspec.Raw(msgspec.json.encode(inputs)),
        score=scores[version] if known else 0.5, scores=scores, weights={version: 1.0} if known else {}, bucket=7,
        version=version, variant="champion" if known else "none", digest="abc" if known else "", latency=0.001,
    )  # fmt: skip


def decision(version: str, edges: dict[str, list[float]], reference: dict[str, list[int]], model: str = "late") -> bytes:
    candidate = Candidate(
        id=version, model=model, version=version, kind="full", at=from_micros(START),
        artefact=Artefact(uri="", sha256="", size=0, format="onnx"), inputs=list(edges),
        weights={}, edges=edges, reference=reference, metrics={}, run="", fingerprint="",
    )  # fmt: skip
    return msgspec.json.encode(
        Decision(
            id=version, model=model, kind="champion", version=version, at=from_micros(START), actor="", reason="",
            share=1.0, expected="", evidence={}, candidate=candidate,
        )
    )  # fmt: skip


# --- the brute force --------------------------------------------------------------------------------------------------


@dataclass
class Expected:
    """What has to come out: outcomes by (id, corrects), and per window the counts and plain sums."""

    outcomes: dict[tuple[str, bool | None], tuple[bool, bool, int]] = field(default_factory=dict)
    known: list[tuple[int, Prediction, bool, int]] = field(default_factory=list)
    """(moment, answer, label, sign)."""
    words: Counter[tuple[int, str]] = field(default_factory=Counter)

    def say(self, moment: int, word: str) -> None:
        self.words[moment // LENGTH * LENGTH, word] += 1


def expected(made: World, otherwise: bool | None) -> Expected:
    """Each id by itself, its records in order of time (an answer before a label of the same time)."""
    found = Expected()
    answers: dict[str, Prediction] = {}
    for p in made.predictions:
        found.say(to_micros(p.time), "predictions" if p.id not in answers else "duplicate")
        answers.setdefault(p.id, p)
    labels: dict[str, list[tuple[int, bool]]] = {}
    for moment, name, label in made.labels:
        labels.setdefault(name, []).append((moment, label))
    for name in answers.keys() | labels.keys():
        _one(found, answers.get(name), labels.get(name, []), otherwise)
    return found


def _one(found: Expected, answer: Prediction | None, labels: list[tuple[int, bool]], otherwise: bool | None) -> None:
    time = to_micros(answer.time) if answer else END * 10
    before = [label for label in labels if label[0] < time]
    parked: tuple[int, bool] | None = None
    since = 0
    for moment, label in before:
        if parked is not None and moment > since + WITHIN:
            found.say(since + WITHIN, "orphan")
            parked = None
        if parked is None:
            found.say(moment, "parked")
            parked, since = (moment, label), moment
        else:
            found.say(moment, "duplicate" if parked[1] == label else "corrected")
            parked = parked if parked[1] == label else (moment, label)
    if parked is not None and time > since + WITHIN:
        found.say(since + WITHIN, "orphan")
        parked = None
    if answer is None:
        return
    now: bool | None = None
    if parked is not None:
        now = _learn(found, answer, None, parked[1], parked[0], time)
    for moment, label in [label for label in labels if label[0] >= time]:
        if moment > time + WITHIN:
            found.say(moment, "late" if moment <= time + 2 * WITHIN else "parked")
        elif now == label:
            found.say(moment, "duplicate")
        else:
            now = _learn(found, answer, now, label, moment, moment)
    if now is None:
        found.say(time + WITHIN, "unanswered" if otherwise is None else "silent")
        if otherwise is not None:
            found.outcomes[answer.id, None] = (otherwise, False, time + WITHIN)
            found.known.append((time + WITHIN, answer, otherwise, 1))


def _learn(found: Expected, answer: Prediction, was: bool | None, label: bool, labelled: int, moment: int) -> bool:
    found.say(moment, "outcomes" if was is None else "corrected")
    found.outcomes[answer.id, was] = (label, True, labelled)
    if was is not None:
        found.known.append((moment, answer, was, -1))
    found.known.append((moment, answer, label, 1))
    return label


def _loss(score: float, label: bool) -> float:
    p = min(max(score, 1e-6), 1 - 1e-6)
    return -math.log(p if label else 1 - p)


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

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Result)
        return (self.outcomes, self.statistics, self.alarms) == (other.outcomes, other.statistics, other.alarms)


def run(
    made: World,
    partitions: int = 1,
    seed: int | None = None,
    die_at: Container[int] = (),
    otherwise: bool | None = False,
    max_records: int = 4096,
    extra: Sequence[Send] = (),
    sizes: Sequence[int] = (1, 3, 40),
) -> Result:
    """Publish a history (with a seed: in pieces, in any order that keeps each source's own) and read what comes out."""

    async def go() -> Result:
        project = declared(otherwise)
        topics = Topics(project, partitions)
        log, store, fragile = FragileLog(), FragileStore(), Fragile(die_at)
        await log.create(topics.all())
        log_send = MemoryLog.send

        def start() -> list[Lane]:
            made = lanes(project, topics, log, store)
            for lane in made:
                lane._max_records = max_records
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

        await log_send(log, [Send(topics.models, b"late/v1", decision("v1", EDGES, REFERENCE)), *extra])
        await log_send(log, [Send(topics.models, b"late/v2", decision("v2", EDGES, REFERENCE))])
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
                named = dict(headers)
                number = (named[FROM], named[SEQUENCE])
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
    reports = Counter((p.shard, p.start, p.part) for p in partials)
    assert max(reports.values(), default=1) == 1, "a shard reported a window twice"
    dead = await values(topics.dead_letters(topics.predictions("late")))
    return Result(outcomes, await values(topics.statistics("late")), await values(topics.alarms), len(dead), passed)


WORLD = world()
WHOLE = run(WORLD)


# --- laws -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("otherwise", [False, True, None])
def test_outcomes_are_what_the_brute_force_finds(otherwise: bool | None) -> None:
    result, wanted = run(WORLD, otherwise=otherwise), expected(WORLD, otherwise)
    got = {}
    for key, value in result.outcomes.items():
        outcome = msgspec.json.decode(value, type=Outcome)
        got[key] = (outcome.label, outcome.answered, to_micros(outcome.labelled))
    assert got == wanted.outcomes
    assert any(corrects is not None for _, corrects in got)


@pytest.mark.parametrize("otherwise", [False, None])
def test_statistics_are_what_the_brute_force_finds(otherwise: bool | None) -> None:
    result, wanted = run(WORLD, 4, otherwise=otherwise), expected(WORLD, otherwise)
    statistics = [msgspec.json.decode(v, type=Statistic) for v in result.statistics]
    first, last = START // LENGTH * LENGTH, END // LENGTH * LENGTH
    starts = [to_micros(s.start) for s in statistics]
    assert starts == list(range(first, last, LENGTH)), "every window once, empty ones too"
    for s in statistics:
        start, end = to_micros(s.start), to_micros(s.end)
        assert s.counts == {w: n for (at, w), n in wanted.words.items() if at == start}
        inside = [(a, label, sign) for moment, a, label, sign in wanted.known if start <= moment < end]
        for version in ("served", "v1", "v2"):
            asked = [(a.scores.get(version, a.score), label, sign, a) for a, label, sign in inside if a.scores]
            quality = s.quality.get(version)
            if quality is None:
                assert not asked
                continue
            assert quality.n == sum(sign for _, _, sign, _ in asked)
            assert quality.positives == sum(sign * label for _, label, sign, _ in asked)
            assert quality.loss == pytest.approx(sum(sign * _loss(p, label) for p, label, sign, _ in asked), abs=1e-5)
            squares = sum(sign * (p - label) ** 2 for p, label, sign, _ in asked)
            assert quality.squares == pytest.approx(squares, abs=1e-5)
            if version != "served":
                different = [sign * (_loss(p, label) - _loss(a.score, label)) for p, label, sign, a in asked]
                assert s.paired[version].sum == pytest.approx(sum(different), abs=1e-5)
        both = [(_loss(a.scores["v1"], label) - _loss(a.scores["v2"], label), sign) for a, label, sign in inside if a.scores]
        between = s.versus("v1", "v2")
        assert between.n == sum(sign for _, sign in both)
        assert between.sum == pytest.approx(sum(sign * gap for gap, sign in both), abs=1e-5)
        assert between.squares == pytest.approx(sum(sign * gap * gap for gap, sign in both), abs=1e-5)
        assert s.versus("v2", "v1") == Paired(n=between.n, sum=-between.sum, squares=between.squares)
        week = max(first, start - 7 * DAY)
        before = [(label, sign) for moment, _, label, sign in wanted.known if week <= moment < start]
        known = sum(sign for _, sign in before)
        prior = sum(sign * label for label, sign in before) / known if known >= 30 else None
        assert s.prior == (pytest.approx(prior) if prior is not None else None)
        shown = {"prior": s.prior, "prior_loss": s.prior_loss, "skill": s.skill}
        assert s.missing.keys() == {name for name, number in shown.items() if number is None}, "what is missing has its reason"


def test_drift_counts_are_those_of_all_answers_of_the_version() -> None:
    for value in WHOLE.statistics:
        s = msgspec.json.decode(value, type=Statistic)
        if to_micros(s.end) % DAY:
            assert s.drift == {}, "the drift monitor judges days"
            continue
        start = to_micros(s.end) - DAY
        mine = [p for p in WORLD.predictions if start <= to_micros(p.time) < start + DAY and p.version != "none"]
        by = Counter(p.version for p in mine)
        if not by:
            assert s.drift == {}
            continue
        top = max(by, key=lambda v: (by[v], v))
        amounts = [msgspec.json.decode(p.inputs)["Order.amount"] for p in mine if p.version == top]
        counts = np.cumsum(counted(np.array(amounts), EDGES["Order.amount"]))
        reference = np.cumsum(REFERENCE["Order.amount"])
        naive = np.max(np.abs(counts / counts[-1] - reference / reference[-1]))
        assert s.drift["Order.amount"].ks == pytest.approx(naive)
        assert s.drift["Order.amount"].n == len(amounts)


@pytest.mark.parametrize("partitions", [1, 2, 4, 7])
@pytest.mark.parametrize("seed", range(4))
def test_partitions_and_batches_do_not_show(partitions: int, seed: int) -> None:
    assert run(WORLD, partitions, seed, max_records=[7, 50, 4096][seed % 3]) == WHOLE


@pytest.mark.parametrize("seed", range(3))
def test_a_restart_at_any_step_loses_nothing_and_counts_nothing_twice(seed: int) -> None:
    small = world(60, seed=5)
    whole = run(small, 2, seed, sizes=(1, 4))
    assert whole == run(small), "killed nowhere"
    assert whole.passed > 60
    for moment in range(whole.passed):
        assert run(small, 2, seed, sizes=(1, 4), die_at=[moment]) == whole, f"killed at {moment}"


@pytest.mark.parametrize("seed", range(4))
def test_many_restarts_lose_nothing_and_count_nothing_twice(seed: int) -> None:
    assert run(WORLD, 3, seed, die_at=range(seed, 100_000, 37), max_records=60) == WHOLE


def test_nothing_shown_is_not_a_number() -> None:
    for value in (*WHOLE.statistics, *WHOLE.alarms):
        assert b"NaN" not in value
        assert b"Infinity" not in value
    signals = {msgspec.json.decode(v, type=Alarm).signal for v in WHOLE.alarms}
    assert "skill" in signals, "random answers have no skill"


# --- cases ------------------------------------------------------------------------------------------------------------

CASES: dict[str, tuple[list[tuple[int, bool]], dict[str, int], list[tuple[bool, bool, bool | None]]]] = {
    # name: labels as (hours after the answer, value), counts, outcomes as (label, answered, corrects)
    "in time": ([(1, True)], {"outcomes": 1}, [(True, True, None)]),
    "at the horizon": ([(6, True)], {"outcomes": 1}, [(True, True, None)]),
    "after the horizon": ([(7, True)], {"silent": 1, "late": 1}, [(False, False, None)]),
    "never": ([], {"silent": 1}, [(False, False, None)]),
    "before its answer": ([(-1, True)], {"parked": 1, "outcomes": 1}, [(True, True, None)]),
    "long before its answer": ([(-7, True)], {"parked": 1, "orphan": 1, "silent": 1}, [(False, False, None)]),
    "twice the same": ([(1, True), (2, True)], {"outcomes": 1, "duplicate": 1}, [(True, True, None)]),
    "corrected": ([(1, True), (2, False)], {"outcomes": 1, "corrected": 1}, [(True, True, None), (False, True, True)]),
    "corrected too late": ([(1, True), (7, False)], {"outcomes": 1, "late": 1}, [(True, True, None)]),
    "corrected early": ([(-2, True), (-1, False)], {"parked": 1, "corrected": 1, "outcomes": 1}, [(False, True, None)]),
}


@pytest.mark.parametrize("case", CASES)
def test_each_fate_of_a_label_is_counted(case: str) -> None:
    labels, counts, outcomes = CASES[case]
    time = START + 24 * HOUR
    made = World([_prediction("o", "s", time, {"v1": 0.7}, "v1", {})], [(time + h * HOUR, "o", v) for h, v in labels])
    result = run(made)
    total: Counter[str] = Counter()
    for value in result.statistics:
        total.update(msgspec.json.decode(value, type=Statistic).counts)
    assert total == {"predictions": 1, **counts}
    got = [msgspec.json.decode(v, type=Outcome) for v in result.outcomes.values()]
    assert [(o.label, o.answered, o.corrects) for o in got] == outcomes


def test_a_correction_restates_the_sums() -> None:
    time = START + 24 * HOUR
    answer = _prediction("o", "s", time, {"v1": 0.7, "v2": 0.1}, "v1", {})
    right, corrected = (
        run(World([answer], [(time + h * HOUR, "o", v) for h, v in labels])).statistics
        for labels in ([(2, False)], [(1, True), (2, False)])
    )
    for one, other in zip(right, corrected, strict=True):
        a, b = msgspec.json.decode(one, type=Statistic), msgspec.json.decode(other, type=Statistic)
        assert (a.quality, a.paired, a.log_loss, a.auc) == (b.quality, b.paired, b.log_loss, b.auc)


@pytest.mark.parametrize(("before_the_end", "windows"), [(1, [1, 0]), (0, [0, 1])])
def test_silence_counts_in_the_window_that_holds_the_horizon(before_the_end: int, windows: list[int]) -> None:
    end = (START // LENGTH + 2) * LENGTH
    answer = _prediction("o", "s", end - WITHIN - before_the_end, {"v1": 0.7}, "v1", {})
    statistics = [msgspec.json.decode(v, type=Statistic) for v in run(World([answer])).statistics]
    got = {to_micros(s.end): s.counts.get("silent", 0) for s in statistics}
    assert [got[end], got[end + LENGTH]] == windows


def test_a_prediction_that_came_twice_counts_once() -> None:
    time = START + 24 * HOUR
    answer = _prediction("o", "s", time, {"v1": 0.7}, "v1", {})
    again = _prediction("o", "s", time + HOUR, {"v1": 0.2}, "v1", {})
    result = run(World([answer, again], [(time + 2 * HOUR, "o", True)]))
    assert [msgspec.json.decode(v, type=Outcome).score for v in result.outcomes.values()] == [0.7]
    counts = sum((Counter(msgspec.json.decode(v, type=Statistic).counts) for v in result.statistics), Counter[str]())
    assert counts == {"predictions": 1, "duplicate": 1, "outcomes": 1}


BAD: list[bytes | None] = [
    None, b"", b"{", b"[]", b"\xff\xfe", b'{"order_id": 7, "late": true, "at": "2026-03-01T09:00:00Z"}', b"null",
    b'{"order_id": "o1", "late": "yes", "at": "2026-03-01T09:00:00Z"}', b'{"order_id": "o1", "late": true}',
    b'{"order_id": "o1", "late": true, "at": "2026-03-01T09:00:00"}', b"[" * 100_000, b"1e999",
    b'{"order_id": "o1", "late": true, "at": "9999-12-31T00:00:00Z"}', b'"' + b"x" * (1 << 19) + b'"',
    b'{"order_id": "o1", "late": true, "at": "0001-01-01T00:00:00Z"}', b'{"order_id": 1180591620717411303424}',
]  # fmt: skip


def test_bad_records_are_counted_and_nothing_else_is_lost() -> None:
    topics = Topics(declared(False), 1)
    numbered = ((FROM, b"somebody"), (SEQUENCE, b"zero"))
    extra = [Send("paid", b"o1", value) for value in BAD]
    extra += [Send(topics.predictions("late"), b"o1", v, numbered if i % 2 else ()) for i, v in enumerate(BAD)]
    result = run(WORLD, extra=extra)
    assert result.outcomes == WHOLE.outcomes
    malformed = sum(msgspec.json.decode(v, type=Statistic).counts.get("malformed", 0) for v in result.statistics)
    assert malformed == len(extra)
    assert result.dead == len(BAD), "predictions are dead-lettered here, label events by the feature store"


def test_inputs_that_cannot_be_read_are_counted_and_the_others_binned() -> None:
    time = START + 24 * HOUR
    answers = [_prediction(f"o{i}", "s", time, {"v1": 0.5}, "v1", {"Order.amount": 5.0}) for i in range(9)]
    answers.append(_prediction("odd", "s", time, {"v1": 0.5}, "v1", {"Order.amount": "much"}))
    statistics = [msgspec.json.decode(v, type=Statistic) for v in run(World(answers)).statistics]
    assert sum(s.counts.get("unread", 0) for s in statistics) == 1
    assert {shift.n for s in statistics for shift in s.drift.values()} == {9}


# --- one shard by itself ----------------------------------------------------------------------------------------------


NOW = 1e10
"""A wall clock after everything here, in seconds."""


def one(number: int = 0, partitions: int = 1) -> tuple[PairingShard, Topics]:
    topics = Topics(declared(False), partitions)
    shard = PairingShard(number, topics.project.models, topics)
    shard.open(Saved())
    return shard, topics


def batch(
    topic: str, values: Sequence[bytes], keys: Sequence[bytes] = (), headers: Sequence[Headers] = (), first: int = 0
) -> Batch:
    keys = keys or [b"k"] * len(values)
    return Batch(Partition(topic, 0), range(first, first + len(values)), keys, values, headers)


def numbered(writer: int, *numbers: int) -> list[Headers]:
    return [((FROM, b"inference.%d" % writer), (SEQUENCE, b"%d" % n)) for n in numbers]


def paid(name: str, moment: int) -> bytes:
    return msgspec.json.encode({"order_id": name, "late": True, "at": from_micros(moment)})


def answered(name: str, moment: int, version: str = "v1") -> bytes:
    return msgspec.json.encode(_prediction(name, "s", moment, {version: 0.5}, version, {"Order.amount": 1.0}))


def closes(topics: Topics, publisher: str, topic: str, before: int, end: int) -> Batch:
    clock = Clock(publisher=publisher, before=before, ends={topic: {0: end}})
    return batch(topics.clock, [msgspec.json.encode(clock)])


def both(topics: Topics, before: int, predictions: int, labels: int = 0) -> list[Batch]:
    """Inference and the users close a time, up to these positions."""
    return [
        closes(topics, "inference.0", topics.predictions("late"), before, predictions),
        closes(topics, "users", "paid", before, labels),
    ]


def sent(effects: Effects | None, topic: str, kind: type[T]) -> list[T]:
    """What a step published to a topic."""
    assert effects is not None
    return [msgspec.json.decode(send.value or b"", type=kind) for send in effects.sends if send.topic == topic]


def reopened(shard: PairingShard, topics: Topics, changes: Sequence[Change]) -> tuple[PairingShard, dict[str, int]]:
    """The shard after a crash: what was written, and where it wants to read on."""
    table: dict[bytes, bytes] = {}
    for change in changes:
        for name, value in change.table.items():
            if value is None:
                table.pop(name, None)
            else:
                table[name] = value
    again = PairingShard(0, topics.project.models, topics)
    positions = again.open(Saved(len(changes), changes[-1].position, b"", table))
    again.take([batch(topics.models, [decision("v1", EDGES, REFERENCE)])], now=NOW + 0.0)
    return again, {p.topic: at for p, at in positions.items()}


def test_after_a_restart_time_does_not_go_back() -> None:
    shard, topics = one()
    topic = topics.predictions("late")
    shard.take([batch(topics.models, [decision("v1", EDGES, REFERENCE)])], now=NOW + 0.0)
    shard.take([batch(topic, [answered("o1", START)], headers=numbered(0, 0))], now=NOW + 0.0)
    shard.take(both(topics, START + DAY, 1), now=NOW + 0.0)
    effects = shard.step(())
    assert effects is not None
    shard, _ = reopened(shard, topics, [effects.change])
    late = batch(topic, [answered("o2", START + HOUR)], headers=numbered(0, 1), first=1)
    shard.take([late, batch("paid", [paid("o2", START + DAY)], [b"o2"])], now=NOW + 0.0)
    shard.take(both(topics, START + 2 * DAY, 2, 1), now=NOW + 0.0)
    said = sent(shard.step(()), topics.outcomes("late"), Outcome)
    assert [(o.id, o.answered) for o in said] == [("o2", True)], "an answer that comes late is processed when it comes"


def test_what_was_applied_beyond_the_position_is_not_applied_again() -> None:
    """Two writers and the gateway share a partition; one writer's record waits, so the others' are read again."""
    shard, topics = one(partitions=2)
    topic = topics.predictions("late")
    names = [n for n in (f"o{i}" for i in range(99)) if partition_of(n.encode(), 2) == 0][:3]
    times = [START + DAY, START, START + HOUR]
    headers = [*numbered(0, 0), *numbered(1, 0), ()]
    sent = batch(topic, [answered(n, t) for n, t in zip(names, times, strict=True)], headers=headers)
    shard.take([batch(topics.models, [decision("v1", EDGES, REFERENCE)]), sent], now=NOW + 0.0)
    closed = [closes(topics, who, topic, START + 2 * HOUR, 3) for who in ("inference.0", "inference.1")]
    shard.take([*closed, closes(topics, "users", "paid", START + 2 * HOUR, 0)], now=NOW + 0.0)
    effects = shard.step(())
    assert effects is not None
    again, positions = reopened(shard, topics, [effects.change])
    assert positions == {topic: 0, "paid": 0}
    again.take([sent], now=NOW + 0.0)
    closed = [closes(topics, who, topic, START + 2 * DAY, 3) for who in ("inference.0", "inference.1")]
    again.take([*closed, closes(topics, "users", "paid", START + 2 * DAY, 0)], now=NOW + 0.0)
    more = again.step(())
    assert more is not None
    total: Counter[str] = Counter()
    for send in [*effects.sends, *more.sends]:
        if send.topic == topics.partials:
            total.update(msgspec.json.decode(send.value or b"", type=Partial).counts)
    assert total == {"predictions": 3, "silent": 3}


def test_models_that_share_a_label_topic_do_not_show_to_each_other() -> None:
    alone, pair = (
        ps.Project("shop", [_model(name, every) for name, every in chosen])
        for chosen in ([("late", "12h")], [("early", "8h"), ("late", "12h")])
    )
    found = []
    for project in (alone, pair):
        topics = Topics(project)
        shard = PairingShard(0, project.models, topics)
        shard.open(Saved())
        decisions = [decision(v, EDGES, REFERENCE, model.name) for v in ("v1", "v2") for model in project.models]
        shard.take([batch(topics.models, decisions)], now=NOW)
        answers = [msgspec.json.encode(p) for p in WORLD.predictions]
        labels = [{"order_id": name, "late": label, "at": from_micros(moment)} for moment, name, label in WORLD.labels]
        keys = [name.encode() for _, name, _ in WORLD.labels]
        batches = [batch("paid", [msgspec.json.encode(label) for label in labels], keys)]
        batches.append(closes(topics, "users", "paid", END, len(labels)))
        for model in project.models:
            topic = topics.predictions(model.name)
            batches += [batch(topic, answers), closes(topics, "inference.0", topic, END, len(answers))]
        shard.take(batches, now=NOW)
        effects = shard.step(())
        outcomes = sent(effects, topics.outcomes("late"), Outcome)
        partials = [p for p in sent(effects, topics.partials, Partial) if p.model == "late"]
        found.append((outcomes, partials))
    assert found[0] == found[1]
    assert len(found[0][0]) > 200


def _model(name: str, every: str) -> Any:
    def build() -> ps.Learner:
        raise NotImplementedError

    build.__name__ = name
    features, label = [Order.amount, Order.weight], ps.label(Paid.late, within="6h", otherwise=False)
    return ps.model(scores=Order, features=features, label=label, monitors=[ps.skill(0.0, every=every)])(build)


def test_labels_wait_for_inference_however_long_it_is_silent() -> None:
    shard, topics = one()
    labels = batch("paid", [paid(f"o{i}", START + i * DAY) for i in range(5)], [b"o%d" % i for i in range(5)])
    shard.take([labels], now=NOW + 100.0)
    assert shard.step(()) is None
    shard.take([], now=NOW + 100_000.0)
    assert shard.step(()) is None
    shard.take([batch(topics.models, [decision("v1", EDGES, REFERENCE)])], now=NOW + 100_000.0)
    topic = topics.predictions("late")
    shard.take([batch(topic, [answered("o3", START + 3 * DAY)], headers=numbered(0, 0))], now=NOW + 100_001.0)
    shard.take([closes(topics, "inference.0", topic, START + 4 * DAY, 1)], now=NOW + 100_001.0)
    assert [o.id for o in sent(shard.step(()), topics.outcomes("late"), Outcome)] == ["o3"]


@pytest.mark.parametrize(("closing", "wait"), [(False, 5.0), (True, 60.0)])
def test_a_silent_label_topic_is_passed_after_the_stated_wait_and_not_before(closing: bool, wait: float) -> None:
    shard, topics = one()
    shard.take([batch(topics.models, [decision("v1", EDGES, REFERENCE)])], now=NOW + 100.0)
    shard.take([batch(topics.predictions("late"), [answered("o1", START)], headers=numbered(0, 0))], now=NOW + 100.0)
    if closing:
        shard.take([closes(topics, "users", "paid", START - DAY, 0)], now=NOW + 100.0)
    shard.take([], now=NOW + 104.0)
    shard.take([closes(topics, "inference.0", topics.predictions("late"), START + DAY, 1)], now=NOW + 104.0)
    shard.step(())
    for moment in (104.0, 104.0 + wait):
        shard.take([], now=NOW + moment)
        assert shard.step(()) is None
    shard.take([], now=NOW + 104.5 + wait)
    assert [o.answered for o in sent(shard.step(()), topics.outcomes("late"), Outcome)] == [False]


def test_a_history_published_at_once_after_a_quiet_start_finds_its_labels() -> None:
    shard, topics = one()
    shard.take([batch(topics.models, [decision("v1", EDGES, REFERENCE)])], now=NOW + 0.0)
    shard.take([], now=NOW + 600.0)
    answers = [answered(f"o{i}", START + i * HOUR) for i in range(40)]
    labels = [paid(f"o{i}", START + i * HOUR + MINUTE) for i in range(40)]
    shard.take([batch(topics.predictions("late"), answers, headers=numbered(0, *range(40)))], now=NOW + 600.0)
    shard.take([closes(topics, "inference.0", topics.predictions("late"), END, 40)], now=NOW + 601.0)
    assert shard.step(()) is None, "a label topic that was quiet before there was anything to wait with is not passed"
    shard.take([batch("paid", labels, [b"o%d" % i for i in range(40)])], now=NOW + 603.0)
    shard.take([closes(topics, "users", "paid", END, 40)], now=NOW + 603.0)
    assert [o.answered for o in sent(shard.step(()), topics.outcomes("late"), Outcome)] == [True] * 40


def test_answers_wait_for_the_registration_of_their_version() -> None:
    shard, topics = one()
    answers = batch(topics.predictions("late"), [answered("o1", START)], headers=numbered(0, 0))
    shard.take([answers, *both(topics, START + DAY, 1)], now=NOW + 100.0)
    assert shard.step(()) is None
    shard.take([batch(topics.models, [decision("v1", EDGES, REFERENCE)])], now=NOW + 101.0)
    partial = sent(shard.step(()), topics.partials, Partial)[0]
    assert partial.reference == "v1"
    assert sum(partial.inputs["Order.amount"]) == 1


def test_a_registration_that_never_comes_is_waited_for_only_so_long() -> None:
    shard, topics = one()
    answers = batch(topics.predictions("late"), [answered("o1", START, "gone")], headers=numbered(0, 0))
    shard.take([answers], now=NOW + 100.0)
    shard.take(both(topics, START + DAY, 1), now=NOW + 104.0)
    assert shard.step(()) is None
    shard.take([], now=NOW + 105.5)
    partial = sent(shard.step(()), topics.partials, Partial)[0]
    assert (partial.reference, partial.inputs) == ("", {})


def test_a_jump_over_many_empty_windows_is_one_record() -> None:
    shard, topics = one()
    shard.take([batch(topics.models, [decision("v1", EDGES, REFERENCE)])], now=NOW + 0.0)
    far = START + 40_000 * LENGTH
    answers = [answered("o1", START), answered("o2", far)]
    shard.take([batch(topics.predictions("late"), answers, headers=numbered(0, 0, 1))], now=NOW + 0.0)
    shard.take(both(topics, far + DAY, 2), now=NOW + 0.0)
    partials = sent(shard.step(()), topics.partials, Partial)
    assert len(partials) < 10
    assert all(a.end == b.start for a, b in pairwise(partials))


def test_a_project_without_models_has_nothing_to_monitor() -> None:
    @ps.features(by=Order.shop)
    class Shop:
        orders_1h = ps.count(Order, over="1h")

    project = ps.Project("plain", rows={Order: [Shop]})
    assert lanes(project, Topics(project), MemoryLog(), MemoryStore()) == []


def test_times_of_the_world_fit_its_end() -> None:
    assert max(to_micros(p.time) for p in WORLD.predictions) + 2 * WITHIN < END
