"""`penstock serve` as a process of its own: started, asked by the clients that people have, swapped under load, ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.services import graphs
from tests.services.served import asking, put, tensor, word

from penstock.local.process import end_group, launch
from penstock.scoring.graph import Graph
from penstock.scoring.signature import DATATYPES

COMMAND = [sys.executable, "-m", "penstock.cli", "serve"]


@contextmanager
def serving(folder: Path, *words: str) -> Iterator[dict[str, Any]]:
    """What a server says of itself once it is ready; ended, and seen to have ended well, afterwards."""
    out = folder / "out.txt"
    process = launch([*COMMAND, *words, "--port", "0", "--json"], log=out)
    try:
        until = time.monotonic() + 60
        while not (lines := out.read_text().splitlines() if out.exists() else []):
            assert process.poll() is None and time.monotonic() < until, out.read_text()
            time.sleep(0.01)
        yield {**json.loads(lines[0]), "pid": process.pid}
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, out.read_text()
        assert "Traceback" not in out.read_text()
    finally:
        end_group(process.pid, 5.0)


def refused(*words: str) -> tuple[int, str]:
    """The exit code and words of a server that does not start."""
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("served")
    words = [
        word(folder, "echo", graphs.echo()),
        word(folder, "late/1", graphs.scaled(1.0)),
        word(folder, "late/2", graphs.scaled(2.0)),
    ]
    with serving(folder, *words, "--admin") as said:
        yield said


def test_it_says_what_it_serves(server: dict[str, Any]) -> None:
    assert [(m["model"], m["version"]) for m in server["models"][1:]] == [("late", "1"), ("late", "2")]
    assert server["models"][2]["sha256"] == Graph(graphs.scaled(2.0)).sha256
    assert server["url"].startswith("http://127.0.0.1:")


def test_it_imports_nothing_that_it_does_not_need(server: dict[str, Any]) -> None:
    mapped = Path(f"/proc/{server['pid']}/maps").read_text()
    assert "onnxruntime" in mapped
    modules = "penstock.cli, penstock.services.inference.open_inference.serve, onnxruntime"
    code = f"import sys, {modules}; print(' '.join(m for m in sys.modules if '.' not in m))"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert not loaded & {
        "sklearn",
        "river",
        "pandas",
        "mlflow",
        "fastapi",
        "pydantic",
        "aiokafka",
        "redis",
        "numba",
        "scipy",
        "pyarrow",
    }


class TestTritonClient:
    """NVIDIA's client, as it is released."""

    @pytest.fixture
    def client(self, server: dict[str, Any]) -> Iterator[Any]:
        http = pytest.importorskip("tritonclient.http", reason="no tritonclient: pip install 'penstock[dev]'")
        with http.InferenceServerClient(server["url"].removeprefix("http://")) as made:
            yield made

    def test_tells_of_server_and_models(self, client: Any) -> None:
        assert client.is_server_live() and client.is_server_ready()
        assert client.is_model_ready("late") and client.is_model_ready("late", "1") and not client.is_model_ready("late", "9")
        assert client.get_server_metadata()["name"] == "penstock"
        found = client.get_model_metadata("late", "1")
        assert (found["versions"], found["inputs"]) == (["2", "1"], [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}])

    @pytest.mark.parametrize("binary_in", [True, False])
    @pytest.mark.parametrize("binary_out", [True, False])
    def test_gets_every_datatype_back(self, client: Any, binary_in: bool, binary_out: bool) -> None:
        from tritonclient import http

        sent = {name: np.array([[1, 0], [3, 4]]).astype(dtype) for name, dtype in DATATYPES.items() if name != "BYTES"}
        sent["BYTES"] = np.array([["ä", ""], ["b", "c"]], object)
        inputs = []
        for name, array in sent.items():
            binary = binary_in or name == "FP16"  # the client sends FP16 only so
            inputs.append(http.InferInput(name, array.shape, name).set_data_from_numpy(array, binary_data=binary))
        outputs = [http.InferRequestedOutput(f"{name}_back", binary_data=binary_out) for name in sent]
        found = client.infer("echo", inputs, outputs=outputs, request_id="r")
        assert found.get_response()["id"] == "r"
        for name, array in sent.items():
            back = found.as_numpy(f"{name}_back")
            if name == "BYTES":
                assert [v.decode() if isinstance(v, bytes) else v for v in back.ravel()] == list(array.ravel())
            else:
                assert back.dtype == array.dtype and back.tolist() == array.tolist()

    def test_gets_all_outputs_when_it_names_none_and_the_version_it_names(self, client: Any) -> None:
        from tritonclient import http

        given = http.InferInput("x", [1, 3], "FP32").set_data_from_numpy(np.ones((1, 3), np.float32))
        assert client.infer("late", [given]).as_numpy("y").tolist() == [[2.0] * 3]
        assert client.infer("late", [given], model_version="1").as_numpy("y").tolist() == [[1.0] * 3]

    def test_raises_our_sentences(self, client: Any) -> None:
        from tritonclient import http
        from tritonclient.utils import InferenceServerException

        given = http.InferInput("x", [1, 2], "FP32").set_data_from_numpy(np.ones((1, 2), np.float32))
        with pytest.raises(InferenceServerException, match=r"input 'x' has shape \[-1, 3\], not \[1, 2\]"):
            client.infer("late", [given])
        with pytest.raises(InferenceServerException, match="there is no model 'early'"):
            client.get_model_metadata("early")

    def test_reads_statistics_and_runs_the_repository(self, client: Any) -> None:
        assert {entry["name"] for entry in client.get_model_repository_index()} == {"echo", "late"}
        client.unload_model("echo")
        assert not client.is_model_ready("echo")
        client.load_model("echo")
        assert client.is_model_ready("echo")
        (found,) = client.get_inference_statistics("late", "2")["model_stats"]
        assert found["inference_stats"]["success"]["count"] == found["inference_count"]


