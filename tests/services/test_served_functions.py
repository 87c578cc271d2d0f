"""Python functions served, alone and in chains before and after a model."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from tests.services import graphs
from tests.services.air import late
from tests.services.clerk import PREPARE, ends, payments, texts
from tests.services.served import put, run

from penstock.scoring import process
from penstock.scoring.graph import Graph
from penstock.scoring.process import Bounds
from penstock.services.inference.gateway import onduty
from penstock.services.inference.open_inference.repository import Repository


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("functions") / "steps.py"
    place.write_text(PREPARE)
    return place


def test_a_chain_is_asked_as_one_model(file: Path, tmp_path: Path) -> None:
    model = put(tmp_path / "double.onnx", graphs.scaled(2.0))

    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        about = (await client.get("/v2/models/paid")).json()
        assert [(t["name"], t["datatype"], t["shape"]) for t in about["inputs"]] == [
            ("amount", "FP64", [-1]),
            ("country", "BYTES", [-1]),
        ]
        assert [t["name"] for t in about["outputs"]] == ["total", "said"]
        assert about["platform"] == "ensemble"
        assert about["parameters"]["batched"]
        given = (await client.post("/v2/models/paid/infer", json=payments(1.5, None, id="7"))).json()
        assert given["id"] == "7"
        assert {o["name"]: o["data"] for o in given["outputs"]} == {"total": [5.0, 0.0], "said": ["NL 5", "NL 0"]}
        alone = (await client.post("/v2/models/prepare/infer", json=payments(1.5))).json()["outputs"][0]
        assert (alone["shape"], alone["data"]) == ([1, 3], [1.5, 1.0, 1.0])
        answer = await client.post("/v2/models/paid/infer", json=payments(1.0, country="??"))
        assert (answer.status_code, answer.json()) == (400, {"error": "prepare: nobody knows the country ??"})

    run([f"paid={file}:prepare+{model}+{file}:finish", f"{file}:prepare"], talk)


def test_those_who_ask_together_are_one_call_and_a_bad_one_fails_alone(file: Path) -> None:
    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        asked = [payments(1.0, country="??" if n == 3 else "NL") for n in range(8)]
        answers = await asyncio.gather(*[client.post("/v2/models/prepare/infer", json=one) for one in asked])
        assert [answer.status_code for answer in answers] == [200, 200, 200, 400, 200, 200, 200, 200]
        calm = await asyncio.gather(*[client.post("/v2/models/prepare/infer", json=payments(1.0)) for _ in range(8)])
        assert max(answer.json()["outputs"][0]["data"][2] for answer in calm) > 1  # it was called with rows of several

    run([f"{file}:prepare"], talk)


def test_killed_again_and_again_under_load_it_fails_no_request(file: Path) -> None:
    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        killed, going = set[int](), True

        async def kill() -> None:
            while going:
                answer = await client.post("/v2/models/obey/infer", json={"inputs": [texts("do", "")]})
                pid = answer.json()["outputs"][0]["data"][0]
                if pid not in killed and len(killed) < 3:
                    killed.add(pid)
                    os.kill(pid, signal.SIGKILL)

        async def ask() -> list[int]:
            found = list[int]()
            while len(killed) < 3 or len(found) < 50:
                found.append((await client.post("/v2/models/obey/infer", json={"inputs": [texts("do", "", "")]})).status_code)
            return found

        killing = asyncio.create_task(kill())
        answered = await asyncio.gather(*[ask() for _ in range(8)])
        going = False
        await killing
        assert {status for statuses in answered for status in statuses} == {200}

    run([f"{file}:obey"], talk, patience=30.0)


def test_while_it_hangs_others_are_answered(file: Path, tmp_path: Path) -> None:
    model = put(tmp_path / "double.onnx", graphs.scaled(2.0))
    row = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}

    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        hanging = asyncio.create_task(client.post("/v2/models/obey/infer", json={"inputs": [texts("do", "hang")]}))
        for _ in range(5):
            assert (await client.post("/v2/models/double/infer", json=row)).status_code == 200
        assert not hanging.done()
        answer = await hanging
        assert (answer.status_code, answer.json()) == (500, {"error": "obey did not answer within 1 s"})
        assert (await client.post("/v2/models/obey/infer", json={"inputs": [texts("do", "")]})).status_code == 200

    run([f"{file}:obey", str(model)], talk, bounds=Bounds(seconds=1.0))


def test_two_functions_of_one_file_are_two_versions(tmp_path: Path) -> None:
    text = """
import penstock as ps

@ps.function(takes={"a": "FP32[*, 3]"}, gives={"x": "FP32[*, 3]"})
def one(a):
    return {"x": a}

@ps.function(takes={"a": "FP32[*, 3]"}, gives={"x": "FP32[*, 3]"})
def two(a):
    return {"x": a + a}
