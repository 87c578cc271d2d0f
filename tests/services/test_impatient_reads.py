"""A read whose store or service says nothing ends in time, in words; and one of a store that came back goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.services.air import client_of, said_wrong
from tests.services.test_queries import TRIPS, Trip, Zone, run

import penstock as ps
from penstock.errors import DefinitionError, PenstockError, Refused, Unreachable
from penstock.local import port as ports
from penstock.local import redis
from penstock.online import reader
from penstock.online.client import TIMEOUT
from penstock.online.reader import PATIENCE, OnlineFeatures
from penstock.project import Project
from penstock.services.embedded import Embedded
from penstock.services.feature_store import api
from penstock.store.redis import RedisReader, RedisStore

PATIENT = 30.0
"""Seconds after which something that should have been told within a fraction of one counts as hanging."""


@ps.features(by=Trip.zone)
class Other:
    """Where the store has `Zone`."""

    trips_9h = ps.count(Trip, over="9h")


OTHERS = Project(TRIPS.name, rows={Trip: [Other]})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[redis.LocalRedis]:
    if reason := redis.available():
        pytest.skip(reason)
    with redis.LocalRedis(tmp_path / "redis") as running:
        yield running


@contextmanager
def hanging(server: redis.LocalRedis) -> Iterator[None]:
    """A server that accepts connections and answers nothing."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def told(call: Callable[[], object]) -> PenstockError:
    """What a call raises, which must come soon and say what to type, with nothing chained to it."""
    began = time.monotonic()
    with pytest.raises(PenstockError) as caught:
        call()
    assert time.monotonic() - began < PATIENT / 2
    assert caught.value.fix
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


async def read(url: str, project: Project = TRIPS, what: Any = "Zone", timeout: float = 0.2) -> Any:
    async with ps.AsyncFeatureClient(url, project, timeout=timeout) as client:
        return await client.read(what, ["1"])


def test_a_redis_that_hangs_is_told_in_time_and_read_again_when_it_goes_on(server: redis.LocalRedis, tmp_path: Path) -> None:
    async def story(machine: Embedded) -> None:
        def asked() -> None:
            with (
                ps.FeatureClient(server.url, TRIPS, timeout=0.2) as kept,
                ps.FeatureClient(server.url, TRIPS, timeout=0.2) as new,
            ):
                want = kept.read(Zone.newest, ["1"]).values
                with hanging(server):
                    for client in (kept, new):
                        said = told(lambda client=client: client.read(Zone, ["1"]))  # type: ignore[misc]
                        assert isinstance(said, Unreachable) and "does not answer" in str(said) and "timeout=" in said.fix
                    said = told(lambda: asyncio.run(read(server.url)))
                    assert isinstance(said, Unreachable) and "does not answer" in str(said)
                assert kept.read(Zone.newest, ["1"]).values == new.read(Zone.newest, ["1"]).values == want

        await asyncio.to_thread(asked)

    run(tmp_path, story, RedisStore(server.url, TRIPS.name))


def test_a_service_whose_redis_hangs_says_503_before_its_clients_give_up(server: redis.LocalRedis, tmp_path: Path) -> None:
    assert PATIENCE < TIMEOUT

    async def story(machine: Embedded) -> None:
        online = OnlineFeatures(machine.topics, machine.store, patience=0.2)
        async with client_of(api.app(online, ["Zone", "Car", "Pair"], str)) as client:
            query = {"views": ["Zone"], "keys": ["1"]}
            assert (await client.post("/features", json=query)).status_code == 200
            with hanging(server):
                async with asyncio.timeout(PATIENT):
                    answers = [await client.post("/features", json=query), await client.get("/features/Zone/1")]
                for answer in answers:
                    assert answer.status_code == 503
                    assert "no answer from the online store in 0.2 s" in said_wrong(answer)
            assert (await client.post("/features", json=query)).status_code == 200

    run(tmp_path, story, RedisStore(server.url, TRIPS.name))


