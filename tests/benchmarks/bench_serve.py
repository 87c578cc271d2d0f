"""`penstock serve` beside a floor: a bare ASGI application that does nothing but the same inference, in the same run.

Model: 100 boosted trees of 20 features, as ONNX. Server on core 0, wrk (`apt-get install wrk`) with one thread on core 1,
keep-alive, closed loop, 64 different bodies in turn. Servers are up together and take turns of a second in shuffled order;
medians of the rounds. Where others work on the machine, requests per CPU second of the server say more than the clock.

    floor          msgspec, the same micro-batching, uvicorn on httptools and asyncio; no checks, no counts, no errors
    recorded       others by their own documents on such a machine another day, ONNX where they can; mlflow carries scikit-learn
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec
import numpy as np

from penstock.local import port as ports
from penstock.local.process import end_group, launch

from .figure import Figure

ROWS: Final = 100
FEATURES: Final = 20
BODIES: Final = 64
HERTZ: Final = os.sysconf("SC_CLK_TCK")
RECORDED: Final = {
    "MLServer, ONNX": 2519.0,
    "BentoML, ONNX": 798.0,
    "mlflow models serve": 635.0,
    "FastAPI + pydantic": 4427.0,
    "bare ASGI, uvloop": 24_172.0,
}
"""Requests per second of single rows at 64 connections, on two quiet cores."""
POST: Final = """
local bodies, n, i = {}, 0, 0
function init(args)
  for path in io.lines(os.getenv("BODIES")) do
    local file = io.open(path, "rb"); n = n + 1; bodies[n] = file:read("*a"); file:close()
  end
  wrk.method = "POST"
  if os.getenv("HEAD") then wrk.headers["Inference-Header-Content-Length"] = os.getenv("HEAD") end
end
function request() i = i % n + 1; return wrk.format(nil, nil, nil, bodies[i]) end
function done(s, lat, req)
  local e = s.errors
  print(string.format("RESULT rate=%.1f p50=%d p99=%d n=%d bad=%d", s.requests / (s.duration / 1e6), lat:percentile(50),
    lat:percentile(99), s.requests, e.status + e.connect + e.read + e.write + e.timeout))
end
"""


class Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    data: list[float] = []


class Request(msgspec.Struct):
    """What the floor reads of a body."""

    inputs: list[Tensor]


def floor(model: str, port: int) -> None:
    """A bare ASGI application on the same server."""
    import asyncio

    import onnxruntime
    import uvicorn

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    decode, encode = msgspec.json.Decoder(Request).decode, msgspec.json.Encoder().encode
    pending: list[tuple[Any, Any]] = []

    def flush() -> None:
        work, at = pending[:], 0
        pending.clear()
        found = session.run(["probabilities"], {"X": np.concatenate([rows for rows, _ in work])})[0]
        for rows, answer in work:
            answer.set_result(found[at : at + len(rows)])
            at += len(rows)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, whole = b"", False
        while not whole:
            message = await receive()
            body += message.get("body", b"")
            whole = not message.get("more_body")
        if scope["method"] == "GET":
            out = b"{}"
        else:
            head = next((int(v) for k, v in scope["headers"] if k == b"inference-header-content-length"), None)
            given = decode(body[:head]).inputs[0]
            raw = np.array(given.data, np.float32) if head is None else np.frombuffer(body[head:], np.float32)
            loop = asyncio.get_running_loop()
            answer = loop.create_future()
            if not pending:
                loop.call_soon(flush)
            pending.append((raw.reshape(given.shape), answer))
            found = await answer
            if head is None:
                output = {"name": "probabilities", "shape": found.shape, "datatype": "FP32", "data": found.ravel().tolist()}
                out = encode({"model_name": "m", "outputs": [output]})
            else:
                output = {"name": "probabilities", "shape": found.shape, "datatype": "FP32"}
                out = encode({"model_name": "m", "outputs": [output]}) + found.tobytes()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(out))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": out})

    uvicorn.run(
        app, host=ports.LOOPBACK, port=port, loop="asyncio", http="httptools", ws="none", lifespan="off", access_log=False,
        log_level="error",
    )  # fmt: skip


def fitted(place: Path) -> None:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.ensemble import HistGradientBoostingClassifier

    drawn = np.random.default_rng(7)
    inputs = drawn.normal(size=(20_000, FEATURES)).astype(np.float32)
    labels = inputs[:, 0] + inputs[:, 1] * inputs[:, 2] + drawn.normal(size=len(inputs)) > 0
    model = HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=0).fit(inputs, labels)
    exported = to_onnx(
        model, initial_types=[("X", FloatTensorType([None, FEATURES]))], options={id(model): {"zipmap": False}},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )  # fmt: skip
    place.write_bytes(exported.SerializeToString())


class Work:
    """Bodies of one kind, in files."""

    def __init__(self, folder: Path, rows: int, binary: bool) -> None:
        folder.mkdir()
        drawn, self.head, paths = np.random.default_rng(rows), 0, list[str]()
        for number in range(BODIES):
            values = drawn.normal(size=(rows, FEATURES)).astype("<f4")
            tensor: dict[str, Any] = {"name": "X", "shape": [rows, FEATURES], "datatype": "FP32"}
            output: dict[str, Any] = {"name": "probabilities"}
            if binary:
                tensor["parameters"] = {"binary_data_size": values.nbytes}
                output["parameters"] = {"binary_data": True}
            else:
                tensor["data"] = [round(float(v), 6) for v in values.ravel()]
            body = json.dumps({"id": "r", "inputs": [tensor], "outputs": [output]}, separators=(",", ":")).encode()
            self.head = len(body)
            (folder / f"{number}").write_bytes(body + values.tobytes() if binary else body)
            paths.append(str(folder / f"{number}"))
        self.binary, self.list = binary, folder / "list"
        self.list.write_text("\n".join(paths) + "\n")


class Server:
    """One process on core 0. `ready`: seconds from its start until it answered."""

    def __init__(self, name: str, command: Sequence[str], port: int, log: Path) -> None:
        began = time.monotonic()
        self.name, self.url = name, f"http://{ports.LOOPBACK}:{port}"
        kept = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(log.parent / "pyc")}  # as where it is installed
        self._process = launch(["taskset", "-c", "0", *command], log=log, env={**os.environ, **kept})
        self.pid = self._process.pid
        try:
            while not answers(f"{self.url}/v2/health/ready"):
                if self._process.poll() is not None or time.monotonic() - began > 60:
                    raise RuntimeError(f"{name} did not start: {log.read_text(errors='replace')[-500:]}")
                time.sleep(0.005)
        except BaseException:
            self.end()
            raise
        self.ready = time.monotonic() - began

    @property
    def cpu(self) -> float:
        """Seconds that it has computed."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / HERTZ

    @property
    def memory(self) -> float:
        """MB now."""
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text())
        return int(found[1]) / 1024 if found else 0.0

    def turn(self, work: Work, connections: int, seconds: int, script: Path) -> dict[str, float]:
        """What it did under load for so long."""
        before = self.cpu
        wrk = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "--latency",
            "-s",
            str(script),
            f"{self.url}/v2/models/m/infer",
        ]
        said = subprocess.run(
            ["taskset", "-c", "1", *wrk], capture_output=True, text=True, timeout=seconds + 30, check=True,
            env={**os.environ, "BODIES": str(work.list), **({"HEAD": str(work.head)} if work.binary else {})},
        ).stdout  # fmt: skip
        result = dict(pair.split("=") for pair in re.findall(r"\w+=[\d.]+", said.partition("RESULT")[2]))
        found = {name: float(value) for name, value in result.items()}
        if found["bad"]:
            raise RuntimeError(f"{self.name} answered {found['bad']:.0f} requests wrongly")
        return {**found, "per_cpu_second": found["n"] / max(self.cpu - before, 1 / HERTZ)}

    def end(self) -> None:
        end_group(self.pid, 10.0)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def commands(model: Path) -> dict[str, tuple[list[str], int]]:
    """How each server is started, and on which port."""
    ours, beside = ports.free(), ports.free()
    here = [sys.executable, "-m", "tests.benchmarks.bench_serve"]
    return {
        "penstock": ([sys.executable, "-m", "penstock.cli", "serve", f"m={model}", "--port", str(ours)], ours),
        "floor": ([*here, str(model), str(beside)], beside),
    }


