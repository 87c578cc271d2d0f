"""Answers to tensors are records, as answers to events are: safe before they are given, once each, bounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from tests.services.air import TOPICS, Door, late, talking
from tests.services.crew import settle

from penstock.log import LogError, Send
from penstock.offline import Tables
from penstock.records import Inference
from penstock.records import Tensor as Tensors
from penstock.services.feature_store.archive import Archive
from penstock.services.inference.gateway import inferences as module
from penstock.services.inference.gateway import recorder as recorders
from penstock.services.inference.gateway.spill import Spill
from penstock.services.inference.open_inference.rpc import GRACE, served
from penstock.services.inference.open_inference.tensors import Asked, Signature, Tensor

INFER = "/v2/models/late/infer"
WIDTH = len(late.inputs)


def rows(*values: Sequence[float | None], **more: Any) -> dict[str, Any]:
    data = [value for row in values for value in row]
    return {"inputs": [{"name": "X", "shape": [len(values), WIDTH], "datatype": "FP32", "data": data}], **more}


def read(records: Sequence[Send]) -> list[Inference]:
    return [msgspec.json.decode(one.value or b"", type=Inference) for one in records if one.topic == TOPICS.inferences]


ROW = [3.0, None, 100.5, 1.0, 200.0]


def test_an_answer_is_recorded_with_what_was_asked(door: Door) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def talk(client: httpx.AsyncClient) -> None:
        answer = await client.post(INFER, json=rows(ROW, id="r-1"), headers={"traceparent": trace})
        (found,) = read(door.log.sent)
        assert (found.id, found.model, found.version, found.digest) == ("r-1", "late", "v1", door.world.stored["v1"].sha256)
        assert (found.rows, found.recorded, found.trace) == (1, 1, trace[3:35])
        assert (found.inputs["X"].datatype, found.inputs["X"].shape, found.inputs["X"].data) == ("FP32", [1, WIDTH], ROW)
        assert found.outputs["score"].data == answer.json()["outputs"][0]["data"]
        assert 0 < found.latency < 5
        record = door.log.sent[-1]
        assert record.key == b"r-1"
        assert dict(record.headers)["traceparent"] == trace.encode()

    door.run(talk, door.said("champion", "v1"))


def test_what_was_recorded_is_archived_each_record_once(door: Door, tmp_path: Path) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        for body in (rows(ROW, id="same"), rows(ROW, ROW, id="same"), rows(ROW)):
            await client.post(INFER, json=body)
        for _ in range(2):  # who comes after reads on where the table ends
            await settle(Archive(TOPICS, door.log, tmp_path))
        found = Tables(tmp_path).table(TOPICS.inferences).arrow().sort_by("offset").to_pylist()
        given = read(door.log.sent)
        assert [row["id"] for row in found] == [one.id for one in given] and len(found) == 3
        assert [(row["model"], row["version"], row["rows"], row["time"]) for row in found] == [
            (one.model, one.version, one.rows, one.time) for one in given
        ]
        assert [msgspec.json.decode(row["outputs"], type=dict[str, Tensors]) for row in found] == [one.outputs for one in given]
        assert json.loads(found[0]["inputs"])["X"]["data"] == ROW

    door.run(talk, door.said("champion", "v1"))


def test_each_answer_is_a_record_of_its_own_also_under_an_id_that_was_used(door: Door) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        for body in (rows(ROW, id="same"), rows(ROW, id="same"), rows(ROW), rows(ROW)):
            await client.post(INFER, json=body)
        said = [dict(record.headers)["ce_id"] for record in door.log.sent if record.topic == TOPICS.inferences]
        assert len(set(said)) == 4
        found = read(door.log.sent)
        assert [one.id for one in found[:2]] == ["same", "same"]
        assert found[2].id != found[3].id

    door.run(talk, door.said("champion", "v1"))


def test_a_request_that_is_refused_is_no_record(door: Door) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        assert (await client.post(INFER, json={"inputs": []})).status_code == 400
        assert read(door.log.sent) == []

    door.run(talk, door.said("champion", "v1"))


def test_without_a_spill_an_answer_that_the_log_does_not_take_is_not_given(door: Door) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        door.log.trouble = LogError("the broker is away")
        answer = await client.post(INFER, json=rows(ROW))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json() == {"error": "Kafka does not answer: the broker is away"}

    door.run(talk, door.said("champion", "v1"))


def test_while_the_log_is_away_answers_are_given_and_recorded_once_when_it_is_back(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorders, "RETRY_SECONDS", (0.01,))

    async def whole() -> None:
        async with door.opened(door.said("champion", "v1"), app=door.app(spill=Spill(tmp_path, 1 << 20))) as client:
            names = [f"r-{n}" for n in range(30)]
            for at, name in enumerate(names):
                door.log.trouble = LogError("the broker is away") if 10 <= at < 20 else None
                assert (await client.post(INFER, json=rows(ROW, id=name))).status_code == 200
            async with asyncio.timeout(20):
                while len(read(door.log.sent)) < len(names):
                    await asyncio.sleep(0.01)
            assert [one.id for one in read(door.log.sent)] == names

    asyncio.run(whole())


def test_a_share_of_them_is_recorded_where_that_is_wished(door: Door) -> None:
    async def whole(share: float) -> int:
        async with talking(door.app(recorded=share)) as client:
            before = len(read(door.log.sent))
            for _ in range(200):
                assert (await client.post(INFER, json=rows(ROW))).status_code == 200
            return len(read(door.log.sent)) - before

    async def shares() -> None:
        await door.log.create(TOPICS.all())
        await door.log.send([door.said("champion", "v1")])
        assert await whole(0.0) == 0
        assert 50 < await whole(0.5) < 150

    asyncio.run(shares())


def test_of_many_rows_the_first_are_written_down_and_all_are_counted(door: Door) -> None:
    drawn = np.random.default_rng(0).normal(size=(1_000, WIDTH)).round(2)

    async def talk(client: httpx.AsyncClient) -> None:
        answer = (await client.post(INFER, json=rows(*drawn.tolist()))).json()
        (found,) = read(door.log.sent)
        kept = module.VALUES // WIDTH
        assert (found.rows, found.recorded, found.inputs["X"].shape) == (1_000, kept, [1_000, WIDTH])
        assert found.inputs["X"].data == drawn.astype(np.float32)[:kept].ravel().tolist()
        assert found.outputs["score"].data == answer["outputs"][0]["data"][:kept]

    door.run(talk, door.said("champion", "v1"))


def test_no_record_grows_beyond_what_its_topic_takes(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BYTES", 2_000)

    async def talk(client: httpx.AsyncClient) -> None:
        await client.post(INFER, json=rows(*[ROW] * 500))
        (found,) = read(door.log.sent)
        assert 0 < found.recorded < 100
        assert len(door.log.sent[-1].value or b"") <= 2_000
        assert len(found.inputs["X"].data) == found.recorded * WIDTH

    door.run(talk, door.said("champion", "v1"))


def test_by_grpc_it_is_the_same(door: Door) -> None:
    triton = pytest.importorskip("tritonclient.grpc.aio")

    async def whole() -> None:
        app = door.app()
        async with door.opened(door.said("champion", "v1"), app=app):
            server, port = await served(app.state.open_inference, "127.0.0.1", 0)
            async with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
                given = triton.InferInput("X", [1, WIDTH], "FP32")
                given.set_data_from_numpy(np.ones((1, WIDTH), np.float32))
                answer = await client.infer("late", [given], request_id="g-1")
            await server.stop(GRACE)
            (found,) = read(door.log.sent)
            assert (found.id, found.outputs["score"].data) == ("g-1", answer.as_numpy("score").tolist())

    asyncio.run(whole())


def test_a_long_id_is_kept_as_far_as_anybody_reads(door: Door) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        answer = await client.post(INFER, json=rows(ROW, id="i" * 900_000))
        assert (answer.status_code, answer.json()["id"]) == (200, "i" * 900_000)
        (found,) = read(door.log.sent)
        assert found.id == "i" * 1_000 and door.log.sent[-1].key == b"i" * 1_000

    door.run(talk, door.said("champion", "v1"))


def test_requests_are_counted_by_what_they_ask(door: Door) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        await client.post(INFER, json=rows(ROW))
        assert 'penstock_http_requests_total{route="/v2",status="200"} 1.0' in (await client.get("/metrics")).text

    door.run(talk, door.said("champion", "v1"))


def test_a_value_without_rows_is_recorded_whole_or_not_at_all() -> None:
    wide, one = Tensor("X", "FP32", [1, -1]), Tensor("by", "FP32", [])
    version: Any = SimpleNamespace(model="m", name="1", signature=Signature((wide, one), (wide,), False), parameters={})
    for width, kept in ((4, [2.0]), (module.VALUES + 1, [])):
        x = np.zeros((1, width), np.float32)
        asked = Asked({"X": x, "by": np.array(2, np.float32)}, 1, ("X",), frozenset(), None)
        found = msgspec.json.decode(module._record(version, asked, [x], "id", 0.0, ""), type=Inference)
        assert (found.inputs["by"].shape, found.inputs["by"].data) == ([], kept)
