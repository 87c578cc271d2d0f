"""How old what is read is: fresh, stale, expired; each view by itself, however long its entity has been quiet; never torn."""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.services.test_online_features import played, publish
from tests.services.tills import MOST, STEP, TILLS, Sale, Till, torn

import penstock as ps
from penstock.event import event_of, to_micros
from penstock.feature import view_of
from penstock.log import partition_of
from penstock.online.freshness import expired
from penstock.online.lookup import Lookup, state_key
from penstock.online.reader import Lookups, OnlineFeatures
from penstock.online.readings import Reading
from penstock.project import Project
from penstock.records import Row
from penstock.services.embedded import Embedded
from penstock.services.feature_store.service import lanes
from penstock.store import Change, Place, Store
from penstock.store.memory import MemoryStore
from penstock.store.redis import RedisStore
from penstock.topics import Topics
from penstock.windows.panes import Panes, Shape


@ps.event("visits")
class Visit:
    visit: ps.Id[str]
    shop: ps.Key[str]
    spent: float
    tip: float | None
    at: ps.EventTime


@ps.event("deliveries")
class Delivery:
    shop: ps.Key[str]
    boxes: int
    at: ps.EventTime


@ps.features(by=Visit.shop, fresh_within="30m", ttl="6h")
class Trade:
    visits_1h = ps.count(Visit, over="1h")
    spent_3h = ps.sum(Visit.spent, over="3h")
    usual_6h = ps.mean(Visit.spent, over="6h")
    least_6h = ps.min(Visit.spent, over="6h")
    most_24m = ps.max(Visit.spent, over="24m")
    newest = ps.last(Visit.spent)
    tip = ps.last(Visit.tip)
    idle = ps.since_last(Visit)

    @ps.derived
    def tipping(self) -> float:
        return self.tip / self.newest


@ps.features(by=[Delivery.shop, Visit.shop], ttl="2h")
class Stock:
    boxes_2h = ps.sum(Delivery.boxes, over="2h")
    delivered = ps.last(Delivery.boxes)


SHOPS = Project("shops", rows={Visit: [Trade, Stock]})
START = datetime(2024, 1, 1, tzinfo=UTC)


def at(minute: float) -> datetime:
    return START + timedelta(minutes=minute)


def visit(name: str, shop: str, minute: float, tip: float | None = None) -> dict[str, Any]:
    return {"visit": name, "shop": shop, "spent": 10.0 + minute, "tip": tip, "at": at(minute)}


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> Callable[[], Store]:
    if request.param == "memory":
        return MemoryStore
    url = request.getfixturevalue("redis_url")
    return lambda: RedisStore(url, "p" + uuid.uuid4().hex[:12])


class TestStatus:
    def test_each_view_of_an_entity_ages_by_its_own_events(self, store: Callable[[], Store], tmp_path: Path) -> None:
        async def story(machine: Embedded) -> None:
            await publish(machine, "deliveries", "shop", [{"shop": "s", "boxes": 7, "at": at(0)}])
            await publish(machine, "visits", "shop", [visit("a", "s", 100, tip=2.0), visit("b", "s", 110)])
            online = OnlineFeatures(machine.topics, machine.store)
            for minute, trade, stock in (
                (110, "fresh", "unpromised"), (120, "fresh", "unpromised"), (140, "fresh", "expired"), (141, "stale", "expired"),
                (470, "stale", "expired"), (471, "expired", "expired"),
            ):  # fmt: skip
                found = (await online.read([Trade, Stock], ["s"], at(minute)))[0]
                assert (found["Trade"].status, found["Stock"].status) == (trade, stock), minute
                assert (found["Trade"].age, found["Stock"].age) == (60.0 * (minute - 110), 60.0 * minute)
                assert found["Stock"].values["delivered"] == (7.0 if stock != "expired" else None)
                assert found["Trade"].values["newest"] == (120.0 if trade != "expired" else None)
                # the newest tip is older than the newest visit, and goes by itself
                assert found["Trade"].values["tip"] == (2.0 if minute <= 100 + 360 else None)
            unknown = (await online.read([Trade, Stock], ["nobody"], at(471)))[0]
            assert unknown["Trade"].values == found["Trade"].values, "who is forgotten is as who never was"
            assert (unknown["Trade"].status, unknown["Trade"].age) == ("missing", None)

        asyncio.run(played(SHOPS, store(), tmp_path, story))

    def test_an_answer_is_told_the_status_of_each_view(self, tmp_path: Path) -> None:
        async def story(machine: Embedded) -> None:
            await publish(machine, "visits", "shop", [visit("a", "s", 0)])
            online, event = OnlineFeatures(machine.topics, machine.store), event_of(Visit)
            asked = Visit("b", "s", 1.0, None, at(45))
            found = await online.row(event, asked)
            assert {name: reading.status for name, reading in found.items()} == {"Trade": "stale", "Stock": "missing"}

        asyncio.run(played(SHOPS, MemoryStore(), tmp_path, story))


