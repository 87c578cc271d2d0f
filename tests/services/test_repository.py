"""The models that `penstock serve` holds: files that change, and room for so many only."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.services import graphs
from tests.services.air import said_wrong
from tests.services.served import asking, put, run, tensor, word

from penstock.errors import PenstockError
from penstock.scoring.graph import Graph
from penstock.services.inference.open_inference import repository as repositories
from penstock.services.inference.open_inference.protocol import Limits
from penstock.services.inference.open_inference.repository import Repository, named
from penstock.services.inference.open_inference.serve import Serve


def test_ten_thousand_requests_across_twenty_swaps_are_all_answered_by_the_version_they_name(tmp_path: Path) -> None:
    place = put(tmp_path / "by.onnx", graphs.scaled(0.0))
    factor = {Graph(graphs.scaled(float(n))).sha256[:12]: float(n) for n in range(21)}

    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        app, body, seen = Serve(repository, Limits(), False), json.dumps(asking(tensor([[1.0, 1.0, 1.0]]))).encode(), list[str]()

        async def ask() -> None:
            sent: list[Any] = []

            async def receive() -> dict[str, Any]:
                return {"type": "http.request", "body": body}

            async def send(message: Any) -> None:
                sent.append(message)

            await app({"type": "http", "path": "/v2/models/by/infer", "method": "POST", "headers": []}, receive, send)
            assert sent[0]["status"] == 200, sent[1]
            answer = json.loads(sent[1]["body"])
            assert answer["outputs"][0]["data"] == [factor[answer["model_version"]]] * 3
            seen.append(answer["model_version"])

        async def swap() -> None:
            for n in range(1, 21):
                put(place, graphs.scaled(float(n)))
                await repository.look()
                await repository.look()
                swapped = len(seen)
                while len(seen) < max(n * 450, swapped + 40):  # twice as many as are under way: some asked the new one
                    await asyncio.sleep(0)

        swapping = asyncio.create_task(swap())

        async def keep_asking() -> None:
            while len(seen) < 10_000 or not swapping.done():
                await ask()
                await asyncio.sleep(0)

        await asyncio.gather(swapping, *(keep_asking() for _ in range(20)))
        assert len(set(seen)) == 21
        assert seen[-1] == Graph(graphs.scaled(20.0)).sha256[:12]

    run([f"by={place}"], talk)


def test_a_file_is_taken_over_once_it_is_whole_and_never_when_it_is_bad(tmp_path: Path) -> None:
    place = put(tmp_path / "by.onnx", graphs.scaled(2.0))

    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        async def factor() -> float:
            await repository.look()
            answer = await client.post("/v2/models/by/infer", json=asking(tensor([[1.0, 1.0, 1.0]])))
            return float(answer.json()["outputs"][0]["data"][0])

        assert await factor() == 2.0
        put(place, graphs.scaled(3.0))
        assert await factor() == 2.0  # seen once: it may not be whole yet
        assert await factor() == 3.0
        for bad in (graphs.scaled(4.0)[:-5], b"", graphs.pointing_outside()):
            put(place, bad)
            assert [await factor() for _ in range(3)] == [3.0] * 3
            (entry,) = repository.index()
            assert entry["state"] == "READY"
            assert "the file as it is now is not served" in entry["reason"]
        place.unlink()
        assert [await factor() for _ in range(2)] == [3.0] * 2
        put(place, graphs.scaled(5.0))
        assert [await factor() for _ in range(2)] == [3.0, 5.0]
        assert repository.index()[0]["reason"] == ""

    run([f"by={place}"], talk)


def test_administrators_list_load_and_unload(tmp_path: Path) -> None:
    words = [word(tmp_path, "one", graphs.scaled(1.0)), word(tmp_path, "two", graphs.scaled(2.0))]

    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        async def index(**options: Any) -> dict[str, str]:
            found = (await client.post("/v2/repository/index", json=options)).json()
            return {entry["name"]: entry["state"] for entry in found}

        assert await index() == {"one": "READY", "two": "READY"}
        assert (await client.post("/v2/repository/models/one/unload")).status_code == 200
        assert await index() == {"one": "UNAVAILABLE", "two": "READY"}
        assert await index(ready=True) == {"two": "READY"}
        for path in ("/v2/models/one/infer", "/v2/models/one/versions/x/infer"):
            answer = await client.post(path, json=asking())
            assert answer.status_code in (404, 503)
            said_wrong(answer)
        answer = await client.get("/v2/models/one/ready")
        assert (answer.status_code, answer.json()["ready"]) == (503, False)
        put(tmp_path / "one.onnx", graphs.scaled(7.0))
        assert (await client.post("/v2/repository/models/one/load", json={})).status_code == 200
        answer = await client.post("/v2/models/one/infer", json=asking(tensor([[1.0, 1.0, 1.0]])))
        assert answer.json()["outputs"][0]["data"] == [7.0] * 3
        put(tmp_path / "one.onnx", b"no model")
        for path, body, status in (
            ("one/load", b"{}", 400), ("three/load", b"{}", 404), ("three/unload", b"", 404), ("one/load", b"[]", 400),
            ("one/load", b'{"parameters": {"config": "{}"}}', 400),
        ):  # fmt: skip
            answer = await client.post(f"/v2/repository/models/{path}", content=body)
            assert answer.status_code == status
            said_wrong(answer)
        assert (await client.get("/v2/models/one/ready")).status_code == 200  # what was there goes on

    run(words, talk, admin=True)


def test_beyond_the_bound_of_memory_the_least_used_is_closed_and_opened_again_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repositories, "_resident", lambda: 0)  # so that a model takes the size of its file
    size = len(graphs.scaled(1.0))
    opened: list[Path] = []
    plain = repositories._graph

    def counted(path: Path) -> Any:
        opened.append(path)
        return plain(path)

    monkeypatch.setattr(repositories, "_graph", counted)

    async def talk(client: httpx.AsyncClient, repository: Repository) -> None:
        async def factor(name: str) -> float:
            answer = await client.post(f"/v2/models/{name}/infer", json=asking(tensor([[1.0, 1.0, 1.0]])))
            return float(answer.json()["outputs"][0]["data"][0])

        opened.clear()
        for name, expected, again in (("c", 3.0, 0), ("b", 2.0, 0), ("a", 1.0, 1), ("b", 2.0, 1), ("c", 3.0, 2), ("b", 2.0, 2)):
            assert await factor(name) == expected
            assert len(opened) == again
        assert [await asyncio.gather(*(factor("a") for _ in range(20)))] == [[1.0] * 20]
        assert len(opened) == 3  # once for all who waited
        assert (await client.get("/readyz")).status_code == 200

    words = [word(tmp_path, name, graphs.scaled(by)) for name, by in (("a", 1.0), ("b", 2.0), ("c", 3.0))]
    run(words, talk, memory=2 * size)
    with pytest.raises(PenstockError, match="takes 0 MiB of memory, more than"):
        run(words, talk, memory=size - 1)


def test_a_model_that_takes_too_long_to_open_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(repositories, "_graph", lambda path: released.wait(60))
    try:
        with pytest.raises(PenstockError, match=r"double.onnx cannot be served: it was not open after 0.05 s"):
            run([word(tmp_path, "double", graphs.scaled(2.0))], lambda *_: asyncio.sleep(0), timeout=0.05)
    finally:
        released.set()


@pytest.mark.parametrize(
    "words",
    [["a=x", "a=y"], ["a=x", "a/1=y"], ["a/1=x", "a/1=y"], ["a b=x"], ["=x"], ["a/=x"], ["stats=x"], ["a/b/c=x"]],
    ids=str,
)
def test_names_that_name_nothing_or_one_thing_twice_are_refused(words: list[str]) -> None:
    with pytest.raises(PenstockError) as caught:
        Repository([named(one) for one in words])
    assert caught.value.fix
