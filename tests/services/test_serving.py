"""`penstock serve` in this process: the whole Open Inference Protocol."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.services import graphs
from tests.services.air import said_wrong
from tests.services.served import ROWS, asking, run, tensor, word

from penstock.scoring.graph import Graph
from penstock.scoring.signature import DATATYPES
from penstock.services.inference.open_inference.protocol import Limits
from penstock.services.inference.open_inference.repository import Repository

# --- the protocol -----------------------------------------------------------------------------------------------------


def test_every_call_of_the_protocol_answers(tmp_path: Path) -> None:
    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        for path in ("/v2", "/v2/"):
            server = (await client.get(path)).json()
            assert set(server) == {"name", "version", "extensions"}
            assert "binary_tensor_data" in server["extensions"]
        assert (await client.get("/v2/health/live")).json() == {"live": True}
        assert (await client.get("/v2/health/ready")).json() == {"ready": True, "live": True}
        sha256 = Graph(graphs.scaled(2.0)).sha256
        for path in ("/v2/models/double", f"/v2/models/double/versions/{sha256[:12]}"):
            found = (await client.get(path)).json()
            assert found.pop("parameters") == {"sha256": sha256, "bytes": len(graphs.scaled(2.0)), "batched": True}
            assert found == {
                "name": "double", "versions": [sha256[:12]], "platform": "onnx_onnxv1",
                "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
                "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
            }  # fmt: skip
            assert (await client.get(f"{path}/ready")).json() == {"name": "double", "ready": True}
            answer = await client.post(f"{path}/infer", json=asking(id="7", parameters={"any": 1}))
            assert answer.json() == {
                "model_name": "double", "model_version": sha256[:12], "id": "7",
                "outputs": [{"name": "y", "shape": [2, 3], "datatype": "FP32", "data": [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]}],
            }  # fmt: skip
        for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
            assert (await client.get(path)).status_code == 200
        assert (await client.head("/v2")).content == b""

    run([word(tmp_path, "double", graphs.scaled(2.0))], talk)


def test_every_datatype_comes_back_in_json_and_in_binary(tmp_path: Path) -> None:
    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        values: dict[str, Any] = {name: [1, 0, 3, 4] for name in DATATYPES}
        values |= {"BOOL": [True, False, True, True], "BYTES": ["ä", "", "b", "c"]}
        values |= {name: [1.5, None, -2.0, 0.0] for name in DATATYPES if name.startswith("FP")}
        inputs = [{"name": n, "shape": [2, 2], "datatype": n, "data": [v[:2], v[2:]]} for n, v in values.items()]
        answer = (await client.post("/v2/models/echo/infer", json=asking(*inputs))).json()
        assert {o["name"]: o["data"] for o in answer["outputs"]} == {f"{name}_back": v for name, v in values.items()}
        mixed = [{"name": "BYTES_back", "parameters": {"binary_data": False}}, {"name": "INT16_back"}]
        asked = asking(*inputs, outputs=mixed, parameters={"binary_data_output": True})
        response = await client.post("/v2/models/echo/infer", json=asked)
        head = int(response.headers["inference-header-content-length"])
        text, number = json.loads(response.content[:head])["outputs"]
        assert (text["name"], text["data"]) == ("BYTES_back", values["BYTES"])
        assert (number["name"], number["parameters"]) == ("INT16_back", {"binary_data_size": 8})
        assert np.frombuffer(response.content[head:], "<i2").tolist() == [1, 0, 3, 4]

    run([word(tmp_path, "echo", graphs.echo())], talk)


def test_of_several_versions_the_last_answers_where_none_is_named(tmp_path: Path) -> None:
    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        assert (await client.get("/v2/models/by")).json()["versions"] == ["3", "2"]
        for path, version, y in (("", "3", 3.0), ("/versions/2", "2", 2.0), ("/versions/3", "3", 3.0)):
            answer = (await client.post(f"/v2/models/by{path}/infer", json=asking(tensor([[1.0, 0.0, 0.0]])))).json()
            assert (answer["model_version"], answer["outputs"][0]["data"][0]) == (version, y)
        for path in ("", "/ready", "/stats", "/infer"):
            call = client.post if path == "/infer" else client.get
            answer = await call(f"/v2/models/by/versions/4{path}")
            assert answer.status_code == 404
            assert "it has: 2, 3" in said_wrong(answer)

    run([word(tmp_path, "by/2", graphs.scaled(2.0)), word(tmp_path, "by/3", graphs.scaled(3.0))], talk)


def test_statistics_count_requests_rows_and_runs(tmp_path: Path) -> None:
    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        await asyncio.gather(*(client.post("/v2/models/double/infer", json=asking()) for _ in range(10)))
        await client.post("/v2/models/double/infer", content=b"{")
        for path in ("/v2/models/double/stats", "/v2/models/stats"):
            (found,) = (await client.get(path)).json()["model_stats"]
            assert (found["name"], found["inference_count"]) == ("double", 20)
            assert found["execution_count"] <= 10
            assert found["inference_stats"]["success"]["count"] == 10
            assert found["inference_stats"]["fail"]["count"] == 1
            assert 0 < found["inference_stats"]["compute_infer"]["ns"] < found["inference_stats"]["success"]["ns"]
        text = (await client.get("/metrics")).text
        assert 'penstock_infer_requests_total{end="answered",model="double"} 10.0' in text
        assert 'penstock_infer_rows_total{model="double"} 20.0' in text

    run([word(tmp_path, "double", graphs.scaled(2.0))], talk)


WRONG: dict[str, tuple[str, str, int]] = {
    "another path": ("GET", "/v2/model/double", 404),
    "a path in capitals": ("GET", "/V2/models/double", 404),
    "a slash too many": ("GET", "/v2/models/double/", 404),
    "no path": ("GET", "/", 404),
    "an unknown model": ("GET", "/v2/models/single", 404),
    "an unknown model's readiness": ("GET", "/v2/models/single/ready", 404),
    "an unknown model's statistics": ("GET", "/v2/models/single/stats", 404),
    "infer of an unknown model": ("POST", "/v2/models/single/infer", 404),
    "infer by GET": ("GET", "/v2/models/double/infer", 405),
    "metadata by POST": ("POST", "/v2/models/double", 405),
    "another method": ("DELETE", "/v2/models/double", 405),
    "health by POST": ("POST", "/healthz", 404),
    "the repository": ("POST", "/v2/repository/index", 403),
    "a model's end": ("POST", "/v2/repository/models/double/unload", 403),
}


@pytest.mark.parametrize(("method", "path", "status"), WRONG.values(), ids=WRONG)
def test_what_is_not_there_or_not_allowed_is_said_in_one_sentence(tmp_path: Path, method: str, path: str, status: int) -> None:
    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        answer = await client.request(method, path)
        assert answer.status_code == status
        said_wrong(answer)
        assert (status == 405) == ("allow" in answer.headers)

    run([word(tmp_path, "double", graphs.scaled(2.0))], talk)


RAW = np.array(ROWS, "<f4").tobytes()


def binary(head: Mapping[str, Any] | bytes, raw: bytes = RAW, length: str | None = None) -> tuple[bytes, dict[str, str]]:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return text + raw, {"Inference-Header-Content-Length": length if length is not None else str(len(text))}


def sized(size: Any = len(RAW), **changes: Any) -> dict[str, Any]:
    plain = tensor()
    del plain["data"]
    return plain | {"parameters": {"binary_data_size": size}} | changes


BAD: dict[str, tuple[Any, dict[str, str]]] = {
    "no data": (asking({k: v for k, v in tensor().items() if k != "data"}), {}),
    "data of null": (asking(tensor(data=None)), {}),
    "data that is a number": (asking(tensor(data=7)), {}),
    "data that is an object": (asking(tensor(data={"0": 1})), {}),
    "parameters that nest": (asking(parameters={"a": {"b": 1}}), {}),
    "an output twice": (asking(outputs=[{"name": "y"}, {"name": "y"}]), {}),
    "an input as an output": (asking(outputs=[{"name": "x"}]), {}),
    "a flag that is a number": (asking(outputs=[{"name": "y", "parameters": {"binary_data": 1}}]), {}),
    "classes, an extension we have not": (asking(outputs=[{"name": "y", "parameters": {"classification": 2}}]), {}),
    "shared memory": (asking(tensor(parameters={"shared_memory_region": "r"})), {}),
    "BF16": (asking(tensor(datatype="BF16")), {}),
    "binary without its header": (asking(sized()), {}),
    "binary with data": binary(asking(tensor(parameters={"binary_data_size": 24}))),
    "binary too short": binary(asking(sized()), RAW[:-1]),
    "binary too long": binary(asking(sized()), RAW + b"\0"),
    "binary of another size": binary(asking(sized(20)), RAW),
    "binary of a negative size": binary(asking(sized(-24)), RAW),
    "binary of a fractional size": binary(asking(sized(24.0)), RAW),
    "binary of a huge size": binary(asking(sized(2**70)), RAW),
    "binary of a true size": binary(asking(sized(True)), RAW),
    "a header that is larger than the body": binary(asking(sized()), length="100000"),
    "a header that is negative": binary(asking(sized()), length="-1"),
    "a header that is no number": binary(asking(sized()), length="many"),
    "a header that is empty": binary(asking(sized()), length=""),
    "a header that cuts the JSON": binary(asking(sized()), length="30"),
    "a header that is huge": binary(asking(sized()), length="9" * 40),
}


@pytest.mark.parametrize(("body", "headers"), BAD.values(), ids=BAD)
def test_bad_requests_are_refused_in_one_sentence(tmp_path: Path, body: Any, headers: dict[str, str]) -> None:
    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = await client.post("/v2/models/double/infer", content=sent, headers=headers)
        assert answer.status_code == 400, answer.text
        said_wrong(answer)

    run([word(tmp_path, "double", graphs.scaled(2.0))], talk)


def test_bodies_and_rows_are_bounded_and_taken_plain(tmp_path: Path) -> None:
    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        async def status(body: bytes, **headers: str) -> int:
            answer = await client.post("/v2/models/double/infer", content=body, headers=headers)
            if answer.status_code != 200:
                said_wrong(answer)
            return answer.status_code

        whole = json.dumps(asking()).encode()
        assert await status(whole + b" " * (1000 - len(whole))) == 200
        assert await status(whole + b" " * (1001 - len(whole))) == 413
        assert await status(json.dumps(asking(tensor([[1, 2, 3]] * 4))).encode()) == 413
        assert await status(whole, **{"Content-Encoding": "gzip"}) == 415

    run([word(tmp_path, "double", graphs.scaled(2.0))], talk, limits=Limits(1000, 3))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 2**70)
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["x", "y", "FP32", "BYTES"]),
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(
            st.sampled_from(["name", "shape", "datatype", "data", "parameters", "id", "inputs", "outputs"]), inner, max_size=5
        )
    ),
    max_leaves=20,
)


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A good request with one value at any depth replaced, or bytes cut out or changed."""
    whole: Any = asking(outputs=[{"name": "y"}], id="a")
    place, key = whole, draw(st.sampled_from(["inputs", "outputs", "id", "parameters"]))
    while isinstance(place.get(key) if isinstance(place, dict) else place[key], dict | list) and draw(st.integers(0, 3)):
        place = place[key]
        key = draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
    place[key] = draw(JSON)
    text = json.dumps(whole).encode()
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(st.binary(max_size=2)) + text[at + draw(st.integers(0, 2)) :] if draw(st.booleans()) else text


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bodies=st.lists(spoilt() | st.binary(max_size=40) | JSON.map(lambda v: json.dumps(v).encode()), min_size=1, max_size=4),
    head=st.none() | st.integers(0, 300),
)
def test_whatever_is_sent_is_answered_or_refused_and_good_requests_beside_it_are_answered(
    tmp_path: Path, bodies: list[bytes], head: int | None
) -> None:
    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        headers = {} if head is None else {"Inference-Header-Content-Length": str(head)}
        bad = [client.post("/v2/models/double/infer", content=body, headers=headers) for body in bodies]
        good = client.post("/v2/models/double/infer", json=asking())
        *found, answer = await asyncio.gather(*bad, good)
        assert answer.json()["outputs"][0]["data"] == [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]
        for one in found:
            assert one.status_code in (200, 400)
            if one.status_code == 400:
                said_wrong(one)

    run([word(tmp_path, "double", graphs.scaled(2.0))], talk)


