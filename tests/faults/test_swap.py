"""Two feature stores of one project, with the views as they were and as they are to be, on a real broker and a real Redis: one is
put in charge after the other while events come, and either is killed meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.faults.taxis import PROJECT, Taxis, taxis, trips

import penstock as ps
from penstock.log import Partition, Send
from penstock.proof.audit import read_all
from penstock.records import Charge, Row
from penstock.runtime.generation import charges, in_charge
from penstock.runtime.outbox import Redelivered
from penstock.store import LIVE, STATUS
from penstock.store.redis import RedisStore

TRIPS, PART = 12_000, 2_000
CHANGED = PROJECT.replace('ps.count(Trip, over="3h")', 'ps.count(Trip, over="6h")')


def expected(company: Taxis) -> dict[str, float]:
    """By trip, what the one window that is changed holds, counted plainly."""
    (view,) = [view for hop in company.project.topology.hops for view in hop.views if view.name == "Car"]
    published = [value for first in range(0, TRIPS, PART) for _, value, _ in trips(PART, first)]
    events: list[Any] = [msgspec.json.decode(value, type=company.event.type) for value in published]
    rows: list[Any] = list(ps.replay(view.type, events))
    return {event.trip_id: row.trips_3h for event, row in zip(events, rows, strict=True)}


def fingerprint(company: Taxis) -> str:
    """What the view that is changed means to it."""
    return next(view.fingerprint for hop in company.project.topology.hops for view in hop.views if view.name == "Car")


async def rows_of(company: Taxis) -> list[Row]:
    """As a reader has them, who drops what it has had."""
    readers: defaultdict[Partition, Redelivered] = defaultdict(Redelivered)
    return [
        msgspec.json.decode(value or b"", type=Row) for p, _, _, value, headers in await company.rows() if readers[p].new(headers)
    ]


async def put_in_charge(company: Taxis) -> None:
    topic = company.topics.generations
    said = in_charge(charges(value for _, _, _, value, _ in await read_all(company.log, topic)))
    assert said is not None
    record = Charge(number=said.number + 1, generation=company.topics.generation, previous=said.generation)
    await company.log.send([Send(topic, None, msgspec.json.encode(record))])


async def told(company: Taxis, in_charge: str) -> bool:
    """Whether its feature store says over HTTP who is in charge, and names it in answers if that is another."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{company.port}") as client:
        said = (await client.get("/generation")).json()
        answer = await client.get("/features/Car/c1")
    own = company.topics.generation
    named = answer.headers.get("penstock-in-charge", own)
    return bool(said == {"generation": own, "in_charge": in_charge} and answer.status_code == 200 and named == in_charge)


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["nobody", "the new one", "the old one"])
def test_each_event_has_one_row_across_swaps(kafka_bootstrap: str, redis_url: str, tmp_path: Path, killed: str) -> None:
    chance = random.Random(killed)

    async def scenario() -> None:
        name = "swap-" + killed.replace(" ", "-")
        (tmp_path / "old").mkdir()
        (tmp_path / "new").mkdir()
        async with (
            taxis(name, tmp_path / "old", kafka_bootstrap, redis_url) as old,
            taxis(name, tmp_path / "new", kafka_bootstrap, redis_url, text=CHANGED) as new,
        ):
            store = RedisStore(redis_url, name)

            async def built() -> bool:
                return all([(await store.read(new.topics.shard(n), [STATUS]))[0][0] == LIVE for n in range(2)])

            await old.start()
            await old.publish(PART)
            await old.until_rows(PART // 2)
            await new.start()
            await new.until(built)
            for part, company in enumerate([new, old, new, old], start=1):
                publishing = asyncio.create_task(old.publish(PART, first=PART * part))
                await asyncio.sleep(chance.random() / 2)
                await put_in_charge(company)
                if killed != "nobody":
                    await asyncio.sleep(chance.random() / 2)
                    victim = new if killed == "the new one" else old
                    victim.end(signal.SIGKILL)
                    await victim.start()
                await publishing
                if part != 2:  # the next swap comes when rows have been made, but for one that comes into the middle of another
                    await company.until_rows(PART * part + PART // 2)
            await old.publish(PART, first=5 * PART)
            await old.finish()
            await old.until_rows(TRIPS)
            rows = await rows_of(old)
            assert len(rows) == len({row.id for row in rows}) == TRIPS
            wants = {fingerprint(company): expected(company) for company in (old, new)}
            assert len({row.views["Car"] for row in rows}) == 2, "only one of them has made rows"
            for row in rows:
                assert msgspec.json.decode(row.features)["Car.trips_3h"] == wants[row.views["Car"]][row.id], row.id
            assert old.end() == new.end() == 0
            await store.wipe()
            await store.close()

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_changed_view_is_built_compared_swapped_in_and_out_and_forgotten_by_commands(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        (tmp_path / "old").mkdir()
        (tmp_path / "new").mkdir()
        async with (
            taxis("by-hand", tmp_path / "old", kafka_bootstrap, redis_url) as old,
            taxis("by-hand", tmp_path / "new", kafka_bootstrap, redis_url, text=CHANGED) as new,
        ):

            async def said(*words: str, code: int = 0) -> dict[str, Any]:
                """What a command of whoever has the changed file answers."""
                argv = [sys.executable, "-m", "penstock.cli", "features", *words, "--json"]
                run = await asyncio.to_thread(
                    subprocess.run, argv, env={**os.environ, **new.env}, capture_output=True, text=True, timeout=100
                )
                assert run.returncode == code, (words, run.stdout, run.stderr)
                answer: dict[str, Any] = json.loads((run.stderr if code else run.stdout).splitlines()[-1])
                return answer

            await old.start()
            await old.publish(PART)
            await old.until_rows(PART // 2)
            assert "backfill" in (await said("swap", code=1))["fix"]
            assert (await said("backfill", "--processes", "1"))["done"] == f"generation {new.topics.generation} is built"
            found = {each["generation"]: each for each in (await said("generations"))["generations"]}
            assert found[old.topics.generation]["in_charge"] and found[new.topics.generation]["built"]
            assert found[old.topics.generation]["processes"] == 1
            await new.start()
            await old.publish(PART, first=PART)
            await old.until_rows(PART + PART // 2)
            compared: dict[str, Any] = {"rows": 0}
            while compared["rows"] < PART // 2:
                compared = await said("compare")
            assert compared["changed"] == ["Car"] and compared["wrong"] == []
            assert compared["features"]["Zone.fares_24h"]["different"] == 0 < compared["features"]["Car.trips_3h"]["different"]
            assert await said("swap") == {"in_charge": new.topics.generation, "before": old.topics.generation}
            await old.until(lambda: told(old, new.topics.generation))
            assert "in charge" in (await said("drop", new.topics.generation, code=1))["text"]
            assert (await said("swap", "--to", old.topics.generation))["in_charge"] == old.topics.generation
            assert new.end() == 0
            assert "runs" in (await said("drop", new.topics.generation, code=1))["text"], "it may have been killed, and come back"

            async def left() -> bool:
                return await old.log.members(new.topics.group("feature_store")) == 0

            await old.until(left)
            assert new.topics.shadow in (await said("drop", new.topics.generation))["deleted"]
            assert not {new.topics.shadow} & (await old.log.describe()).keys()
            await old.finish()
            await old.until_rows(2 * PART)
            assert {row.views["Car"] for row in await rows_of(old)} == {fingerprint(old)}
            assert old.end() == 0

    asyncio.run(scenario())
