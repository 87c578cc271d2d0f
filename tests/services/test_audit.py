"""The audit sees what was lost and what was counted twice, whoever did it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.services.shop import START, Order, Paid

import penstock as ps
from penstock.duration import HOUR, MINUTE
from penstock.event import from_micros
from penstock.label import Label
from penstock.log import Log, Send
from penstock.proof.audit import Audit, audit, lines, read_all
from penstock.publish import FOREVER
from penstock.records import Statistic
from penstock.services.embedded import Embedded
from penstock.topics import Topics


@ps.features(by=Order.shop)
class Shop:
    orders_1d = ps.count(Order, over="1d")


@ps.event("paid")
class Told:
    order_id: ps.Key[str]
    late: bool
    teller: str
    at: ps.EventTime


PAID = ps.label(Paid.late, within="6h")
CAPPED = ps.label(Told.late, within="6h", sources=ps.sources(Told.teller, {"bank": 1, "shop": 0.1}))


def project(label: Label) -> ps.Project:
    @ps.model(scores=Order, features=[Order.amount, Shop], label=label)
    def late() -> ps.Learner:
        from river.linear_model import LogisticRegression

        return ps.Learner(online=LogisticRegression())  # never fitted: nothing says when

    return ps.Project("shop", [late])


def order(i: int) -> bytes:
    at = from_micros(START + i * HOUR)
    return msgspec.json.encode({"order_id": f"o{i}", "shop": f"s{i % 3}", "amount": 1.0 * i, "weight": None, "at": at})


def paid(i: int) -> bytes:
    at, teller = from_micros(START + i * HOUR + 30 * MINUTE), "bank" if i % 3 else "shop"
    return msgspec.json.encode({"order_id": f"o{i}", "late": i % 4 == 0, "teller": teller, "at": at})


def audited(tmp_path: Path, tamper: Callable[[Log, Topics], Any] | None = None, label: Label = PAID) -> Audit:
    """Sixty orders and their labels, one event that cannot be read; then somebody tampers with the topics."""

    async def go() -> Audit:
        machine = Embedded(project(label), tmp_path, 2)
        await machine.start()
        events = [("orders", b"s%d" % (i % 3), order(i), START + i * HOUR) for i in range(60)]
        events += [("paid", b"o%d" % i, paid(i), START + i * HOUR + 30 * MINUTE) for i in range(60)]
        await machine.publish([("orders", b"s0", b"{", START), *sorted(events, key=lambda e: e[3])], FOREVER)
        await machine.settle()
        if tamper is not None:
            await tamper(machine.log, machine.topics)
        found = await audit(machine.log, machine.topics)
        await machine.close()
        return found

    return asyncio.run(go())


def test_a_run_in_which_everything_happened_once_has_no_complaints(tmp_path: Path) -> None:
    found = audited(tmp_path)
    assert found.complaints == []
    assert (found.events_in, found.rows, found.predictions, found.outcomes, found.dead_lettered) == (121, 60, 60, 60, 1)
    assert found.statistics >= 2
    assert next(iter(lines(found))).startswith("events 121   rows 60")
    assert list(lines(found))[-1] == "no version of late ever answered", "it is never fitted"


def test_labels_beyond_the_cap_of_their_source_are_counted_once_though_nobody_served_the_answer(tmp_path: Path) -> None:
    capped = list[int]()

    async def look(log: Log, topics: Topics) -> None:
        found = [
            msgspec.json.decode(value or b"", type=Statistic) for *_, value, _ in await read_all(log, topics.statistics("late"))
        ]
        capped.append(sum(statistic.counts.get("capped", 0) for statistic in found))

    assert audited(tmp_path, look, CAPPED).complaints == []
    assert capped[0] > 0


async def another_event(log: Log, topics: Topics) -> None:
    await log.send([Send("orders", b"s1", order(60))])


async def another_label(log: Log, topics: Topics) -> None:
    await log.send([Send("orders", b"s1", order(60)), Send("paid", b"o60", paid(60))])


async def again(log: Log, topic: str, **changed: Any) -> None:
    """Publish the last record of a topic again, without its number."""
    partition, _, key, value, _ = (await read_all(log, topic))[-1]
    said = {**msgspec.json.decode(value or b""), **changed}
    await log.send([Send(topic, key, msgspec.json.encode(said), (), partition.number)])


async def a_prediction_again(log: Log, topics: Topics) -> None:
    await again(log, topics.predictions("late"))


async def an_outcome_again(log: Log, topics: Topics) -> None:
    await again(log, topics.outcomes("late"))


async def a_statistic_again(log: Log, topics: Topics) -> None:
    await again(log, topics.statistics("late"), quality={"none": {"n": 1}})


async def a_row_that_counts_too_much(log: Log, topics: Topics) -> None:
    await again(log, topics.rows(topics.project.models[0].scores), features={"Shop.orders_1d": 99})


@pytest.mark.parametrize(
    ("tamper", "complaints"),
    [
        (another_event, ["lost: 1 orders events that became neither", "lost: 1 rows without a prediction of late"]),
        (another_label, ["lost: 1 orders events", "lost: 1 rows without", "lost: 1 labels of late that met their prediction"]),
        (a_prediction_again, ["counted twice: 1 predictions of late"]),
        (an_outcome_again, ["counted twice: 1 outcomes of late"]),
        (a_statistic_again, ["counted twice: 1 outcomes of late in statistics"]),
        (a_row_that_counts_too_much, ["counted twice: 1 rows of orders", "counted twice: 1 events in Shop.orders_1d"]),
    ],
)
def test_what_is_lost_or_counted_twice_is_named(tmp_path: Path, tamper: Callable[..., Any], complaints: list[str]) -> None:
    found = audited(tmp_path, tamper)
    assert len(found.complaints) == len(complaints)
    assert all(said.startswith(start) for said, start in zip(found.complaints, complaints, strict=True)), found.complaints
    assert found.lost == sum(said.startswith("lost") for said in complaints)
    assert found.counted_twice == sum(said.startswith("counted") for said in complaints)
