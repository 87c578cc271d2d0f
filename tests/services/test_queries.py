"""Many entities and views in one read: over HTTP as JSON and Arrow, and by the clients; whatever the keys look like."""

from __future__ import annotations

import asyncio
import http.client
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pandas as pd
import pytest
import uvicorn
from tests.services.air import client_of, said_wrong
from tests.services.test_online_features import played, publish

import penstock as ps
from penstock.errors import Refused, Unreachable
from penstock.local import port as ports
from penstock.online.freshness import STATUSES
from penstock.online.lookup import state_key
from penstock.online.query import ARROW, MAX_BODY, MAX_KEYS, streamed
from penstock.online.reader import Lookups, OnlineFeatures
from penstock.online.readings import Readings
from penstock.project import Project
from penstock.services.embedded import Embedded
from penstock.services.feature_store import api
from penstock.store import Change, Place
from penstock.store.memory import MemoryStore
from penstock.store.redis import RedisStore
from penstock.topics import Topics


@ps.event("trips")
class Trip:
    trip: ps.Id[str]
    zone: ps.Key[str]
    car: int | None
    fare: float
    at: ps.EventTime


@ps.features(by=Trip.zone)
class Zone:
    trips_1h = ps.count(Trip, over="1h")
    fares_1h = ps.sum(Trip.fare, over="1h")
    newest = ps.last(Trip.fare)

    @ps.derived
    def usual(self) -> float:
        return self.fares_1h / self.trips_1h


@ps.features(by=Trip.car)
class Car:
    trips_3h = ps.count(Trip, over="3h")


@ps.features(by=(Trip.zone, Trip.car))
class Pair:
    trips_1h = ps.count(Trip, over="1h")


TRIPS = Project("trips-read", rows={Trip: [Zone, Car, Pair]})
START = datetime(2024, 1, 1, tzinfo=UTC)
ODD = ["1", "11", "01", " ", "a b", "a/b", "a\0b", "Zürich ☃", '["1","11"]', "{}:h:", "?at=x", "%2F", "k" * 1024]


def at(minute: float) -> datetime:
    return START + timedelta(minutes=minute)


def trips() -> list[dict[str, Any]]:
    """Every odd zone once, by a car of its number; zone "1" twice."""
    names = [*ODD, "1"]
    return [{"trip": str(n), "zone": zone, "car": n, "fare": float(n), "at": at(n)} for n, zone in enumerate(names)]


def run(folder: Path, story: Callable[[Embedded], Awaitable[None]], store: Any = None) -> None:
    async def whole(machine: Embedded) -> None:
        await publish(machine, "trips", "zone", trips())
        await story(machine)

    asyncio.run(played(TRIPS, store or MemoryStore(), folder, whole))


