"""The Faust shell of the control lane on a real Kafka: a worker process that is killed, restarted and stopped; and in this
process, what /readyz says when its agents do not get on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client import generate_latest

from penstock.log import Gap, Partition, Send, Topic
from penstock.log.kafka import KafkaLog
from penstock.runtime.agents import Agents
from penstock.runtime.health import application

WORKER = '''
import asyncio, signal, sys
from pathlib import Path
from penstock.runtime.agents import Agents
from penstock.errors import Refused
from penstock.log import Gap, Send
from penstock.log.kafka import KafkaLog

prefix, bootstrap, folder = sys.argv[1:]


class Adder:
    """Adds numbers up; its state is the newest sum, and which numbers are in it."""

    reads = (f"{prefix}.numbers", f"{prefix}.more")
    follows = (f"{prefix}.sums",)

    def __init__(self):
        self.seen, self.sum = set(), 0

    def recall(self, topic, key, value):
        self.seen.add(key)
        self.sum = int(value)

    async def apply(self, topic, key, value):
        if value == b"bad":
            raise Refused("schema", "not a number")
        if value == b"gap":
            raise Gap("records that are needed are gone")
        number = int(value)
        if key in self.seen:
            return []
        await asyncio.sleep(0.002)
        self.seen.add(key)
        self.sum += number
        return [Send(f"{prefix}.sums", key, b"%d" % self.sum)]


async def main():
    log, stop = KafkaLog(bootstrap), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    try:
        await Agents(Adder(), f"{prefix}.adder", bootstrap, log, Path(folder)).run(stop)
    finally:
        await log.close()


asyncio.run(main())
'''

DEADLINE = 60.0


class Worker:
    """A Faust worker as a process of its own."""

    def __init__(self, folder: Path, prefix: str, bootstrap: str) -> None:
        script = folder / "worker.py"
        script.write_text(WORKER)
        self.output = folder / "worker.log"
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(script), prefix, bootstrap, str(folder)], stdout=output, stderr=subprocess.STDOUT
            )

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM; a worker that does not listen in time is killed, and -9 tells."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            return -9


class Scene:
    """Topics of its own on the broker, and what is on them."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.bootstrap, self.folder = bootstrap, folder
        self.prefix = f"adder{os.getpid()}-{time.monotonic_ns()}"
        self.workers: list[Worker] = []

    def work(self) -> Worker:
        worker = Worker(self.folder, self.prefix, self.bootstrap)
        self.workers.append(worker)
        return worker

    async def prepared(self) -> KafkaLog:
        log = KafkaLog(self.bootstrap)
        names = ("numbers", "more", "sums", "numbers.dlq", "more.dlq")
        await log.create([Topic(f"{self.prefix}.{name}", 1, compacted=name == "sums") for name in names])
        return log

    async def read(self, log: KafkaLog, name: str, count: int) -> list[tuple[bytes | None, bytes | None, dict[str, bytes]]]:
        """At least `count` records of a topic, whatever there is by then."""
        reader = await log.reader({Partition(f"{self.prefix}.{name}", 0): 0})
        found: list[tuple[bytes | None, bytes | None, dict[str, bytes]]] = []
        until = time.monotonic() + DEADLINE
        while len(found) < count:
            for batch in await reader.read(1000, 0.5):
                headers = batch.headers or [()] * len(batch)
                found += [(k, v, dict(h)) for k, v, h in zip(batch.keys, batch.values, headers, strict=True)]
            assert time.monotonic() < until, f"{len(found)} of {count} in {name}\n{self.said()}"
        await reader.close()
        return found

    def said(self) -> str:
        return "\n".join(worker.output.read_text()[-3000:] for worker in self.workers[-1:])


@pytest.fixture
def scene(kafka_bootstrap: str, tmp_path: Path) -> Iterator[Scene]:
    made = Scene(kafka_bootstrap, tmp_path)
    yield made
    for worker in made.workers:
        if worker.process.poll() is None:
            worker.kill()


def numbers(prefix: str, topic: str, span: range) -> list[Send]:
    return [Send(f"{prefix}.{topic}", b"%s-%d" % (topic.encode(), n), b"%d" % n) for n in span]


def test_a_bad_record_is_dead_lettered_and_a_worker_stops_when_told(scene: Scene) -> None:
    async def go() -> None:
        log, p = await scene.prepared(), scene.prefix
        bad = [
            Send(f"{p}.numbers", b"x", b"bad", (("traceparent", b"00-1"),)),
            Send(f"{p}.more", b"y", b"\xff\x00 what?"),
            Send(f"{p}.more", None, None),
        ]
        await log.send([*numbers(p, "numbers", range(10)), *bad, *numbers(p, "more", range(5))])
        worker = scene.work()
        sums = await scene.read(log, "sums", 15)
        assert max(int(value or b"") for _, value, _ in sums) == sum(range(10)) + sum(range(5))
        ((key, value, headers),) = await scene.read(log, "numbers.dlq", 1)
        assert (key, value, headers["traceparent"]) == (b"x", b"bad", b"00-1")
        assert (headers["dlq.reason"], headers["dlq.topic"]) == (b"schema", f"{p}.numbers".encode())
        assert headers["dlq.offset"] == b"10"
        odd = await scene.read(log, "more.dlq", 2)
        assert [(key, value) for key, value, _ in odd] == [(b"y", b"\xff\x00 what?"), (None, None)]
        assert [headers["dlq.reason"] for _, _, headers in odd] == [b"failed", b"failed"]
        assert worker.stop() == 0, scene.said()
        await log.close()

    asyncio.run(go())


