"""The same row gets the same score, to the last bit, on the stream, over HTTP and in a user's own process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pandas as pd
import pytest
from tests.services.air import EVENT, PROJECT, TOPICS, Door, Driven, World, answers, flight, late

import penstock as ps
from penstock.errors import DefinitionError, PenstockError, Refused, Unreachable
from penstock.log import Send
from penstock.records import Row
from penstock.scoring.decisions import keep
from penstock.scoring.loading import LoadedModel
from penstock.scoring.versions import Versions

MIXED = {"batch": 0.3, "online": 0.7}


def charge(world: World, who: str) -> list[Send]:
    """The decisions that put a version in charge; mixed: with the online learner."""
    if who != "mixed":
        return [world.said("champion", who)]
    return [world.said("champion", "v1"), world.said("online", "online-1", "snapshot", weights=MIXED)]


def left(world: World, decisions: Sequence[Send]) -> Path:
    """A data folder in which a run in one process left them."""
    keep(world.artefacts.root, TOPICS.models, {d.key or b"": d.value or b"" for d in decisions})
    return world.artefacts.root.parent


def inputs_of(sent: Send) -> dict[str, float | None]:
    """What the model sees of a row as it was sent."""
    row = msgspec.json.decode(sent.value or b"", type=Row)
    event, features = json.loads(bytes(row.event)), json.loads(bytes(row.features))
    return {n: features[n] if n in features else event.get(n.partition(".")[2]) for n in late.inputs}


@pytest.mark.parametrize("who", ["v1", "online-1", "mixed"])
class TestEveryWay:
    def test_gives_the_same_bits(self, driven: Driven, who: str) -> None:
        world, sent = driven.world, [flight(n) for n in range(300)]
        decisions, rows = charge(world, who), [inputs_of(s) for s in sent]
        driven.take(*decisions)
        streamed = [p.score for some in (sent[:1], sent[1:8], sent[8:]) for p in answers(driven.take(*some))]
        with ps.load_model("late", project=PROJECT, data=left(world, decisions)) as model:
            together, alone = model.predict(rows), [float(model.predict([row])[0]) for row in rows]
            framed = model.predict(pd.DataFrame(rows))
        assert together.dtype == np.float64
        assert together.tolist() == alone == framed.tolist() == streamed
        assert any(None in row.values() for row in rows)
        assert over_http(world, decisions, rows[:40]) == streamed[:40]


def over_http(world: World, decisions: Sequence[Send], rows: Sequence[dict[str, Any]]) -> list[float]:
    """Each row alone, and all of them together, as tensors; they agree."""
    alone: list[float] = []
    together: list[float] = []

    async def talk(client: httpx.AsyncClient) -> None:
        for some, into in [*(([row], alone) for row in rows), (rows, together)]:
            tensor = {"name": "X", "datatype": "FP32", "shape": [len(some), len(late.inputs)]}
            data = [[None if v is None else float(np.float32(v)) for v in row.values()] for row in some]
            answer = await client.post("/v2/models/late/infer", json={"inputs": [{**tensor, "data": data}]})
            into += answer.json()["outputs"][0]["data"]

    Door(world).run(talk, *decisions)
    assert alone == together
    return alone


def test_an_event_over_http_is_answered_as_in_a_process(world: World) -> None:
    found: list[dict[str, Any]] = []

    async def talk(client: httpx.AsyncClient) -> None:
        found.append((await client.post("/predict/late", json=EVENT)).json())

    decisions = charge(world, "mixed")
    Door(world).run(talk, *decisions)
    row = {"Origin.flights_1h": 3, "Origin.mean_distance": None, "distance": 100.5, "night": True, "seats": 200, "beside": "x"}
    model = ps.load_model("late", project=PROJECT, data=left(world, decisions))
    assert model.predict([row]).tolist() == [found[0]["score"]]


class TestALoadedModel:
    @pytest.fixture
    def data(self, world: World) -> Path:
        return left(world, [*charge(world, "mixed"), world.said("v2", "v2", "registered"), world.said("v1", "v1", "registered")])

    def test_says_what_it_is(self, world: World, data: Path) -> None:
        for name, version in (("late", "v1"), ("late@champion", "v1"), ("late@online", "online-1"), ("late@v2", "v2")):
            model = ps.load_model(name, project=PROJECT, data=data)
            assert (model.name, model.version, model.digest) == ("late", version, world.stored[version].sha256)
            assert model.inputs == late.inputs

    def test_of_one_version_gives_that_version_alone(self, world: World, data: Path) -> None:
        rows = [inputs_of(flight(n)) for n in range(20)]
        for version in ("v1", "v2", "online-1"):
            model = ps.load_model(f"late@{version}" if version != "online-1" else "late@online", project=PROJECT, data=data)
            assert model.predict(rows) == pytest.approx([world.answer(version, list(r.values())) for r in rows], abs=1e-6)

    @pytest.mark.parametrize("name", ["late@challenger", "late@v9", "late@late/champion"])
    def test_that_is_not_there_is_told_with_those_that_are(self, data: Path, name: str) -> None:
        with pytest.raises(PenstockError, match="model late has no") as caught:
            ps.load_model(name, project=PROJECT, data=data)
        assert caught.value.fix

    def test_needs_a_broker_or_what_a_run_left(self, tmp_path: Path, data: Path) -> None:
        with pytest.raises(Unreachable, match="no broker"):
            ps.load_model("late", project=PROJECT, data=tmp_path)
        with pytest.raises(Unreachable, match="no broker to follow"):
            ps.load_model("late", project=PROJECT, data=data, follow=True)

    def test_refuses_what_is_no_row(self, data: Path) -> None:
        model, row = ps.load_model("late", project=PROJECT, data=data), inputs_of(flight(1))
        with pytest.raises(DefinitionError, match=r"no Flight\.seats"):
            model.predict([row, {k: v for k, v in row.items() if k != "Flight.seats"}])
        with pytest.raises(Refused, match=r"row 1 has 'far' for Flight\.distance"):
            model.predict([row, {**row, "Flight.distance": "far"}])
        with pytest.raises(DefinitionError, match=r"not numbers \[rows, 5\]"):
            model.predict(np.zeros((2, 4)))
        assert model.predict([]).shape == (0,)

    def test_swaps_between_two_calls_and_only_to_what_can_be_trusted(self, world: World) -> None:
        versions = Versions("late@champion", PROJECT, world.artefacts)
        for said in charge(world, "v1"):
            versions.hear(said.key, said.value)
        model, rows = LoadedModel(versions), [inputs_of(flight(3))]
        for version in ("v2", "v3", "v1") * 3:
            said = world.said("champion", version)
            model.hear([(said.key, said.value)])
            assert (model.version, model.problem) == (version, "")
            assert model.predict(rows) == pytest.approx([world.answer(version, list(rows[0].values()))], abs=1e-6)
        wicked = world.said("champion", "v2", artefact=world.artefacts.put(b"\x80\x05cos\nsystem\n.", "river"))
        model.hear([(wicked.key, wicked.value), (b"late/champion-", b"{"), (b"long/champion", None)])
        assert model.version == "v1" and "v1 goes on" in model.problem
        gone = world.said("champion", None)
        model.hear([(gone.key, gone.value)])
        assert model.version == "v1" and "no alias champion" in model.problem

    def test_takes_a_version_whose_file_comes_late(self, world: World) -> None:
        versions = Versions("late", PROJECT, world.artefacts)
        first, second = world.said("champion", "v1"), world.said("champion", "v2")
        versions.hear(first.key, first.value)
        model, path = LoadedModel(versions), world.artefacts.root / world.stored["v2"].uri
        data = path.read_bytes()
        path.unlink()
        model.hear([(second.key, second.value)])
        assert model.version == "v1" and "cannot be read" in model.problem
        path.write_bytes(data)
        model.hear([])
        assert (model.version, model.problem) == ("v2", "")


def test_a_run_in_one_process_leaves_its_models_to_be_loaded(world: World, tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    from penstock.services.embedded import Embedded

    whole = ps.Project("air", [replace(late, build=lambda: ps.Learner(batch=LogisticRegression()))])

    async def run() -> None:
        machine = Embedded(whole, tmp_path)
        await machine.start()
        machine.artefacts.put(world.artefacts.get(world.stored["v1"]), "onnx")
        await machine.log.send([world.said("champion", "v2"), world.said("champion", "v1")])
        await machine.close()

    asyncio.run(run())
    assert ps.load_model("late@champion", project=PROJECT, data=tmp_path).version == "v1"