def asking(folder: Path, talk: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def story(machine: Embedded) -> None:
        async with client_of(api.app(OnlineFeatures(machine.topics, machine.store), ["Zone", "Car", "Pair"], str)) as client:
            await talk(client)

    run(folder, story)


class TestQuery:
    def test_rows_come_in_the_order_of_the_keys_known_or_not_and_twice_where_asked_twice(self, tmp_path: Path) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            keys = ["nobody", *reversed(ODD), "1", None, "nobody"]
            said = (await client.post("/features", json={"views": ["Zone"], "keys": keys, "at": at(20).isoformat()})).json()
            trips = [0, *(2 if zone == "1" else 1 for zone in reversed(ODD)), 2, 0, 0]
            assert said["features"]["Zone.trips_1h"] == trips
            newest = [None, *(13.0 if zone == "1" else float(ODD.index(zone)) for zone in reversed(ODD)), 13.0, None, None]
            assert said["features"]["Zone.newest"] == newest
            assert said["views"]["Zone"]["status"] == ["missing" if n == 0 else "unpromised" for n in trips]
            assert said["views"]["Zone"]["age"] == [None if n is None else 60.0 * (20 - n) for n in newest]
            assert set(said["views"]["Zone"]["as_of"]) == {"2024-01-01T00:20:00Z"}

        asking(tmp_path, talk)

    def test_views_by_several_keys_are_read_together_and_1_11_is_not_11_1(self, tmp_path: Path) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            rows = [("1", 0), ("11", 1), ("1", 11), ("11", 0), ("1", 13), (None, 1), ("1", None)]
            want = {
                "Zone.trips_1h": [2, 1, 2, 1, 2, 0, 2],
                "Car.trips_3h": [1, 1, 1, 1, 1, 1, 0],
                "Pair.trips_1h": [1, 1, 0, 0, 1, 0, 0],
            }
            forms: list[Any] = [
                [{"zone": zone, "car": car} for zone, car in rows],
                {"zone": [zone for zone, _ in rows], "car": [car for _, car in rows]},
                {"zone": [zone for zone, _ in rows], "car": [None if car is None else str(car) for _, car in rows]},
                {"zone": [zone for zone, _ in rows], "car": [None if car is None else float(car) for _, car in rows]},
            ]
            for keys in forms:
                query = {"features": list(want), "keys": keys, "at": at(20).isoformat()}
                assert (await client.post("/features", json=query)).json()["features"] == want
            pairs = {"views": ["Pair"], "keys": [["1", 0], '["1", 0]', None, ["1", "13"]], "at": at(20).isoformat()}
            assert (await client.post("/features", json=pairs)).json()["features"] == {"Pair.trips_1h": [1, 1, 0, 1]}

        asking(tmp_path, talk)

    def test_each_row_may_have_its_own_moment_and_says_so_where_it_is_too_early(self, tmp_path: Path) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            times = [at(5), at(13), at(61), at(74), at(200)]
            query = {"views": ["Zone"], "keys": ["1"] * 5, "at": [t.isoformat() for t in times]}
            said = (await client.post("/features", json=query)).json()
            assert said["features"]["Zone.trips_1h"] == [2, 2, 2, 1, 0]
            assert said["views"]["Zone"]["status"] == ["newer", *["unpromised"] * 4]
            assert said["views"]["Zone"]["as_of"][0] == "2024-01-01T00:13:00Z"

        asking(tmp_path, talk)

    def test_arrow_says_what_json_says(self, tmp_path: Path) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            query = {"views": ["Zone", "Car"], "keys": {"zone": ["1", "nobody", None], "car": [0, None, 3]}}
            query["at"] = at(20).isoformat()
            plain = await client.post("/features", json=query)
            arrow = await client.post("/features", json=query, headers={"accept": ARROW})
            assert arrow.headers["content-type"] == ARROW
            assert msgspec.json.decode(msgspec.json.encode(streamed(arrow.content).to_dict())) == plain.json()

        asking(tmp_path, talk)

    def test_as_many_keys_as_are_allowed_are_answered_and_one_more_is_refused_in_words(self, tmp_path: Path) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            keys = [f"zone {n}" for n in range(MAX_KEYS - 1)] + ["1"]
            answer = await client.post("/features", json={"views": ["Zone"], "keys": keys, "at": at(20).isoformat()})
            assert answer.status_code == 200
            assert answer.json()["features"]["Zone.trips_1h"] == [0] * (MAX_KEYS - 1) + [2]
            answer = await client.post("/features", json={"views": ["Zone"], "keys": [*keys, "2"]})
            assert answer.status_code == 413
            assert "10,001 keys" in said_wrong(answer) and "10,000" in said_wrong(answer)
            answer = await client.post("/features", json={"views": ["Zone"], "keys": ["k" * 65_536]})
            assert answer.json()["views"]["Zone"]["status"] == ["missing"]
            answer = await client.post("/features", content=b" " * (MAX_BODY + 1))
            assert answer.status_code == 413
            said_wrong(answer)

        asking(tmp_path, talk)

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            (b"", 400), (b"garbage", 400), (b"[]", 400), (b"{}", 400), (b'{"keys":["1"]}', 400), (b'{"views":["Zone"]}', 400),
            (b'{"views":["Zone"],"keys":"1"}', 400), (b'{"views":["Zone"],"keys":[1.5]}', 400),
            (b'{"views":["Zone"],"keys":[true]}', 400), (b'{"views":["Zone"],"keys":[["1"]]}', 400),
            (b'{"views":["Zone"],"keys":["\xff"]}', 400), (b'{"views":["Zone"],"keys":["\\ud800"]}', 400),
            (b'{"views":["Zone"],"keys":[{"zone":"1"},"1"]}', 400), (b'{"views":["Zone"],"keys":{"car":[1]}}', 400),
            (b'{"views":["Zone","Car"],"keys":["1"]}', 400), (b'{"views":["Zone","Car"],"keys":{"zone":["1"],"car":[]}}', 400),
            (b'{"views":["Car"],"keys":["07"]}', 400), (b'{"views":["Car"],"keys":["x"]}', 400),
            (b'{"views":["Car"],"keys":["' + b"7" * 5_000 + b'"]}', 400),
            (b'{"views":["Car"],"keys":[1e99]}', 400), (b'{"views":["Pair"],"keys":[["1"]]}', 400),
            (b'{"views":["Zone"],"keys":["1"],"at":"garbage"}', 400),
            (b'{"views":["Zone"],"keys":["1"],"at":"2024-01-01T00:00"}', 400),
            (b'{"views":["Zone"],"keys":["1"],"at":"2999-01-01T00:00:00Z"}', 400),
            (b'{"views":["Zone"],"keys":["1"],"at":["2024-01-01T00:00:00Z","2024-01-01T00:00:00Z"]}', 400),
            (b'{"views":["Zone"],"keys":["1"],"nonsense":1}', 400), (b'{"views":["Nothing"],"keys":["1"]}', 404),
            (b'{"features":["Zone.nothing"],"keys":["1"]}', 404), (b'{"model":"nothing","keys":["1"]}', 404),
            (b'{"features":["' + b"x" * 5000 + b'"],"keys":["1"]}', 404), (b"[" * 100_000, 400),
        ],
        ids=lambda value: str(value)[:60],
    )  # fmt: skip
    def test_a_bad_query_is_refused_in_one_sentence(self, tmp_path: Path, body: bytes, status: int) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            answer = await client.post("/features", content=body)
            assert answer.status_code == status, answer.text
            assert len(said_wrong(answer)) < 300
            if status == 404:
                assert "Zone" in said_wrong(answer)

        asking(tmp_path, talk)

    def test_a_state_of_another_version_of_the_views_is_never_misread(self, tmp_path: Path) -> None:
        async def story(machine: Embedded) -> None:
            store: Any = machine.store
            for shard in range(4):
                saved = await store.open(machine.topics.shard(shard))
                other = {state_key("zone", zone): bytes(8 * 5) for zone in ODD}
                await store.write(machine.topics.shard(shard), saved.version, Change(saved.position, heads=other))
            online = OnlineFeatures(machine.topics, store)
            async with client_of(api.app(online, ["Zone", "Car", "Pair"], str)) as client:
                for answer in (
                    await client.get("/features/Zone/1"),
                    await client.post("/features", json={"views": ["Zone"], "keys": ["1"]}),
                ):
                    assert answer.status_code == 503
                    assert "another version of the views" in said_wrong(answer)
                assert (await client.get("/features/Car/1")).status_code == 200

        run(tmp_path, story)

    def test_nothing_is_asked_of_the_store_but_once(self, tmp_path: Path) -> None:
        class Counted(MemoryStore):
            asked = 0

            async def gather(self, places: Sequence[Place], tailed: int) -> tuple[list[bytes], list[bytes]]:
                self.asked += 1
                assert len(places) == len(set(places))
                return await super().gather(places, tailed)

        async def story(machine: Embedded) -> None:
            store: Any = machine.store
            online, before = OnlineFeatures(machine.topics, store), store.asked
            keys = {"zone": [*ODD, "1", None] * 20, "car": list(range(len(ODD) + 2)) * 20}
            await online.read(["Zone", "Car", "Pair"], keys)
            assert store.asked == before + 1

        run(tmp_path, story, Counted())

    def test_the_description_names_what_is_asked_and_answered(self) -> None:
        described = api.openapi()
        asked = described["paths"]["/features"]["post"]
        assert asked["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Query"}
        assert set(asked["responses"]["200"]["content"]) == {"application/json", ARROW}
        assert {"Query", "Answer", "Standing"} <= set(described["components"]["schemas"])


