"""Features that are lists, or split by categories, are inputs of models like others, number by number."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

import penstock as ps
from penstock.event import to_micros
from penstock.online.lookup import columns_of
from penstock.records import Prediction
from penstock.services.simulate import simulate


@ps.event("payments")
class Payment:
    payment_id: ps.Id[str]
    card: ps.Key[str]
    kind: str
    amount: float
    at: ps.EventTime


@ps.event("chargebacks")
class Chargeback:
    payment_id: ps.Key[str]
    fraudulent: bool
    at: ps.EventTime


@ps.features(by=Payment.card)
class Card:
    recent = ps.last_k(Payment.amount, 3)
    usual = ps.top(Payment.amount, 2, over="7d")
    by_kind = ps.sum(Payment.amount, over="24h", per=ps.among(Payment.kind, "food", "fuel"))

    @ps.derived
    def rise(self, now: Payment) -> float:
        return now.amount - self.recent[0] + self.by_kind["food"]


@ps.model(
    scores=Payment,
    features=[Payment.amount, Card.recent, Card.by_kind, Card.rise, Card.usual],
    label=ps.label(Chargeback.fraudulent, within="1d"),
    monitors=[ps.drift(Card.recent, Card.by_kind)],
    retrain=ps.incremental("6h"),
)
def fraud() -> ps.Learner:
    from river import linear_model, preprocessing

    return ps.Learner(online=preprocessing.StandardScaler() | linear_model.LogisticRegression())


project = ps.Project("cards", [fraud])
START = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = (
    *("Payment.amount", "Card.recent[0]", "Card.recent[1]", "Card.recent[2]"),
    *("Card.by_kind[food]", "Card.by_kind[fuel]", "Card.by_kind[other]", "Card.rise", "Card.usual[0]", "Card.usual[1]"),
)


def test_every_number_is_an_input_and_reaches_the_answer(tmp_path: Path) -> None:
    assert fraud.inputs == NAMES
    events = list[tuple[str, bytes, bytes, int]]()
    for i in range(300):
        at = START + timedelta(minutes=10 * i)
        said = {
            "payment_id": f"p{i}",
            "card": f"c{i % 3}",
            "kind": ["food", "rent", "fuel"][i // 3 % 3],
            "amount": float(i),
            "at": at,
        }
        events.append(("payments", f"c{i % 3}".encode(), msgspec.json.encode(said), to_micros(at)))
        told = {"payment_id": f"p{i}", "fraudulent": i % 7 == 0, "at": at + timedelta(minutes=1)}
        events.append(("chargebacks", f"p{i}".encode(), msgspec.json.encode(told), to_micros(at) + 60_000_000))
    found = asyncio.run(simulate(project, events, tmp_path))
    assert (found.audit.rows, found.audit.predictions, found.audit.lost) == (300, 300, 0), found.audit.complaints
    ends = asyncio.run(found.machine.log.ends(["cards.predictions.fraud"]))

    async def last() -> dict[str, float]:
        reader = await found.machine.log.reader(dict.fromkeys(ends, 0))
        (batch,) = await reader.read(1_000, 0.0)
        answer = msgspec.json.decode(batch.values[-1] or b"", type=Prediction)
        return msgspec.json.decode(answer.inputs, type=dict[str, float])

    inputs = asyncio.run(last())
    assert tuple(inputs) == NAMES
    assert [inputs[f"Card.recent[{k}]"] for k in range(3)] == [296.0, 293.0, 290.0]
    assert inputs["Card.rise"] == 299.0 - 296.0 + inputs["Card.by_kind[food]"]


def test_reads_take_a_feature_of_many_numbers_by_its_name() -> None:
    for what in (Card.recent, "Card.recent", ["Card.recent[0]", "Card.recent[1]", "Card.recent[2]"]):
        assert columns_of(project, what) == NAMES[1:4]
    assert set(columns_of(project, fraud)) == set(NAMES[1:])