async def post(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, body: bytes) -> tuple[int, Any]:
    """One request on an open connection."""
    writer.write(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), len(body), body))
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    size = int(head.partition("content-length: ")[2].partition("\r\n")[0])
    return int(head.split()[1]), json.loads(await reader.readexactly(size))


def test_ten_thousand_requests_over_sockets_across_twenty_swaps_none_fails(tmp_path: Path) -> None:
    place, body = put(tmp_path / "by.onnx", graphs.scaled(0.0)), json.dumps(asking(tensor([[1.0, 1.0, 1.0]]))).encode()
    factor = {Graph(graphs.scaled(float(n))).sha256[:12]: float(n) for n in range(21)}

    async def whole(port: int) -> None:
        seen: list[str] = []

        async def client(count: int) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(count):
                status, answer = await post(reader, writer, "/v2/models/by/infer", body)
                assert status == 200, answer
                assert answer["outputs"][0]["data"] == [factor[answer["model_version"]]] * 3
                seen.append(answer["model_version"])
            writer.close()

        async def swap() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for n in range(1, 21):
                while len(seen) < n * 450:
                    await asyncio.sleep(0.001)
                put(place, graphs.scaled(float(n)))
                assert await post(reader, writer, "/v2/repository/models/by/load", b"{}") == (200, {})
            writer.close()

        await asyncio.wait_for(asyncio.gather(swap(), *(client(625) for _ in range(16))), 120)
        assert len(seen) == 10_000
        assert len(set(seen)) == 21

    with serving(tmp_path, f"by={place}", "--admin") as said:
        asyncio.run(whole(int(said["url"].rpartition(":")[2])))


def test_a_file_that_changes_is_served_by_itself(tmp_path: Path) -> None:
    place = put(tmp_path / "by.onnx", graphs.scaled(2.0))
    with serving(tmp_path, str(place)) as said, httpx.Client(base_url=said["url"]) as client:

        def factor() -> float:
            return float(client.post("/v2/models/by/infer", json=asking(tensor([[1.0] * 3]))).json()["outputs"][0]["data"][0])

        assert factor() == 2.0
        put(place, graphs.scaled(3.0))
        wait(lambda: factor() == 3.0)


