"""The gateway goes on answering while models are swapped, opened, spoilt, or give no number."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.services.air import EVENT, Door, Driven, World, answers, flight, late, said_wrong
from tests.services.graphs import graph
from tests.services.test_swaps import SPOILT, mended, spoilt

import penstock.services.inference.sessions as sessions
from penstock.log import Send
from penstock.records import Artefact

VALUES = [3.0, None, 100.5, 1.0, 200.0]
TENSOR = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 5], "data": VALUES}]}
SWAPS, REQUESTS = 20, 10_000


class Caller:
    """Asks an application without a client, which would take longer than the answer."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def post(self, path: str, body: bytes) -> tuple[int, Any]:
        said: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            said.append(message)

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": path,
            "raw_path": path.encode(), "query_string": b"", "headers": [(b"content-length", b"%d" % len(body))],
            "scheme": "http", "server": ("penstock", 80), "client": ("test", 1), "root_path": "",
        }  # fmt: skip
        await self._app(scope, receive, send)
        content = b"".join(message.get("body", b"") for message in said[1:])
        return said[0]["status"], msgspec.json.decode(content)


def test_ten_thousand_requests_across_twenty_swaps_none_fails(door: Door) -> None:
    """It takes some seconds; what the issue asks for is this number."""
    whole(door, REQUESTS, SWAPS)


def whole(door: Door, requests: int, swaps: int) -> None:
    app, seen = door.app(), Counter[str]()
    answer = {version: door.world.answer(version, VALUES) for version in ("v1", "v2", "v3")}
    bodies = [json.dumps({**EVENT, "flight": f"f{n}"}).encode() for n in range(requests // 2)]
    tensor, done = json.dumps(TENSOR).encode(), asyncio.Event()

    async def client(number: int, clients: int) -> None:
        caller = Caller(app)
        for body in bodies[number::clients]:
            status, said = await caller.post("/predict/late", body)
            assert status == 200, said
            assert said["score"] == pytest.approx(answer[said["version"]], abs=1e-6)
            seen[said["version"]] += 1
            status, said = await caller.post("/v2/models/late/infer", tensor)
            assert status == 200, said
            assert said["outputs"][0]["data"][0] == pytest.approx(answer[said["model_version"]], abs=1e-6)
            await asyncio.sleep(0)

    async def swap() -> None:
        """At even steps of the way."""
        for n in range(1, swaps + 1):
            while sum(seen.values()) < n * len(bodies) // (swaps + 1):
                await asyncio.sleep(0)
            version = f"v{n % 3 + 1}"
            await door.log.send([door.said("champion", version)])
            before = seen[version]
            while seen[version] == before:  # until it answers: none is skipped
                assert sum(seen.values()) < len(bodies), f"swap {n} came too late"
                await asyncio.sleep(0)
        done.set()

    async def talk(_: httpx.AsyncClient) -> None:
        await asyncio.gather(swap(), *(client(number, 8) for number in range(8)))
        assert done.is_set() and set(seen) == {"v1", "v2", "v3"}
        assert len({record.key for record in door.recorded}) == len(bodies), "each answer is recorded"

    async def run() -> None:
        async with door.opened(door.said("champion", "v1"), app=app) as opened:
            await talk(opened)

    asyncio.run(asyncio.wait_for(run(), 300))


def test_requests_are_answered_while_a_model_is_being_opened(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    opening, let = threading.Event(), threading.Event()
    really = sessions.opened

    def slowly(artefacts: Any, candidate: Any, *around: Any) -> Any:
        if candidate.version == "v2":
            opening.set()
            assert let.wait(60)
        return really(artefacts, candidate, *around)

    monkeypatch.setattr(sessions, "opened", slowly)

    async def talk(client: httpx.AsyncClient) -> None:
        await door.log.send([door.said("champion", "v2")])
        while not opening.is_set():
            await asyncio.sleep(0)
        for n in range(20):
            answer = await client.post("/predict/late", json={**EVENT, "flight": f"f{n}"})
            assert (answer.status_code, answer.json()["version"]) == (200, "v1")
        let.set()
        for n in range(20, 10_000):
            if (await client.post("/predict/late", json={**EVENT, "flight": f"f{n}"})).json()["version"] == "v2":
                break
        assert n < 9_999

    door.run(talk, door.said("champion", "v1"))


@pytest.mark.parametrize("how", SPOILT)
def test_an_artefact_that_cannot_be_trusted_is_never_served_and_the_old_one_goes_on(world: World, how: str) -> None:
    door = Door(world)

    async def talk(client: httpx.AsyncClient) -> None:
        await door.log.send([spoilt(world, how)])
        while not any(s.value for m in door.meters.artefacts.collect() for s in m.samples if "total" in s.name):
            await asyncio.sleep(0)
        for n in range(5):
            said = (await client.post("/predict/late", json={**EVENT, "flight": f"f{n}"})).json()
            assert (said["version"], set(said["scores"])) == ("v1", {"v1"})
            assert (await client.post("/v2/models/late/infer", json=TENSOR)).json()["model_version"] == "v1"
        assert (await client.get("/v2/models/late/versions/v2/ready")).status_code == 404

    try:
        door.run(talk, door.said("champion", "v1"))
    finally:
        mended(world)


# --- a model whose scores are no numbers --------------------------------------------------------------------------------


def logarithmic(world: World) -> Artefact:
    """A model that answers x / (1 + x) by way of the logarithm of an input: NaN for a negative or missing one."""
    cut = helper.make_node("Slice", ["X", "begin", "end", "axis"], ["two"])
    nodes = [cut, helper.make_node("Log", ["two"], ["log"]), helper.make_node("Sigmoid", ["log"], ["probabilities"])]
    ends = [numpy_helper.from_array(np.array([n], np.int64), name) for name, n in (("begin", 0), ("end", 2), ("axis", 1))]
    width: list[Any] = ["n", len(late.inputs)]
    data = graph(nodes, [("X", TensorProto.FLOAT, width)], [("probabilities", TensorProto.FLOAT, ["n", 2])], ends)
    return world.artefacts.put(data, "onnx")


class TestAModelWhoseScoresAreNaN:
    def test_is_not_asked_for_an_answer_where_another_is_on_duty(self, driven: Driven) -> None:
        world = driven.world
        online = world.said("online", "online-1", "snapshot", weights={"batch": 0.5, "online": 0.5})
        rows = [flight(n) for n in range(40)]
        found = answers(driven.take(world.said("champion", "root", artefact=logarithmic(world)), online, *rows))
        without = [p for p in found if "root" not in p.scores]
        assert 0 < len(without) < len(found)
        for prediction in found:
            assert 0.0 <= prediction.score <= 1.0
            assert prediction.version == ("online-1" if prediction in without else "root")
        assert sum(s.value for m in driven.meters.failed.collect() for s in m.samples if "total" in s.name) == len(without)

    def test_is_said_over_http_and_no_number_is_made_up(self, door: Door) -> None:
        champion: Send = door.said("champion", "root", artefact=logarithmic(door.world))

        async def talk(client: httpx.AsyncClient) -> None:
            answer = await client.post("/predict/late", json=EVENT)  # its mean distance is missing: NaN
            assert answer.status_code == 503 and "gives a probability" in said_wrong(answer)
            assert not door.recorded
            answer = await client.post("/v2/models/late/infer", json=TENSOR)
            assert answer.status_code == 400 and "no probability" in said_wrong(answer)

        door.run(talk, champion)
