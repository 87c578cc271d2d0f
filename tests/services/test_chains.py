"""A model of a project with functions before and after it, asked by the gateway as one model of a name of its own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from tests.services.air import Door, late, long
from tests.services.steps import astray, prepare, verdict

import penstock as ps
from penstock.errors import DefinitionError
from penstock.project import Link
from penstock.records import Inference
from penstock.services.inference.gateway.api import gateway
from penstock.topics import Topics

CHAINS: Mapping[str, list[Link]] = {"checked": [prepare, late, verdict]}
FLIGHTS: dict[str, Any] = {
    "inputs": [
        {"name": "distance", "shape": [3], "datatype": "FP64", "data": [100.5, 2000.0, None]},
        {"name": "night", "shape": [3], "datatype": "BOOL", "data": [True, False, True]},
    ],
    "id": "c-1",
}


def run(door: Door, talk: Callable[[httpx.AsyncClient], Awaitable[None]], chains: Mapping[str, list[Link]] = CHAINS) -> None:
    async def whole() -> None:
        topics = Topics(ps.Project("air", [late, long], chains=chains), 1)
        await door.log.create(topics.all())
        await door.log.send([door.said("champion", "v1"), door.said("challenger", "v2", "canary", 0.5)])
        app = gateway(topics, door.log, door.sessions, door.meters, door.look)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://penstock") as client,
            asyncio.timeout(60),
        ):
            while "not open yet" in (await client.get("/readyz")).text or "still" in (await client.get("/readyz")).text:
                await asyncio.sleep(0.01)
            await talk(client)

    asyncio.run(whole())


def test_it_answers_as_its_steps_do_one_by_one(door: Door) -> None:
    x = prepare(np.array([100.5, 2000.0, np.nan]), np.array([True, False, True]))["X"]
    scores = np.array([door.world.answer("v1", row) for row in x.tolist()])

    async def talk(client: httpx.AsyncClient) -> None:
        about = (await client.get("/v2/models/checked")).json()
        assert [tensor["name"] for tensor in about["inputs"]] == ["distance", "night"]
        assert (about["versions"], about["platform"]) == (["v1", "v2"], "ensemble")
        answer = (await client.post("/v2/models/checked/infer", json=FLIGHTS)).json()
        given = {output["name"]: output["data"] for output in answer["outputs"]}
        assert answer["model_version"] == "v1"
        assert given["verdict"] == verdict(scores)["verdict"].tolist()
        rows = {
            "name": "X",
            "shape": [3, 5],
            "datatype": "FP32",
            "data": [None if value != value else value for value in x.ravel().tolist()],
        }
        alone = (await client.post("/v2/models/late/infer", json={"inputs": [rows]})).json()
        assert given["score"] == alone["outputs"][0]["data"]
        assert given["score"] == pytest.approx(scores, abs=1e-6)
        refused = await client.post(
            "/v2/models/checked/infer", json={"inputs": [{**FLIGHTS["inputs"][0], "data": [1, -1, 1]}, FLIGHTS["inputs"][1]]}
        )
        assert (refused.status_code, refused.json()) == (400, {"error": "prepare: no flight is that short"})

    run(door, talk)


def test_its_answers_are_records(door: Door) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        answer = (await client.post("/v2/models/checked/infer", json=FLIGHTS)).json()
        (found,) = [msgspec.json.decode(r.value or b"", type=Inference) for r in door.log.sent if r.topic == "air.inferences"]
        assert (found.id, found.model, found.version, found.rows) == ("c-1", "checked", "v1", 3)
        assert found.inputs["distance"].data == [100.5, 2000.0, None]
        assert found.outputs["verdict"].data == answer["outputs"][0]["data"]

    run(door, talk)


def test_functions_that_are_killed_are_missed_by_nobody(door: Door) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        for _ in range(2):
            children = [int(pid) for pid in open(f"/proc/self/task/{os.getpid()}/children").read().split()]  # noqa: SIM115
            for pid in children:
                if "penstock.scoring.worker" in open(f"/proc/{pid}/cmdline").read():  # noqa: SIM115
                    os.kill(pid, signal.SIGKILL)
            answers = await asyncio.gather(*[client.post("/v2/models/checked/infer", json=FLIGHTS) for _ in range(20)])
            assert {answer.status_code for answer in answers} == {200}

    run(door, talk)


def test_steps_that_do_not_fit_are_said_by_who_asks(door: Door) -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        answer = await client.post("/v2/models/wrong/infer", json=FLIGHTS)
        assert answer.status_code == 503
        assert "no later step takes anything that late gives (score)" in answer.json()["error"]

    run(door, talk, {"wrong": [prepare, late, astray]})


@pytest.mark.parametrize(
    ("chains", "cause"),
    [
        ({"late": [prepare, late]}, "'late' is no name for a chain"),
        ({"a b": [prepare, late]}, "'a b' is no name for a chain"),
        ({"none": [prepare]}, "chain none has not one model"),
        ({"two": [late, long]}, "chain two has not one model"),
        ({"plain": [len, late]}, "len does not say which tensors"),
    ],
)
def test_a_chain_that_cannot_be_is_a_mistake(chains: Any, cause: str) -> None:
    with pytest.raises(DefinitionError, match=cause):
        ps.Project("air", [late, long], chains=chains)


def test_a_project_with_other_chains_is_another(door: Door) -> None:
    plain, chained = ps.Project("air", [late]), ps.Project("air", [late], chains=CHAINS)
    assert plain.fingerprint != chained.fingerprint
