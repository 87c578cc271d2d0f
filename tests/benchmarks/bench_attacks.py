"""Good clients of `penstock serve` while bad ones attack it: how long one in a hundred of their answers takes, beside the same
server in peace, in the same run.

Server on core 0; wrk (16 connections, single rows) and the attackers on core 1. Calm and each attack take turns of seconds in
shuffled order; medians of the rounds. Attackers hold what they have and send at a steady pace: a server on one core
that is asked more answers more slowly, whoever asks.

    idle       3,000 connections that say nothing
    slow       1,000 that send a byte of a head or body every second
    wrong      200 requests a second: bodies over the bound, gzip bombs, lengths that lie, no HTTP
    gone       200 a second that ask and leave before the answer
    no key     200 a second with a key that is none, where keys are asked for
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

from penstock.doors.keys import Keys, pepper_of
from penstock.local import port as ports
from penstock.local.process import end_group

from .bench_serve import POST, Server, Work, fitted
from .figure import Figure

ATTACKS: Final = ("idle", "slow", "wrong", "gone", "no key")
PACE: Final = 200
CONNECTIONS: Final = 16
GOAL: Final = 2.0
LONGEST: Final = 60.0
"""Seconds that an attacker lives, should nobody end it."""
HEAD: Final = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: localhost\r\n"
BOMB: Final = gzip.compress(bytes(10 << 20))
WRONG: Final = (
    HEAD + b"Content-Length: %d\r\n\r\n" % (17 << 20) + bytes(100_000),
    HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB) + BOMB,
    HEAD + b"Inference-Header-Content-Length: 99999\r\nContent-Length: 2\r\n\r\n{}",
    HEAD + b"Content-Length: 3\r\n\r\n[[[",
    b"\x16\x03\x01" + bytes(500),
)


async def attack(kind: str, port: int, body: bytes) -> None:
    """Without end."""
    whole = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body

    here, many = 0, 3000 if kind == "idle" else 1000

    async def held(number: int) -> None:
        nonlocal here
        while True:
            await asyncio.sleep(0.1)
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(ports.LOOPBACK, port)
                if (here := here + 1) == many:
                    print("all are there", flush=True)
                at = 0 if kind == "idle" else number % 2 * (len(whole) - 200)
                writer.write(whole[:at])
                while not reader.at_eof():
                    await asyncio.sleep(1)
                    if kind == "slow":
                        writer.write(whole[at : at + 1])
                        at = min(at + 1, len(whole) - 1)
                writer.close()

    async def sent(words: bytes) -> None:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(ports.LOOPBACK, port)
            writer.write(words)
            if kind != "gone":
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1 << 16), 2)
            writer.transport.abort()

    if kind in ("idle", "slow"):
        await asyncio.gather(*(held(number) for number in range(many)))
    stranger = HEAD + b"Authorization: Bearer penstock_000000000000_guess\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    print("all are there", flush=True)
    number, began, tasks = 0, time.monotonic(), set[asyncio.Task[None]]()
    while True:
        words = {"wrong": WRONG[number % len(WRONG)], "gone": whole, "no key": stranger}[kind]
        tasks.add(task := asyncio.create_task(sent(words)))
        task.add_done_callback(tasks.discard)
        number += 1
        await asyncio.sleep(max(0.0, began + number / PACE - time.monotonic()))


def run(quick: bool) -> Iterator[Figure]:
    if shutil.which("wrk") is None:
        raise RuntimeError("there is no wrk here: apt-get install wrk")
    rounds, seconds = 1 if quick else 5, 1
    with tempfile.TemporaryDirectory() as name:
        folder, random = Path(name), Random(0)
        model, script, held = folder / "model.onnx", folder / "post.lua", folder / "keys.json"
        fitted(model)
        _, words = Keys(held, pepper_of(held, "", make=True)).create("good", ["predict"])
        script.write_text(POST + f'\nwrk.headers["Authorization"] = "Bearer {words}"\n')
        work, found = Work(folder / "one", 1, False), dict[str, list[dict[str, float]]]()
        body = folder / "one" / "0"
        command = [sys.executable, "-m", "penstock.cli", "serve", f"m={model}", "--port"]
        places = {"open": ports.free(), "keyed": ports.free()}
        servers = dict[str, Server]()
        try:
            for who, port in places.items():
                more = ["--keys", str(held)] if who == "keyed" else []
                servers[who] = Server(who, [*command, str(port), *more], port, folder / f"{who}.log")
            for lap in range(rounds + 1):  # the first is not counted
                for kind in random.sample(["calm", "keyed calm", *ATTACKS], len(ATTACKS) + 2):
                    who = "keyed" if kind in ("keyed calm", "no key") else "open"
                    with attacked(kind, places[who], body):
                        took = servers[who].turn(work, CONNECTIONS, seconds, script)
                    if lap:
                        found.setdefault(kind, []).append(took)
        finally:
            for server in servers.values():
                server.end()
    middle = {kind: {k: statistics.median(t[k] for t in took) for k in took[0]} for kind, took in found.items()}
    for kind in ATTACKS:
        beside = middle["keyed calm" if kind == "no key" else "calm"]
        yield Figure(
            name=f"p99 under attack: {kind}", unit="ms", better="lower", ours=middle[kind]["p99"] / 1e3,
            beside={"calm": beside["p99"] / 1e3}, goal_ratio=GOAL, detail={"attacked": middle[kind], "calm": beside},
        )  # fmt: skip
    yield Figure(
        name="a key asked for, per CPU second", unit="req/s", better="higher", ours=middle["keyed calm"]["per_cpu_second"],
        beside={"no door": middle["calm"]["per_cpu_second"]}, goal_ratio=0.85,
    )  # fmt: skip


@contextlib.contextmanager
def attacked(kind: str, port: int, body: Path) -> Iterator[None]:
    """While attackers are at work; not at all for a calm."""
    if kind not in ATTACKS:
        yield
        return
    here = ["taskset", "-c", "1", sys.executable, "-m", "tests.benchmarks.bench_attacks", kind, str(port), str(body)]
    with subprocess.Popen(here, start_new_session=True, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline()  # all are there
            yield
        finally:
            end_group(process.pid, 1.0)


if __name__ == "__main__":
    os.nice(5)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    work = attack(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]).read_bytes())
    with contextlib.suppress(TimeoutError):
        asyncio.run(asyncio.wait_for(work, LONGEST))
