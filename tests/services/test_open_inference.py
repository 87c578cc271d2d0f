"""The gateway speaks the Open Inference Protocol v2, strictly; tensors have no event, so their answers are not recorded."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pytest
from tests.services.air import Door, late, said_wrong

from penstock.scoring.answers import Serving, score
from penstock.services.inference.open_inference.protocol import _route

FLAT = [3.0, 2.5, 100.5, 1, 200, 0, None, -7.5, 0, None]


def tensors(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "X", "shape": [2, 5], "datatype": "FP32", "data": FLAT}
    whole = {key: value for key, value in changes.items() if key in ("id", "outputs", "inputs", "parameters")}
    inner = {key: value for key, value in changes.items() if key not in whole}
    return {"inputs": [tensor | inner], **whole}


WHOLE = json.dumps(tensors()).encode()


def holding(value: str) -> bytes:
    """A request with one number replaced by raw JSON."""
    return WHOLE.replace(b"100.5", value.encode())


BAD_TENSORS: dict[str, Any] = {
    "no inputs": {"inputs": []},
    "no body": None,
    "two inputs": {"inputs": tensors()["inputs"] * 2},
    "another name": tensors(name="Y"),
    "another datatype": tensors(datatype="FP64"),
    "an unknown datatype": tensors(datatype="FLOAT"),
    "a shape that says more": tensors(shape=[3, 5]),
    "a shape that says less": tensors(shape=[1, 5]),
    "another width": tensors(shape=[1, 10]),
    "one dimension": tensors(shape=[10]),
    "a negative shape": tensors(shape=[-2, -5]),
    "a huge shape": tensors(shape=[2**62, 5]),
    "a fractional shape": tensors(shape=[2.5, 5]),
    "texts": tensors(data=[str(value) for value in FLAT]),
    "bools": tensors(data=[True, False] * 5),
    "ragged rows": tensors(data=[FLAT[:5], FLAT[5:9]]),
    "rows and numbers": tensors(data=[FLAT[:5], *FLAT[5:]]),
    "rows nested too deep": tensors(data=[[FLAT[:5]], [FLAT[5:]]]),
    "beyond FP32": tensors(data=[1e39, *FLAT[1:]]),
    "an unknown output": tensors(outputs=[{"name": "label"}]),
    "a number for an id": tensors(id=7),
    "empty": b"",
    "truncated JSON": WHOLE[:-10],
    "invalid UTF-8": WHOLE.replace(b'"X"', b'"\xff"'),
    "NaN": holding("NaN"),
    "Infinity": holding("Infinity"),
    "1e999": holding("1e999"),
    "2^70 for a dimension": WHOLE.replace(b"[2, 5]", b"[%d, 5]" % 2**70),
    "deep nesting": holding("[" * 100_000 + "]" * 100_000),
    "an unknown field that nests deep": WHOLE[:-1] + b', "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


def test_a_path_longer_than_any_of_ours_is_nowhere_and_not_remembered(door: Door) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        before = _route.cache_info().currsize
        for number in range(3):
            assert (await client.get(f"/v2/models/late{number}{'x' * 2_000}")).status_code == 404
        assert _route.cache_info().currsize == before

    door.run(talk)


def test_tells_of_the_server(door: Door) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        for path in ("/v2", "/v2/"):
            answer = await client.get(path)
            assert (answer.status_code, set(answer.json())) == (200, {"name", "version", "extensions"})
        assert (await client.get("/v2/health/live")).json() == {"live": True}
        assert (await client.get("/v2/health/ready")).json() == {"ready": True, "live": True}

    door.run(talk)


def test_tells_of_the_model(door: Door) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        for path in ("/v2/models/late", "/v2/models/late/versions/v1"):
            assert (await client.get(path)).json() == {
                "name": "late", "versions": ["v1", "v2"], "platform": "penstock",
                "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, 5]}],
                "outputs": [{"name": "score", "datatype": "FP64", "shape": [-1]}],
                "parameters": {"sha256": door.world.stored["v1"].sha256},
            }  # fmt: skip
            assert (await client.get(path + "/ready")).json() == {"name": "late", "ready": True}

    door.run(talk, door.said("champion", "v1"), door.said("challenger", "v2", "shadow", 0.0))


def test_a_model_without_a_version_is_not_ready(door: Door) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        answer = await client.get("/v2/models/late/ready")
        assert (answer.status_code, answer.json()["ready"]) == (503, False)
        answer = await client.post("/v2/models/late/infer", json=tensors())
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
        assert "no version in charge yet" in said_wrong(answer)

    door.run(talk)


def test_infers_flat_and_nested_alike_and_records_nothing(door: Door) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        flat = (await client.post("/v2/models/late/infer", json=tensors(id="a"))).json()
        nested = tensors(id="a", data=[FLAT[:5], FLAT[5:]], outputs=[{"name": "score"}])
        assert (await client.post("/v2/models/late/infer", json=nested)).json() == flat
        serving = Serving(champion=door.sessions.member(door.world.decision("v1"), late.inputs))
        rows = np.array(FLAT, np.float32).reshape(2, 5)
        expected = score("late", rows, ["", ""], serving).score
        assert flat == {
            "model_name": "late", "model_version": "v1", "id": "a",
            "outputs": [{"name": "score", "shape": [2], "datatype": "FP64", "data": expected}],
        }  # fmt: skip
        assert door.recorded == []

    door.run(talk, door.said("champion", "v1"), door.said("challenger", "v2", "canary", 0.99))


def test_infers_by_a_version_on_duty(door: Door) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        one = (await client.post("/v2/models/late/versions/v1/infer", json=tensors())).json()
        two = (await client.post("/v2/models/late/versions/v2/infer", json=tensors())).json()
        assert (one["model_version"], two["model_version"]) == ("v1", "v2")
        assert one["outputs"][0]["data"] != two["outputs"][0]["data"]

    door.run(talk, door.said("champion", "v1"), door.said("challenger", "v2", "shadow", 0.0))


def test_no_rows_give_no_scores(door: Door) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        answer = await client.post("/v2/models/late/infer", json=tensors(shape=[0, 5], data=[]))
        assert answer.json()["outputs"][0] == {"name": "score", "shape": [0], "datatype": "FP64", "data": []}

    door.run(talk, door.said("champion", "v1"))


@pytest.mark.parametrize("body", BAD_TENSORS.values(), ids=BAD_TENSORS)
def test_bad_tensors_are_refused_in_one_sentence(door: Door, body: Any) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = await client.post("/v2/models/late/infer", content=sent)
        assert answer.status_code == 400
        said_wrong(answer)

    door.run(talk, door.said("champion", "v1"))


def test_binary_tensors_give_the_same_scores(door: Door) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        plain = (await client.post("/v2/models/late/infer", json=tensors())).json()
        raw = np.array(FLAT, "<f4").tobytes()
        given = {"name": "X", "shape": [2, 5], "datatype": "FP32", "parameters": {"binary_data_size": len(raw)}}
        head = json.dumps({"inputs": [given], "parameters": {"binary_data_output": True}}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        answer = await client.post("/v2/models/late/infer", content=head + raw, headers=headers)
        size = int(answer.headers["inference-header-content-length"])
        assert np.frombuffer(answer.content[size:], "<f8").tolist() == plain["outputs"][0]["data"]
        assert json.loads(answer.content[:size])["outputs"][0]["parameters"] == {"binary_data_size": 16}

    door.run(talk, door.said("champion", "v1"))


def test_more_rows_than_the_bound_are_too_many(door: Door) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        for rows, status in ((1000, 200), (1001, 413)):
            answer = await client.post("/v2/models/late/infer", json=tensors(shape=[rows, 5], data=[0] * (rows * 5)))
            assert answer.status_code == status

    door.run(talk, door.said("champion", "v1"))


def test_the_repository_is_the_registrys_to_change(door: Door) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        for path in ("index", "models/late/load", "models/late/unload"):
            answer = await client.post(f"/v2/repository/{path}")
            assert answer.status_code == 403
            said_wrong(answer)

    door.run(talk, door.said("champion", "v1"))