@pytest.fixture
def served(redis_url: str, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The addresses of a Redis in which the trips are, and of a feature store's HTTP side on it."""
    there, over, places = threading.Event(), threading.Event(), []

    async def story(machine: Embedded) -> None:
        app = api.app(OnlineFeatures(machine.topics, machine.store), ["Zone", "Car", "Pair"], str)
        server = uvicorn.Server(uvicorn.Config(app, ports.LOOPBACK, 0, log_level="error"))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.005)
        places.append(f"http://{ports.LOOPBACK}:{server.servers[0].sockets[0].getsockname()[1]}")
        there.set()
        await asyncio.to_thread(over.wait, 60)
        server.should_exit = True
        await serving

    thread = threading.Thread(target=lambda: run(tmp_path, story, RedisStore(redis_url, TRIPS.name)))
    thread.start()
    assert there.wait(60)
    yield redis_url, places[0]
    over.set()
    thread.join(60)


def same(one: Readings, other: Readings) -> bool:
    return (one.columns, one.views) == (other.columns, other.views) and all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=name == "values")
        for name in ("values", "codes", "as_of", "newest")
    )


def test_choices_without_end_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.online.reader._CHOICES", 5)
    lookups = Lookups(Topics(TRIPS, 1))
    found = {lookups.of(("Zone",) * n) for n in range(1, 100)}
    assert len(lookups._meant) <= 5
    assert {lookup.columns for lookup in found} == {next(iter(found)).columns}


