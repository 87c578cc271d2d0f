"""Reviews on the log in memory: from a flag to the outcome that it corrects, on any number of partitions, and through crashes."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.services.clinic import START, answer, clinic, flag, labels, queue, review, reviewed, sent, values
from tests.services.shop import Crash, Fragile, FragileLog, FragileStore, decision

import penstock as ps
from penstock.duration import DAY, HOUR
from penstock.event import to_micros
from penstock.log import Send
from penstock.log.memory import MemoryLog
from penstock.records import Clock, Flag, Outcome, Prediction, Review
from penstock.services.monitoring.service import lanes
from penstock.store.memory import MemoryStore
from penstock.topics import Topics

Words = Sequence[Prediction | Flag | Review]
FEW: Words = [
    answer("a"), answer("b", 0.9, 1), answer("c", 0.1, 2), flag("b", "ann", False), flag("nobody's"),
    review("a", "ada", True), review("b", "ada", False), review("b", "bob", True),
]  # fmt: skip


async def closed(log: MemoryLog, topics: Topics, before: int) -> None:
    """Everybody says that everything before a time is out."""
    for topic, writers in (
        ("returns", ["users"]),
        (topics.predictions("readmission"), [f"inference.{q}" for q in range(topics.partitions)]),
    ):
        ends = {topic: {p.number: end for p, end in (await log.ends([topic])).items()}}
        said = [Clock(publisher=writer, before=before, ends=ends) for writer in writers]
        await MemoryLog.send(log, [Send(topics.clock, c.publisher.encode(), msgspec.json.encode(c)) for c in said])


def run(topics: Topics, *rounds: Words, extra: Sequence[Send] = ()) -> MemoryLog:
    """Monitoring over what is said in rounds, until nothing moves."""

    async def work() -> MemoryLog:
        log = MemoryLog()
        await log.create(topics.all())
        registered = decision("v1", {"Discharge.age": [50.0]}, {"Discharge.age": [1, 1, 0]}, "readmission")
        await log.send([Send(topics.models, b"readmission/v1", registered)])
        running = lanes(topics.project, topics, log, MemoryStore())
        for number, words in enumerate(rounds, 1):
            await log.send([sent(topics, said) for said in words])
            if number == len(rounds):
                await log.send(extra)
            while any([await lane.turn(0) for lane in running]):
                pass
            await closed(log, topics, to_micros(START) + number * 2 * DAY)
            while any([await lane.turn(0) for lane in running]):
                pass
        return log

    return asyncio.run(work())


def test_what_reviewers_decide_becomes_the_outcome_of_the_answer_by_the_normal_way() -> None:
    topics = clinic()
    log = run(topics, FEW, [])
    outcomes = [msgspec.json.decode(v or b"", type=Outcome) for v in values(log, topics.outcomes("readmission"))]
    assert {(o.id, o.label, o.source, o.answered) for o in outcomes} == {
        ("a", True, "reviewers", True), ("b", False, "reviewers", True),
    }  # fmt: skip
    assert [(end.prediction, end.state) for end in reviewed(log, topics)] == [
        ("a", "labelled"), ("b", "labelled"), ("b", "refused"),
    ]  # fmt: skip


def test_a_more_trusted_source_stays_right_against_reviewers() -> None:
    topics = clinic()
    registry = {"stay_id": "b", "returned": True, "reporter": "registry", "reported_at": START}
    log = run(topics, [answer("b", 0.9)], FEW[1:], [], [], extra=[Send("returns", b"b", msgspec.json.encode(registry))])
    outcomes = [msgspec.json.decode(v or b"", type=Outcome) for v in values(log, topics.outcomes("readmission"))]
    told = [(o.label, o.source) for o in outcomes if o.id == "b"]
    assert told == [(False, "reviewers"), (True, "registry")], "though the time of the first was closed when it came"


def test_what_is_asked_and_found_does_not_depend_on_the_number_of_partitions() -> None:
    rng = random.Random(1)
    answers = [answer(f"o{i}", round(rng.random(), 2), i / 100) for i in range(300)]
    words = [flag(f"o{rng.randrange(300)}", rng.choice(["ann", "ben"])) for _ in range(30)]
    said = [review(f"o{rng.randrange(300)}", rng.choice(["ada", "bob", "cyd"]), rng.random() < 0.5) for _ in range(300)]

    def found(partitions: int) -> Any:
        topics = clinic(partitions, near=0.5, sample=0.5, pairs=0.3, most=1000)
        log = run(topics, [*answers, *words, *said])
        told = {end.id: (end.state, end.label, end.reviewers, end.said) for end in reviewed(log, topics) if end.label is not None}
        return told, {x["stay_id"]: x["returned"] for x in labels(log, topics)}, set(queue(log, topics))

    assert found(1) == found(4)
    assert len(found(1)[1]) > 50


def test_what_is_no_flag_or_lies_in_another_partition_is_dead_lettered() -> None:
    topics = clinic(2)
    wrong = [
        Send(topics.flags, b"a", b"{}"),
        Send(topics.flags, b"a", msgspec.json.encode(msgspec.structs.replace(flag("a"), model="other"))),
        Send(topics.reviews, None, msgspec.json.encode(review("a")), partition=0),
        Send(topics.reviews, None, msgspec.json.encode(review("a")), partition=1),
    ]
    log = run(topics, [answer("a")], extra=wrong)
    letters = [topics.dead_letters(topic) for topic in (topics.flags, topics.reviews)]
    found = [dict(headers)["dlq.reason"].decode() for topic in letters for headers in headers_of(log, topic, 2)]
    assert sorted(found) == ["misplaced", "schema", "unknown"]
    assert [label["stay_id"] for label in labels(log, topics)] == ["a"], "the one in its place counts"


def headers_of(log: MemoryLog, topic: str, partitions: int) -> list[Any]:
    from penstock.log import Partition

    return [headers for number in range(partitions) for headers in log._stores[Partition(topic, number)].headers]


def test_a_process_that_dies_at_any_moment_publishes_each_decision_once() -> None:
    topics = clinic()

    def told(die_at: int | None) -> tuple[Any, set[str], int]:
        async def work() -> tuple[Any, set[str], int]:
            log, store, fragile = FragileLog(), FragileStore(), Fragile(() if die_at is None else {die_at})
            await log.create(topics.all())

            def start() -> Any:
                (lane,) = [lane for lane in lanes(topics.project, topics, log, store) if lane.name == "review"]
                lane.max_records = 2
                return lane

            lane, moved = start(), True
            await MemoryLog.send(log, [sent(topics, said) for said in FEW])
            log.fragile = store.fragile = fragile
            while moved:
                try:
                    moved = await lane.turn(0)
                except Crash:
                    log._groups.clear()
                    lane, moved = start(), True
            seen: dict[Any, bytes | None] = {}
            for topic in ("returns", topics.reviewed, topics.queue):
                pairs = zip(headers_of(log, topic, 1), values(log, topic), strict=True)
                for headers, value in pairs:
                    number = dict(headers)["ce_id"]
                    assert seen.setdefault((topic, number), value) == value
            once = [(topic, msgspec.json.decode(value)) for (topic, _), value in seen.items() if value and topic != topics.queue]
            timeless = [(topic, {k: v for k, v in said.items() if k not in ("at", "reported_at")}) for topic, said in once]
            return sorted(map(str, timeless)), set(queue(log, topics)), fragile.passed

        return asyncio.run(work())

    whole, waiting, moments = told(None)
    assert moments > 10 and len(whole) == 5
    for moment in range(moments):
        found = told(moment)
        assert found[:2] == (whole, waiting), f"killed at moment {moment}"


@pytest.mark.parametrize("back_to", [0, 1, 3])
def test_a_store_that_has_lost_its_writes_publishes_no_decision_twice_and_none_is_lost(back_to: int) -> None:
    """The topics are read anew, each from where the state was: reviews may come before what they are of."""
    topics, rng = clinic(pairs=0.5), random.Random(back_to)
    answers = [answer(f"o{i}", rng.choice([0.5, 0.9]), i) for i in range(40)]
    flags = [flag(f"o{rng.randrange(45)}", f"f{rng.randrange(3)}") for _ in range(20)]
    reviews = [review(f"o{rng.randrange(45)}", rng.choice(["ada", "bob", "cyd"]), rng.random() < 0.5) for _ in range(80)]
    parts: list[Words] = [[*answers[n * 10 :][:10], *flags[n * 5 :][:5], *reviews[n * 20 :][:20]] for n in range(4)]

    async def told(lose: bool) -> tuple[Any, ...]:
        log, store = MemoryLog(), MemoryStore()
        await log.create(topics.all())
        copies = [copy.deepcopy(store._shards)]

        def opened() -> Any:
            log._groups.clear()
            (lane,) = [lane for lane in lanes(topics.project, topics, log, store) if lane.name == "review"]
            lane.max_records = 7
            return lane

        lane = opened()
        for part in parts:
            await log.send([sent(topics, said) for said in part])
            while await lane.turn(0):
                pass
            copies.append(copy.deepcopy(store._shards))
        if lose:
            store._shards = copies[back_to]
            lane = opened()
            while await lane.turn(0):
                pass
        found = [(x["stay_id"], x["returned"]) for x in labels(log, topics)]
        assert len(found) == len({name for name, _ in found}), "each once"
        ended = [end.id for end in reviewed(log, topics) if end.state == "labelled"]
        return sorted(found), sorted(ended), set(queue(log, topics))

    whole, again = asyncio.run(told(False)), asyncio.run(told(True))
    assert whole == again and len(whole[0]) > 10 and len(whole[2]) > 3


def test_a_project_without_reviews_has_none_of_its_topics_and_lanes() -> None:
    from tests.services.shop import declared

    topics = Topics(declared(None))
    names = {topic.name for topic in topics.all()}
    assert not names & {topics.flags, topics.reviews, topics.queue, topics.reviewed}
    assert "review" not in [lane.name for lane in lanes(topics.project, topics, MemoryLog(), MemoryStore())]


def test_in_the_whole_loop_a_decision_is_an_event_like_any_other(tmp_path: Path) -> None:
    """It reaches the views over label events, the outcomes and the offline tables."""
    from tests.services import chargebacks as shop

    @ps.features(by=shop.Report.payment_id)
    class Reports:
        seen = ps.count(shop.Report, over="30d")

    @ps.model(
        scores=shop.Payment,
        features=[shop.Payment.amount],
        label=ps.label(shop.Report.fraudulent, within="6h", sources=ps.sources(shop.Report.reporter, {"bank": 1, "people": 0.5})),
        review=ps.review(source="people"),
    )
    def judged() -> ps.Learner:
        from river import linear_model

        return ps.Learner(online=linear_model.LogisticRegression())

    project = ps.Project("shop", [judged], rows={shop.Report: [Reports]})

    async def work() -> shop.Machine:
        machine = shop.Machine(project, tmp_path, 2)
        topics, log = machine.embedded.topics, machine.embedded.log
        await machine.embedded.start()
        await machine.publish([shop.payment(n, n / 10) for n in range(10)], to_micros(shop.START) + HOUR)
        said = flag("p003", "ann"), review("p003", "ada", True)
        for topic, word in zip((topics.flags, topics.reviews), said, strict=True):
            word = msgspec.structs.replace(word, model="judged")
            await log.send([Send(topic, b"p003", msgspec.json.encode(word))])
        await machine.publish([shop.payment(10, 2)], to_micros(shop.START) + 3 * HOUR)
        await machine.publish([], to_micros(shop.START) + 20 * HOUR)
        return machine

    machine = asyncio.run(work())
    topics, log = machine.embedded.topics, machine.embedded.log
    found = [msgspec.json.decode(v or b"", type=Outcome) for v in values(log, topics.outcomes("judged"), 2)]
    assert [(o.id, o.label, o.source) for o in found] == [("p003", True, "people")]
    rows = [msgspec.json.decode(v or b"") for v in values(log, "shop.rows.reports", 2)]
    assert [row["id"] for row in rows if "p003" in str(row)] != [], "a view takes it, too"
    reports = machine.tables.table("reports").arrow().to_pylist()
    assert [(r["payment_id"], r["fraudulent"], r["reporter"]) for r in reports] == [("p003", True, "people")]