def states(view: type, events: Sequence[Any], borders: int = 7) -> dict[str, tuple[bytes, bytes]]:
    """What the store holds after events, packed after each few."""
    shape = Shape([view_of(view)])
    panes, stored = Panes(shape), dict[str, tuple[bytes, bytes]]()
    for first in range(0, len(events), borders):
        for event in events[first : first + borders]:
            kind = event_of(type(event))
            slot, time = np.array([panes.slot(event.shop)], np.int64), np.array([to_micros(event.at)], np.int64)
            panes.apply(slot, time, np.array([shape.events.index(kind)]), shape.values(kind, [event]), np.zeros(1, np.int64))
        heads, tails, cut = panes.pack()
        for name, head in heads.items():
            stored[name] = head, (b"" if name in cut else stored.get(name, (b"", b""))[1]) + tails.get(name, b"")
    return stored


def read(lookup: Lookup, stored: dict[str, tuple[bytes, bytes]], shop: str, moment: int) -> Reading:
    asked = lookup.ask([[shop]])
    head, tail = stored.get(shop, (b"", b""))
    return next(iter(lookup.readings(asked, [head], [tail], np.array([moment]))[0].values()))


def naive(view: type, events: Sequence[Any], moment: int) -> dict[str, float | None]:
    """By `ps.replay`, and the rule of expiry written down again."""
    declared = view_of(view)
    probe = Visit("probe", "s", 0.0, None, START + timedelta(microseconds=moment - to_micros(START)))

    def newest(column: str | None) -> int:
        times = [to_micros(e.at) for e in events if isinstance(e, Visit) and (column is None or getattr(e, column) is not None)]
        return max(times, default=-(1 << 60))

    def values(seen: Sequence[Any]) -> dict[str, float]:
        row: Any = ps.replay(view, [*seen, probe])[-1]
        return {f.name: getattr(row, f.name) for f in declared.features}

    nothing = values([])
    found = nothing if expired(declared, newest(None), moment) else values(events)
    for f in declared.features:
        if not f.over and expired(declared, newest(f.column.name if f.column else None), moment):
            found[f.name] = nothing[f.name]
    tip, spent = found["tip"], found["newest"]
    with np.errstate(all="ignore"):
        found["tipping"] = float(np.float64(tip) / np.float64(spent))
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


MINUTES = st.sampled_from([0, 1, 4, 5, 24, 29, 59, 60, 61, 179, 185, 359, 360, 361, 366, 725]) | st.integers(0, 800)
VISITS = st.lists(st.tuples(MINUTES, st.floats(1, 100), st.none() | st.floats(1, 9), st.integers(0, 59)), max_size=12)


@settings(deadline=None, max_examples=200)
@given(visits=VISITS, quiet=MINUTES, second=st.integers(0, 59), late=st.booleans())
def test_after_any_quiet_gap_a_read_says_what_the_replay_says(
    visits: list[tuple[int, float, float | None, int]], quiet: int, second: int, late: bool
) -> None:
    moment, events = START, list[Visit]()
    for n, (gap, spent, tip, seconds) in enumerate(visits):
        moment += timedelta(minutes=gap, seconds=seconds)
        back = timedelta(minutes=97 if late and n % 3 == 1 else 0)
        events.append(Visit(str(n), "s", spent, tip, moment - back))
    newest = max([START, *(e.at for e in events)])
    asked = to_micros(newest + timedelta(minutes=quiet, seconds=second))
    lookup = Lookups(Topics(Project("shops", rows={Visit: [Trade]}))).of(Trade)
    found, want = read(lookup, states(Trade, events), "s", asked), naive(Trade, events, asked)
    assert found.as_of == asked
    assert set(found.values) == set(want)
    for name, value in want.items():
        assert (found.values[name] is None) == (value is None), name
        assert value is None or found.values[name] == pytest.approx(value, rel=1e-12), name
    if events:
        assert found.age == (asked - max(to_micros(e.at) for e in events)) / 1e6


def test_many_rows_of_many_shops_are_what_each_is_alone() -> None:
    """More entities than are unpacked at a time, some twice, some of nobody; at moments and for events of their own."""
    events = [Visit(str(n), f"shop {n % 700}", 1.0 + n, 1.0, at(n / 60)) for n in range(2_000)]
    lookup, stored = (
        Lookups(Topics(Project("shops", rows={Visit: [Trade]}))).of([Trade.tipping, Trade.visits_1h, "Trade"]),
        states(Trade, events, 500),
    )
    shops = [None if n % 97 == 0 else f"shop {n % 800}" for n in range(1_500)]
    moments = np.array([to_micros(at(40 + n % 50)) for n in range(len(shops))])
    decoded = [Visit("x", "", 1.0, None, at(0))] * len(shops)
    asked = lookup.ask([shops])
    pairs = [stored.get(key.decode().partition("\0")[2], (b"", b"")) for _, key in asked.places]
    heads, tails = [head for head, _ in pairs], [tail for _, tail in pairs]
    found = lookup.readings(asked, heads, tails, moments, event_of(Visit), decoded)
    for n in range(0, len(shops), 7):
        alone = lookup.ask([[shops[n]]])
        head, tail = stored.get(shops[n] or "", (b"", b""))
        states_of = ([head], [tail]) if alone.places else ([], [])
        assert lookup.readings(alone, *states_of, moments[n : n + 1])[0] == found[n]
    assert found.columns[:2] == ("Trade.tipping", "Trade.visits_1h")