def run(quick: bool) -> Iterator[Figure]:
    if shutil.which("wrk") is None:
        raise RuntimeError("there is no wrk here: apt-get install wrk")
    rounds, seconds = 1 if quick else 7, 1  # wrk takes whole seconds only
    with tempfile.TemporaryDirectory() as name:
        folder, random = Path(name), Random(0)
        model, script = folder / "model.onnx", folder / "post.lua"
        fitted(model)
        script.write_text(POST)
        one, many = Work(folder / "one", 1, False), Work(folder / "many", ROWS, True)
        cases = {"one row, 64 connections": (one, 64), "one row, 1 connection": (one, 1), "binary 100 rows, 64": (many, 64)}
        found: dict[tuple[str, str], list[dict[str, float]]] = {}
        servers: list[Server] = []
        try:
            starts = [started(model, folder) for _ in range(2 if quick else 6)][1:]  # the first compiles
            for who, (command, port) in commands(model).items():
                servers.append(Server(who, command, port, folder / f"{who}.log"))
            turns = [(server, case) for server in servers for case in cases]
            for lap in range(rounds + 1):  # the first is not counted
                random.shuffle(turns)
                for server, case in turns:
                    took = server.turn(*cases[case], seconds, script)
                    if lap:
                        found.setdefault((server.name, case), []).append(took)
            memory = servers[0].memory
        finally:
            for server in servers:
                server.end()
    goals = {"one row, 64 connections": 15_000, "one row, 1 connection": 5_000, "binary 100 rows, 64": 3_000}
    for case, goal in goals.items():
        ours, beside = (
            {k: statistics.median(t[k] for t in found[who, case]) for k in found[who, case][0]} for who in ("penstock", "floor")
        )
        yield Figure(
            name=case, unit="req/s", better="higher", ours=ours["rate"], beside={"bare ASGI": beside["rate"]},
            recorded=RECORDED if case == "one row, 64 connections" else {}, goal=goal, detail={"penstock": ours, "floor": beside},
        )  # fmt: skip
        yield Figure(
            name=f"{case}, per CPU second", unit="req/s", better="higher", ours=ours["per_cpu_second"],
            beside={"bare ASGI": beside["per_cpu_second"]},
        )  # fmt: skip
        if case == "one row, 64 connections":
            yield Figure(
                name=f"{case}, p99", unit="ms", better="lower", ours=ours["p99"] / 1e3, beside={"bare ASGI": beside["p99"] / 1e3},
                goal=8.0,
            )  # fmt: skip
    yield Figure(name="memory after all", unit="MB", better="lower", ours=memory, goal=150.0)
    yield Figure(name="start to ready", unit="s", better="lower", ours=statistics.median(starts), goal=1.5)


def started(model: Path, folder: Path) -> float:
    """Seconds from the command to the first answer."""
    command, port = commands(model)["penstock"]
    server = Server("penstock", command, port, folder / "start.log")
    server.end()
    return server.ready


if __name__ == "__main__":
    floor(sys.argv[1], int(sys.argv[2]))
