"""TLS and passwords, towards a real Kafka and a real Redis: who proves himself gets in, others hear why not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import missing
from tests.integration.test_lag import TOPICS
from tests.secure import NAME, PASSWORD, SecureKafka, SecureRedis, available, certify

from penstock.local import doctor
from penstock.log import Send, Topic
from penstock.log.kafka import KafkaLog
from penstock.log.security import PLAIN, Security
from penstock.runtime.agents import Agents
from penstock.runtime.lag import Lag
from penstock.store.redis import RedisStore

WHO: dict[str, Any] = {"username": NAME, "password": PASSWORD}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory, servers_here: None) -> Path:
    if (reason := available()) is not None:
        missing("TLS", reason)
    return certify(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Iterator[SecureKafka]:
    broker = SecureKafka(tmp_path_factory.mktemp("kafka"), keys)
    broker.start()
    yield broker
    broker.kill()


def ways(keys: Path) -> dict[str, Security]:
    ca = str(keys / "cert.pem")
    return {
        "mutual TLS": Security("SSL", ca, ca, str(keys / "key.pem")),
        "a password": Security("SASL_PLAINTEXT", **WHO),
        "a password inside TLS": Security("SASL_SSL", ca, mechanism="PLAIN", **WHO),
        "a challenge inside TLS": Security("SASL_SSL", ca, mechanism="SCRAM-SHA-512", **WHO),
    }


WAYS = ["mutual TLS", "a password", "a password inside TLS", "a challenge inside TLS"]


@pytest.mark.parametrize("way", WAYS)
def test_records_go_to_a_broker_and_come_back(kafka: SecureKafka, keys: Path, way: str) -> None:
    security = ways(keys)[way]
    topic = Topic(way.replace(" ", "-").lower(), 2)

    async def turn() -> list[bytes | None]:
        log = KafkaLog(kafka.at[security.protocol], security=security)
        try:
            await log.create([topic])
            await log.send([Send(topic.name, b"k", b"%d" % i) for i in range(3)])
            member = await log.join(f"{topic.name}.readers", [topic.name])
            found: list[bytes | None] = []
            deadline = time.monotonic() + 30
            while len(found) < 3 and time.monotonic() < deadline:
                found += [value for batch in await member.read(10, 0.5) for value in batch.values]
            return found
        finally:
            await log.close()

    assert asyncio.run(turn()) == [b"0", b"1", b"2"]
    check = doctor.broker(kafka.at[security.protocol], security)
    assert (check.ok, security.protocol in check.detail) == (True, True)


class Echo:
    """Says again what it hears."""

    def __init__(self, prefix: str) -> None:
        self.reads, self.follows, self._said = (f"{prefix}.asked",), (), f"{prefix}.said"

    def recall(self, topic: str, key: bytes | None, value: bytes | None) -> None: ...

    async def apply(self, topic: str, key: bytes | None, value: bytes | None) -> list[Send]:
        return [Send(self._said, key, value)]


@pytest.mark.parametrize("way", WAYS)
def test_the_agents_of_the_control_lane_prove_themselves_too(kafka: SecureKafka, keys: Path, tmp_path: Path, way: str) -> None:
    security = ways(keys)[way]
    prefix = f"agents-{way.replace(' ', '-').lower()}"

    async def turn() -> int:
        address = kafka.at[security.protocol]
        log = KafkaLog(address, security=security)
        try:
            await log.create([Topic(f"{prefix}.{name}", 1) for name in ("asked", "said")])
            await log.send([Send(f"{prefix}.asked", b"k", b"hello")])
            agents = Agents(Echo(prefix), prefix, address, log, tmp_path, security=security)  # type: ignore[arg-type]
            stop, deadline = asyncio.Event(), time.monotonic() + 60
            working = asyncio.create_task(agents.run(stop))
            while not sum((await log.ends([f"{prefix}.said"])).values()) and time.monotonic() < deadline and not working.done():
                await asyncio.sleep(0.1)
            stop.set()
            await working
            return sum((await log.ends([f"{prefix}.said"])).values())
        finally:
            await log.close()

    assert asyncio.run(turn()) == 1


def test_how_far_readers_are_behind_is_asked_of_a_broker_that_wants_a_password(kafka: SecureKafka, keys: Path) -> None:
    security = ways(keys)["a password inside TLS"]

    async def turn() -> dict[str, int] | None:
        log = KafkaLog(kafka.at[security.protocol], security=security)
        lag = Lag(kafka.at[security.protocol], log, TOPICS, security=security)
        try:
            await log.create(TOPICS.all())
            while (found := await lag.records()) is None:  # it makes the topic of groups when it is first asked for one
                await asyncio.sleep(0.1)
            return found
        finally:
            await lag.close()
            await log.close()

    assert asyncio.run(asyncio.wait_for(turn(), 60)) == {TOPICS.group("feature_store"): 0}


def test_doctor_says_why_a_broker_does_not_take_us(kafka: SecureKafka, keys: Path, tmp_path: Path) -> None:
    ca = str(keys / "cert.pem")
    wrong = doctor.broker(kafka.at["SASL_SSL"], Security("SASL_SSL", ca, username=NAME, password="hopper"))
    assert wrong.ok is False and "Authentication failed" in wrong.detail and "hopper" not in wrong.detail
    stranger = doctor.broker(kafka.at["SASL_SSL"], Security("SASL_SSL", **WHO))
    assert stranger.ok is False and "certificate verify failed" in stranger.detail
    plain = doctor.broker(kafka.at["SASL_SSL"], PLAIN)
    assert plain.ok is False and "PENSTOCK_KAFKA_SECURITY_PROTOCOL" in plain.detail
    nameless = doctor.broker(kafka.at["SSL"], Security("SSL", ca))
    assert nameless.ok is False
    absent = doctor.broker(kafka.at["SSL"], Security("SSL", str(tmp_path / "none.pem")))
    assert absent.ok is False and "PENSTOCK_KAFKA_SSL_CA cannot be used" in absent.detail


def test_the_online_store_is_reached_through_tls_and_a_stranger_is_not_trusted(keys: Path, tmp_path: Path) -> None:
    server = SecureRedis(tmp_path / "redis", keys)
    server.start()
    try:

        async def turn() -> int:
            store = RedisStore(server.secure_url, "cards")
            try:
                return (await store.open("feature_store.0")).version
            finally:
                await store.close()

        assert asyncio.run(turn()) == 0
        assert doctor.redis(server.secure_url).ok
        stranger = doctor.redis(server.secure_url.partition("?")[0])
        assert stranger.ok is False and "certificate" in stranger.detail
    finally:
        server.kill()
