"""The gateway answers well-formed requests, refuses the others in one sentence, and records every answer it gives."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from fastapi import FastAPI

import penstock as ps
from penstock.artefact import Artefacts, dump_river
from penstock.event import Event
from penstock.log import LogError, Partition, Send
from penstock.log.memory import MemoryLog
from penstock.records import Candidate, Decision, Prediction
from penstock.services.inference import service
from penstock.services.inference.meters import Meters
from penstock.services.inference.roster import bucket
from penstock.services.inference.scoring import Serving, score
from penstock.services.inference.sessions import Sessions
from penstock.store import StoreError
from penstock.topics import Topics


@ps.event("flights")
class Flight:
    flight: ps.Id[str]
    origin: ps.Key[str]
    distance: float
    seats: int | None
    night: bool
    at: ps.EventTime


@ps.event("arrivals")
class Arrival:
    flight: ps.Key[str]
    late: bool
    at: ps.EventTime


@ps.features(by=Flight.origin)
class Origin:
    flights_1h = ps.count(Flight, over="1h")


@ps.model(scores=Flight, features=[Origin, Flight.distance], label=ps.label(Arrival.late, within="48h"))
def late() -> ps.Learner:
    raise NotImplementedError


TOPICS = Topics(ps.Project("air", [late]), 1)
START = datetime(2024, 1, 1, tzinfo=UTC)
EVENT = {"flight": "f1", "origin": "JFK", "distance": 100.5, "seats": 200, "night": True, "at": "2024-01-01T00:00:00Z"}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def learnt(seed: int) -> Any:
    from river import linear_model

    model = linear_model.LogisticRegression()
    drawn = random.Random(seed)
    for _ in range(100):
        x = {name: drawn.gauss(0, 2) for name in late.inputs}
        model.learn_one(x, sum(x.values()) > seed)
    return model


class Door:
    """A gateway on the log in memory, with what stands around it under the test's control."""

    def __init__(self, folder: Path) -> None:
        self.log = MemoryLog()
        self.artefacts = Artefacts(folder)
        self.meters = Meters()
        self.sessions = Sessions(self.artefacts, self.meters)
        self.recorded: list[Send] = []
        self.looked: list[Any] = []
        self.trouble: Exception | None = None
        self.known = True

    async def look(self, event: Event, decoded: Any) -> Any:
        if isinstance(self.trouble, StoreError | RuntimeError):
            raise self.trouble
        self.looked.append((event.topic, decoded.origin))
        return ["Origin.flights_1h"], [3.0 if self.known else None], {"origin": [0, 17]} if self.known else {}

    async def publish(self, record: Send) -> None:
        if isinstance(self.trouble, LogError):
            raise self.trouble
        self.recorded.append(record)

    def said(self, alias: str, version: str, kind: str = "champion", share: float = 1.0) -> Send:
        candidate = Candidate(
            id=f"c-{version}", model="late", version=version, kind="full", at=START, inputs=list(late.inputs),
            artefact=self.artefacts.put(dump_river(learnt(int(version[1:]))), "river"), weights={}, edges={},
            reference={}, metrics={}, run="r", fingerprint="f",
        )  # fmt: skip
        decision = Decision(
            id=f"{kind}-{version}", model="late", kind=kind, version=version, at=START, actor="registry", reason="",
            share=share, expected="", evidence={}, candidate=candidate,
        )  # fmt: skip
        return Send(TOPICS.models, f"late/{alias}".encode(), msgspec.json.encode(decision))

    def app(self) -> FastAPI:
        return service.app(TOPICS, self.log, self.sessions, self.meters, self.look, self.publish)

    @asynccontextmanager
    async def opened(self, *decisions: Send, app: FastAPI | None = None) -> AsyncIterator[httpx.AsyncClient]:
        await self.log.create(TOPICS.all())
        await self.log.send(decisions)
        app = app or self.app()
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://penstock") as client:
                for _ in range(1000):
                    if (await client.get("/readyz")).status_code == 200:
                        break
                    await asyncio.sleep(0)
                yield client

    def run(self, talk: Callable[[httpx.AsyncClient], Awaitable[None]], *decisions: Send) -> None:
        async def whole() -> None:
            async with self.opened(*decisions) as client:
                await talk(client)

        asyncio.run(whole())


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


