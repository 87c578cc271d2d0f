"""A model in a user's own process follows the models topic on a real Kafka."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.services.air import PROJECT, World, late

import penstock as ps
from penstock.errors import PenstockError, Unreachable
from penstock.log import Send
from penstock.log.kafka import KafkaLog
from penstock.topics import Topics

SECONDS = 20.0


def sent(bootstrap: str, *records: Send) -> None:
    async def send() -> None:
        log = KafkaLog(bootstrap)
        try:
            await log.create([topic for topic in Topics(PROJECT, 1).all() if topic.name.endswith(".models")])
            await log.send(records)
        finally:
            await log.close()

    asyncio.run(send())


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_loaded_model_is_swapped_when_the_registry_decides(
    kafka_bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path / "models")
    sent(kafka_bootstrap, world.said("champion", "v1"), world.said("v2", "v2", "registered"))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka_bootstrap)
    rows = np.zeros((3, len(late.inputs)), np.float32)
    with ps.load_model("late", project=PROJECT, data=tmp_path, follow=True) as model:
        assert model.version == "v1"
        for version in ("v2", "v3"):
            sent(kafka_bootstrap, world.said("champion", version))
            until(lambda version=version: model.version == version)  # type: ignore[misc]
            assert model.predict(rows).tolist() == pytest.approx([world.answer(version, [0.0] * 5)] * 3, abs=1e-6)
    sent(kafka_bootstrap, world.said("champion", "v1"))
    assert ps.load_model("late", project=PROJECT, data=tmp_path).version == "v1", "a new one"
    assert model.version == "v3", "one that is closed stays as it is"


def test_inside_an_event_loop_it_loads_as_well(kafka_bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent(kafka_bootstrap)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka_bootstrap)

    async def inside() -> None:
        with pytest.raises(PenstockError, match="model long has no alias champion"):
            ps.load_model("long", project=PROJECT, data=tmp_path)

    asyncio.run(inside())


def test_a_broker_that_is_away_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1"):
        ps.load_model("late", project=PROJECT, data=tmp_path)
