"""Late events: within a view's lateness they correct its windows; beyond, they change nothing, and it is told where."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import penstock as ps
from penstock.log import Partition
from penstock.records import LateEvent, Row
from penstock.services.embedded import Embedded


@ps.event("orders")
class Order:
    order: ps.Id[str]
    shop: ps.Key[str]
    total: float
    at: ps.EventTime


@ps.features(by=Order.shop, lateness="2h")
class Patient:
    total_7d = ps.sum(Order.total, over="7d")


@ps.features(by=Order.shop, lateness="10m")
class Strict:
    total_7d = ps.sum(Order.total, over="7d")


@ps.features(by=Order.shop)
class Boundless:
    total_7d = ps.sum(Order.total, over="7d")


project = ps.Project("shops", rows={Order: [Patient, Strict, Boundless]})
START = datetime(2026, 5, 1, tzinfo=UTC)
FOREVER = 1 << 60


def order(number: int, minutes: float, total: float = 1.0, shop: str = "s") -> tuple[str, bytes, bytes, int]:
    at = START + timedelta(minutes=minutes)
    value = msgspec.json.encode({"order": f"o{number}", "shop": shop, "total": total, "at": at})
    return "orders", shop.encode(), value, 0


async def read(machine: Embedded, topic: str, kind: Any) -> list[Any]:
    if topic not in {known.name for known in machine.topics.all()}:
        return []
    ends = await machine.log.ends([topic])
    reader = await machine.log.reader(dict.fromkeys(ends, 0))
    batches = await reader.read(10_000, 0.0)
    return [msgspec.json.decode(value or b"", type=kind) for batch in batches for value in batch.values]


def ran(
    folder: Path, events: Sequence[tuple[str, bytes, bytes, int]], partitions: int = 1
) -> tuple[list[Row], list[LateEvent], Any]:
    async def go() -> Any:
        machine = Embedded(project, folder, partitions)
        await machine.start()
        for event in events:
            await machine.publish([event], 0)
        await machine.publish([], FOREVER)
        await machine.settle()
        rows = await read(machine, "shops.rows.orders", Row)
        late = await read(machine, "shops.late", LateEvent)
        dead = await machine.log.ends(["orders.dlq"])
        await machine.close()
        return rows, late, dead

    return asyncio.run(go())


def totals(row: Row) -> dict[str, float]:
    return msgspec.json.decode(row.features, type=dict[str, float])


def test_a_late_event_corrects_the_views_that_allow_it_and_is_told_of_the_others(tmp_path: Path) -> None:
    events = [
        order(1, 0, 1.0),
        order(2, 300, 10.0),
        order(3, 295, 100.0),
        order(4, 200, 1_000.0),
        order(5, 10, 10_000.0),
        order(6, 301),
    ]
    rows, late, _ = ran(tmp_path, events)
    assert [row.id for row in rows] == ["o1", "o2", "o3", "o4", "o5", "o6"], "every event gets its row, late or not"
    assert totals(rows[-1]) == {
        "Patient.total_7d": 1_111.0,
        "Strict.total_7d": 111.0,
        "Boundless.total_7d": 11_111.0,
    }
    assert [row.late for row in rows] == [False, False, False, True, True, False]
    assert [(e.id, e.view) for e in late] == [("o4", "Strict"), ("o5", "Patient"), ("o5", "Strict")]
    first = late[0]
    assert (first.event, first.entity, first.partition, first.offset) == ("orders", "s", 0, 3)
    assert first.as_of - first.time == timedelta(minutes=100)
    assert msgspec.json.decode(first.value)["total"] == 1_000.0, "its bytes are there"


def test_what_is_late_for_one_entity_is_not_for_another(tmp_path: Path) -> None:
    rows, late, _ = ran(tmp_path, [order(1, 0), order(2, 600), order(3, 0, shop="other"), order(4, 590)])
    assert not late
    assert not any(row.late for row in rows)


def test_lateness_is_the_same_for_any_number_of_partitions(tmp_path: Path) -> None:
    events = [order(i, minutes, shop=f"s{i % 3}") for i, minutes in enumerate([0, 0, 0, 500, 500, 500, 300, 495, 10, 501])]
    one, four = ran(tmp_path / "1", events), ran(tmp_path / "4", events, 4)
    assert sorted((e.id, e.view) for e in one[1]) == sorted((e.id, e.view) for e in four[1])
    assert {r.id: (r.features, r.late) for r in one[0]} == {r.id: (r.features, r.late) for r in four[0]}


def test_a_project_without_lateness_has_no_side_topic() -> None:
    from penstock.topics import Topics

    free = ps.Project("free", rows={Order: [Boundless]})
    assert "free.late" not in {topic.name for topic in Topics(free).all()}


def test_an_event_from_the_future_is_dead_lettered_and_closes_no_window(tmp_path: Path) -> None:
    ahead = (datetime.now(UTC) - START).total_seconds() / 60 + 6
    rows, _, dead = ran(tmp_path, [order(1, 0), order(2, ahead), order(3, 1)])
    assert [row.id for row in rows] == ["o1", "o3"]
    assert dead[Partition("orders.dlq", 0)] == 1


@pytest.mark.parametrize("wrong", ["0m", "later"])
def test_a_lateness_that_is_no_length_of_time_is_a_mistake(wrong: str) -> None:
    with pytest.raises(ps.DefinitionError, match="is not a length of time"):
        ps.features(by=Order.shop, lateness=wrong)(type("View", (), {}))
