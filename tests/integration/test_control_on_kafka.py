"""The Faust shell of the control lane on a real Kafka: a worker process that is killed, restarted and stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.log import Partition, Send, Topic
from penstock.log.kafka import KafkaLog

WORKER = '''
import asyncio, signal, sys
from penstock.control import faust_app, serve
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
        await serve(faust_app(Adder(), f"{prefix}.adder", bootstrap, log, folder), stop)
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
        names = [f"{self.prefix}.{name}" for name in ("numbers", "more", "sums", "numbers.dlq", "more.dlq")]
        await log.create([Topic(name, 1) for name in names])
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