class TestClients:
    @pytest.mark.parametrize("few", [0, 1000], ids=["arrow", "json"])
    def test_from_redis_and_over_http_for_threads_and_for_asyncio_they_say_the_same(
        self, served: tuple[str, str], few: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("penstock.online.client._FEW", few)
        frame = pd.DataFrame({"zone": [*ODD, "nobody", None], "car": [*range(len(ODD)), None, 3]})
        questions: list[tuple[Any, Any, Any]] = [
            (Zone, ODD, at(20)),
            ("Zone", np.array(["1", "11"]), at(20)),
            ([Zone.trips_1h, "Car", Pair], frame, at(20)),
            ([Car, Zone.usual], frame, pd.Series(pd.date_range("2024-01-01", periods=len(frame), freq="1min", tz="UTC"))),
            ([Zone, Car], frame.astype({"zone": "string", "car": "Int64"}), at(20)),
            (Car, pd.Series([1, None, 3], dtype="Int64"), at(20)),
            (Pair, [("1", 0), ["11", 1], None], [at(20), at(21), at(22)]),
            (Zone, [], at(20)),
        ]

        async def asynchronous(url: str) -> list[Readings]:
            async with ps.AsyncFeatureClient(url, TRIPS) as client:
                return [await client.read(*question) for question in questions]

        answers = []
        for url in served:
            with ps.FeatureClient(url, TRIPS) as client:
                answers.append([client.read(*question) for question in questions])
            answers.append(asyncio.run(asynchronous(url)))
        for other in answers[1:]:
            for one, two in zip(answers[0], other, strict=True):
                assert same(one, two)
        assert answers[0][0].values[:, 0].tolist() == [2, *[1] * (len(ODD) - 1)]

    def test_a_frame_comes_back_with_a_row_for_each_row(self, served: tuple[str, str]) -> None:
        with ps.FeatureClient(served[1]) as client:
            found = client.read(["Zone.trips_1h", "Zone.newest"], ["1", "nobody"], at(20))
        pd.testing.assert_frame_equal(
            found.to_pandas(status=True),
            pd.DataFrame(
                {
                    "Zone.trips_1h": [2.0, 0.0], "Zone.newest": [13.0, np.nan], "Zone:status": ["unpromised", "missing"],
                    "Zone:age": [420.0, np.nan], "Zone:as_of": pd.to_datetime([at(20)] * 2).astype("datetime64[us, UTC]"),
                }
            ),
        )  # fmt: skip
        assert found[0]["Zone"].values == {"trips_1h": 2.0, "newest": 13.0}
        assert list(found.to_pandas().columns) == ["Zone.trips_1h", "Zone.newest"]

    def test_what_is_wrong_is_said_alike(self, served: tuple[str, str]) -> None:
        said = []
        for url in served:
            with ps.FeatureClient(url, TRIPS) as client:
                for what, keys in (("Nothing", ["1"]), ("Car", ["07"]), ("Zone.nothing", ["1"]), ([Zone, Car], ["1"])):
                    with pytest.raises(Refused) as caught:
                        client.read(what, keys)
                    said.append(str(caught.value))
        assert said[:4] == said[4:]

    def test_a_key_of_64_kib_is_a_key_in_a_path_too(self, served: tuple[str, str]) -> None:
        where = httpx.URL(served[1])
        connection = http.client.HTTPConnection(where.host, where.port, timeout=10)
        for key, status in (("k" * 65_000, 200), ("%2F" * 20_000, 200)):
            connection.request("GET", f"/features/Zone/{key}")
            answer = connection.getresponse()
            said = msgspec.json.decode(answer.read())
            assert (answer.status, said["status"]) == (status, "missing")
        connection.close()

    def test_nobody_there_is_said_with_what_to_type(self) -> None:
        for url in ("http://127.0.0.1:1", "redis://user:secret@127.0.0.1:1/0"):
            with ps.FeatureClient(url, TRIPS) as client, pytest.raises(Unreachable) as caught:
                client.read(Zone, ["1"])
            assert "penstock" in caught.value.fix and "secret" not in str(caught.value)

    def test_a_redis_without_this_project_is_no_redis_full_of_unknown_entities(self, redis_url: str) -> None:
        client = ps.FeatureClient(redis_url, Project("never-ran", rows={Trip: [Zone]}))
        with client, pytest.raises(Unreachable, match="has not written to this Redis yet"):
            client.read(Zone, ["1"])

    def test_threads_share_a_client(self, served: tuple[str, str]) -> None:
        with ps.FeatureClient(served[0], TRIPS) as client:
            want = client.read([Zone, Car, Pair], {"zone": ODD, "car": list(range(len(ODD)))}, at(20))
            wrong: list[Exception] = []

            def ask() -> None:
                try:
                    for _ in range(50):
                        found = client.read([Zone, Car, Pair], {"zone": ODD, "car": list(range(len(ODD)))}, at(20))
                        assert same(found, want)
                except Exception as error:
                    wrong.append(error)

            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
        assert not wrong


def test_every_status_is_told_in_the_schema_of_an_answer() -> None:
    from penstock.online.query import Standing

    said = str(msgspec.json.schema(Standing))
    assert all(status in said for status in STATUSES)
