"""A shop whose payments are charged back or not, on the embedded services, with the offline tables that these leave behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd

import penstock as ps
from penstock.event import event_of, to_micros
from penstock.label import Sources
from penstock.offline import Tables
from penstock.publish import FOREVER
from penstock.services.embedded import Embedded

START = datetime(2026, 3, 1, tzinfo=UTC)


@ps.event("payments")
class Payment:
    payment_id: ps.Id[str]
    card: ps.Key[str]
    amount: float
    offset: float | None  # called like a part of the place of a record
    paid_at: ps.EventTime


@ps.event("chargebacks")
class Chargeback:
    payment_id: ps.Key[str]
    fraudulent: bool | None
    reported_at: ps.EventTime


@ps.event("reports")
class Report:
    payment_id: ps.Key[str]
    fraudulent: bool
    reporter: str | None
    reported_at: ps.EventTime


SOURCES = ps.sources(Report.reporter, {"bank": 1, "shop": 0.3}, others=0.2)


@ps.features(by=Payment.card)
class Card:
    payments_1h = ps.count(Payment, over="1h")
    spend_24h = ps.sum(Payment.amount, over="24h")

    @ps.derived
    def surge(self, now: Payment) -> float:
        return now.amount / (self.payments_1h + 1.0)


@ps.model(
    scores=Payment,
    features=[Payment.amount, Payment.offset, Card],
    label=ps.label(Chargeback.fraudulent, within="6h", otherwise=False),  # type: ignore[arg-type]  # may be blank
)
def fraud() -> ps.Learner:
    from river import linear_model

    return ps.Learner(online=linear_model.LogisticRegression())


project = shop = ps.Project("shop", [fraud])


def payment(number: int, hours: float, amount: float = 1.0, card: str = "c") -> dict[str, Any]:
    at = START + timedelta(hours=hours)
    return {"payment_id": f"p{number:03}", "card": card, "amount": amount, "offset": None, "paid_at": at}


def chargeback(number: int, hours: float, fraudulent: bool | None = True) -> dict[str, Any]:
    return {"payment_id": f"p{number:03}", "fraudulent": fraudulent, "reported_at": START + timedelta(hours=hours)}


def report(number: int, hours: float, fraudulent: bool, reporter: str | None) -> dict[str, Any]:
    return chargeback(number, hours, fraudulent) | {"reporter": reporter}


class Machine:
    """The embedded services without those that learn, and the offline tables that they leave behind."""

    def __init__(self, project: ps.Project, folder: Path, partitions: int = 2) -> None:
        self.embedded = Embedded(project, folder, partitions, tables=folder / "tables")
        self.embedded.controls = []
        self.tables = Tables(folder / "tables")

    async def publish(self, said: Sequence[dict[str, Any]], before: int = FOREVER) -> None:
        lines = []
        for each in said:
            event = event_of(Payment if "amount" in each else Report if "reporter" in each else Chargeback)
            lines.append(
                (event.topic, each[event.key.name].encode(), msgspec.json.encode(each), to_micros(each[event.time.name]))
            )
        await self.embedded.publish(lines, before)
        await self.embedded.settle()
        assert self.embedded.archive is not None
        await self.embedded.archive.flush()

    def outcomes(self, model: str) -> pd.DataFrame:
        """The newest outcome of each event, as monitoring published them."""
        found = self.tables.table(self.embedded.topics.outcomes(model)).arrow().to_pandas()
        return found.sort_values(["partition", "offset"]).drop_duplicates("id", keep="last").set_index("id")


def judging(caps: Sources = SOURCES) -> ps.Project:
    """A shop in which several judge: who is right, and how much of it counts."""

    @ps.model(
        scores=Payment, features=[Payment.amount], label=ps.label(Report.fraudulent, within="6h", otherwise=False, sources=caps)
    )
    def judged() -> ps.Learner:
        from river import linear_model

        return ps.Learner(online=linear_model.LogisticRegression())

    return ps.Project("shop", [judged])


def shopping(folder: Path, lines: Sequence[dict[str, Any]], before: int = FOREVER, project: ps.Project = shop) -> Machine:
    machine = Machine(project, folder)

    async def run() -> None:
        await machine.embedded.start()
        await machine.publish(lines, before)

    asyncio.run(run())
    return machine