def test_a_service_that_hangs_is_told_in_time() -> None:
    with socket.create_server((ports.LOOPBACK, 0)) as silent:
        url = f"http://{ports.LOOPBACK}:{silent.getsockname()[1]}"
        with ps.FeatureClient(url, timeout=0.2) as client:
            for said in (told(lambda: client.read(Zone, ["1"])), told(lambda: asyncio.run(read(url)))):
                assert isinstance(said, Unreachable) and url in str(said) and "timeout=" in said.fix


def test_what_is_no_feature_store_is_told_so() -> None:
    def once(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n<a/>")

    with socket.create_server((ports.LOOPBACK, 0)) as other:
        thread = threading.Thread(target=once, args=(other,))
        thread.start()
        url = f"http://{ports.LOOPBACK}:{other.getsockname()[1]}"
        with ps.FeatureClient(url, timeout=PATIENT) as client:
            assert "is no feature store" in str(told(lambda: client.read(Zone, ["1"])))
        thread.join(PATIENT)


def test_connections_of_before_a_restart_are_left_for_new_ones(server: redis.LocalRedis) -> None:
    place = [("shard.0", b"a")]

    async def both() -> None:
        store, reads = RedisStore(server.url, "p"), RedisReader(server.url, "p")
        want = await store.gather(place, 1)
        assert want == reads.fetch(place, 1) == ([b""], [b""])
        at_once = await asyncio.gather(*(store.gather(place, 1) for _ in range(5)))  # five connections are kept
        assert at_once == [want] * 5
        server.kill()
        server.start()
        assert await store.gather(place, 1) == reads.fetch(place, 1) == want
        await store.close()
        reads.close()

    asyncio.run(both())


def test_a_client_of_other_definitions_than_the_stores_is_told_in_one_error(redis_url: str, tmp_path: Path) -> None:
    async def story(machine: Embedded) -> None:
        def asked() -> None:
            with ps.FeatureClient(redis_url, OTHERS) as client:
                for call in (lambda: client.read(Other, ["1"]), lambda: asyncio.run(read(redis_url, OTHERS, Other))):
                    said = told(call)
                    assert isinstance(said, Unreachable) and "of these definitions has not written" in str(said)
                    assert "backfill" in said.fix

        await asyncio.to_thread(asked)

    run(tmp_path, story, RedisStore(redis_url, TRIPS.name))


@pytest.mark.parametrize(
    "url",
    ["foo://x", "127.0.0.1:6379", "redis://u:secret@h:port/0", "http://", "redis://", "http://[", "https://h:port", "nonsense"],
)
def test_what_is_no_address_is_told_by_what_one_looks_like(url: str) -> None:
    for client in (ps.FeatureClient, ps.AsyncFeatureClient):
        said = told(lambda client=client: client(url, TRIPS))  # type: ignore[misc]
        assert isinstance(said, DefinitionError) and "redis://127.0.0.1" in said.fix and "secret" not in str(said)


def test_a_moment_without_a_zone_is_refused_with_how_to_write_one() -> None:
    for at in (datetime(2024, 1, 1), "2024-01-01T00:00:00", [datetime(2024, 1, 1)]):
        with pytest.raises(Refused, match="has no time zone: write 2024-01-01T00:00:00Z, or datetime"):
            reader.moments(at, 1)


def test_numpys_moments_are_in_utc_one_or_many() -> None:
    want = [int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1e6)]
    for at in (np.datetime64("2024-01-01"), np.array("2024-01-01", "M8[s]"), np.array(["2024-01-01"], "M8[D]")):
        assert reader.moments(at, 1).tolist() == want


def test_a_service_that_warmed_up_compiles_nothing_when_it_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(machine: Embedded) -> None:
        online = OnlineFeatures(machine.topics, machine.store)
        online.warm()
        monkeypatch.setattr("penstock.online.lookup.Answering", None)  # who compiles now fails
        async with client_of(api.app(online, ["Zone", "Car", "Pair"], str)) as client:
            assert (await client.post("/features", json={"views": ["Zone"], "keys": ["1"]})).status_code == 200
            assert (await client.get("/features/Car/1")).status_code == 200

    run(tmp_path, story)
