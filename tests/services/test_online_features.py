"""What is read from the online store is what the stream would say, and how it stands is told: as of when, known or not."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest
from tests.services.air import PROJECT, START, TOPICS, Flight, Origin, World, answers, client_of, said_wrong, talking

import penstock as ps
from penstock.event import event_of, to_micros
from penstock.log import Send
from penstock.online.reader import OnlineFeatures
from penstock.project import Project
from penstock.records import Row
from penstock.services.embedded import Embedded
from penstock.services.feature_store import api
from penstock.services.inference.gateway.api import gateway
from penstock.services.inference.meters import Meters
from penstock.services.inference.sessions import Sessions
from penstock.store import Place, Store, StoreError
from penstock.store.memory import MemoryStore
from penstock.store.redis import RedisStore
from penstock.topics import Topics


@ps.event("rides")
class Ride:
    ride: ps.Id[str]
    zone: ps.Key[str]
    driver: str | None
    fare: float
    at: ps.EventTime


@ps.features(by=Ride.zone)
class Zone:
    rides_1h = ps.count(Ride, over="1h")
    fares_1h = ps.sum(Ride.fare, over="1h")

    @ps.derived
    def usual(self) -> float:
        return self.fares_1h / self.rides_1h

    @ps.derived
    def surge(self, now: Ride) -> float:
        return now.fare / self.usual


@ps.features(by=Ride.driver)
class Driver:
    rides_3h = ps.count(Ride, over="3h")


@ps.features(by=(Ride.zone, Ride.driver))
class Pair:
    rides_1h = ps.count(Ride, over="1h")


CABS = Project("cabs", rows={Ride: [Zone, Driver, Pair]})


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> Callable[[], Store]:
    """Makes the store under test, inside the event loop that uses it."""
    if request.param == "memory":
        return MemoryStore
    url = request.getfixturevalue("redis_url")
    return lambda: RedisStore(url, "p" + uuid.uuid4().hex[:12])


def at(minute: float) -> datetime:
    return START + timedelta(minutes=minute)


async def played(project: Project, store: Store, folder: Path, story: Callable[[Embedded], Awaitable[None]]) -> None:
    """A story on a running project of four partitions."""
    machine = Embedded(project, folder, partitions=4, store=store)
    await machine.start()
    try:
        await story(machine)
    finally:
        await machine.close()
        await store.wipe()
        await store.close()


async def publish(machine: Embedded, topic: str, key: str, events: Sequence[dict[str, Any]]) -> None:
    sent = [(topic, e[key].encode(), msgspec.json.encode(e), to_micros(e["at"])) for e in events]
    await machine.publish(sent, sent[-1][3] + 1)
    await machine.settle()


async def sent(machine: Embedded, topic: str) -> list[Send]:
    reader = await machine.log.reader(await machine.log.begins([topic]))
    batches = await reader.read(1000, 0)
    return [Send(topic, key, value) for b in batches for key, value in zip(b.keys, b.values, strict=True)]


class TestPredict:
    def flight(self, name: str, origin: str, minute: int) -> dict[str, Any]:
        return {"flight": name, "origin": origin, "distance": 100.0 + minute, "seats": None, "night": False, "at": at(minute)}

    def test_is_told_how_each_view_stands_and_sees_what_the_row_will_see(
        self, store: Callable[[], Store], world: World, tmp_path: Path
    ) -> None:
        async def story(machine: Embedded) -> None:
            await publish(machine, "flights", "origin", [self.flight("a", "JFK", 0), self.flight("b", "JFK", 40)])
            topics, meters = Topics(PROJECT, 4), Meters()
            await machine.log.create(topics.all())
            await machine.log.send([world.said("champion", "v1")])
            look = OnlineFeatures(topics, machine.store).rows
            app = gateway(topics, machine.log, Sessions(world.artefacts, meters), meters, look)
            asked = {
                "unpromised": self.flight("c", "JFK", 50),
                "newer": self.flight("d", "JFK", 20),  # the entity's newest event is of minute 40
                "missing": self.flight("e", "LGA", 50),
            }
            async with talking(app) as client:
                for status, event in asked.items():
                    said = (await client.post("/predict/late", content=msgspec.json.encode(event))).json()
                    assert said["features_status"] == {"Origin": status}
            told = {p.id: msgspec.json.decode(p.inputs) for p in answers(await sent(machine, TOPICS.predictions("late")))}
            assert told["c"]["Origin.flights_1h"] == 2
            assert told["d"]["Origin.flights_1h"] == 2, "both before it in the stream, whatever their times"
            assert told["e"]["Origin.flights_1h"] == 0
            assert told["e"]["Origin.mean_distance"] is None
            await publish(machine, "flights", "origin", [asked["missing"], asked["unpromised"]])
            rows = [msgspec.json.decode(s.value or b"", type=Row) for s in await sent(machine, TOPICS.rows(event_of(Flight)))]
            for row in rows:
                if row.id in "ce":
                    features = msgspec.json.decode(row.features)
                    assert {name: told[row.id][name] for name in features} == features
            assert {row.id for row in rows} == set("abce")

        asyncio.run(played(Project("air", rows={Flight: [Origin]}), store(), tmp_path, story))  # the same without its models


class TestHttp:
    RIDES = ({"ride": "1", "zone": "z", "driver": "a/b", "fare": 10.0, "at": at(0)},
             {"ride": "2", "zone": "z", "driver": None, "fare": 20.0, "at": at(30)})  # fmt: skip

    def run(self, store: Store, folder: Path, talk: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
        async def story(machine: Embedded) -> None:
            await publish(machine, "rides", "zone", self.RIDES)
            async with client_of(
                api.app(OnlineFeatures(machine.topics, machine.store), ["Zone", "Driver", "Pair"], str)
            ) as client:
                await talk(client)

        asyncio.run(played(CABS, store, folder, story))

    def test_windows_end_at_the_moment_asked_about_and_the_body_says_so(self, store: Callable[[], Store], tmp_path: Path) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            for minute, rides, fares, usual in (
                (30, 2, 30.0, 15.0),
                (50, 2, 30.0, 15.0),
                (70, 1, 20.0, 20.0),
                (999, 0, 0.0, None),
            ):
                answer = await client.get("/features/Zone/z", params={"at": at(minute).isoformat()})
                assert answer.status_code == 200
                assert answer.json() == {
                    "view": "Zone", "key": "z", "as_of": at(minute).isoformat(), "status": "unpromised",
                    "age": 60.0 * (minute - 30),
                    "features": {"rides_1h": rides, "fares_1h": fares, "usual": usual, "surge": None},
                }  # fmt: skip

        self.run(store(), tmp_path, talk)

    def test_a_moment_before_the_newest_event_is_refused_rather_than_pretended(
        self, store: Callable[[], Store], tmp_path: Path
    ) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            answer = await client.get("/features/Zone/z", params={"at": at(29).isoformat()})
            assert answer.status_code == 409
            sentence = said_wrong(answer)
            assert at(30).isoformat() in sentence
            assert "offline tables" in sentence
            assert "penstock simulate" in sentence

        self.run(store(), tmp_path, talk)

    def test_without_a_moment_it_is_now_and_an_unknown_entity_is_missing(self, tmp_path: Path) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            before = datetime.now(UTC)
            known, unknown = [(await client.get(f"/features/Driver/{key}")).json() for key in ("a/b", "nobody")]
            assert (known["key"], known["status"], known["features"]) == ("a/b", "unpromised", {"rides_3h": 0})
            assert (unknown["status"], unknown["features"]) == ("missing", {"rides_3h": 0})
            assert before <= datetime.fromisoformat(known["as_of"]) <= datetime.now(UTC)

        self.run(MemoryStore(), tmp_path, talk)

    @pytest.mark.parametrize(
        ("path", "status"),
        [
            ("/features/Zone/z?at=garbage", 400), ("/features/Zone/z?at=", 400), ("/features/Zone/z?at=1e999", 400),
            ("/features/Zone/z?at=NaN", 400), ("/features/Zone/z?at=2024-01-01T00:00:00", 400),
            ("/features/Zone/z?at=2024-13-01T00:00:00Z", 400), ("/features/Zone/z?at=1969-12-31T23:59:59Z", 400),
            ("/features/Zone/z?at=2999-01-01T00:00:00Z", 400), ("/features/Zone/z?at=" + "9" * 5000, 400),
            ("/features/Zone/z?at=%ff", 400), ("/features/Nothing/z", 404), ("/features/" + "x" * 5000 + "/z", 404),
            ("/features/Zone", 404), ("/features", 405), ("/", 404), ("/docs/no", 404),
        ],
        ids=lambda value: str(value)[:50],
    )  # fmt: skip
    def test_a_bad_request_is_refused_in_one_sentence(self, tmp_path: Path, path: str, status: int) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            answer = await client.get(path)
            assert answer.status_code == status
            assert len(said_wrong(answer)) < 300
            assert (await client.post("/features/Zone/z")).status_code == 405

        self.run(MemoryStore(), tmp_path, talk)

    def test_a_compound_key_may_be_spelled_with_spaces_and_is_refused_where_it_is_none(self, tmp_path: Path) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            for path, status, rides in (
                ('["z", "a/b"]', "unpromised", 0),
                ('["z","a/b"]', "unpromised", 0),
                ('["a/b","z"]', "missing", 0),
            ):
                said = (await client.get("/features/Pair/" + quote(path, safe=""))).json()
                assert (said["status"], said["features"]) == (status, {"rides_1h": rides})
            for path in ("z", '["z"]', '{"zone":"z"}', "[null,1]"):
                answer = await client.get("/features/Pair/" + quote(path, safe=""))
                assert answer.status_code == 400
                assert "zone, driver" in said_wrong(answer)

        self.run(MemoryStore(), tmp_path, talk)

    def test_answers_of_definitions_that_are_not_in_charge_name_those_that_are(self) -> None:
        async def whole() -> None:
            online, ways = (
                OnlineFeatures(Topics(CABS), MemoryStore()),
                ["application/json", "application/vnd.apache.arrow.stream"],
            )
            for other in ("", "ef3818a4"):
                stands = api.Generation("8ec64891", other or "8ec64891")
                async with client_of(api.app(online, ["Zone"], str, partial(msgspec.structs.replace, stands))) as client:
                    assert (await client.get("/generation")).json() == msgspec.to_builtins(stands)
                    answers = [await client.get("/features/Zone/z")]
                    query = {"views": ["Zone"], "keys": ["z"]}
                    answers += [await client.post("/features", json=query, headers={"accept": way}) for way in ways]
                    for answer in answers:
                        assert answer.status_code == 200, answer.text
                        assert answer.headers.get("penstock-in-charge", "") == other

        asyncio.run(whole())

    def test_a_store_that_is_away_is_said_and_may_come_back(self) -> None:
        class Away(MemoryStore):
            async def gather(self, places: Sequence[Place], tailed: int) -> tuple[list[bytes], list[bytes]]:
                raise StoreError("Redis is away")

        async def whole() -> None:
            online = OnlineFeatures(Topics(CABS), Away())
            async with client_of(api.app(online, ["Zone"], lambda: "it has not joined yet")) as client:
                answer = await client.get("/features/Zone/z")
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
                assert "Redis is away" in said_wrong(answer)
                answer = await client.get("/readyz")
                assert (answer.status_code, said_wrong(answer)) == (503, "it has not joined yet")
            async with client_of(api.app(online, ["Zone"], str, waiting=lambda: "Kafka is silent")) as client:
                answer = await client.get("/readyz")
                assert (answer.status_code, answer.json()) == (200, {"ready": True, "waiting": "Kafka is silent"})

        asyncio.run(whole())