@ps.features(by=Visit.shop)
class Footfall:
    visits_1h = ps.count(Visit, over="1h")
    spent_3h = ps.sum(Visit.spent, over="3h")
    least_6h = ps.min(Visit.spent, over="6h")


def test_states_of_quiet_entities_vanish_and_no_row_can_tell(store: Callable[[], Store], tmp_path: Path) -> None:
    """A new shop a day, with three visits; a visit again three days later. Half-way the process is another one."""
    project = Project("footfall", rows={Visit: [Footfall]})
    shops = [f"shop {n}" for n in range(12)]
    days = []
    for n, shop in enumerate(shops):
        today = [visit(f"{n}.{i}", shop, n * 1440 + i * 20) for i in range(3)]
        days.append([*today, visit(f"{n}.again", shops[n - 3], n * 1440 + 100)] if n >= 3 else today)

    async def story(machine: Embedded) -> None:
        places: list[Place] = [(machine.topics.shard(partition_of(shop.encode(), 4)), state_key("shop", shop)) for shop in shops]
        held = []
        for n, today in enumerate(days):
            await publish(machine, "visits", "shop", today)
            heads, tails = await machine.store.gather(places, len(places))
            held.append([n for n, head in enumerate(heads) if head])
            assert all(head or not tail for head, tail in zip(heads, tails, strict=True))
            if n == 6:
                for lane in machine.lanes:
                    await lane.close()
                machine.lanes = lanes(machine.topics, machine.log, machine.store, None)
        fields = 0
        for shard in range(4):
            fields += sum(name.startswith(b"quiet/") for name in (await machine.store.open(machine.topics.shard(shard))).table)
        reader = await machine.log.reader(await machine.log.begins([machine.topics.rows(event_of(Visit))]))
        sent = [value or b"" for batch in await reader.read(1000, 0) for value in batch.values]
        rows = {row.id: msgspec.json.decode(row.features) for row in (msgspec.json.decode(v, type=Row) for v in sent)}
        events = [Visit(**e) for today in days for e in today]
        for event, want in zip(events, ps.replay(Footfall, events), strict=True):
            said = {f"Footfall.{name}": None if math.isnan(value) else value for name, value in vars(want).items()}
            assert rows[event.visit] == said
        # a shard hears of time by its own events: each holds the shop that came last, and those of a day or two before
        assert max(map(len, held)) <= 9 and len(held[-1]) <= 9, held
        assert fields <= 12

    asyncio.run(played(project, store(), tmp_path, story))


def test_two_processes_that_read_while_one_writes_see_only_states_that_were(redis_url: str) -> None:
    """Sale k of every till is worth k, and all tills of a shard are written at once: count and sum follow from the newest."""
    shops, shape = [f"till {n}" for n in range(40)], Shape([view_of(Till)])
    panes, kind = Panes(shape), event_of(Sale)
    mine = {shard: [s for s in shops if partition_of(s.encode(), 4) == shard] for shard in range(4)}

    async def sell(store: RedisStore, k: int) -> None:
        sales = [Sale(shop, float(k), at(k * STEP)) for shop in shops]
        slots, times = np.array([panes.slot(s) for s in shops]), np.full(len(shops), to_micros(at(k * STEP)))
        panes.apply(slots, times, np.zeros(len(shops), np.int64), shape.values(kind, sales), np.zeros(len(shops), np.int64))
        heads, tails, cut = panes.pack()
        position = msgspec.msgpack.encode({"partitions": 4})
        for shard, names in mine.items():
            change = Change(
                position,
                heads={state_key("shop", s): heads[s] for s in names},
                tails={state_key("shop", s): tails[s] for s in names if s in tails},
                cut=[state_key("shop", s) for s in names if s in cut],
            )
            await store.write(Topics(TILLS).shard(shard), k, change)

    async def story() -> list[list[str]]:
        store = RedisStore(redis_url, TILLS.name)
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            await sell(store, 0)
            readers = [pool.apply_async(torn, (redis_url, len(shops))) for _ in range(2)]
            for k in range(1, MOST):
                await sell(store, k)
                await asyncio.sleep(0 if k % 100 else 0.5)  # while they start; then as fast as it goes
                if all(reader.ready() for reader in readers):
                    break
            answers = [reader.get(60) for reader in readers]
        await store.wipe()
        await store.close()
        return answers

    assert asyncio.run(story()) == [[], []]