"""
    file, model = tmp_path / "steps.py", put(tmp_path / "double.onnx", graphs.scaled(2.0))
    file.write_text(text)

    async def talk(client: httpx.AsyncClient, _: Repository) -> None:
        found = [(await client.get(f"/v2/models/{name}")).json() for name in ("a", "b", "c", "d")]
        assert len({said["parameters"]["sha256"] for said in found}) == 4
        assert len({said["versions"][0] for said in found}) == 4

    run([f"a={file}:one", f"b={file}:two", f"c={file}:one+{model}", f"d={file}:two+{model}"], talk)


def test_a_file_that_changes_takes_over_in_a_process_of_its_own(tmp_path: Path) -> None:
    text = """
import numpy as np
import penstock as ps

@ps.function(takes={"x": "FP32[*]"}, gives={"y": "FP32[*]"})
def f(x):
    return {"y": x * BY}
"""
    file = tmp_path / "steps.py"
    file.write_text(text.replace("BY", "2"))
    row = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}]}

    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        before = (await client.post("/v2/models/f/infer", json=row)).json()
        file.write_text(text.replace("BY", "np.float32(3)"))
        for _ in range(2):
            await repository.look()
        after = (await client.post("/v2/models/f/infer", json=row)).json()
        assert [given["outputs"][0]["data"] for given in (before, after)] == [[2.0], [3.0]]
        assert before["model_version"] != after["model_version"]
        file.write_text("nonsense")
        for _ in range(2):
            await repository.look()
        still = (await client.post("/v2/models/f/infer", json=row)).json()
        assert still["model_version"] == after["model_version"]

    run([f"{file}:f"], talk)


def test_a_chain_that_does_not_fit_any_more_leaves_no_processes_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = "import penstock as ps\n@ps.function(takes={'x': 'FP64[*]'}, gives={'x': 'FP64[*]'})\ndef f(x):\n    return {'x': x}\n"
    first, second = tmp_path / "first.py", tmp_path / "second.py"
    first.write_text(step)
    second.write_text(step)
    opened, begin = list[int](), process._Worker.__init__

    def noted(self: Any, *of: Any) -> None:
        begin(self, *of)
        opened.append(self.pid)

    monkeypatch.setattr(process._Worker, "__init__", noted)

    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        second.write_text(step.replace("(x)", "(y)").replace("takes={'x'", "takes={'y'").replace(": x}", ": y}"))
        gc.disable()
        try:
            for _ in range(2):
                await repository.look()
            assert "no later step takes anything" in repository.index()[0]["reason"]
            assert [ends(pid, 0.0) for pid in opened] == [False, False, True, True]
        finally:
            gc.enable()

    run([f"chain={first}:f+{second}:f"], talk)


def test_a_chain_gives_what_its_steps_give_one_by_one(file: Path) -> None:
    """Parity: functions called in this process, and the model by itself, against all of it behind the protocol."""
    drawn = np.random.default_rng(5)
    amounts, countries = drawn.normal(size=40), drawn.choice(np.array(["NL", "BE"], object), 40)
    there: dict[str, Any] = {}
    exec(compile(PREPARE, "steps", "exec"), there)
    x = there["prepare"](amounts.copy(), countries)["x"]
    (y,) = Graph(graphs.scaled(2.0)).run(["y"], {"x": x})
    expected = there["finish"](y, countries)
    model = put(file.parent / "twice.onnx", graphs.scaled(2.0))

    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        amount = {"name": "amount", "shape": [40], "datatype": "FP64", "data": amounts.tolist()}
        answer = await client.post("/v2/models/twice/infer", json={"inputs": [amount, texts("country", *countries)]})
        given = {output["name"]: output["data"] for output in answer.json()["outputs"]}
        assert given["total"] == expected["total"].tolist()
        assert given["said"] == expected["said"].tolist()

    run([f"{file}:prepare+{model}+{file}:finish"], talk)


def test_a_gateway_that_ends_while_it_opens_its_functions_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go, opened, closed = threading.Event(), threading.Event(), list[str](), list[str]()

    class Slow:
        def __init__(self, _: Path, name: str, module: str, ending: Any) -> None:
            self.name = name
            opened.append(name)
            begun.set()
            assert go.wait(10)

        def close(self) -> None:
            closed.append(self.name)

    def before() -> None: ...

    def after() -> None: ...

    monkeypatch.setattr(onduty, "Function", Slow)
    project: Any = SimpleNamespace(models=[late], chains={"chain": [before, late, after]})
    follower: Any = None
    tensors = onduty.OnDuty(project, follower)
    opening = threading.Thread(target=tensors.open)
    opening.start()
    assert begun.wait(10)
    tensors.close()
    go.set()
    opening.join(10)
    assert opened == closed == ["before"]