def test_a_bad_row_fails_alone(tmp_path: Path) -> None:
    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        asked = [
            client.post("/v2/models/pick/infer", json=asking({"name": "i", "shape": [1], "datatype": "INT64", "data": [i]}))
            for i in (0, 7, 1)
        ]
        first, bad, last = await asyncio.gather(*asked)
        assert (first.json()["outputs"][0]["data"], last.json()["outputs"][0]["data"]) == ([10.0], [20.0])
        assert bad.status_code == 400
        assert "out of data bounds" in said_wrong(bad)

    run([word(tmp_path, "pick", graphs.picked())], talk)


def test_while_requests_wait_too_long_others_are_told_to_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began, release, clock = threading.Event(), threading.Event(), [0.0]

    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        graph = Graph(graphs.scaled(2.0))

        def slow(wanted: Any, feeds: Any) -> Any:
            began.set()
            assert release.wait(30)
            return graph.run(wanted, feeds)

        batcher = (await repository.version("double", None)).batcher
        monkeypatch.setattr(batcher, "_pace", 1.0)  # seconds a row: runs go to a thread
        monkeypatch.setattr(batcher, "_run", slow)
        monkeypatch.setattr(batcher, "_clock", lambda: clock[0])
        async with asyncio.timeout(30):
            running = asyncio.create_task(client.post("/v2/models/double/infer", json=asking()))
            while not began.is_set():
                await asyncio.sleep(0)
            waiting = asyncio.create_task(client.post("/v2/models/double/infer", json=asking()))
            while not batcher._waiting:
                await asyncio.sleep(0)
        clock[0] = 1.1
        answer = await client.post("/v2/models/double/infer", json=asking())
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "wait too long" in said_wrong(answer)
        assert (await client.get("/v2/health/live")).status_code == 200  # a long run keeps nobody else waiting
        clock[0] = 0.9
        release.set()
        assert [(await one).status_code for one in (running, waiting)] == [200, 200]
        assert (await client.post("/v2/models/double/infer", json=asking())).status_code == 200
        assert 'end="shed",model="double"} 1.0' in (await client.get("/metrics")).text

    run([word(tmp_path, "double", graphs.scaled(2.0))], talk, patience=1.0)


def test_a_fault_of_ours_is_a_500_that_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise ArithmeticError("secret detail")

    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        monkeypatch.setattr("penstock.services.inference.open_inference.protocol.infer_answer", fails)
        answer = await client.post("/v2/models/double/infer", json=asking())
        assert answer.status_code == 500
        assert "secret" not in said_wrong(answer)

    run([word(tmp_path, "double", graphs.scaled(2.0))], talk)


# --- files ------------------------------------------------------------------------------------------------------------
