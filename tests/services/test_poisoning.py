"""The poisoning drill: one source turns labels round, and the whole loop goes on as if it had not: its share is cut, an alarm
names it, and the champion stays what it is without it."""

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
from penstock.log import Log
from penstock.proof.audit import read_all
from penstock.records import Alarm, Decision, Prediction, Run
from penstock.services.simulate import simulate

START = datetime(2026, 3, 1, tzinfo=UTC)
DAYS, POISONED = 20, range(8, 14)


@ps.event("payments")
class Payment:
    payment_id: ps.Id[str]
    card: ps.Key[str]
    amount: float
    at: ps.EventTime


@ps.event("chargebacks")
class Chargeback:
    payment_id: ps.Key[str]
    fraudulent: bool
    reporter: str
    at: ps.EventTime


def shop(quarantine: bool = False) -> ps.Project:
    @ps.model(
        scores=Payment,
        features=[Payment.amount],
        label=ps.label(
            Chargeback.fraudulent,
            within="12h",
            sources=ps.sources(Chargeback.reporter, {"bank": 1, "merchant": 0.005}, others=0.005, quarantine=quarantine),
        ),
        monitors=[ps.skill(0.0, over="3d", every="1d", least=50)],
        retrain=ps.every("6d", on="6d", first="5d") | ps.on_alarm(at_most_every="1d", on="6d"),
        gates=[ps.no_worse(by=0.01, least=50)],
        rollout=[ps.shadow("1d")],
    )
    def fraud() -> ps.Learner:
        from sklearn.linear_model import LogisticRegression

        return ps.Learner(batch=LogisticRegression())

    return ps.Project("shop", [fraud])


def history(share: float, silent: bool = False) -> list[tuple[str, bytes, bytes, int]]:
    """Payments every quarter of an hour, the more often fraudulent the greater; during six days a share of the labels is of the
    merchant, and turned round. `silent`: he says nothing instead."""
    rng, found = random.Random(1), []

    def say(topic: str, key: str, at: datetime, **more: Any) -> None:
        value = msgspec.json.encode({"payment_id": key, **more, "at": at})
        found.append((topic, str(more.get("card", key)).encode(), value, to_micros(at)))

    for i in range(DAYS * 96):
        at, amount = START + timedelta(minutes=15 * i), rng.gauss(0, 1)
        fraudulent = rng.random() < 1 / (1 + math.exp(-2 * amount))
        poisoned = rng.random() < share and i // 96 in POISONED
        say("payments", f"p{i:05}", at, card=f"c{i % 50}", amount=amount)
        who = "merchant" if poisoned else "bank"
        later = at + timedelta(minutes=rng.randrange(10, 600))
        if not (silent and poisoned):
            say("chargebacks", f"p{i:05}", later, fraudulent=fraudulent != poisoned, reporter=who)
    return sorted(found, key=lambda event: event[3])


class Loop:
    """What became of a history."""

    def __init__(self, share: float, quarantine: bool = False, silent: bool = False) -> None:
        async def run() -> None:
            finished = await simulate(shop(quarantine), history(share, silent))
            self.audit, topics, log = finished.audit, finished.machine.topics, finished.machine.log
            self.alarms = await records(log, topics.alarms, Alarm)
            self.decisions = await records(log, topics.models, Decision)
            self.runs = await records(log, topics.runs, Run)
            self.scores = {p.id: p.score for p in await records(log, topics.predictions("fraud"), Prediction)}

        async def records(log: Log, topic: str, kind: Any) -> list[Any]:
            return [msgspec.json.decode(value, type=kind) for _, _, _, value, _ in await read_all(log, topic) if value]

        asyncio.run(run())

    @property
    def champions(self) -> list[tuple[str, datetime]]:
        return [(d.version, d.at) for d in self.decisions if d.kind == "champion"]


@pytest.fixture(scope="module")
def clean() -> Loop:
    return Loop(0.0)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_turned_labels_of_one_source_are_cut_and_named_and_the_champion_stays(share: float, clean: Loop) -> None:
    loop = Loop(share)
    assert (loop.audit.lost, loop.audit.counted_twice) == (0, 0), loop.audit.complaints
    raised = [a for a in loop.alarms if a.state == "raised"]
    assert {a.signal for a in raised} == {"sources"}
    assert {each["source"] for a in raised for each in a.evidence["sources"]} == {"merchant"}
    assert len(loop.champions) >= 2
    assert loop.champions == clean.champions, "the same versions at the same times: the alarm started no fit"
    left = max(run.data.get("left_out", {}).get("merchant", 0) for run in loop.runs)
    told = sum(b'"merchant"' in value for _, _, value, _ in history(share))
    assert told - left <= 0.005 * DAYS * 96 + 1, "no more than its share was learned"
    gaps = [abs(score - loop.scores[name]) for name, score in clean.scores.items()]
    assert max(gaps) < 0.025, "every answer is nearly that of a world without the merchant"


def test_with_quarantine_nothing_that_the_source_said_is_learned(clean: Loop) -> None:
    loop, silent = Loop(0.2, quarantine=True), Loop(0.2, silent=True)
    assert loop.champions == clean.champions
    (raised,) = [a for a in loop.alarms if a.state == "raised"]
    assert len(loop.runs) == len(silent.runs) >= 3
    for run, twin in zip(loop.runs, silent.runs, strict=True):
        assert run.data["sha256"] == twin.data["sha256"], "the same rows as where the merchant said nothing"
    held = [sum(run.data.get("quarantined", {}).values()) for run in loop.runs]
    assert any(held) and not any(n for n, run in zip(held, loop.runs, strict=True) if run.at < raised.at)
