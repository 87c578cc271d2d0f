"""Real servers for the tests, started once per run. Without them their tests skip and say why; in CI they fail."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NoReturn

import pytest
import structlog
from tests import s3 as s3_server

from penstock.local import kafka, redis
from penstock.local.process import LocalError


def missing(what: str, reason: str) -> NoReturn:
    """Skip on a laptop, fail in CI: there a missing server would hide that nothing was tested."""
    sentence = f"no {what}: {reason}"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)


@pytest.fixture(scope="module", autouse=True)
def what_is_logged() -> Iterator[None]:
    """Commands that run in the test's own process decide what is logged in it; the next module begins as a process does."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def servers_here() -> None:
    """For tests that start a Kafka and a Redis of their own, to be killed or filled."""
    for what, reason in (("Kafka", kafka.available()), ("Redis", redis.available())):
        if reason is not None:
            missing(what, reason)


@pytest.fixture(scope="session")
def kafka_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Kafka broker: the one named by TEST_KAFKA_BOOTSTRAP_SERVERS, else one of our own."""
    given = os.environ.get("TEST_KAFKA_BOOTSTRAP_SERVERS")
    if given:
        yield given
        return
    reason = kafka.available()
    if reason is not None:
        missing("Kafka", reason)
    broker = kafka.LocalKafka(tmp_path_factory.mktemp("kafka"))
    try:
        broker.start()
    except LocalError as error:
        missing("Kafka", str(error))
    yield broker.bootstrap
    broker.kill()  # its data goes with the folder


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis: the one named by TEST_REDIS_URL, else one of our own."""
    given = os.environ.get("TEST_REDIS_URL")
    if given:
        yield given
        return
    reason = redis.available()
    if reason is not None:
        missing("Redis", reason)
    server = redis.LocalRedis(tmp_path_factory.mktemp("redis"))
    try:
        server.start()
    except LocalError as error:
        missing("Redis", str(error))
    yield server.url
    server.kill()


@pytest.fixture(scope="session")
def s3_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3_server.LocalS3]:
    """An S3 server of our own."""
    reason = s3_server.available()
    if reason is not None:
        missing("S3", reason)
    server = s3_server.LocalS3(tmp_path_factory.mktemp("s3"))
    try:
        server.start()
    except LocalError as error:
        missing("S3", str(error))
    yield server
    server.kill()


@pytest.fixture
def s3(s3_here: s3_server.LocalS3, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A prefix of a bucket that no other test uses, found through the standard variables."""
    for name, value in s3_here.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3_server.BUCKET}/{re.sub('[^a-z0-9_]+', '-', request.node.name)}"