def test_killed_at_any_moment_a_worker_loses_nothing_and_counts_nothing_twice(scene: Scene) -> None:
    async def go() -> None:
        log, p = await scene.prepared(), scene.prefix
        await log.send(numbers(p, "numbers", range(1, 601)))
        for enough in (100, 300):
            worker = scene.work()
            await scene.read(log, "sums", enough)
            worker.kill()
        worker = scene.work()
        await log.send(numbers(p, "more", range(1, 101)))
        sums = await scene.read(log, "sums", 700)
        assert len({key for key, _, _ in sums}) == 700
        assert int(sums[-1][1] or b"") == sum(range(1, 601)) + sum(range(1, 101))
        values = [int(value or b"") for _, value, _ in sums]
        assert values == sorted(set(values)), "a sum was made twice, or from a state that had lost a number"
        assert worker.stop() == 0, scene.said()
        await log.close()

    asyncio.run(go())


def test_bad_state_ends_the_worker_with_an_error_and_acknowledges_nothing(scene: Scene) -> None:
    async def go() -> None:
        log, p = await scene.prepared(), scene.prefix
        await log.send([*numbers(p, "numbers", range(3)), Send(f"{p}.numbers", b"g", b"gap")])
        for _ in range(2):
            worker = scene.work()
            assert await asyncio.to_thread(worker.process.wait, DEADLINE) == 1, scene.said()
            assert "records that are needed are gone" in scene.said()
        assert len(await scene.read(log, "sums", 3)) == 3
        assert (await log.ends([f"{p}.numbers.dlq"]))[Partition(f"{p}.numbers.dlq", 0)] == 0
        await log.close()

    asyncio.run(go())


class Echo:
    """Sends numbers on. What it has sent is its state; some records are more than it can take."""

    def __init__(self, prefix: str) -> None:
        self.reads: tuple[str, ...] = (f"{prefix}.numbers", f"{prefix}.more")
        self.follows: tuple[str, ...] = (f"{prefix}.sums",)

    def recall(self, topic: str, key: bytes | None, value: bytes | None) -> None: ...

    async def apply(self, topic: str, key: bytes | None, value: bytes | None) -> list[Send]:
        if value == b"hang":
            await asyncio.Event().wait()
        if value == b"gap":
            raise Gap("records that are needed are gone")
        return [Send(self.follows[0], key, value)]


async def until(agents: Agents, status: int, said: str) -> None:
    """Ask /readyz until it answers so."""
    app = application("adder", agents.missing)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://adder") as client:
        deadline = time.monotonic() + DEADLINE
        answer = await client.get("/readyz")
        while answer.status_code != status or said not in answer.text:
            assert time.monotonic() < deadline, answer.text
            await asyncio.sleep(0.05)
            answer = await client.get("/readyz")


@asynccontextmanager
async def at_work(scene: Scene) -> AsyncIterator[tuple[KafkaLog, Agents, asyncio.Task[None]]]:
    """Agents in this process, from their start until they are ready; `sums`, which they follow, is empty."""
    log, stop = await scene.prepared(), asyncio.Event()
    agents = Agents(Echo(scene.prefix), f"{scene.prefix}.echo", scene.bootstrap, log, scene.folder, longest=1.0)
    running = asyncio.create_task(agents.run(stop))
    try:
        assert agents.missing()
        await until(agents, 200, "")
        yield log, agents, running
    finally:
        stop.set()
        await asyncio.wait((running,))
        await log.close()


def test_with_nothing_to_follow_and_nothing_to_do_a_control_is_ready_and_goes_on_being_so(scene: Scene) -> None:
    async def go() -> None:
        async with at_work(scene) as (log, agents, _):
            await log.send(numbers(scene.prefix, "numbers", range(3)))
            assert len(await scene.read(log, "sums", 3)) == 3
            await until(agents, 200, "")
            assert f'penstock_records_out_total{{lane="{scene.prefix}.echo"}} 3.0' in generate_latest().decode()

    asyncio.run(go())


def test_an_agent_that_hangs_is_not_ready_and_says_where_it_stands(scene: Scene) -> None:
    async def go() -> None:
        async with at_work(scene) as (log, agents, _):
            await log.send([*numbers(scene.prefix, "numbers", range(3)), Send(f"{scene.prefix}.numbers", b"h", b"hang")])
            await until(agents, 503, f"{scene.prefix}.numbers/0 stands at 3 of 4 for ")

    asyncio.run(go())


def test_an_agent_that_crashes_is_not_ready_and_ends_the_process_with_one_line(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    async def go() -> None:
        async with at_work(scene) as (log, agents, running):
            await log.send([Send(f"{scene.prefix}.more", b"g", b"gap")])
            await until(agents, 503, "it has stopped: records that are needed are gone")
            with pytest.raises(Gap):
                await running

    asyncio.run(go())
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "stopped" in line]
    assert "Gap: records that are needed are gone" in line
    assert f"{scene.prefix}.more" in line
    assert "mend what the cause says" in line


def test_an_agent_whose_task_dies_is_replaced_and_the_record_is_not_lost(scene: Scene) -> None:
    async def go() -> None:
        async with at_work(scene) as (log, agents, _):
            (actor,) = agents.app.agents[f"{scene.prefix}.echo.{scene.prefix}.numbers"]._actors
            actor.actor_task.cancel()
            await log.send(numbers(scene.prefix, "numbers", range(3)))
            assert len(await scene.read(log, "sums", 3)) == 3
            await until(agents, 200, "")

    asyncio.run(go())