def said_wrong(answer: httpx.Response) -> str:
    """The one sentence of a refusal."""
    body = answer.json()
    assert set(body) == {"error"}, body
    sentence = body["error"]
    assert sentence
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    assert 'File "' not in sentence
    return str(sentence)


class TestPredict:
    def test_an_event_gets_the_answer_that_its_row_would_get(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            answer = await client.post("/predict/late", json=EVENT, headers={"traceparent": TRACE})
            assert answer.status_code == 200
            said = answer.json()
            member = next(iter(served(door).members.values()))
            expected = member.score(np.array([[3.0, 100.5]], np.float32))[0]
            assert said == {
                "id": "f1", "score": pytest.approx(expected), "version": "v1", "variant": "champion",
                "scores": {"v1": pytest.approx(expected)}, "features_status": "fresh", "trace": TRACE[3:35],
            }  # fmt: skip
            assert door.looked == [("flights", "JFK")]

        def served(door: Door) -> Serving:
            decision = msgspec.json.decode(door.said("champion", "v1").value or b"", type=Decision)
            return Serving(champion=door.sessions.member(decision, late.inputs))

        door.run(talk, door.said("champion", "v1"))

    def test_the_answer_is_recorded_as_a_prediction(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            said = (await client.post("/predict/late", json=EVENT, headers={"traceparent": TRACE})).json()
            (record,) = door.recorded
            found = msgspec.json.decode(record.value or b"", type=Prediction)
            assert (record.topic, record.key) == (TOPICS.predictions("late"), b"f1")
            assert dict(record.headers)["traceparent"] == TRACE.encode()
            assert (found.id, found.key, found.version, found.score) == ("f1", "JFK", "v1", said["score"])
            assert json.loads(bytes(found.inputs)) == {"Origin.flights_1h": 3.0, "Flight.distance": 100.5}
            assert found.bucket == bucket("late", "JFK")
            assert 0 < found.latency < 5

        door.run(talk, door.said("champion", "v1"))

    def test_no_content_type_and_no_optional_field_are_needed(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            few = {name: value for name, value in EVENT.items() if name != "seats"}
            assert (await client.post("/predict/late", content=json.dumps(few))).status_code == 200

        door.run(talk)

    def test_before_the_first_model_nobody_answers_and_that_is_said(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            said = (await client.post("/predict/late", json=EVENT)).json()
            assert (said["score"], said["version"], said["variant"], said["scores"]) == (0.5, "none", "none", {})

        door.run(talk)

    def test_features_that_nobody_knows_are_said_to_be_missing(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            door.known = False
            assert (await client.post("/predict/late", json=EVENT)).json()["features_status"] == "missing"

        door.run(talk, door.said("champion", "v1"))

    def test_a_canary_answers_its_share_over_http_too(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            for n in range(40):
                said = (await client.post("/predict/late", json={**EVENT, "origin": f"o{n}"})).json()
                assert said["variant"] == ("canary" if bucket("late", f"o{n}") < 5000 else "champion")

        door.run(talk, door.said("champion", "v1"), door.said("challenger", "v2", "canary", 0.5))

    def test_requests_in_flight_during_swaps_are_all_answered(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            versions = set()
            for n in range(10):
                await door.log.send([door.said("champion", f"v{n % 3}")])
                asked = [client.post("/predict/late", json={**EVENT, "flight": f"f{n}-{i}"}) for i in range(10)]
                for answer in await asyncio.gather(*asked):
                    assert answer.status_code == 200
                    versions.add(answer.json()["version"])
            assert versions <= {"v0", "v1", "v2"}
            assert len(versions) > 1
            assert len({r.key for r in door.recorded}) == 100

        door.run(talk, door.said("champion", "v0"))


def with_field(name: str, value: str) -> bytes:
    """The event with one field replaced by raw JSON."""
    plain = {k: v for k, v in EVENT.items() if k != name}
    return json.dumps(plain).encode()[:-1] + f', "{name}": {value}}}'.encode()


WHOLE = json.dumps(EVENT).encode()
BAD: dict[str, tuple[bytes, int]] = {
    "empty": (b"", 400),
    "truncated JSON": (WHOLE[:-10], 400),
    "not JSON": (b"hello", 400),
    "null": (b"null", 400),
    "a list": (b"[" + WHOLE + b"]", 400),
    "invalid UTF-8": (WHOLE.replace(b"JFK", b"J\xffK"), 400),
    "a lone surrogate": (with_field("flight", '"\\ud800"'), 400),
    "a missing field": (json.dumps({k: v for k, v in EVENT.items() if k != "distance"}).encode(), 400),
    "a missing key": (json.dumps({k: v for k, v in EVENT.items() if k != "origin"}).encode(), 400),
    "a null key": (with_field("origin", "null"), 400),
    "an empty id": (with_field("flight", '""'), 400),
    "a wrong type": (with_field("distance", '"100"'), 400),
    "a number for a text": (with_field("origin", "7"), 400),
    "a number for a bool": (with_field("night", "1"), 400),
    "NaN": (with_field("distance", "NaN"), 400),
    "Infinity": (with_field("distance", "Infinity"), 400),
    "-Infinity": (with_field("distance", "-Infinity"), 400),
    "1e999": (with_field("distance", "1e999"), 400),
    "2^70 for an int": (with_field("seats", str(2**70)), 400),
    "a fraction for an int": (with_field("seats", "1.5"), 400),
    "deep nesting": (with_field("unknown", "[" * 100_000 + "]" * 100_000), 400),
    "a time without a zone": (with_field("at", '"2024-01-01T00:00:00"'), 400),
    "a time that is none": (with_field("at", '"yesterday"'), 400),
    "a time in the future": (with_field("at", '"2999-01-01T00:00:00Z"'), 400),
    "a time before 1970": (with_field("at", '"1960-01-01T00:00:00Z"'), 400),
    "one byte too many": (WHOLE + b" " * ((1 << 20) + 1 - len(WHOLE)), 413),
    "10 MiB": (with_field("origin", '"' + "x" * (10 << 20) + '"'), 413),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(100), 400),
}


class TestBadInput:
    @pytest.mark.parametrize(("body", "status"), BAD.values(), ids=BAD)
    def test_is_refused_in_one_sentence_and_recorded_nowhere(self, door: Door, body: bytes, status: int) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            answer = await client.post("/predict/late", content=body)
            assert answer.status_code == status
            said_wrong(answer)
            assert door.recorded == []
            assert (await client.post("/predict/late", json=EVENT)).status_code == 200

        door.run(talk, door.said("champion", "v1"))

    def test_one_mebibyte_is_still_taken(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            body = WHOLE + b" " * ((1 << 20) - len(WHOLE))
            assert (await client.post("/predict/late", content=body)).status_code == 200

        door.run(talk)

    def test_a_float_of_any_size_that_json_can_say_is_taken(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            for value in (str(2**70), "1e308", "-0.0", "5e-324"):
                answer = await client.post("/predict/late", content=with_field("distance", value))
                assert answer.status_code == 200
                assert 0 <= answer.json()["score"] <= 1

        door.run(talk, door.said("champion", "v1"))

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("POST", "/predict/unknown", 404), ("GET", "/predict/late", 405), ("GET", "/", 404), ("GET", "/docs", 404),
            ("GET", "/redoc", 404), ("POST", "/predict/late/", 404), ("POST", "/predict/%2e%2e", 404),
            ("GET", "/v2/models/unknown", 404), ("GET", "/v2/models/unknown/ready", 404),
            ("POST", "/v2/models/unknown/infer", 404), ("GET", "/v2/models/late/versions/v9", 404),
            ("GET", "/v2/models/late/versions/v9/ready", 404), ("POST", "/v2/models/late/versions/v9/infer", 404),
            ("DELETE", "/v2/models/late", 405), ("GET", "/V2/health/live", 404),
        ],
    )  # fmt: skip
    def test_of_an_address_is_refused_alike(self, door: Door, method: str, path: str, status: int) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            answer = await client.request(method, path)
            assert answer.status_code == status
            said_wrong(answer)

        door.run(talk, door.said("champion", "v1"))

    def test_of_a_trace_header_is_ignored(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            for wrong in ("", "00-xyz", TRACE.upper(), TRACE + "x", "é"):
                headers = {b"traceparent": wrong.encode()}
                said = (await client.post("/predict/late", json=EVENT, headers=headers)).json()
                assert said["trace"] == ""

        door.run(talk)


class TestFaults:
    @pytest.mark.parametrize("trouble", [StoreError("Redis is away"), LogError("the broker is away")], ids=repr)
    def test_what_cannot_be_looked_up_or_recorded_is_not_answered(self, door: Door, trouble: Exception) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            door.trouble = trouble
            answer = await client.post("/predict/late", json=EVENT)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "away" in said_wrong(answer)
            door.trouble = None
            assert (await client.post("/predict/late", json=EVENT)).status_code == 200

        door.run(talk, door.said("champion", "v1"))

    def test_a_fault_of_ours_shows_no_traceback(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            door.trouble = RuntimeError("secret detail")
            answer = await client.post("/predict/late", json=EVENT)
            assert answer.status_code == 500
            assert "secret" not in said_wrong(answer)

        door.run(talk)

    def test_nothing_is_answered_before_the_decisions_are_known(self, door: Door) -> None:
        async def whole() -> None:
            transport = httpx.ASGITransport(door.app())  # not started, so not following yet
            async with httpx.AsyncClient(transport=transport, base_url="http://penstock") as client:
                for path in ("/readyz", "/v2/health/ready"):
                    assert (await client.get(path)).status_code == 503
                answer = await client.post("/predict/late", json=EVENT)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
                assert (await client.get("/healthz")).status_code == 200
                assert (await client.get("/v2/health/live")).json() == {"live": True}

        asyncio.run(whole())

    def test_a_log_that_is_away_at_the_start_is_waited_for(self, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("penstock.patience.RETRY_SECONDS", (0.0,))

        async def whole() -> None:
            app = door.app()  # its topics do not exist yet
            async with app.router.lifespan_context(app):
                await asyncio.sleep(0)
                async with door.opened(door.said("champion", "v1"), app=app) as client:
                    assert (await client.post("/predict/late", json=EVENT)).json()["version"] == "v1"

        asyncio.run(whole())


def tensors(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "X", "shape": [2, 2], "datatype": "FP32", "data": [3.0, 100.5, 0, None]}
    whole = {key: value for key, value in changes.items() if key in ("id", "outputs", "inputs", "parameters")}
    inner = {key: value for key, value in changes.items() if key not in whole}
    return {"inputs": [tensor | inner], **whole}


BAD_TENSORS: dict[str, Any] = {
    "no inputs": {"inputs": []},
    "no body": None,
    "two inputs": {"inputs": tensors()["inputs"] * 2},
    "another name": tensors(name="Y"),
    "another datatype": tensors(datatype="FP64"),
    "an unknown datatype": tensors(datatype="FLOAT"),
    "a shape that says more": tensors(shape=[3, 2]),
    "a shape that says less": tensors(shape=[1, 2]),
    "another width": tensors(shape=[1, 4]),
    "one dimension": tensors(shape=[4]),
    "a negative shape": tensors(shape=[-2, -2]),
    "a huge shape": tensors(shape=[2**62, 2]),
    "a fractional shape": tensors(shape=[2.5, 2]),
    "texts": tensors(data=["3.0", "100.5", "0", "1"]),
    "bools": tensors(data=[True, False, True, False]),
    "ragged rows": tensors(data=[[1.0, 2.0], [3.0]]),
    "rows nested too deep": tensors(data=[[[1.0, 2.0]], [[3.0, 4.0]]]),
    "beyond FP32": tensors(data=[1e39, 0, 0, 0]),
    "an unknown output": tensors(outputs=[{"name": "label"}]),
    "a number for an id": tensors(id=7),
}


class TestOpenInferenceProtocol:
    def test_tells_of_the_server(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            for path in ("/v2", "/v2/"):
                answer = await client.get(path)
                assert (answer.status_code, set(answer.json())) == (200, {"name", "version", "extensions"})
            assert (await client.get("/v2/health/live")).json() == {"live": True}
            assert (await client.get("/v2/health/ready")).json() == {"ready": True, "live": True}

        door.run(talk)

    def test_tells_of_the_model(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            for path in ("/v2/models/late", "/v2/models/late/versions/v1"):
                assert (await client.get(path)).json() == {
                    "name": "late", "versions": ["v1", "v2"], "platform": "penstock",
                    "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, 2]}],
                    "outputs": [{"name": "score", "datatype": "FP64", "shape": [-1]}],
                }  # fmt: skip
                assert (await client.get(path + "/ready")).json() == {"name": "late", "ready": True}

        door.run(talk, door.said("champion", "v1"), door.said("challenger", "v2", "shadow", 0.0))

    def test_a_model_without_a_version_is_not_ready(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            answer = await client.get("/v2/models/late/ready")
            assert (answer.status_code, answer.json()["ready"]) == (503, False)
            assert (await client.post("/v2/models/late/infer", json=tensors())).status_code == 503

        door.run(talk)

    def test_infers_flat_and_nested_alike_and_records_nothing(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            flat = (await client.post("/v2/models/late/infer", json=tensors(id="a"))).json()
            nested = tensors(id="a", data=[[3.0, 100.5], [0, None]], outputs=[{"name": "score"}])
            assert (await client.post("/v2/models/late/infer", json=nested)).json() == flat
            decision = msgspec.json.decode(door.said("champion", "v1").value or b"", type=Decision)
            serving = Serving(champion=door.sessions.member(decision, late.inputs))
            rows = np.array([[3.0, 100.5], [0, np.nan]], np.float32)
            expected = score("late", rows, ["", ""], serving).score
            assert flat == {
                "model_name": "late", "model_version": "v1", "id": "a",
                "outputs": [{"name": "score", "shape": [2], "datatype": "FP64", "data": expected}],
            }  # fmt: skip
            assert door.recorded == []

        door.run(talk, door.said("champion", "v1"), door.said("challenger", "v2", "canary", 0.99))

    def test_infers_by_a_version_on_duty(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            one = (await client.post("/v2/models/late/versions/v1/infer", json=tensors())).json()
            two = (await client.post("/v2/models/late/versions/v2/infer", json=tensors())).json()
            assert (one["model_version"], two["model_version"]) == ("v1", "v2")
            assert one["outputs"][0]["data"] != two["outputs"][0]["data"]

        door.run(talk, door.said("champion", "v1"), door.said("challenger", "v2", "shadow", 0.0))

    def test_no_rows_give_no_scores(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            answer = await client.post("/v2/models/late/infer", json=tensors(shape=[0, 2], data=[]))
            assert answer.json()["outputs"][0] == {"name": "score", "shape": [0], "datatype": "FP64", "data": []}

        door.run(talk, door.said("champion", "v1"))

    @pytest.mark.parametrize("body", BAD_TENSORS.values(), ids=BAD_TENSORS)
    def test_refuses_bad_tensors_with_an_error_body(self, door: Door, body: Any) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            answer = await client.post("/v2/models/late/infer", content=json.dumps(body).encode())
            assert answer.status_code == 400
            said_wrong(answer)

        door.run(talk, door.said("champion", "v1"))

    def test_refuses_binary_tensors_in_words(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            headers = {"Inference-Header-Content-Length": "10"}
            answer = await client.post("/v2/models/late/infer", content=b"{}" + bytes(50), headers=headers)
            assert answer.status_code == 400
            assert "binary" in said_wrong(answer)

        door.run(talk, door.said("champion", "v1"))


class TestSurroundings:
    def test_metrics_count_answers_and_refusals(self, door: Door) -> None:
        async def talk(client: httpx.AsyncClient) -> None:
            await client.post("/predict/late", json=EVENT)
            await client.post("/predict/late", content=b"{")
            await client.get("/nowhere")
            text = (await client.get("/metrics")).text
            assert 'penstock_predictions_total{model="late",variant="champion",version="v1"} 1.0' in text
            assert 'penstock_http_requests_total{route="/predict/{model}",status="400"} 1.0' in text
            assert 'penstock_http_requests_total{route="other",status="404"} 1.0' in text
            assert 'penstock_serving{duty="champion",model="late",version="v1"} 1.0' in text

        door.run(talk, door.said("champion", "v1"))

    def test_the_description_names_every_operation(self, door: Door) -> None:
        described = door.app().openapi()
        named = [said["operationId"] for path in described["paths"].values() for said in path.values()]
        assert len(set(named)) == len(named) >= 13
        assert "/predict/{model}" in described["paths"]

    def test_without_another_way_answers_are_recorded_on_the_log(self, door: Door) -> None:
        async def whole() -> None:
            app = service.app(TOPICS, door.log, door.sessions, door.meters, door.look)
            async with door.opened(app=app) as client:
                await client.post("/predict/late", json=EVENT)
            topic = TOPICS.predictions("late")
            assert (await door.log.ends([topic]))[Partition(topic, 0)] == 1

        asyncio.run(whole())
