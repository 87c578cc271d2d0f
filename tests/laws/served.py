"""A street of shops whose rows are served by the feature store in memory and archived: for tests that verify them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

import penstock as ps
from penstock.event import event_of, to_micros
from penstock.offline import Tables
from penstock.proof.archive import past_of, served_of
from penstock.proof.history import Past
from penstock.proof.verify import Report, Served, verify
from penstock.services.embedded import Embedded
from penstock.store import Store
from penstock.topics import Topics

START = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE = 60_000_000


@ps.event("asks")
class Ask:
    ask_id: ps.Id[str]
    shop: ps.Key[str]
    buyer: str | None
    price: float
    at: ps.EventTime


@ps.event("sales")
class Sale:
    sale_id: ps.Id[str]
    shop: ps.Key[str]
    buyer: str | None
    paid: float | None
    at: ps.EventTime


@ps.event("visits")
class Visit:
    """Without an id, and keyed by who asks: it reaches shops by way of the entry."""

    buyer: ps.Key[str]
    shop: str
    length: float
    at: ps.EventTime


@ps.features(by=[Ask.shop, Sale.shop, Visit.shop])
class Shop:
    asks_1h = ps.count(Ask, over="1h")
    paid_1h = ps.mean(Sale.paid, over="1h")
    paid_1d = ps.sum(Sale.paid, over="1d")
    most_6h = ps.max(Sale.paid, over="6h")
    least_13h = ps.min(Ask.price, over="13h")
    length_1h = ps.mean(Visit.length, over="1h")
    newest = ps.last(Sale.paid)
    idle = ps.since_last(Sale)

    @ps.derived
    def share(self) -> float:
        return self.paid_1h / (self.asks_1h - 1.0)

    @ps.derived
    def dear(self, now: Ask) -> float:
        return now.price - self.newest


@ps.features(by=[Ask.buyer, Sale.buyer, Visit.buyer])
class Buyer:
    asks_1d = ps.count(Ask, over="1d")
    paid_1d = ps.sum(Sale.paid, over="1d")
    visits_1h = ps.count(Visit, over="1h")
    last_paid = ps.last(Sale.paid)


@ps.features(by=[Ask.shop, Sale.shop, Visit.shop])
class Every:
    """Every aggregate, every form of one."""

    ever = ps.count(Sale)
    visits_1h = ps.count(Visit, over="1h")
    dear_1d = ps.count(Ask, "1d", where=lambda ask: ask.price > 0.5)
    by_buyer = ps.sum(Ask.price, "1d", per=ps.among(Ask.buyer, "x", "y"))
    paid_2m = ps.mean(Sale.paid, over="2m")
    spread = ps.std(Sale.paid, over="1d")
    square = ps.var(Ask.price, over="7d")
    oldest = ps.first(Sale.buyer, over="6h")
    newest = ps.last(Ask.buyer)
    recent = ps.last_k(Sale.paid, 3)
    buyers = ps.distinct(Ask.buyer, over="1d")
    prices = ps.distinct(Ask.price)
    middle = ps.quantile(Ask.price, 0.5, over="1d")
    high = ps.quantile(Ask.price, 0.9)
    usual = ps.top(Ask.buyer, 2)
    warm = ps.decayed_count(Ask, "2h")
    warmth = ps.decayed_sum(Sale.paid, "6h")
    weighed = ps.decayed_mean(Sale.paid, "6h")
    sold = ps.ratio(ps.count(Sale, "1d"), ps.count(Ask, "1d"))

    @ps.derived
    def mine(self, now: Ask) -> float:
        return now.price - self.by_buyer["x"] + self.recent[1]


@ps.features(by=[Ask.shop, Sale.shop], ttl="3h")
class Fading:
    asks_1h = ps.count(Ask, over="1h")
    newest = ps.last(Sale.paid)
    paid_3h = ps.sum(Sale.paid, over="3h")


@ps.features(by=[Ask.buyer, Sale.buyer], lateness="30m")
class Strict:
    asks_1d = ps.count(Ask, over="1d")
    paid_1d = ps.sum(Sale.paid, over="1d")


ASK = event_of(Ask)
PROJECT = ps.Project("street", rows={Ask: [Shop, Buyer]})
WIDE = ps.Project("wide", rows={Ask: [Every, Fading, Strict]})


class Batch(NamedTuple):
    """Events that are published together, in this order, and the time that is closed then (minutes; None: none is)."""

    events: Sequence[Any]
    before: float | None


@dataclass
class Street:
    """What is archived of a run."""

    folder: Path
    past: Past
    served: list[Served]
    project: ps.Project = PROJECT

    def verify(self, sample: int | None = None, seed: int = 0) -> Report:
        return verify(self.project.topology, self.past, self.served, sample, seed)


def ask(name: str, minute: float, shop: str = "a", buyer: str | None = "x", price: float = 1.0) -> Ask:
    return Ask(name, shop, buyer, price, START + timedelta(minutes=minute))


def sale(name: str, minute: float, shop: str = "a", buyer: str | None = "x", paid: float | None = 1.0) -> Sale:
    return Sale(name, shop, buyer, paid, START + timedelta(minutes=minute))


def visit(minute: float, shop: str = "a", buyer: str = "x", length: float = 1.0) -> Visit:
    return Visit(buyer, shop, length, START + timedelta(minutes=minute))


def published(
    folder: Path, batches: Sequence[Batch], partitions: int = 1, project: ps.Project = PROJECT, store: Store | None = None
) -> Street:
    """Run the feature store on the batches, each until nothing moves, and archive everything."""

    async def run() -> None:
        machine = Embedded(project, folder, partitions=partitions, store=store, tables=folder / "tables")
        await machine.start()
        for events, minute in batches:
            before = 0 if minute is None else to_micros(START) + int(minute * MINUTE)
            await machine.publish([sent(event) for event in events], before)
            await machine.settle()
        await machine.publish([], 1 << 55)
        await machine.settle()
        await machine.close()

    asyncio.run(run())
    return archived(folder, partitions, project)


def archived(folder: Path, partitions: int = 1, project: ps.Project = PROJECT) -> Street:
    """What the tables in a folder hold."""
    topics, tables = Topics(project, partitions), Tables(folder / "tables")
    return Street(folder, past_of(topics, tables), [served_of(topics, tables, ASK)], project)


def sent(event: Any) -> tuple[str, bytes, bytes, int]:
    kind = event_of(type(event))
    return kind.topic, str(getattr(event, kind.key.name)).encode(), msgspec.json.encode(event), to_micros(event.at)


def drawn(seed: int, count: int = 200, disorder: float = 0.0, late: float = 0.0, batches: int = 6) -> list[Batch]:
    """A day and a half of three kinds of events. `disorder` of them are published out of their order, up to two hours, before
    their time is closed; `late` of them after it was."""
    rng = random.Random(seed)
    found: list[Any] = []
    for i in range(count):
        # whole minutes, so that there are ties
        minute, shop, buyer = rng.randrange(2160), rng.choice("abc"), rng.choice(["x", "y", "z", None])
        price = rng.choice([round(rng.uniform(-50, 50), 2), 0.1, 1e6])
        match rng.randrange(3):
            case 0:
                found.append(ask(f"q{i}", minute, shop, buyer, price))
            case 1:
                found.append(sale(f"s{i}", minute, shop, buyer, rng.choice([price, price, None])))
            case _:
                found.append(visit(minute, shop, buyer or "w", price))
    due = {id(e): to_micros(e.at) + (rng.randrange(120) * MINUTE if rng.random() < disorder else 0) for e in found}
    found.sort(key=lambda e: due[id(e)])
    cuts = sorted(rng.sample(range(1, len(found)), batches - 1))
    parts = [list(found[a:b]) for a, b in zip([0, *cuts], [*cuts, len(found)], strict=True)]
    for i, part in enumerate(parts[:-1]):
        held = [event for event in part if rng.random() < late]
        parts[i] = [event for event in part if event not in held]
        parts[i + 1] = held + parts[i + 1]
    made = []
    for i, part in enumerate(parts):
        honest = min((to_micros(e.at) for later in parts[i + 1 :] for e in later), default=1 << 50)
        newest = max((to_micros(e.at) for e in part), default=0)
        closed = newest if late else min(honest, newest)
        made.append(Batch(part, (closed - to_micros(START)) / MINUTE))
    return made


def minutes(event: dict[str, Any]) -> float:
    """When an event that `Past.spoken` tells of happened."""
    return (to_micros(event["time"]) - to_micros(START)) / MINUTE
