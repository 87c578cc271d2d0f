"""Novelty on the stream: the same counts, alarm and examples for any number of partitions; the refit that it starts ends it."""

from __future__ import annotations

import asyncio
import math
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

import penstock as ps
from penstock.event import to_micros
from penstock.proof.audit import read_all
from penstock.records import Alarm, Candidate, Statistic
from penstock.services.simulate import simulate
from penstock.statistics.novelty import added_unseen

START = datetime(2026, 3, 1, tzinfo=UTC)
DAYS, NEW = 14, 9
"""From day NEW on a fifth of the payments is of amounts that nobody paid before."""


@ps.event("payments")
class Payment:
    payment_id: ps.Id[str]
    card: ps.Key[str]
    amount: float
    weight: float | None
    at: ps.EventTime


@ps.event("chargebacks")
class Chargeback:
    payment_id: ps.Key[str]
    fraudulent: bool
    at: ps.EventTime


@ps.model(
    scores=Payment,
    features=[Payment.amount, Payment.weight],
    label=ps.label(Chargeback.fraudulent, within="12h"),
    monitors=[ps.novelty(every="1d")],
    retrain=ps.every("20d", on="all", first="5d") | ps.on_alarm(at_most_every="3d", on="all"),
)
def fraud() -> ps.Learner:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return ps.Learner(batch=HistGradientBoostingClassifier(max_iter=5))


def history() -> list[tuple[str, bytes, bytes, int]]:
    rng, found = random.Random(1), []

    def say(topic: str, key: str, at: datetime, **more: Any) -> None:
        value = msgspec.json.encode({"payment_id": key, **more, "at": at})
        found.append((topic, str(more.get("card", key)).encode(), value, to_micros(at)))

    for i in range(DAYS * 96):
        at, amount = START + timedelta(minutes=15 * i), rng.gauss(0, 1)
        fraudulent = rng.random() < 1 / (1 + math.exp(-2 * amount))
        if i // 96 >= NEW and rng.random() < 0.2:
            amount = 50 + rng.random()
        if i == 7 * 96:
            amount = -1e30
        say("payments", f"p{i:05}", at, card=f"c{i % 50}", amount=amount, weight=None if rng.random() < 0.1 else rng.random())
        say("chargebacks", f"p{i:05}", at + timedelta(minutes=rng.randrange(10, 600)), fraudulent=fraudulent)
    return sorted(found, key=lambda event: event[3])


Played = tuple[list[Statistic], list[Alarm], list[Candidate]]


def played(partitions: int) -> Played:
    async def run() -> Played:
        machine = (await simulate(ps.Project("shop", [fraud]), history(), partitions=partitions)).machine
        topics = machine.topics

        async def records(topic: str, kind: Any) -> list[Any]:
            return [msgspec.json.decode(value, type=kind) for *_, value, _ in await read_all(machine.log, topic) if value]

        found = [(topics.statistics("fraud"), Statistic), (topics.alarms, Alarm), (topics.candidates, Candidate)]
        statistics, alarms, candidates = [await records(topic, kind) for topic, kind in found]
        return statistics, alarms, candidates

    return asyncio.run(run())


@pytest.fixture(scope="module")
def alone() -> Played:
    return played(1)


def test_what_nobody_paid_before_raises_an_alarm_with_examples_and_the_refit_that_it_starts_ends_it(alone: Played) -> None:
    statistics, alarms, candidates = alone
    (raised, *_) = alarms
    assert (raised.signal, raised.state, raised.at) == ("novelty", "raised", START + timedelta(days=NEW + 1))
    (amount,) = [each for each in raised.evidence["found"] if each.get("input") == "Payment.amount"]
    assert 0.1 < amount["share"] < 0.3 and amount["above"] > 10
    assert sum(odd["inputs"]["Payment.amount"][0] >= 50 for odd in raised.evidence["oddest"]) >= 3
    assert [c.version for c in candidates] == ["v1", "v2"]
    assert {a.signal for a in alarms} == {"novelty"} and alarms[-1].state == "cleared", "the second version knows them"
    (huge,) = [s.novelty["v1"] for s in statistics if s.start == START + timedelta(days=7)]
    assert huge.outside["Payment.amount"] == [1, 0, 0] and any(
        (odd.inputs["Payment.amount"][0] or 0) < -1e29 for odd in huge.oddest
    )


@pytest.mark.parametrize("partitions", [4, 16])
def test_counts_and_alarms_are_the_same_for_any_number_of_partitions(alone: Played, partitions: int) -> None:
    statistics, alarms, candidates = played(partitions)
    assert candidates[0].profile == alone[2][0].profile is not None
    assert [s.novelty for s in statistics] == [s.novelty for s in alone[0]]
    assert [(a.signal, a.state, a.at, a.evidence) for a in alarms] == [(a.signal, a.state, a.at, a.evidence) for a in alone[1]]
    whole: dict[str, Any] = {}
    for statistic in statistics:
        whole = added_unseen(whole, statistic.novelty)
    assert sum(found.answers for found in whole.values()) == sum(sum(found.levels) for found in whole.values()) > 600
