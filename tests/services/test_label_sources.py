"""Who may label, and how much of it counts: trust, caps and alarms, on the log in memory; and why silence is waited for."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from tests.services.shop import LENGTH, START, WITHIN, World, decision, prediction

import penstock as ps
from penstock.duration import DAY, MINUTE
from penstock.event import from_micros, to_micros
from penstock.label import MOST
from penstock.log import Send
from penstock.log.memory import MemoryLog
from penstock.records import Alarm, Clock, Cohort, Mix, Outcome, Statistic
from penstock.services.monitoring.answers.ledger import Answer, Settled
from penstock.services.monitoring.counting.window import Counting, Tallied, Window
from penstock.services.monitoring.monitors.sources import LEAST, excess
from penstock.services.monitoring.service import lanes
from penstock.statistics.binary import measured
from penstock.statistics.quality import Sums
from penstock.statistics.quota import LEVELS
from penstock.store.memory import MemoryStore
from penstock.topics import Topics


@ps.event("orders")
class Order:
    order_id: ps.Id[str]
    shop: ps.Key[str]
    amount: float
    at: ps.EventTime


@ps.event("paid")
class Paid:
    order_id: ps.Key[str]
    late: bool
    teller: str | None
    at: ps.EventTime


SOURCES = ps.sources(Paid.teller, {"bank": 1, "shop": 0.2}, others=0.05)


def topics_of(otherwise: bool | None, partitions: int, **more: Any) -> Topics:
    @ps.model(
        scores=Order,
        features=[Order.amount],
        label=ps.label(Paid.late, within="6h", otherwise=otherwise, **more),
        monitors=[ps.skill(0.0, over="2d", every="12h", least=20)],
    )
    def late() -> ps.Learner:
        raise NotImplementedError

    return Topics(ps.Project("shop", [late]), partitions)


class Said:
    """What came out."""

    def __init__(self, topics: Topics, log: MemoryLog, partitions: int) -> None:
        def all_of(topic: str, n: int, kind: Any) -> list[Any]:
            from penstock.log import Partition

            return [msgspec.json.decode(v or b"", type=kind) for p in range(n) for v in log._stores[Partition(topic, p)].values]

        self.outcomes: list[Outcome] = all_of(topics.outcomes("late"), partitions, Outcome)
        self.windows: list[Statistic] = all_of(topics.statistics("late"), 1, Statistic)
        self.cohorts: list[Cohort] = all_of(topics.cohorts("late"), 1, Cohort)
        self.alarms: list[Alarm] = all_of(topics.alarms, 1, Alarm)

    def counts(self, word: str) -> int:
        return sum(window.counts.get(word, 0) for window in self.windows)


async def _told(
    predictions: World, labels: list[tuple[int, str, bool, str | None]], end: int, otherwise: bool | None = None,
    partitions: int = 1, **more: Any,
) -> Said:  # fmt: skip
    topics, log = topics_of(otherwise, partitions, **more), MemoryLog()
    await log.create(topics.all())
    edges = {"Order.amount": [10.0]}
    await log.send([Send(topics.models, b"late/v1", decision("v1", edges, {"Order.amount": [1, 1, 0]}))])
    topic = topics.predictions("late")
    answers = [Send(topic, p.id.encode(), msgspec.json.encode(p)) for p in predictions.predictions]
    values = [{"order_id": n, "late": late, "teller": who, "at": from_micros(at)} for at, n, late, who in sorted(labels, key=str)]
    values.sort(key=lambda value: str(value["at"]))
    await log.send(answers + [Send("paid", str(v["order_id"]).encode(), msgspec.json.encode(v)) for v in values])
    clocks = []
    for name, publishers in (("paid", ["users"]), (topic, [f"inference.{q}" for q in range(partitions)])):
        ends = {name: {p.number: at for p, at in (await log.ends([name])).items()}}
        clocks += [Clock(publisher=who, before=end, ends=ends) for who in publishers]
    await log.send([Send(topics.clock, c.publisher.encode(), msgspec.json.encode(c)) for c in clocks])
    running = lanes(topics.project, topics, log, MemoryStore())
    while any([await lane.turn(0) for lane in running]):
        pass
    return Said(topics, log, partitions)


def told(*given: Any, **more: Any) -> Said:
    """Publish a history and read what comes out: answers, labels, everything before `end` is out, and what of `_told`."""
    return asyncio.run(_told(*given, **more))


def answer(name: str, time: int, score: float = 0.7) -> Any:
    return prediction(name, "s", time, {"v1": score}, "v1", {"Order.amount": 5.0})


HOUR = 60 * MINUTE
YES, NO = True, False
CASES: dict[str, tuple[list[tuple[int, bool, str | None]], dict[str, int], list[tuple[bool, str]]]] = {
    # labels as (hours after the answer, value, source), counts, outcomes as (label, source)
    "one source": ([(1, YES, "bank")], {"outcomes": 1}, [(YES, "bank")]),
    "the trusted one later": (
        [(1, YES, "shop"), (2, NO, "bank")], {"outcomes": 1, "corrected": 1}, [(YES, "shop"), (NO, "bank")]
    ),
    "the trusted one first": ([(1, NO, "bank"), (2, YES, "shop")], {"outcomes": 1, "outranked": 1}, [(NO, "bank")]),
    "equals: the newer": ([(1, YES, "shop"), (2, NO, "shop")], {"outcomes": 1, "corrected": 1}, [(YES, "shop"), (NO, "shop")]),
    "confirmed": ([(1, YES, "web"), (2, YES, "bank")], {"outcomes": 1, "confirmed": 1}, [(YES, "others"), (YES, "bank")]),
    "repeated by a lesser one": ([(1, YES, "bank"), (2, YES, "shop")], {"outcomes": 1, "duplicate": 1}, [(YES, "bank")]),
    "nobody said who": ([(1, YES, None), (2, NO, "shop")], {"outcomes": 1, "corrected": 1}, [(YES, "others"), (NO, "shop")]),
    "outranked early": ([(-2, YES, "bank"), (-1, NO, "web")], {"parked": 1, "outranked": 1, "outcomes": 1}, [(YES, "bank")]),
    "corrected early": ([(-2, YES, "web"), (-1, NO, "bank")], {"parked": 1, "corrected": 1, "outcomes": 1}, [(NO, "bank")]),
}  # fmt: skip


@pytest.mark.parametrize("otherwise", [None, False])
@pytest.mark.parametrize("case", CASES)
def test_where_sources_contradict_the_more_trusted_one_is_right(case: str, otherwise: bool | None) -> None:
    labels, counts, outcomes = CASES[case]
    time = START + DAY
    made = World([answer("o", time)])
    came = [(time + h * HOUR, "o", late, who) for h, late, who in labels]
    said = told(made, came, START + 3 * DAY, otherwise, sources=SOURCES)
    total = {word: said.counts(word) for word in counts}
    assert total == counts
    assert [(o.label, o.source) for o in said.outcomes] == outcomes
    final, source = outcomes[-1]
    alone = told(made, [(time + HOUR, "o", final, source)], START + 3 * DAY, otherwise, sources=SOURCES)
    for a, b in zip(said.cohorts[-1:], alone.cohorts[-1:], strict=True):
        assert a.quality == b.quality, "what was corrected leaves nothing behind"


def flood(share: float, seed: int = 0) -> tuple[World, list[tuple[int, str, bool, str | None]]]:
    """Six days of answers that are right, labelled by the bank; on the fourth day `share` of the labels are of the shop, and
    turned round."""
    rng = random.Random(seed)
    made, labels = World(), list[tuple[int, str, bool, str | None]]()
    for i in range(2400):
        time = START // DAY * DAY + DAY + i * 6 * DAY // 2400
        truth = rng.random() < 0.4
        made.predictions.append(answer(f"o{i}", time, 0.9 if truth else 0.1))
        poisoned = 1200 <= i < 1600 and rng.random() < share
        labels.append((time + rng.randrange(1, 300) * MINUTE, f"o{i}", truth != poisoned, "shop" if poisoned else "bank"))
    return made, labels


@pytest.mark.parametrize("otherwise", [None, False])
@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_a_source_that_floods_is_cut_to_its_share_and_raises_an_alarm(share: float, otherwise: bool | None) -> None:
    made, labels = flood(share)
    end = START + 9 * DAY
    tight = ps.sources(Paid.teller, {"bank": 1, "shop": 0.002}, others=0.001)
    said = told(made, labels, end, otherwise, sources=tight)
    loose = told(made, labels, end, otherwise)
    assert {a.signal for a in said.alarms if a.state == "raised"} == {"sources"}, "and no other"
    first = next(a for a in said.alarms if a.state == "raised")
    assert first.evidence["sources"][0]["source"] == "shop"
    assert {a.state for a in said.alarms} >= {"raised", "cleared"}
    for window in said.windows:
        counted, shop = window.quality.get("served"), window.sources.get("shop")
        if counted is None or shop is None:
            continue
        assert shop.due - window.counts.get("capped", 0) <= 0.002 * counted.n + 1e-9
    told_by_shop = sum(who == "shop" for _, _, _, who in labels)
    assert said.counts("capped") > 0.9 * told_by_shop
    worst, unguarded = (max(w.log_loss["served"] for w in s.windows if "served" in w.log_loss) for s in (said, loose))
    assert worst == pytest.approx(-math.log(0.9), rel=0.01)
    assert unguarded > worst + share


def test_within_its_share_a_source_counts_in_full_and_without_an_alarm() -> None:
    made, labels = flood(0.1)
    said = told(made, labels, START + 9 * DAY, sources=SOURCES)
    assert (said.counts("capped"), said.alarms) == (0, [])
    assert sum(w.sources["shop"].due for w in said.windows if "shop" in w.sources) == sum(who == "shop" for *_, who in labels)


def test_names_that_nobody_declared_share_one_cap() -> None:
    made, labels = flood(0.2)
    invented = [(at, name, late, f"shop{i}" if who == "shop" else who) for i, (at, name, late, who) in enumerate(labels)]
    said = told(made, invented, START + 9 * DAY, sources=SOURCES)
    assert {name for w in said.windows for name in w.sources} == {"bank", "others"}
    assert {a.signal for a in said.alarms} == {"sources"}


def test_a_window_of_few_labels_raises_no_alarm_and_clears_none() -> None:
    def said(shop: int, bank: int) -> bool | None:
        return excess(SOURCES, {"shop": Mix(labels=shop), "bank": Mix(labels=bank)}, {})[0]

    assert [said(0, 0), said(1, 0), said(LEAST - 1, 0), said(20, 9)] == [None] * 4
    assert [said(LEAST, 0), said(20, 10), said(LEAST, LEAST)] == [True] * 3
    assert [said(0, LEAST), said(6, 24), said(8, 24)] == [False] * 3


def test_few_labels_all_beyond_their_cap_are_left_out_without_an_alarm() -> None:
    made, labels = flood(0.0)
    made.predictions, few = made.predictions[::100], [(at, name, late, "shop") for at, name, late, _ in labels[::100]]
    said = told(made, few, START + 9 * DAY, sources=SOURCES)
    assert (said.counts("capped"), said.alarms) == (len(few), [])


@pytest.mark.parametrize("otherwise", [None, False])
def test_what_counts_does_not_depend_on_the_number_of_partitions(otherwise: bool | None) -> None:
    made, labels = flood(0.3)
    found = [told(made, labels, START + 9 * DAY, otherwise, n, sources=SOURCES) for n in (1, 4)]
    assert found[0].windows == found[1].windows
    assert found[0].cohorts == found[1].cohorts
    assert found[0].alarms == found[1].alarms
    assert found[0].counts("capped") > 0


# --- silence ----------------------------------------------------------------------------------------------------------


def test_the_report_of_a_window_with_all_the_sources_that_may_be_named_fits_into_its_topic() -> None:
    """Else monitoring would stop for good: what is too large stays so."""
    topics = topics_of(None, 1)
    limit = next(contract.topic.max_bytes for contract in topics.contracts() if contract.topic.name == topics.partials)
    answer = Answer(
        "o", "k", from_micros(0), msgspec.Raw(b"{}"), 0.5, dict.fromkeys(("v1", "v2", "online-1"), 0.5), "v1", "champion"
    )
    full = Tallied()
    for cohort in (0, DAY):  # a horizon seldom ends with a window
        full.judge(Settled(answer, True, 0, True, None, cohort, 1), True, cohort, 1)
    window = Window(0, capped={f"source {rank}": dict.fromkeys(range(LEVELS), full) for rank in range(MOST)})
    [partial] = window.partials("late", DAY, 0, 1, {})
    assert 2 * len(msgspec.json.encode(partial)) < limit, "counts of four digits take more, but not twice as much"


@pytest.mark.parametrize(("above", "missed"), [(None, 2), (0.2, 1), (0.9, 3)])
def test_a_label_contradicts_an_answer_by_the_threshold_that_the_model_declares(above: float | None, missed: int) -> None:
    (model,) = topics_of(None, 1, sources=SOURCES).project.models
    if above is not None:
        model = replace(model, value=ps.value(true_positive=1, false_positive=-1, above=above))
    window, counting = Window(0), Counting.of(model, LENGTH)
    for score, label in ((0.1, True), (0.3, True), (0.8, True), (0.1, False)):
        ask = Answer("o", "s", from_micros(0), msgspec.Raw(b"{}"), score, {"v1": score}, "v1", "champion")
        window.meet(Settled(ask, label, 0, True, None, 0, 1), counting)
    mix = window.sources["bank"]
    assert (mix.judged, mix.missed) == (4, missed)


def test_what_is_known_before_the_horizon_is_not_taken_for_the_whole() -> None:
    """Late payments are told at once, and silence means on time. At any time what is counted of a cohort is what all of it will
    show, though of the labels that came within an hour every one is positive."""
    rng = random.Random(4)
    made, labels, truth = World(), list[tuple[int, str, bool, str | None]](), dict[str, bool]()
    start = START // LENGTH * LENGTH + LENGTH
    for i in range(3000):
        time = start + i * 2 * DAY // 3000
        score = rng.random()
        truth[f"o{i}"] = rng.random() < score * 0.4
        made.predictions.append(answer(f"o{i}", time, score))
        if truth[f"o{i}"]:
            labels.append((time + rng.randrange(1, 60) * MINUTE, f"o{i}", True, "bank"))
    said = told(made, labels, start + 4 * DAY, False, sources=SOURCES)
    due, worst = 0, 0.0
    for window in said.windows:
        end = to_micros(window.end)
        over = [p for p in made.predictions if to_micros(window.start) <= to_micros(p.time) + WITHIN < end]
        sums = Sums()
        for p in over:
            sums.add(p.score, truth[p.id])
        quality = window.quality.get("served")
        assert (quality is not None) == bool(over)
        if quality is None:
            continue
        due += quality.n
        assert quality == sums.frozen(), "exactly the outcomes whose horizon passed in it, positive or not"
        rate = measured(quality)["accuracy"]
        worst = max(worst, abs(quality.positives / quality.n - 0.2))
        assert rate.low <= sum((p.score >= 0.5) == truth[p.id] for p in over) / len(over) <= rate.high
    assert due == 3000
    assert worst < 0.06, "a label rate of what is known at once would be 1"
    for cohort in said.cohorts:
        if cohort.labels and not cohort.complete and "served" in cohort.quality:
            served = cohort.quality["served"]
            assert abs(served.positives / served.n - 0.2) < 0.1


def test_a_source_whose_labels_are_turned_round_raises_the_alarm_and_the_others_do_not() -> None:
    rng, made, labels = random.Random(7), World(), list[tuple[int, str, bool, str | None]]()
    for number in range(10 * 100):
        time, truth = START + number * LENGTH // 100, rng.random() < 0.5
        who, turned = ("bank", False) if number % 2 else ("shop", number >= 700)
        made.predictions.append(answer(f"o{number}", time, 0.8 if truth == (rng.random() < 0.9) else 0.2))
        labels.append((time + 10 * MINUTE, f"o{number}", truth != turned, who))
    both = ps.sources(Paid.teller, {"bank": 1, "shop": 1})
    for partitions in (1, 3):
        found = told(made, labels, START + 12 * LENGTH, sources=both, partitions=partitions)
        (raised,) = [a for a in found.alarms if a.signal == "sources" and a.state == "raised"]
        assert [(each["source"], each["rate"]) for each in raised.evidence["turned"]] == [("shop", "contradicts")]
        assert START + 7 * LENGTH < to_micros(raised.at) <= START + 9 * LENGTH and raised.evidence["sources"] == []
        assert sum(mix.judged for window in found.windows for mix in window.sources.values()) == 1_000