def wait(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_what_cannot_be_served_is_said_before_the_port_opens(tmp_path: Path) -> None:
    good, bad = put(tmp_path / "good.onnx", graphs.scaled(1.0)), put(tmp_path / "bad.onnx", graphs.pointing_outside())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, said = refused(str(good), "--port", str(taken.getsockname()[1]))
        assert (code, "cannot be listened on" in said, "--port" in said) == (1, True, True)
    for words, exits, sentence in (
        ([str(good), str(bad)], 1, "bad.onnx cannot be served: the ONNX model keeps tensors in other files"),
        ([str(tmp_path / "none.onnx")], 3, "none.onnx cannot be served: it cannot be read: No such file"),
        ([f"a b={good}"], 1, "does not name a model"),
        ([str(good), "--admin", "--host", "0.0.0.0"], 1, "--admin on 0.0.0.0 would let anyone change what is served"),
        ([str(good), "--host", "0.0.0.0"], 2, "nothing says who may ask"),
        ([str(good), "--certificate", str(bad)], 2, "HTTPS cannot be spoken"),
        ([], 2, "Missing argument"),
    ):
        code, said = refused(*words, "--port", "0")
        assert (code, sentence in said) == (exits, True), said


def test_it_is_told_to_end_in_the_middle_of_requests_and_answers_them(tmp_path: Path) -> None:
    async def whole(port: int, pid: int) -> None:
        body = json.dumps(asking()).encode()
        doors = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        for reader, writer in doors:
            assert (await post(reader, writer, "/v2/models/double/infer", body))[0] == 200
        last = [asyncio.ensure_future(post(reader, writer, "/v2/models/double/infer", body)) for reader, writer in doors]
        await asyncio.sleep(0)
        os.kill(pid, signal.SIGTERM)
        for one in await asyncio.gather(*last, return_exceptions=True):  # answered, or closed before it was read
            assert isinstance(one, asyncio.IncompleteReadError | ConnectionError | tuple)
            assert not isinstance(one, tuple) or one[0] == 200

    with serving(tmp_path, word(tmp_path, "double", graphs.scaled(2.0))) as said:
        asyncio.run(whole(int(said["url"].rpartition(":")[2]), said["pid"]))


STEPS = """
import numpy as np
import penstock as ps

print("loaded")  # does not disturb what --json says

@ps.function(takes={"kilometres": "FP64[*]"}, gives={"x": "FP32[*, 3]"})
def prepare(kilometres):
    return {"x": np.stack([kilometres, kilometres * 2, kilometres * 3], axis=1).astype(np.float32)}

@ps.function(takes={"y": "FP32[*, 3]"}, gives={"sum": "FP64[*]"})
def finish(y):
    return {"sum": y.sum(axis=1, dtype=np.float64)}
"""


def workers(of: int) -> list[int]:
    """The processes of functions of a server."""
    children = [int(pid) for place in Path(f"/proc/{of}/task").iterdir() for pid in (place / "children").read_text().split()]
    return [pid for pid in children if b"penstock.scoring.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_functions_are_served_between_the_steps_of_a_model_and_end_with_their_server(tmp_path: Path, how: signal.Signals) -> None:
    triton = pytest.importorskip("tritonclient.http")
    (tmp_path / "steps.py").write_text(STEPS)
    model = put(tmp_path / "double.onnx", graphs.scaled(2.0))
    chain = f"far={tmp_path}/steps.py:prepare+{model}+{tmp_path}/steps.py:finish"
    out = tmp_path / "out.txt"
    process = launch([*COMMAND, chain, "--port", "0", "--json"], log=out)
    try:
        until = time.monotonic() + 60
        while not (said := [line for line in out.read_text().splitlines() if line.startswith("{")] if out.exists() else []):
            assert process.poll() is None and time.monotonic() < until, out.read_text()
            time.sleep(0.01)
        told = json.loads(said[0])
        assert [t["name"] for t in told["models"][0]["inputs"]] == ["kilometres"]
        client = triton.InferenceServerClient(told["url"].removeprefix("http://"))
        given = triton.InferInput("kilometres", [2], "FP64")
        given.set_data_from_numpy(np.array([1.0, 10.0]))
        assert client.infer("far", [given]).as_numpy("sum").tolist() == [12.0, 120.0]
        running = workers(process.pid)
        assert len(running) == 2
        process.send_signal(how)
        process.wait(20)
        while any(Path(f"/proc/{pid}").exists() for pid in running):
            assert time.monotonic() < until
            time.sleep(0.01)
        assert "Traceback" not in out.read_text()
    finally:
        end_group(process.pid, 5.0)
