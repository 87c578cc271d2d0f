"""gRPC and Python functions beside plain HTTP: what each costs the server, for the same model and rows.

`penstock serve` on core 0 with 100 boosted trees of 20 features, alone (`m`) and between two functions that only pass on
(`chain`); 16 askers in one process on core 1, closed loop, one row each, in turns of a second in shuffled order. A Python client
is slower than the server, so the figures are requests per second of the server's own processor time, functions' processes
included.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Final

import grpc
import numpy as np

from penstock.local import port as ports
from penstock.services.inference.open_inference.messages import MESSAGES, SERVICE

from .bench_serve import FEATURES, HERTZ, Server, Work, fitted
from .figure import Figure

ASKERS: Final = 16
FUNCTIONS: Final = """
import penstock as ps

@ps.function(takes={"rows": "FP32[*, 20]"}, gives={"X": "FP32[*, 20]"})
def before(rows):
    return {"X": rows}

@ps.function(takes={"probabilities": "FP32[*, 2]"}, gives={"probabilities": "FP32[*, 2]"})
def after(probabilities):
    return {"probabilities": probabilities}
"""

Ask = Callable[[], Awaitable[None]]


def spent(pid: int) -> float:
    """Seconds that a process and its children have computed."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = 0.0
    for each in [pid, *map(int, children)]:
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        found += (int(fields[11]) + int(fields[12])) / HERTZ
    return found


async def http(port: int, body: bytes, model: str) -> Ask:
    """Asks over one connection that is kept."""
    reader, writer = await asyncio.open_connection(ports.LOOPBACK, port)
    head = b"POST /v2/models/%s/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % (model.encode(), len(body))

    async def ask() -> None:
        writer.write(head + body)
        said = await reader.readuntil(b"\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 200"), said
        length = int(said.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)

    return ask


def rpc(channel: grpc.aio.Channel, model: str) -> Ask:
    asked = MESSAGES["ModelInferRequest"](model_name=model)
    asked.inputs.add(name="X", datatype="FP32", shape=[1, FEATURES])
    asked.outputs.add(name="probabilities")
    asked.raw_input_contents.append(np.ones((1, FEATURES), "<f4").tobytes())
    call = channel.unary_unary(
        f"/{SERVICE}/ModelInfer",
        request_serializer=MESSAGES["ModelInferRequest"].SerializeToString,
        response_deserializer=MESSAGES["ModelInferResponse"].FromString,
    )

    async def ask() -> None:
        await call(asked)

    return ask


async def turns(server: Server, grpc_port: int, body: bytes, quick: bool) -> dict[str, list[float]]:
    """Requests per second of the server's processor time, by kind and turn."""
    port = int(server.url.rpartition(":")[2])
    found: dict[str, list[float]] = {}
    async with grpc.aio.insecure_channel(f"{ports.LOOPBACK}:{grpc_port}") as channel:
        asks = {
            "http": [await http(port, body, "m") for _ in range(ASKERS)],
            "grpc": [rpc(channel, "m") for _ in range(ASKERS)],
            "chain": [await http(port, body.replace(b'"X"', b'"rows"'), "chain") for _ in range(ASKERS)],
        }
        random, kinds = Random(0), list(asks)
        for lap in range(3 if quick else 8):  # the first is not counted
            random.shuffle(kinds)
            for kind in kinds:
                before, until, count = spent(server.pid), time.monotonic() + (0.3 if quick else 1.0), 0

                async def loop(ask: Ask, until: float) -> int:
                    many = 0
                    while time.monotonic() < until:
                        await ask()
                        many += 1
                    return many

                count = sum(await asyncio.gather(*[loop(ask, until) for ask in asks[kind]]))
                if lap:
                    found.setdefault(kind, []).append(count / max(spent(server.pid) - before, 1 / HERTZ))
    return found


def run(quick: bool) -> Iterator[Figure]:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, functions = folder / "model.onnx", folder / "functions.py"
        fitted(model)
        functions.write_text(FUNCTIONS)
        body = (Path(Work(folder / "one", 1, False).list.read_text().split()[0])).read_bytes()
        port, grpc_port = ports.free(), ports.free()
        chain = f"chain={functions}:before+{model}+{functions}:after"
        argv = ["-m", "penstock.cli", "serve", f"m={model}", chain, "--port", str(port), "--grpc-port", str(grpc_port)]
        server = Server("penstock", [sys.executable, *argv], port, folder / "serve.log")
        try:
            found = asyncio.run(turns(server, grpc_port, body, quick))
        finally:
            server.end()
    middle = {kind: statistics.median(each) for kind, each in found.items()}
    for kind, said in (("grpc", "one row by gRPC"), ("chain", "one row through two Python functions")):
        yield Figure(
            name=f"{said}, per CPU second", unit="req/s", better="higher", ours=middle[kind], beside={"HTTP": middle["http"]}
        )
