"""Two models that score different events: the rows of both come from the same shards, on two topics, in any order."""

from __future__ import annotations

import asyncio
from pathlib import Path

import penstock as ps
from penstock.proof.audit import audit
from penstock.publish import FOREVER
from penstock.services.embedded import Embedded


@ps.event("bought")
class Bought:
    order_id: ps.Id[str]
    shop: ps.Key[str]
    at: ps.EventTime


@ps.event("returned")
class Returned:
    return_id: ps.Id[str]
    shop: ps.Key[str]
    at: ps.EventTime


@ps.event("checked")
class Checked:
    checked_id: ps.Key[str]
    bad: bool
    at: ps.EventTime


@ps.features(by=[Bought.shop, Returned.shop])
class Shop:
    bought_1d = ps.count(Bought, over="1d")
    returned_1d = ps.count(Returned, over="1d")


def learner() -> ps.Learner:
    from sklearn.linear_model import LogisticRegression

    return ps.Learner(batch=LogisticRegression())


@ps.model(scores=Bought, features=[Shop.returned_1d], label=ps.label(Checked.bad, within="1d"))
def kept() -> ps.Learner:
    return learner()


@ps.model(scores=Returned, features=[Shop.bought_1d], label=ps.label(Checked.bad, within="1d"))
def abused() -> ps.Learner:
    return learner()


def test_every_row_of_both_events_is_answered(tmp_path: Path) -> None:
    async def go() -> tuple[int, list[str]]:
        machine = Embedded(ps.Project("two", [kept, abused]), tmp_path)
        await machine.start()
        events = []
        for n in range(200):
            topic, name = (("bought", "order_id"), ("returned", "return_id"))[n // 3 % 2]
            text = f'{{"{name}":"e{n}","shop":"s{n % 3}","at":"2026-01-01T{n // 60:02}:{n % 60:02}:00Z"}}'
            events.append((topic, b"s%d" % (n % 3), text.encode(), n))
        machine.lanes[0].max_records = 10  # many writes, before inference reads any
        await machine.publish(events, FOREVER)
        await machine.settle()
        await machine.close()
        found = await audit(machine.log, machine.topics)
        return found.predictions, found.complaints

    assert asyncio.run(go()) == (200, [])
